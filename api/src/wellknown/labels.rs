//! Label keys with a meaning to the system.

/// The node a node's label set belongs to.
pub const HOSTNAME: &str = "kubernetes.io/hostname";
/// Operating system of a node.
pub const OS: &str = "kubernetes.io/os";
/// CPU architecture of a node.
pub const ARCH: &str = "kubernetes.io/arch";
/// Machine type of a node.
pub const INSTANCE_TYPE: &str = "node.kubernetes.io/instance-type";
/// Zone of a node or volume.
pub const TOPOLOGY_ZONE: &str = "topology.kubernetes.io/zone";
/// Region of a node or volume.
pub const TOPOLOGY_REGION: &str = "topology.kubernetes.io/region";
/// Operating system, under its deprecated key.
pub const BETA_OS: &str = "beta.kubernetes.io/os";
/// CPU architecture, under its deprecated key.
pub const BETA_ARCH: &str = "beta.kubernetes.io/arch";
/// Prefix of role labels; what follows is the role.
pub const NODE_ROLE_PREFIX: &str = "node-role.kubernetes.io/";
/// Marks control-plane nodes.
pub const NODE_ROLE_CONTROL_PLANE: &str = "node-role.kubernetes.io/control-plane";
/// A role in the value, the older form.
pub const NODE_ROLE: &str = "kubernetes.io/role";
/// Keeps a node out of external load balancers.
pub const EXCLUDE_FROM_LOAD_BALANCERS: &str = "node.kubernetes.io/exclude-from-external-load-balancers";
/// Label namespace a kubelet may not set on its own node.
pub const NODE_RESTRICTION: &str = "node-restriction.kubernetes.io";
/// The namespace's own name.
pub const METADATA_NAME: &str = "kubernetes.io/metadata.name";
/// The Service an EndpointSlice belongs to.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Who maintains an EndpointSlice.
pub const ENDPOINT_SLICE_MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// Value of [`ENDPOINT_SLICE_MANAGED_BY`] for slices made from a Service's selector.
pub const ENDPOINT_SLICE_CONTROLLER: &str = "endpointslice-controller.k8s.io";
/// Who maintains an Endpoints object.
pub const ENDPOINTS_MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
/// Excludes a headless Service from proxying.
pub const HEADLESS: &str = "service.kubernetes.io/headless";
/// Hands a Service to another proxy.
pub const SERVICE_PROXY_NAME: &str = "service.kubernetes.io/service-proxy-name";
/// Hash of a Deployment's pod template.
pub const POD_TEMPLATE_HASH: &str = "pod-template-hash";
/// Revision of a DaemonSet's or StatefulSet's pod template.
pub const CONTROLLER_REVISION_HASH: &str = "controller-revision-hash";
/// The pod's name in a StatefulSet.
pub const STATEFULSET_POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
/// The pod's ordinal in a StatefulSet or indexed Job.
pub const POD_INDEX: &str = "apps.kubernetes.io/pod-index";
/// The Job a pod belongs to.
pub const JOB_NAME: &str = "batch.kubernetes.io/job-name";
/// The UID of the Job a pod belongs to.
pub const CONTROLLER_UID: &str = "batch.kubernetes.io/controller-uid";
/// The Job a pod belongs to, under its older key.
pub const LEGACY_JOB_NAME: &str = "job-name";
/// The UID of the Job a pod belongs to, under its older key.
pub const LEGACY_CONTROLLER_UID: &str = "controller-uid";
