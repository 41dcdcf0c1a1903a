//! The policies a namespace asks for by its labels: one to enforce, one to warn by, one to record by.
//!
//! In: labels. Out: levels at versions, and what is wrong with the labels. A label that cannot be read enforces the
//! strictest level, and warns and records nothing, as upstream has it.

use std::fmt;

use serde_json::Value;

use crate::field_error::FieldError;
use crate::meta;

const PREFIX: &str = "pod-security.kubernetes.io/";

/// How much a pod may ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    Privileged,
    Baseline,
    Restricted,
}

/// What becomes of a pod beyond the level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Enforce,
    Audit,
    Warn,
}

/// A level at a version of the policy; `None` is the latest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Policy {
    pub(super) level: Level,
    pub(super) minor: Option<u32>,
}

/// The policy of a namespace in a mode.
pub(super) fn of(namespace: &Value, mode: Mode) -> Policy {
    let mut errors = Vec::new();
    read(namespace, mode, &mut errors)
}

/// What is wrong with the labels of a namespace.
pub(super) fn problems(namespace: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for mode in [Mode::Enforce, Mode::Audit, Mode::Warn] {
        read(namespace, mode, &mut errors);
    }
    errors
}

fn read(namespace: &Value, mode: Mode, errors: &mut Vec<FieldError>) -> Policy {
    let mut policy = Policy { level: Level::Privileged, minor: None };
    let (level_key, version_key) =
        (format!("{PREFIX}{}", mode.as_str()), format!("{PREFIX}{}-version", mode.as_str()));
    let label = |key: &str| meta::at(namespace, &["metadata", "labels", key]).and_then(Value::as_str);
    let wrong = |key: &str, value: &str, detail: &str| {
        FieldError::invalid(format!("metadata.labels[{key}]"), &value.into(), detail)
    };
    if let Some(text) = label(&level_key) {
        policy.level = Level::parse(text).unwrap_or_else(|| {
            errors.push(wrong(&level_key, text, "must be one of privileged, baseline, restricted"));
            if mode == Mode::Enforce { Level::Restricted } else { Level::Privileged }
        });
    }
    if let Some(text) = label(&version_key) {
        match minor(text) {
            Some(minor) => policy.minor = minor,
            None => errors.push(wrong(&version_key, text, "must be \"latest\" or \"v1.x\"")),
        }
    }
    policy
}

/// Of `v1.25` the 25, of `latest` none; `None` for what is no version.
fn minor(text: &str) -> Option<Option<u32>> {
    if text == "latest" {
        return Some(None);
    }
    let digits = text.strip_prefix("v1.")?;
    let canonical = digits == "0" || !digits.starts_with('0');
    (canonical && digits.bytes().all(|byte| byte.is_ascii_digit()))
        .then(|| digits.parse().ok())
        .flatten()
        .map(Some)
}

// === impl Level ===

impl Level {
    fn parse(text: &str) -> Option<Self> {
        [Self::Privileged, Self::Baseline, Self::Restricted].into_iter().find(|level| level.as_str() == text)
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Privileged => "privileged",
            Self::Baseline => "baseline",
            Self::Restricted => "restricted",
        }
    }
}

// === impl Mode ===

impl Mode {
    fn as_str(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Audit => "audit",
            Self::Warn => "warn",
        }
    }
}

// === impl Policy ===

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.minor {
            Some(minor) => write!(f, "{}:v1.{minor}", self.level.as_str()),
            None => write!(f, "{}:latest", self.level.as_str()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn namespace(labels: &[(&str, &str)]) -> Value {
        let labels: serde_json::Map<String, Value> =
            labels.iter().map(|(key, value)| (format!("{PREFIX}{key}"), (*value).into())).collect();
        json!({"metadata": {"labels": labels}})
    }

    #[test]
    fn labels_say_level_and_version() {
        let labels = [("enforce", "baseline"), ("enforce-version", "v1.25"), ("warn", "restricted")];
        let good = namespace(&labels);
        assert_eq!(problems(&good), []);
        assert_eq!(of(&good, Mode::Enforce).to_string(), "baseline:v1.25");
        assert_eq!(of(&good, Mode::Warn).to_string(), "restricted:latest");
        assert_eq!(of(&good, Mode::Audit).to_string(), "privileged:latest");
    }

    #[test]
    fn what_cannot_be_read_enforces_most_and_tells_least() {
        let bad = namespace(&[("enforce", "strict"), ("audit", ""), ("warn", "Baseline")]);
        assert_eq!(problems(&bad).len(), 3);
        assert_eq!(of(&bad, Mode::Enforce).level, Level::Restricted);
        assert_eq!(
            (of(&bad, Mode::Warn).level, of(&bad, Mode::Audit).level),
            (Level::Privileged, Level::Privileged)
        );
        for version in ["v1", "1.25", "v2.1", "v1.", "v1.01", "v1.x", "v1.+1", "", "v1.99999999999"] {
            let bad = namespace(&[("enforce-version", version)]);
            let told: Vec<String> = problems(&bad).iter().map(ToString::to_string).collect();
            assert_eq!(told.len(), 1, "{version}");
            assert!(
                told[0].starts_with(
                    "metadata.labels[pod-security.kubernetes.io/enforce-version]: Invalid value"
                )
            );
        }
    }
}
