//! What becomes of a decoded body before it is an object: its type is checked against the request and the schema.
//!
//! In: a JSON tree, the kind the request is about. Out: the tree in canonical form, unknown and duplicate fields dropped,
//! warned of or refused as `fieldValidation` says.

use serde_json::Value;

use crate::codec::Decoded;
use crate::kinds::Gvk;
use crate::meta;
use crate::options::FieldValidation;
use crate::registry::Cx;
use crate::schema;
use crate::status::ApiError;

/// Warnings about fields of one body; further ones are not worth a header.
const MAX_FIELD_WARNINGS: usize = 50;

/// Checks a body that must be an object of this kind.
pub(crate) fn check(
    cx: &Cx<'_>,
    gvk: &Gvk,
    decoded: Decoded,
    validation: FieldValidation,
) -> Result<Value, ApiError> {
    let Decoded { mut value, duplicates } = decoded;
    if !value.is_object() {
        return Err(ApiError::bad_request(format!(
            "couldn't get version/kind; json parse error: the body is no {} object",
            gvk.kind
        )));
    }
    check_type(&value, gvk)?;
    meta::set(&mut value, &["kind"], Some((*gvk.kind).into()));
    meta::set(&mut value, &["apiVersion"], Some(gvk.api_version().into()));
    let unknown =
        schema::decode(gvk, &mut value).map_err(|error| ApiError::bad_request(error.to_string()))?;
    let duplicates = duplicates.into_iter().map(|path| format!("duplicate field {path:?}"));
    let problems: Vec<String> = unknown.into_iter().chain(duplicates).collect();
    match validation {
        FieldValidation::Strict if !problems.is_empty() => {
            return Err(ApiError::bad_request(format!(
                "{} in version {:?} cannot be handled as a {}: strict decoding error: {}",
                gvk.kind,
                gvk.version,
                gvk.kind,
                problems.join(", ")
            )));
        }
        FieldValidation::Warn => {
            problems.into_iter().take(MAX_FIELD_WARNINGS).for_each(|problem| cx.warn(problem));
        }
        FieldValidation::Strict | FieldValidation::Ignore => {}
    }
    Ok(value)
}

/// A body that names a type must name that of the request.
fn check_type(value: &Value, gvk: &Gvk) -> Result<(), ApiError> {
    let (kind, api_version) = (meta::text(value, &["kind"]), meta::text(value, &["apiVersion"]));
    let expected = gvk.api_version();
    if !api_version.is_empty() && api_version != expected {
        return Err(ApiError::bad_request(format!(
            "the API version in the data ({api_version}) does not match the expected API version ({expected})"
        )));
    }
    if !kind.is_empty() && kind != &*gvk.kind {
        return Err(ApiError::bad_request(format!(
            "{kind} in version {:?} cannot be handled as a {}: converting ({kind}) to ({}): unknown conversion",
            gvk.version, gvk.kind, gvk.kind
        )));
    }
    Ok(())
}
