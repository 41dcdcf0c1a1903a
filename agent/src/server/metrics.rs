//! What the kubelet counts, under upstream's names.
//!
//! In: answers of the kubelet API, the register of pods. Out: metrics text.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Arc, Mutex, PoisonError};

use http::{Method, StatusCode};
use xebec_kubelet::Stats;

use super::process;
use crate::certificates::Counts;
use crate::client_counts::ClientCounts;

/// Paths that are counted apart; whatever else is asked for counts as one.
const PATHS: &[&str] = &[
    "configz",
    "healthz",
    "pods",
    "runningpods",
    "metrics",
    "stats",
    "containerLogs",
    "exec",
    "attach",
    "portForward",
    "run",
];

/// Answers by path, method and whether they go on for long.
type Requests = BTreeMap<(&'static str, String, bool), u64>;

/// Counters of the kubelet API.
#[derive(Clone)]
pub struct Metrics {
    node: String,
    certificates: [Counts; 2],
    asked: ClientCounts,
    requests: Arc<Mutex<Requests>>,
}

// === impl Metrics ===

impl Metrics {
    pub fn new(node: &str, certificates: [Counts; 2], asked: ClientCounts) -> Self {
        Self { node: node.to_owned(), certificates, asked, requests: Arc::default() }
    }

    /// Counts an answer.
    pub fn answered(&self, path: &str, method: &Method, status: StatusCode) {
        let path = PATHS.iter().find(|known| **known == path).copied().unwrap_or("other");
        let long = status == StatusCode::SWITCHING_PROTOCOLS || path == "containerLogs";
        // Methods beyond the usual are a client's own words: not kept.
        let method =
            if matches!(*method, Method::GET | Method::POST) { method.to_string() } else { "other".into() };
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        *requests.entry((path, method, long)).or_default() += 1;
    }

    /// The text of `/metrics`.
    pub fn text(&self, stats: &Stats) -> String {
        let (pods, containers) = stats.running();
        let mut text = String::new();
        let mut family = |name: &str, kind: &str, help: &str, samples: &[(String, u64)]| {
            // Writing to a string does not fail.
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
            for (labels, value) in samples {
                let _ = writeln!(text, "{name}{labels} {value}");
            }
        };
        family(
            "kubelet_node_name",
            "gauge",
            "The node's name. The count is always 1.",
            &[(format!("{{node=\"{}\"}}", self.node), 1)],
        );
        family(
            "kubelet_running_pods",
            "gauge",
            "Number of pods that have a running pod sandbox",
            &[(String::new(), pods as u64)],
        );
        family(
            "kubelet_running_containers",
            "gauge",
            "Number of containers currently running",
            &[("{container_state=\"running\"}".to_owned(), containers as u64)],
        );
        let version = if std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists() { 2 } else { 1 };
        family(
            "kubelet_cgroup_version",
            "gauge",
            "cgroup version on the hosts.",
            &[(String::new(), version)],
        );
        let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        let counted: Vec<(String, u64)> = requests
            .iter()
            .map(|((path, method, long), count)| {
                let labels =
                    format!("{{long_running=\"{long}\",method=\"{method}\",path=\"{path}\",server_type=\"readwrite\"}}");
                (labels, *count)
            })
            .collect();
        family(
            "kubelet_http_requests_total",
            "counter",
            "Number of the http requests received since the server started",
            &counted,
        );
        text.extend(self.certificates.iter().map(Counts::text));
        text.push_str(&self.asked.text());
        text.push_str(&process::text());
        text
    }
}
