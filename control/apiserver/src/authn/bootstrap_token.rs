//! Bootstrap tokens: with them a machine asks for the certificate it will be known by.
//!
//! In: a bearer token `id.secret`, the Secret `bootstrap-token-<id>` of `kube-system`. Out: a user who may little more
//! than ask. The Secret is an ordinary one: whoever may write Secrets there makes tokens and takes them back.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::UserInfo;
use crate::meta;

const TYPE: &str = "bootstrap.kubernetes.io/token";
const GROUP: &str = "system:bootstrappers";
const USER_PREFIX: &str = "system:bootstrap:";
const ID_LENGTH: usize = 6;
const SECRET_LENGTH: usize = 16;

/// Id and secret of what looks like such a token.
pub(super) fn parse(token: &str) -> Option<(&str, &str)> {
    let (id, secret) = token.split_once('.')?;
    let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    (id.len() == ID_LENGTH && secret.len() == SECRET_LENGTH && plain(id) && plain(secret))
        .then_some((id, secret))
}

/// The name of the Secret that holds a token.
pub(crate) fn secret_name(id: &str) -> String {
    format!("bootstrap-token-{id}")
}

/// The user a token stands for, if the Secret says so.
pub(super) fn user(id: &str, secret: &str, stored: &Value, now: Timestamp) -> Option<UserInfo> {
    let text = |key: &str| -> Option<String> {
        let encoded = meta::at(stored, &["data", key])?.as_str()?;
        let decoded = STANDARD.decode(encoded).ok()?;
        String::from_utf8(decoded).ok()
    };
    // Digests are compared, so that the time it takes says nothing about the secret.
    let is_same = |one: &str, other: &str| Sha256::digest(one) == Sha256::digest(other);
    let valid = meta::text(stored, &["type"]) == TYPE
        && !meta::is_deleting(stored)
        && text("token-id").as_deref() == Some(id)
        && text("token-secret").is_some_and(|held| is_same(&held, secret))
        && text("usage-bootstrap-authentication").as_deref() == Some("true")
        && match text("expiration") {
            None => true,
            Some(expiration) => expiration.parse::<Timestamp>().is_ok_and(|at| at > now),
        };
    if !valid {
        return None;
    }
    let mut groups = vec![GROUP.to_owned()];
    for group in text("auth-extra-groups").unwrap_or_default().split(',').map(str::trim) {
        if group.is_empty() {
            continue;
        }
        // A token that wants into any other group is none.
        if !group.starts_with("system:bootstrappers:") {
            return None;
        }
        groups.push(group.to_owned());
    }
    Some(UserInfo::authenticated(format!("{USER_PREFIX}{id}"), groups))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn stored() -> Value {
        let mut data = serde_json::Map::new();
        for (key, text) in [
            ("token-id", "abcdef"),
            ("token-secret", "0123456789abcdef"),
            ("usage-bootstrap-authentication", "true"),
            ("expiration", "2026-01-01T00:00:00Z"),
            ("auth-extra-groups", "system:bootstrappers:workers"),
        ] {
            data.insert(key.to_owned(), STANDARD.encode(text).into());
        }
        json!({"type": TYPE, "metadata": {"name": "bootstrap-token-abcdef"}, "data": data})
    }

    fn ask(secret: &str, stored: &Value) -> Option<UserInfo> {
        user("abcdef", secret, stored, "2025-12-31T00:00:00Z".parse().expect("a time"))
    }

    #[test]
    fn tokens_are_told_by_their_form() {
        assert_eq!(parse("abcdef.0123456789abcdef"), Some(("abcdef", "0123456789abcdef")));
        for other in ["abcdef.0123", "ABCDEF.0123456789abcdef", "a.b.c", "abcdef0123456789abcdef"] {
            assert_eq!(parse(other), None, "{other}");
        }
    }

    #[test]
    fn a_token_is_good_while_its_secret_says_so() {
        let jane = ask("0123456789abcdef", &stored()).expect("valid");
        assert_eq!(jane.name, "system:bootstrap:abcdef");
        assert_eq!(jane.groups, [GROUP, "system:bootstrappers:workers", "system:authenticated"]);
        assert_eq!(ask("0123456789abcdee", &stored()), None);
        for (key, text) in [
            ("expiration", "2025-01-01T00:00:00Z"),
            ("expiration", "soon"),
            ("usage-bootstrap-authentication", "false"),
            ("auth-extra-groups", "system:masters"),
            ("token-id", "fedcba"),
        ] {
            let mut stored = stored();
            stored["data"][key] = STANDARD.encode(text).into();
            assert_eq!(ask("0123456789abcdef", &stored), None, "{key}={text}");
        }
        let mut lasting = stored();
        lasting["data"].as_object_mut().expect("data").remove("expiration");
        assert!(ask("0123456789abcdef", &lasting).is_some(), "without an expiration it does not expire");
        let mut other = stored();
        other["type"] = "Opaque".into();
        assert_eq!(ask("0123456789abcdef", &other), None);
    }
}
