//! The JSON paths that definitions of custom resources use: `.spec.replicas`, `.status.conditions[?(@.type=="Ready")].status`.
//!
//! In: a path's text. Out: the steps, and the first value they lead to. Absent: slices, recursive descent, unions.

use serde_json::Value;

/// A path that could be read.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct JsonPath {
    steps: Vec<Step>,
}

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Field(String),
    Index(usize),
    All,
    /// Items that have this value in this field.
    Where {
        field: String,
        equals: Value,
    },
}

// === impl JsonPath ===

impl JsonPath {
    /// Reads a path; `None` for what is no path, or none of these.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let text = text.trim().trim_start_matches('{').trim_end_matches('}');
        let mut rest = text.strip_prefix('$').unwrap_or(text);
        let mut steps = Vec::new();
        while !rest.is_empty() {
            if let Some(after) = rest.strip_prefix('.') {
                let end = field_end(after);
                if end == 0 {
                    return None;
                }
                steps.push(Step::Field(after[..end].replace("\\.", ".")));
                rest = &after[end..];
            } else {
                let inner = rest.strip_prefix('[')?;
                let end = bracket_end(inner)?;
                steps.push(bracketed(&inner[..end])?);
                rest = &inner[end + 1..];
            }
        }
        Some(Self { steps })
    }

    /// Whether it leads by names alone, as the paths of sub-resources must.
    pub(crate) fn fields(&self) -> Option<Vec<&str>> {
        let fields = self.steps.iter().map(|step| match step {
            Step::Field(name) => Some(&**name),
            _ => None,
        });
        fields.collect()
    }

    /// The first value at the end of the path.
    pub(crate) fn find<'v>(&self, value: &'v Value) -> Option<&'v Value> {
        find(&self.steps, value)
    }
}

fn find<'v>(steps: &[Step], value: &'v Value) -> Option<&'v Value> {
    let Some((step, rest)) = steps.split_first() else { return Some(value).filter(|value| !value.is_null()) };
    match step {
        Step::Field(name) => find(rest, value.get(name)?),
        Step::Index(index) => find(rest, value.get(index)?),
        Step::All => value.as_array()?.iter().find_map(|item| find(rest, item)),
        Step::Where { field, equals } => {
            let mut items = value.as_array()?.iter().filter(|item| item.get(field) == Some(equals));
            items.find_map(|item| find(rest, item))
        }
    }
}

/// Where a field's name ends; a dot after a backslash is part of it.
fn field_end(text: &str) -> usize {
    let mut escaped = false;
    for (place, c) in text.char_indices() {
        match c {
            '.' | '[' if !escaped => return place,
            _ => escaped = c == '\\',
        }
    }
    text.len()
}

/// Where a bracket closes; brackets in quotes do not count.
fn bracket_end(text: &str) -> Option<usize> {
    let mut quote = None;
    for (place, c) in text.char_indices() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(c),
            (None, ']') => return Some(place),
            (None, _) => {}
        }
    }
    None
}

fn bracketed(text: &str) -> Option<Step> {
    let text = text.trim();
    if text == "*" {
        return Some(Step::All);
    }
    if let Ok(index) = text.parse() {
        return Some(Step::Index(index));
    }
    if let Some(name) = unquoted(text) {
        return Some(Step::Field(name.to_owned()));
    }
    let condition = text.strip_prefix("?(")?.strip_suffix(')')?.trim();
    let (field, wanted) = condition.split_once("==")?;
    let field = field.trim().strip_prefix("@.")?;
    let wanted = wanted.trim();
    let equals = match unquoted(wanted) {
        Some(text) => text.into(),
        None => serde_json::from_str(wanted).ok()?,
    };
    Some(Step::Where { field: field.to_owned(), equals })
}

fn unquoted(text: &str) -> Option<&str> {
    ['"', '\''].into_iter().find_map(|quote| text.strip_prefix(quote)?.strip_suffix(quote))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths_lead_where_they_say() {
        let object = json!({
            "spec": {"replicas": 3, "a.b": 1, "list": [{"x": 1}, {"x": 2}]},
            "status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "Other", "status": "False"}]},
        });
        for (path, expected) in [
            (".spec.replicas", json!(3)),
            ("$.spec.replicas", json!(3)),
            (".spec.a\\.b", json!(1)),
            (".spec['a.b']", json!(1)),
            (".spec.list[1].x", json!(2)),
            (".spec.list[*].x", json!(1)),
            (".status.conditions[?(@.type==\"Other\")].status", json!("False")),
            (".status.conditions[?(@.type=='Ready')].status", json!("True")),
        ] {
            let found = JsonPath::parse(path).expect(path).find(&object).cloned();
            assert_eq!(found, Some(expected), "{path}");
        }
        for path in [".spec.nothing", ".spec.list[7]", ".spec.replicas.deeper"] {
            assert_eq!(JsonPath::parse(path).expect(path).find(&object), None, "{path}");
        }
        for bad in ["spec", ".", ".a..b", ".a[", ".a[?(x)]"] {
            assert_eq!(JsonPath::parse(bad), None, "{bad}");
        }
        assert_eq!(JsonPath::parse(".spec.replicas").unwrap().fields(), Some(vec!["spec", "replicas"]));
        assert_eq!(JsonPath::parse(".a[0]").unwrap().fields(), None);
    }
}
