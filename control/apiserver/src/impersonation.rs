//! Acting as somebody else: `kubectl --as`.
//!
//! In: the `Impersonate-*` headers of a request, who sends it. Out: whom to act as, or 403 where the sender may not.

use http::{HeaderMap, HeaderName};
use percent_encoding::percent_decode_str;

use crate::authn::{ANONYMOUS_USER, AUTHENTICATED_GROUP, UNAUTHENTICATED_GROUP, UserInfo};
use crate::authz::{self, Attributes};
use crate::registry::Registry;
use crate::status::ApiError;
use crate::token::service_account_groups;

const USER: HeaderName = HeaderName::from_static("impersonate-user");
const GROUP: HeaderName = HeaderName::from_static("impersonate-group");
const UID: HeaderName = HeaderName::from_static("impersonate-uid");
const EXTRA_PREFIX: &str = "impersonate-extra-";
const SERVICE_ACCOUNT_PREFIX: &str = "system:serviceaccount:";
const AUTHENTICATION: &str = "authentication.k8s.io";

/// One thing the sender must have the verb `impersonate` on.
struct Claim<'a> {
    group: &'a str,
    namespace: &'a str,
    resource: &'a str,
    subresource: &'a str,
    name: &'a str,
}

/// The user a request is made as: its sender, unless it asks to be somebody else.
pub(crate) fn effective(
    registry: &Registry,
    sender: UserInfo,
    headers: &HeaderMap,
) -> Result<UserInfo, ApiError> {
    let Some(wanted) = wanted(headers)? else { return Ok(sender) };
    for claim in claims(&wanted) {
        let asked = Attributes {
            verb: "impersonate",
            group: claim.group,
            namespace: claim.namespace,
            resource: claim.resource,
            subresource: claim.subresource,
            name: claim.name,
            ..Attributes::default()
        };
        if authz::allows(registry, &sender, &asked).is_none() {
            let why = authz::denial(&sender, &asked);
            return Err(ApiError::forbidden(claim.group, claim.resource, claim.name, why));
        }
    }
    tracing::debug!(sender = sender.name, user = wanted.name, "impersonation");
    Ok(completed(wanted))
}

/// What the headers ask for; `None` where there are none. A header that is there counts: one that cannot be read is
/// refused, since without it the request would be made by its sender, or by somebody of fewer groups or more.
fn wanted(headers: &HeaderMap) -> Result<Option<UserInfo>, ApiError> {
    let mut wanted = UserInfo {
        name: texts(headers, &USER)?.into_iter().next().unwrap_or_default(),
        uid: texts(headers, &UID)?.into_iter().next().unwrap_or_default(),
        groups: texts(headers, &GROUP)?,
        ..UserInfo::default()
    };
    for name in headers.keys() {
        if let Some(key) = name.as_str().strip_prefix(EXTRA_PREFIX) {
            let key = percent_decode_str(key).decode_utf8().map_err(|_| unreadable(name))?.into_owned();
            wanted.extra.insert(key, texts(headers, name)?);
        }
    }
    if !wanted.name.is_empty() {
        return Ok(Some(wanted));
    }
    if headers.contains_key(&USER) {
        return Err(ApiError::bad_request("the header Impersonate-User names nobody"));
    }
    if wanted.groups.is_empty() && wanted.uid.is_empty() && wanted.extra.is_empty() {
        return Ok(None);
    }
    Err(ApiError::internal("requested groups, a uid or extra values without impersonating a user"))
}

fn texts(headers: &HeaderMap, name: &HeaderName) -> Result<Vec<String>, ApiError> {
    let mut texts = Vec::new();
    for value in headers.get_all(name) {
        let text = std::str::from_utf8(value.as_bytes()).map_err(|_| unreadable(name))?;
        if !text.is_empty() {
            texts.push(text.to_owned());
        }
    }
    Ok(texts)
}

fn unreadable(name: &HeaderName) -> ApiError {
    ApiError::bad_request(format!("the header {name} is not UTF-8"))
}

/// Namespace and name of a service account's user.
fn service_account(user: &str) -> Option<(&str, &str)> {
    user.strip_prefix(SERVICE_ACCOUNT_PREFIX)?.split_once(':')
}

fn claims(wanted: &UserInfo) -> Vec<Claim<'_>> {
    let plain = Claim { group: "", namespace: "", resource: "users", subresource: "", name: &wanted.name };
    let mut claims = vec![match service_account(&wanted.name) {
        Some((namespace, name)) => Claim { namespace, resource: "serviceaccounts", name, ..plain },
        None => plain,
    }];
    let one =
        |group, resource, subresource, name| Claim { group, namespace: "", resource, subresource, name };
    claims.extend(wanted.groups.iter().map(|group| one("", "groups", "", &**group)));
    for (key, values) in &wanted.extra {
        claims.extend(values.iter().map(|value| one(AUTHENTICATION, "userextras", &**key, &**value)));
    }
    if !wanted.uid.is_empty() {
        claims.push(one(AUTHENTICATION, "uids", "", &wanted.uid));
    }
    claims
}

/// With the groups that the user would have had by its own credentials.
fn completed(mut user: UserInfo) -> UserInfo {
    if user.groups.is_empty()
        && let Some((namespace, _)) = service_account(&user.name)
    {
        user.groups = service_account_groups(namespace);
    }
    let known = [AUTHENTICATED_GROUP, UNAUTHENTICATED_GROUP];
    if !known.into_iter().any(|group| user.in_group(group)) {
        let anonymous = user.name == ANONYMOUS_USER;
        user.groups.push(if anonymous { UNAUTHENTICATED_GROUP } else { AUTHENTICATED_GROUP }.to_owned());
    }
    user
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), http::HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn headers_say_whom_to_act_as() {
        assert_eq!(wanted(&headers(&[("accept", "x")])).expect("none"), None);
        let asked = wanted(&headers(&[
            ("impersonate-user", "jane"),
            ("impersonate-group", "a"),
            ("impersonate-group", "b"),
            ("impersonate-uid", "7"),
            ("impersonate-extra-acme.com%2fteam", "red"),
        ]));
        let jane = asked.expect("readable").expect("somebody");
        assert_eq!((&*jane.name, &*jane.uid), ("jane", "7"));
        assert_eq!(jane.groups, ["a", "b"]);
        assert_eq!(jane.extra["acme.com/team"], ["red"]);
        let told: Vec<_> =
            claims(&jane).iter().map(|claim| (claim.resource, claim.subresource, claim.name)).collect();
        assert_eq!(
            told,
            [
                ("users", "", "jane"),
                ("groups", "", "a"),
                ("groups", "", "b"),
                ("userextras", "acme.com/team", "red"),
                ("uids", "", "7")
            ]
        );
        assert_eq!(wanted(&headers(&[("impersonate-group", "a")])).expect_err("nobody").code(), 500);
    }

    #[test]
    fn what_cannot_be_read_is_refused_not_forgotten() {
        let with = |name: &'static str, value: &[u8]| {
            let mut all = headers(&[("impersonate-group", "a")]);
            if name == "impersonate-user" {
                all.clear();
            } else {
                all.insert(USER, http::HeaderValue::from_static("jane"));
            }
            all.append(name, http::HeaderValue::from_bytes(value).expect("a header"));
            wanted(&all)
        };
        let jose = with("impersonate-user", "jos\u{e9}".as_bytes()).expect("readable").expect("somebody");
        assert_eq!(jose.name, "jos\u{e9}");
        let grouped = with("impersonate-group", "caf\u{e9}".as_bytes()).expect("readable").expect("somebody");
        assert_eq!(grouped.groups, ["a", "caf\u{e9}"]);
        for (name, value) in [
            ("impersonate-user", &b"jos\xe9"[..]),
            ("impersonate-user", b""),
            ("impersonate-group", b"\xff"),
            ("impersonate-uid", b"\xff"),
            ("impersonate-extra-a", b"\xff"),
            ("impersonate-extra-%ff", b"a"),
        ] {
            assert_eq!(with(name, value).expect_err("refused").code(), 400, "{name} {value:?}");
        }
    }

    #[test]
    fn groups_are_those_of_own_credentials() {
        let user = |name: &str, groups: &[&str]| UserInfo {
            name: name.to_owned(),
            groups: groups.iter().map(|&group| group.to_owned()).collect(),
            ..UserInfo::default()
        };
        assert_eq!(
            completed(user("system:serviceaccount:x:robot", &[])).groups,
            ["system:serviceaccounts", "system:serviceaccounts:x", "system:authenticated"]
        );
        assert_eq!(completed(user("jane", &["people"])).groups, ["people", "system:authenticated"]);
        assert_eq!(completed(user(ANONYMOUS_USER, &[])).groups, [UNAUTHENTICATED_GROUP]);
        assert_eq!(completed(user("jane", &[UNAUTHENTICATED_GROUP])).groups, [UNAUTHENTICATED_GROUP]);
    }
}
