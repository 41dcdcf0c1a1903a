//! Jobs and cron jobs.
//!
//! In: objects of the group `batch`. Out: their cells.

use serde_json::Value;

use super::human;
use super::view::{self, NONE, UNSET, View};
use super::{AGE, CONTAINERS, Column, IMAGES, Layout, NAME, SELECTOR, boolean, integer, string};

const JOB: &[Column] = &[
    NAME,
    string("Status", "What the job is up to, in a word."),
    string("Completions", "How many pods succeeded of those that have to."),
    string("Duration", "How long the job has been running, or ran."),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

const CRON_JOB: &[Column] = &[
    NAME,
    string("Schedule", "When jobs are started, in cron's format."),
    string("Timezone", "The time zone of the schedule."),
    boolean("Suspend", "Whether no further jobs are started."),
    integer("Active", "How many jobs are running."),
    string("Last Schedule", "How long ago a job was started."),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

pub(super) fn layout(kind: &str) -> Option<Layout> {
    Some(match kind {
        "Job" => Layout { columns: JOB, cells: job },
        "CronJob" => Layout { columns: CRON_JOB, cells: cron_job },
        _ => return None,
    })
}

fn job(view: &View<'_>) -> Vec<Value> {
    let [names, images] = view.containers("/spec/template/spec/containers");
    vec![
        view.name(),
        status(view).into(),
        completions(view).into(),
        duration(view).into(),
        view.age(),
        names,
        images,
        view.selector("/spec/selector"),
    ]
}

fn status(view: &View<'_>) -> &'static str {
    if view.condition("Complete") {
        "Complete"
    } else if view.condition("Failed") {
        "Failed"
    } else if view.is_deleted() {
        "Terminating"
    } else if view.condition("Suspended") {
        "Suspended"
    } else if view.condition("FailureTarget") {
        "FailureTarget"
    } else if view.condition("SuccessCriteriaMet") {
        "SuccessCriteriaMet"
    } else {
        "Running"
    }
}

fn completions(view: &View<'_>) -> String {
    let succeeded = view.number("/status/succeeded");
    let parallelism = view.number("/spec/parallelism");
    match view.at("/spec/completions").and_then(Value::as_i64) {
        Some(wanted) => format!("{succeeded}/{wanted}"),
        None if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
        None => format!("{succeeded}/1"),
    }
}

fn duration(view: &View<'_>) -> String {
    let Some(start) = view::parse(view.text("/status/startTime")) else { return String::new() };
    let end = view::parse(view.text("/status/completionTime")).unwrap_or(view.now);
    human::duration(view::whole_seconds(start, end))
}

fn cron_job(view: &View<'_>) -> Vec<Value> {
    let [names, images] = view.containers("/spec/jobTemplate/spec/template/spec/containers");
    let last = match view.text("/status/lastScheduleTime") {
        "" => NONE.to_owned(),
        time => view.since(time),
    };
    let suspend = match view.at("/spec/suspend").and_then(Value::as_bool) {
        None => UNSET,
        Some(true) => "True",
        Some(false) => "False",
    };
    vec![
        view.name(),
        view.cell("/spec/schedule"),
        view.text_or("/spec/timeZone", NONE).into(),
        suspend.into(),
        view.count("/status/active").into(),
        last.into(),
        view.age(),
        names,
        images,
        view.selector("/spec/jobTemplate/spec/selector"),
    ]
}
