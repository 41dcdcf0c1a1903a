//! Events, of the core group and of `events.k8s.io`.
//!
//! In: an Event in either version. Out: its cells.

use serde_json::Value;

use super::view::View;
use super::{Column, Layout, NAME, string, wide};

const COLUMNS: &[Column] = &[
    string("Last Seen", "How long ago the event was last seen."),
    string("Type", "Whether it is normal or a warning."),
    string("Reason", "Why it happened, in a word."),
    string("Object", "What it is about."),
    wide("Subobject", "The part of the object it is about."),
    wide("Source", "Who reported it."),
    string("Message", "What happened, in words."),
    wide("First Seen", "How long ago the event was first seen."),
    wide("Count", "How often it was seen."),
    Column { priority: 1, ..NAME },
];

pub(super) const LAYOUT: Layout = Layout { columns: COLUMNS, cells };

fn cells(view: &View<'_>) -> Vec<Value> {
    // The newer version keeps the older fields under other names.
    let either = |old: &str, new: &str| match view.text(old) {
        "" => view.text(new),
        text => text,
    };
    let object = |field: &str| either(&format!("/involvedObject/{field}"), &format!("/regarding/{field}"));
    let first = match either("/firstTimestamp", "/deprecatedFirstTimestamp") {
        "" => view.since(view.text("/eventTime")),
        time => view.since(time),
    };
    let mut last = match either("/lastTimestamp", "/deprecatedLastTimestamp") {
        "" => first.clone(),
        time => view.since(time),
    };
    let mut count = view.number("/count").max(view.number("/deprecatedCount"));
    if view.at("/series").is_some_and(Value::is_object) {
        last = view.since(view.text("/series/lastObservedTime"));
        count = view.number("/series/count");
    } else if count == 0 {
        count = 1;
    }
    let kind = object("kind").to_lowercase();
    let target = match object("name") {
        "" => kind,
        name => format!("{kind}/{name}"),
    };
    vec![
        last.into(),
        view.cell("/type"),
        view.cell("/reason"),
        target.into(),
        object("fieldPath").into(),
        source(view).into(),
        either("/message", "/note").trim().into(),
        first.into(),
        count.into(),
        view.name(),
    ]
}

fn source(view: &View<'_>) -> String {
    let either = |paths: [&str; 3]| {
        paths.into_iter().map(|path| view.text(path)).find(|text| !text.is_empty()).unwrap_or_default()
    };
    let component = either(["/source/component", "/deprecatedSource/component", "/reportingComponent"]);
    let component = if component.is_empty() { view.text("/reportingController") } else { component };
    let host = either(["/source/host", "/deprecatedSource/host", "/reportingInstance"]);
    if host.is_empty() { component.to_owned() } else { format!("{component}, {host}") }
}
