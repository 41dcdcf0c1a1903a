//! The generic registry: one path for every kind, from a decoded body to a durable write.
//!
//! In: requests on a served resource. Out: stored objects. What differs between kinds is asked of `strategy`; how
//! objects are shown is not known here.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;
use xebec_store::Store;

use crate::admission::quota::Quotas;
use crate::alloc::Allocators;
use crate::apply::{Operation, Who};
use crate::authn::UserInfo;
use crate::authz::Permissions;
use crate::config::ApiServerConfig;
use crate::custom::{Custom, CustomKinds};
use crate::facts::FactsCache;
use crate::follow::Follow;
use crate::kinds::{self, Gvk, Resource, Verb};
use crate::metrics::Metrics;
use crate::openapi::Documents;
use crate::options::WriteOptions;
use crate::status::ApiError;
use crate::stored::{self, Layout, Stored};

pub(crate) mod apply;
pub(crate) mod catalog;
pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod input;
pub(crate) mod patch;
mod served;
mod settle;
pub(crate) mod update;

/// A resource with what its objects look like in the store.
#[derive(Clone, Debug)]
pub(crate) struct Served {
    pub(crate) resource: Arc<Resource>,
    /// The kind in the version of the store.
    pub(crate) stored: Gvk,
    pub(crate) layout: Arc<Layout>,
    /// What a definition says of the kind, where it is no built-in one.
    pub(crate) custom: Option<Arc<Custom>>,
}

/// Everything that is served, by path and by kind.
#[derive(Debug)]
pub(crate) struct Kinds {
    all: Vec<Served>,
    /// By group, version and plural.
    by_path: HashMap<String, HashMap<String, HashMap<String, usize>>>,
}

/// What all requests share.
pub(crate) struct Registry {
    pub(crate) store: Store,
    pub(crate) config: ApiServerConfig,
    pub(crate) kinds: Kinds,
    pub(crate) facts: FactsCache,
    pub(crate) allocators: Allocators,
    pub(crate) permissions: Permissions,
    pub(crate) custom: Follow<CustomKinds>,
    pub(crate) quotas: Quotas,
    pub(crate) metrics: Metrics,
    pub(crate) documents: Documents,
}

/// One request on its way through the registry.
pub(crate) struct Cx<'a> {
    pub(crate) registry: &'a Arc<Registry>,
    pub(crate) user: &'a UserInfo,
    /// Who owns what is written, unless the request names somebody: the program that sends it.
    agent: String,
    /// The door the request comes through; empty for the main one.
    subresource: String,
    warnings: Mutex<Vec<String>>,
}

// === impl Kinds ===

impl Kinds {
    pub(crate) fn builtin() -> Self {
        let served = |resource: &Arc<Resource>| {
            let stored = resource.stored_as.clone().unwrap_or_else(|| resource.gvk.clone());
            Served { resource: resource.clone(), layout: Arc::new(Layout::of(&stored)), stored, custom: None }
        };
        let all: Vec<Served> = kinds::builtin().iter().map(served).collect();
        let mut by_path: HashMap<String, HashMap<String, HashMap<String, usize>>> = HashMap::new();
        for (index, served) in all.iter().enumerate() {
            let gvk = &served.resource.gvk;
            let versions = by_path.entry(gvk.group.to_string()).or_default();
            versions
                .entry(gvk.version.to_string())
                .or_default()
                .insert(served.resource.plural.clone(), index);
        }
        Self { all, by_path }
    }

    pub(crate) fn get(&self, group: &str, version: &str, plural: &str) -> Option<&Served> {
        let index = self.by_path.get(group)?.get(version)?.get(plural)?;
        Some(&self.all[*index])
    }

    /// A resource of the legacy group; there is no server without it.
    pub(crate) fn core(&self, plural: &str) -> &Served {
        self.get("", "v1", plural).expect("the table of kinds lists every resource named in this crate")
    }
}

// === impl Registry ===

impl Registry {
    /// What is served at a path.
    pub(crate) fn served(&self, group: &str, version: &str, plural: &str) -> Option<Served> {
        let builtin = self.kinds.get(group, version, plural).cloned();
        builtin.or_else(|| self.custom.read(&self.store).get(group, version, plural))
    }

    /// The object, or `None`.
    pub(crate) fn find(&self, served: &Served, namespace: Option<&str>, name: &str) -> Option<Stored> {
        self.store.get(stored::key(&served.resource, namespace, name).as_bytes()).map(Stored::from)
    }

    /// The object, or 404.
    pub(crate) fn get(
        &self,
        served: &Served,
        namespace: Option<&str>,
        name: &str,
    ) -> Result<Stored, ApiError> {
        self.find(served, namespace, name).ok_or_else(|| ApiError::not_found(&served.resource, name))
    }

    /// An object of the legacy group as a tree, in its stored version.
    pub(crate) fn core_object(&self, plural: &str, namespace: Option<&str>, name: &str) -> Option<Value> {
        self.find(self.kinds.core(plural), namespace, name)?.decode().ok()
    }
}

// === impl Cx ===

impl<'a> Cx<'a> {
    pub(crate) fn new(
        registry: &'a Arc<Registry>,
        user: &'a UserInfo,
        agent: &str,
        subresource: &str,
    ) -> Self {
        let (agent, subresource) = (agent.to_owned(), subresource.to_owned());
        Self { registry, user, agent, subresource, warnings: Mutex::default() }
    }

    /// Who owns the fields a write changes.
    pub(crate) fn writer(&self, served: &Served, options: &WriteOptions, operation: Operation) -> Who {
        let manager = if options.manager.is_empty() { &self.agent } else { &options.manager };
        Who {
            manager: manager.clone(),
            operation,
            subresource: self.subresource.clone(),
            api_version: served.stored.api_version(),
        }
    }

    /// The door the request comes through; empty for the main one.
    pub(crate) fn subresource(&self) -> &str {
        &self.subresource
    }

    /// Adds a `Warning` header to the answer.
    pub(crate) fn warn(&self, text: impl Into<String>) {
        let text = text.into();
        let mut warnings = self.warnings.lock().unwrap_or_else(PoisonError::into_inner);
        if !warnings.contains(&text) {
            warnings.push(text);
        }
    }

    pub(crate) fn take_warnings(&self) -> Vec<String> {
        std::mem::take(&mut *self.warnings.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Says that nothing acts on the kind.
    pub(crate) fn warn_inert(&self, served: &Served, verb: Verb) {
        if served.resource.inert && matches!(verb, Verb::Create | Verb::Update | Verb::Patch) {
            self.warn(format!(
                "{} objects are stored but nothing acts on them in this version of xebec",
                served.resource.gvk.kind
            ));
        }
    }
}
