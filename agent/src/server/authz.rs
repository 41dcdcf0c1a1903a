//! Who may do what with this node's containers.
//!
//! In: a known user, a method and a path. Out: whether, and else why not. Every path stands for a sub-resource of the Node
//! object, which the API server is asked about (SubjectAccessReview), for a while. Administrators
//! are let in without asking, as the API server lets them in; so is the API server where it is one of them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::Method;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::{Api, Client};

use super::authn::User;

/// How long an answer is believed, as upstream's defaults.
const ALLOWED: Duration = Duration::from_secs(300);
const DENIED: Duration = Duration::from_secs(30);
const REVIEW_TIMEOUT: Duration = Duration::from_secs(10);
/// Answers kept.
const KEPT: usize = 4096;
const ADMINISTRATORS: &str = "system:masters";

/// What is asked for: a verb on `nodes/<sub-resource>`. `nodes/proxy` is the older, wider permission that is accepted
/// where a path has a finer one of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Attributes {
    pub verb: &'static str,
    pub subresource: &'static str,
    wider: bool,
}

/// Answers and when they were given, by user, verb and sub-resource.
type Known = HashMap<(User, &'static str, &'static str), (Instant, bool)>;

/// Asks the API server about permissions.
#[derive(Clone)]
pub struct Authorizer {
    client: Client,
    node: String,
    known: Arc<Mutex<Known>>,
}

// === impl Attributes ===

impl Attributes {
    /// By upstream's table, with one difference: to run or to attach is `create`, whatever the method. A WebSocket begins
    /// with a GET, and who may only look must not get a shell by it.
    pub fn of(method: &Method, path: &str) -> Self {
        let verb = match *method {
            Method::POST => "create",
            Method::GET | Method::HEAD | Method::OPTIONS => "get",
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE => "delete",
            _ => "unknown",
        };
        let first = path.trim_start_matches('/').split('/').next().unwrap_or_default();
        let (subresource, wider) = match first {
            "stats" => ("stats", false),
            "metrics" => ("metrics", false),
            "logs" => ("log", false),
            "healthz" => ("healthz", true),
            "pods" | "runningpods" => ("pods", true),
            "configz" => ("configz", true),
            "statusz" => ("statusz", true),
            "exec" | "attach" | "portForward" | "run" => {
                return Self { verb: "create", subresource: "proxy", wider: false };
            }
            _ => ("proxy", false),
        };
        Self { verb, subresource, wider }
    }
}

// === impl Authorizer ===

impl Authorizer {
    pub fn new(client: Client, node: &str) -> Self {
        Self { client, node: node.to_owned(), known: Arc::default() }
    }

    /// # Errors
    /// The sentence for a 403, or why nobody can tell.
    pub async fn check(&self, user: &User, attributes: Attributes) -> Result<(), String> {
        if user.groups.iter().any(|group| group == ADMINISTRATORS) {
            return Ok(());
        }
        let Attributes { verb, subresource, wider } = attributes;
        if self.allows(user, verb, subresource).await? || (wider && self.allows(user, verb, "proxy").await?) {
            return Ok(());
        }
        let User { name, .. } = user;
        Err(format!("Forbidden (user={name}, verb={verb}, resource=nodes, subresource(s)=[{subresource}])"))
    }

    async fn allows(
        &self,
        user: &User,
        verb: &'static str,
        subresource: &'static str,
    ) -> Result<bool, String> {
        let key = (user.clone(), verb, subresource);
        let fresh = |(at, allowed): &(Instant, bool)| at.elapsed() < if *allowed { ALLOWED } else { DENIED };
        {
            let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((_, allowed)) = known.get(&key).filter(|answer| fresh(answer)) {
                return Ok(*allowed);
            }
        }
        let allowed = self.review(user, verb, subresource).await?;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= KEPT {
            known.retain(|_, answer| fresh(answer));
        }
        if known.len() < KEPT {
            known.insert(key, (Instant::now(), allowed));
        }
        Ok(allowed)
    }

    async fn review(&self, user: &User, verb: &str, subresource: &str) -> Result<bool, String> {
        let spec = SubjectAccessReviewSpec {
            user: Some(user.name.clone()),
            uid: (!user.uid.is_empty()).then(|| user.uid.clone()),
            groups: (!user.groups.is_empty()).then(|| user.groups.clone()),
            extra: (!user.extra.is_empty()).then(|| user.extra.clone()),
            resource_attributes: Some(ResourceAttributes {
                verb: Some(verb.to_owned()),
                version: Some("v1".to_owned()),
                resource: Some("nodes".to_owned()),
                subresource: Some(subresource.to_owned()),
                name: Some(self.node.clone()),
                ..ResourceAttributes::default()
            }),
            ..SubjectAccessReviewSpec::default()
        };
        let review = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
        let api = Api::<SubjectAccessReview>::all(self.client.clone());
        let parameters = kube::api::PostParams::default();
        let answer = tokio::time::timeout(REVIEW_TIMEOUT, api.create(&parameters, &review)).await;
        let unanswered = |why: &str| format!("Authorization error (user={}): {why}", user.name);
        match answer {
            Ok(Ok(review)) => Ok(review.status.is_some_and(|status| status.allowed)),
            Ok(Err(error)) => Err(unanswered(&error.to_string())),
            Err(_) => Err(unanswered("no answer in time")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stand_for_subresources_of_the_node() {
        for (method, path, verb, subresource) in [
            ("GET", "/stats/summary", "get", "stats"),
            ("GET", "/metrics/resource", "get", "metrics"),
            ("GET", "/healthz/syncloop", "get", "healthz"),
            ("GET", "/pods", "get", "pods"),
            ("GET", "/runningpods/", "get", "pods"),
            ("GET", "/containerLogs/ns/p/c", "get", "proxy"),
            ("POST", "/run/ns/p/c", "create", "proxy"),
            ("GET", "/unknown", "get", "proxy"),
        ] {
            let found = Attributes::of(&method.parse().unwrap(), path);
            assert_eq!((found.verb, found.subresource), (verb, subresource), "{method} {path}");
        }
    }

    #[test]
    fn who_may_only_get_cannot_run_anything() {
        for path in ["/exec/ns/p/c", "/attach/ns/p/c", "/portForward/ns/p", "/run/ns/p/c"] {
            let found = Attributes::of(&Method::GET, path);
            assert_eq!((found.verb, found.subresource, found.wider), ("create", "proxy", false), "{path}");
        }
    }
}
