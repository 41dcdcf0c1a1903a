//! The schema of one version of a custom resource.
//!
//! In: `openAPIV3Schema` as a CustomResourceDefinition holds it. Out: the same, read once: what the passes over objects
//! ([`super::prune`], [`super::fill`], [`super::check`]) go by.

use std::collections::BTreeMap;

use regex::Regex;
use serde_json::Value;

use crate::meta;

/// JSON types by the schema's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Object,
    Array,
    String,
    Integer,
    Number,
    Boolean,
}

/// What one value may be.
#[derive(Clone, Debug, Default)]
pub(crate) struct Structural {
    /// `None`: any, which only free-form fields are.
    pub(crate) kind: Option<Kind>,
    pub(crate) properties: BTreeMap<String, Structural>,
    /// Of the values under free keys.
    pub(crate) additional: Option<Box<Structural>>,
    pub(crate) items: Option<Box<Structural>>,
    pub(crate) nullable: bool,
    pub(crate) keeps_unknown: bool,
    pub(crate) int_or_string: bool,
    /// Holds an object with `apiVersion`, `kind` and `metadata` of its own.
    pub(crate) embedded: bool,
    pub(crate) default: Option<Value>,
    pub(crate) list_type: ListType,
    /// A map or object that server-side apply takes for one value.
    pub(crate) atomic: bool,
    pub(crate) rules: Rules,
}

/// How the items of a list are told apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum ListType {
    #[default]
    Atomic,
    Set,
    Map(Vec<String>),
}

/// What a value of the right type must hold to besides.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rules {
    pub(crate) required: Vec<String>,
    pub(crate) one_of: Vec<Value>,
    pub(crate) format: String,
    pub(crate) pattern: Option<(String, Option<Regex>)>,
    pub(crate) minimum: Option<(f64, bool)>,
    pub(crate) maximum: Option<(f64, bool)>,
    pub(crate) multiple_of: Option<f64>,
    pub(crate) lengths: Bounds,
    pub(crate) items: Bounds,
    pub(crate) properties: Bounds,
    pub(crate) unique: bool,
    pub(crate) all: Vec<Structural>,
    pub(crate) any: Vec<Structural>,
    pub(crate) one: Vec<Structural>,
    pub(crate) not: Option<Box<Structural>>,
}

/// The least and the most of something counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub(crate) least: Option<u64>,
    pub(crate) most: Option<u64>,
}

// === impl Kind ===

impl Kind {
    fn from_word(word: &str) -> Option<Self> {
        Some(match word {
            "object" => Self::Object,
            "array" => Self::Array,
            "string" => Self::String,
            "integer" => Self::Integer,
            "number" => Self::Number,
            "boolean" => Self::Boolean,
            _ => return None,
        })
    }

    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Object => "object",
            Self::Array => "array",
            Self::String => "string",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
        }
    }
}

// === impl Structural ===

impl Structural {
    /// Reads a schema; its depth is that of the body it came in, which is bounded.
    pub(crate) fn from_json(schema: &Value) -> Self {
        let flag = |field: &str| schema[field].as_bool().unwrap_or_default();
        let properties = schema["properties"].as_object().into_iter().flatten();
        let additional = match &schema["additionalProperties"] {
            Value::Bool(true) => Some(Box::new(Self { keeps_unknown: true, ..Self::default() })),
            values @ Value::Object(_) => Some(Box::new(Self::from_json(values))),
            _ => None,
        };
        Self {
            kind: Kind::from_word(meta::text(schema, &["type"])),
            properties: properties.map(|(name, schema)| (name.clone(), Self::from_json(schema))).collect(),
            additional,
            items: schema["items"].is_object().then(|| Box::new(Self::from_json(&schema["items"]))),
            nullable: flag("nullable"),
            keeps_unknown: flag("x-kubernetes-preserve-unknown-fields"),
            int_or_string: flag("x-kubernetes-int-or-string"),
            embedded: flag("x-kubernetes-embedded-resource"),
            default: schema.get("default").filter(|default| !default.is_null()).cloned(),
            list_type: match meta::text(schema, &["x-kubernetes-list-type"]) {
                "set" => ListType::Set,
                "map" => ListType::Map(strings(&schema["x-kubernetes-list-map-keys"])),
                _ => ListType::Atomic,
            },
            atomic: meta::text(schema, &["x-kubernetes-map-type"]) == "atomic",
            rules: Rules::from_json(schema),
        }
    }

    /// What is under a name: a known field, or the values under free keys.
    pub(crate) fn field(&self, name: &str) -> Option<&Self> {
        self.properties.get(name).or(self.additional.as_deref())
    }
}

// === impl Rules ===

impl Rules {
    fn from_json(schema: &Value) -> Self {
        let number = |field: &str| schema[field].as_f64();
        let flag = |field: &str| schema[field].as_bool().unwrap_or_default();
        let bounds =
            |least: &str, most: &str| Bounds { least: schema[least].as_u64(), most: schema[most].as_u64() };
        let all = |field: &str| {
            let schemas = schema[field].as_array().into_iter().flatten();
            schemas.map(Structural::from_json).collect()
        };
        let pattern = meta::text(schema, &["pattern"]);
        Self {
            required: strings(&schema["required"]),
            one_of: schema["enum"].as_array().cloned().unwrap_or_default(),
            format: meta::text(schema, &["format"]).to_owned(),
            pattern: (!pattern.is_empty()).then(|| (pattern.to_owned(), Regex::new(pattern).ok())),
            minimum: number("minimum").map(|least| (least, flag("exclusiveMinimum"))),
            maximum: number("maximum").map(|most| (most, flag("exclusiveMaximum"))),
            multiple_of: number("multipleOf"),
            lengths: bounds("minLength", "maxLength"),
            items: bounds("minItems", "maxItems"),
            properties: bounds("minProperties", "maxProperties"),
            unique: flag("uniqueItems"),
            all: all("allOf"),
            any: all("anyOf"),
            one: all("oneOf"),
            not: schema["not"].is_object().then(|| Box::new(Structural::from_json(&schema["not"]))),
        }
    }
}

fn strings(list: &Value) -> Vec<String> {
    let items = list.as_array().into_iter().flatten();
    items.filter_map(Value::as_str).map(ToOwned::to_owned).collect()
}
