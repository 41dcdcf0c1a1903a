//! The compact JWS form, for one algorithm.
//!
//! In: claims and a key, or a token and keys. Out: a token, or claims that a key vouches for. No other algorithm is
//! read, so none can be confused with this one.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use super::TokenError;
use super::claims::Claims;
use super::key::{SigningKey, VerifyingKey};

pub(super) const ALGORITHM: &str = "ES256";

#[derive(Serialize, Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    kid: String,
}

pub(super) fn sign(claims: &Claims, key: &SigningKey) -> Result<String, TokenError> {
    let failed = |error: serde_json::Error| TokenError::Signing { reason: error.to_string() };
    let header = Header { alg: ALGORITHM.into(), kid: key.public().id().into() };
    let header = serde_json::to_vec(&header).map_err(failed)?;
    let payload = serde_json::to_vec(claims).map_err(failed)?;
    let mut token = URL_SAFE_NO_PAD.encode(header);
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(payload, &mut token);
    let signature = key.sign(token.as_bytes())?;
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(signature, &mut token);
    Ok(token)
}

pub(super) fn verify(token: &str, keys: &[VerifyingKey]) -> Result<Claims, TokenError> {
    let malformed = |reason| TokenError::Malformed { reason };
    let (message, signature) = token.rsplit_once('.').ok_or(malformed("it has no signature"))?;
    let (header, payload) = message.split_once('.').ok_or(malformed("it has no payload"))?;
    let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| malformed("it is not base64url"));

    let header: Header =
        serde_json::from_slice(&decode(header)?).map_err(|_| malformed("its header cannot be read"))?;
    if header.alg != ALGORITHM {
        return Err(malformed("its algorithm is not ES256"));
    }
    let signature = decode(signature)?;
    let vouched = keys
        .iter()
        .filter(|key| header.kid.is_empty() || header.kid == key.id())
        .any(|key| key.verify(message.as_bytes(), &signature));
    if !vouched {
        return Err(TokenError::Signature);
    }
    serde_json::from_slice(&decode(payload)?).map_err(|_| malformed("its claims cannot be read"))
}
