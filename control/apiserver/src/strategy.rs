//! What differs between kinds: admission, preparation of writes, checks that need other objects, resources reserved.
//!
//! In: objects on their way into the store, in the stored version. Out: the same objects, changed or refused. A kind
//! without a file here is served by the defaults.

use serde_json::Value;

use crate::field_error::FieldError;
use crate::kinds::Gvk;
use crate::options::DeleteOptions;
use crate::registry::Cx;
use crate::status::ApiError;

mod apps;
mod batch;
mod generic;
mod namespace;
mod node;
pub(crate) mod pod;
mod rbac;
mod secret;
pub(crate) mod service;
mod signing_request;
mod traits;

pub(crate) use traits::{Generation, Traits, custom as custom_traits, traits};

/// Something taken for a write that is given back unless the write happened.
pub(crate) trait Reservation: Send {
    /// The write is durable.
    fn commit(self: Box<Self>);
}

/// The hooks of the write path. All are pure or read the store; none writes to it.
pub(crate) trait Strategy: Sync {
    /// Before a creation is validated: what admission and upstream's `PrepareForCreate` do.
    fn prepare_create(&self, _cx: &Cx<'_>, _object: &mut Value) -> Result<(), ApiError> {
        Ok(())
    }

    /// Before an update through the main door is validated.
    fn prepare_update(&self, _cx: &Cx<'_>, _new: &mut Value, _old: &Value) -> Result<(), ApiError> {
        Ok(())
    }

    /// Before an update through `status` is validated. Everything but status and metadata is the old object's already.
    fn prepare_status(&self, _new: &mut Value, _old: &Value) {}

    /// After the preparation of an update through any door: what that door needs of the writer.
    fn admit_update(&self, _cx: &Cx<'_>, _new: &mut Value, _old: &Value) -> Result<(), ApiError> {
        Ok(())
    }

    /// What validation cannot see from the object alone.
    fn check(&self, _cx: &Cx<'_>, _new: &Value, _old: Option<&Value>) -> Vec<FieldError> {
        Vec::new()
    }

    /// Takes what the object needs for itself alone (addresses, ports) and writes it into the object.
    fn reserve(
        &self,
        _cx: &Cx<'_>,
        _new: &mut Value,
        _old: Option<&Value>,
    ) -> Result<Option<Box<dyn Reservation>>, ApiError> {
        Ok(None)
    }

    /// What an object holds alone and gives back once it is gone for good.
    fn release(&self, _cx: &Cx<'_>, _old: &Value) -> Option<Box<dyn Reservation>> {
        None
    }

    /// The object may not be deleted.
    fn check_delete(&self, _old: &Value) -> Result<(), ApiError> {
        Ok(())
    }

    /// For kinds that are deleted gracefully: the period in seconds.
    fn grace_period(&self, _object: &Value, _options: &DeleteOptions) -> Option<i64> {
        None
    }

    /// Finalizers of the kind's own besides those in `metadata`.
    fn holds_back_deletion(&self, _object: &Value) -> bool {
        false
    }

    /// The first deletion of an object that is held back.
    fn mark_deleting(&self, _object: &mut Value) {}
}

/// The strategy of a kind, by its stored version.
pub(crate) fn of(gvk: &Gvk) -> &'static dyn Strategy {
    match (&*gvk.group, &*gvk.kind) {
        ("", "Pod") => &pod::PodStrategy,
        ("", "Service") => &service::ServiceStrategy,
        ("", "Namespace") => &namespace::NamespaceStrategy,
        ("", "Node") => &node::NodeStrategy,
        ("", "Secret") => &secret::SecretStrategy,
        ("apps", "Deployment" | "ReplicaSet" | "StatefulSet" | "DaemonSet")
        | ("", "ReplicationController")
        | ("policy", "PodDisruptionBudget") => &apps::WorkloadStrategy,
        ("batch", "Job") => &batch::JobStrategy,
        ("apiextensions.k8s.io", "CustomResourceDefinition") => {
            &crate::custom::definition::DefinitionStrategy
        }
        ("certificates.k8s.io", "CertificateSigningRequest") => &signing_request::RequestStrategy,
        ("rbac.authorization.k8s.io", "Role" | "ClusterRole") => &rbac::RoleStrategy,
        ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding") => &rbac::BindingStrategy,
        ("", "PersistentVolume" | "PersistentVolumeClaim") => &generic::PendingStrategy,
        _ => &generic::Generic,
    }
}
