//! `binding`: a pod is given its node, once.
//!
//! In: a Binding. Out: success, or the conflict that keeps a pod where it is.

use http::{Request, Response, StatusCode};
use jiff::Timestamp;
use serde_json::{Value, json};
use xebec_api::wellknown::conditions;

use crate::body::Body;
use crate::dispatch::{self, Call, json_response};
use crate::field_error::FieldError;
use crate::kinds::{Gvk, Verb};
use crate::meta;
use crate::options::WriteOptions;
use crate::registry::update::{self, Door, Edit};
use crate::registry::{create, input};
use crate::status::{self, ApiError};

/// `POST pods/x/binding`, and `POST bindings` which names the pod in the body.
pub(crate) async fn create(call: &Call<'_>, request: Request<Body>) -> Result<Response<Body>, ApiError> {
    if call.info.verb != "create" {
        return Err(ApiError::method_not_allowed());
    }
    let options = WriteOptions::parse(call.query, "CreateOptions")?;
    let gvk = Gvk::new("", "v1", "Binding");
    let body = dispatch::read(request).await?;
    let mut binding = input::check(call.cx, &gvk, body, options.field_validation)?;
    create::set_namespace(&mut binding, call.namespace)?;
    let pods = call.cx.registry.kinds.core("pods");
    let name = match (call.info.name.as_str(), meta::name(&binding)) {
        ("", own) => own.to_owned(),
        (path, "") => path.to_owned(),
        (path, own) if path == own => path.to_owned(),
        _ => return Err(ApiError::bad_request("name in URL does not match name in Binding object")),
    };
    let errors = check(&binding);
    if !errors.is_empty() {
        return Err(ApiError::invalid(&gvk, &name, &errors));
    }
    let edit = Edit {
        served: pods,
        namespace: call.namespace,
        name: &name,
        door: Door::Own,
        verb: Verb::Patch,
        options: &options,
        records: false,
    };
    let uid = meta::uid(&binding).to_owned();
    update::update(call.cx, edit, |mut pod| {
        if !uid.is_empty() && uid != meta::uid(&pod) {
            let why = format!(
                "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
                meta::uid(&pod)
            );
            return Err(ApiError::conflict_on_binding(&name, &why));
        }
        assign(&mut pod, &binding).map_err(|why| ApiError::conflict_on_binding(&name, &why))?;
        Ok(pod)
    })
    .await?;
    Ok(json_response(StatusCode::CREATED, &status::success(StatusCode::CREATED)))
}

fn check(binding: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let kind = meta::text(binding, &["target", "kind"]);
    if !matches!(kind, "" | "Node") {
        errors.push(FieldError::not_supported("target.kind", &json!(kind), &["Node", "<empty>"]));
    }
    if meta::text(binding, &["target", "name"]).is_empty() {
        errors.push(FieldError::required("target.name", ""));
    }
    errors
}

/// Writes the node into the pod, if the pod can still be given one.
fn assign(pod: &mut Value, binding: &Value) -> Result<(), String> {
    let name = meta::name(pod);
    if meta::is_deleting(pod) {
        return Err(format!("pod {name} is being deleted, cannot be assigned to a host"));
    }
    let node = meta::text(pod, &["spec", "nodeName"]);
    if !node.is_empty() {
        return Err(format!("pod {name} is already assigned to node {node:?}"));
    }
    if meta::items(pod, &["spec", "schedulingGates"]).next().is_some() {
        return Err(format!("pod {name} has non-empty .spec.schedulingGates"));
    }
    meta::set(pod, &["spec", "nodeName"], meta::at(binding, &["target", "name"]).cloned());
    for field in ["annotations", "labels"] {
        if let Some(Value::Object(added)) = meta::at(binding, &["metadata", field]) {
            meta::map_mut(pod, &["metadata", field]).extend(added.clone());
        }
    }
    let generation = meta::generation(pod);
    let mut listed: Vec<Value> = meta::items(pod, &["status", "conditions"]).cloned().collect();
    listed.retain(|condition| meta::text(condition, &["type"]) != conditions::POD_SCHEDULED);
    listed.push(json!({
        "type": conditions::POD_SCHEDULED, "status": conditions::TRUE, "observedGeneration": generation,
        "lastProbeTime": null, "lastTransitionTime": meta::time(Timestamp::now()),
    }));
    meta::set(pod, &["status", "conditions"], Some(listed.into()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_bound_once() {
        let binding = json!({"metadata": {"annotations": {"a": "b"}}, "target": {"name": "n1"}});
        let mut pod = json!({"metadata": {"name": "p"}, "spec": {}, "status": {"phase": "Pending"}});
        assign(&mut pod, &binding).expect("bound");
        assert_eq!(pod["spec"]["nodeName"], "n1");
        assert_eq!(pod["metadata"]["annotations"]["a"], "b");
        assert_eq!(pod["status"]["conditions"][0]["status"], "True");
        assert_eq!(assign(&mut pod, &binding), Err("pod p is already assigned to node \"n1\"".to_owned()));
        let mut gone =
            json!({"metadata": {"name": "p", "deletionTimestamp": "2026-01-01T00:00:00Z"}, "spec": {}});
        assert!(assign(&mut gone, &binding).is_err());
    }
}
