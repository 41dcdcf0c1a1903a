//! What a machine needs to find out whether it has found its cluster: `cluster-info`, signed for every bootstrap token.
//!
//! In: the cluster's CA and address, Secrets with bootstrap tokens. Out: the ConfigMap `cluster-info` of `kube-public`, which
//! anybody may read, as kubeadm reads and checks it. Tokens whose time is over are deleted.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{DeleteParams, ListParams, ObjectMeta, PostParams, Preconditions};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use ring::hmac;
use serde_json::json;
use tokio_util::sync::CancellationToken;
use xebec_api::wellknown::names;

pub const TYPE: &str = "bootstrap.kubernetes.io/token";
pub const SECRET_PREFIX: &str = "bootstrap-token-";
const CONFIG_MAP: &str = "cluster-info";
const KUBECONFIG: &str = "kubeconfig";
const SIGNATURE_PREFIX: &str = "jws-kubeconfig-";
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_secs(2);
/// Looked at again even when nothing is heard.
const LOOK: Duration = Duration::from_secs(300);

/// A token as its Secret tells it.
struct Token {
    id: String,
    secret: String,
    expires: Option<Timestamp>,
    signs: bool,
}

/// Signs and cleans up, until told to stop.
pub async fn run(client: Client, kubeconfig: String, stop: CancellationToken) {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), names::KUBE_SYSTEM);
    let maps: Api<ConfigMap> = Api::namespaced(client, names::KUBE_PUBLIC);
    let of_tokens = watcher::Config::default().fields(&format!("type={TYPE}"));
    let of_map = watcher::Config::default().fields(&format!("metadata.name={CONFIG_MAP}"));
    let tokens = watcher(secrets.clone(), of_tokens).default_backoff().map(|event| event.map(drop));
    let map = watcher(maps.clone(), of_map).default_backoff().map(|event| event.map(drop));
    let mut changes = std::pin::pin!(futures::stream::select(tokens, map));
    loop {
        let wait = match reconcile(&secrets, &maps, &kubeconfig).await {
            Ok(next) => next,
            Err(error) => {
                tracing::warn!("{CONFIG_MAP} is not up to date: {error:#}");
                RETRY
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
            // What is missed while a list begins anew is seen by the look that follows it.
            change = changes.next() => if change.is_none() { return },
        }
    }
}

/// Puts things right; says when to look again.
async fn reconcile(secrets: &Api<Secret>, maps: &Api<ConfigMap>, kubeconfig: &str) -> Result<Duration> {
    let params = ListParams::default().fields(&format!("type={TYPE}"));
    let listed = tokio::time::timeout(CALL_TIMEOUT, secrets.list(&params)).await.context("no answer")??;
    let now = Timestamp::now();
    let (mut tokens, mut next) = (Vec::new(), LOOK);
    for secret in &listed.items {
        let Some(token) = Token::of(secret) else { continue };
        let left = token.expires.map(|at| at.duration_since(now));
        match left.map(Duration::try_from) {
            Some(Err(_)) => remove(secrets, secret).await?,
            Some(Ok(left)) => {
                // Rounded up: at its very second it is over.
                next = next.min(left + Duration::from_secs(1));
                tokens.push(token);
            }
            None => tokens.push(token),
        }
    }
    publish(maps, kubeconfig, &tokens).await?;
    Ok(next)
}

async fn remove(secrets: &Api<Secret>, secret: &Secret) -> Result<()> {
    let name = secret.name_any();
    let preconditions = Preconditions { uid: secret.uid(), resource_version: secret.resource_version() };
    let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
    match tokio::time::timeout(CALL_TIMEOUT, secrets.delete(&name, &params)).await.context("no answer")? {
        Ok(_) => tracing::info!(secret = name, "a bootstrap token has expired"),
        // Gone, or renewed at the last moment.
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

async fn publish(maps: &Api<ConfigMap>, kubeconfig: &str, tokens: &[Token]) -> Result<()> {
    let params = PostParams::default();
    let held = tokio::time::timeout(CALL_TIMEOUT, maps.get_opt(CONFIG_MAP)).await.context("no answer")??;
    let write = async {
        match held {
            None => {
                let data = Some(wanted(kubeconfig, &BTreeMap::new(), tokens));
                let metadata = ObjectMeta { name: Some(CONFIG_MAP.to_owned()), ..ObjectMeta::default() };
                let map = ConfigMap { metadata, data, ..ConfigMap::default() };
                maps.create(&params, &map).await.map(drop)
            }
            Some(mut map) => {
                let data = map.data.take().unwrap_or_default();
                let wanted = wanted(kubeconfig, &data, tokens);
                if wanted == data {
                    return Ok(());
                }
                map.data = Some(wanted);
                maps.replace(CONFIG_MAP, &params, &map).await.map(drop)
            }
        }
    };
    Ok(tokio::time::timeout(CALL_TIMEOUT, write).await.context("no answer")??)
}

/// What `cluster-info` should hold: signatures of the tokens there are, and what somebody else put there.
fn wanted(kubeconfig: &str, held: &BTreeMap<String, String>, tokens: &[Token]) -> BTreeMap<String, String> {
    let others = held.iter().filter(|(key, _)| !key.starts_with(SIGNATURE_PREFIX));
    let mut wanted: BTreeMap<String, String> =
        others.map(|(key, value)| (key.clone(), value.clone())).collect();
    wanted.insert(KUBECONFIG.to_owned(), kubeconfig.to_owned());
    for token in tokens.iter().filter(|token| token.signs) {
        wanted.insert(format!("{SIGNATURE_PREFIX}{}", token.id), token.sign(kubeconfig));
    }
    wanted
}

/// The kubeconfig that is published: where the cluster is, and by which CA it is known; no credentials.
pub fn published(server: &str, ca: &str) -> Result<String> {
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{
            "name": "", "cluster": { "server": server, "certificate-authority-data": STANDARD.encode(ca) },
        }],
        "contexts": [],
        "current-context": "",
        "users": [],
    });
    serde_saphyr::to_string(&config).context("cannot write YAML")
}

// === impl Token ===

impl Token {
    fn of(secret: &Secret) -> Option<Self> {
        let data = secret.data.as_ref()?;
        let text = |key: &str| Some(String::from_utf8(data.get(key)?.0.clone()).ok()?.trim().to_owned());
        // Who cannot be understood is not trusted for ever.
        let expires = text("expiration").map(|text| text.parse().unwrap_or(Timestamp::UNIX_EPOCH));
        let id = text("token-id")?;
        if secret.name_any() != format!("{SECRET_PREFIX}{id}") {
            return None;
        }
        let signs = text("usage-bootstrap-signing").as_deref() == Some("true");
        Some(Self { id, secret: text("token-secret")?, expires, signs })
    }

    /// A detached signature (RFC 7515, appendix F).
    fn sign(&self, content: &str) -> String {
        let header = URL_SAFE_NO_PAD.encode(json!({ "alg": "HS256", "kid": self.id }).to_string());
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.secret.as_bytes());
        let tag = hmac::sign(&key, format!("{header}.{}", URL_SAFE_NO_PAD.encode(content)).as_bytes());
        format!("{header}..{}", URL_SAFE_NO_PAD.encode(tag))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(id: &str, more: &[(&str, &str)]) -> Secret {
        let mut data =
            json!({ "token-id": STANDARD.encode(id), "token-secret": STANDARD.encode("0123456789abcdef") });
        for (key, value) in more {
            data[*key] = STANDARD.encode(value).into();
        }
        let name = format!("{SECRET_PREFIX}{id}");
        serde_json::from_value(json!({ "metadata": { "name": name }, "type": TYPE, "data": data })).unwrap()
    }

    fn token(id: &str) -> Token {
        Token::of(&secret(id, &[("usage-bootstrap-signing", "true")])).unwrap()
    }

    #[test]
    fn cluster_info_is_signed_for_the_tokens_there_are() {
        let held = [("jws-kubeconfig-gone00".to_owned(), "old".to_owned()), ("mine".into(), "kept".into())];
        let silent = Token::of(&secret("silent", &[])).unwrap();
        let found = wanted("content", &held.into(), &[token("abcdef"), silent]);
        let keys: Vec<&str> = found.keys().map(String::as_str).collect();
        assert_eq!(keys, ["jws-kubeconfig-abcdef", "kubeconfig", "mine"]);
        assert_eq!(wanted("content", &found, &[token("abcdef")]), found, "a second look changes nothing");
        let signature = &found["jws-kubeconfig-abcdef"];
        let (header, tag) = signature.split_once("..").unwrap();
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"0123456789abcdef");
        let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode("content"));
        hmac::verify(&key, signed.as_bytes(), &URL_SAFE_NO_PAD.decode(tag).unwrap()).unwrap();
    }

    #[test]
    fn what_cannot_be_understood_has_expired() {
        let of = |more: &[(&str, &str)]| Token::of(&secret("abcdef", more)).unwrap().expires;
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[("expiration", "2026-01-01T00:00:00Z")]), "2026-01-01T00:00:00Z".parse().ok());
        assert_eq!(of(&[("expiration", "soon")]), Some(Timestamp::UNIX_EPOCH));
        let mut other = secret("abcdef", &[]);
        other.metadata.name = Some("bootstrap-token-fedcba".into());
        assert!(Token::of(&other).is_none(), "its name is another token's");
    }

    #[test]
    fn the_published_kubeconfig_has_no_credentials() {
        let text = published("https://192.0.2.1:6443", "ca").unwrap();
        let config: serde_json::Value = serde_saphyr::from_str(&text).unwrap();
        assert_eq!(config["clusters"][0]["cluster"]["server"], "https://192.0.2.1:6443");
        assert_eq!(config["users"], json!([]));
    }
}
