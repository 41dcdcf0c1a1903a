//! Server-side apply: an object is made or changed to say what one of its owners wants said.
//!
//! In: a configuration in YAML or JSON, the name of its owner. Out: the object, or the conflicts with other owners.

use http::StatusCode;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::apply::{self, Operation, Who};
use crate::codec::{self, Decoded, Format};
use crate::convert;
use crate::field_error::FieldError;
use crate::meta;
use crate::options::FieldValidation;
use crate::registry::create::{self, Ownership};
use crate::registry::update::{self, Door, Edit, Updated};
use crate::registry::{Cx, Served, input};
use crate::schema::{self, Definition, Schema};
use crate::status::ApiError;

/// The type of the patches that are applied.
pub(crate) const MEDIA_TYPE: &str = "application/apply-patch+yaml";
/// Tries while somebody creates and deletes the object; each failure means that another writer succeeded.
const ATTEMPTS: usize = 8;

/// Applies the configuration in a body.
pub(crate) async fn apply(cx: &Cx<'_>, edit: Edit<'_>, body: &[u8]) -> Result<Updated, ApiError> {
    if edit.options.manager.is_empty() {
        let error = FieldError::required("fieldManager", "is required for apply patch");
        return Err(ApiError::invalid_options("PatchOptions", error));
    }
    let shapes = edit.served.request_shapes()?;
    let (schema, definition) = shapes.ok_or_else(|| ApiError::unsupported_media_type("application/json"))?;
    let config = read(cx, edit, body)?;
    let who = cx.writer(edit.served, edit.options, Operation::Apply);
    let applied = |live: &Value| merged(schema, definition, live, &config, &who, edit.options.force);
    for _ in 0..ATTEMPTS {
        if cx.registry.find(edit.served, edit.namespace, edit.name).is_some() {
            let edit = Edit { records: true, ..edit };
            let updated = update::update(cx, edit, |live| checked(cx, edit.served, applied(&live)?)).await;
            match updated {
                // The object itself went away, not something it refers to.
                Err(error)
                    if error.code() == StatusCode::NOT_FOUND
                        && edit.door == Door::Main
                        && error.is_about(&edit.served.resource, edit.name) =>
                {
                    continue;
                }
                other => return other,
            }
        }
        if edit.door != Door::Main {
            return Err(ApiError::not_found(&edit.served.resource, edit.name));
        }
        create::check_right(cx, edit.served, edit.namespace, edit.name)?;
        match made(cx, edit, checked(cx, edit.served, applied(&json!({ "metadata": {} }))?)?).await {
            Err(error) if error.reason() == "AlreadyExists" => {}
            other => return other,
        }
    }
    Err(ApiError::modified(&edit.served.resource, edit.name))
}

/// The configuration: an object of the kind, or a part of one, that names what it is.
fn read(cx: &Cx<'_>, edit: Edit<'_>, body: &[u8]) -> Result<Value, ApiError> {
    let gvk = &edit.served.resource.gvk;
    let Decoded { mut value, duplicates } = codec::decode(Format::Yaml, body)?;
    if !value.is_object() {
        return Err(ApiError::bad_request(format!(
            "error decoding patch: the body is no {} object",
            gvk.kind
        )));
    }
    for field in ["apiVersion", "kind"] {
        if meta::text(&value, &[field]).is_empty() {
            return Err(ApiError::bad_request(format!("{field} must be set in an apply patch")));
        }
    }
    input::check_type(&value, gvk)?;
    if meta::items(&value, &["metadata", "managedFields"]).next().is_some() {
        return Err(ApiError::bad_request("metadata.managedFields must be nil"));
    }
    for path in duplicates {
        match edit.options.field_validation {
            FieldValidation::Strict => {
                return Err(ApiError::bad_request(format!("error decoding YAML: duplicate field {path:?}")));
            }
            FieldValidation::Warn => cx.warn(format!("duplicate field {path:?}")),
            FieldValidation::Ignore => {}
        }
    }
    create::set_namespace(&mut value, edit.namespace)?;
    if meta::name(&value).is_empty() {
        meta::set(&mut value, &["metadata", "name"], Some(edit.name.into()));
    }
    let place = format!("{}/{}; {gvk}", edit.namespace.unwrap_or_default(), edit.name);
    let refuse = |why: &dyn std::fmt::Display| {
        ApiError::bad_request(format!("failed to create typed patch object ({place}): {why}"))
    };
    let unknown = match &edit.served.custom {
        None => schema::decode_partial(gvk, &mut value),
        Some(custom) => input::decode_custom(gvk, custom, &mut value),
    };
    let unknown = unknown.map_err(|error| refuse(&error))?;
    if let Some(first) = unknown.first() {
        let path = first.trim_start_matches("unknown field ").trim_matches('"');
        return Err(refuse(&format_args!(".{path}: field not declared in schema")));
    }
    Ok(value)
}

fn merged(
    schema: &Schema,
    definition: &Definition,
    live: &Value,
    config: &Value,
    who: &Who,
    force: bool,
) -> Result<Value, ApiError> {
    apply::apply(schema, definition, live, config, who, force, Timestamp::now())
        .map_err(|conflicts| ApiError::apply_conflict(&conflicts))
}

/// The whole object in canonical form.
fn checked(cx: &Cx<'_>, served: &Served, object: Value) -> Result<Value, ApiError> {
    input::check(cx, served, Decoded { value: object, duplicates: Vec::new() }, FieldValidation::Strict)
}

async fn made(cx: &Cx<'_>, edit: Edit<'_>, object: Value) -> Result<Updated, ApiError> {
    let resource = &edit.served.resource;
    let uid = meta::uid(&object);
    if !uid.is_empty() {
        let why = format!(
            "uid mismatch: the provided object specified uid {uid}, and no existing object was found"
        );
        return Err(ApiError::conflict(resource, edit.name, &why));
    }
    if meta::name(&object) != edit.name {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({}) does not match the name on the URL ({})",
            meta::name(&object),
            edit.name
        )));
    }
    create::check_namespace(cx, edit.served, edit.name, edit.namespace)?;
    cx.warn_inert(edit.served, edit.verb);
    let object = convert::to_stored(resource, object);
    let ownership = Ownership::Recorded(edit.options);
    let stored = create::insert(cx, edit.served, edit.namespace, object, ownership).await?;
    Ok(Updated { stored, created: true })
}
