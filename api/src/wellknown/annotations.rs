//! Annotation keys with a meaning to the system.

/// What `kubectl apply` sent last.
pub const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// The container kubectl picks when none is named.
pub const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";
/// When `kubectl rollout restart` last touched a template.
pub const RESTARTED_AT: &str = "kubectl.kubernetes.io/restartedAt";
/// Why a revision of a workload exists.
pub const CHANGE_CAUSE: &str = "kubernetes.io/change-cause";
/// The revision number of a Deployment and its ReplicaSets.
pub const REVISION: &str = "deployment.kubernetes.io/revision";
/// Earlier revision numbers of a ReplicaSet that was rolled back to.
pub const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
/// A Deployment's replicas as its ReplicaSets saw them.
pub const DESIRED_REPLICAS: &str = "deployment.kubernetes.io/desired-replicas";
/// Replicas a Deployment may have at most, surge included.
pub const MAX_REPLICAS: &str = "deployment.kubernetes.io/max-replicas";
/// Which pods of a ReplicaSet go first.
pub const POD_DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
/// Marks the API copy of a static pod and carries its hash.
pub const MIRROR_POD: &str = "kubernetes.io/config.mirror";
/// Hash of a static pod's manifest.
pub const CONFIG_HASH: &str = "kubernetes.io/config.hash";
/// Where a pod's manifest came from.
pub const CONFIG_SOURCE: &str = "kubernetes.io/config.source";
/// The ServiceAccount a token Secret belongs to.
pub const SERVICE_ACCOUNT_NAME: &str = "kubernetes.io/service-account.name";
/// The UID of the ServiceAccount a token Secret belongs to.
pub const SERVICE_ACCOUNT_UID: &str = "kubernetes.io/service-account.uid";
/// When the first change that led to an EndpointSlice was made.
pub const ENDPOINTS_LAST_CHANGE: &str = "endpoints.kubernetes.io/last-change-trigger-time";
/// Topology-aware routing of a Service.
pub const TOPOLOGY_MODE: &str = "service.kubernetes.io/topology-mode";
/// Marks the StorageClass claims get when they name none.
pub const DEFAULT_STORAGE_CLASS: &str = "storageclass.kubernetes.io/is-default-class";
/// The same under its older key.
pub const BETA_DEFAULT_STORAGE_CLASS: &str = "storageclass.beta.kubernetes.io/is-default-class";
/// A claim's or volume's class, under its older key.
pub const BETA_STORAGE_CLASS: &str = "volume.beta.kubernetes.io/storage-class";
/// Marks the IngressClass Ingresses get when they name none.
pub const DEFAULT_INGRESS_CLASS: &str = "ingressclass.kubernetes.io/is-default-class";
/// An Ingress's class, under its older key.
pub const INGRESS_CLASS: &str = "kubernetes.io/ingress.class";
/// Whether RBAC bootstrap may update an object.
pub const RBAC_AUTOUPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";
