//! Label selectors: which label sets a query or a workload means.
//!
//! In: the string form of a query (`app in (a,b),!old`), the `LabelSelector` of an object, or a plain map. Out: a
//! `Selector` that matches label sets and prints itself as upstream prints it.

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde_json::Value;

use crate::names;

mod lex;
mod parse;

/// How a requirement relates a key and its values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operator {
    /// `key=value`
    Equals,
    /// `key==value`
    DoubleEquals,
    /// `key!=value`; an absent key matches.
    NotEquals,
    /// `key in (a,b)`
    In,
    /// `key notin (a,b)`; an absent key matches.
    NotIn,
    /// `key`
    Exists,
    /// `!key`
    DoesNotExist,
    /// `key>1`, integers only
    GreaterThan,
    /// `key<1`, integers only
    LessThan,
}

/// One condition on one key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Requirement {
    key: String,
    operator: Operator,
    values: Vec<String>,
}

/// A conjunction of requirements, or the selector that matches nothing.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Selector {
    /// All of these must hold; an empty list matches everything.
    All(Vec<Requirement>),
    /// Matches no object: what an absent `LabelSelector` means.
    Nothing,
}

/// Why a selector cannot be used; the sentence is upstream's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SelectorError(pub(crate) String);

/// Anything labels can be looked up in.
pub trait Labels {
    /// The value of a label, if it is set.
    fn label(&self, key: &str) -> Option<&str>;
}

// === impl Labels ===

impl Labels for BTreeMap<String, String> {
    fn label(&self, key: &str) -> Option<&str> {
        self.get(key).map(String::as_str)
    }
}

impl<T: Labels> Labels for Option<T> {
    fn label(&self, key: &str) -> Option<&str> {
        self.as_ref().and_then(|labels| labels.label(key))
    }
}

impl<T: Labels> Labels for &T {
    fn label(&self, key: &str) -> Option<&str> {
        (*self).label(key)
    }
}

impl Labels for Value {
    fn label(&self, key: &str) -> Option<&str> {
        self.get(key).and_then(Value::as_str)
    }
}

impl Labels for serde_json::Map<String, Value> {
    fn label(&self, key: &str) -> Option<&str> {
        self.get(key).and_then(Value::as_str)
    }
}

// === impl Operator ===

impl Operator {
    /// The operator of a `LabelSelectorRequirement` or `NodeSelectorRequirement`.
    pub fn from_api(name: &str) -> Option<Self> {
        Some(match name {
            "In" => Self::In,
            "NotIn" => Self::NotIn,
            "Exists" => Self::Exists,
            "DoesNotExist" => Self::DoesNotExist,
            "Gt" => Self::GreaterThan,
            "Lt" => Self::LessThan,
            _ => return None,
        })
    }
}

// === impl Requirement ===

impl Requirement {
    /// A checked requirement: key and values are valid labels and their number fits the operator.
    pub fn new(key: &str, operator: Operator, values: Vec<String>) -> Result<Self, SelectorError> {
        let mut problems = Vec::new();
        let key_problems = names::label_key(key);
        if !key_problems.is_empty() {
            problems.push(format!("key: Invalid value: {key:?}: {}", key_problems.join("; ")));
        }
        let wrong_count = match operator {
            Operator::In | Operator::NotIn => {
                values.is_empty().then_some("for 'in', 'notin' operators, values set can't be empty")
            }
            Operator::Equals | Operator::DoubleEquals | Operator::NotEquals => {
                (values.len() != 1).then_some("exact-match compatibility requires one single value")
            }
            Operator::Exists | Operator::DoesNotExist => {
                (!values.is_empty()).then_some("values set must be empty for exists and does not exist")
            }
            Operator::GreaterThan | Operator::LessThan => {
                (values.len() != 1).then_some("for 'Gt', 'Lt' operators, exactly one value is required")
            }
        };
        if let Some(detail) = wrong_count {
            problems.push(format!("values: Invalid value: {}: {detail}", Value::from(values.clone())));
        }
        for (index, value) in values.iter().enumerate() {
            if matches!(operator, Operator::GreaterThan | Operator::LessThan) && value.parse::<i64>().is_err()
            {
                let detail = "for 'Gt', 'Lt' operators, the value must be an integer";
                problems.push(format!("values[{index}]: Invalid value: {value:?}: {detail}"));
            }
            let value_problems = names::label_value(value);
            if !value_problems.is_empty() {
                let detail = value_problems.join("; ");
                problems.push(format!("values[{index}][{key}]: Invalid value: {value:?}: {detail}"));
            }
        }
        match problems.len() {
            0 => Ok(Self { key: key.to_owned(), operator, values }),
            1 => Err(SelectorError(problems.remove(0))),
            _ => Err(SelectorError(format!("[{}]", problems.join(", ")))),
        }
    }

    /// The label the requirement is about.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// How key and values relate.
    pub const fn operator(&self) -> Operator {
        self.operator
    }

    /// The values, in the order they were given.
    pub fn values(&self) -> &[String] {
        &self.values
    }

    /// Whether a label set satisfies this requirement.
    pub fn matches(&self, labels: &impl Labels) -> bool {
        let found = labels.label(&self.key);
        let listed = |value: &str| self.values.iter().any(|candidate| candidate == value);
        match self.operator {
            Operator::In | Operator::Equals | Operator::DoubleEquals => found.is_some_and(listed),
            Operator::NotIn | Operator::NotEquals => !found.is_some_and(listed),
            Operator::Exists => found.is_some(),
            Operator::DoesNotExist => found.is_none(),
            Operator::GreaterThan => self.compare(found).is_some_and(std::cmp::Ordering::is_gt),
            Operator::LessThan => self.compare(found).is_some_and(std::cmp::Ordering::is_lt),
        }
    }

    fn compare(&self, found: Option<&str>) -> Option<std::cmp::Ordering> {
        let found: i64 = found?.parse().ok()?;
        let bound: i64 = self.values.first()?.parse().ok()?;
        Some(found.cmp(&bound))
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut values: Vec<&str> = self.values.iter().map(String::as_str).collect();
        values.sort_unstable();
        let (key, values) = (&self.key, values.join(","));
        match self.operator {
            Operator::Equals => write!(f, "{key}={values}"),
            Operator::DoubleEquals => write!(f, "{key}=={values}"),
            Operator::NotEquals => write!(f, "{key}!={values}"),
            Operator::In => write!(f, "{key} in ({values})"),
            Operator::NotIn => write!(f, "{key} notin ({values})"),
            Operator::Exists => f.write_str(key),
            Operator::DoesNotExist => write!(f, "!{key}"),
            Operator::GreaterThan => write!(f, "{key}>{values}"),
            Operator::LessThan => write!(f, "{key}<{values}"),
        }
    }
}

// === impl Selector ===

impl Selector {
    /// The selector that every object matches.
    pub const fn everything() -> Self {
        Self::All(Vec::new())
    }

    /// Parses the string form used by `labelSelector=` queries.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        parse::requirements(text).map(Self::from_requirements)
    }

    /// The selector of an object's field: absent matches nothing, empty matches everything.
    pub fn from_label_selector(selector: Option<&LabelSelector>) -> Result<Self, SelectorError> {
        let Some(selector) = selector else { return Ok(Self::Nothing) };
        let mut requirements = Vec::new();
        for (key, value) in selector.match_labels.iter().flatten() {
            requirements.push(Requirement::new(key, Operator::Equals, vec![value.clone()])?);
        }
        for expression in selector.match_expressions.iter().flatten() {
            let values = expression.values.clone().unwrap_or_default();
            requirements.push(Requirement::new(
                &expression.key,
                api_operator(&expression.operator)?,
                values,
            )?);
        }
        Ok(Self::from_requirements(requirements))
    }

    /// The same for a `LabelSelector` still in JSON; a value of another shape reads as absent.
    pub fn from_json(selector: Option<&Value>) -> Result<Self, SelectorError> {
        let Some(selector) = selector.filter(|value| value.is_object()) else { return Ok(Self::Nothing) };
        let mut requirements = Vec::new();
        for (key, value) in selector.get("matchLabels").and_then(Value::as_object).into_iter().flatten() {
            let value = value.as_str().unwrap_or_default().to_owned();
            requirements.push(Requirement::new(key, Operator::Equals, vec![value])?);
        }
        for expression in selector.get("matchExpressions").and_then(Value::as_array).into_iter().flatten() {
            let text = |name| expression.get(name).and_then(Value::as_str).unwrap_or_default();
            let values = expression.get("values").and_then(Value::as_array).into_iter().flatten();
            let values = values.filter_map(Value::as_str).map(str::to_owned).collect();
            requirements.push(Requirement::new(text("key"), api_operator(text("operator"))?, values)?);
        }
        Ok(Self::from_requirements(requirements))
    }

    /// A selector for exactly these labels, unchecked: the map comes from a stored object (a Service's selector,
    /// a pod's nodeSelector). An empty map matches everything.
    pub fn from_map<'a>(labels: impl IntoIterator<Item = (&'a String, &'a String)>) -> Self {
        let requirement = |(key, value): (&String, &String)| Requirement {
            key: key.clone(),
            operator: Operator::Equals,
            values: vec![value.clone()],
        };
        Self::from_requirements(labels.into_iter().map(requirement).collect())
    }

    /// A conjunction of requirements, sorted by key as upstream sorts them.
    pub fn from_requirements(mut requirements: Vec<Requirement>) -> Self {
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Self::All(requirements)
    }

    /// Whether a label set is selected.
    pub fn matches(&self, labels: &impl Labels) -> bool {
        match self {
            Self::All(requirements) => requirements.iter().all(|requirement| requirement.matches(labels)),
            Self::Nothing => false,
        }
    }

    /// Whether every label set is selected.
    pub fn is_everything(&self) -> bool {
        matches!(self, Self::All(requirements) if requirements.is_empty())
    }
}

fn api_operator(name: &str) -> Result<Operator, SelectorError> {
    match Operator::from_api(name) {
        Some(operator) if !matches!(operator, Operator::GreaterThan | Operator::LessThan) => Ok(operator),
        _ => Err(SelectorError(format!("{name:?} is not a valid label selector operator"))),
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::All(requirements) = self else { return Ok(()) };
        for (index, requirement) in requirements.iter().enumerate() {
            let separator = if index == 0 { "" } else { "," };
            write!(f, "{separator}{requirement}")?;
        }
        Ok(())
    }
}

impl std::str::FromStr for Selector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

#[cfg(test)]
mod tests;
