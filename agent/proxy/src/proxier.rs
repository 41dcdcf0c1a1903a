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
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};
use xebec_api::wellknown::labels::{HEADLESS, SERVICE_PROXY_NAME};
use xebec_datapath::lb::LbOp;

use crate::desired::{Context, Desired};
use crate::error::{Error, Result};
use crate::observe::{HealthCheck, HealthCheckChange, NoLocalEndpoints, SyncReport};
use crate::plan::Planner;
use crate::retry::{Retry, WatchRetry};
use crate::sink::LbSink;
use crate::tracker::{Changes, Tracker, key_of};
use crate::types::{NodeView, ProxyConfig, ServiceKey};

/// Events taken together before they are written: bounds the delay of the first one under a flood.
const MAX_EVENTS: usize = 4096;

/// Services beyond which a synchronisation is announced to the runtime as blocking.
const LARGE: usize = 64;

/// When services that did not fit are tried again, though nothing else changed.
const REFUSED_RETRY: Duration = Duration::from_secs(30);

/// The same after a write, which may have made room: slots given back are used again once they have cooled.
const REFUSED_RETRY_SOON: Duration = Duration::from_secs(1);

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
    let selector = format!("!{SERVICE_PROXY_NAME},!{HEADLESS}");
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
    watcher(api, config).backoff(WatchRetry::new(WATCH_RETRY.0, WATCH_RETRY.1)).boxed()
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
    /// The node changed: every service is looked at.
    full: bool,
    /// Services that did not fit.
    refused: HashSet<ServiceKey>,
    /// Services without an endpoint here though a Local policy asks for one.
    no_local: HashMap<ServiceKey, [NoLocalEndpoints; 2]>,
    /// Health checks as the observer knows them.
    health_checks: HashMap<ServiceKey, HealthCheck>,
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
            full: false,
            refused: HashSet::new(),
            no_local: HashMap::new(),
            health_checks: HashMap::new(),
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
                // Ahead of the events, which may never pause.
                () = sleep_until(retry) => self.retry_due(),
                event = services.next() => self.service_event(event)?,
                event = slices.next() => self.slice_event(event)?,
            }
            self.drain(&mut services, &mut slices)?;
            self.synchronise();
            self.tell_applied();
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
            Event::Delete(object) => self.tracker.slice_deleted(object),
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
            self.full = true;
        }
    }

    fn retry_due(&mut self) {
        self.retry = None;
        self.tracker.touch(self.refused.iter().cloned());
        if self.planner.is_none() {
            self.tracker.touch_all();
        }
    }

    /// Writes what changed. Errors are kept for the next retry: old tables serve on meanwhile.
    fn synchronise(&mut self) {
        let listed = self.services.complete && self.slices.complete;
        let fresh = self.planner.is_none();
        if !listed || (!fresh && !self.tracker.has_changes()) {
            return;
        }
        self.config.observer.queued();
        if fresh && self.retry.is_some() {
            return;
        }
        if fresh {
            self.tracker.touch_all();
        }
        let changes = self.tracker.take();
        let started = Instant::now();
        let written = blocking(changes.services.len() > LARGE, || self.write(&changes));
        let mut report = SyncReport {
            first: self.first,
            full: fresh || self.full,
            services: changes.services.len(),
            service_changes: changes.service_changes,
            slice_changes: changes.slice_changes,
            latency: changes.since.unwrap_or(started).elapsed(),
            duration: started.elapsed(),
            trigger_time: changes.trigger_time,
            refused: self.refused.len(),
            ..SyncReport::default()
        };
        match written {
            Ok(operations) => {
                report.operations = operations;
                self.first = false;
                self.full = false;
                self.write_retry.reset();
            }
            Err(error) => {
                warn!(%error, "load-balancing tables are out of step");
                report.error = Some(error.to_string());
                self.planner = None;
                self.tracker.put_back(changes);
                self.retry = self.write_retry.next().map(|wait| Instant::now() + wait);
            }
        }
        for (sum, family) in self.no_local.values().flat_map(|counts| counts.iter().zip(0..)) {
            report.no_local_endpoints[family].add(*sum);
        }
        debug!(?report, "synchronised");
        self.config.observer.synced(&report);
    }

    fn tell_applied(&mut self) {
        // A list that is being received shows old objects beside what it does not show yet.
        if self.planner.is_some()
            && !self.tracker.has_changes()
            && self.slices.seen.is_none()
            && let Some(applied) = self.tracker.written()
        {
            self.config.observer.applied(applied);
        }
    }

    /// Plans and applies; says how many operations that took.
    fn write(&mut self, changes: &Changes) -> Result<usize> {
        let fresh = self.planner.is_none();
        let mut planner = match self.planner.take() {
            Some(planner) => planner,
            None => Planner::restore(self.sink.limits(), &self.sink.snapshot().map_err(Error::Snapshot)?),
        };
        let waiters = planner.waiters(&changes.services);
        let keys = changes.services.iter().cloned().chain(waiters);
        let desired: Vec<_> = keys.map(|key| self.desired(key)).collect();
        let checks: Vec<_> = desired
            .iter()
            .map(|(key, desired)| (key.clone(), desired.as_ref().and_then(|desired| desired.health_check)))
            .collect();
        let planned =
            desired.into_iter().filter(|(key, desired)| desired.is_some() || planner.knows(key)).collect();
        let plan = planner.plan(planned, Instant::now());
        let refused = plan.refused;
        let mut operations = self.apply(&plan.ops)?;
        if fresh {
            operations += self.apply(&planner.sweep(Instant::now()))?;
        }
        self.planner = Some(planner);
        self.note_refused(changes, refused, operations > 0);
        self.tell_health_checks(checks);
        Ok(operations)
    }

    fn desired(&mut self, key: ServiceKey) -> (ServiceKey, Option<Desired>) {
        let context = Context {
            node_name: &self.config.node_name,
            node: &self.node,
            external_ips: self.config.external_ips,
        };
        let desired = self.tracker.desired(&key, context);
        match desired.as_ref().map(|desired| desired.no_local_endpoints) {
            Some(counts) if !counts.iter().all(|count| count.is_zero()) => {
                self.no_local.insert(key.clone(), counts);
            }
            _ => drop(self.no_local.remove(&key)),
        }
        (key, desired)
    }

    fn apply(&self, ops: &[LbOp]) -> Result<usize> {
        if !ops.is_empty() {
            self.sink.apply(ops).map_err(Error::Apply)?;
        }
        Ok(ops.len())
    }

    /// Says once that the tables are full, not once per service and attempt.
    fn note_refused(&mut self, changes: &Changes, refused: Vec<(ServiceKey, Error)>, wrote: bool) {
        let full = !self.refused.is_empty();
        self.refused.retain(|key| !changes.services.contains(key));
        if let Some((key, error)) = refused.first()
            && !full
        {
            error!(services = refused.len(), first = %key, %error,
                   "the load-balancing tables are full: these services keep the endpoints they had, new ones have none");
        }
        self.refused.extend(refused.into_iter().map(|(key, _)| key));
        if self.refused.is_empty() {
            if full {
                info!("every service fits the load-balancing tables again");
            }
            return;
        }
        let due = Instant::now() + if wrote { REFUSED_RETRY_SOON } else { REFUSED_RETRY };
        self.retry = Some(self.retry.map_or(due, |earlier| earlier.min(due)));
    }

    fn tell_health_checks(&mut self, checks: Vec<(ServiceKey, Option<HealthCheck>)>) {
        let mut changes = Vec::new();
        for (key, state) in checks {
            let old = match state {
                Some(state) => self.health_checks.insert(key.clone(), state),
                None => self.health_checks.remove(&key),
            };
            if old != state {
                let (namespace, name) = key.parts();
                changes.push(HealthCheckChange { namespace: namespace.into(), name: name.into(), state });
            }
        }
        if !changes.is_empty() {
            self.config.observer.health_checks(&changes);
        }
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
