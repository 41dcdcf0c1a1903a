//! What every controller works with: the client, the caches, the queue, the Event recorder.
//!
//! In: a client. Out: [`Informers`] to register observers on, [`Context`] to reconcile with.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{
    ConfigMap, Endpoints, Namespace, Node, Pod, ReplicationController, Service, ServiceAccount,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, Resource};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use xebec_api::wellknown::names::{DEFAULT_SERVICE_ACCOUNT, KUBE_NODE_LEASE, ROOT_CA_CONFIG_MAP};

use crate::cache::Cache;
use crate::endpointslice::service_of_slice;
use crate::error::Error;
use crate::informer::Informer;
use crate::key::{ControllerName, ObjectKey, Request};
use crate::pod;
use crate::recorder::{Occurrence, Recorder, Severity, reference};
use crate::workqueue::WorkQueue;

/// What a reconcile that succeeded asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Nothing until something changes.
    Done,
    /// A further look after this long.
    After(Duration),
}

impl Outcome {
    pub(crate) fn after(delay: Option<Duration>) -> Self {
        delay.map_or(Self::Done, Self::After)
    }
}

/// A controller: brings one object to its desired state, whatever happened before.
pub(crate) trait Controller: Send + Sync {
    fn reconcile(&self, key: ObjectKey) -> BoxFuture<'_, Result<Outcome, Error>>;

    /// Asks for a run of every object this controller may have work for.
    fn enqueue_all(&self);
}

/// One informer for each kind; all controllers share them.
pub(crate) struct Informers {
    pub(crate) config_maps: Informer<ConfigMap>,
    pub(crate) controller_revisions: Informer<ControllerRevision>,
    pub(crate) cron_jobs: Informer<CronJob>,
    pub(crate) daemon_sets: Informer<DaemonSet>,
    pub(crate) deployments: Informer<Deployment>,
    pub(crate) disruption_budgets: Informer<PodDisruptionBudget>,
    pub(crate) endpoints: Informer<Endpoints>,
    pub(crate) jobs: Informer<Job>,
    pub(crate) leases: Informer<Lease>,
    pub(crate) namespaces: Informer<Namespace>,
    pub(crate) nodes: Informer<Node>,
    pub(crate) pods: Informer<Pod>,
    pub(crate) replica_sets: Informer<ReplicaSet>,
    pub(crate) replication_controllers: Informer<ReplicationController>,
    pub(crate) service_accounts: Informer<ServiceAccount>,
    pub(crate) services: Informer<Service>,
    pub(crate) stateful_sets: Informer<StatefulSet>,
    pub(crate) slices: Informer<EndpointSlice>,
}

impl Informers {
    pub(crate) fn new(client: &Client) -> Self {
        Self {
            config_maps: Informer::with_fields(
                Api::all(client.clone()),
                &format!("metadata.name={ROOT_CA_CONFIG_MAP}"),
            ),
            controller_revisions: Informer::new(Api::all(client.clone())),
            cron_jobs: Informer::new(Api::all(client.clone())),
            daemon_sets: Informer::new(Api::all(client.clone())),
            deployments: Informer::new(Api::all(client.clone())),
            disruption_budgets: Informer::new(Api::all(client.clone())),
            endpoints: Informer::new(Api::all(client.clone())),
            jobs: Informer::new(Api::all(client.clone())),
            leases: Informer::new(Api::namespaced(client.clone(), KUBE_NODE_LEASE)),
            namespaces: Informer::new(Api::all(client.clone())),
            nodes: Informer::new(Api::all(client.clone())),
            pods: Informer::with_index(Api::all(client.clone()), pod::node_name),
            replica_sets: Informer::new(Api::all(client.clone())),
            replication_controllers: Informer::new(Api::all(client.clone())),
            service_accounts: Informer::with_fields(
                Api::all(client.clone()),
                &format!("metadata.name={DEFAULT_SERVICE_ACCOUNT}"),
            ),
            services: Informer::new(Api::all(client.clone())),
            stateful_sets: Informer::new(Api::all(client.clone())),
            slices: Informer::with_index(Api::all(client.clone()), service_of_slice),
        }
    }

    pub(crate) fn caches(&self) -> Caches {
        Caches {
            config_maps: self.config_maps.cache(),
            controller_revisions: self.controller_revisions.cache(),
            cron_jobs: self.cron_jobs.cache(),
            daemon_sets: self.daemon_sets.cache(),
            deployments: self.deployments.cache(),
            disruption_budgets: self.disruption_budgets.cache(),
            endpoints: self.endpoints.cache(),
            jobs: self.jobs.cache(),
            namespaces: self.namespaces.cache(),
            nodes: self.nodes.cache(),
            pods: self.pods.cache(),
            replica_sets: self.replica_sets.cache(),
            replication_controllers: self.replication_controllers.cache(),
            service_accounts: self.service_accounts.cache(),
            services: self.services.cache(),
            stateful_sets: self.stateful_sets.cache(),
            slices: self.slices.cache(),
        }
    }

    /// One receiver for each informer; all true means every cache is complete.
    pub(crate) fn synced(&self) -> Vec<(&'static str, watch::Receiver<bool>)> {
        vec![
            ("configmaps", self.config_maps.synced()),
            ("controllerrevisions", self.controller_revisions.synced()),
            ("cronjobs", self.cron_jobs.synced()),
            ("daemonsets", self.daemon_sets.synced()),
            ("deployments", self.deployments.synced()),
            ("poddisruptionbudgets", self.disruption_budgets.synced()),
            ("endpoints", self.endpoints.synced()),
            ("jobs", self.jobs.synced()),
            ("leases", self.leases.synced()),
            ("namespaces", self.namespaces.synced()),
            ("nodes", self.nodes.synced()),
            ("pods", self.pods.synced()),
            ("replicasets", self.replica_sets.synced()),
            ("replicationcontrollers", self.replication_controllers.synced()),
            ("serviceaccounts", self.service_accounts.synced()),
            ("services", self.services.synced()),
            ("statefulsets", self.stateful_sets.synced()),
            ("endpointslices", self.slices.synced()),
        ]
    }

    /// Starts all watches.
    pub(crate) fn spawn(self, tasks: &mut JoinSet<()>, shutdown: &CancellationToken) {
        tasks.spawn(self.config_maps.run(shutdown.clone()));
        tasks.spawn(self.controller_revisions.run(shutdown.clone()));
        tasks.spawn(self.cron_jobs.run(shutdown.clone()));
        tasks.spawn(self.daemon_sets.run(shutdown.clone()));
        tasks.spawn(self.deployments.run(shutdown.clone()));
        tasks.spawn(self.disruption_budgets.run(shutdown.clone()));
        tasks.spawn(self.endpoints.run(shutdown.clone()));
        tasks.spawn(self.jobs.run(shutdown.clone()));
        tasks.spawn(self.leases.run(shutdown.clone()));
        tasks.spawn(self.namespaces.run(shutdown.clone()));
        tasks.spawn(self.nodes.run(shutdown.clone()));
        tasks.spawn(self.pods.run(shutdown.clone()));
        tasks.spawn(self.replica_sets.run(shutdown.clone()));
        tasks.spawn(self.replication_controllers.run(shutdown.clone()));
        tasks.spawn(self.service_accounts.run(shutdown.clone()));
        tasks.spawn(self.services.run(shutdown.clone()));
        tasks.spawn(self.stateful_sets.run(shutdown.clone()));
        tasks.spawn(self.slices.run(shutdown.clone()));
    }
}

/// The read side of [`Informers`].
#[derive(Clone)]
pub(crate) struct Caches {
    pub(crate) config_maps: Arc<Cache<ConfigMap>>,
    pub(crate) controller_revisions: Arc<Cache<ControllerRevision>>,
    pub(crate) cron_jobs: Arc<Cache<CronJob>>,
    pub(crate) daemon_sets: Arc<Cache<DaemonSet>>,
    pub(crate) deployments: Arc<Cache<Deployment>>,
    pub(crate) disruption_budgets: Arc<Cache<PodDisruptionBudget>>,
    pub(crate) endpoints: Arc<Cache<Endpoints>>,
    pub(crate) jobs: Arc<Cache<Job>>,
    pub(crate) namespaces: Arc<Cache<Namespace>>,
    pub(crate) nodes: Arc<Cache<Node>>,
    pub(crate) pods: Arc<Cache<Pod>>,
    pub(crate) replica_sets: Arc<Cache<ReplicaSet>>,
    pub(crate) replication_controllers: Arc<Cache<ReplicationController>>,
    pub(crate) service_accounts: Arc<Cache<ServiceAccount>>,
    pub(crate) services: Arc<Cache<Service>>,
    pub(crate) stateful_sets: Arc<Cache<StatefulSet>>,
    pub(crate) slices: Arc<Cache<EndpointSlice>>,
}

/// Handed to every controller. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) client: Client,
    pub(crate) caches: Caches,
    pub(crate) queue: Arc<WorkQueue<Request>>,
    pub(crate) recorder: Recorder,
}

impl Context {
    pub(crate) fn api<K>(&self, namespace: &str) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), namespace)
    }

    pub(crate) fn queue_of(&self, controller: ControllerName) -> ControllerQueue {
        ControllerQueue { queue: self.queue.clone(), controller }
    }

    pub(crate) fn record<K: Resource<DynamicType = ()>>(
        &self,
        controller: ControllerName,
        about: &K,
        severity: Severity,
        reason: &'static str,
        message: String,
    ) {
        let component = controller.as_str();
        self.recorder.record(Occurrence { about: reference(about), component, severity, reason, message });
    }
}

/// The shared queue, seen by one controller.
#[derive(Clone)]
pub(crate) struct ControllerQueue {
    queue: Arc<WorkQueue<Request>>,
    controller: ControllerName,
}

impl ControllerQueue {
    pub(crate) fn add(&self, key: ObjectKey) {
        self.queue.add(Request { controller: self.controller, key });
    }

    pub(crate) fn add_after(&self, key: ObjectKey, delay: Duration) {
        self.queue.add_after(Request { controller: self.controller, key }, delay);
    }

    pub(crate) fn add_all<K: Resource>(&self, cache: &Cache<K>) {
        for object in cache.all() {
            self.add(ObjectKey::of(object.as_ref()));
        }
    }
}
