//! What the API serves: every stable built-in resource of Kubernetes v1.37, as data.
//!
//! In: the tables in `kinds/`. Out: [`Resource`] descriptions for discovery, routing, the registry and everything that
//! works by group, version and kind. Absent: behaviour; what differs between kinds is in `strategy`.

use std::fmt;
use std::sync::{Arc, LazyLock};

mod groups;
mod legacy;

/// Group, version and kind. The legacy group is the empty string.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Gvk {
    pub group: Arc<str>,
    pub version: Arc<str>,
    pub kind: Arc<str>,
}

/// What may be done with a resource, by the words discovery and authorisation use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verb {
    Create,
    Delete,
    DeleteCollection,
    Get,
    List,
    Patch,
    Update,
    Watch,
}

/// A door to a part of an object (`pods/status`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subresource {
    /// The path segment, e.g. `status`.
    pub name: &'static str,
    /// What the body is; for `status` the kind of the parent.
    pub gvk: Gvk,
    pub verbs: &'static [Verb],
}

/// One served resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    pub gvk: Gvk,
    pub plural: String,
    pub singular: String,
    pub short_names: Vec<String>,
    pub categories: Vec<String>,
    pub namespaced: bool,
    pub verbs: Vec<Verb>,
    pub subresources: Vec<Subresource>,
    /// Version the objects are stored in, when another version of the same objects is the stored one.
    pub stored_as: Option<Gvk>,
    /// Nothing in this control plane acts on objects of the kind yet: writes are answered with a warning.
    pub inert: bool,
}

/// Every built-in resource, in the order of discovery: groups as upstream ranks them, plurals sorted in each.
pub fn builtin() -> &'static [Arc<Resource>] {
    static ALL: LazyLock<Vec<Arc<Resource>>> = LazyLock::new(|| {
        let rows = legacy::CORE.iter().map(|row| ("", "v1", row));
        let rows = rows.chain(
            groups::GROUPS
                .iter()
                .flat_map(|group| group.resources.iter().map(move |row| (group.name, group.version, row))),
        );
        rows.map(|(group, version, row)| Arc::new(row.resource(group, version))).collect()
    });
    &ALL
}

// === impl Gvk ===

impl Gvk {
    /// The three names as they stand in discovery.
    pub fn new(group: &str, version: &str, kind: &str) -> Self {
        Self { group: group.into(), version: version.into(), kind: kind.into() }
    }

    /// `apps/v1`, or `v1` for the legacy group.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_string()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }
}

impl fmt::Display for Gvk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, Kind={}", self.api_version(), self.kind)
    }
}

// === impl Verb ===

impl Verb {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Delete => "delete",
            Self::DeleteCollection => "deletecollection",
            Self::Get => "get",
            Self::List => "list",
            Self::Patch => "patch",
            Self::Update => "update",
            Self::Watch => "watch",
        }
    }
}

// === impl Resource ===

impl Resource {
    /// `pods` or `deployments.apps`: how statuses and authorisation name the resource.
    pub fn group_resource(&self) -> String {
        if self.gvk.group.is_empty() {
            self.plural.clone()
        } else {
            format!("{}.{}", self.plural, self.gvk.group)
        }
    }

    pub fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|s| s.name == name)
    }

    pub fn has_status(&self) -> bool {
        self.subresource("status").is_some()
    }

    pub fn allows(&self, verb: Verb) -> bool {
        self.verbs.contains(&verb)
    }

    /// What whoever uses a deprecated kind is told.
    pub fn deprecation(&self) -> Option<&'static str> {
        match (&*self.gvk.group, &*self.gvk.version, &*self.gvk.kind) {
            ("", "v1", "ComponentStatus") => Some("v1 ComponentStatus is deprecated in v1.19+"),
            ("", "v1", "Endpoints") => {
                Some("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice")
            }
            _ => None,
        }
    }
}

// === the rows of the tables ===

pub(crate) const CRUD: &[Verb] = &[
    Verb::Create,
    Verb::Delete,
    Verb::DeleteCollection,
    Verb::Get,
    Verb::List,
    Verb::Patch,
    Verb::Update,
    Verb::Watch,
];
pub(crate) const STATUS_VERBS: &[Verb] = &[Verb::Get, Verb::Patch, Verb::Update];

/// `name`, then group, version and kind of the body, then the verbs.
type SubRow = (&'static str, (&'static str, &'static str, &'static str), &'static [Verb]);

struct Group {
    name: &'static str,
    version: &'static str,
    resources: &'static [Row],
}

struct Row {
    kind: &'static str,
    plural: &'static str,
    short: &'static [&'static str],
    categories: &'static [&'static str],
    namespaced: bool,
    verbs: &'static [Verb],
    status: bool,
    subresources: &'static [SubRow],
    stored_as: Option<(&'static str, &'static str)>,
    inert: bool,
}

/// A namespaced resource with all verbs and nothing else.
const fn namespaced(plural: &'static str, kind: &'static str) -> Row {
    Row {
        kind,
        plural,
        short: &[],
        categories: &[],
        namespaced: true,
        verbs: CRUD,
        status: false,
        subresources: &[],
        stored_as: None,
        inert: false,
    }
}

/// A cluster-scoped resource with all verbs and nothing else.
const fn cluster(plural: &'static str, kind: &'static str) -> Row {
    let mut row = namespaced(plural, kind);
    row.namespaced = false;
    row
}

impl Row {
    const fn short(mut self, names: &'static [&'static str]) -> Self {
        self.short = names;
        self
    }

    const fn category(mut self, names: &'static [&'static str]) -> Self {
        self.categories = names;
        self
    }

    const fn verbs(mut self, verbs: &'static [Verb]) -> Self {
        self.verbs = verbs;
        self
    }

    const fn status(mut self) -> Self {
        self.status = true;
        self
    }

    const fn subresources(mut self, rows: &'static [SubRow]) -> Self {
        self.subresources = rows;
        self
    }

    const fn stored_as(mut self, group: &'static str, version: &'static str) -> Self {
        self.stored_as = Some((group, version));
        self
    }

    const fn inert(mut self) -> Self {
        self.inert = true;
        self
    }

    fn resource(&self, group: &str, version: &str) -> Resource {
        let gvk = Gvk::new(group, version, self.kind);
        let mut subresources: Vec<Subresource> = self
            .subresources
            .iter()
            .map(|&(name, (group, version, kind), verbs)| Subresource {
                name,
                gvk: Gvk::new(group, version, kind),
                verbs,
            })
            .collect();
        if self.status {
            subresources.push(Subresource { name: "status", gvk: gvk.clone(), verbs: STATUS_VERBS });
        }
        subresources.sort_by_key(|s| s.name);
        let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        Resource {
            plural: self.plural.to_owned(),
            singular: self.kind.to_lowercase(),
            short_names: owned(self.short),
            categories: owned(self.categories),
            namespaced: self.namespaced,
            verbs: self.verbs.to_vec(),
            subresources,
            stored_as: self.stored_as.map(|(group, version)| Gvk::new(group, version, self.kind)),
            inert: self.inert,
            gvk,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn no_resource_is_listed_twice() {
        let mut seen = HashSet::new();
        for resource in builtin() {
            let key = (resource.gvk.group.clone(), resource.gvk.version.clone(), resource.plural.clone());
            assert!(seen.insert(key), "{} twice", resource.group_resource());
        }
        assert!(seen.len() > 65, "only {} resources", seen.len());
    }

    #[test]
    fn status_is_a_subresource_of_the_same_kind() {
        let pods = builtin().iter().find(|r| r.plural == "pods").expect("pods");
        assert_eq!(pods.subresource("status").expect("status").gvk, pods.gvk);
        assert_eq!(pods.group_resource(), "pods");
        assert_eq!(pods.singular, "pod");
    }

    #[test]
    fn what_is_stored_elsewhere_is_listed_there() {
        for resource in builtin() {
            if let Some(stored) = &resource.stored_as {
                let home = builtin().iter().find(|r| r.gvk == *stored).expect("the stored version is served");
                assert!(home.stored_as.is_none());
            }
        }
    }
}
