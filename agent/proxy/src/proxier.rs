//! The loop: watches in, plans out.
//!
//! In: a client, [`ProxyConfig`], an [`LbSink`]. Out: tables that follow the cluster. Nothing is written before both
//! initial lists are complete; then each change is written at once, together with whatever arrived meanwhile. The loop
//! survives gaps of the watches (a list is compared, not trusted to be whole by itself) and failing writes (the tables are
//! read again and everything is planned anew). The API server being away changes nothing.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::WatchStreamExt;
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::desired::{Context, Desired};
use crate::error::{Error, Result};
use crate::plan::{Plan, Planner};
use crate::retry::Retry;
use crate::service::{HEADLESS_LABEL, PROXY_NAME_LABEL};
use crate::sink::LbSink;
use crate::tracker::{Changes, Tracker, key_of};
use crate::types::{NodeView, ProxyConfig, ServiceKey, SyncReport};

/// Events taken together before they are written: bounds the delay of the first one under a flood.
const MAX_EVENTS: usize = 4096;

/// Services beyond which a synchronisation is announced to the runtime as blocking.
const LARGE: usize = 64;

/// When services that did not fit are tried again: room comes only from other services' going.
const REFUSED_RETRY: Duration = Duration::from_secs(30);

/// First and longest wait after a failed write.
const WRITE_RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));

/// First and longest wait after a failed watch.
const WATCH_RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));

/// Keeps the tables in step with the cluster until `shutdown`. The tables are left as they are: traffic goes on.
///
/// # Errors
/// Only where going on makes no sense: a watch or the source of [`NodeView`]s ended. Failures of the API server and of
/// the sink are tried again.
pub async fn run(
    client: Client,
    config: ProxyConfig,
    sink: impl LbSink,
    shutdown: CancellationToken,
) -> Result<()> {
    let selector = format!("!{PROXY_NAME_LABEL},!{HEADLESS_LABEL}");
    let watch = watcher::Config::default().labels(&selector);
    let services = objects(Api::<Service>::all(client.clone()), watch.clone());
    let slices = objects(Api::<EndpointSlice>::all(client), watch);
    Proxier::new(config, sink).run(services, slices, shutdown).await
}

type Events<K> = BoxStream<'static, watcher::Result<Event<K>>>;

fn objects<K>(api: Api<K>, config: watcher::Config) -> Events<K>
where
    K: kube::Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned + Send + 'static,
{
    watcher(api, config).backoff(Retry::new(WATCH_RETRY.0, WATCH_RETRY.1)).boxed()
}

struct Proxier<S> {
    config: ProxyConfig,
    node: NodeView,
    sink: S,
    tracker: Tracker,
    services: Listing,
    slices: Listing,
    /// What the tables hold; none before the first synchronisation and after a failed write.
    planner: Option<Planner>,
    first: bool,
    /// Services that did not fit.
    refused: HashSet<ServiceKey>,
    /// Services without an endpoint here though a Local policy asks for one.
    no_local: HashMap<ServiceKey, [usize; 2]>,
    retry: Option<Instant>,
    write_retry: Retry,
}

/// How far a watch's list has come.
#[derive(Default)]
struct Listing {
    /// A list was complete once.
    complete: bool,
    /// Objects of the list that is running.
    seen: Option<HashSet<ServiceKey>>,
}

impl<S: LbSink> Proxier<S> {
    fn new(config: ProxyConfig, sink: S) -> Self {
        let node = config.node.borrow().clone();
        Self {
            node,
            tracker: Tracker::new(&config.node_name),
            config,
            sink,
            services: Listing::default(),
            slices: Listing::default(),
            planner: None,
            first: true,
            refused: HashSet::new(),
            no_local: HashMap::new(),
            retry: None,
            write_retry: Retry::new(WRITE_RETRY.0, WRITE_RETRY.1),
        }
    }

    async fn run(
        mut self,
        mut services: Events<Service>,
        mut slices: Events<EndpointSlice>,
        shutdown: CancellationToken,
    ) -> Result<()> {
        loop {
            let retry = self.retry;
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return Ok(()),
                changed = self.config.node.changed() => match changed {
                    Ok(()) => self.node_changed(),
                    Err(_) => return Err(Error::Task("nobody tells about the node any more".into())),
                },
                event = services.next() => self.service_event(event)?,
                event = slices.next() => self.slice_event(event)?,
                () = sleep_until(retry) => self.retry_due(),
            }
            self.drain(&mut services, &mut slices)?;
            self.synchronise();
        }
    }

    /// Takes what is there already, so that a burst is written as one.
    fn drain(&mut self, services: &mut Events<Service>, slices: &mut Events<EndpointSlice>) -> Result<()> {
        for _ in 0..MAX_EVENTS {
            if let Some(event) = services.next().now_or_never() {
                self.service_event(event)?;
            } else if let Some(event) = slices.next().now_or_never() {
                self.slice_event(event)?;
            } else {
                break;
            }
        }
        Ok(())
    }

    fn service_event(&mut self, event: Option<watcher::Result<Event<Service>>>) -> Result<()> {
        let Some(event) = next(event, "Services")? else { return Ok(()) };
        match &event {
            Event::Apply(object) | Event::InitApply(object) => self.tracker.apply_service(object),
            Event::Delete(object) => self.tracker.delete_service(&key_of(object)),
            Event::Init | Event::InitDone => {}
        }
        if let Some(listed) = self.services.advance(&event) {
            self.tracker.retain_services(&listed);
        }
        Ok(())
    }

    fn slice_event(&mut self, event: Option<watcher::Result<Event<EndpointSlice>>>) -> Result<()> {
        let Some(event) = next(event, "EndpointSlices")? else { return Ok(()) };
        match &event {
            Event::Apply(object) | Event::InitApply(object) => self.tracker.apply_slice(object),
            Event::Delete(object) => self.tracker.delete_slice(&key_of(object)),
            Event::Init | Event::InitDone => {}
        }
        if let Some(listed) = self.slices.advance(&event) {
            self.tracker.retain_slices(&listed);
        }
        Ok(())
    }

    fn node_changed(&mut self) {
        let node = self.config.node.borrow_and_update().clone();
        if node != self.node {
            info!(?node, "node changed: recomputing every service");
            self.node = node;
            self.tracker.touch_all();
        }
    }

    fn retry_due(&mut self) {
        self.retry = None;
        self.tracker.touch(self.refused.drain());
        if self.planner.is_none() {
            self.tracker.touch_all();
        }
    }

    /// Writes what changed. Errors are kept for the next retry: old tables serve on meanwhile.
    fn synchronise(&mut self) {
        if !self.services.complete
            || !self.slices.complete
            || (self.planner.is_none() && self.retry.is_some())
        {
            return;
        }
        if self.planner.is_some() && !self.tracker.has_changes() {
            return;
        }
        if self.planner.is_none() {
            self.tracker.touch_all();
        }
        let changes = self.tracker.take();
        let started = changes.since.unwrap_or_else(Instant::now);
        let mut report = SyncReport {
            first: self.first,
            services: changes.services.len(),
            service_changes: changes.service_changes,
            slice_changes: changes.slice_changes,
            trigger_time: changes.trigger_time,
            ..SyncReport::default()
        };
        match blocking(changes.services.len() > LARGE, || self.write(&changes)) {
            Ok(operations) => {
                report.operations = operations;
                self.first = false;
                self.write_retry.reset();
            }
            Err(error) => {
                warn!(%error, "load-balancing tables are out of step");
                report.error = Some(error.to_string());
                self.planner = None;
                self.retry = self.write_retry.next().map(|wait| Instant::now() + wait);
            }
        }
        report.duration = started.elapsed();
        report.refused = self.refused.len();
        for counts in self.no_local.values() {
            report.no_local_endpoints[0] += counts[0];
            report.no_local_endpoints[1] += counts[1];
        }
        debug!(?report, "synchronised");
        self.config.observer.synced(&report);
    }

    /// Plans and applies; says how many operations that took.
    fn write(&mut self, changes: &Changes) -> Result<usize> {
        let fresh = self.planner.is_none();
        let mut planner = match self.planner.take() {
            Some(planner) => planner,
            None => Planner::restore(self.sink.limits(), &self.sink.snapshot().map_err(Error::Snapshot)?),
        };
        self.refused.retain(|key| !changes.services.contains(key));
        let waiters = planner.waiters(&changes.services);
        let keys = changes.services.iter().cloned().chain(waiters);
        let desired: Vec<_> =
            keys.map(|key| self.desired(key)).filter(|(key, d)| d.is_some() || planner.knows(key)).collect();
        let plan = planner.plan(desired, Instant::now());
        let mut operations = self.apply(plan)?;
        if fresh {
            let swept = planner.sweep(Instant::now());
            operations += self.apply(swept)?;
        }
        self.planner = Some(planner);
        Ok(operations)
    }

    fn desired(&mut self, key: ServiceKey) -> (ServiceKey, Option<Desired>) {
        let context = Context {
            node_name: &self.config.node_name,
            node: &self.node,
            external_ips: self.config.external_ips,
        };
        let desired = self.tracker.desired(&key, context);
        match desired.as_ref().map(|d| d.no_local_endpoints) {
            None | Some([0, 0]) => self.no_local.remove(&key),
            Some(counts) => self.no_local.insert(key.clone(), counts),
        };
        (key, desired)
    }

    fn apply(&mut self, plan: Plan) -> Result<usize> {
        for (key, error) in plan.refused {
            warn!(service = %key, %error, "service does not fit the tables");
            self.refused.insert(key);
            self.retry.get_or_insert_with(|| Instant::now() + REFUSED_RETRY);
        }
        if !plan.ops.is_empty() {
            self.sink.apply(&plan.ops).map_err(Error::Apply)?;
        }
        Ok(plan.ops.len())
    }
}

impl Listing {
    /// Follows a list; at its end returns everything it showed.
    fn advance<K: kube::ResourceExt>(&mut self, event: &Event<K>) -> Option<HashSet<ServiceKey>> {
        match event {
            Event::Init => self.seen = Some(HashSet::new()),
            Event::InitApply(object) => {
                self.seen.get_or_insert_default().insert(key_of(object));
            }
            Event::InitDone => {
                self.complete = true;
                return Some(self.seen.take().unwrap_or_default());
            }
            Event::Apply(_) | Event::Delete(_) => {}
        }
        None
    }
}

/// A failing watch is tried again by itself; one that ends is a bug.
fn next<K>(event: Option<watcher::Result<Event<K>>>, what: &str) -> Result<Option<Event<K>>> {
    match event {
        Some(Ok(event)) => Ok(Some(event)),
        Some(Err(error)) => {
            warn!(%error, "watching {what}: trying again");
            Ok(None)
        }
        None => Err(Error::Task(format!("the watch of {what} ended"))),
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Lets the runtime move other tasks away from this thread where that is possible.
fn blocking<T>(large: bool, work: impl FnOnce() -> T) -> T {
    if large && Handle::current().runtime_flavor() == RuntimeFlavor::MultiThread {
        tokio::task::block_in_place(work)
    } else {
        work()
    }
}

#[cfg(test)]
mod tests;
