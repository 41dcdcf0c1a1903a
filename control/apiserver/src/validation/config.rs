//! ConfigMaps and Secrets.
//!
//! In: an object, and its former state. Out: what is wrong with it, in `Errors`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};
use xebec_api::names;
use xebec_api::wellknown::annotations;

use super::field::{Errors, Field};
use super::rules;

/// All values together.
const SIZE_LIMIT: usize = 1024 * 1024;
const FROZEN: &str = "field is immutable when `immutable` is set";

pub(super) fn config_map(object: &Field<'_>, errors: &mut Errors) {
    let (data, binary) = (object.child("data"), object.child("binaryData"));
    let mut size = 0;
    for (key, value) in data.entries() {
        valid_key(key, &value, errors);
        if binary.value().get(key).is_some() {
            let shown = Value::from(key);
            errors.invalid(&value.with(&shown), "duplicate of key present in binaryData");
        }
        size += value.text().len();
    }
    for (key, value) in binary.entries() {
        valid_key(key, &value, errors);
        size += decoded_length(value.text());
    }
    if size > SIZE_LIMIT {
        // Of no field: this is how upstream spells the path to the object itself.
        errors.too_long(&object.key(""), SIZE_LIMIT);
    }
}

pub(super) fn secret(object: &Field<'_>, errors: &mut Errors) {
    let data = object.child("data");
    let mut size = 0;
    for (key, value) in data.entries() {
        valid_key(key, &value, errors);
        size += decoded_length(value.text());
    }
    if size > SIZE_LIMIT {
        errors.too_long(&data, SIZE_LIMIT);
    }
    let required = |keys: &[&str], errors: &mut Errors| {
        for key in keys {
            let field = data.key(key);
            if !field.is_set() {
                errors.required(&field, "");
            }
        }
    };
    match object.child("type").text() {
        "kubernetes.io/service-account-token" => {
            let metadata = object.child("metadata");
            let all = metadata.child("annotations");
            let account = all.key(annotations::SERVICE_ACCOUNT_NAME);
            if account.text().is_empty() {
                errors.required(&account, "");
            }
        }
        "kubernetes.io/dockercfg" => json_object(&data.key(".dockercfg"), errors),
        "kubernetes.io/dockerconfigjson" => json_object(&data.key(".dockerconfigjson"), errors),
        "kubernetes.io/basic-auth" if !data.key("username").is_set() && !data.key("password").is_set() => {
            required(&["username", "password"], errors);
        }
        "kubernetes.io/ssh-auth" => {
            let key = data.key("ssh-privatekey");
            if key.text().is_empty() {
                errors.required(&key, "");
            }
        }
        "kubernetes.io/tls" => required(&["tls.crt", "tls.key"], errors),
        _ => {}
    }
}

pub(super) fn secret_update(object: &Field<'_>, old: &Value, errors: &mut Errors) {
    rules::immutable(&object.child("type"), old.get("type").unwrap_or(&Value::Null), errors);
    frozen(object, old, &["data"], errors);
}

/// What was declared immutable stays so, and stays as it is.
pub(super) fn frozen(object: &Field<'_>, old: &Value, fields: &[&str], errors: &mut Errors) {
    if old.get("immutable") != Some(&Value::Bool(true)) {
        return;
    }
    let immutable = object.child("immutable");
    if !immutable.flag() {
        errors.forbidden(&immutable, FROZEN);
    }
    let empty = Value::Object(Map::new());
    for name in fields {
        let (field, former) = (object.child(name), old.get(name).unwrap_or(&empty));
        let now = if field.is_set() { field.value() } else { &empty };
        if now != former {
            errors.forbidden(&field, FROZEN);
        }
    }
}

fn valid_key(key: &str, place: &Field<'_>, errors: &mut Errors) {
    let value = Value::from(key);
    errors.invalid_all(&place.with(&value), names::config_map_key(key));
}

fn json_object(field: &Field<'_>, errors: &mut Errors) {
    if !field.is_set() {
        errors.required(field, "");
        return;
    }
    let bytes = STANDARD.decode(field.text()).unwrap_or_default();
    if let Err(error) = serde_json::from_slice::<Map<String, Value>>(&bytes) {
        let hidden = Value::from("<secret contents redacted>");
        errors.invalid(&field.with(&hidden), error.to_string());
    }
}

/// How many bytes a base64 text stands for.
fn decoded_length(text: &str) -> usize {
    let padding = text.bytes().rev().take_while(|&byte| byte == b'=').count();
    (text.len() / 4 * 3).saturating_sub(padding)
}
