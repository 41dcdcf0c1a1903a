//! `/openapi/v2` and `/openapi/v3`: what is served, and what its objects are made of.
//!
//! In: the table of kinds, the published definitions. Out: the one document of v2, in JSON or Protocol Buffers; of v3 the
//! index and a document per group and version. A document takes many times its size to be made: they are made one at a
//! time, and shared by all who still read one.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use http::{HeaderValue, Response, header};
use serde_json::{Map, Value, json};

use crate::body::{self, Body};
use crate::kinds::{Resource, Verb};
use crate::negotiate::SchemaOutput;
use crate::registry::Served;
use crate::registry::catalog::Catalog;
use crate::status::ApiError;
use crate::version::GIT_VERSION;

mod binary;
mod custom;
mod schemas;

/// What all paths of this module begin with.
pub(crate) const ROOT: &str = "/openapi/";
pub(crate) const V2: &str = "/openapi/v2";
/// The media type of v2 in Protocol Buffers.
pub(crate) const V2_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
/// What kubectl calls it.
pub(crate) const V2_PROTOBUF_FORMERLY: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
const V3: &str = "/openapi/v3";
const PARAMETERS: &[&str] = &["dryRun", "fieldManager", "fieldValidation"];

/// Documents that somebody still reads.
#[derive(Default)]
pub(crate) struct Documents {
    kept: tokio::sync::Mutex<HashMap<(String, SchemaOutput), Kept>>,
}

struct Kept {
    /// Of the custom kinds in it.
    hash: Option<String>,
    text: Weak<Vec<u8>>,
}

/// Bytes of an answer that keep the document for others.
struct Shared(Arc<Vec<u8>>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

// === impl Documents ===

impl Documents {
    /// The document at a path; `None` if there is none.
    pub(crate) async fn get(
        &self,
        kinds: Catalog,
        path: &str,
        output: SchemaOutput,
    ) -> Result<Option<Bytes>, ApiError> {
        let hash = custom::hash(kinds.custom().iter());
        let mut kept = self.kept.lock().await;
        let at = (path.to_owned(), output);
        let held = kept.get(&at).filter(|held| held.hash == hash).and_then(|held| held.text.upgrade());
        if let Some(text) = held {
            return Ok(Some(Bytes::from_owner(Shared(text))));
        }
        let asked = path.to_owned();
        let made = tokio::task::spawn_blocking(move || {
            document(&kinds, &asked).map(|made| {
                made.map(|document| match output {
                    SchemaOutput::Json => document.to_string().into_bytes(),
                    SchemaOutput::Protobuf => binary::encode(&document),
                })
            })
        });
        let Some(text) = made.await.map_err(ApiError::internal)?? else { return Ok(None) };
        let text = Arc::new(text);
        kept.retain(|_, held| held.text.strong_count() > 0);
        kept.insert(at, Kept { hash, text: Arc::downgrade(&text) });
        Ok(Some(Bytes::from_owner(Shared(text))))
    }
}

/// The document at a path; `None` if there is none.
fn document(kinds: &Catalog, path: &str) -> Result<Option<Value>, ApiError> {
    if path == V2 {
        return v2(kinds).map(Some);
    }
    let Some(rest) = path.strip_prefix(V3).map(|rest| rest.trim_matches('/')) else { return Ok(None) };
    if rest.is_empty() {
        return Ok(Some(index(kinds)));
    }
    let segments: Vec<&str> = rest.split('/').collect();
    let (group, version) = match segments.as_slice() {
        ["api", version] => ("", *version),
        ["apis", group, version] => (*group, *version),
        _ => return Ok(None),
    };
    if !kinds.has_group_version(group, version) {
        return Ok(None);
    }
    let served = kinds.all().filter(|r| &*r.gvk.group == group && &*r.gvk.version == version);
    let mut schemas = schemas::of(group, version)?;
    schemas.extend(custom::v3(of_version(kinds, group, version)));
    Ok(Some(json!({
        "openapi": "3.0.0", "info": info(), "paths": paths(served, parameter_v3),
        "components": { "schemas": schemas },
    })))
}

/// An answer with the document of v2 in Protocol Buffers.
pub(crate) fn protobuf_response(document: Bytes) -> Response<Body> {
    let mut response = Response::new(body::full(document));
    let media_type = HeaderValue::from_static(V2_PROTOBUF);
    response.headers_mut().insert(header::CONTENT_TYPE, media_type);
    response
}

fn v2(kinds: &Catalog) -> Result<Value, ApiError> {
    let mut definitions = schemas::all()?;
    definitions.extend(custom::v2(kinds.custom().iter()));
    Ok(json!({
        "swagger": "2.0", "info": info(), "paths": paths(kinds.all(), parameter_v2), "definitions": definitions,
    }))
}

fn of_version<'a>(kinds: &'a Catalog, group: &'a str, version: &'a str) -> impl Iterator<Item = &'a Served> {
    let is_asked = move |served: &&Served| {
        let gvk = &served.resource.gvk;
        &*gvk.group == group && &*gvk.version == version
    };
    kinds.custom().iter().filter(is_asked)
}

fn info() -> Value {
    json!({ "title": "Kubernetes", "version": GIT_VERSION })
}

fn root_of(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

fn index(kinds: &Catalog) -> Value {
    let mut paths = Map::new();
    for resource in kinds.all() {
        let root = root_of(&resource.gvk.group, &resource.gvk.version);
        // What is built in changes with the version only, so that is what clients cache by.
        let changing = custom::hash(of_version(kinds, &resource.gvk.group, &resource.gvk.version));
        let url = format!("{V3}/{root}?hash={}", changing.unwrap_or_else(|| GIT_VERSION.replace('+', "-")));
        paths.insert(root, json!({ "serverRelativeURL": url }));
    }
    json!({ "paths": paths })
}

/// The operations on collections and on single objects.
fn paths<'a>(
    resources: impl Iterator<Item = &'a Resource>,
    parameter: fn(&str) -> Value,
) -> Map<String, Value> {
    const COLLECTION: &[(Verb, &str)] =
        &[(Verb::List, "get"), (Verb::Create, "post"), (Verb::DeleteCollection, "delete")];
    const OBJECT: &[(Verb, &str)] =
        &[(Verb::Get, "get"), (Verb::Update, "put"), (Verb::Patch, "patch"), (Verb::Delete, "delete")];
    let mut paths = Map::new();
    for resource in resources {
        let path = path_of(resource);
        for (path, verbs) in [(path.clone(), COLLECTION), (format!("{path}/{{name}}"), OBJECT)] {
            let operations: Map<String, Value> = verbs
                .iter()
                .filter(|(verb, _)| resource.allows(*verb))
                .map(|(verb, method)| ((*method).to_owned(), operation(resource, *verb, parameter)))
                .collect();
            if !operations.is_empty() {
                paths.insert(path, operations.into());
            }
        }
    }
    paths
}

fn path_of(resource: &Resource) -> String {
    let root = root_of(&resource.gvk.group, &resource.gvk.version);
    let namespace = if resource.namespaced { "namespaces/{namespace}/" } else { "" };
    format!("/{root}/{namespace}{}", resource.plural)
}

fn operation(resource: &Resource, verb: Verb, parameter: fn(&str) -> Value) -> Value {
    let action = match verb {
        Verb::Create => "post",
        Verb::Update => "put",
        other => other.as_str(),
    };
    let writes = matches!(verb, Verb::Create | Verb::Update | Verb::Patch);
    let names = if writes { PARAMETERS } else { &[] };
    let gvk = &resource.gvk;
    json!({
        "operationId": format!("{action}{}{}{}", gvk.group.replace('.', "_"), gvk.version, gvk.kind),
        "parameters": names.iter().map(|name| parameter(name)).collect::<Vec<_>>(),
        "responses": { "200": { "description": "OK" } },
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": {
            "group": &*gvk.group, "version": &*gvk.version, "kind": &*gvk.kind,
        },
    })
}

fn parameter_v2(name: &str) -> Value {
    json!({ "name": name, "in": "query", "type": "string", "uniqueItems": true })
}

fn parameter_v3(name: &str) -> Value {
    json!({ "name": name, "in": "query", "schema": { "type": "string", "uniqueItems": true } })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all_references(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                found.extend(fields.get("$ref").and_then(Value::as_str).map(ToOwned::to_owned));
                fields.values().for_each(|field| all_references(field, found));
            }
            Value::Array(items) => items.iter().for_each(|item| all_references(item, found)),
            _ => {}
        }
    }

    #[tokio::test]
    async fn a_document_is_shared_while_it_is_read() {
        let documents = Documents::default();
        const PATH: &str = "/openapi/v3/apis/apps/v1";
        let get = || documents.get(Catalog::builtin(), PATH, SchemaOutput::Json);
        let first = get().await.expect("reads").expect("a document");
        let second = get().await.expect("reads").expect("a document");
        assert_eq!(first.as_ptr(), second.as_ptr());
        drop((first, second));
        assert_eq!(
            documents.kept.lock().await[&(PATH.to_owned(), SchemaOutput::Json)].text.strong_count(),
            0
        );
        let none = documents.get(Catalog::builtin(), "/openapi/v3/apis/nope/v1", SchemaOutput::Json);
        assert!(none.await.expect("reads").is_none());
    }

    #[test]
    fn every_document_holds_what_it_refers_to() {
        let kinds = Catalog::builtin();
        let index = document(&kinds, V3).expect("reads").expect("an index");
        for root in index["paths"].as_object().expect("paths").keys() {
            let found = document(&kinds, &format!("{V3}/{root}")).expect("reads").expect("a document");
            assert_eq!(found["openapi"], "3.0.0");
            let mut references = Vec::new();
            all_references(&found, &mut references);
            for reference in references {
                let name = reference.strip_prefix("#/components/schemas/").expect("a v3 reference");
                assert!(found["components"]["schemas"].get(name).is_some(), "{root}: {name}");
            }
        }
        assert_eq!(document(&kinds, "/openapi/v3/apis/nope/v1").expect("reads"), None);
    }

    #[test]
    fn every_served_kind_has_its_schema() {
        let kinds = Catalog::builtin();
        let v2 = document(&kinds, V2).expect("reads").expect("a document");
        let definitions = v2["definitions"].as_object().expect("definitions");
        for resource in kinds.all() {
            let gvk = &resource.gvk;
            let wanted = json!({ "group": &*gvk.group, "version": &*gvk.version, "kind": &*gvk.kind });
            let described = definitions.values().any(|definition| {
                let kinds = definition.get("x-kubernetes-group-version-kind").and_then(Value::as_array);
                kinds.is_some_and(|kinds| kinds.contains(&wanted))
            });
            assert!(described, "{gvk}");
        }
        assert!(v2["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"].is_object());
    }
}
