//! Questions about identity and permission: SelfSubjectReview, TokenReview and the access reviews.
//!
//! In: a review to answer. Out: the same with its status. Nothing is stored.

use http::{Request, Response, StatusCode};
use serde_json::{Map, Value, json};

use crate::authn::UserInfo;
use crate::authz::{self, Attributes};
use crate::body::Body;
use crate::bound::StoredObjects;
use crate::dispatch::{self, Call, json_response};
use crate::field_error::FieldError;
use crate::kinds::Resource;
use crate::meta;
use crate::options::WriteOptions;
use crate::registry::{create, input};
use crate::request::RequestInfo;
use crate::status::ApiError;

/// Whether objects of the resource are answered instead of stored.
pub(crate) fn is_review(resource: &Resource) -> bool {
    matches!(&*resource.gvk.group, "authentication.k8s.io" | "authorization.k8s.io")
}

pub(crate) async fn respond(call: &Call<'_>, request: Request<Body>) -> Result<Response<Body>, ApiError> {
    if call.info.verb != "create" || !call.info.name.is_empty() {
        return Err(ApiError::method_not_allowed());
    }
    let options = WriteOptions::parse(call.query, "CreateOptions")?;
    let gvk = &call.served.resource.gvk;
    let body = dispatch::read(request).await?;
    let mut review = input::check(call.cx, gvk, body, options.field_validation)?;
    if let Some(namespace) = call.namespace {
        create::set_namespace(&mut review, Some(namespace))?;
    }
    let status = match &*gvk.kind {
        "SelfSubjectReview" => json!({ "userInfo": user_json(call.cx.user) }),
        "TokenReview" => token_review(call, &review),
        "SelfSubjectRulesReview" => rules_review(call.cx.user),
        "SelfSubjectAccessReview" => access_review(call, &review, call.cx.user)?,
        _ => {
            let user = subject(&review);
            if user.name.is_empty() && user.groups.is_empty() {
                let detail = "at least one of user or group must be specified";
                let error = FieldError::invalid("spec.user", &review["spec"]["user"], detail);
                return Err(ApiError::invalid(gvk, "", &[error]));
            }
            access_review(call, &review, &user)?
        }
    };
    let metadata = meta::metadata_mut(&mut review);
    metadata.insert("creationTimestamp".into(), Value::Null);
    review["status"] = status;
    Ok(json_response(StatusCode::CREATED, &review))
}

fn user_json(user: &UserInfo) -> Value {
    let mut out = Map::new();
    out.insert("username".into(), user.name.as_str().into());
    if !user.uid.is_empty() {
        out.insert("uid".into(), user.uid.as_str().into());
    }
    if !user.groups.is_empty() {
        out.insert("groups".into(), user.groups.clone().into());
    }
    if !user.extra.is_empty() {
        out.insert("extra".into(), json!(user.extra));
    }
    out.into()
}

fn token_review(call: &Call<'_>, review: &Value) -> Value {
    let audiences: Vec<String> = meta::items(review, &["spec", "audiences"])
        .filter_map(Value::as_str)
        .map(ToOwned::to_owned)
        .collect();
    let registry = call.cx.registry;
    let verifier = &registry.config.tokens.verifier;
    let token = meta::text(review, &["spec", "token"]);
    match verifier.verify(token, &audiences, &StoredObjects::new(registry)) {
        Ok(verified) => json!({
            "authenticated": true, "user": user_json(&verified.user), "audiences": verified.audiences,
        }),
        Err(error) => json!({ "user": {}, "error": error.to_string() }),
    }
}

fn subject(review: &Value) -> UserInfo {
    let strings =
        |path: &[&str]| meta::items(review, path).filter_map(Value::as_str).map(ToOwned::to_owned).collect();
    UserInfo {
        name: meta::text(review, &["spec", "user"]).to_owned(),
        uid: meta::text(review, &["spec", "uid"]).to_owned(),
        groups: strings(&["spec", "groups"]),
        ..UserInfo::default()
    }
}

fn access_review(call: &Call<'_>, review: &Value, user: &UserInfo) -> Result<Value, ApiError> {
    let resource = meta::at(review, &["spec", "resourceAttributes"]);
    let path = meta::at(review, &["spec", "nonResourceAttributes"]);
    let info = match (resource, path) {
        (Some(attributes), None) => {
            let text = |field: &str| meta::text(attributes, &[field]).to_owned();
            let namespace = text("namespace");
            RequestInfo {
                is_resource_request: true,
                verb: verb(meta::text(attributes, &["verb"])),
                group: text("group"),
                version: text("version"),
                namespace: (!namespace.is_empty()).then_some(namespace),
                resource: text("resource"),
                subresource: text("subresource"),
                name: text("name"),
                ..RequestInfo::default()
            }
        }
        (None, Some(attributes)) => RequestInfo {
            verb: verb(meta::text(attributes, &["verb"])),
            path: meta::text(attributes, &["path"]).to_owned(),
            ..RequestInfo::default()
        },
        _ => {
            let detail = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
            let error = FieldError::invalid("spec.resourceAttributes", &Value::Null, detail);
            return Err(ApiError::invalid(&call.served.resource.gvk, "", &[error]));
        }
    };
    let selector = meta::text(review, &["spec", "resourceAttributes", "fieldSelector", "rawSelector"]);
    let allowed = authz::is_allowed(user, &Attributes { info: &info, field_selector: selector });
    Ok(if allowed { json!({ "allowed": true }) } else { json!({ "allowed": false }) })
}

/// The verbs rules know; any other word is one that no rule allows.
fn verb(word: &str) -> &'static str {
    const KNOWN: &[&str] = &[
        "get",
        "list",
        "watch",
        "create",
        "update",
        "patch",
        "delete",
        "deletecollection",
        "head",
        "post",
        "put",
        "proxy",
        "impersonate",
        "bind",
        "escalate",
        "approve",
        "sign",
        "use",
        "*",
    ];
    KNOWN.iter().find(|known| **known == word).copied().unwrap_or("unknown")
}

fn rules_review(user: &UserInfo) -> Value {
    if user.in_group("system:masters") {
        return json!({
            "resourceRules": [{ "verbs": ["*"], "apiGroups": ["*"], "resources": ["*"] }],
            "nonResourceRules": [{ "verbs": ["*"], "nonResourceURLs": ["*"] }],
            "incomplete": false,
        });
    }
    json!({
        "resourceRules": [
            {
                "verbs": ["create"], "apiGroups": ["authorization.k8s.io"],
                "resources": ["selfsubjectaccessreviews", "selfsubjectrulesreviews"],
            },
            { "verbs": ["create"], "apiGroups": ["authentication.k8s.io"], "resources": ["selfsubjectreviews"] },
        ],
        "nonResourceRules": [{
            "verbs": ["get"],
            "nonResourceURLs": [
                "/api", "/api/*", "/apis", "/apis/*", "/healthz", "/livez", "/openapi", "/openapi/*", "/readyz",
                "/version", "/version/",
            ],
        }],
        "incomplete": user.node_name().is_some(),
    })
}
