//! Changes to objects that exist: read, change, check, write if nobody else wrote, else again.
//!
//! In: which object, through which door, and a function from its current state to the wanted one. Out: the new revision,
//! or the old one where nothing changed. The last finalizer's removal deletes.

use serde_json::{Map, Value};
use xebec_store::{Precondition, StoreError, Write};

use crate::admission::{self, Admit, quota};
use crate::convert;
use crate::kinds::Verb;
use crate::meta;
use crate::options::WriteOptions;
use crate::registry::create::Ownership;
use crate::registry::settle::{self, Held, Refused};
use crate::registry::{Cx, Served, create};
use crate::status::{self, ApiError};
use crate::stored::{self, Stored};
use crate::strategy::{self, Generation};

/// Tries before a write that names no resource version gives up; each failure means that another writer succeeded.
const ATTEMPTS: usize = 32;

/// What a door lets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    /// Everything but status.
    Main,
    /// Status, and of built-in kinds metadata.
    Status,
    /// A sub-resource that checks what it lets through itself and may change what the main door may not.
    Own,
}

/// Which object is changed, and how.
#[derive(Clone, Copy)]
pub(crate) struct Edit<'a> {
    pub(crate) served: &'a Served,
    pub(crate) namespace: Option<&'a str>,
    pub(crate) name: &'a str,
    pub(crate) door: Door,
    pub(crate) verb: Verb,
    pub(crate) options: &'a WriteOptions,
    /// The wanted state says itself who owns what, as an application's does.
    pub(crate) records: bool,
}

/// The outcome of an update.
pub(crate) struct Updated {
    pub(crate) stored: Stored,
    pub(crate) created: bool,
}

/// Changes an object. `wanted` is given the current state in the version of the request and answers with the new one in
/// the same version, checked against the schema; it is called again when another writer came first.
pub(crate) async fn update(
    cx: &Cx<'_>,
    edit: Edit<'_>,
    mut wanted: impl FnMut(Value) -> Result<Value, ApiError>,
) -> Result<Updated, ApiError> {
    let resource = &edit.served.resource;
    for _ in 0..ATTEMPTS {
        let current = match cx.registry.find(edit.served, edit.namespace, edit.name) {
            Some(current) => current,
            None if edit.verb == Verb::Update && edit.served.traits().create_on_update => {
                create::check_right(cx, edit.served, edit.namespace, edit.name)?;
                return create_instead(cx, edit, wanted(Value::Null)?).await;
            }
            None => return Err(ApiError::not_found(resource, edit.name)),
        };
        let old = current.decode()?;
        let new = wanted(convert::from_stored(resource, old.clone()))?;
        let unconditional = meta::resource_version(&new).is_empty() || edit.verb == Verb::Patch;
        match attempt(cx, edit, &current, &old, new).await? {
            Attempt::Done(stored) => return Ok(Updated { stored, created: false }),
            // A patch that names a resource version fails on the next reading.
            Attempt::Outrun if unconditional => {}
            Attempt::Outrun => break,
        }
    }
    Err(ApiError::modified(resource, edit.name))
}

enum Attempt {
    Done(Stored),
    /// Another writer came first.
    Outrun,
}

async fn attempt(
    cx: &Cx<'_>,
    edit: Edit<'_>,
    current: &Stored,
    old: &Value,
    new: Value,
) -> Result<Attempt, ApiError> {
    let served = edit.served;
    check_target(edit, &new, old)?;
    let mut new = convert::to_stored(&served.resource, new);
    if !edit.records {
        keep_record(cx, &mut new, old);
    }
    prepare(cx, edit, &mut new, old)?;
    let errors = match edit.door {
        Door::Main => {
            let mut errors = served.check_update(&new, old);
            errors.extend(strategy::of(&served.stored).check(cx, &new, Some(old)));
            errors
        }
        Door::Status => served.check_status(&new, old),
        Door::Own => Vec::new(),
    };
    if !errors.is_empty() {
        return Err(ApiError::invalid(&served.resource.gvk, edit.name, &errors));
    }
    let operation = admission::Operation::Update;
    let admit = Admit { served, operation, subresource: cx.subresource(), name: edit.name, old: Some(old) };
    admission::validate(cx, &admit, &new)?;
    let reservation = match edit.door {
        Door::Main => strategy::of(&served.stored).reserve(cx, &mut new, Some(old))?,
        Door::Status | Door::Own => None,
    };
    cx.warn_inert(served, edit.verb);
    if !edit.records {
        create::own_changes(cx, served, old, &mut new, edit.options)?;
    }
    let value = create::encode(served, &new)?;
    let deletes = ends_deletion(served, &new, old);
    if value == current.value && !deletes {
        return Ok(Attempt::Done(current.clone()));
    }
    if edit.options.dry_run {
        return Ok(Attempt::Done(Stored { value, revision: current.revision }));
    }
    let charge = quota::charge(cx, &admit, &new).await?;
    let reservation = if deletes { strategy::of(&served.stored).release(cx, &new) } else { reservation };
    let key = stored::key(&served.resource, edit.namespace, edit.name).into_bytes().into();
    let write = if deletes {
        Write::Delete { key, unchanged: current.revision }
    } else {
        Write::Put { key, value: value.clone(), precondition: Precondition::Unchanged(current.revision) }
    };
    match settle::write(&cx.registry.store, write, Held { reservation, charge }).await {
        Ok(written) => Ok(Attempt::Done(Stored { value, revision: written.revision })),
        Err(Refused { error: StoreError::Conflict { .. }, .. }) => Ok(Attempt::Outrun),
        Err(refused) => Err(status::from_store(&refused.error)),
    }
}

async fn create_instead(cx: &Cx<'_>, edit: Edit<'_>, mut object: Value) -> Result<Updated, ApiError> {
    meta::set(&mut object, &["metadata", "resourceVersion"], None);
    create::set_namespace(&mut object, edit.namespace)?;
    let object = convert::to_stored(&edit.served.resource, object);
    let stored =
        create::insert(cx, edit.served, edit.namespace, object, Ownership::Writer(edit.options)).await?;
    Ok(Updated { stored, created: true })
}

/// The new state must be one of the object that is there.
fn check_target(edit: Edit<'_>, new: &Value, old: &Value) -> Result<(), ApiError> {
    let resource = &edit.served.resource;
    if meta::name(new) != edit.name {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({}) does not match the name on the URL ({})",
            meta::name(new),
            edit.name
        )));
    }
    if meta::namespace(new) != meta::namespace(old) {
        return Err(ApiError::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    let (uid, version) = (meta::uid(new), meta::resource_version(new));
    if !uid.is_empty() && uid != meta::uid(old) {
        let why = format!(
            "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
            meta::uid(old)
        );
        return Err(ApiError::conflict(resource, edit.name, &why));
    }
    if !matches!(version, "" | "0") && version != meta::resource_version(old) {
        return Err(ApiError::modified(resource, edit.name));
    }
    if version.is_empty() && edit.verb == Verb::Update && !edit.served.traits().unconditional_update {
        return Err(ApiError::must_specify_version(&resource.gvk, edit.name));
    }
    Ok(())
}

/// Who owned what before the write. Clients that know nothing of it leave it out and lose nothing; one empty entry is
/// upstream's way to forget it, which only the main door knows.
fn keep_record(cx: &Cx<'_>, new: &mut Value, old: &Value) {
    const PATH: [&str; 2] = ["metadata", "managedFields"];
    let entries: Vec<&Value> = meta::items(new, &PATH).take(2).collect();
    let is_empty = entries.is_empty();
    let is_reset = matches!(entries[..], [Value::Object(only)] if only.is_empty());
    if is_reset && cx.subresource().is_empty() {
        meta::set(new, &PATH, None);
    } else if is_empty || !cx.subresource().is_empty() {
        meta::set(new, &PATH, meta::at(old, &PATH).cloned());
    }
}

/// Restores what the door does not let through and counts the generation.
fn prepare(cx: &Cx<'_>, edit: Edit<'_>, new: &mut Value, old: &Value) -> Result<(), ApiError> {
    let served = edit.served;
    let strategy = strategy::of(&served.stored);
    match edit.door {
        Door::Main => {
            restore_metadata(new, old);
            if served.resource.has_status() {
                meta::set(new, &["status"], old.get("status").cloned());
            }
            served.fill(new);
            strategy.prepare_update(cx, new, old)?;
        }
        Door::Status => {
            let mut kept = old.clone();
            meta::set(&mut kept, &["status"], new.get("status").cloned());
            if served.custom.is_some() {
                // Nothing but status: who may write that may neither relabel nor let finalizers go.
                let record = meta::at(new, &["metadata", "managedFields"]).cloned();
                meta::set(&mut kept, &["metadata", "managedFields"], record);
            } else {
                meta::set(&mut kept, &["metadata"], new.get("metadata").cloned());
                // Old kubelets wrote stale ones back.
                let owners = meta::at(old, &["metadata", "ownerReferences"]).cloned();
                meta::set(&mut kept, &["metadata", "ownerReferences"], owners);
            }
            *new = kept;
            restore_metadata(new, old);
            served.fill(new);
            strategy.prepare_status(new, old);
        }
        Door::Own => restore_metadata(new, old),
    }
    strategy.admit_update(cx, new, old)?;
    // Through the door for status the spec is the old one.
    if edit.door != Door::Status {
        count_generation(served, new, old);
    }
    Ok(())
}

/// Metadata that only the server writes stays what it is.
fn restore_metadata(new: &mut Value, old: &Value) {
    let empty = Map::new();
    let kept = old.get("metadata").and_then(Value::as_object).unwrap_or(&empty);
    let metadata = meta::metadata_mut(new);
    for field in [
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
        "generateName",
    ] {
        match kept.get(field) {
            Some(value) => metadata.insert(field.to_owned(), value.clone()),
            None => metadata.remove(field),
        };
    }
    metadata.remove("selfLink");
    for field in ["labels", "annotations", "finalizers", "ownerReferences"] {
        let empty = match metadata.get(field) {
            Some(Value::Object(map)) => map.is_empty(),
            Some(Value::Array(list)) => list.is_empty(),
            Some(Value::Null) => true,
            _ => false,
        };
        if empty {
            metadata.remove(field);
        }
    }
}

fn count_generation(served: &Served, new: &mut Value, old: &Value) {
    let annotations = |object| meta::at(object, &["metadata", "annotations"]);
    let changed = match served.traits().generation {
        Generation::None => false,
        Generation::OnSpec => !is_same_spec(new, old),
        Generation::OnSpecAndAnnotations => !is_same_spec(new, old) || annotations(new) != annotations(old),
    };
    if changed {
        let next = meta::generation(old) + 1;
        meta::set(new, &["metadata", "generation"], Some(next.into()));
    }
}

/// Whether everything but metadata and status is the same.
fn is_same_spec(new: &Value, old: &Value) -> bool {
    let (Some(new), Some(old)) = (new.as_object(), old.as_object()) else { return new == old };
    let counts = |name: &String| !matches!(name.as_str(), "metadata" | "status");
    new.keys().filter(|name| counts(name)).count() == old.keys().filter(|name| counts(name)).count()
        && new.iter().filter(|(name, _)| counts(name)).all(|(name, value)| old.get(name) == Some(value))
}

/// The object was marked for deletion and nothing holds it back any more.
fn ends_deletion(served: &Served, new: &Value, old: &Value) -> bool {
    meta::is_deleting(new)
        && meta::finalizers(new).is_empty()
        && meta::deletion_grace(old).unwrap_or(0) == 0
        && !strategy::of(&served.stored).holds_back_deletion(new)
}
