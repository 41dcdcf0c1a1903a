//! Learning whom to trust from a server that is not trusted yet, as kubeadm does.
//!
//! In: the ConfigMap `cluster-info` of `kube-public`, the token, the CA's hash. Out: the cluster's CA, which both vouch
//! for: a signature made with the token's secret, and the digest of its public key.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::hmac;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde_json::Value;

use super::token::{CaHash, Token};

const KUBECONFIG: &str = "kubeconfig";
const SIGNATURE_PREFIX: &str = "jws-kubeconfig-";

/// The CA's certificates, PEM, out of the ConfigMap's data.
///
/// # Errors
/// Says what does not vouch for it.
pub fn trusted_ca(data: &BTreeMap<String, String>, token: &Token, hashes: &[CaHash]) -> Result<String> {
    let kubeconfig = data.get(KUBECONFIG).context("cluster-info holds no kubeconfig")?;
    let signature = data
        .get(&format!("{SIGNATURE_PREFIX}{}", token.id))
        .with_context(|| format!("cluster-info is not signed for token {}: is it valid?", token.id))?;
    verify(kubeconfig, signature, token)?;
    let ca = ca_of(kubeconfig)?;
    let certificates: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(ca.as_bytes())
        .collect::<Result<_, _>>()
        .context("the CA in cluster-info cannot be read")?;
    ensure!(!certificates.is_empty(), "cluster-info names no CA");
    if !hashes.is_empty() && !certificates.iter().any(|ca| hashes.iter().any(|hash| hash.is_of(ca))) {
        bail!(
            "the CA in cluster-info is not the one of --ca-cert-hash: this is another cluster, or no honest one"
        );
    }
    Ok(ca)
}

/// Checks a detached signature (RFC 7515, appendix F) with the token's secret.
fn verify(content: &str, signature: &str, token: &Token) -> Result<()> {
    let (header, rest) = signature.split_once('.').context("the signature of cluster-info has no header")?;
    let tag = rest.strip_prefix('.').context("the signature of cluster-info is not detached")?;
    let read =
        |part: &str| URL_SAFE_NO_PAD.decode(part).context("the signature of cluster-info is no base64");
    let said: Value = serde_json::from_slice(&read(header)?)
        .context("the header of cluster-info's signature is no JSON")?;
    ensure!(said["alg"] == "HS256", "cluster-info is signed by {}, not by HS256", said["alg"]);
    ensure!(said["kid"] == token.id.as_str(), "cluster-info is signed for another token");
    let key = hmac::Key::new(hmac::HMAC_SHA256, token.secret().as_bytes());
    let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(content));
    hmac::verify(&key, signed.as_bytes(), &read(tag)?).map_err(|_| {
        anyhow::anyhow!(
            "cluster-info is not signed with this token: its secret is wrong, or somebody changed it"
        )
    })
}

fn ca_of(kubeconfig: &str) -> Result<String> {
    let config: Value =
        serde_saphyr::from_str(kubeconfig).context("the kubeconfig in cluster-info is no YAML")?;
    let encoded = config["clusters"][0]["cluster"]["certificate-authority-data"].as_str();
    let decoded =
        STANDARD.decode(encoded.context("cluster-info names no CA")?).context("the CA is no base64")?;
    String::from_utf8(decoded).context("the CA in cluster-info is no PEM")
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "abcdef.0123456789abcdef";

    fn signed(content: &str, token: &Token, algorithm: &str) -> String {
        let header = serde_json::json!({ "alg": algorithm, "kid": token.id }).to_string();
        let header = URL_SAFE_NO_PAD.encode(header);
        let key = hmac::Key::new(hmac::HMAC_SHA256, token.secret().as_bytes());
        let tag = hmac::sign(&key, format!("{header}.{}", URL_SAFE_NO_PAD.encode(content)).as_bytes());
        format!("{header}..{}", URL_SAFE_NO_PAD.encode(tag.as_ref()))
    }

    struct Fixture {
        ca: String,
        hash: CaHash,
        data: BTreeMap<String, String>,
        token: Token,
    }

    fn fixture() -> Fixture {
        let token: Token = TOKEN.parse().unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let ca = rcgen::CertificateParams::default().self_signed(&key).unwrap().pem();
        let spki = rcgen::PublicKeyData::subject_public_key_info(&key);
        let digest = ring::digest::digest(&ring::digest::SHA256, &spki);
        let hex: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        let kubeconfig = format!(
            "clusters:\n- name: ''\n  cluster: {{server: 'https://192.0.2.1:6443', certificate-authority-data: {}}}\n",
            STANDARD.encode(&ca)
        );
        let data = BTreeMap::from([
            ("jws-kubeconfig-abcdef".to_owned(), signed(&kubeconfig, &token, "HS256")),
            ("kubeconfig".to_owned(), kubeconfig),
        ]);
        Fixture { ca, hash: format!("sha256:{hex}").parse().unwrap(), data, token }
    }

    #[test]
    fn the_ca_is_taken_when_token_and_hash_vouch_for_it() {
        let Fixture { ca, hash, data, token } = fixture();
        assert_eq!(trusted_ca(&data, &token, &[hash]).unwrap(), ca);
        assert_eq!(trusted_ca(&data, &token, &[]).unwrap(), ca);
    }

    #[test]
    fn whoever_stands_in_between_is_found_out() {
        let Fixture { hash, data, token, .. } = fixture();
        let refused = |data: &BTreeMap<String, String>, hash: CaHash| {
            trusted_ca(data, &token, &[hash]).unwrap_err().to_string()
        };
        // Another CA under the same signature.
        let mut changed = data.clone();
        changed.insert("kubeconfig".into(), fixture().data["kubeconfig"].clone());
        assert!(refused(&changed, hash).contains("not signed with this token"));
        // Somebody who knows the token, but has another CA.
        let other = fixture();
        assert!(refused(&other.data, hash).contains("not the one of --ca-cert-hash"));
        // Signed for others only, by other means, or not at all.
        let mut unsigned = data.clone();
        let kept = unsigned.remove("jws-kubeconfig-abcdef").unwrap();
        assert!(refused(&unsigned, hash).contains("not signed for token abcdef"));
        let mut none = data.clone();
        none.insert("jws-kubeconfig-abcdef".into(), signed(&data["kubeconfig"], &token, "none"));
        assert!(refused(&none, hash).contains("not by HS256"));
        let mut attached = data.clone();
        attached.insert("jws-kubeconfig-abcdef".into(), kept.replacen("..", ".e30.", 1));
        assert!(refused(&attached, hash).contains("not detached"));
        assert!(refused(&BTreeMap::new(), hash).contains("holds no kubeconfig"));
    }
}
