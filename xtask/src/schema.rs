//! The published Kubernetes API definitions, in the form the API server embeds.
//!
//! In: `_definitions.json` as the `kubernetes-validate` wheel carries it: upstream's OpenAPI definitions, adapted to
//! JSON Schema. Out: the same definitions in upstream's own form, compact and gzipped; equal input gives equal bytes.

use std::io::Write;

use anyhow::{Context, bail, ensure};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

const ADAPTED_REF: &str = "#/$defs/";
const UPSTREAM_REF: &str = "#/definitions/";
const QUANTITY: &str = "io.k8s.apimachinery.pkg.api.resource.Quantity";
const INT_OR_STRING: &str = "io.k8s.apimachinery.pkg.util.intstr.IntOrString";

/// Undoes the adaptation: nullable types, references, the unions that stand for two scalar types, the constants put
/// on `apiVersion` and `kind`.
pub fn convert(definitions_json: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut document: Value =
        serde_json::from_slice(definitions_json).context("the definitions are not JSON")?;
    let Some(Value::Object(mut definitions)) = document.get_mut("$defs").map(Value::take) else {
        bail!("the definitions have no \"$defs\": the wheel's layout has changed");
    };
    let names: Vec<String> = definitions.keys().cloned().collect();
    for (name, definition) in &mut definitions {
        restore(definition, &names).with_context(|| format!("definition {name}"))?;
        drop_constants(definition);
    }
    for (name, scalar) in [
        (
            QUANTITY,
            json!({"type": "string", "description": "A fixed-point number with an optional unit suffix."}),
        ),
        (
            INT_OR_STRING,
            json!({"type": "string", "format": "int-or-string", "description": "An int32 or a string."}),
        ),
    ] {
        ensure!(definitions.contains_key(name), "the definitions lack {name}");
        definitions.insert(name.to_owned(), scalar);
    }
    let mut document = json!({ "definitions": definitions });
    // Sorted here, so that the bytes do not depend on how the JSON library keeps its maps.
    document.sort_all_objects();
    let json = serde_json::to_vec(&document)?;
    let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
    gzip.write_all(&json)?;
    Ok(gzip.finish()?)
}

fn restore(schema: &mut Value, names: &[String]) -> anyhow::Result<()> {
    let Value::Object(schema) = schema else { return Ok(()) };
    if let Some(kind) = schema.get_mut("type") {
        restore_type(kind)?;
    }
    if let Some(reference) = schema.get_mut("$ref") {
        let name = reference.as_str().and_then(|text| text.strip_prefix(ADAPTED_REF));
        let name = name.context("a reference points outside of the definitions")?;
        ensure!(names.iter().any(|known| known == name), "the reference to {name} leads nowhere");
        *reference = format!("{UPSTREAM_REF}{name}").into();
    }
    for key in ["items", "additionalProperties"] {
        if let Some(inner) = schema.get_mut(key) {
            restore(inner, names)?;
        }
    }
    for (name, property) in schema.get_mut("properties").and_then(Value::as_object_mut).into_iter().flatten()
    {
        restore(property, names).with_context(|| format!("property {name}"))?;
    }
    Ok(())
}

/// `["string", "null"]` is `"string"`: upstream does not say "nullable" of built-in types.
fn restore_type(kind: &mut Value) -> anyhow::Result<()> {
    let Value::Array(alternatives) = kind else { return Ok(()) };
    alternatives.retain(|alternative| alternative != "null");
    let [single] = alternatives.as_mut_slice() else { bail!("a type has several alternatives") };
    *kind = single.take();
    Ok(())
}

fn drop_constants(definition: &mut Value) {
    if definition.get("x-kubernetes-group-version-kind").is_none() {
        return;
    }
    for name in ["apiVersion", "kind"] {
        let property = definition.pointer_mut(&format!("/properties/{name}"));
        if let Some(property) = property.and_then(Value::as_object_mut) {
            property.remove("enum");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn unpack(gzip: &[u8]) -> Value {
        let mut json = Vec::new();
        flate2::read::GzDecoder::new(gzip).read_to_end(&mut json).unwrap();
        serde_json::from_slice(&json).unwrap()
    }

    fn adapted(properties: &Value) -> Vec<u8> {
        serde_json::to_vec(&json!({"$defs": {
            "a.Thing": {
                "type": ["object", "null"],
                "properties": properties,
                "x-kubernetes-group-version-kind": [{"group": "a", "version": "v1", "kind": "Thing"}],
            },
            QUANTITY: {"oneOf": [{"type": ["string", "null"]}, {"type": ["number", "null"]}]},
            INT_OR_STRING: {"oneOf": [{"type": ["string", "null"]}, {"type": ["integer", "null"]}]},
        }}))
        .unwrap()
    }

    #[test]
    fn the_adaptation_is_undone() {
        let input = adapted(&json!({
            "kind": {"type": ["string", "null"], "enum": ["Thing"]},
            "sizes": {"type": "array", "items": {"$ref": "#/$defs/io.k8s.apimachinery.pkg.api.resource.Quantity"}},
            "labels": {"type": ["object", "null"], "additionalProperties": {"type": ["string", "null"]}},
        }));
        let document = unpack(&convert(&input).unwrap());
        let thing = &document["definitions"]["a.Thing"];
        assert_eq!(thing["type"], "object");
        assert_eq!(thing["properties"]["kind"], json!({"type": "string"}));
        let reference = "#/definitions/io.k8s.apimachinery.pkg.api.resource.Quantity";
        assert_eq!(thing["properties"]["sizes"]["items"]["$ref"], reference);
        assert_eq!(thing["properties"]["labels"]["additionalProperties"]["type"], "string");
        assert_eq!(document["definitions"][INT_OR_STRING]["format"], "int-or-string");
        assert_eq!(convert(&input).unwrap(), convert(&input).unwrap());
    }

    #[test]
    fn a_changed_layout_is_refused() {
        assert!(convert(b"{}").is_err());
        assert!(convert(b"no json").is_err());
        let dangling = convert(&adapted(&json!({"x": {"$ref": "#/$defs/nowhere"}})));
        assert!(format!("{:#}", dangling.unwrap_err()).contains("nowhere"));
        assert!(convert(&adapted(&json!({"x": {"type": ["string", "integer"]}}))).is_err());
    }
}
