//! Horizontal pod autoscalers of both versions, and scales.
//!
//! In: objects of the group `autoscaling`. Out: their cells.

use serde_json::Value;

use super::view::{NONE, UNKNOWN, UNSET, View, text_in};
use super::{AGE, Column, Layout, NAME, integer, string};

const COLUMNS: &[Column] = &[
    NAME,
    string("Reference", "What is scaled."),
    string("Targets", "The current and wanted values of the metrics."),
    string("MinPods", "The least number of pods."),
    string("MaxPods", "The greatest number of pods."),
    string("Replicas", "The current number of pods."),
    AGE,
];

pub(super) fn layout(kind: &str) -> Option<Layout> {
    Some(match kind {
        "HorizontalPodAutoscaler" => Layout { columns: COLUMNS, cells: autoscaler },
        "Scale" => Layout {
            columns: const {
                &[
                    NAME,
                    integer("Desired", "How many pods are wanted."),
                    integer("Available", "How many pods there are."),
                    AGE,
                ]
            },
            cells: |view| {
                let wanted = view.number_cell("/spec/replicas");
                vec![view.name(), wanted, view.number_cell("/status/replicas"), view.age()]
            },
        },
        _ => return None,
    })
}

fn autoscaler(view: &View<'_>) -> Vec<Value> {
    let target = view.at("/spec/scaleTargetRef").unwrap_or(&Value::Null);
    let reference = format!("{}/{}", text_in(target, "kind"), text_in(target, "name"));
    let minimum = view.at("/spec/minReplicas").and_then(Value::as_i64);
    vec![
        view.name(),
        reference.into(),
        targets(view).into(),
        minimum.map_or_else(|| UNSET.to_owned(), |minimum| minimum.to_string()).into(),
        view.number_cell("/spec/maxReplicas"),
        view.number_cell("/status/currentReplicas"),
        view.age(),
    ]
}

fn targets(view: &View<'_>) -> String {
    if let Some(wanted) = view.at("/spec/targetCPUUtilizationPercentage").and_then(Value::as_i64) {
        let current = view.at("/status/currentCPUUtilizationPercentage").and_then(Value::as_i64);
        return format!("cpu: {}/{wanted}%", percent(current));
    }
    let statuses = view.list("/status/currentMetrics");
    let metrics = view.list("/spec/metrics").iter().enumerate();
    let all: Vec<String> = metrics.filter_map(|(index, spec)| metric(spec, statuses.get(index))).collect();
    let shown = all[..all.len().min(2)].join(", ");
    match all.len() {
        0 => NONE.to_owned(),
        1 | 2 => shown,
        all => format!("{shown} + {} more...", all - 2),
    }
}

/// One metric: what it is now and what it should be.
fn metric(spec: &Value, status: Option<&Value>) -> Option<String> {
    let (field, prefix) = match text_in(spec, "type") {
        "External" => ("external", String::new()),
        "Pods" => ("pods", String::new()),
        "Object" => ("object", String::new()),
        "Resource" => ("resource", format!("{}: ", text_in(spec.get("resource")?, "name"))),
        "ContainerResource" => {
            ("containerResource", format!("{}: ", text_in(spec.get("containerResource")?, "name")))
        }
        _ => return None,
    };
    let target = spec.get(field)?.get("target")?;
    let current = status.and_then(|status| status.get(field)).and_then(|status| status.get("current"));
    let now = |name: &str| current.map_or("", |current| text_in(current, name));
    let known = |text: &str| if text.is_empty() { UNKNOWN.to_owned() } else { text.to_owned() };
    let average = text_in(target, "averageValue");
    let text = match field {
        "external" | "object" if !average.is_empty() => {
            format!("{}/{average} (avg)", known(now("averageValue")))
        }
        "external" | "object" => format!("{}/{}", known(now("value")), text_in(target, "value")),
        "pods" => format!("{}/{average}", known(now("averageValue"))),
        _ if !average.is_empty() => format!("{}/{average}", known(now("averageValue"))),
        _ => {
            let utilization = |value: Option<&Value>| value?.get("averageUtilization")?.as_i64();
            let wanted =
                utilization(Some(target)).map_or_else(|| "<auto>".to_owned(), |value| format!("{value}%"));
            format!("{}/{wanted}", percent(utilization(current)))
        }
    };
    Some(prefix + &text)
}

fn percent(value: Option<i64>) -> String {
    value.map_or_else(|| UNKNOWN.to_owned(), |value| format!("{value}%"))
}
