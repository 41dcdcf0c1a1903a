//! What tokens are bound to, looked up in the store.
//!
//! In: kind, namespace and name. Out: the uid and whether the object is being deleted.

use std::sync::Arc;

use xebec_api::wellknown::names::KUBE_SYSTEM;

use crate::authn::bootstrap_token;
use crate::meta;
use crate::registry::Registry;
use crate::token::{BoundKind, BoundObject, BoundObjects};

pub(crate) struct StoredObjects<'a> {
    registry: &'a Arc<Registry>,
}

impl<'a> StoredObjects<'a> {
    pub(crate) fn new(registry: &'a Arc<Registry>) -> Self {
        Self { registry }
    }
}

impl BoundObjects for StoredObjects<'_> {
    fn bootstrap_token(&self, id: &str) -> Option<serde_json::Value> {
        self.registry.core_object("secrets", Some(KUBE_SYSTEM), &bootstrap_token::secret_name(id))
    }

    fn find(&self, kind: BoundKind, namespace: &str, name: &str) -> Option<BoundObject> {
        let (plural, namespace) = match kind {
            BoundKind::ServiceAccount => ("serviceaccounts", Some(namespace)),
            BoundKind::Pod => ("pods", Some(namespace)),
            BoundKind::Secret => ("secrets", Some(namespace)),
            BoundKind::Node => ("nodes", None),
        };
        let object = self.registry.core_object(plural, namespace, name)?;
        Some(BoundObject {
            uid: meta::uid(&object).to_owned(),
            deletion_timestamp: meta::deletion_timestamp(&object).map(jiff::Timestamp::as_second),
        })
    }
}
