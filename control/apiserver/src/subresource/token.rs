//! `token`: a service-account token on request.
//!
//! In: a TokenRequest, the account, perhaps the pod it is bound to. Out: the request with token and expiry. A node gets
//! tokens only for pods that run on it.

use http::{Request, Response, StatusCode};
use serde_json::{Value, json};

use crate::body::Body;
use crate::dispatch::{self, Call, json_response};
use crate::field_error::FieldError;
use crate::kinds::Gvk;
use crate::meta;
use crate::options::WriteOptions;
use crate::registry::input;
use crate::status::ApiError;
use crate::token::{DEFAULT_TOKEN_SECONDS, MAX_TOKEN_SECONDS, MIN_TOKEN_SECONDS, ObjectRef, TokenSubject};

pub(super) async fn create(call: &Call<'_>, request: Request<Body>) -> Result<Response<Body>, ApiError> {
    let gvk = Gvk::new("authentication.k8s.io", "v1", "TokenRequest");
    let options = WriteOptions::parse(call.query, "CreateOptions")?;
    let body = dispatch::read(request).await?;
    let mut wanted = input::check(call.cx, &gvk, body, options.field_validation)?;
    let (registry, name) = (call.cx.registry, call.info.name.as_str());
    let account = registry.get(call.served, call.namespace, name)?.decode()?;
    let seconds = meta::at(&wanted, &["spec", "expirationSeconds"])
        .and_then(Value::as_i64)
        .unwrap_or(DEFAULT_TOKEN_SECONDS);
    let errors = check_seconds(seconds);
    if !errors.is_empty() {
        return Err(ApiError::invalid(&gvk, name, &errors));
    }
    let subject = subject(call, &account, &wanted)?;
    let audiences: Vec<String> = meta::items(&wanted, &["spec", "audiences"])
        .filter_map(Value::as_str)
        .map(ToOwned::to_owned)
        .collect();
    let tokens = &registry.config.tokens;
    let issued = tokens.issuer.issue(&subject, &audiences, seconds).map_err(ApiError::internal)?;
    if audiences.is_empty() {
        meta::set(&mut wanted, &["spec", "audiences"], Some(json!([tokens.verifier.issuer()])));
    }
    let expires = jiff::Timestamp::from_second(issued.expires_at).map_err(ApiError::internal)?;
    meta::set(&mut wanted, &["spec", "expirationSeconds"], Some(seconds.into()));
    meta::set(&mut wanted, &["metadata", "name"], Some(name.into()));
    meta::set(&mut wanted, &["metadata", "namespace"], call.namespace.map(Value::from));
    meta::set(
        &mut wanted,
        &["metadata", "creationTimestamp"],
        Some(meta::time(jiff::Timestamp::now()).into()),
    );
    let status = json!({ "token": issued.token, "expirationTimestamp": meta::time(expires) });
    meta::set(&mut wanted, &["status"], Some(status));
    Ok(json_response(StatusCode::CREATED, &wanted))
}

fn check_seconds(seconds: i64) -> Vec<FieldError> {
    let detail = if seconds < MIN_TOKEN_SECONDS {
        "may not specify a duration less than 10 minutes"
    } else if seconds > MAX_TOKEN_SECONDS {
        "may not specify a duration larger than 2^32 seconds"
    } else {
        return Vec::new();
    };
    vec![FieldError::invalid("spec.expirationSeconds", &json!(seconds), detail)]
}

/// Whom the token is for and what it dies with.
fn subject(call: &Call<'_>, account: &Value, wanted: &Value) -> Result<TokenSubject, ApiError> {
    let mut subject = TokenSubject {
        namespace: meta::namespace(account).to_owned(),
        service_account: reference(account),
        pod: None,
        secret: None,
        node: None,
    };
    let node = call.cx.user.node_name();
    let Some(bound) = meta::at(wanted, &["spec", "boundObjectRef"]) else {
        return match node {
            None => Ok(subject),
            Some(_) => Err(refuse_node(call, "node requested token not bound to a pod")),
        };
    };
    let (kind, name) = (meta::text(bound, &["kind"]), meta::text(bound, &["name"]));
    if node.is_some() && kind != "Pod" {
        return Err(refuse_node(call, "node requested token not bound to a pod"));
    }
    let registry = call.cx.registry;
    let (plural, namespace) = match kind {
        "Pod" => ("pods", call.namespace),
        "Secret" => ("secrets", call.namespace),
        "Node" => ("nodes", None),
        other => {
            return Err(ApiError::bad_request(format!(
                "cannot bind token for serviceaccount {:?} to object of type {other:?}",
                meta::name(account)
            )));
        }
    };
    let object = registry.get(registry.kinds.core(plural), namespace, name)?.decode()?;
    let uid = meta::text(bound, &["uid"]);
    if !uid.is_empty() && uid != meta::uid(&object) {
        let why = format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been \
             deleted and then recreated"
        );
        return Err(ApiError::conflict(&registry.kinds.core(plural).resource, name, &why));
    }
    match kind {
        "Pod" => {
            if meta::text(&object, &["spec", "serviceAccountName"]) != meta::name(account) {
                return Err(ApiError::bad_request(format!(
                    "cannot bind token for serviceaccount {:?} to pod running with different serviceaccount name.",
                    meta::name(account)
                )));
            }
            let on = meta::text(&object, &["spec", "nodeName"]);
            if node.is_some_and(|node| node != on) {
                return Err(refuse_node(
                    call,
                    "node requested token bound to a pod scheduled on a different node",
                ));
            }
            subject.node = registry.core_object("nodes", None, on).map(|node| reference(&node));
            subject.pod = Some(reference(&object));
        }
        "Secret" => subject.secret = Some(reference(&object)),
        _ => subject.node = Some(reference(&object)),
    }
    Ok(subject)
}

fn reference(object: &Value) -> ObjectRef {
    ObjectRef { name: meta::name(object).to_owned(), uid: meta::uid(object).to_owned() }
}

fn refuse_node(call: &Call<'_>, why: &str) -> ApiError {
    ApiError::forbidden("", "serviceaccounts", &call.info.name, why)
}
