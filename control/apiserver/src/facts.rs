//! What selectors look at, read out of an encoded object without building its tree.
//!
//! In: encoded objects, the paths a kind can be selected by. Out: labels and field values. A small table by revision
//! keeps them, so that any number of watchers pays for one reading.

use std::borrow::Cow;
use std::collections::BTreeMap;
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
}

/// Facts by revision, forgotten when another object falls on the same place.
pub(crate) struct FactsCache {
    slots: Box<[ArcSwapOption<(Revision, Facts)>]>,
}

const CACHE_SLOTS: usize = 1024;
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
            if resource.plural == "events" && term.field == "source" {
                term.field = "source.component".into();
            }
            if !paths.iter().any(|path| *path == term.field) {
                // Kinds without fields of their own are refused in other words.
                let why = if known == COMMON && paths.len() == known.len() {
                    let known = "only \"metadata.name\", \"metadata.namespace\"";
                    format!("{:?} is not a known field selector: {known}", term.field)
                } else {
                    format!("field label not supported: {}", term.field)
                };
                return Err(ApiError::bad_request(why));
            }
        }
        Ok(Self { labels, fields, paths })
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
                facts.fields[position].as_deref().or(Some(absent(field)))
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
        // A revision belongs to one object, so it alone says whose facts these are.
        let slot = &self.slots[usize::try_from(stored.revision.0).unwrap_or(0) % CACHE_SLOTS];
        if let Some(entry) = &*slot.load()
            && entry.0 == stored.revision
        {
            return use_facts(&entry.1);
        }
        let entry = Arc::new((stored.revision, filter.read(stored)));
        slot.store(Some(entry.clone()));
        use_facts(&entry.1)
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
