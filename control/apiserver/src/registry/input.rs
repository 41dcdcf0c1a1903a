//! What becomes of a decoded body before it is an object: its type is checked against the request and the schema.
//!
//! In: a JSON tree, the kind the request is about. Out: the tree in canonical form, unknown and duplicate fields dropped,
//! warned of or refused as `fieldValidation` says.

use serde_json::Value;

use crate::codec::Decoded;
use crate::custom::Custom;
use crate::kinds::Gvk;
use crate::meta;
use crate::options::FieldValidation;
use crate::protobuf;
use crate::registry::patch::Patch;
use crate::registry::{Cx, Served};
use crate::schema;
use crate::status::ApiError;
use crate::strategic;

/// Warnings about fields of one body; further ones are not worth a header.
const MAX_FIELD_WARNINGS: usize = 50;

/// Unknown fields of one custom object that are told of.
const MAX_PRUNED: usize = 100;

/// Why a body is not taken.
enum Refusal {
    /// It is of another type, or no object at all.
    Type(ApiError),
    /// It does not fit the schema.
    Mismatch(String),
    /// It has fields nobody knows, and the client wants to hear of it.
    Strict(String),
}

/// What a body must be.
#[derive(Clone, Copy)]
pub(crate) struct Form<'a> {
    gvk: &'a Gvk,
    custom: Option<&'a Custom>,
}

impl<'a> From<&'a Gvk> for Form<'a> {
    fn from(gvk: &'a Gvk) -> Self {
        Self { gvk, custom: None }
    }
}

impl<'a> From<&'a Served> for Form<'a> {
    fn from(served: &'a Served) -> Self {
        Self { gvk: &served.resource.gvk, custom: served.custom.as_deref() }
    }
}

/// Checks a body that must be an object of this form.
pub(crate) fn check<'f>(
    cx: &Cx<'_>,
    form: impl Into<Form<'f>>,
    decoded: Decoded,
    validation: FieldValidation,
) -> Result<Value, ApiError> {
    let form = form.into();
    let gvk = form.gvk;
    read(cx, form, decoded, validation).map_err(|refusal| match refusal {
        Refusal::Type(error) => error,
        Refusal::Mismatch(why) => ApiError::bad_request(why),
        Refusal::Strict(why) => ApiError::bad_request(format!(
            "{} in version {:?} cannot be handled as a {}: {why}",
            gvk.kind, gvk.version, gvk.kind
        )),
    })
}

/// Checks what a patch made of an object. What is wrong with it is a mistake of the patch, not of the request.
pub(crate) fn check_patched(
    cx: &Cx<'_>,
    served: &Served,
    patch: &Patch,
    patched: Decoded,
    validation: FieldValidation,
) -> Result<Value, ApiError> {
    let shown = match patch {
        Patch::Strategic(patch) => strategic::go_text(&patch.value),
        Patch::Json(_) | Patch::Merge(_) => patched.value.to_string(),
    };
    read(cx, served.into(), patched, validation).map_err(|refusal| match refusal {
        Refusal::Type(error) => error,
        Refusal::Mismatch(why) | Refusal::Strict(why) => ApiError::patch_invalid(&shown, why),
    })
}

fn read(
    cx: &Cx<'_>,
    form: Form<'_>,
    decoded: Decoded,
    validation: FieldValidation,
) -> Result<Value, Refusal> {
    let gvk = form.gvk;
    let Decoded { mut value, duplicates } = decoded;
    if !value.is_object() {
        return Err(Refusal::Type(ApiError::bad_request(format!(
            "couldn't get version/kind; json parse error: the body is no {} object",
            gvk.kind
        ))));
    }
    check_type(&value, gvk).map_err(Refusal::Type)?;
    meta::set(&mut value, &["kind"], Some((*gvk.kind).into()));
    meta::set(&mut value, &["apiVersion"], Some(gvk.api_version().into()));
    let mismatch = |error: schema::DecodeError| Refusal::Mismatch(error.to_string());
    let unknown = match form.custom {
        None => {
            let unknown = schema::decode(gvk, &mut value).map_err(mismatch)?;
            protobuf::omit_zeros(gvk, &mut value);
            unknown
        }
        Some(custom) => decode_custom(gvk, custom, &mut value).map_err(mismatch)?,
    };
    let duplicates = duplicates.into_iter().map(|path| format!("duplicate field {path:?}"));
    let problems: Vec<String> = unknown.into_iter().chain(duplicates).collect();
    match validation {
        FieldValidation::Strict if !problems.is_empty() => {
            return Err(Refusal::Strict(format!("strict decoding error: {}", problems.join(", "))));
        }
        FieldValidation::Warn => {
            problems.into_iter().take(MAX_FIELD_WARNINGS).for_each(|problem| cx.warn(problem));
        }
        FieldValidation::Strict | FieldValidation::Ignore => {}
    }
    Ok(value)
}

/// Puts `metadata` into form and drops what the schema does not know; answers what was dropped.
pub(crate) fn decode_custom(
    gvk: &Gvk,
    custom: &Custom,
    value: &mut Value,
) -> Result<Vec<String>, schema::DecodeError> {
    let mut unknown = schema::decode_metadata(gvk, value)?;
    let pruned = custom.prune(value).into_iter().take(MAX_PRUNED);
    unknown.extend(pruned.map(|path| format!("unknown field {path:?}")));
    Ok(unknown)
}

/// A body that names a type must name that of the request.
pub(crate) fn check_type(value: &Value, gvk: &Gvk) -> Result<(), ApiError> {
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
