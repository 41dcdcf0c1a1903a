//! `spec.runtimeClassName`: which handler runs a pod.
//!
//! In: the class's name. Out: nothing when this node has its handler, else why the pod cannot run here.

use std::time::Duration;

use k8s_openapi::api::node::v1::RuntimeClass;
use kube::{Api, Client};

const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// The handler that runs pods without a class; it may be named too.
const DEFAULT_HANDLERS: [&str; 2] = ["", "runc"];

pub(crate) async fn check(client: &Client, class: Option<&str>) -> Result<(), String> {
    let Some(name) = class.filter(|name| !name.is_empty()) else { return Ok(()) };
    let api = Api::<RuntimeClass>::all(client.clone());
    let found = tokio::time::timeout(CALL_TIMEOUT, api.get_opt(name))
        .await
        .map_err(|_| "the API server did not answer in time".to_owned())
        .and_then(|answer| answer.map_err(|e| e.to_string()))
        .map_err(|reason| format!("failed to get runtime class {name:?}: {reason}"))?
        .ok_or_else(|| format!("RuntimeClass.node.k8s.io {name:?} not found"))?;
    if DEFAULT_HANDLERS.contains(&found.handler.as_str()) {
        return Ok(());
    }
    Err(format!("no runtime for {:?} is configured", found.handler))
}
