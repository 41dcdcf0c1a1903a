//! Defaults: what upstream fills into an object before it is admitted and stored.
//!
//! In: a kind and a decoded object of it. Out: the object with its defaults. Absent: what needs more than the object
//! (allocated addresses, priorities, the ServiceAccount of a pod); strategies and admission do that.

use serde_json::Value;

use crate::kinds::Gvk;

mod admission;
mod apps;
mod autoscaling;
mod batch;
mod container;
mod core;
mod extension;
mod fill;
mod flow;
mod networking;
mod pod;
mod pod_resources;
mod pod_spec;
mod rbac;
mod resource;
mod service;
mod storage;
mod volume;

/// Fills the defaults of a kind into an object; kinds without defaults stay as they are.
pub fn apply(gvk: &Gvk, object: &mut Value) {
    let Value::Object(fields) = object else { return };
    match (&*gvk.group, &*gvk.kind) {
        ("", "Pod") => pod::pod(fields),
        ("", "PodTemplate") => pod_spec::template(fields),
        ("", "ReplicationController") => apps::replication_controller(fields),
        ("", "Service") => service::service(fields),
        ("", "Namespace") => core::namespace(fields),
        ("", "Node") => core::node(fields),
        ("", "Secret") => core::secret(fields),
        ("", "Endpoints") => core::endpoints(fields),
        ("", "LimitRange") => core::limit_range(fields),
        ("", "ResourceQuota") => core::resource_quota(fields),
        ("", "PersistentVolume") => storage::persistent_volume(fields),
        ("", "PersistentVolumeClaim") => storage::claim(fields),
        ("apps", "Deployment") => apps::deployment(fields),
        ("apps", "ReplicaSet") => apps::replica_set(fields),
        ("apps", "DaemonSet") => apps::daemon_set(fields),
        ("apps", "StatefulSet") => apps::stateful_set(fields),
        ("batch", "Job") => batch::job(fields),
        ("batch", "CronJob") => batch::cron_job(fields),
        ("autoscaling", "HorizontalPodAutoscaler") => autoscaling::autoscaler(&gvk.version, fields),
        ("discovery.k8s.io", "EndpointSlice") => networking::endpoint_slice(fields),
        ("networking.k8s.io", "NetworkPolicy") => networking::network_policy(fields),
        ("networking.k8s.io", "IngressClass") => networking::ingress_class(fields),
        ("storage.k8s.io", "StorageClass") => storage::storage_class(fields),
        ("storage.k8s.io", "CSIDriver") => storage::csi_driver(fields),
        ("scheduling.k8s.io", "PriorityClass") => core::priority_class(fields),
        ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding") => rbac::binding(fields),
        ("authentication.k8s.io", "TokenRequest") => core::token_request(fields),
        ("certificates.k8s.io", "PodCertificateRequest") => core::pod_certificate_request(fields),
        ("admissionregistration.k8s.io", kind) => admission::configuration(kind, fields),
        ("apiextensions.k8s.io", "CustomResourceDefinition") => extension::custom_resource_definition(fields),
        ("apiregistration.k8s.io", "APIService") => extension::api_service(fields),
        ("flowcontrol.apiserver.k8s.io", "FlowSchema") => flow::flow_schema(fields),
        ("flowcontrol.apiserver.k8s.io", "PriorityLevelConfiguration") => flow::priority_level(fields),
        ("resource.k8s.io", "ResourceClaim") => resource::claim(fields),
        ("resource.k8s.io", "ResourceClaimTemplate") => resource::claim_template(fields),
        _ => {}
    }
}

#[cfg(test)]
mod tests;
