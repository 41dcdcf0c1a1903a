//! Namespaces: they live until the finalizers in their spec are gone.
//!
//! In: namespaces on their way into the store. Out: with the finalizer, phase and name label upstream gives them.

use serde_json::{Value, json};
use xebec_api::wellknown::{finalizers, labels, names};

use crate::meta;
use crate::registry::Cx;
use crate::status::ApiError;
use crate::strategy::Strategy;

pub(crate) struct NamespaceStrategy;

const IMMORTAL: &[&str] = &[names::DEFAULT, names::KUBE_SYSTEM, names::KUBE_PUBLIC];

impl Strategy for NamespaceStrategy {
    fn prepare_create(&self, _cx: &Cx<'_>, object: &mut Value) -> Result<(), ApiError> {
        meta::set(object, &["status"], Some(json!({ "phase": "Active" })));
        let mut held: Vec<Value> = meta::items(object, &["spec", "finalizers"]).cloned().collect();
        if !held.iter().any(|finalizer| finalizer == finalizers::NAMESPACE) {
            held.push(finalizers::NAMESPACE.into());
        }
        meta::set(object, &["spec", "finalizers"], Some(held.into()));
        set_name_label(object);
        Ok(())
    }

    fn prepare_update(&self, _cx: &Cx<'_>, new: &mut Value, old: &Value) -> Result<(), ApiError> {
        meta::set(new, &["spec", "finalizers"], meta::at(old, &["spec", "finalizers"]).cloned());
        set_name_label(new);
        Ok(())
    }

    fn check_delete(&self, old: &Value) -> Result<(), ApiError> {
        let name = meta::name(old);
        if IMMORTAL.contains(&name) {
            return Err(ApiError::forbidden("", "namespaces", name, "this namespace may not be deleted"));
        }
        Ok(())
    }

    fn holds_back_deletion(&self, object: &Value) -> bool {
        meta::items(object, &["spec", "finalizers"]).next().is_some()
    }

    fn mark_deleting(&self, object: &mut Value) {
        meta::set(object, &["metadata", "deletionGracePeriodSeconds"], None);
        meta::set(object, &["status", "phase"], Some("Terminating".into()));
    }
}

fn set_name_label(object: &mut Value) {
    let name = meta::name(object).to_owned();
    if !name.is_empty() {
        meta::set(object, &["metadata", "labels", labels::METADATA_NAME], Some(name.into()));
    }
}
