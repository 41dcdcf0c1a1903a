//! Pod templates: equality, hash, and the name made of it.
//!
//! In: templates of Deployments and ReplicaSets. Out: whether they are the same but for the hash label; the hash. Pure.

use k8s_openapi::api::core::v1::PodTemplateSpec;
use serde_json::Value;
use xebec_api::wellknown::labels::POD_TEMPLATE_HASH;

/// Both describe the same pods. The hash label does not count, nor does an empty list against none at all.
pub(crate) fn same_template(one: &PodTemplateSpec, other: &PodTemplateSpec) -> bool {
    one == other || canonical(one) == canonical(other)
}

/// The hash that names a ReplicaSet and labels its pods. `collisions` changes it when two templates met in one hash.
pub(crate) fn template_hash(template: &PodTemplateSpec, collisions: Option<i32>) -> String {
    let mut hash = Fnv::new();
    // Map keys are sorted, so the text does not depend on the order of fields.
    hash.write(canonical(template).to_string().as_bytes());
    if let Some(collisions) = collisions {
        hash.write(&collisions.to_le_bytes());
    }
    safe_encode(&hash.0.to_string())
}

fn canonical(template: &PodTemplateSpec) -> Value {
    let mut template = template.clone();
    if let Some(labels) = template.metadata.as_mut().and_then(|meta| meta.labels.as_mut()) {
        labels.remove(POD_TEMPLATE_HASH);
    }
    let mut value = serde_json::to_value(&template).unwrap_or(Value::Null);
    // Not a field of a template's own: the API fills it in with null.
    if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("creationTimestamp");
        metadata.retain(|_, value| !value.as_object().is_some_and(serde_json::Map::is_empty));
        if metadata.is_empty() {
            value.as_object_mut().map(|fields| fields.remove("metadata"));
        }
    }
    drop_empty_lists(&mut value);
    value
}

fn drop_empty_lists(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, field| !field.is_null() && !field.as_array().is_some_and(Vec::is_empty));
            fields.values_mut().for_each(drop_empty_lists);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_empty_lists),
        _ => {}
    }
}

/// FNV-1a, 32 bits.
struct Fnv(u32);

impl Fnv {
    fn new() -> Self {
        Self(0x811c_9dc5)
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
        }
    }
}

/// Letters and digits that spell no words.
fn safe_encode(text: &str) -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    text.bytes().map(|byte| char::from(ALPHABET[usize::from(byte) % ALPHABET.len()])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn template(value: Value) -> PodTemplateSpec {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn hash_label_and_empty_lists_do_not_make_a_difference() {
        let one = template(json!({
            "metadata": {"labels": {"app": "web", POD_TEMPLATE_HASH: "x"}, "creationTimestamp": null},
            "spec": {"containers": [{"name": "c", "image": "a", "env": []}], "volumes": []},
        }));
        let other = template(json!({
            "metadata": {"labels": {"app": "web"}, "annotations": {}},
            "spec": {"containers": [{"name": "c", "image": "a"}]},
        }));
        assert!(same_template(&one, &other));
        assert_eq!(template_hash(&one, None), template_hash(&other, None));
    }

    #[test]
    fn content_and_collisions_make_a_difference() {
        let with = |image: &str, volume: Value| {
            template(json!({"spec": {"containers": [{"name": "c", "image": image}], "volumes": [volume]}}))
        };
        let base = with("a", json!({"name": "v", "emptyDir": {}}));
        assert!(!same_template(&base, &with("b", json!({"name": "v", "emptyDir": {}}))));
        assert!(!same_template(&base, &with("a", json!({"name": "v"}))), "an empty emptyDir is one");
        assert_ne!(template_hash(&base, None), template_hash(&base, Some(1)));
        assert!(template_hash(&base, None).bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()));
    }
}
