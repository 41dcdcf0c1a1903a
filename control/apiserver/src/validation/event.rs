//! Events.
//!
//! In: an Event. Out: what is wrong with it, in `Errors`.

use serde_json::Value;

use super::field::{Errors, Field};

pub(super) fn event(object: &Field<'_>, errors: &mut Errors) {
    let (metadata, about) = (object.child("metadata"), object.child("involvedObject"));
    let (own, named) = (metadata.child("namespace"), about.child("namespace"));
    let expected = if named.text().is_empty() { "default" } else { named.text() };
    // Events about cluster-scoped objects may stand in the system's namespace, too.
    let of_cluster = named.text().is_empty() && own.text() == "kube-system";
    if own.text() != expected && !of_cluster {
        let value = Value::from(named.text());
        errors.invalid(&named.with(&value), "does not match event.namespace");
    }
}
