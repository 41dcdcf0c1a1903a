//! `/openapi/v3`: enough of it for kubectl to know that fields are validated here.
//!
//! In: the table of kinds. Out: the index and, per group and version, the patch operations with their parameters.
//! Absent: the schemas themselves, which `explain` needs.

use serde_json::{Map, Value, json};

use crate::kinds::{Resource, Verb};
use crate::registry::Kinds;
use crate::version::GIT_VERSION;

const ROOT: &str = "/openapi/v3";

/// The document at a path; `None` if there is none.
pub(crate) fn document(kinds: &Kinds, path: &str) -> Option<Value> {
    let rest = path.strip_prefix(ROOT)?.trim_matches('/');
    if rest.is_empty() {
        return Some(index(kinds));
    }
    let segments: Vec<&str> = rest.split('/').collect();
    let (group, version) = match segments.as_slice() {
        ["api", version] => ("", *version),
        ["apis", group, version] => (*group, *version),
        _ => return None,
    };
    kinds.has_group_version(group, version).then(|| group_version(kinds, group, version))
}

fn root_of(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

fn index(kinds: &Kinds) -> Value {
    let mut paths = Map::new();
    for resource in kinds.all() {
        let root = root_of(&resource.gvk.group, &resource.gvk.version);
        // What is served changes with the version only, so that is what clients cache by.
        let url = format!("{ROOT}/{root}?hash={}", GIT_VERSION.replace('+', "-"));
        paths.insert(root, json!({ "serverRelativeURL": url }));
    }
    json!({ "paths": paths })
}

fn group_version(kinds: &Kinds, group: &str, version: &str) -> Value {
    let mut paths = Map::new();
    let served = kinds.all().filter(|r| &*r.gvk.group == group && &*r.gvk.version == version);
    for resource in served.filter(|resource| resource.allows(Verb::Patch)) {
        paths.insert(path_of(resource), json!({ "patch": patch_operation(resource) }));
    }
    json!({
        "openapi": "3.0.0", "info": { "title": "Kubernetes", "version": GIT_VERSION }, "paths": paths,
        "components": { "schemas": {} },
    })
}

fn path_of(resource: &Resource) -> String {
    let root = root_of(&resource.gvk.group, &resource.gvk.version);
    let namespace = if resource.namespaced { "namespaces/{namespace}/" } else { "" };
    format!("/{root}/{namespace}{}/{{name}}", resource.plural)
}

fn patch_operation(resource: &Resource) -> Value {
    let parameter = |name: &str| json!({ "name": name, "in": "query", "schema": { "type": "string", "uniqueItems": true } });
    let parameters: Vec<Value> =
        ["dryRun", "fieldManager", "fieldValidation"].into_iter().map(parameter).collect();
    json!({
        "operationId": format!("patch{}", resource.gvk.kind),
        "parameters": parameters,
        "responses": { "200": { "description": "OK" } },
        "x-kubernetes-action": "patch",
        "x-kubernetes-group-version-kind": {
            "group": &*resource.gvk.group, "version": &*resource.gvk.version, "kind": &*resource.gvk.kind,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_version_in_the_index_has_a_document() {
        let kinds = Kinds::builtin();
        let index = document(&kinds, "/openapi/v3").expect("an index");
        for root in index["paths"].as_object().expect("paths").keys() {
            let found = document(&kinds, &format!("/openapi/v3/{root}")).expect("a document");
            assert_eq!(found["openapi"], "3.0.0");
        }
        assert!(document(&kinds, "/openapi/v3/apis/nope/v1").is_none());
        assert!(document(&kinds, "/openapi/v2").is_none());
    }
}
