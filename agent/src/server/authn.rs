//! Who sends a request to the kubelet API.
//!
//! In: the client certificate of the connection, or a bearer token. Out: a [`User`]; the API server says who a token is
//! of (TokenReview), for a while. Without either nobody is known.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::{HeaderMap, header};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use kube::{Api, Client};
use sha2::{Digest, Sha256};

/// How long an answer is believed, as upstream's default.
const BELIEVED: Duration = Duration::from_secs(120);
const REVIEW_TIMEOUT: Duration = Duration::from_secs(10);
/// Answers kept.
const KEPT: usize = 1024;
/// A longer one is none.
const LONGEST_TOKEN: usize = 64 << 10;

/// Someone who is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct User {
    pub name: String,
    pub uid: String,
    pub groups: Vec<String>,
    pub extra: BTreeMap<String, Vec<String>>,
}

/// Users and when they were told, by their token's digest: memory holds no tokens.
type Known = HashMap<[u8; 32], (Instant, User)>;

/// Asks the API server about tokens.
#[derive(Clone)]
pub struct Authenticator {
    client: Client,
    known: Arc<Mutex<Known>>,
}

/// Why a sender is not known.
#[derive(Debug, thiserror::Error)]
pub enum Unknown {
    #[error("neither a client certificate nor a bearer token")]
    Anonymous,
    #[error("the token is not valid: {0}")]
    Refused(String),
    #[error("the API server cannot be asked about the token: {0}")]
    Unanswered(String),
}

// === impl Authenticator ===

impl Authenticator {
    pub fn new(client: Client) -> Self {
        Self { client, known: Arc::default() }
    }

    /// The sender of a request: by its certificate, else by its token.
    pub async fn user(&self, certificate: Option<&User>, headers: &HeaderMap) -> Result<User, Unknown> {
        if let Some(user) = certificate {
            return Ok(user.clone());
        }
        let token = bearer(headers).ok_or(Unknown::Anonymous)?;
        if token.len() > LONGEST_TOKEN {
            return Err(Unknown::Refused("it is too long".to_owned()));
        }
        let digest: [u8; 32] = Sha256::digest(token).into();
        if let Some(user) = self.believed(&digest) {
            return Ok(user);
        }
        let user = self.review(token).await?;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= KEPT {
            known.retain(|_, (at, _)| at.elapsed() < BELIEVED);
        }
        if known.len() < KEPT {
            known.insert(digest, (Instant::now(), user.clone()));
        }
        Ok(user)
    }

    fn believed(&self, digest: &[u8; 32]) -> Option<User> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(digest).filter(|(at, _)| at.elapsed() < BELIEVED).map(|(_, user)| user.clone())
    }

    async fn review(&self, token: &str) -> Result<User, Unknown> {
        let spec = TokenReviewSpec { token: token.to_owned(), ..TokenReviewSpec::default() };
        let review = TokenReview { spec, ..TokenReview::default() };
        let (api, parameters) =
            (Api::<TokenReview>::all(self.client.clone()), kube::api::PostParams::default());
        let answer = tokio::time::timeout(REVIEW_TIMEOUT, api.create(&parameters, &review))
            .await
            .map_err(|_| Unknown::Unanswered("no answer in time".to_owned()))?
            .map_err(|error| Unknown::Unanswered(error.to_string()))?;
        let status = answer.status.unwrap_or_default();
        match status.user {
            Some(user) if status.authenticated == Some(true) => Ok(User {
                name: user.username.unwrap_or_default(),
                uid: user.uid.unwrap_or_default(),
                groups: user.groups.unwrap_or_default(),
                extra: user.extra.unwrap_or_default(),
            }),
            _ => Err(Unknown::Refused(status.error.unwrap_or_else(|| "nobody has it".to_owned()))),
        }
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    Some(token.trim()).filter(|token| scheme.eq_ignore_ascii_case("bearer") && !token.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_read_from_the_header() {
        let token = |value: &'static str| {
            let headers: HeaderMap = [(header::AUTHORIZATION, value.parse().unwrap())].into_iter().collect();
            bearer(&headers).map(str::to_owned)
        };
        assert_eq!(token("Bearer abc"), Some("abc".into()));
        assert_eq!(token("bearer  abc"), Some("abc".into()));
        for none in ["Basic abc", "Bearer", "Bearer ", "abc"] {
            assert_eq!(token(none), None, "{none}");
        }
        assert_eq!(bearer(&HeaderMap::new()), None);
    }
}
