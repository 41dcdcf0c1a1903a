//! LimitRanges: what containers get that ask for nothing, and the least and the most that may be asked for.
//!
//! In: new pods and claims, the LimitRanges of their namespace. Out: containers with default requests and limits; 403
//! for what is out of range.

use serde_json::Value;
use xebec_api::quantity::Quantity;

use super::{Admit, Operation, demand};
use crate::meta;
use crate::registry::Cx;
use crate::status::ApiError;
use crate::stored::{self, Stored};

/// Tells which values the cluster filled in.
const ANNOTATION: &str = "kubernetes.io/limit-ranger";

/// Fills requests and limits of new pods.
pub(super) fn mutate(cx: &Cx<'_>, admit: &Admit<'_>, object: &mut Value) {
    if admit.operation != Operation::Create || admit.target() != ("", "pods", "") {
        return;
    }
    let mut told = Vec::new();
    for range in ranges(cx, meta::namespace(object)) {
        for item in meta::items(&range, &["spec", "limits"]).filter(|item| item["type"] == "Container") {
            for (list, noun) in [("initContainers", "init container"), ("containers", "container")] {
                let containers = object.pointer_mut(&format!("/spec/{list}")).and_then(Value::as_array_mut);
                for container in containers.into_iter().flatten() {
                    fill(container, item, noun, &mut told);
                }
            }
        }
    }
    if !told.is_empty() {
        let text = format!("LimitRanger plugin set: {}", told.join("; "));
        meta::set(object, &["metadata", "annotations", ANNOTATION], Some(text.into()));
    }
}

fn fill(container: &mut Value, item: &Value, noun: &str, told: &mut Vec<String>) {
    let name = meta::text(container, &["name"]).to_owned();
    for (list, word, defaults) in [("requests", "request", "defaultRequest"), ("limits", "limit", "default")]
    {
        let mut set = Vec::new();
        for (resource, amount) in item[defaults].as_object().into_iter().flatten() {
            if meta::at(container, &["resources", list, resource]).is_none() {
                meta::set(container, &["resources", list, resource], Some(amount.clone()));
                set.push(resource.as_str());
            }
        }
        if !set.is_empty() {
            set.sort_unstable();
            told.push(format!("{} {word} for {noun} {name}", set.join(", ")));
        }
    }
}

/// Refuses what is out of range.
pub(super) fn validate(cx: &Cx<'_>, admit: &Admit<'_>, object: &Value) -> Result<(), ApiError> {
    let looked_at = match admit.target() {
        ("", "pods", "") => admit.operation == Operation::Create,
        ("", "persistentvolumeclaims", "") => admit.operation != Operation::Delete,
        _ => false,
    };
    if !looked_at {
        return Ok(());
    }
    let mut problems = Vec::new();
    for range in ranges(cx, meta::namespace(object)) {
        for item in meta::items(&range, &["spec", "limits"]) {
            check(item, admit.target().1, object, &mut problems);
        }
    }
    match &problems[..] {
        [] => Ok(()),
        [one] => Err(admit.refuse(one)),
        many => Err(admit.refuse(format!("[{}]", many.join(", ")))),
    }
}

fn check(item: &Value, plural: &str, object: &Value, problems: &mut Vec<String>) {
    match (meta::text(item, &["type"]), plural) {
        ("Container", "pods") => {
            for list in ["initContainers", "containers"] {
                for container in meta::items(object, &["spec", list]) {
                    let asked = |which: &str| container["resources"][which].clone();
                    compare(item, "Container", &asked("requests"), &asked("limits"), problems);
                }
            }
        }
        ("Pod", "pods") => {
            let asked = |which: &str| demand::of_pod(object, which);
            compare(item, "Pod", &asked("requests"), &asked("limits"), problems);
        }
        ("PersistentVolumeClaim", "persistentvolumeclaims") => {
            let asked = object["spec"]["resources"]["requests"].clone();
            compare(item, "PersistentVolumeClaim", &asked, &asked, problems);
        }
        _ => {}
    }
}

/// Requests and limits against the least, the most and the ratio of one item.
fn compare(item: &Value, kind: &str, requests: &Value, limits: &Value, problems: &mut Vec<String>) {
    let amount =
        |list: &Value, resource: &str| list[resource].as_str().and_then(|text| Quantity::parse(text).ok());
    for (resource, least) in item["min"].as_object().into_iter().flatten() {
        let Some(bound) = least.as_str().and_then(|text| Quantity::parse(text).ok()) else { continue };
        let head = format!("minimum {resource} usage per {kind} is {bound}");
        match (amount(requests, resource), amount(limits, resource)) {
            (None, _) => problems.push(format!("{head}.  No request is specified")),
            (Some(request), _) if request < bound => {
                problems.push(format!("{head}, but request is {request}"));
            }
            (_, Some(limit)) if limit < bound => problems.push(format!("{head}, but limit is {limit}")),
            _ => {}
        }
    }
    for (resource, most) in item["max"].as_object().into_iter().flatten() {
        let Some(bound) = most.as_str().and_then(|text| Quantity::parse(text).ok()) else { continue };
        let head = format!("maximum {resource} usage per {kind} is {bound}");
        match (amount(requests, resource), amount(limits, resource)) {
            (_, None) => problems.push(format!("{head}.  No limit is specified")),
            (_, Some(limit)) if limit > bound => problems.push(format!("{head}, but limit is {limit}")),
            (Some(request), _) if request > bound => {
                problems.push(format!("{head}, but request is {request}"));
            }
            _ => {}
        }
    }
    for (resource, ratio) in item["maxLimitRequestRatio"].as_object().into_iter().flatten() {
        let Some(bound) = ratio.as_str().and_then(|text| Quantity::parse(text).ok()) else { continue };
        let head = format!("{resource} max limit to request ratio per {kind} is {bound}");
        match (amount(requests, resource), amount(limits, resource)) {
            (None, _) => problems.push(format!("{head}, but no request is specified or request is 0")),
            (Some(request), _) if request.is_zero() => {
                problems.push(format!("{head}, but no request is specified or request is 0"));
            }
            (_, None) => problems.push(format!("{head}, but no limit is specified or limit is 0")),
            (Some(request), Some(limit)) => {
                let found = limit.as_f64() / request.as_f64();
                if found > bound.as_f64() {
                    problems.push(format!("{head}, but provided ratio is {found:.6}"));
                }
            }
        }
    }
}

/// The LimitRanges of a namespace, by name.
fn ranges(cx: &Cx<'_>, namespace: &str) -> Vec<Value> {
    let served = cx.registry.kinds.core("limitranges");
    let prefix = stored::prefix(&served.resource, Some(namespace));
    let page = cx.registry.store.list(prefix.as_bytes(), None, 0, None);
    let items = page.map(|page| page.items).unwrap_or_default();
    items.iter().filter_map(|kv| Stored::from(kv).decode().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn containers_get_what_they_do_not_say() {
        let item = json!({"type": "Container", "default": {"cpu": "2", "memory": "1Gi"}, "defaultRequest": {"cpu": "1"}});
        let mut container = json!({"name": "c", "resources": {"limits": {"memory": "5Mi"}}});
        let mut told = Vec::new();
        fill(&mut container, &item, "container", &mut told);
        assert_eq!(
            container["resources"],
            json!({"limits": {"memory": "5Mi", "cpu": "2"}, "requests": {"cpu": "1"}})
        );
        assert_eq!(told, ["cpu request for container c", "cpu limit for container c"]);
    }

    #[test]
    fn ranges_are_told_in_upstreams_words() {
        let item = json!({
            "type": "Container", "min": {"cpu": "100m"}, "max": {"memory": "1Gi"},
            "maxLimitRequestRatio": {"cpu": "2"},
        });
        let mut problems = Vec::new();
        let (requests, limits) = (json!({"cpu": "50m"}), json!({"cpu": "200m", "memory": "2Gi"}));
        compare(&item, "Container", &requests, &limits, &mut problems);
        assert_eq!(
            problems,
            [
                "minimum cpu usage per Container is 100m, but request is 50m",
                "maximum memory usage per Container is 1Gi, but limit is 2Gi",
                "cpu max limit to request ratio per Container is 2, but provided ratio is 4.000000",
            ]
        );
        problems.clear();
        compare(&item, "Container", &json!({}), &json!({}), &mut problems);
        assert_eq!(problems.len(), 3);
        assert_eq!(problems[1], "maximum memory usage per Container is 1Gi.  No limit is specified");
    }
}
