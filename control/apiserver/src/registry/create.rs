//! Creation: from a checked body to the first revision of an object.
//!
//! In: a body, the resource and namespace of the path. Out: the stored object, or why not.

use jiff::Timestamp;
use rand::Rng;
use serde_json::{Value, json};
use uuid::Uuid;
use xebec_store::{Precondition, Revision, StoreError, Write};

use crate::admission::{self, Admit, quota};
use crate::apply::{self, Operation};
use crate::authz::{self, Attributes};
use crate::codec::Decoded;
use crate::convert;
use crate::kinds::Verb;
use crate::meta;
use crate::options::WriteOptions;
use crate::registry::settle::{self, Held};
use crate::registry::{Cx, Served, input};
use crate::status::{self, ApiError};
use crate::stored::{self, Stored};
use crate::strategy::{self, Generation};

/// The largest object kept; etcd's default limit, on which users rely not to be exceeded by others.
const MAX_OBJECT: usize = 1536 * 1024;
/// Names tried for one `generateName`, as upstream.
const NAME_ATTEMPTS: usize = 8;
const SUFFIX: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
const SUFFIX_LENGTH: usize = 5;
const MAX_GENERATED_PREFIX: usize = 63 - SUFFIX_LENGTH;

/// Whose the fields of a new object are.
#[derive(Clone, Copy)]
pub(crate) enum Ownership<'a> {
    /// All of them are the writer's.
    Writer(&'a WriteOptions),
    /// As the object's own record says, which an application made.
    Recorded(&'a WriteOptions),
}

/// Creates what the body says.
pub(crate) async fn create(
    cx: &Cx<'_>,
    served: &Served,
    namespace: Option<&str>,
    body: Decoded,
    options: &WriteOptions,
) -> Result<Stored, ApiError> {
    let resource = &served.resource;
    if resource.namespaced && namespace.is_none() {
        return Err(ApiError::bad_request("an empty namespace may not be set during creation"));
    }
    if served.custom.as_ref().is_some_and(|custom| custom.terminating) {
        return Err(ApiError::definition_terminating(resource));
    }
    let mut object = input::check(cx, served, body, options.field_validation)?;
    set_namespace(&mut object, namespace)?;
    check_namespace(cx, served, meta::name(&object), namespace)?;
    cx.warn_inert(served, Verb::Create);
    object = convert::to_stored(resource, object);
    insert(cx, served, namespace, object, Ownership::Writer(options)).await
}

/// Creates an object that is of the stored version and checked against the schema.
pub(crate) async fn insert(
    cx: &Cx<'_>,
    served: &Served,
    namespace: Option<&str>,
    mut object: Value,
    ownership: Ownership<'_>,
) -> Result<Stored, ApiError> {
    let (Ownership::Writer(options) | Ownership::Recorded(options)) = ownership;
    let generated = meta::name(&object).is_empty();
    let prefix = meta::text(&object, &["metadata", "generateName"]).to_owned();
    if generated && !prefix.is_empty() {
        meta::set(&mut object, &["metadata", "name"], Some(generate(&prefix).into()));
    }
    prepare(cx, served, &mut object, ownership)?;
    let mut errors = served.check_create(&object);
    errors.extend(strategy::of(&served.stored).check(cx, &object, None));
    if !errors.is_empty() {
        return Err(ApiError::invalid(&served.resource.gvk, meta::name(&object), &errors));
    }
    let admitted = admission::validate(cx, &admit(cx, served, meta::name(&object)), &object);
    admitted?;
    let reservation = strategy::of(&served.stored).reserve(cx, &mut object, None)?;
    let charge = quota::charge(cx, &admit(cx, served, meta::name(&object)), &object).await?;
    let mut held = Held { reservation, charge };
    let mut attempt = 0;
    loop {
        let name = meta::name(&object).to_owned();
        let value = encode(served, &object)?;
        if options.dry_run {
            if cx.registry.find(served, namespace, &name).is_some() {
                return Err(ApiError::already_exists(&served.resource, &name));
            }
            return Ok(Stored { value, revision: Revision::default() });
        }
        let key = stored::key(&served.resource, namespace, &name).into_bytes().into();
        let write = Write::Put { key, value, precondition: Precondition::Absent };
        let refused = match settle::write(&cx.registry.store, write, held).await {
            Ok(written) => return Ok(written.kv.into()),
            Err(refused) => refused,
        };
        held = refused.held;
        match refused.error {
            StoreError::Exists { .. } if generated && attempt + 1 < NAME_ATTEMPTS => {
                attempt += 1;
                meta::set(&mut object, &["metadata", "name"], Some(generate(&prefix).into()));
            }
            StoreError::Exists { .. } if generated => {
                return Err(ApiError::generate_name_exhausted(&served.resource, &name));
            }
            StoreError::Exists { .. } => return Err(ApiError::already_exists(&served.resource, &name)),
            error => return Err(status::from_store(&error)),
        }
    }
}

/// A write through another verb that turns out to make the object needs the right to make it, too.
pub(crate) fn check_right(
    cx: &Cx<'_>,
    served: &Served,
    namespace: Option<&str>,
    name: &str,
) -> Result<(), ApiError> {
    let resource = &served.resource;
    let asked = Attributes {
        verb: "create",
        group: &resource.gvk.group,
        namespace: namespace.unwrap_or_default(),
        resource: &resource.plural,
        name,
        ..Attributes::default()
    };
    if authz::allows(cx.registry, cx.user, &asked).is_some() {
        return Ok(());
    }
    let why = authz::denial(cx.user, &asked);
    Err(ApiError::forbidden(asked.group, asked.resource, name, why))
}

/// Records whose the changes of a write are.
pub(crate) fn own_changes(
    cx: &Cx<'_>,
    served: &Served,
    old: &Value,
    new: &mut Value,
    options: &WriteOptions,
) -> Result<(), ApiError> {
    if let Some((schema, definition)) = served.shapes()? {
        let who = cx.writer(served, options, Operation::Update);
        apply::after_update(schema, definition, old, new, &who, Timestamp::now());
    }
    Ok(())
}

/// Encodes an object that is small enough to be kept.
pub(crate) fn encode(served: &Served, object: &Value) -> Result<bytes::Bytes, ApiError> {
    let value = served.layout.encode(object)?;
    if value.len() > MAX_OBJECT {
        return Err(ApiError::request_entity_too_large(MAX_OBJECT));
    }
    Ok(value)
}

/// The namespace of the path is that of the object; a body may leave it out but not contradict it.
pub(crate) fn set_namespace(object: &mut Value, namespace: Option<&str>) -> Result<(), ApiError> {
    match (meta::namespace(object), namespace) {
        (own, Some(asked)) if own == asked => {}
        ("", Some(asked)) => meta::set(object, &["metadata", "namespace"], Some(asked.into())),
        (_, None) => meta::set(object, &["metadata", "namespace"], None),
        (_, Some(_)) => {
            return Err(ApiError::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
    }
    Ok(())
}

/// Nothing is created in a namespace that does not exist or is on its way out.
pub(crate) fn check_namespace(
    cx: &Cx<'_>,
    served: &Served,
    name: &str,
    namespace: Option<&str>,
) -> Result<(), ApiError> {
    let Some(namespace) = namespace.filter(|_| served.resource.namespaced) else { return Ok(()) };
    let namespaces = cx.registry.kinds.core("namespaces");
    let found = cx.registry.core_object("namespaces", None, namespace);
    let object = found.ok_or_else(|| ApiError::not_found(&namespaces.resource, namespace))?;
    if meta::is_deleting(&object) {
        return Err(ApiError::namespace_terminating(&served.resource, name, namespace));
    }
    Ok(())
}

/// Defaults, admission and the metadata that only the server writes. What admission and the strategy add is recorded as
/// nobody's: who applies the object later may leave it out.
fn prepare(
    cx: &Cx<'_>,
    served: &Served,
    object: &mut Value,
    ownership: Ownership<'_>,
) -> Result<(), ApiError> {
    if !meta::resource_version(object).is_empty() {
        return Err(ApiError::bad_request("resourceVersion should not be set on objects to be created"));
    }
    let traits = served.traits();
    let recorded = meta::at(object, &["metadata", "managedFields"]).cloned();
    let metadata = meta::metadata_mut(object);
    for field in
        ["deletionTimestamp", "deletionGracePeriodSeconds", "managedFields", "selfLink", "generation"]
    {
        metadata.remove(field);
    }
    metadata.insert("uid".into(), Uuid::new_v4().to_string().into());
    metadata.insert("creationTimestamp".into(), meta::time(Timestamp::now()).into());
    if traits.generation != Generation::None {
        metadata.insert("generation".into(), 1.into());
    }
    if served.resource.has_status() && !traits.status_on_create {
        meta::set(object, &["status"], first_status(served));
    }
    served.fill(object);
    match ownership {
        Ownership::Recorded(_) => meta::set(object, &["metadata", "managedFields"], recorded),
        Ownership::Writer(options) => {
            let nothing = json!({ "metadata": {}, "spec": {}, "status": {} });
            own_changes(cx, served, &nothing, object, options)?;
        }
    }
    let name = meta::name(object).to_owned();
    admission::mutate(cx, &admit(cx, served, &name), object);
    strategy::of(&served.stored).prepare_create(cx, object)
}

/// The status before anybody has said one.
fn first_status(served: &Served) -> Option<Value> {
    match (&*served.stored.group, &*served.stored.kind) {
        _ if served.custom.is_some() => None,
        ("networking.k8s.io", "Ingress") => Some(json!({ "loadBalancer": {} })),
        _ => Some(json!({})),
    }
}

fn admit<'a>(cx: &'a Cx<'_>, served: &'a Served, name: &'a str) -> Admit<'a> {
    let operation = admission::Operation::Create;
    Admit { served, operation, subresource: cx.subresource(), name, old: None }
}

fn generate(prefix: &str) -> String {
    let mut base = prefix;
    while base.len() > MAX_GENERATED_PREFIX {
        let shorter = base.char_indices().next_back().map_or(0, |(index, _)| index);
        base = &base[..shorter];
    }
    format!("{base}{}", suffix())
}

/// What makes a name that was begun by somebody else a new one.
pub(crate) fn suffix() -> String {
    let mut random = rand::rng();
    let letter = |_| char::from(SUFFIX[random.random_range(0..SUFFIX.len())]);
    (0..SUFFIX_LENGTH).map(letter).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_names_are_cut_to_a_label() {
        assert_eq!(generate("web-").len(), "web-".len() + SUFFIX_LENGTH);
        assert_eq!(generate(&"x".repeat(80)).len(), 63);
        assert_ne!(generate("a"), generate("a"));
    }

    #[test]
    fn the_path_says_the_namespace() {
        let mut object = serde_json::json!({"metadata": {"name": "a"}});
        set_namespace(&mut object, Some("x")).expect("filled in");
        assert_eq!(meta::namespace(&object), "x");
        assert_eq!(set_namespace(&mut object, Some("y")).expect_err("refused").code(), 400);
        set_namespace(&mut object, None).expect("cluster-scoped");
        assert_eq!(meta::namespace(&object), "");
    }
}
