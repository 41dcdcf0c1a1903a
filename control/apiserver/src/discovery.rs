//! Discovery: which groups, versions and resources are served.
//!
//! In: the table of kinds. Out: the legacy documents (`/api`, `/apis`, `/apis/<group>`, `/apis/<group>/<version>`) and
//! the aggregated ones, whose ETag lets clients keep what they have.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::body::{self, Body};
use crate::dispatch;
use crate::kinds::{Gvk, Resource, Verb};
use crate::negotiate::DiscoveryOutput;
use crate::registry::catalog::Catalog;
use crate::status::ApiError;

/// Answers a discovery path; `None` if it is none.
pub(crate) fn respond(
    kinds: &Catalog,
    path: &str,
    headers: &HeaderMap,
) -> Option<Result<Response<Body>, ApiError>> {
    let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    let document = match segments.as_slice() {
        ["api"] => return Some(root(kinds, true, headers)),
        ["apis"] => return Some(root(kinds, false, headers)),
        ["api", version] => resources(kinds, "", version),
        ["apis", group] => {
            groups(kinds, false).into_iter().find(|(name, _)| name == group).map(|(name, versions)| {
                let mut document = group_document(&name, &versions);
                document["kind"] = "APIGroup".into();
                document["apiVersion"] = "v1".into();
                document
            })
        }
        ["apis", group, version] => resources(kinds, group, version),
        _ => None,
    };
    document.map(|document| Ok(json_response(&document)))
}

fn json_response(document: &Value) -> Response<Body> {
    dispatch::json_response(StatusCode::OK, document)
}

fn root(kinds: &Catalog, legacy_group: bool, headers: &HeaderMap) -> Result<Response<Body>, ApiError> {
    let groups = groups(kinds, legacy_group);
    Ok(match DiscoveryOutput::negotiate(headers)? {
        DiscoveryOutput::Aggregated { version } => aggregated(kinds, &groups, version, headers),
        DiscoveryOutput::Legacy if legacy_group => json_response(&json!({
            "kind": "APIVersions", "versions": ["v1"],
            "serverAddressByClientCIDRs": [],
        })),
        DiscoveryOutput::Legacy => {
            let groups: Vec<Value> =
                groups.iter().map(|(name, versions)| group_document(name, versions)).collect();
            json_response(&json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": groups }))
        }
    })
}

/// Groups with their versions, both by falling preference.
fn groups(kinds: &Catalog, legacy_group: bool) -> Vec<(String, Vec<String>)> {
    let mut groups: Vec<(String, Vec<String>)> = Vec::new();
    for resource in kinds.all().filter(|resource| resource.gvk.group.is_empty() == legacy_group) {
        let (group, version) = (resource.gvk.group.to_string(), resource.gvk.version.to_string());
        match groups.iter_mut().find(|(name, _)| *name == group) {
            Some((_, versions)) if versions.contains(&version) => {}
            Some((_, versions)) => versions.push(version),
            None => groups.push((group, vec![version])),
        }
    }
    groups
}

fn group_document(name: &str, versions: &[String]) -> Value {
    let version =
        |version: &String| json!({ "groupVersion": format!("{name}/{version}"), "version": version });
    json!({
        "name": name,
        "versions": versions.iter().map(version).collect::<Vec<_>>(),
        "preferredVersion": versions.first().map(version),
    })
}

/// The `APIResourceList` of a group and version.
fn resources(kinds: &Catalog, group: &str, version: &str) -> Option<Value> {
    let mut list = Vec::new();
    for resource in of_version(kinds, group, version) {
        let mut entry = json!({
            "name": resource.plural, "singularName": resource.singular, "namespaced": resource.namespaced,
            "kind": &*resource.gvk.kind, "verbs": words(&resource.verbs),
        });
        if !resource.short_names.is_empty() {
            entry["shortNames"] = resource.short_names.clone().into();
        }
        if !resource.categories.is_empty() {
            entry["categories"] = resource.categories.clone().into();
        }
        list.push(entry);
        for subresource in &resource.subresources {
            let mut entry = json!({
                "name": format!("{}/{}", resource.plural, subresource.name), "singularName": "",
                "namespaced": resource.namespaced, "kind": &*subresource.gvk.kind, "verbs": words(subresource.verbs),
            });
            if is_foreign(&subresource.gvk, resource) {
                entry["group"] = (*subresource.gvk.group).into();
                entry["version"] = (*subresource.gvk.version).into();
            }
            list.push(entry);
        }
    }
    let group_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    (!list.is_empty()).then(|| {
        json!({
            "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": list,
        })
    })
}

fn of_version<'a>(
    kinds: &'a Catalog,
    group: &'a str,
    version: &'a str,
) -> impl Iterator<Item = &'a Resource> {
    kinds.all().filter(move |resource| &*resource.gvk.group == group && &*resource.gvk.version == version)
}

fn is_foreign(gvk: &Gvk, resource: &Resource) -> bool {
    gvk.group != resource.gvk.group || gvk.version != resource.gvk.version
}

fn words(verbs: &[Verb]) -> Vec<&'static str> {
    verbs.iter().map(|verb| verb.as_str()).collect()
}

fn aggregated(
    kinds: &Catalog,
    groups: &[(String, Vec<String>)],
    api_version: &str,
    headers: &HeaderMap,
) -> Response<Body> {
    let items: Vec<Value> = groups
        .iter()
        .map(|(name, versions)| {
            let versions: Vec<Value> = versions
                .iter()
                .map(|version| {
                    let resources: Vec<Value> =
                        of_version(kinds, name, version).map(aggregated_resource).collect();
                    json!({ "version": version, "freshness": "Current", "resources": resources })
                })
                .collect();
            // The legacy group has no name at all.
            let metadata = if name.is_empty() { json!({}) } else { json!({ "name": name }) };
            json!({ "metadata": metadata, "versions": versions })
        })
        .collect();
    let document = json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": format!("apidiscovery.k8s.io/{api_version}"), "metadata": {},
        "items": items,
    });
    let text = document.to_string();
    let etag = format!("\"{}\"", hex::encode_upper(Sha256::digest(&text)));
    let known = headers.get(header::IF_NONE_MATCH).is_some_and(|value| value.as_bytes() == etag.as_bytes());
    let mut response = Response::new(body::full(if known { Bytes::new() } else { text.into() }));
    if known {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    let content_type =
        format!("application/json;g=apidiscovery.k8s.io;v={api_version};as=APIGroupDiscoveryList");
    for (name, value) in
        [(header::CONTENT_TYPE, content_type), (header::ETAG, etag), (header::VARY, "Accept".into())]
    {
        if let Ok(value) = HeaderValue::from_str(&value) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

fn aggregated_resource(resource: &Resource) -> Value {
    let scope = if resource.namespaced { "Namespaced" } else { "Cluster" };
    let mut entry = json!({
        "resource": resource.plural, "responseKind": response_kind(&resource.gvk), "scope": scope,
        "singularResource": resource.singular, "verbs": words(&resource.verbs),
    });
    if !resource.short_names.is_empty() {
        entry["shortNames"] = resource.short_names.clone().into();
    }
    if !resource.categories.is_empty() {
        entry["categories"] = resource.categories.clone().into();
    }
    let subresources: Vec<Value> = resource
        .subresources
        .iter()
        .map(|subresource| {
            json!({
                "subresource": subresource.name, "responseKind": response_kind(&subresource.gvk),
                "verbs": words(subresource.verbs),
            })
        })
        .collect();
    if !subresources.is_empty() {
        entry["subresources"] = subresources.into();
    }
    entry
}

fn response_kind(gvk: &Gvk) -> Value {
    json!({ "group": &*gvk.group, "version": &*gvk.version, "kind": &*gvk.kind })
}
