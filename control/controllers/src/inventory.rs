//! Which kinds the API serves, asked of the API itself, so that content of kinds nobody knew at build time counts too.
//!
//! In: aggregated discovery. Out: [`Inventory`]: every kind once, in its most stable version, and a look-up by the
//! `apiVersion` and `kind` an owner reference names.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use kube::core::DynamicObject;
use kube::discovery::{ApiCapabilities, ApiResource, Discovery, Scope};
use kube::{Api, Client, Resource};

use crate::error::Error;

const TIMEOUT: Duration = Duration::from_secs(30);

/// One resource of the API.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Kind {
    pub(crate) resource: ApiResource,
    pub(crate) namespaced: bool,
    verbs: Vec<String>,
}

impl Kind {
    pub(crate) fn new(resource: ApiResource, capabilities: &ApiCapabilities) -> Self {
        let namespaced = capabilities.scope == Scope::Namespaced;
        Self { resource, namespaced, verbs: capabilities.operations.clone() }
    }

    /// A kind known at build time.
    pub(crate) fn builtin<K: Resource<DynamicType = ()>>(namespaced: bool) -> Self {
        Self { resource: ApiResource::erase::<K>(&()), namespaced, verbs: Vec::new() }
    }

    pub(crate) fn can(&self, verb: &str) -> bool {
        self.verbs.iter().any(|known| known == verb)
    }

    /// `plural.group`, as upstream names a resource in messages; the core group leaves the dot.
    pub(crate) fn title(&self) -> String {
        format!("{}.{}", self.resource.plural, self.resource.group)
    }

    pub(crate) fn is(&self, group: &str, plural: &str) -> bool {
        self.resource.group == group && self.resource.plural == plural
    }

    /// The door to objects of this kind; the namespace is ignored for cluster-scoped kinds.
    pub(crate) fn api(&self, client: &Client, namespace: &str) -> Api<DynamicObject> {
        if self.namespaced {
            Api::namespaced_with(client.clone(), namespace, &self.resource)
        } else {
            Api::all_with(client.clone(), &self.resource)
        }
    }
}

/// Every kind that is served.
#[derive(Debug, Default)]
pub(crate) struct Inventory {
    /// Each kind once. Kinds of one group need not share a version, so the group's preferred one would leave some out.
    pub(crate) preferred: Vec<Arc<Kind>>,
    by_type: HashMap<(String, String), Arc<Kind>>,
}

impl Inventory {
    /// Asks the API.
    pub(crate) async fn discover(client: &Client) -> Result<Self, Error> {
        let request = Discovery::new(client.clone()).run_aggregated();
        let discovery = tokio::time::timeout(TIMEOUT, request).await.map_err(|_| Error::TimedOut(TIMEOUT))?;
        let discovery = discovery.map_err(|error| Error::api("discover the served kinds", error))?;
        let mut inventory = Self::default();
        for group in discovery.groups() {
            for version in group.versions() {
                for (resource, capabilities) in group.versioned_resources(version) {
                    inventory.know(Kind::new(resource, &capabilities));
                }
            }
            for (resource, capabilities) in group.resources_by_stability() {
                inventory.preferred.push(Arc::new(Kind::new(resource, &capabilities)));
            }
        }
        Ok(inventory)
    }

    fn know(&mut self, kind: Kind) {
        let key = (kind.resource.api_version.clone(), kind.resource.kind.clone());
        self.by_type.entry(key).or_insert_with(|| Arc::new(kind));
    }

    /// The kind an owner reference means.
    pub(crate) fn by_type(&self, api_version: &str, kind: &str) -> Option<Arc<Kind>> {
        self.by_type.get(&(api_version.to_owned(), kind.to_owned())).cloned()
    }

    /// An inventory of these kinds, in one version each.
    #[cfg(test)]
    pub(crate) fn of(kinds: impl IntoIterator<Item = Kind>) -> Self {
        let mut inventory = Self::default();
        for kind in kinds {
            inventory.preferred.push(Arc::new(kind.clone()));
            inventory.know(kind);
        }
        inventory
    }
}

#[cfg(test)]
pub(crate) mod fixtures {
    use super::*;

    /// A kind that can do everything.
    pub(crate) fn kind(api_version: &str, name: &str, plural: &str, namespaced: bool) -> Kind {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        Kind {
            resource: ApiResource {
                group: group.to_owned(),
                version: version.to_owned(),
                api_version: api_version.to_owned(),
                kind: name.to_owned(),
                plural: plural.to_owned(),
            },
            namespaced,
            verbs: ["list", "watch", "delete", "deletecollection"].map(str::to_owned).to_vec(),
        }
    }
}
