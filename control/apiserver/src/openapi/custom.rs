//! Custom resources in OpenAPI.
//!
//! In: their schemas as their definitions hold them. Out: definitions with `metadata` as every object has it, for v3 as
//! they are, for v2 without what v2 cannot say.

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::registry::Served;

const METADATA: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
/// Words that v2 does not have, or has in another sense.
const NOT_IN_V2: &[&str] = &["allOf", "anyOf", "nullable", "not", "oneOf"];

/// Definitions for v3, by name.
pub(super) fn v3<'a>(served: impl Iterator<Item = &'a Served>) -> Map<String, Value> {
    let metadata = json!({ "allOf": [{ "$ref": format!("#/components/schemas/{METADATA}") }] });
    served.filter_map(|served| Some((name(served), definition(served, &metadata)?))).collect()
}

/// Definitions for v2, by name.
pub(super) fn v2<'a>(served: impl Iterator<Item = &'a Served>) -> Map<String, Value> {
    let metadata = json!({ "$ref": format!("#/definitions/{METADATA}") });
    served
        .filter_map(|served| {
            let mut definition = definition(served, &metadata)?;
            simplify(&mut definition);
            Some((name(served), definition))
        })
        .collect()
}

/// What tells one state of a group's schemas from another.
pub(super) fn hash<'a>(served: impl Iterator<Item = &'a Served>) -> Option<String> {
    let mut digest = Sha256::new();
    let mut any = false;
    for served in served {
        let Some(custom) = &served.custom else { continue };
        digest.update(format!("{} {}", served.resource.gvk, served.resource.plural));
        digest.update(custom.published.to_string());
        digest.update([0]);
        any = true;
    }
    any.then(|| hex::encode_upper(digest.finalize()))
}

/// `com.example.v1.Ship`
fn name(served: &Served) -> String {
    let gvk = &served.resource.gvk;
    let group: Vec<&str> = gvk.group.split('.').rev().collect();
    format!("{}.{}.{}", group.join("."), gvk.version, gvk.kind)
}

fn definition(served: &Served, metadata: &Value) -> Option<Value> {
    let gvk = &served.resource.gvk;
    let mut definition = served.custom.as_ref()?.published.clone();
    let fields = definition.as_object_mut()?;
    let properties = fields.entry("properties").or_insert_with(|| json!({}));
    properties["apiVersion"] = json!({ "type": "string" });
    properties["kind"] = json!({ "type": "string" });
    properties["metadata"] = metadata.clone();
    fields.insert(
        "x-kubernetes-group-version-kind".into(),
        json!([{ "group": &*gvk.group, "version": &*gvk.version, "kind": &*gvk.kind }]),
    );
    Some(definition)
}

fn simplify(schema: &mut Value) {
    let Some(fields) = schema.as_object_mut() else { return };
    let is_free = fields.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true));
    let is_either = fields.get("x-kubernetes-int-or-string") == Some(&Value::Bool(true));
    if is_free {
        // v2 clients would refuse fields that are not listed.
        fields.remove("properties");
        fields.remove("type");
    }
    if is_either {
        fields.remove("type");
    }
    fields.retain(|word, _| !NOT_IN_V2.contains(&word.as_str()));
    if let Some(properties) = fields.get_mut("properties").and_then(Value::as_object_mut) {
        properties.values_mut().filter(|property| property.get("$ref").is_none()).for_each(simplify);
    }
    for below in ["items", "additionalProperties"] {
        if let Some(schema) = fields.get_mut(below) {
            simplify(schema);
        }
    }
}
