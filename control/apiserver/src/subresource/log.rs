//! `log`: what a container wrote, passed on from the kubelet of its node.
//!
//! In: the pod, the log options of the query. Out: the kubelet's answer as a stream, or why there is none.

use http::{HeaderValue, Response, StatusCode, header};
use serde_json::Value;

use crate::body::{self, Body};
use crate::dispatch::Call;
use crate::field_error::FieldError;
use crate::kinds::Gvk;
use crate::kubelet::{self, Target};
use crate::meta;
use crate::options::Query;
use crate::status::ApiError;

/// Options that the kubelet understands.
const PASSED_ON: &[&str] =
    &["follow", "previous", "sinceSeconds", "sinceTime", "timestamps", "tailLines", "limitBytes", "stream"];

pub(super) async fn get(call: &Call<'_>) -> Result<Response<Body>, ApiError> {
    check(call)?;
    let pod = call.cx.registry.get(call.served, call.namespace, &call.info.name)?.decode()?;
    let container = container(&pod, call.query.get("container").unwrap_or_default())?;
    let node = meta::text(&pod, &["spec", "nodeName"]);
    if node.is_empty() {
        // Nothing has run yet.
        return Ok(plain(body::empty()));
    }
    let registry = call.cx.registry;
    let node = registry.get(registry.kinds.core("nodes"), None, node)?.decode()?;
    let path = format!(
        "/containerLogs/{}/{}/{container}?{}",
        call.namespace.unwrap_or_default(),
        call.info.name,
        passed_on(call.query)
    );
    let answer = kubelet::get(&registry.config, &Target::of(&node)?, &path).await?;
    if answer.status() == StatusCode::OK {
        return Ok(plain(answer.into_body()));
    }
    let code = answer.status();
    let text = body::read(answer.into_body()).await?;
    Err(ApiError::upstream(code, String::from_utf8_lossy(&text).trim().to_owned()))
}

/// `PodLogOptions` by upstream's rules; the whole list of what is wrong.
fn check(call: &Call<'_>) -> Result<(), ApiError> {
    let query = call.query;
    let mut errors = Vec::new();
    let mut number = |field: &'static str, least: i64, message: &'static str| -> Result<bool, ApiError> {
        let value = query.integer(field)?;
        if let Some(bad) = value.filter(|value| *value < least) {
            errors.push(FieldError::invalid(field, &Value::from(bad), message));
        }
        Ok(value.is_some())
    };
    let tail = number("tailLines", 0, "must be greater than or equal to 0")?;
    number("limitBytes", 1, "must be greater than 0")?;
    let since_seconds = number("sinceSeconds", 1, "must be greater than 0")?;
    let since_time = query.get("sinceTime").is_some_and(|time| !time.is_empty());
    if since_seconds && since_time {
        let message = "at most one of `sinceTime` or `sinceSeconds` may be specified";
        errors.push(FieldError::forbidden("", message));
    }
    match query.get("stream").unwrap_or_default() {
        "" | "All" => {}
        "Stdout" | "Stderr" if tail => {
            let message = "`tailLines` and specific `stream` are mutually exclusive for now";
            errors.push(FieldError::forbidden("", message));
        }
        "Stdout" | "Stderr" => {}
        other => {
            errors.push(FieldError::not_supported(
                "stream",
                &Value::from(other),
                &["All", "Stderr", "Stdout"],
            ));
        }
    }
    let gvk = Gvk::new("", "v1", "PodLogOptions");
    if errors.is_empty() { Ok(()) } else { Err(ApiError::invalid(&gvk, &call.info.name, &errors)) }
}

fn passed_on(query: &Query) -> String {
    let mut out = form_urlencoded::Serializer::new(String::new());
    for key in PASSED_ON {
        if let Some(value) = query.get(key) {
            out.append_pair(key, value);
        }
    }
    out.finish()
}

fn plain(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}

/// The container that was meant; a pod with one needs no name.
pub(super) fn container(pod: &Value, asked: &str) -> Result<String, ApiError> {
    let names = |list: &str| -> Vec<&str> {
        meta::items(pod, &["spec", list]).map(|container| meta::text(container, &["name"])).collect()
    };
    let (containers, init) = (names("containers"), names("initContainers"));
    let name = meta::name(pod);
    if !asked.is_empty() {
        let known = [&containers, &init, &names("ephemeralContainers")];
        if known.iter().any(|names| names.contains(&asked)) {
            return Ok(asked.to_owned());
        }
        return Err(ApiError::bad_request(format!("container {asked} is not valid for pod {name}")));
    }
    match containers.as_slice() {
        [] => Err(ApiError::bad_request(format!("a container name must be specified for pod {name}"))),
        [only] => Ok((*only).to_owned()),
        several => {
            let mut message = format!(
                "a container name must be specified for pod {name}, choose one of: [{}]",
                several.join(" ")
            );
            if !init.is_empty() {
                message.push_str(&format!(" or one of the init containers: [{}]", init.join(" ")));
            }
            Err(ApiError::bad_request(message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_container_is_named_or_the_only_one() {
        let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a"}, {"name": "b"}]}});
        assert_eq!(container(&pod, "b").expect("known"), "b");
        assert_eq!(
            container(&pod, "").expect_err("ambiguous").message(),
            "a container name must be specified for pod p, choose one of: [a b]"
        );
        assert_eq!(
            container(&pod, "c").expect_err("unknown").message(),
            "container c is not valid for pod p"
        );
        let single = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a"}]}});
        assert_eq!(container(&single, "").expect("the only one"), "a");
    }
}
