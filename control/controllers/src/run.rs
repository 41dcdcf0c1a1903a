//! Starts every controller and hands the queue's keys to them.
//!
//! In: client, configuration, shutdown. Out: nothing until shutdown. One loop takes keys from the queue; each reconcile
//! is a task of its own with a deadline, and a panic in it is that key's failure, not the process's.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::ReplicationController;
use kube::Client;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::{ConfigError, ControllersConfig};
use crate::context::{Context, Controller, Informers, Outcome};
use crate::cron_job::CronJobController;
use crate::daemonset::DaemonSetController;
use crate::deployment::DeploymentController;
use crate::endpoints::EndpointsController;
use crate::endpointslice::EndpointSliceController;
use crate::error::{Error, Retry};
use crate::garbage_collector::GarbageCollector;
use crate::job::JobController;
use crate::key::{ControllerName, Request};
use crate::metadata_watch::{MetadataWatches, Observer};
use crate::namespace::NamespaceController;
use crate::node_ipam::NodeIpam;
use crate::node_lifecycle::NodeLifecycle;
use crate::pod_disruption_budget::DisruptionController;
use crate::pod_gc::PodGarbageCollector;
use crate::recorder::Recorder;
use crate::replicaset::ReplicaSetController;
use crate::root_ca::RootCaPublisher;
use crate::service_account::ServiceAccountController;
use crate::stale_disruption::StaleDisruption;
use crate::statefulset::StatefulSetController;
use crate::taint_eviction::TaintEviction;
use crate::ttl_after_finished::TtlAfterFinished;
use crate::workqueue::{QueueLimits, WorkQueue};

/// No reconcile takes longer: the API answers or it does not.
const RECONCILE_DEADLINE: Duration = Duration::from_secs(120);
/// How long reconciles under way may go on after shutdown.
const DRAIN: Duration = Duration::from_secs(5);
/// How often the wait for the caches is said to take long.
const SYNC_REMINDER: Duration = Duration::from_secs(10);

/// Failures of one key from which on they are logged as a warning: the first few are conflicts that solve themselves.
const QUIET_FAILURES: u32 = 3;

/// Why the controllers do not run, or no longer.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A bug: to be started anew.
    #[error("a watch or the event writer ended before its time: {0}")]
    TaskEnded(String),
}

type Controllers = Vec<(ControllerName, Arc<dyn Controller>)>;

/// Runs all controllers until `shutdown`.
///
/// # Errors
/// On a configuration that cannot work, and when a watch ends or panics before `shutdown`.
pub async fn run(
    client: Client,
    config: ControllersConfig,
    shutdown: CancellationToken,
) -> Result<(), RunError> {
    config.validate()?;
    let mut informers = Informers::new(&client);
    let (recorder, event_writer) = Recorder::new(client.clone());
    let queue = Arc::new(WorkQueue::new(QueueLimits::default()));
    let context = Context { client, caches: informers.caches(), queue: queue.clone(), recorder };
    let (controllers, observers) = build(&context, &mut informers, &config);
    let synced = informers.synced();
    let metadata = MetadataWatches::new(
        context.client.clone(),
        observers,
        synced.iter().map(|(_, synced)| synced.clone()).collect(),
    );

    let mut tasks = JoinSet::new();
    tasks.spawn(event_writer.run(shutdown.clone()));
    informers.spawn(&mut tasks, &shutdown);
    tasks.spawn(metadata.run(shutdown.clone()));
    for (kind, mut synced) in synced {
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                error = first_failure(&mut tasks, &shutdown) => return Err(error),
                _ = synced.wait_for(|synced| *synced) => break,
                () = tokio::time::sleep(SYNC_REMINDER) => {
                    tracing::info!(kind, "controllers wait for the first list");
                }
            }
        }
    }
    tracing::info!("controllers run");
    let ended = tokio::select! {
        () = work(&queue, &controllers, config.workers, &shutdown) => Ok(()),
        error = first_failure(&mut tasks, &shutdown) => Err(error),
    };
    tasks.shutdown().await;
    ended
}

/// Informers go on until shutdown. One that ends before leaves a cache that never changes again, on which nothing may
/// be decided.
async fn first_failure(tasks: &mut JoinSet<()>, shutdown: &CancellationToken) -> RunError {
    let ended = tasks.join_next().await;
    if shutdown.is_cancelled() {
        return std::future::pending().await;
    }
    let how = match ended {
        Some(Err(error)) => error.to_string(),
        Some(Ok(())) | None => "it returned".to_owned(),
    };
    RunError::TaskEnded(how)
}

/// The controllers, and what the metadata watches tell of them.
fn build(
    context: &Context,
    informers: &mut Informers,
    config: &ControllersConfig,
) -> (Controllers, Vec<Observer>) {
    let (collector, collector_observer) = GarbageCollector::new(context, informers);
    let (namespaces, namespaces_observer) = NamespaceController::new(context, informers);
    let root_ca = config.root_ca.clone();
    let controllers: Controllers = vec![
        (ControllerName::CronJob, Arc::new(CronJobController::new(context, informers))),
        (ControllerName::DaemonSet, Arc::new(DaemonSetController::new(context, informers))),
        (ControllerName::Deployment, Arc::new(DeploymentController::new(context, informers))),
        (ControllerName::Disruption, Arc::new(DisruptionController::new(context, informers))),
        (ControllerName::Endpoints, Arc::new(EndpointsController::new(context, informers))),
        (ControllerName::EndpointSlice, Arc::new(EndpointSliceController::new(context, informers))),
        (ControllerName::GarbageCollector, Arc::new(collector)),
        (ControllerName::Job, Arc::new(JobController::new(context, informers, config))),
        (ControllerName::Namespace, Arc::new(namespaces)),
        (ControllerName::NodeIpam, Arc::new(NodeIpam::new(context, informers, config))),
        (ControllerName::NodeLifecycle, Arc::new(NodeLifecycle::new(context, informers, config))),
        (ControllerName::PodGarbageCollector, Arc::new(PodGarbageCollector::new(context, informers, config))),
        (ControllerName::ReplicaSet, Arc::new(ReplicaSetController::<ReplicaSet>::new(context, informers))),
        (
            ControllerName::ReplicationController,
            Arc::new(ReplicaSetController::<ReplicationController>::new(context, informers)),
        ),
        (
            ControllerName::RootCaCertificatePublisher,
            Arc::new(RootCaPublisher::new(context, informers, root_ca)),
        ),
        (ControllerName::ServiceAccount, Arc::new(ServiceAccountController::new(context, informers))),
        (ControllerName::StaleDisruption, Arc::new(StaleDisruption::new(context, informers))),
        (ControllerName::StatefulSet, Arc::new(StatefulSetController::new(context, informers))),
        (ControllerName::TaintEviction, Arc::new(TaintEviction::new(context, informers))),
        (ControllerName::TtlAfterFinished, Arc::new(TtlAfterFinished::new(context, informers))),
    ];
    (controllers, vec![collector_observer, namespaces_observer])
}

async fn work(
    queue: &Arc<WorkQueue<Request>>,
    controllers: &Controllers,
    workers: usize,
    shutdown: &CancellationToken,
) {
    let permits = Arc::new(Semaphore::new(workers));
    let mut runs = JoinSet::new();
    loop {
        while runs.try_join_next().is_some() {}
        let next = async {
            let permit = permits.clone().acquire_owned().await.ok()?;
            Some((permit, queue.get().await?))
        };
        let (permit, request) = tokio::select! {
            () = shutdown.cancelled() => break,
            next = next => match next {
                Some(next) => next,
                None => break,
            },
        };
        if queue.take_overflow() {
            tracing::warn!("the workqueue was full; every object is looked at again");
            controllers.iter().for_each(|(_, controller)| controller.enqueue_all());
        }
        let Some((_, controller)) = controllers.iter().find(|(name, _)| *name == request.controller) else {
            queue.done(&request);
            continue;
        };
        let (queue, controller) = (queue.clone(), controller.clone());
        runs.spawn(async move {
            run_one(&queue, controller.as_ref(), request).await;
            drop(permit);
        });
    }
    queue.close();
    let drained = tokio::time::timeout(DRAIN, async { while runs.join_next().await.is_some() {} }).await;
    if drained.is_err() {
        tracing::warn!("reconciles still under way are cut off");
    }
}

async fn run_one(queue: &WorkQueue<Request>, controller: &dyn Controller, request: Request) {
    let reconcile = AssertUnwindSafe(controller.reconcile(request.key.clone())).catch_unwind();
    let result = match tokio::time::timeout(RECONCILE_DEADLINE, reconcile).await {
        Ok(Ok(result)) => result,
        Ok(Err(panic)) => Err(Error::Panicked(panic_message(panic.as_ref()))),
        Err(_) => Err(Error::TimedOut(RECONCILE_DEADLINE)),
    };
    let (name, key) = (request.controller.as_str(), &request.key);
    match result {
        Ok(outcome) => {
            queue.forget(&request);
            if let Outcome::After(delay) = outcome {
                queue.add_after(request.clone(), delay);
            }
        }
        Err(error) => match error.retry() {
            Retry::Backoff => {
                if queue.failures(&request) < QUIET_FAILURES || error.is_conflict() {
                    tracing::debug!(controller = name, %key, %error, "reconcile failed, trying again");
                } else {
                    tracing::warn!(controller = name, %key, %error, "reconcile failed, trying again");
                }
                queue.add_rate_limited(request.clone());
            }
            Retry::After(delay) => {
                tracing::debug!(controller = name, %key, %error, "reconcile waits");
                queue.add_after(request.clone(), delay);
            }
            Retry::OnChange => {
                tracing::warn!(controller = name, %key, %error, "reconcile waits for the object to change");
                queue.forget(&request);
            }
        },
    }
    queue.done(&request);
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "without a message".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::ObjectKey;
    use futures::future::BoxFuture;
    use std::sync::atomic::{AtomicUsize, Ordering};

    struct Stub {
        runs: AtomicUsize,
        result: fn(usize) -> Result<Outcome, Error>,
    }

    impl Controller for Stub {
        fn reconcile(&self, _: ObjectKey) -> BoxFuture<'_, Result<Outcome, Error>> {
            let run = self.runs.fetch_add(1, Ordering::SeqCst);
            async move { (self.result)(run) }.boxed()
        }

        fn enqueue_all(&self) {}
    }

    /// Reconciles one key for a virtual minute; how often it ran.
    async fn runs_in_a_minute(result: fn(usize) -> Result<Outcome, Error>) -> usize {
        let queue = Arc::new(WorkQueue::new(QueueLimits::default()));
        let stub = Arc::new(Stub { runs: AtomicUsize::new(0), result });
        let controllers: Controllers = vec![(ControllerName::Deployment, stub.clone())];
        queue.add(Request { controller: ControllerName::Deployment, key: ObjectKey::new("a", "b") });
        let shutdown = CancellationToken::new();
        let stop = shutdown.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(60)).await;
            stop.cancel();
        });
        work(&queue, &controllers, 2, &shutdown).await;
        stub.runs.load(Ordering::SeqCst)
    }

    #[tokio::test]
    async fn a_watch_that_ends_before_its_time_is_an_error_and_at_shutdown_none() {
        let (mut tasks, shutdown) = (JoinSet::new(), CancellationToken::new());
        tasks.spawn(async { panic!("planted") });
        assert!(first_failure(&mut tasks, &shutdown).await.to_string().contains("planted"));
        shutdown.cancel();
        tasks.spawn(async {});
        assert!(first_failure(&mut tasks, &shutdown).now_or_never().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn key_runs_once_when_it_succeeds() {
        assert_eq!(runs_in_a_minute(|_| Ok(Outcome::Done)).await, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn key_comes_back_when_asked_to() {
        let again = |run| Ok(if run < 3 { Outcome::After(Duration::from_secs(10)) } else { Outcome::Done });
        assert_eq!(runs_in_a_minute(again).await, 4);
    }

    #[tokio::test(start_paused = true)]
    async fn failing_and_panicking_keys_back_off() {
        let not_yet = |_| Err(Error::NotYet { reason: "x".to_owned(), after: Duration::from_secs(25) });
        assert_eq!(runs_in_a_minute(not_yet).await, 3);
        let runs = runs_in_a_minute(|_| panic!("a bug")).await;
        assert!((12..=16).contains(&runs), "5 ms doubled up to a minute, not a busy loop: {runs}");
    }

    #[tokio::test(start_paused = true)]
    async fn key_that_cannot_work_waits_for_a_change() {
        let invalid =
            |_| Err(Error::Invalid { object: "x".to_owned(), field: "spec", reason: "bad".to_owned() });
        assert_eq!(runs_in_a_minute(invalid).await, 1);
    }
}
