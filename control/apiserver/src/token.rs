//! Service-account tokens: signed, bound to objects that must still exist, accepted for named audiences only.
//!
//! In: what to bind, or a token. Out: a token, or the user it stands for. Absent: HTTP; who may ask for a token.

mod claims;
mod jwt;
mod key;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::authn::{AUTHENTICATED_GROUP, UserInfo};
use claims::{Claims, KubernetesClaims, Reference};

pub use key::{SigningKey, VerifyingKey};

/// Shortest life a token may be asked for.
pub const MIN_TOKEN_SECONDS: i64 = 600;
/// Life of a token when the request names none.
pub const DEFAULT_TOKEN_SECONDS: i64 = 3600;
/// Longest life a token may be asked for.
pub const MAX_TOKEN_SECONDS: i64 = 1 << 32;

/// Tokens are passed in headers; no token of ours comes near.
const MAX_TOKEN_BYTES: usize = 64 << 10;
/// Clocks of issuer and verifier may differ by this much.
const LEEWAY_SECONDS: i64 = 60;
/// A bound object that is being deleted keeps its tokens this long.
const DELETION_GRACE_SECONDS: i64 = 60;

const POD_NAME_KEY: &str = "authentication.kubernetes.io/pod-name";
const POD_UID_KEY: &str = "authentication.kubernetes.io/pod-uid";
const NODE_NAME_KEY: &str = "authentication.kubernetes.io/node-name";
const NODE_UID_KEY: &str = "authentication.kubernetes.io/node-uid";
const CREDENTIAL_ID_KEY: &str = "authentication.kubernetes.io/credential-id";

/// A kind of object a token can be bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BoundKind {
    ServiceAccount,
    Pod,
    Secret,
    Node,
}

/// What verification has to know of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoundObject {
    pub uid: String,
    /// `metadata.deletionTimestamp` in seconds since the epoch.
    pub deletion_timestamp: Option<i64>,
}

/// Where verification looks objects up; nodes have the empty namespace.
pub trait BoundObjects: Send + Sync {
    fn find(&self, kind: BoundKind, namespace: &str, name: &str) -> Option<BoundObject>;

    /// The Secret of a bootstrap token.
    fn bootstrap_token(&self, _id: &str) -> Option<serde_json::Value> {
        None
    }
}

/// A name and the uid it had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectRef {
    pub name: String,
    pub uid: String,
}

/// What a token stands for and dies with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenSubject {
    pub namespace: String,
    pub service_account: ObjectRef,
    pub pod: Option<ObjectRef>,
    pub secret: Option<ObjectRef>,
    /// The pod's node for a token bound to a pod, else the node the token is bound to.
    pub node: Option<ObjectRef>,
}

/// A token as the TokenRequest's status tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuedToken {
    pub token: String,
    /// Seconds since the epoch.
    pub expires_at: i64,
    /// For logs: names the token without revealing it.
    pub credential_id: String,
}

/// Whom a token stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedToken {
    pub user: UserInfo,
    /// Those of the accepted audiences that the token names.
    pub audiences: Vec<String>,
}

/// Signs tokens.
#[derive(Debug)]
pub struct TokenIssuer {
    issuer: String,
    key: Arc<SigningKey>,
}

/// Checks tokens.
#[derive(Debug)]
pub struct TokenVerifier {
    issuer: String,
    /// Accepted when the caller names none.
    audiences: Vec<String>,
    keys: Vec<VerifyingKey>,
}

/// Why a token is refused. Told to the log; the client learns "Unauthorized".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("the token is no JWT of ours: {reason}")]
    Malformed { reason: &'static str },
    #[error("the token was issued by {issuer:?}")]
    Issuer { issuer: String },
    #[error("the token's signature does not hold")]
    Signature,
    #[error("service account token has expired")]
    Expired,
    #[error("service account token is not valid yet")]
    NotYetValid,
    #[error("token audiences {found:?} is invalid for the target audiences {wanted:?}")]
    Audience { found: Vec<String>, wanted: Vec<String> },
    #[error("the {kind:?} {namespace}/{name} the token is bound to has been deleted")]
    Gone { kind: BoundKind, namespace: String, name: String },
    #[error("the {kind:?} {namespace}/{name} is another one than the token was bound to")]
    Replaced { kind: BoundKind, namespace: String, name: String },
    #[error("the token cannot be signed: {reason}")]
    Signing { reason: String },
    #[error("the service-account key cannot be read: {reason}")]
    Key { reason: String },
}

/// The issuer of a cluster's tokens, and their default audience.
pub fn issuer_url(cluster_domain: &str) -> String {
    format!("https://kubernetes.default.svc.{cluster_domain}")
}

/// The user name of a service account.
pub fn service_account_user(namespace: &str, name: &str) -> String {
    format!("system:serviceaccount:{namespace}:{name}")
}

/// The groups of a service account.
pub fn service_account_groups(namespace: &str) -> Vec<String> {
    vec![
        "system:serviceaccounts".into(),
        format!("system:serviceaccounts:{namespace}"),
        AUTHENTICATED_GROUP.into(),
    ]
}

/// `/.well-known/openid-configuration`.
pub fn openid_configuration(issuer: &str) -> serde_json::Value {
    serde_json::json!({
        "issuer": issuer,
        "jwks_uri": format!("{issuer}/openid/v1/jwks"),
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": [jwt::ALGORITHM],
    })
}

/// `/openid/v1/jwks`.
pub fn json_web_key_set<'a>(keys: impl IntoIterator<Item = &'a VerifyingKey>) -> serde_json::Value {
    serde_json::json!({ "keys": keys.into_iter().map(VerifyingKey::json_web_key).collect::<Vec<_>>() })
}

// === impl TokenIssuer ===

impl TokenIssuer {
    pub fn new(issuer: impl Into<String>, key: impl Into<Arc<SigningKey>>) -> Self {
        Self { issuer: issuer.into(), key: key.into() }
    }

    /// Signs a token for `audiences` (none: the API server's own) that lives for `seconds`.
    pub fn issue(
        &self,
        subject: &TokenSubject,
        audiences: &[String],
        seconds: i64,
    ) -> Result<IssuedToken, TokenError> {
        self.issue_at(subject, audiences, seconds, unix_now())
    }

    fn issue_at(
        &self,
        subject: &TokenSubject,
        audiences: &[String],
        seconds: i64,
        now: i64,
    ) -> Result<IssuedToken, TokenError> {
        let credential_id = uuid::Uuid::new_v4().to_string();
        let expires_at = now.saturating_add(seconds);
        let audiences = if audiences.is_empty() { vec![self.issuer.clone()] } else { audiences.to_vec() };
        let claims = Claims {
            aud: audiences,
            exp: expires_at,
            iat: now,
            iss: self.issuer.clone(),
            jti: credential_id.clone(),
            kubernetes: KubernetesClaims {
                namespace: subject.namespace.clone(),
                node: subject.node.as_ref().map(Reference::from),
                pod: subject.pod.as_ref().map(Reference::from),
                secret: subject.secret.as_ref().map(Reference::from),
                service_account: Reference::from(&subject.service_account),
            },
            nbf: now,
            sub: service_account_user(&subject.namespace, &subject.service_account.name),
        };
        Ok(IssuedToken { token: jwt::sign(&claims, &self.key)?, expires_at, credential_id })
    }
}

// === impl TokenVerifier ===

impl TokenVerifier {
    /// `keys` are the issuer's public keys, present and former.
    pub fn new(issuer: impl Into<String>, keys: Vec<VerifyingKey>) -> Self {
        let issuer = issuer.into();
        Self { audiences: vec![issuer.clone()], issuer, keys }
    }

    /// Public keys, as the key set lists them.
    pub fn keys(&self) -> &[VerifyingKey] {
        &self.keys
    }

    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The token's user, if the token is for one of `audiences` (none: the API server) and everything it is bound to
    /// is still there.
    pub fn verify(
        &self,
        token: &str,
        audiences: &[String],
        objects: &dyn BoundObjects,
    ) -> Result<VerifiedToken, TokenError> {
        self.verify_at(token, audiences, objects, unix_now())
    }

    fn verify_at(
        &self,
        token: &str,
        audiences: &[String],
        objects: &dyn BoundObjects,
        now: i64,
    ) -> Result<VerifiedToken, TokenError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(TokenError::Malformed { reason: "it is too long" });
        }
        let claims = jwt::verify(token, &self.keys)?;
        if claims.iss != self.issuer {
            return Err(TokenError::Issuer { issuer: claims.iss });
        }
        let wanted = if audiences.is_empty() { &self.audiences } else { audiences };
        let accepted: Vec<_> =
            wanted.iter().filter(|audience| claims.aud.contains(audience)).cloned().collect();
        if accepted.is_empty() {
            return Err(TokenError::Audience { found: claims.aud, wanted: wanted.to_vec() });
        }
        if now > claims.exp.saturating_add(LEEWAY_SECONDS) {
            return Err(TokenError::Expired);
        }
        if now < claims.nbf.saturating_sub(LEEWAY_SECONDS) {
            return Err(TokenError::NotYetValid);
        }
        check_bindings(&claims.kubernetes, objects, now)?;
        Ok(VerifiedToken { user: user_of(claims), audiences: accepted })
    }
}

/// Everything the token names has to be there and to be the one it names.
fn check_bindings(claims: &KubernetesClaims, objects: &dyn BoundObjects, now: i64) -> Result<(), TokenError> {
    let check = |kind, namespace: &str, wanted: &Reference| {
        let (namespace, name) = (namespace.to_owned(), wanted.name.clone());
        let Some(found) = objects.find(kind, &namespace, &name) else {
            return Err(TokenError::Gone { kind, namespace, name });
        };
        if found.uid != wanted.uid {
            return Err(TokenError::Replaced { kind, namespace, name });
        }
        match found.deletion_timestamp {
            Some(at) if now > at.saturating_add(DELETION_GRACE_SECONDS) => {
                Err(TokenError::Gone { kind, namespace, name })
            }
            _ => Ok(()),
        }
    };
    check(BoundKind::ServiceAccount, &claims.namespace, &claims.service_account)?;
    if let Some(secret) = &claims.secret {
        check(BoundKind::Secret, &claims.namespace, secret)?;
    }
    match (&claims.pod, &claims.node) {
        // A pod's node is told for information; the pod is what counts.
        (Some(pod), _) => check(BoundKind::Pod, &claims.namespace, pod),
        (None, Some(node)) => check(BoundKind::Node, "", node),
        (None, None) => Ok(()),
    }
}

fn user_of(claims: Claims) -> UserInfo {
    let KubernetesClaims { namespace, node, pod, service_account, .. } = claims.kubernetes;
    let mut user = UserInfo {
        name: service_account_user(&namespace, &service_account.name),
        uid: service_account.uid,
        groups: service_account_groups(&namespace),
        ..UserInfo::default()
    };
    let mut tell = |key: &str, value: String| user.extra.insert(key.into(), vec![value]);
    if !claims.jti.is_empty() {
        tell(CREDENTIAL_ID_KEY, format!("JTI={}", claims.jti));
    }
    if let Some(pod) = pod {
        tell(POD_NAME_KEY, pod.name);
        tell(POD_UID_KEY, pod.uid);
    }
    if let Some(node) = node {
        tell(NODE_NAME_KEY, node.name);
        tell(NODE_UID_KEY, node.uid);
    }
    user
}

fn unix_now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
