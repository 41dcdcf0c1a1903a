//! What the scheduler sees of the cluster, as one stream of observations in order.
//!
//! In: list and watch of Pods, Nodes, Services, Namespaces and PodDisruptionBudgets. Out: [`Observation`]s on a bounded channel; a slow scheduler slows
//! the watches down, it does not grow a queue.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use futures::StreamExt;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Service};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use xebec_api::labels::Selector;

use crate::budgets::Budget;
use crate::pod_info::PodInfo;

const BUFFER: usize = 1024;

/// One event of one watch.
#[derive(Debug)]
pub(crate) enum Observation {
    Pod(Seen<Arc<PodInfo>>),
    Node(Seen<Box<Node>>),
    Service(Seen<ServiceFacts>),
    Namespace(Seen<NamespaceFacts>),
    Budget(Seen<Budget>),
}

/// What a watch said.
#[derive(Debug)]
pub(crate) enum Seen<T> {
    /// A complete list follows.
    ListBegins,
    Listed(T),
    /// What was not listed is gone.
    ListEnds,
    Changed(T),
    Deleted(T),
}

/// What spreading needs to know of a Service.
#[derive(Debug)]
pub(crate) struct ServiceFacts {
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// `None` when it selects no pods.
    pub(crate) selector: Option<Selector>,
}

/// What pod affinity needs to know of a Namespace.
#[derive(Debug)]
pub(crate) struct NamespaceFacts {
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
}

impl NamespaceFacts {
    fn of(namespace: Namespace) -> Self {
        let meta = namespace.metadata;
        Self { name: meta.name.unwrap_or_default(), labels: meta.labels.unwrap_or_default() }
    }
}

impl ServiceFacts {
    fn of(service: &Service) -> Self {
        let selector = service.spec.as_ref().and_then(|spec| spec.selector.as_ref());
        Self {
            namespace: service.metadata.namespace.clone().unwrap_or_default(),
            name: service.metadata.name.clone().unwrap_or_default(),
            selector: selector.filter(|labels| !labels.is_empty()).map(Selector::from_map),
        }
    }
}

/// Starts the watches.
pub(crate) fn spawn(
    client: &Client,
    shutdown: &CancellationToken,
    tasks: &mut JoinSet<()>,
) -> mpsc::Receiver<Observation> {
    let (sender, receiver) = mpsc::channel(BUFFER);
    tasks.spawn(follow(Api::<Pod>::all(client.clone()), sender.clone(), shutdown.clone(), |event| {
        Observation::Pod(seen(event, |pod| Arc::new(PodInfo::of(&pod))))
    }));
    tasks.spawn(follow(Api::<Node>::all(client.clone()), sender.clone(), shutdown.clone(), |event| {
        Observation::Node(seen(event, Box::new))
    }));
    tasks.spawn(follow(Api::<Service>::all(client.clone()), sender.clone(), shutdown.clone(), |event| {
        Observation::Service(seen(event, |service| ServiceFacts::of(&service)))
    }));
    tasks.spawn(follow(Api::<Namespace>::all(client.clone()), sender.clone(), shutdown.clone(), |event| {
        Observation::Namespace(seen(event, NamespaceFacts::of))
    }));
    let budgets = Api::<PodDisruptionBudget>::all(client.clone());
    tasks.spawn(follow(budgets, sender, shutdown.clone(), |event| {
        Observation::Budget(seen(event, |budget| Budget::of(&budget)))
    }));
    receiver
}

async fn follow<K>(
    api: Api<K>,
    sender: mpsc::Sender<Observation>,
    shutdown: CancellationToken,
    observe: impl Fn(watcher::Event<K>) -> Observation + Send + 'static,
) where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let stream = watcher(api, watcher::Config::default()).default_backoff();
    let mut stream = std::pin::pin!(stream.take_until(shutdown.cancelled_owned()));
    while let Some(event) = stream.next().await {
        match event {
            Ok(event) => {
                if sender.send(observe(event)).await.is_err() {
                    return;
                }
            }
            Err(error) => tracing::warn!(kind = %K::kind(&()), %error, "watch failed, trying again"),
        }
    }
}

fn seen<K, T>(event: watcher::Event<K>, map: impl FnOnce(K) -> T) -> Seen<T> {
    match event {
        watcher::Event::Init => Seen::ListBegins,
        watcher::Event::InitApply(object) => Seen::Listed(map(object)),
        watcher::Event::InitDone => Seen::ListEnds,
        watcher::Event::Apply(object) => Seen::Changed(map(object)),
        watcher::Event::Delete(object) => Seen::Deleted(map(object)),
    }
}
