//! Validation of objects: what upstream refuses with 422.
//!
//! In: a kind in its stored version, an object of it that fits the schema and has its defaults, its former state. Out:
//! what is wrong, field by field, in upstream's words and order. Absent: what only other objects or the allocators know;
//! strategies check that.

use serde_json::Value;

use crate::field_error::FieldError;
use crate::kinds::Gvk;

mod addresses;
mod batch;
mod config;
mod container;
mod endpoint_slice;
mod env;
mod event;
mod field;
mod handler;
mod lease;
mod limits;
mod meta;
mod namespace;
mod node;
mod object_name;
mod pod;
mod pod_spec;
mod pod_status;
mod priority_class;
mod rbac;
mod resources;
mod rules;
mod scheduling;
mod security;
mod selector;
mod service;
mod storage;
mod volume;
mod workload;

use field::{Errors, Field};

/// What is wrong with a new object.
pub fn validate_create(gvk: &Gvk, object: &Value) -> Vec<FieldError> {
    let (object, mut errors) = (Field::root(object), Errors::default());
    meta::create(gvk, &object, &mut errors);
    match (&*gvk.group, &*gvk.kind) {
        ("", "Pod") => pod::create(&object, &mut errors),
        ("", "Node") => node::node(&object, &mut errors),
        ("scheduling.k8s.io", "PriorityClass") => priority_class::priority_class(&object, &mut errors),
        _ => whole(gvk, &object, &mut errors),
    }
    errors.into_vec()
}

/// What is wrong with a change through the main door.
pub fn validate_update(gvk: &Gvk, new: &Value, old: &Value) -> Vec<FieldError> {
    let (object, mut errors) = (Field::root(new), Errors::default());
    meta::update(&object, old, &mut errors);
    match (&*gvk.group, &*gvk.kind) {
        ("", "Pod") => pod::update(&object, old, &mut errors),
        ("", "Node") => node::update(&object, old, &mut errors),
        ("", "Service") => service::update(&object, old, &mut errors),
        ("", "Secret") => config::secret_update(&object, old, &mut errors),
        ("", "ConfigMap") => config::frozen(&object, old, &["data", "binaryData"], &mut errors),
        ("", "PersistentVolumeClaim") => storage::claim_update(&object, old, &mut errors),
        ("apps", "StatefulSet") => workload::stateful_set_update(&object, old, &mut errors),
        ("batch", "Job") => batch::job_update(&object, old, &mut errors),
        ("scheduling.k8s.io", "PriorityClass") => priority_class::update(&object, old, &mut errors),
        ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding") => {
            rbac::binding_update(&object, old, &mut errors);
        }
        _ => {}
    }
    whole(gvk, &object, &mut errors);
    match (&*gvk.group, &*gvk.kind) {
        ("apps", "Deployment" | "ReplicaSet" | "DaemonSet") => {
            workload::selector_is_kept(&object, old, &mut errors);
        }
        ("discovery.k8s.io", "EndpointSlice") => endpoint_slice::update(&object, old, &mut errors),
        _ => {}
    }
    errors.into_vec()
}

/// What is wrong with a change through the door for status.
pub fn validate_status(gvk: &Gvk, new: &Value, old: &Value) -> Vec<FieldError> {
    let (object, mut errors) = (Field::root(new), Errors::default());
    meta::update(&object, old, &mut errors);
    match (&*gvk.group, &*gvk.kind) {
        ("", "Pod") => pod_status::update(&object, old, &mut errors),
        ("", "Node") => node::update(&object, old, &mut errors),
        ("", "Namespace") => namespace::status(&object, &mut errors),
        ("apps", "Deployment") => workload::deployment_status(&object, old, &mut errors),
        ("apps", "ReplicaSet") | ("", "ReplicationController") => {
            workload::replica_set_status(&object, &mut errors);
        }
        _ => {}
    }
    errors.into_vec()
}

/// Addresses, families and policy of a Service: they must fit together before the cluster's are chosen for it.
pub(crate) fn service_addresses(service: &Value) -> Vec<FieldError> {
    let mut errors = Errors::default();
    addresses::cluster(&Field::root(service).child("spec"), &mut errors);
    errors.into_vec()
}

/// The rules that new and changed objects share.
fn whole(gvk: &Gvk, object: &Field<'_>, errors: &mut Errors) {
    match (&*gvk.group, &*gvk.kind) {
        ("", "Service") => service::service(object, errors),
        ("", "ConfigMap") => config::config_map(object, errors),
        ("", "Secret") => config::secret(object, errors),
        ("", "Namespace") => namespace::namespace(object, errors),
        ("", "Event") => event::event(object, errors),
        ("", "LimitRange") => limits::limit_range(object, errors),
        ("", "ResourceQuota") => limits::resource_quota(object, errors),
        ("", "PodTemplate") => workload::pod_template(object, errors),
        ("", "ReplicationController") => workload::replication_controller(object, errors),
        ("", "PersistentVolumeClaim") => storage::claim_spec(&object.child("spec"), errors),
        ("apps", "Deployment") => workload::deployment(object, errors),
        ("apps", "ReplicaSet") => workload::replica_set(object, errors),
        ("apps", "StatefulSet") => workload::stateful_set(object, errors),
        ("apps", "DaemonSet") => workload::daemon_set(object, errors),
        ("batch", "Job") => batch::job(object, errors),
        ("batch", "CronJob") => batch::cron_job(object, errors),
        ("policy", "PodDisruptionBudget") => workload::disruption_budget(object, errors),
        ("discovery.k8s.io", "EndpointSlice") => endpoint_slice::endpoint_slice(object, errors),
        ("coordination.k8s.io", "Lease") => lease::lease(object, errors),
        ("rbac.authorization.k8s.io", "Role") => rbac::role(object, true, errors),
        ("rbac.authorization.k8s.io", "ClusterRole") => rbac::role(object, false, errors),
        ("rbac.authorization.k8s.io", "RoleBinding") => rbac::binding(object, true, errors),
        ("rbac.authorization.k8s.io", "ClusterRoleBinding") => rbac::binding(object, false, errors),
        _ => {}
    }
}

#[cfg(test)]
mod tests;
