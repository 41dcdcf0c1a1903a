//! Everything that is served at one moment, for those who list it: discovery and OpenAPI.
//!
//! In: built-in and custom kinds. Out: their descriptions, in the order of discovery.

use std::sync::Arc;

use crate::kinds::{self, Resource};
use crate::registry::{Registry, Served};

/// Built-in resources, then custom ones.
pub(crate) struct Catalog {
    resources: Vec<Arc<Resource>>,
    custom: Vec<Served>,
}

// === impl Catalog ===

impl Catalog {
    /// Without custom resources.
    pub(crate) fn builtin() -> Self {
        Self { resources: kinds::builtin().to_vec(), custom: Vec::new() }
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Resource> {
        self.resources.iter().map(|resource| &**resource)
    }

    pub(crate) fn custom(&self) -> &[Served] {
        &self.custom
    }

    pub(crate) fn has_group_version(&self, group: &str, version: &str) -> bool {
        self.all().any(|resource| &*resource.gvk.group == group && &*resource.gvk.version == version)
    }
}

impl Registry {
    pub(crate) fn catalog(&self) -> Catalog {
        let mut catalog = Catalog::builtin();
        catalog.custom = self.custom.read(&self.store).all().cloned().collect();
        catalog.resources.extend(catalog.custom.iter().map(|served| served.resource.clone()));
        catalog
    }
}
