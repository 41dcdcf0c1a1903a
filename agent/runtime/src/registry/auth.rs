//! Answers to a registry's `WWW-Authenticate`: basic credentials or a bearer token.
//!
//! In: the challenge and a credential. Out: the value of an `Authorization` header.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use serde::Deserialize;

use super::{FetchError, answered, read_bounded};
use crate::types::RegistryAuth;

const MAX_TOKEN: u64 = 1 << 20;

/// What a registry asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
}

#[derive(Deserialize)]
struct TokenAnswer {
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    access_token: Option<String>,
}

// === impl Challenge ===

impl Challenge {
    /// The strongest challenge that is understood.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let headers = headers.get_all(WWW_AUTHENTICATE);
        let challenges: Vec<Self> =
            headers.iter().filter_map(|value| Self::parse(value.to_str().ok()?)).collect();
        let bearer = challenges.iter().position(|challenge| *challenge != Self::Basic);
        challenges.into_iter().nth(bearer.unwrap_or(0))
    }

    fn parse(header: &str) -> Option<Self> {
        let (scheme, rest) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Self::Basic);
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let (mut realm, mut service, mut scope) = (None, None, None);
        let mut rest = rest.trim_start();
        while let Some((key, after)) = rest.split_once('=') {
            let (value, after) = match after.strip_prefix('"') {
                Some(quoted) => quoted.split_once('"')?,
                None => {
                    let end = after.find(',').unwrap_or(after.len());
                    after.split_at(end)
                }
            };
            match key.trim().to_ascii_lowercase().as_str() {
                "realm" => realm = Some(value.to_owned()),
                "service" => service = Some(value.to_owned()),
                "scope" => scope = Some(value.to_owned()),
                _ => {}
            }
            rest = after.trim_start_matches([',', ' ']);
        }
        realm.map(|realm| Self::Bearer { realm, service, scope })
    }
}

/// The header that answers a challenge; `None` when there is nothing to answer with.
pub(super) async fn authorize(
    client: &reqwest::Client,
    challenge: &Challenge,
    repository: &str,
    credential: Option<&RegistryAuth>,
) -> Result<Option<HeaderValue>, FetchError> {
    let Challenge::Bearer { realm, service, scope } = challenge else {
        return credential.map(basic).transpose();
    };
    let scope = scope.clone().unwrap_or_else(|| format!("repository:{repository}:pull"));
    let mut query = vec![("scope", scope)];
    query.extend(service.clone().map(|service| ("service", service)));
    let mut request = client.get(realm).query(&query);
    if let Some(credential) = credential {
        request = request.basic_auth(&credential.username, Some(&credential.password));
    }
    let response = request.send().await.map_err(|e| FetchError::of_transport(&e))?;
    let body = match answered(response).await {
        Ok(response) => read_bounded(response, MAX_TOKEN).await?,
        // A token service that does not know the name refuses the credential, not the image.
        Err(FetchError::NotFound | FetchError::Refused(_)) => {
            return Err(FetchError::Unauthorized(format!("{realm} gave no token")));
        }
        Err(error) => return Err(error),
    };
    let answer: TokenAnswer = serde_json::from_slice(&body)
        .map_err(|e| FetchError::Unauthorized(format!("{realm} gave no token: {e}")))?;
    let token = answer.token.or(answer.access_token).unwrap_or_default();
    sensitive(&format!("Bearer {token}")).map(Some)
}

fn basic(credential: &RegistryAuth) -> Result<HeaderValue, FetchError> {
    let pair = format!("{}:{}", credential.username, credential.password);
    sensitive(&format!("Basic {}", STANDARD.encode(pair)))
}

fn sensitive(value: &str) -> Result<HeaderValue, FetchError> {
    let mut value = HeaderValue::from_str(value)
        .map_err(|_| FetchError::Unauthorized("the registry's token cannot be sent".into()))?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_parsed() {
        let bearer = Challenge::parse(
            r#"Bearer realm="https://auth.example/token",service="registry.example",scope="repository:a/b:pull,push""#,
        );
        assert_eq!(
            bearer,
            Some(Challenge::Bearer {
                realm: "https://auth.example/token".into(),
                service: Some("registry.example".into()),
                scope: Some("repository:a/b:pull,push".into()),
            })
        );
        assert_eq!(Challenge::parse(r#"basic realm="x""#), Some(Challenge::Basic));
        assert_eq!(Challenge::parse("Basic"), Some(Challenge::Basic));
        assert_eq!(Challenge::parse("Negotiate"), None);
        assert_eq!(Challenge::parse(r#"Bearer service="x""#), None);
        assert_eq!(Challenge::parse(r#"Bearer realm="unclosed"#), None);
    }

    #[test]
    fn basic_credentials_are_encoded_and_kept_out_of_logs() {
        let header = basic(&RegistryAuth { username: "u".into(), password: "p".into() }).unwrap();
        assert_eq!(header.to_str().unwrap(), "Basic dTpw");
        assert!(header.is_sensitive());
    }
}
