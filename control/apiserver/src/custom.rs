//! Custom resources: kinds that a CustomResourceDefinition adds while the server runs.
//!
//! In: the stored definitions. Out: what they add to the table of kinds, each version with its schema, columns and
//! sub-resources. Absent: conversion between versions by a webhook; all versions hold the same fields. Rules in CEL
//! (`x-kubernetes-validations`) are kept but not judged; whoever defines such a kind is warned.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use crate::field_error::FieldError;
use crate::follow::Fold;
use crate::kinds::{self, Gvk, Resource, Subresource};
use crate::meta;
use crate::registry::Served;
use crate::schema::{Definition, Schema};
use crate::stored::Layout;

mod check;
pub(crate) mod cleanup;
pub(crate) mod columns;
pub(crate) mod definition;
mod fill;
pub(crate) mod path;
mod prune;
mod shapes;
mod structural;

use columns::Column;
use path::JsonPath;
use structural::Structural;

/// Where definitions are kept.
pub(crate) const PREFIX: &str = "/registry/apiextensions.k8s.io/customresourcedefinitions/";

/// What one served version of a custom kind is besides a resource.
#[derive(Debug)]
pub(crate) struct Custom {
    schema: Structural,
    /// How server-side apply takes objects apart.
    shapes: Schema,
    columns: Vec<Column>,
    /// Fields it can be selected by besides name and namespace.
    pub(crate) selectable: Vec<String>,
    pub(crate) scale: Option<ScalePaths>,
    /// The schema as published.
    pub(crate) published: Value,
    pub(crate) deprecation: Option<String>,
    /// The definition is being deleted: no object is made any more.
    pub(crate) terminating: bool,
}

/// Where the counts of a kind that can be scaled are.
#[derive(Clone, Debug)]
pub(crate) struct ScalePaths {
    pub(crate) replicas: Vec<String>,
    pub(crate) status_replicas: Vec<String>,
    pub(crate) selector: Option<Vec<String>>,
}

/// All custom kinds that are served.
#[derive(Default)]
pub(crate) struct CustomKinds {
    /// By the definition's name, then the versions in their order of preference.
    served: BTreeMap<String, Vec<Served>>,
}

// === impl CustomKinds ===

impl CustomKinds {
    pub(crate) fn get(&self, group: &str, version: &str, plural: &str) -> Option<Served> {
        let versions = self.served.get(&format!("{plural}.{group}"))?;
        versions.iter().find(|served| &*served.resource.gvk.version == version).cloned()
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Served> {
        self.served.values().flatten()
    }
}

impl Fold for CustomKinds {
    fn put(&mut self, place: &str, object: Value) {
        let served = versions(&object);
        if served.is_empty() {
            self.served.remove(place);
        } else {
            self.served.insert(place.to_owned(), served);
        }
    }

    fn delete(&mut self, place: &str) {
        self.served.remove(place);
    }
}

/// The versions a definition serves, once its names are accepted.
pub(crate) fn versions(definition: &Value) -> Vec<Served> {
    let established = meta::items(definition, &["status", "conditions"])
        .any(|condition| condition["type"] == "Established" && condition["status"] == "True");
    if !established {
        return Vec::new();
    }
    let mut versions: Vec<&Value> =
        meta::items(definition, &["spec", "versions"]).filter(|version| version["served"] == true).collect();
    versions.sort_by_key(|version| std::cmp::Reverse(priority(meta::text(version, &["name"]))));
    versions.into_iter().map(|version| served(definition, version)).collect()
}

/// The version objects are kept in, whether it is served or not.
pub(crate) fn storage(definition: &Value) -> Option<Served> {
    let version = meta::items(definition, &["spec", "versions"]).find(|version| version["storage"] == true);
    version.map(|version| served(definition, version))
}

/// Of `v1beta2`: stable before beta before alpha, then by number; other names last, by their letters.
fn priority(version: &str) -> (u8, u64, u64, std::cmp::Reverse<String>) {
    let other = (0, 0, 0, std::cmp::Reverse(version.to_owned()));
    let Some(rest) = version.strip_prefix('v') else { return other };
    let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let Ok(major) = rest[..digits].parse() else { return other };
    let (stage, minor) = match &rest[digits..] {
        "" => (3, "0"),
        tail => match (tail.strip_prefix("beta"), tail.strip_prefix("alpha")) {
            (Some(minor), _) => (2, minor),
            (_, Some(minor)) => (1, minor),
            _ => return other,
        },
    };
    minor.parse().map_or(other, |minor| (stage, major, minor, std::cmp::Reverse(String::new())))
}

fn served(definition: &Value, version: &Value) -> Served {
    let text = |path: &[&str]| meta::text(definition, path);
    let (group, kind) = (text(&["spec", "group"]), text(&["spec", "names", "kind"]));
    let name = meta::text(version, &["name"]);
    let gvk = Gvk::new(group, name, kind);
    let stored = meta::items(definition, &["spec", "versions"])
        .find(|version| version["storage"] == true)
        .map_or(gvk.clone(), |version| Gvk::new(group, meta::text(version, &["name"]), kind));
    let strings = |path: &[&str]| -> Vec<String> {
        meta::items(definition, path).filter_map(Value::as_str).map(ToOwned::to_owned).collect()
    };
    let custom = Custom::of(definition, version);
    let mut subresources = Vec::new();
    if custom.scale.is_some() {
        let gvk = Gvk::new("autoscaling", "v1", "Scale");
        subresources.push(Subresource { name: "scale", gvk, verbs: kinds::STATUS_VERBS });
    }
    if meta::at(version, &["subresources", "status"]).is_some() {
        subresources.push(Subresource { name: "status", gvk: gvk.clone(), verbs: kinds::STATUS_VERBS });
    }
    let resource = Resource {
        plural: text(&["spec", "names", "plural"]).to_owned(),
        singular: text(&["spec", "names", "singular"]).to_owned(),
        short_names: strings(&["spec", "names", "shortNames"]),
        categories: strings(&["spec", "names", "categories"]),
        namespaced: text(&["spec", "scope"]) == "Namespaced",
        verbs: kinds::CRUD.to_vec(),
        subresources,
        stored_as: (stored != gvk).then(|| stored.clone()),
        inert: false,
        gvk,
    };
    Served {
        resource: Arc::new(resource),
        layout: Arc::new(Layout::of(&stored)),
        stored,
        custom: Some(Arc::new(custom)),
    }
}

// === impl Custom ===

impl Custom {
    fn of(definition: &Value, version: &Value) -> Self {
        let published = meta::at(version, &["schema", "openAPIV3Schema"]).cloned().unwrap_or_default();
        let schema = Structural::from_json(&published);
        let scale = meta::at(version, &["subresources", "scale"]);
        let fields = meta::items(version, &["selectableFields"]);
        let deprecated = version["deprecated"] == true;
        let warning = meta::text(version, &["deprecationWarning"]);
        let (group, name) = (meta::text(definition, &["spec", "group"]), meta::text(version, &["name"]));
        let kind = meta::text(definition, &["spec", "names", "kind"]);
        Self {
            shapes: shapes::of(&schema),
            columns: columns::columns(version),
            selectable: fields
                .map(|field| meta::text(field, &["jsonPath"]).trim_start_matches('.').to_owned())
                .collect(),
            scale: scale.and_then(ScalePaths::from_json),
            deprecation: deprecated.then(|| match warning {
                "" => format!("{group}/{name} {kind} is deprecated"),
                warning => warning.to_owned(),
            }),
            terminating: meta::is_deleting(definition),
            schema,
            published,
        }
    }

    /// Drops what the schema does not know; answers where it was.
    pub(crate) fn prune(&self, object: &mut Value) -> Vec<String> {
        prune::prune(object, &self.schema)
    }

    pub(crate) fn fill(&self, object: &mut Value) {
        fill::fill(object, &self.schema);
    }

    pub(crate) fn check(&self, object: &Value) -> Vec<FieldError> {
        check::check(object, &self.schema)
    }

    pub(crate) fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// For server-side apply.
    pub(crate) fn shapes(&self) -> Option<(&Schema, &Definition)> {
        Some((&self.shapes, self.shapes.named(shapes::ROOT)?))
    }
}

// === impl ScalePaths ===

impl ScalePaths {
    fn from_json(scale: &Value) -> Option<Self> {
        let path = |field: &str| -> Option<Vec<String>> {
            let path = JsonPath::parse(meta::text(scale, &[field]))?;
            let fields = path.fields()?;
            (!fields.is_empty()).then(|| fields.into_iter().map(ToOwned::to_owned).collect())
        };
        Some(Self {
            replicas: path("specReplicasPath")?,
            status_replicas: path("statusReplicasPath")?,
            selector: path("labelSelectorPath"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ranked_as_upstream_ranks_them() {
        let mut versions =
            ["v1alpha1", "foo", "v2", "v11beta2", "v10", "v1", "v3beta1", "foo10", "v12alpha1"];
        versions.sort_by_key(|version| std::cmp::Reverse(priority(version)));
        assert_eq!(
            versions,
            ["v10", "v2", "v1", "v11beta2", "v3beta1", "v12alpha1", "v1alpha1", "foo", "foo10"]
        );
    }
}
