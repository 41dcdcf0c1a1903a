//! Field selectors: `metadata.name=a,status.phase!=Running`.
//!
//! In: the string of a `fieldSelector=` query. Out: the terms, to be matched against the fields a kind offers.

use std::fmt;

/// One comparison of one field; all terms of a selector must hold.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Term {
    /// The field's path, as written.
    pub field: String,
    /// Whether the values must be equal or must differ.
    pub equal: bool,
    /// The unescaped value.
    pub value: String,
}

/// A conjunction of terms; empty matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct FieldSelector {
    /// The terms, in sorted order of their text.
    pub terms: Vec<Term>,
}

/// Why a field selector cannot be read; the sentence is upstream's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FieldSelectorError {
    /// A term without an operator.
    #[error("invalid selector: '{selector}'; can't understand '{term}'")]
    Term {
        /// The whole query.
        selector: String,
        /// The part that has no operator.
        term: String,
    },
    /// A backslash before a character that needs none.
    #[error("invalid field selector: invalid escape sequence: {0}")]
    Escape(String),
    /// A comma or equals sign in a value without its backslash.
    #[error("invalid field selector: unescaped character in value: {0}")]
    Unescaped(u32),
}

// === impl FieldSelector ===

impl FieldSelector {
    /// Parses the query string; empty terms are skipped.
    pub fn parse(selector: &str) -> Result<Self, FieldSelectorError> {
        let mut parts = split_terms(selector);
        parts.sort_unstable();
        let terms = parts.into_iter().filter(|part| !part.is_empty()).map(|part| term(selector, part));
        Ok(Self { terms: terms.collect::<Result<_, _>>()? })
    }

    /// Whether the fields satisfy all terms; an absent field reads as the empty string.
    pub fn matches<'a>(&self, field: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.terms.iter().all(|term| (field(&term.field).unwrap_or_default() == term.value) == term.equal)
    }

    /// The value a field is required to have, when there is one.
    pub fn exact(&self, field: &str) -> Option<&str> {
        self.terms.iter().find(|term| term.equal && term.field == field).map(|term| term.value.as_str())
    }

    /// Whether every object matches.
    pub fn is_everything(&self) -> bool {
        self.terms.is_empty()
    }
}

impl fmt::Display for FieldSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, term) in self.terms.iter().enumerate() {
            let separator = if index == 0 { "" } else { "," };
            let operator = if term.equal { "=" } else { "!=" };
            write!(f, "{separator}{}{operator}{}", term.field, escape(&term.value))?;
        }
        Ok(())
    }
}

fn split_terms(selector: &str) -> Vec<&str> {
    let mut terms = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (index, c) in selector.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                terms.push(&selector[start..index]);
                start = index + 1;
            }
            _ => {}
        }
    }
    terms.push(&selector[start..]);
    terms
}

fn term(selector: &str, part: &str) -> Result<Term, FieldSelectorError> {
    for (index, _) in part.char_indices() {
        for (operator, equal) in [("!=", false), ("==", true), ("=", true)] {
            if let Some(value) = part[index..].strip_prefix(operator) {
                let field = part[..index].to_owned();
                return Ok(Term { field, equal, value: unescape(value)? });
            }
        }
    }
    Err(FieldSelectorError::Term { selector: selector.to_owned(), term: part.to_owned() })
}

fn escape(value: &str) -> String {
    let mut escaped = String::with_capacity(value.len());
    for c in value.chars() {
        if matches!(c, '\\' | ',' | '=') {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

fn unescape(value: &str) -> Result<String, FieldSelectorError> {
    let mut plain = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(c @ ('\\' | ',' | '=')) => plain.push(c),
                Some(c) => return Err(FieldSelectorError::Escape(format!("\\{c}"))),
                None => return Err(FieldSelectorError::Escape("\\".to_owned())),
            },
            ',' | '=' => return Err(FieldSelectorError::Unescaped(c.into())),
            c => plain.push(c),
        }
    }
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_are_read_and_matched() {
        let selector = FieldSelector::parse("status.phase!=Running,metadata.name==a").unwrap();
        assert_eq!(selector.exact("metadata.name"), Some("a"));
        assert_eq!(selector.to_string(), "metadata.name=a,status.phase!=Running");
        let field = |name: &str| match name {
            "metadata.name" => Some("a"),
            "status.phase" => Some("Pending"),
            _ => None,
        };
        assert!(selector.matches(field));
        assert!(FieldSelector::parse("").unwrap().matches(field));
        assert!(FieldSelector::parse("spec.nodeName=").unwrap().matches(field));
        assert!(!FieldSelector::parse("spec.nodeName!=").unwrap().matches(field));
    }

    #[test]
    fn escapes_round_trip() {
        let selector = FieldSelector::parse(r"a=x\,y\=z\\").unwrap();
        assert_eq!(selector.terms[0].value, r"x,y=z\");
        assert_eq!(FieldSelector::parse(&selector.to_string()).unwrap(), selector);
    }

    #[test]
    fn mistakes_are_named() {
        for (query, message) in [
            ("a", "invalid selector: 'a'; can't understand 'a'"),
            ("a=b=c", "invalid field selector: unescaped character in value: 61"),
            (r"a=\b", r"invalid field selector: invalid escape sequence: \b"),
            (r"a=b\", r"invalid field selector: invalid escape sequence: \"),
        ] {
            assert_eq!(FieldSelector::parse(query).unwrap_err().to_string(), message);
        }
    }
}
