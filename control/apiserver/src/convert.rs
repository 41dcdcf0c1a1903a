//! The few kinds that are served in two versions of different shape: Events and HorizontalPodAutoscalers.
//!
//! In: an object in the version of the request or of the store. Out: the same object in the other. Fields that one
//! version cannot hold travel in the annotations upstream uses for them.

use serde_json::{Map, Value, json};

use crate::kinds::Resource;
use crate::meta;

/// Field names of `v1` and `events.k8s.io/v1` events that differ.
const EVENT_FIELDS: &[(&str, &str)] = &[
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("reportingComponent", "reportingController"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
];

const HPA_METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const HPA_BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";
const HPA_CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const HPA_CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";

/// From the version of the store to that of the resource.
pub(crate) fn from_stored(resource: &Resource, mut object: Value) -> Value {
    if resource.stored_as.is_some() {
        // Versions of a custom resource hold the same fields.
        match (&*resource.gvk.group, resource.plural.as_str()) {
            ("events.k8s.io", "events") => rename(&mut object, EVENT_FIELDS.iter().copied()),
            ("autoscaling", "horizontalpodautoscalers") => autoscaler_to_v1(&mut object),
            _ => {}
        }
        set_type(&mut object, &resource.gvk.api_version());
    }
    object
}

/// From the version of the resource to that of the store.
pub(crate) fn to_stored(resource: &Resource, mut object: Value) -> Value {
    if let Some(stored) = &resource.stored_as {
        match (&*resource.gvk.group, resource.plural.as_str()) {
            ("events.k8s.io", "events") => {
                rename(&mut object, EVENT_FIELDS.iter().map(|(old, new)| (*new, *old)));
            }
            ("autoscaling", "horizontalpodautoscalers") => autoscaler_to_v2(&mut object),
            _ => {}
        }
        set_type(&mut object, &stored.api_version());
    }
    object
}

fn set_type(object: &mut Value, api_version: &str) {
    meta::set(object, &["apiVersion"], Some(api_version.into()));
}

fn rename<'a>(object: &mut Value, names: impl Iterator<Item = (&'a str, &'a str)>) {
    let Some(map) = object.as_object_mut() else { return };
    for (from, to) in names {
        if let Some(value) = map.remove(from) {
            map.insert(to.to_owned(), value);
        }
    }
}

fn is_cpu_utilization(metric: &Value) -> bool {
    meta::text(metric, &["type"]) == "Resource" && meta::text(metric, &["resource", "name"]) == "cpu"
}

/// The CPU metric has a field of its own in v1; everything else goes into annotations.
fn autoscaler_to_v1(object: &mut Value) {
    for (part, list, utilization, field, annotation) in [
        ("spec", "metrics", "target", "targetCPUUtilizationPercentage", HPA_METRICS),
        ("status", "currentMetrics", "current", "currentCPUUtilizationPercentage", HPA_CURRENT_METRICS),
    ] {
        let Some(map) = object.get_mut(part).and_then(Value::as_object_mut) else { continue };
        let mut metrics = match map.remove(list) {
            Some(Value::Array(metrics)) => metrics,
            _ => Vec::new(),
        };
        let average = |metric: &Value| {
            let path = ["resource", utilization, "averageUtilization"];
            is_cpu_utilization(metric).then(|| meta::at(metric, &path).cloned()).flatten()
        };
        if let Some(position) = metrics.iter().position(|metric| average(metric).is_some()) {
            let metric = metrics.remove(position);
            map.insert(field.to_owned(), average(&metric).unwrap_or_default());
        }
        if !metrics.is_empty() {
            annotate(object, annotation, &Value::Array(metrics));
        }
    }
    for (part, field, annotation) in
        [("spec", "behavior", HPA_BEHAVIOR), ("status", "conditions", HPA_CONDITIONS)]
    {
        let value = object.get_mut(part).and_then(Value::as_object_mut).and_then(|map| map.remove(field));
        if let Some(value) = value.filter(|value| !value.is_null()) {
            annotate(object, annotation, &value);
        }
    }
}

fn autoscaler_to_v2(object: &mut Value) {
    for (part, list, utilization, field, annotation) in [
        ("spec", "metrics", "target", "targetCPUUtilizationPercentage", HPA_METRICS),
        ("status", "currentMetrics", "current", "currentCPUUtilizationPercentage", HPA_CURRENT_METRICS),
    ] {
        let mut metrics = match take_annotation(object, annotation) {
            Some(Value::Array(metrics)) => metrics,
            _ => Vec::new(),
        };
        let Some(map) = object.get_mut(part).and_then(Value::as_object_mut) else { continue };
        if let Some(percentage) = map.remove(field).filter(|value| !value.is_null()) {
            let mut value = Map::new();
            if utilization == "target" {
                value.insert("type".into(), "Utilization".into());
            }
            value.insert("averageUtilization".into(), percentage);
            let metric = json!({ "type": "Resource", "resource": { "name": "cpu", utilization: value } });
            metrics.insert(0, metric);
        }
        if !metrics.is_empty() {
            map.insert(list.to_owned(), metrics.into());
        }
    }
    for (part, field, annotation) in
        [("spec", "behavior", HPA_BEHAVIOR), ("status", "conditions", HPA_CONDITIONS)]
    {
        if let Some(value) = take_annotation(object, annotation) {
            meta::set(object, &[part, field], Some(value));
        }
    }
}

fn annotate(object: &mut Value, key: &str, value: &Value) {
    meta::set(object, &["metadata", "annotations", key], Some(value.to_string().into()));
}

fn take_annotation(object: &mut Value, key: &str) -> Option<Value> {
    let annotations = object.get_mut("metadata")?.get_mut("annotations")?.as_object_mut()?;
    let text = annotations.remove(key)?;
    serde_json::from_str(text.as_str()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds;

    fn resource(group: &str, version: &str, plural: &str) -> &'static Resource {
        let all = kinds::builtin().iter();
        let mut found =
            all.filter(|r| &*r.gvk.group == group && &*r.gvk.version == version && r.plural == plural);
        found.next().expect("built in")
    }

    #[test]
    fn events_round_trip() {
        let resource = resource("events.k8s.io", "v1", "events");
        let event = json!({
            "kind": "Event", "apiVersion": "events.k8s.io/v1", "metadata": {"name": "a"},
            "regarding": {"kind": "Pod"}, "note": "text", "reportingController": "x", "deprecatedCount": 2,
        });
        let stored = to_stored(resource, event.clone());
        assert_eq!(stored["apiVersion"], "v1");
        assert_eq!((&stored["message"], &stored["count"]), (&json!("text"), &json!(2)));
        assert_eq!(from_stored(resource, stored), event);
    }

    #[test]
    fn autoscalers_keep_what_v1_cannot_say() {
        let resource = resource("autoscaling", "v1", "horizontalpodautoscalers");
        let stored = json!({
            "kind": "HorizontalPodAutoscaler", "apiVersion": "autoscaling/v2",
            "metadata": {"name": "a", "annotations": {}},
            "spec": {"maxReplicas": 3, "behavior": {"scaleUp": {}}, "metrics": [
                {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}},
                {"type": "Resource", "resource": {"name": "memory", "target": {"type": "Utilization", "averageUtilization": 50}}},
            ]},
        });
        let v1 = from_stored(resource, stored.clone());
        assert_eq!(v1["spec"], json!({"maxReplicas": 3, "targetCPUUtilizationPercentage": 80}));
        assert_eq!(to_stored(resource, v1), stored);
    }
}
