//! Who a request is from.
//!
//! In: the connection's client certificate, the request's bearer token. Out: a [`UserInfo`], or the reason for a 401.
//! Absent: what the user may do.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL};
use http::{Extensions, HeaderMap};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::token::{BoundObjects, TokenError, TokenVerifier};

pub(crate) mod bootstrap_token;

pub const ANONYMOUS_USER: &str = "system:anonymous";
pub const AUTHENTICATED_GROUP: &str = "system:authenticated";
pub const UNAUTHENTICATED_GROUP: &str = "system:unauthenticated";
pub const MASTERS_GROUP: &str = "system:masters";
pub const NODES_GROUP: &str = "system:nodes";
pub const NODE_USER_PREFIX: &str = "system:node:";

/// How browsers pass a token: they cannot set headers on a WebSocket.
const WEBSOCKET_TOKEN_PREFIX: &str = "base64url.bearer.authorization.k8s.io.";

/// An authenticated (or anonymous) user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserInfo {
    pub name: String,
    pub uid: String,
    pub groups: Vec<String>,
    pub extra: BTreeMap<String, Vec<String>>,
}

/// The other end of a connection: a request extension that the accept loop sets. What comes from the network cannot
/// set extensions.
#[derive(Clone, Debug)]
pub struct Peer {
    pub address: SocketAddr,
    /// The subject of a certificate that the cluster CA signed.
    pub certificate: Option<UserInfo>,
}

/// A request extension of in-process clients: the request is this user's.
#[derive(Clone, Debug)]
pub struct InProcess(pub UserInfo);

/// Why a request is answered with 401.
#[derive(Debug, thiserror::Error)]
pub enum AuthnError {
    #[error("the client certificate cannot be read: {reason}")]
    Certificate { reason: String },
    #[error("the client certificate names no user: its subject has no common name")]
    NoCommonName,
    #[error("the Authorization header is not \"Bearer\" and a token")]
    Malformed,
    #[error("no bootstrap token with this id and secret is good")]
    Bootstrap,
    #[error(transparent)]
    Token(#[from] TokenError),
}

// === impl UserInfo ===

impl UserInfo {
    /// A user with the groups given and, as every authenticated user, `system:authenticated`.
    pub fn authenticated(
        name: impl Into<String>,
        groups: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        let mut groups: Vec<String> = groups.into_iter().map(Into::into).collect();
        if !groups.iter().any(|group| group == AUTHENTICATED_GROUP) {
            groups.push(AUTHENTICATED_GROUP.into());
        }
        Self { name: name.into(), groups, ..Self::default() }
    }

    /// Who brings no credential.
    pub fn anonymous() -> Self {
        Self { name: ANONYMOUS_USER.into(), groups: vec![UNAUTHENTICATED_GROUP.into()], ..Self::default() }
    }

    pub fn in_group(&self, group: &str) -> bool {
        self.groups.iter().any(|own| own == group)
    }

    /// The node's name, when the user is a node.
    pub fn node_name(&self) -> Option<&str> {
        self.name.strip_prefix(NODE_USER_PREFIX).filter(|_| self.in_group(NODES_GROUP))
    }

    /// The subject of a client certificate whose chain was verified: the common name is the user, organizations are
    /// the groups.
    pub fn from_certificate(der: &[u8]) -> Result<Self, AuthnError> {
        let (_, certificate) = X509Certificate::from_der(der)
            .map_err(|error| AuthnError::Certificate { reason: error.to_string() })?;
        let subject = certificate.subject();
        let name = subject
            .iter_common_name()
            .find_map(|name| name.as_str().ok())
            .filter(|name| !name.is_empty())
            .ok_or(AuthnError::NoCommonName)?;
        let groups = subject.iter_organization().filter_map(|group| group.as_str().ok());
        Ok(Self::authenticated(name, groups))
    }
}

/// Finds the user of a request: in-process identity, then certificate, then token; else anonymous.
pub fn authenticate(
    headers: &HeaderMap,
    extensions: &Extensions,
    tokens: &TokenVerifier,
    objects: &dyn BoundObjects,
) -> Result<UserInfo, AuthnError> {
    if let Some(InProcess(user)) = extensions.get() {
        return Ok(user.clone());
    }
    if let Some(Peer { certificate: Some(user), .. }) = extensions.get() {
        return Ok(user.clone());
    }
    match bearer_token(headers)? {
        Some(token) => match bootstrap_token::parse(&token) {
            Some((id, secret)) => objects
                .bootstrap_token(id)
                .and_then(|stored| bootstrap_token::user(id, secret, &stored, jiff::Timestamp::now()))
                .ok_or(AuthnError::Bootstrap),
            None => Ok(tokens.verify(&token, &[], objects)?.user),
        },
        None => Ok(UserInfo::anonymous()),
    }
}

/// The request's bearer token, from where clients and browsers put it.
fn bearer_token(headers: &HeaderMap) -> Result<Option<String>, AuthnError> {
    if let Some(header) = headers.get(AUTHORIZATION) {
        let header = header.to_str().map_err(|_| AuthnError::Malformed)?;
        let (scheme, token) = header.trim().split_once(' ').ok_or(AuthnError::Malformed)?;
        let token = token.trim();
        if !scheme.eq_ignore_ascii_case("bearer") || token.is_empty() {
            return Err(AuthnError::Malformed);
        }
        return Ok(Some(token.to_owned()));
    }
    let protocols = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    let Some(encoded) = protocols
        .flat_map(|value| value.split(','))
        .find_map(|protocol| protocol.trim().strip_prefix(WEBSOCKET_TOKEN_PREFIX))
    else {
        return Ok(None);
    };
    let token = URL_SAFE_NO_PAD.decode(encoded).map_err(|_| AuthnError::Malformed)?;
    String::from_utf8(token).map(Some).map_err(|_| AuthnError::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: http::HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, value.parse().unwrap())])
    }

    #[test]
    fn token_is_found_where_clients_put_it() {
        let token =
            |name, value: &str| bearer_token(&headers(name, value)).map_err(|error| error.to_string());
        assert_eq!(token(AUTHORIZATION, "Bearer abc"), Ok(Some("abc".into())));
        assert_eq!(token(AUTHORIZATION, "bearer  abc "), Ok(Some("abc".into())));
        let protocols = "v5.channel.k8s.io, base64url.bearer.authorization.k8s.io.YWJj";
        assert_eq!(token(SEC_WEBSOCKET_PROTOCOL, protocols), Ok(Some("abc".into())));
        assert_eq!(token(SEC_WEBSOCKET_PROTOCOL, "v5.channel.k8s.io"), Ok(None));
        for malformed in ["Basic abc", "Bearer", "Bearer ", ""] {
            assert!(token(AUTHORIZATION, malformed).is_err(), "{malformed:?}");
        }
    }

    #[test]
    fn node_is_a_node_only_in_its_group() {
        assert_eq!(UserInfo::authenticated("system:node:n1", [NODES_GROUP]).node_name(), Some("n1"));
        assert_eq!(UserInfo::authenticated("system:node:n1", ["people"]).node_name(), None);
    }

    #[test]
    fn every_authenticated_user_is_in_the_group_once() {
        let user = UserInfo::authenticated("jane", [AUTHENTICATED_GROUP, "people"]);
        assert_eq!(user.groups, [AUTHENTICATED_GROUP, "people"]);
    }

    #[test]
    fn rubbish_is_no_certificate() {
        assert!(matches!(UserInfo::from_certificate(b"rubbish"), Err(AuthnError::Certificate { .. })));
    }
}
