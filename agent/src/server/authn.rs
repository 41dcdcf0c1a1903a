//! Who sends a request to the kubelet API.
//!
//! In: the client certificate of the connection, or a bearer token. Out: a [`User`]; the API server says who a token is
//! of (TokenReview), for a while, also where it is nobody's. Without either nobody is known.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::{HeaderMap, header};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use kube::{Api, Client};
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// How long an answer is believed, as upstream's default.
const BELIEVED: Duration = Duration::from_secs(120);
/// How long a refusal is believed.
const DISBELIEVED: Duration = Duration::from_secs(10);
/// Reviews at a time: strangers with random tokens must not keep the API server busy.
const REVIEWS: usize = 16;
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

type TokenDigest = [u8; 32];

/// What was told about tokens and when, by their digest: memory holds no tokens.
#[derive(Default)]
struct Told {
    known: HashMap<TokenDigest, (Instant, User)>,
    refused: HashMap<TokenDigest, (Instant, String)>,
}

/// Asks the API server about tokens.
#[derive(Clone)]
pub struct Authenticator {
    client: Client,
    told: Arc<Mutex<Told>>,
    reviews: Arc<Semaphore>,
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
        Self { client, told: Arc::default(), reviews: Arc::new(Semaphore::new(REVIEWS)) }
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
        let digest: TokenDigest = Sha256::digest(token).into();
        if let Some(answer) = self.told().answer(&digest) {
            return answer;
        }
        let turn = tokio::time::timeout(REVIEW_TIMEOUT, self.reviews.acquire()).await;
        let _turn = turn.map_err(|_| Unknown::Unanswered("too many are asked about".to_owned()))?;
        // Another request with the same token may have had its turn meanwhile.
        if let Some(answer) = self.told().answer(&digest) {
            return answer;
        }
        let answer = self.review(token).await;
        self.told().note(digest, &answer);
        answer
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
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

// === impl Told ===

impl Told {
    fn answer(&self, digest: &TokenDigest) -> Option<Result<User, Unknown>> {
        let known = self.known.get(digest).filter(|(at, _)| at.elapsed() < BELIEVED);
        let refused = self.refused.get(digest).filter(|(at, _)| at.elapsed() < DISBELIEVED);
        let refused = refused.map(|(_, why)| Err(Unknown::Refused(why.clone())));
        known.map(|(_, user)| Ok(user.clone())).or(refused)
    }

    fn note(&mut self, digest: TokenDigest, answer: &Result<User, Unknown>) {
        match answer {
            Ok(user) => keep(&mut self.known, BELIEVED, digest, user.clone()),
            Err(Unknown::Refused(why)) => keep(&mut self.refused, DISBELIEVED, digest, why.clone()),
            // To be asked again.
            Err(Unknown::Anonymous | Unknown::Unanswered(_)) => {}
        }
    }
}

fn keep<V>(
    answers: &mut HashMap<TokenDigest, (Instant, V)>,
    fresh: Duration,
    digest: TokenDigest,
    answer: V,
) {
    if answers.len() >= KEPT {
        answers.retain(|_, (at, _)| at.elapsed() < fresh);
    }
    if answers.len() < KEPT {
        answers.insert(digest, (Instant::now(), answer));
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

    #[tokio::test(start_paused = true)]
    async fn a_refusal_is_remembered_for_a_moment() {
        let mut told = Told::default();
        let (good, bad) = ([1; 32], [2; 32]);
        told.note(good, &Ok(User { name: "u".into(), ..User::default() }));
        told.note(bad, &Err(Unknown::Refused("nobody has it".into())));
        told.note([3; 32], &Err(Unknown::Unanswered("later".into())));
        assert!(matches!(told.answer(&good), Some(Ok(user)) if user.name == "u"));
        assert!(matches!(told.answer(&bad), Some(Err(Unknown::Refused(_)))), "it is not asked about again");
        assert!(told.answer(&[3; 32]).is_none(), "who could not be asked is asked again");
        tokio::time::advance(DISBELIEVED).await;
        assert!(told.answer(&bad).is_none());
        assert!(told.answer(&good).is_some());
        for i in 0..u32::try_from(2 * KEPT).unwrap() {
            let mut digest = [9; 32];
            digest[..4].copy_from_slice(&i.to_be_bytes());
            told.note(digest, &Err(Unknown::Refused(String::new())));
        }
        assert!(
            told.refused.len() <= KEPT && told.answer(&good).is_some(),
            "nor do strangers displace others"
        );
    }

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
