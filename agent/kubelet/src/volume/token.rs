//! Bound service account tokens of projected volumes.
//!
//! In: pod and audience. Out: tokens by TokenRequest, kept until four fifths of their life are over; an old one that
//! still holds stays in use while the API cannot give a new one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount, Volume};
use kube::api::PostParams;
use kube::{Api, Client};

use super::payload::{self, Payload, Token, TokenKey};
use super::{VolumeError, VolumeInput};
use crate::pod::{self, PodUid};
use crate::resources::NodeCapacity;

const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Next try when a token could not be renewed.
const RETRY: SignedDuration = SignedDuration::from_secs(60);
/// Tokens are renewed daily at the latest.
const MAX_AGE: SignedDuration = SignedDuration::from_hours(24);

#[derive(Clone)]
pub struct TokenSource {
    client: Client,
    cache: Arc<Mutex<HashMap<(PodUid, TokenKey), Held>>>,
}

#[derive(Clone)]
struct Held {
    value: String,
    refresh_at: Timestamp,
    expires_at: Timestamp,
}

impl TokenSource {
    pub fn new(client: Client) -> Self {
        Self { client, cache: Arc::default() }
    }

    fn cached(&self, key: &(PodUid, TokenKey)) -> Option<Held> {
        self.cache.lock().unwrap_or_else(std::sync::PoisonError::into_inner).get(key).cloned()
    }

    fn keep(&self, key: (PodUid, TokenKey), held: Held, now: Timestamp) {
        let mut cache = self.cache.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        cache.retain(|_, held| held.expires_at > now);
        cache.insert(key, held);
    }

    /// Content of a volume, with the tokens it asks for.
    pub(super) async fn payload(
        &self,
        volume: &Volume,
        input: &VolumeInput<'_>,
        node: NodeCapacity,
    ) -> Result<Option<Payload>, VolumeError> {
        let mut tokens: HashMap<TokenKey, Token> = HashMap::new();
        for key in volume.projected.iter().flat_map(payload::token_keys) {
            let token = self.token(input.pod, &key).await.map_err(|reason| VolumeError::Content {
                volume: volume.name.clone(),
                reason: format!("failed to fetch token: {reason}"),
            })?;
            tokens.insert(key, token);
        }
        payload::of_volume(volume, input, node, |key| tokens.get(key).cloned())
    }

    async fn token(&self, pod: &Pod, key: &TokenKey) -> Result<Token, String> {
        let now = Timestamp::now();
        let cache_key = (pod::uid(pod), key.clone());
        let held = self.cached(&cache_key);
        if let Some(held) = held.as_ref().filter(|h| h.refresh_at > now) {
            return Ok((held.value.clone(), held.refresh_at));
        }
        match self.request(pod, key, now).await {
            Ok(new) => {
                let token = (new.value.clone(), new.refresh_at);
                self.keep(cache_key, new, now);
                Ok(token)
            }
            Err(reason) => match held.filter(|h| h.expires_at > now) {
                Some(held) => {
                    tracing::warn!(pod = %pod::PodRef::of(pod), reason, "token not renewed; the old one is kept");
                    Ok((held.value, now.saturating_add(RETRY).unwrap_or(now)))
                }
                None => Err(reason),
            },
        }
    }

    async fn request(&self, pod: &Pod, key: &TokenKey, now: Timestamp) -> Result<Held, String> {
        let account = pod.spec.as_ref().and_then(|s| s.service_account_name.as_deref()).unwrap_or("default");
        let body = TokenRequest {
            spec: Some(TokenRequestSpec {
                audiences: Some(key.audience.iter().cloned().collect()),
                expiration_seconds: Some(key.expiration_seconds),
                bound_object_ref: Some(BoundObjectReference {
                    api_version: Some("v1".to_owned()),
                    kind: Some("Pod".to_owned()),
                    name: pod.metadata.name.clone(),
                    uid: pod.metadata.uid.clone(),
                }),
                ..TokenRequestSpec::default()
            }),
            ..TokenRequest::default()
        };
        let api = Api::<ServiceAccount>::namespaced(self.client.clone(), pod::namespace(pod));
        let params = PostParams::default();
        let answer = api.create_token_request(account, &params, &body);
        let status = tokio::time::timeout(CALL_TIMEOUT, answer)
            .await
            .map_err(|_| "the API server did not answer in time".to_owned())?
            .map_err(|e| e.to_string())?
            .status
            .ok_or_else(|| "the answer has no token".to_owned())?;
        let value = status.token.ok_or_else(|| "the answer has no token".to_owned())?;
        let expires_at = match status.expiration_timestamp {
            Some(time) => time.0,
            None => now
                .checked_add(SignedDuration::from_secs(key.expiration_seconds))
                .map_err(|e| e.to_string())?,
        };
        Ok(Held { value, refresh_at: refresh_at(now, expires_at), expires_at })
    }
}

/// Four fifths of the life, a day at most.
fn refresh_at(now: Timestamp, expires_at: Timestamp) -> Timestamp {
    let life = expires_at.duration_since(now);
    let age = (life * 4 / 5).min(MAX_AGE).max(SignedDuration::from_secs(1));
    now.saturating_add(age).unwrap_or(expires_at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_renewed_after_four_fifths_of_their_life_or_a_day() {
        let now = Timestamp::from_second(1_000_000).unwrap();
        let after = |hours: i64| {
            let expires = now.checked_add(SignedDuration::from_hours(hours)).unwrap();
            refresh_at(now, expires).duration_since(now).as_mins()
        };
        assert_eq!(after(1), 48);
        assert_eq!(after(48), 24 * 60);
    }
}
