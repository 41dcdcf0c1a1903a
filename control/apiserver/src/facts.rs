//! What selectors look at, read out of an encoded object without building its tree.
//!
//! In: encoded objects, the paths a kind can be selected by. Out: labels and field values. A small table by revision
//! keeps them, so that any number of watchers pays for one reading.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use xebec_api::fields::FieldSelector;
use xebec_api::labels::Selector;
use xebec_store::Revision;

use crate::kinds::Resource;
use crate::registry::Served;
use crate::status::ApiError;
use crate::stored::Stored;

/// The labels and selectable fields of one object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    labels: BTreeMap<String, String>,
    /// By position in the list of paths they were read with.
    fields: Vec<Option<String>>,
}

/// Both selectors of a request, and how to read what they need.
#[derive(Clone, Debug)]
pub(crate) struct Filter {
    labels: Selector,
    fields: FieldSelector,
    paths: Vec<Cow<'static, str>>,
    /// Stands for the paths: the versions of a custom kind are selected by different ones.
    paths_hash: u64,
}

/// Facts by revision and paths, forgotten when others fall on the same place.
pub(crate) struct FactsCache {
    slots: Box<[ArcSwapOption<CachedFacts>]>,
}

struct CachedFacts {
    revision: Revision,
    paths_hash: u64,
    facts: Facts,
}

const CACHE_SLOTS: u64 = 1024;
const COMMON: &[&str] = &["metadata.name", "metadata.namespace"];

/// The fields a kind can be selected by.
fn selectable(resource: &Resource) -> &'static [&'static str] {
    match (&*resource.gvk.group, resource.plural.as_str()) {
        ("", "pods") => &[
            "metadata.name",
            "metadata.namespace",
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.nominatedNodeName",
        ],
        // Those of the other group are named otherwise and kept here (`stored_field`).
        ("" | "events.k8s.io", "events") => &[
            "metadata.name",
            "metadata.namespace",
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source.component",
            "type",
        ],
        ("", "secrets") => &["metadata.name", "metadata.namespace", "type"],
        ("", "namespaces") => &["metadata.name", "status.phase"],
        ("", "nodes") => &["metadata.name", "spec.unschedulable"],
        ("", "services") => &["metadata.name", "metadata.namespace", "spec.clusterIP", "spec.type"],
        ("", "replicationcontrollers") | ("apps", "replicasets") => {
            &["metadata.name", "metadata.namespace", "status.replicas"]
        }
        ("batch", "jobs") => &["metadata.name", "metadata.namespace", "status.successful"],
        ("certificates.k8s.io", "certificatesigningrequests") => &["metadata.name", "spec.signerName"],
        ("certificates.k8s.io", "clustertrustbundles") => &["metadata.name", "spec.signerName"],
        ("resource.k8s.io", "resourceslices") => &["metadata.name", "spec.nodeName", "spec.driver"],
        _ => COMMON,
    }
}

/// The stored field behind a name in a selector; `None` where the kind has no such field.
fn stored_field(resource: &Resource, paths: &[Cow<'static, str>], field: &str) -> Option<String> {
    let stored = match (&*resource.gvk.group, resource.plural.as_str(), field) {
        ("", "events", "source") => "source.component".to_owned(),
        ("events.k8s.io", "events", "reportingController") => "reportingComponent".to_owned(),
        ("events.k8s.io", "events", _) if field.starts_with("regarding.") => {
            field.replacen("regarding", "involvedObject", 1)
        }
        ("events.k8s.io", "events", "reason" | "type" | "metadata.name" | "metadata.namespace") => {
            field.to_owned()
        }
        ("events.k8s.io", "events", _) => return None,
        _ => field.to_owned(),
    };
    paths.iter().any(|path| *path == stored).then_some(stored)
}

/// Fields that have a value when they are absent.
fn absent(path: &str) -> &'static str {
    match path {
        "spec.unschedulable" | "spec.hostNetwork" => "false",
        "status.replicas" | "status.successful" => "0",
        _ => "",
    }
}

// === impl Filter ===

impl Filter {
    /// Parses both selectors; a field the kind cannot be selected by is refused.
    pub(crate) fn parse(served: &Served, labels: &str, fields: &str) -> Result<Self, ApiError> {
        let resource = &served.resource;
        let known = selectable(resource);
        let own = served.custom.iter().flat_map(|custom| custom.selectable.iter().cloned().map(Cow::Owned));
        let paths: Vec<Cow<'static, str>> =
            known.iter().map(|path| Cow::Borrowed(*path)).chain(own).collect();
        let labels = Selector::parse(labels).map_err(|error| ApiError::bad_request(error.to_string()))?;
        let mut fields =
            FieldSelector::parse(fields).map_err(|error| ApiError::bad_request(error.to_string()))?;
        for term in &mut fields.terms {
            let Some(stored) = stored_field(resource, &paths, &term.field) else {
                // Kinds without fields of their own are refused in other words.
                let why = if known == COMMON && paths.len() == known.len() {
                    let known = "only \"metadata.name\", \"metadata.namespace\"";
                    format!("{:?} is not a known field selector: {known}", term.field)
                } else {
                    format!("field label not supported: {}", term.field)
                };
                return Err(ApiError::bad_request(why));
            };
            term.field = stored;
        }
        let mut hasher = DefaultHasher::new();
        paths.hash(&mut hasher);
        Ok(Self { labels, fields, paths, paths_hash: hasher.finish() })
    }

    /// Nothing is left out: objects need not be looked at.
    pub(crate) fn is_everything(&self) -> bool {
        self.fields.is_everything() && self.labels.is_everything()
    }

    /// The one name asked for, if it is one.
    pub(crate) fn exact_name(&self) -> Option<&str> {
        self.fields.exact("metadata.name")
    }

    pub(crate) fn matches(&self, facts: &Facts) -> bool {
        self.labels.matches(&facts.labels)
            && self.fields.matches(|field| {
                let position = self.paths.iter().position(|path| path == field)?;
                facts.fields.get(position).and_then(Option::as_deref).or(Some(absent(field)))
            })
    }

    /// Reads the facts of an object.
    pub(crate) fn read(&self, stored: &Stored) -> Facts {
        let mut facts = Facts { labels: BTreeMap::new(), fields: vec![None; self.paths.len()] };
        let mut wanted: Vec<(Slot, &str)> =
            self.paths.iter().enumerate().map(|(index, path)| (Slot::Field(index), &**path)).collect();
        wanted.push((Slot::Labels, "metadata.labels"));
        let mut json = serde_json::Deserializer::from_slice(&stored.value);
        json.disable_recursion_limit();
        if let Err(error) = (Pick { wanted: &wanted, facts: &mut facts }).deserialize(&mut json) {
            tracing::error!(%error, revision = %stored.revision, "a stored object cannot be read");
        }
        facts
    }

    pub(crate) fn accepts(&self, stored: &Stored, cache: &FactsCache) -> bool {
        self.is_everything() || cache.with(self, stored, |facts| self.matches(facts))
    }
}

// === impl FactsCache ===

impl Default for FactsCache {
    fn default() -> Self {
        Self { slots: (0..CACHE_SLOTS).map(|_| ArcSwapOption::empty()).collect() }
    }
}

impl FactsCache {
    fn with<T>(&self, filter: &Filter, stored: &Stored, use_facts: impl FnOnce(&Facts) -> T) -> T {
        let (revision, paths_hash) = (stored.revision, filter.paths_hash);
        // A revision belongs to one object, so it says whose facts these are; the paths say which.
        let place = revision.0.wrapping_add(paths_hash);
        let slot = &self.slots[usize::try_from(place % CACHE_SLOTS).unwrap_or(0)];
        if let Some(entry) = &*slot.load()
            && (entry.revision, entry.paths_hash) == (revision, paths_hash)
        {
            return use_facts(&entry.facts);
        }
        let entry = Arc::new(CachedFacts { revision, paths_hash, facts: filter.read(stored) });
        slot.store(Some(entry.clone()));
        use_facts(&entry.facts)
    }
}

// === reading ===

#[derive(Clone, Copy)]
enum Slot {
    Labels,
    Field(usize),
}

/// Descends where a wanted path leads and skips everything else.
struct Pick<'a, 'w> {
    wanted: &'a [(Slot, &'w str)],
    facts: &'a mut Facts,
}

impl<'de> DeserializeSeed<'de> for Pick<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Pick<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<(), A::Error> {
        while let Some(key) = access.next_key::<Cow<'de, str>>()? {
            let below: Vec<(Slot, &str)> = self
                .wanted
                .iter()
                .filter_map(|(slot, path)| match path.split_once('.') {
                    Some((first, rest)) if first == key => Some((*slot, rest)),
                    None if *path == key => Some((*slot, "")),
                    _ => None,
                })
                .collect();
            match below.as_slice() {
                [] => {
                    access.next_value::<IgnoredAny>()?;
                }
                [(Slot::Labels, "")] => {
                    self.facts.labels = access.next_value::<Option<_>>()?.unwrap_or_default();
                }
                [(Slot::Field(index), "")] => {
                    self.facts.fields[*index] = access.next_value::<Scalar>()?.0;
                }
                deeper => access.next_value_seed(Pick { wanted: deeper, facts: &mut *self.facts })?,
            }
        }
        Ok(())
    }

    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut access: A) -> Result<(), A::Error> {
        while access.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }
}

/// Text, or a number or flag as text.
struct Scalar(Option<String>);

impl<'de> serde::Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde_json::Value;
        Ok(Self(match Value::deserialize(deserializer)? {
            Value::String(text) => Some(text),
            Value::Number(number) => Some(number.to_string()),
            Value::Bool(flag) => Some(flag.to_string()),
            Value::Null | Value::Array(_) | Value::Object(_) => None,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Kinds;

    fn resource(plural: &str) -> Served {
        Kinds::builtin().core(plural).clone()
    }

    fn stored(json: &str) -> Stored {
        Stored { value: json.to_owned().into(), revision: Revision(5) }
    }

    #[test]
    fn labels_and_fields_decide() {
        let pod = stored(
            r#"{"kind":"Pod","metadata":{"name":"a","labels":{"app":"x"}},"spec":{"containers":[{"name":"c"}],"nodeName":"n1"},"status":{"phase":"Running"}}"#,
        );
        let cache = FactsCache::default();
        for (labels, fields, expected) in [
            ("app=x", "", true),
            ("app!=x", "", false),
            ("app in (x,y)", "spec.nodeName=n1,status.phase!=Failed", true),
            ("", "spec.nodeName=", false),
            ("", "spec.hostNetwork=false", true),
            ("", "metadata.name=a", true),
        ] {
            let filter = Filter::parse(&resource("pods"), labels, fields).expect("parses");
            assert_eq!(filter.accepts(&pod, &cache), expected, "{labels} {fields}");
        }
    }

    #[test]
    fn versions_of_a_kind_are_selected_by_their_own_fields() {
        let version = |name: &str, storage: bool, paths: &[&str]| {
            let fields: Vec<_> = paths.iter().map(|path| serde_json::json!({ "jsonPath": path })).collect();
            serde_json::json!({"name": name, "served": true, "storage": storage, "selectableFields": fields})
        };
        let definition = serde_json::json!({
            "spec": {"group": "example.com", "names": {"plural": "ships", "kind": "Ship"}, "versions": [
                version("v3", true, &[".spec.flag"]), version("v2", false, &[]),
                version("v1", false, &[".spec.port", ".spec.flag"]),
            ]},
            "status": {"conditions": [{"type": "Established", "status": "True"}]},
        });
        let served = crate::custom::versions(&definition);
        let ship = stored(r#"{"kind":"Ship","metadata":{"name":"a"},"spec":{"flag":"red","port":"x"}}"#);
        let cache = FactsCache::default();
        for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
            for version in order {
                let filter = |fields: &str| Filter::parse(&served[version], "", fields).expect("parses");
                assert!(filter("metadata.name=a").accepts(&ship, &cache), "{version}");
                if version != 1 {
                    assert!(filter("spec.flag=red").accepts(&ship, &cache), "{version}");
                    assert!(!filter("spec.flag=x").accepts(&ship, &cache), "{version}");
                }
            }
        }
    }

    #[test]
    fn events_are_selected_by_the_names_of_their_group() {
        let event = stored(
            r#"{"kind":"Event","metadata":{"name":"a"},"involvedObject":{"kind":"Pod","name":"p"},"reason":"R","reportingComponent":"c"}"#,
        );
        let kinds = Kinds::builtin();
        let of_group = kinds.get("events.k8s.io", "v1", "events").expect("served");
        let accepts = |served: &Served, fields: &str| {
            Some(Filter::parse(served, "", fields).ok()?.accepts(&event, &FactsCache::default()))
        };
        assert_eq!(
            accepts(of_group, "regarding.name=p,regarding.kind=Pod,reportingController=c"),
            Some(true)
        );
        assert_eq!(accepts(of_group, "regarding.name=q"), Some(false));
        assert_eq!(accepts(of_group, "reason=R,type="), Some(true));
        for unknown in ["involvedObject.name=p", "source=c", "reportingComponent=c", "regarding.foo=x"] {
            assert_eq!(accepts(of_group, unknown), None, "{unknown}");
        }
        let core = resource("events");
        assert_eq!(accepts(&core, "involvedObject.name=p,reportingComponent=c"), Some(true));
        assert_eq!(accepts(&core, "regarding.name=p"), None);
    }

    #[test]
    fn unknown_fields_are_refused() {
        let error = Filter::parse(&resource("pods"), "", "spec.foo=a").expect_err("refused");
        assert_eq!(error.message(), "field label not supported: spec.foo");
    }

    #[test]
    fn flags_have_a_value_when_absent() {
        let node = stored(r#"{"kind":"Node","metadata":{"name":"a"}}"#);
        let filter = Filter::parse(&resource("nodes"), "", "spec.unschedulable=false").expect("parses");
        assert!(filter.accepts(&node, &FactsCache::default()));
    }
}
