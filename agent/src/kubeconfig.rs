//! Kubeconfig files as this agent writes and renews them. Pure.
//!
//! In: text of a kubeconfig, a certificate and its key. Out: the same with the pair in it. Whatever else a file says is
//! kept; its form is not.

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::certificates::Pair;

const NAME: &str = "xebec";

/// A kubeconfig of one cluster and one user.
///
/// # Errors
/// When it cannot be written as YAML.
pub fn of_node(server: &str, ca: &str, user: &str, pair: &Pair) -> Result<String> {
    yaml(&json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{
            "name": NAME,
            "cluster": { "server": server, "certificate-authority-data": STANDARD.encode(ca) },
        }],
        "users": [{ "name": user, "user": user_of(pair) }],
        "contexts": [{ "name": NAME, "context": { "cluster": NAME, "user": user } }],
        "current-context": NAME,
    }))
}

/// A kubeconfig with a bearer token, for the time until there is a certificate.
pub fn of_token(server: &str, ca: &str, token: &str) -> Value {
    json!({
        "clusters": [{
            "name": NAME,
            "cluster": { "server": server, "certificate-authority-data": STANDARD.encode(ca) },
        }],
        "users": [{ "name": NAME, "user": { "token": token } }],
        "contexts": [{ "name": NAME, "context": { "cluster": NAME, "user": NAME } }],
        "current-context": NAME,
    })
}

/// The pair of the current context's user, where it lies in the file itself; `None` for other credentials.
///
/// # Errors
/// When it is no kubeconfig.
pub fn pair(text: &str) -> Result<Option<Pair>> {
    let mut config: Value = serde_saphyr::from_str(text).context("no YAML")?;
    let user = current_user(&mut config)?;
    let part = |field: &str| -> Result<Option<String>> {
        let Some(encoded) = user[field].as_str() else { return Ok(None) };
        let decoded = STANDARD.decode(encoded).with_context(|| format!("{field} is no base64"))?;
        Ok(Some(String::from_utf8(decoded).with_context(|| format!("{field} is no PEM"))?))
    };
    let (certificate, key) = (part("client-certificate-data")?, part("client-key-data")?);
    Ok(certificate.zip(key).map(|(certificate, key)| Pair { certificate, key }))
}

/// The same kubeconfig with another pair.
///
/// # Errors
/// When it is no kubeconfig.
pub fn with_pair(text: &str, pair: &Pair) -> Result<String> {
    let mut config: Value = serde_saphyr::from_str(text).context("no YAML")?;
    *current_user(&mut config)? = user_of(pair);
    yaml(&config)
}

fn user_of(pair: &Pair) -> Value {
    json!({
        "client-certificate-data": STANDARD.encode(&pair.certificate),
        "client-key-data": STANDARD.encode(&pair.key),
    })
}

/// What the user of the current context has to show.
fn current_user(config: &mut Value) -> Result<&mut Value> {
    let current = config["current-context"].as_str().unwrap_or_default().to_owned();
    let named = |entry: &Value, name: &str| entry["name"].as_str() == Some(name);
    let contexts = config["contexts"].as_array().into_iter().flatten();
    let user = contexts
        .into_iter()
        .find(|context| named(context, &current))
        .and_then(|context| context["context"]["user"].as_str())
        .with_context(|| format!("its current context {current:?} names no user"))?
        .to_owned();
    let users = config["users"].as_array_mut().into_iter().flatten();
    let entry = users.into_iter().find(|entry| named(entry, &user));
    entry.and_then(|entry| entry.get_mut("user")).with_context(|| format!("it has no user {user:?}"))
}

fn yaml(config: &Value) -> Result<String> {
    serde_saphyr::to_string(config).context("cannot write YAML")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair_of(text: &str) -> Pair {
        Pair { certificate: format!("certificate {text}"), key: format!("key {text}") }
    }

    #[test]
    fn a_renewed_pair_takes_the_old_ones_place_and_nothing_else_changes() {
        let text = of_node("https://192.0.2.1:6443", "ca", "system:node:n1", &pair_of("old")).unwrap();
        assert_eq!(pair(&text).unwrap(), Some(pair_of("old")));
        let text = format!("{text}\npreferences: {{colors: true}}\n");
        let renewed = with_pair(&text, &pair_of("new")).unwrap();
        assert_eq!(pair(&renewed).unwrap(), Some(pair_of("new")));
        let read = |text: &str| serde_saphyr::from_str::<Value>(text).unwrap();
        assert_eq!(read(&with_pair(&renewed, &pair_of("old")).unwrap()), read(&text));
        let config: kube::config::Kubeconfig = serde_saphyr::from_str(&renewed).unwrap();
        assert_eq!(config.current_context.as_deref(), Some("xebec"));
    }

    #[test]
    fn other_credentials_are_none_of_ours() {
        let text = serde_json::to_string(&of_token("https://192.0.2.1", "ca", "a.b")).unwrap();
        assert_eq!(pair(&text).unwrap(), None);
        assert!(pair("current-context: x").unwrap_err().to_string().contains("\"x\" names no user"));
        assert!(pair("[").is_err());
    }
}
