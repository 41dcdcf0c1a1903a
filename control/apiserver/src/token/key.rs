//! The service-account key: P-256, signs with ECDSA over SHA-256.
//!
//! In: PKCS#8. Out: signatures, the public key and its identifier.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::digest::{SHA256, digest};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, UnparsedPublicKey,
};

use super::TokenError;

/// What precedes the point in the SubjectPublicKeyInfo of a P-256 key.
const SPKI_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
/// An uncompressed point: a mark, x, y.
const POINT_BYTES: usize = 1 + 32 + 32;

#[derive(Debug)]
pub struct SigningKey {
    pair: EcdsaKeyPair,
    random: SystemRandom,
    public: VerifyingKey,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifyingKey {
    point: [u8; POINT_BYTES],
    id: String,
}

// === impl SigningKey ===

impl SigningKey {
    /// A fresh key as a PKCS#8 PEM file's text.
    pub fn generate_pem() -> Result<String, TokenError> {
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())
            .map_err(|_| TokenError::Key { reason: "no randomness".into() })?;
        let encoded = STANDARD.encode(document.as_ref());
        let mut pem = String::from("-----BEGIN PRIVATE KEY-----\n");
        for line in encoded.as_bytes().chunks(64) {
            pem.extend(line.iter().map(|byte| char::from(*byte)));
            pem.push('\n');
        }
        pem.push_str("-----END PRIVATE KEY-----\n");
        Ok(pem)
    }

    pub fn from_pem(pem: &str) -> Result<Self, TokenError> {
        let malformed = |reason: &str| TokenError::Key { reason: reason.into() };
        let body: String = pem
            .split_once("-----BEGIN PRIVATE KEY-----")
            .and_then(|(_, rest)| rest.split_once("-----END PRIVATE KEY-----"))
            .map(|(body, _)| body.split_whitespace().collect())
            .ok_or_else(|| malformed("it is no PEM file with a PRIVATE KEY"))?;
        let der = STANDARD.decode(body).map_err(|_| malformed("its PEM is not base64"))?;
        let random = SystemRandom::new();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der, &random)
            .map_err(|error| malformed(&format!("it is no P-256 key: {error}")))?;
        let point =
            pair.public_key().as_ref().try_into().map_err(|_| malformed("its public key is short"))?;
        Ok(Self { pair, random, public: VerifyingKey::from_point(point) })
    }

    pub fn public(&self) -> &VerifyingKey {
        &self.public
    }

    pub(super) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, TokenError> {
        self.pair
            .sign(&self.random, message)
            .map(|signature| signature.as_ref().to_vec())
            .map_err(|_| TokenError::Signing { reason: "no randomness".into() })
    }
}

// === impl VerifyingKey ===

impl VerifyingKey {
    fn from_point(point: [u8; POINT_BYTES]) -> Self {
        let spki = [&SPKI_PREFIX[..], &point[..]].concat();
        Self { point, id: URL_SAFE_NO_PAD.encode(digest(&SHA256, &spki)) }
    }

    /// The key's identifier in token headers and key sets.
    pub fn id(&self) -> &str {
        &self.id
    }

    pub(super) fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &self.point).verify(message, signature).is_ok()
    }

    pub(super) fn json_web_key(&self) -> serde_json::Value {
        let (x, y) = self.point[1..].split_at(32);
        serde_json::json!({
            "use": "sig",
            "kty": "EC",
            "kid": self.id,
            "crv": "P-256",
            "alg": super::jwt::ALGORITHM,
            "x": URL_SAFE_NO_PAD.encode(x),
            "y": URL_SAFE_NO_PAD.encode(y),
        })
    }
}
