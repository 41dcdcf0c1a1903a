//! What a reconcile is about: a controller and the name of one object.
//!
//! In: object metadata. Out: keys that the workqueue dedupes by. No I/O.

use std::fmt;

use kube::Resource;

/// Namespace and name of an object; the namespace is empty for cluster-scoped kinds.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ObjectKey {
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl ObjectKey {
    pub(crate) fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    pub(crate) fn cluster(name: impl Into<String>) -> Self {
        Self::new("", name)
    }

    pub(crate) fn of<K: Resource>(object: &K) -> Self {
        let meta = object.meta();
        Self::new(meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            f.write_str(&self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

/// The controllers of this crate, by upstream's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ControllerName {
    CronJob,
    DaemonSet,
    Deployment,
    Disruption,
    Endpoints,
    EndpointSlice,
    GarbageCollector,
    Job,
    Namespace,
    NodeIpam,
    NodeLifecycle,
    PodGarbageCollector,
    ReplicaSet,
    ReplicationController,
    RootCaCertificatePublisher,
    ServiceAccount,
    StaleDisruption,
    StatefulSet,
    TaintEviction,
    TtlAfterFinished,
}

impl ControllerName {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::CronJob => "cronjob-controller",
            Self::DaemonSet => "daemonset-controller",
            Self::Deployment => "deployment-controller",
            Self::Disruption => "disruption-controller",
            Self::Endpoints => "endpoints-controller",
            Self::EndpointSlice => "endpointslice-controller",
            Self::GarbageCollector => "garbage-collector-controller",
            Self::Job => "job-controller",
            Self::Namespace => "namespace-controller",
            Self::NodeIpam => "node-ipam-controller",
            Self::NodeLifecycle => "node-lifecycle-controller",
            Self::PodGarbageCollector => "pod-garbage-collector-controller",
            Self::ReplicaSet => "replicaset-controller",
            Self::ReplicationController => "replication-controller",
            Self::RootCaCertificatePublisher => "root-ca-certificate-publisher-controller",
            Self::ServiceAccount => "serviceaccount-controller",
            // A part of the disruption controller to whoever reads Events.
            Self::StaleDisruption => "disruption-controller",
            Self::StatefulSet => "statefulset-controller",
            Self::TaintEviction => "taint-eviction-controller",
            Self::TtlAfterFinished => "ttl-after-finished-controller",
        }
    }
}

/// One unit of work: "bring this object to its desired state".
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Request {
    pub(crate) controller: ControllerName,
    pub(crate) key: ObjectKey,
}
