//! `scale`: the number of replicas of a workload, and how its pods are found.
//!
//! In: a Scale to write. Out: the Scale of the workload.

use http::{HeaderMap, Request, Response, StatusCode};
use serde_json::{Value, json};
use xebec_api::labels::Selector;

use crate::body::{self, Body};
use crate::codec::{self, Decoded, Format};
use crate::custom::ScalePaths;
use crate::dispatch::{self, Call, json_response};
use crate::field_error::FieldError;
use crate::kinds::{Gvk, Verb};
use crate::meta;
use crate::negotiate::Output;
use crate::options::WriteOptions;
use crate::registry::input;
use crate::registry::patch::Patch;
use crate::registry::update::{self, Door, Edit};
use crate::status::ApiError;

pub(super) async fn respond(call: &Call<'_>, request: Request<Body>) -> Result<Response<Body>, ApiError> {
    let gvk = Gvk::new("autoscaling", "v1", "Scale");
    let output = Output::negotiate(request.headers())?;
    let paths = call.served.custom.as_ref().and_then(|custom| custom.scale.clone());
    if call.info.verb == "get" {
        let stored = call.cx.registry.get(call.served, call.namespace, &call.info.name)?;
        return answer(output, &scale_of(&stored.decode()?, paths.as_ref()));
    }
    let replaces = call.info.verb == "update";
    let options = WriteOptions::parse(call.query, if replaces { "UpdateOptions" } else { "PatchOptions" })?;
    let change = Change::read(call, &gvk, request).await?;
    let edit = Edit {
        served: call.served,
        namespace: call.namespace,
        name: &call.info.name,
        door: Door::Main,
        verb: if replaces { Verb::Update } else { Verb::Patch },
        options: &options,
        records: false,
    };
    let updated = update::update(call.cx, edit, |mut workload| {
        let scale = change.apply(&gvk, &workload, paths.as_ref())?;
        let scale = input::check(call.cx, &gvk, scale, options.field_validation)?;
        let replicas = meta::at(&scale, &["spec", "replicas"]).and_then(Value::as_i64).unwrap_or(0);
        if replicas < 0 {
            let error =
                FieldError::invalid("spec.replicas", &json!(replicas), "must be greater than or equal to 0");
            return Err(ApiError::invalid(&gvk, &call.info.name, &[error]));
        }
        for field in ["resourceVersion", "uid"] {
            let value = meta::at(&scale, &["metadata", field]).cloned();
            meta::set(&mut workload, &["metadata", field], value);
        }
        if meta::name(&scale) != call.info.name {
            return Err(ApiError::bad_request(format!(
                "the name of the object ({}) does not match the name on the URL ({})",
                meta::name(&scale),
                call.info.name
            )));
        }
        let path: Vec<&str> = match &paths {
            Some(paths) => paths.replicas.iter().map(String::as_str).collect(),
            None => vec!["spec", "replicas"],
        };
        meta::set(&mut workload, &path, Some(replicas.into()));
        Ok(workload)
    })
    .await?;
    answer(output, &scale_of(&updated.stored.decode()?, paths.as_ref()))
}

/// A Scale to take or a patch to apply to the current one.
enum Change {
    Replace(Decoded),
    Patch(Patch),
}

impl Change {
    async fn read(call: &Call<'_>, gvk: &Gvk, request: Request<Body>) -> Result<Self, ApiError> {
        if call.info.verb == "patch" {
            let media_type = codec::media_type(request.headers()).to_owned();
            let bytes = body::read(request.into_body()).await?;
            return Ok(Self::Patch(Patch::parse(&media_type, &bytes)?));
        }
        let mut decoded = dispatch::read(request).await?;
        meta::set(&mut decoded.value, &["kind"], Some((*gvk.kind).into()));
        Ok(Self::Replace(decoded))
    }

    fn apply(&self, gvk: &Gvk, workload: &Value, paths: Option<&ScalePaths>) -> Result<Decoded, ApiError> {
        match self {
            Self::Replace(decoded) => Ok(decoded.clone()),
            Self::Patch(patch) => patch.apply(gvk, scale_of(workload, paths)),
        }
    }
}

fn scale_of(workload: &Value, paths: Option<&ScalePaths>) -> Value {
    let metadata = |field: &str| meta::at(workload, &["metadata", field]).cloned().unwrap_or_default();
    let count = |path: &[&str]| meta::at(workload, path).and_then(Value::as_i64).unwrap_or(0);
    if let Some(paths) = paths {
        let at = |path: &Vec<String>| {
            let path: Vec<&str> = path.iter().map(String::as_str).collect();
            meta::at(workload, &path).cloned()
        };
        let number = |path| at(path).and_then(|number| number.as_i64()).unwrap_or(0);
        return json!({
            "kind": "Scale", "apiVersion": "autoscaling/v1",
            "metadata": {
                "name": metadata("name"), "namespace": metadata("namespace"), "uid": metadata("uid"),
                "resourceVersion": metadata("resourceVersion"), "creationTimestamp": metadata("creationTimestamp"),
            },
            "spec": { "replicas": number(&paths.replicas) },
            "status": {
                "replicas": number(&paths.status_replicas), "selector": paths.selector.as_ref().and_then(at),
            },
        });
    }
    let selector = meta::at(workload, &["spec", "selector"]);
    let selector = match meta::text(workload, &["kind"]) {
        "ReplicationController" => Some(map_selector(selector)),
        _ => Selector::from_json(selector).ok().map(|selector| selector.to_string()),
    };
    json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1",
        "metadata": {
            "name": metadata("name"), "namespace": metadata("namespace"), "uid": metadata("uid"),
            "resourceVersion": metadata("resourceVersion"), "creationTimestamp": metadata("creationTimestamp"),
        },
        "spec": { "replicas": count(&["spec", "replicas"]) },
        "status": { "replicas": count(&["status", "replicas"]), "selector": selector },
    })
}

fn map_selector(selector: Option<&Value>) -> String {
    let labels = selector.and_then(Value::as_object).into_iter().flatten();
    let terms: Vec<String> =
        labels.map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())).collect();
    terms.join(",")
}

fn answer(output: Output, scale: &Value) -> Result<Response<Body>, ApiError> {
    if output == Output::Object(Format::Yaml) {
        let mut response = Response::new(body::full(codec::to_yaml(scale)?));
        let mut headers = HeaderMap::new();
        headers.insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/yaml"));
        *response.headers_mut() = headers;
        return Ok(response);
    }
    Ok(json_response(StatusCode::OK, scale))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_selector_is_a_string() {
        let workload = json!({
            "kind": "Deployment", "metadata": {"name": "a", "namespace": "x", "resourceVersion": "4"},
            "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "web"}}}, "status": {"replicas": 2},
        });
        let scale = scale_of(&workload, None);
        assert_eq!(scale["spec"], json!({"replicas": 3}));
        assert_eq!(scale["status"], json!({"replicas": 2, "selector": "app=web"}));
    }
}
