//! Questions about identity and permission: SelfSubjectReview, TokenReview and the access reviews.
//!
//! In: a review to answer. Out: the same with its status. Nothing is stored.

use http::{Request, Response, StatusCode};
use serde_json::{Map, Value, json};

use crate::authn::UserInfo;
use crate::authz::rule::Rule;
use crate::authz::{self, Attributes};
use crate::body::Body;
use crate::bound::StoredObjects;
use crate::dispatch::{self, Call, json_response};
use crate::field_error::FieldError;
use crate::kinds::Resource;
use crate::meta;
use crate::options::WriteOptions;
use crate::registry::{create, input};
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
        "SelfSubjectRulesReview" => rules_review(call, &review)?,
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
    let extra =
        meta::at(review, &["spec", "extra"]).and_then(|extra| serde_json::from_value(extra.clone()).ok());
    UserInfo {
        name: meta::text(review, &["spec", "user"]).to_owned(),
        uid: meta::text(review, &["spec", "uid"]).to_owned(),
        groups: strings(&["spec", "groups"]),
        extra: extra.unwrap_or_default(),
    }
}

fn access_review(call: &Call<'_>, review: &Value, user: &UserInfo) -> Result<Value, ApiError> {
    let resource = meta::at(review, &["spec", "resourceAttributes"]);
    let path = meta::at(review, &["spec", "nonResourceAttributes"]);
    let refuse = |field: &str, found: &Value, detail: &str| {
        let error = FieldError::invalid(field, found, detail);
        Err(ApiError::invalid(&call.served.resource.gvk, "", &[error]))
    };
    let asked = match (resource, path) {
        (Some(attributes), None) => {
            let text = |field: &str| meta::text(attributes, &[field]);
            Attributes {
                verb: text("verb"),
                group: text("group"),
                namespace: text("namespace"),
                resource: text("resource"),
                subresource: text("subresource"),
                name: text("name"),
                path: None,
                field_selector: meta::text(attributes, &["fieldSelector", "rawSelector"]),
            }
        }
        (None, Some(attributes)) => {
            let text = |field: &str| meta::text(attributes, &[field]);
            Attributes { verb: text("verb"), path: Some(text("path")), ..Attributes::default() }
        }
        _ => {
            let detail = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
            return refuse("spec.resourceAttributes", &Value::Null, detail);
        }
    };
    if let Some(namespace) = call.namespace.filter(|namespace| *namespace != asked.namespace) {
        let detail = format!("must match metadata.namespace: {namespace}");
        return refuse("spec.resourceAttributes.namespace", &asked.namespace.into(), &detail);
    }
    Ok(match authz::allows(call.cx.registry, user, &asked) {
        None => json!({ "allowed": false }),
        Some(reason) if reason.is_empty() => json!({ "allowed": true }),
        Some(reason) => json!({ "allowed": true, "reason": reason }),
    })
}

/// The rules somebody holds in a namespace. What nodes may is not said in rules.
fn rules_review(call: &Call<'_>, review: &Value) -> Result<Value, ApiError> {
    let namespace = meta::text(review, &["spec", "namespace"]);
    if namespace.is_empty() {
        let error = FieldError::required("spec.namespace", "");
        return Err(ApiError::invalid(&call.served.resource.gvk, "", &[error]));
    }
    let (registry, user) = (call.cx.registry, call.cx.user);
    let rules = registry.permissions.policy(&registry.store).rules_of(user, namespace);
    let (urls, resources): (Vec<Rule>, Vec<Rule>) = rules.into_iter().partition(Rule::is_of_urls);
    let shown = |rules: Vec<Rule>| rules.iter().map(Rule::to_json).collect::<Vec<_>>();
    Ok(json!({
        "resourceRules": shown(resources), "nonResourceRules": shown(urls), "incomplete": user.node_name().is_some(),
    }))
}
