//! `xebec-control token create`: lets a machine join.
//!
//! In: an administrator's kubeconfig, how long the token is good. Out: the Secret of a bootstrap token, and the one line to
//! run on the machine, on standard output.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::api::PostParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client};
use rand::Rng;
use serde_json::json;
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate};
use xebec_api::wellknown::names;

use crate::bootstrap_tokens::{SECRET_PREFIX, TYPE};
use crate::cli::TokenCreateArgs;
use crate::tls;

const ALPHABET: &[u8] = b"abcdefghijklmnopqrstuvwxyz0123456789";
const ID_LENGTH: usize = 6;
const SECRET_LENGTH: usize = 16;
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

pub fn create(arguments: &TokenCreateArgs) -> Result<()> {
    tls::install_provider();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let line = runtime.block_on(async {
        tokio::time::timeout(CALL_TIMEOUT, line(arguments))
            .await
            .with_context(|| format!("no answer within {CALL_TIMEOUT:?}"))?
    })?;
    println!("{line}");
    Ok(())
}

/// Makes the token; returns the line that uses it.
async fn line(arguments: &TokenCreateArgs) -> Result<String> {
    let why = || format!("--kubeconfig {}", arguments.kubeconfig.display());
    let file = Kubeconfig::read_from(&arguments.kubeconfig).with_context(why)?;
    let config =
        kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.with_context(why)?;
    let server = config.cluster_url.to_string().trim_end_matches('/').to_owned();
    let roots = config.root_cert.clone().unwrap_or_default();
    ensure!(!roots.is_empty(), "{} names no CA: a machine could not tell whom it joins", why());
    let hashes: Vec<String> = roots.iter().map(|der| ca_hash(der)).collect::<Result<_>>()?;
    let client = Client::try_from(config).with_context(why)?;

    let (id, secret) = (random(ID_LENGTH), random(SECRET_LENGTH));
    let secrets: Api<Secret> = Api::namespaced(client, names::KUBE_SYSTEM);
    let object = object(&id, &secret, arguments.ttl, Timestamp::now())?;
    secrets.create(&PostParams::default(), &object).await.context("cannot make the token")?;
    let hashes: String = hashes.iter().map(|hash| format!(" --ca-cert-hash {hash}")).collect();
    Ok(format!("xebec-agent run --server {server} --token {id}.{secret}{hashes}"))
}

fn object(id: &str, secret: &str, ttl: Duration, now: Timestamp) -> Result<Secret> {
    let mut data = json!({
        "token-id": id,
        "token-secret": secret,
        "usage-bootstrap-authentication": "true",
        "usage-bootstrap-signing": "true",
        "description": "Made by `xebec-control token create`.",
    });
    if !ttl.is_zero() {
        let ends = now.checked_add(ttl).context("--ttl is too long")?;
        data["expiration"] = ends.strftime("%Y-%m-%dT%H:%M:%SZ").to_string().into();
    }
    let name = format!("{SECRET_PREFIX}{id}");
    let object = json!({ "metadata": { "name": name }, "type": TYPE, "stringData": data });
    serde_json::from_value(object).context("cannot make the token")
}

fn ca_hash(der: &[u8]) -> Result<String> {
    let (_, ca) = X509Certificate::from_der(der).context("the kubeconfig's CA cannot be read")?;
    let digest: [u8; 32] = Sha256::digest(ca.public_key().raw).into();
    Ok(format!("sha256:{}", digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>()))
}

/// Characters out of the generator for keys.
fn random(length: usize) -> String {
    let mut generator = rand::rng();
    (0..length).map(|_| char::from(ALPHABET[generator.random_range(0..ALPHABET.len())])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_have_the_form_that_is_asked_of_them() {
        let (one, other) = (random(SECRET_LENGTH), random(SECRET_LENGTH));
        assert_ne!(one, other);
        assert!(one.len() == 16 && one.bytes().all(|byte| ALPHABET.contains(&byte)));
    }

    #[test]
    fn a_token_ends_when_it_is_told_to() {
        let now = "2026-01-01T00:00:00.5Z".parse().unwrap();
        let made = object("abcdef", "0123456789abcdef", Duration::from_secs(3600), now).unwrap();
        let data = made.string_data.unwrap();
        assert_eq!(made.metadata.name.as_deref(), Some("bootstrap-token-abcdef"));
        assert_eq!(data["expiration"], "2026-01-01T01:00:00Z");
        assert_eq!(data["usage-bootstrap-signing"], "true");
        let lasting = object("abcdef", "0123456789abcdef", Duration::ZERO, now).unwrap();
        assert!(!lasting.string_data.unwrap().contains_key("expiration"));
        assert!(object("a", "b", Duration::MAX, now).is_err());
    }
}
