//! Secrets: `stringData` is a way to write, never to read.
//!
//! In: secrets on their way into the store. Out: everything under `data`, in base64.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::meta;
use crate::registry::Cx;
use crate::status::ApiError;
use crate::strategy::Strategy;

pub(crate) struct SecretStrategy;

impl Strategy for SecretStrategy {
    fn prepare_create(&self, _cx: &Cx<'_>, object: &mut Value) -> Result<(), ApiError> {
        fold_string_data(object);
        Ok(())
    }

    fn prepare_update(&self, _cx: &Cx<'_>, new: &mut Value, _old: &Value) -> Result<(), ApiError> {
        fold_string_data(new);
        Ok(())
    }
}

fn fold_string_data(object: &mut Value) {
    let Some(Value::Object(strings)) = object.as_object_mut().and_then(|map| map.remove("stringData")) else {
        return;
    };
    let data = meta::map_mut(object, &["data"]);
    for (key, value) in strings {
        let encoded = STANDARD.encode(value.as_str().unwrap_or_default());
        data.insert(key, encoded.into());
    }
    if data.is_empty() {
        meta::set(object, &["data"], None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn string_data_wins_over_data() {
        let mut secret = json!({"data": {"a": "b2xk", "b": "eA=="}, "stringData": {"a": "new"}});
        fold_string_data(&mut secret);
        assert_eq!(secret, json!({"data": {"a": "bmV3", "b": "eA=="}}));
    }
}
