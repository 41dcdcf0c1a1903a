//! The scheduler's loop: observations in, binds out.
//!
//! In: client, configuration, shutdown. Out: bindings, Events, conditions; nothing until shutdown. Observations and
//! outcomes of binds come before the next decision, so that each rests on the newest state.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Binding, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use kube::core::Status;
use kube::{Api, Client};
use tokio::sync::mpsc::error::TryRecvError;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use xebec_api::wellknown::reasons::pod::UNSCHEDULABLE;

use crate::config::SchedulerConfig;
use crate::error::WriteError;
use crate::outbox::{Notice, Outbox};
use crate::pod_info::PodInfo;
use crate::preemption::Search;
use crate::scheduler::{Decision, Scheduler};
use crate::victims::{Preempted, preempt};
use crate::watches;

const BIND_TIMEOUT: Duration = Duration::from_secs(30);
/// Upstream's reason when scheduling failed for no reason of the pod's.
const SCHEDULER_ERROR: &str = "SchedulerError";
/// Longest sleep: assumed pods have a time limit.
const EXPIRY_CHECK: Duration = Duration::from_secs(30);
/// Decisions in a row before other tasks of the thread get their turn.
const BURST: usize = 64;

struct BindOutcome {
    pod: Arc<PodInfo>,
    node: String,
    result: Result<(), WriteError>,
}

/// Runs the scheduler until `shutdown`.
///
/// With several control planes it must lead before it runs: its caller starts it when it leads and cancels `shutdown`
/// when it does not.
pub async fn run(client: Client, config: SchedulerConfig, shutdown: CancellationToken) {
    let mut tasks = JoinSet::new();
    let (outbox, postman) = Outbox::new(client.clone(), config.scheduler_name.clone());
    tasks.spawn(postman.run(shutdown.clone()));
    let mut observations = watches::spawn(&client, &shutdown, &mut tasks);
    let mut scheduler = Scheduler::new(config.scheduler_name.clone(), rand::random());
    let mut binds: JoinSet<BindOutcome> = JoinSet::new();
    let mut evictions: JoinSet<Preempted> = JoinSet::new();
    let mut announced = false;

    loop {
        loop {
            match observations.try_recv() {
                Ok(observation) => scheduler.observe(observation, Instant::now()),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return,
            }
        }
        while let Some(outcome) = binds.try_join_next() {
            settle(&mut scheduler, &outbox, outcome);
        }
        while let Some(outcome) = evictions.try_join_next() {
            settle_preemption(&mut scheduler, outcome);
        }
        scheduler.tick(Instant::now());
        if scheduler.is_synced() && !std::mem::replace(&mut announced, true) {
            tracing::info!(name = %config.scheduler_name, "scheduler runs");
        }
        let mut decided = 0;
        while decided < BURST && binds.len() + evictions.len() < config.parallel_binds && scheduler.has_work()
        {
            match scheduler.schedule_next(Instant::now()) {
                Some(Decision::Bind { pod, node }) => drop(binds.spawn(bind(client.clone(), pod, node))),
                Some(Decision::Unschedulable { pod, diagnosis, search }) => {
                    let message = diagnosis.message(&search);
                    tracing::debug!(%pod, %message, "no node fits");
                    let nominated = nominated_node(&pod, &search);
                    if let Search::Found(preemption) = search {
                        let (pod, outbox) = (pod.clone(), outbox.clone());
                        let name = config.scheduler_name.clone();
                        evictions.spawn(preempt(client.clone(), outbox, name, pod, preemption));
                    }
                    outbox.post(Notice::Failed { pod, reason: UNSCHEDULABLE, message, nominated });
                }
                None => break,
            }
            decided += 1;
        }
        if decided == BURST {
            tokio::task::yield_now().await;
            continue;
        }
        let wake = scheduler.next_tick().unwrap_or_else(|| Instant::now() + EXPIRY_CHECK);
        let wake = wake.min(Instant::now() + EXPIRY_CHECK);
        tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            observation = observations.recv() => match observation {
                Some(observation) => scheduler.observe(observation, Instant::now()),
                None => break,
            },
            Some(outcome) = binds.join_next() => settle(&mut scheduler, &outbox, outcome),
            Some(outcome) = evictions.join_next() => settle_preemption(&mut scheduler, outcome),
            // Watches go on until shutdown: without one of them every decision rests on an old cluster.
            Some(ended) = tasks.join_next() => {
                tracing::error!(?ended, "a watch of the scheduler ended before its time");
                break;
            }
            () = tokio::time::sleep_until(wake) => {}
        }
    }
    // Binds under way either happen or do not; the next start reads from the API which.
    binds.shutdown().await;
    evictions.shutdown().await;
    tasks.shutdown().await;
}

/// What the pod's status is to say of the node where room is made for it; `None`: what it says already.
fn nominated_node(pod: &PodInfo, search: &Search) -> Option<Option<String>> {
    match search {
        Search::Found(preemption) => Some(Some(preemption.node.clone())),
        Search::VictimsLeave => None,
        Search::Nothing | Search::Never => pod.nominated_node.is_some().then_some(None),
    }
}

fn settle_preemption(scheduler: &mut Scheduler, outcome: Result<Preempted, tokio::task::JoinError>) {
    match outcome {
        Ok(Preempted { result: Ok(()), .. }) => {}
        Ok(Preempted { pod, result: Err(error) }) => {
            tracing::warn!(%pod, %error, "pods that were to make room could not be deleted");
            scheduler.preemption_failed(&pod.uid, Instant::now());
        }
        Err(error) => tracing::error!(%error, "a preemption ended without an outcome"),
    }
}

async fn bind(client: Client, pod: Arc<PodInfo>, node: String) -> BindOutcome {
    let binding = Binding {
        metadata: ObjectMeta {
            name: Some(pod.name.clone()),
            namespace: Some(pod.namespace.clone()),
            // A pod of the same name that is not this one is refused.
            uid: Some(pod.uid.to_string()),
            ..ObjectMeta::default()
        },
        target: ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Node".to_owned()),
            name: Some(node.clone()),
            ..ObjectReference::default()
        },
    };
    let api: Api<Pod> = Api::namespaced(client, &pod.namespace);
    let params = PostParams::default();
    let request = api.create_subresource::<_, Status>("binding", &pod.name, &params, &binding);
    let result = match tokio::time::timeout(BIND_TIMEOUT, request).await {
        Ok(result) => result.map(drop).map_err(WriteError::from),
        Err(_) => Err(WriteError::TimedOut(BIND_TIMEOUT)),
    };
    BindOutcome { pod, node, result }
}

fn settle(scheduler: &mut Scheduler, outbox: &Outbox, outcome: Result<BindOutcome, tokio::task::JoinError>) {
    let outcome = match outcome {
        Ok(outcome) => outcome,
        Err(error) => {
            // The pod stays assumed and in flight; a restart of the process would find it. A bind cannot panic.
            tracing::error!(%error, "a bind ended without an outcome");
            return;
        }
    };
    let BindOutcome { pod, node, result } = outcome;
    match result {
        Ok(()) => {
            tracing::debug!(%pod, %node, "bound");
            scheduler.bound(&pod.uid, Instant::now());
            outbox.post(Notice::Scheduled { pod, node });
        }
        Err(error) => {
            scheduler.bind_failed(&pod.uid, Instant::now());
            if error.is_not_found() {
                tracing::debug!(%pod, %node, "the pod went before it could be bound");
                return;
            }
            tracing::warn!(%pod, %node, %error, "bind failed");
            let message = format!("running Bind plugin \"DefaultBinder\": {error}");
            outbox.post(Notice::Failed { pod, reason: SCHEDULER_ERROR, message, nominated: None });
        }
    }
}
