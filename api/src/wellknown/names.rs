//! Names of objects and users every cluster has.

/// Where objects go when no namespace is named.
pub const DEFAULT: &str = "default";
/// The namespace of the system's own objects.
pub const KUBE_SYSTEM: &str = "kube-system";
/// The namespace everyone may read.
pub const KUBE_PUBLIC: &str = "kube-public";
/// The namespace of node Leases.
pub const KUBE_NODE_LEASE: &str = "kube-node-lease";
/// The Service of the API itself, in `default`.
pub const KUBERNETES_SERVICE: &str = "kubernetes";
/// The Service of cluster DNS, in `kube-system`.
pub const KUBE_DNS: &str = "kube-dns";
/// The ConfigMap with the cluster's CA, in every namespace.
pub const ROOT_CA_CONFIG_MAP: &str = "kube-root-ca.crt";
/// The ServiceAccount of pods that name none.
pub const DEFAULT_SERVICE_ACCOUNT: &str = "default";
/// The scheduler of pods that name none.
pub const DEFAULT_SCHEDULER: &str = "default-scheduler";
/// The domain of cluster DNS unless configured otherwise.
pub const CLUSTER_DOMAIN: &str = "cluster.local";
/// The group that may do everything.
pub const GROUP_MASTERS: &str = "system:masters";
/// The group of nodes.
pub const GROUP_NODES: &str = "system:nodes";
/// Prefix of a node's user name.
pub const USER_NODE_PREFIX: &str = "system:node:";
/// The group of everyone who proved an identity.
pub const GROUP_AUTHENTICATED: &str = "system:authenticated";
/// The group of everyone who did not.
pub const GROUP_UNAUTHENTICATED: &str = "system:unauthenticated";
/// The user who did not prove an identity.
pub const USER_ANONYMOUS: &str = "system:anonymous";
/// The scheduler's user.
pub const USER_SCHEDULER: &str = "system:kube-scheduler";
/// The controllers' user.
pub const USER_CONTROLLER_MANAGER: &str = "system:kube-controller-manager";
/// The API server's user when it calls kubelets.
pub const USER_APISERVER: &str = "system:apiserver";
/// Prefix of a ServiceAccount's user name.
pub const SERVICE_ACCOUNT_PREFIX: &str = "system:serviceaccount:";
/// The group of all ServiceAccounts.
pub const GROUP_SERVICE_ACCOUNTS: &str = "system:serviceaccounts";
/// Priority class of pods a node cannot do without.
pub const SYSTEM_NODE_CRITICAL: &str = "system-node-critical";
/// Priority class of pods a cluster cannot do without.
pub const SYSTEM_CLUSTER_CRITICAL: &str = "system-cluster-critical";
