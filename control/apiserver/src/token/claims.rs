//! What a token says.
//!
//! In/out: the JSON of its payload.

use serde::{Deserialize, Deserializer, Serialize};

use super::ObjectRef;

/// Field order is the alphabet's, as upstream's tokens have it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Claims {
    #[serde(deserialize_with = "one_or_many", default)]
    pub(super) aud: Vec<String>,
    pub(super) exp: i64,
    #[serde(default)]
    pub(super) iat: i64,
    pub(super) iss: String,
    #[serde(default)]
    pub(super) jti: String,
    #[serde(rename = "kubernetes.io")]
    pub(super) kubernetes: KubernetesClaims,
    #[serde(default)]
    pub(super) nbf: i64,
    pub(super) sub: String,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct KubernetesClaims {
    pub(super) namespace: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) node: Option<Reference>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) pod: Option<Reference>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) secret: Option<Reference>,
    #[serde(rename = "serviceaccount")]
    pub(super) service_account: Reference,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Reference {
    pub(super) name: String,
    #[serde(default)]
    pub(super) uid: String,
}

impl From<&ObjectRef> for Reference {
    fn from(object: &ObjectRef) -> Self {
        Self { name: object.name.clone(), uid: object.uid.clone() }
    }
}

/// JWT allows a lone audience to be a plain string.
fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Audience {
        One(String),
        Many(Vec<String>),
    }
    Ok(match Audience::deserialize(deserializer)? {
        Audience::One(audience) => vec![audience],
        Audience::Many(audiences) => audiences,
    })
}
