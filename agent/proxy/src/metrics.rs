//! What the proxy counts, under kube-proxy's names, so that its dashboards and alerts go on working.
//!
//! In: [`SyncReport`]s, answers of the health server. Out: OpenMetrics text. One synchronisation here writes both families;
//! it counts for each family the node serves, as two proxies of one family each would have counted it.

use std::fmt;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use jiff::Timestamp;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets, linear_buckets};
use prometheus_client::registry::Registry;

use crate::observe::SyncReport;

/// Content type of [`Metrics::text`].
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

const FAMILIES: [&str; 2] = ["IPv4", "IPv6"];

type Labels = Vec<(&'static str, &'static str)>;
type Seconds = Gauge<f64, AtomicU64>;
type Histograms = Family<Labels, Histogram, fn() -> Histogram>;

/// The proxy's metrics.
pub(crate) struct Metrics {
    registry: Registry,
    /// Indexes of the families this node serves.
    families: Vec<usize>,
    started: Timestamp,
    durations: Histograms,
    full_durations: Histograms,
    partial_durations: Histograms,
    programming: Histograms,
    last_written: Family<Labels, Seconds>,
    last_queued: Family<Labels, Seconds>,
    service_changes: Changes,
    endpoint_changes: Changes,
    no_local_endpoints: Family<Labels, Gauge>,
    refused: Gauge,
    failures: Counter,
    operations: Counter,
    healthz: Family<Labels, Counter>,
    livez: Family<Labels, Counter>,
}

/// Changes of one kind of object.
#[derive(Default)]
struct Changes {
    pending: Family<Labels, Gauge>,
    total: Family<Labels, Counter>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// Metrics of a node that serves IPv4, IPv6 or both.
    pub(crate) fn new(served: [bool; 2]) -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("kubeproxy"),
            families: (0..2).filter(|family| served[*family]).collect(),
            started: Timestamp::now(),
            durations: Family::new_with_constructor(sync_histogram),
            full_durations: Family::new_with_constructor(sync_histogram),
            partial_durations: Family::new_with_constructor(sync_histogram),
            programming: Family::new_with_constructor(programming_histogram),
            last_written: Family::default(),
            last_queued: Family::default(),
            service_changes: Changes::default(),
            endpoint_changes: Changes::default(),
            no_local_endpoints: Family::default(),
            refused: Gauge::default(),
            failures: Counter::default(),
            operations: Counter::default(),
            healthz: Family::default(),
            livez: Family::default(),
        };
        metrics.register_times();
        metrics.register_counts();
        metrics
    }

    fn register_times(&mut self) {
        let registry = &mut self.registry;
        let (all, full, partial) =
            (self.durations.clone(), self.full_durations.clone(), self.partial_durations.clone());
        registry.register(
            "sync_proxy_rules_duration_seconds",
            "Time to plan and write one synchronisation",
            all,
        );
        registry.register(
            "sync_full_proxy_rules_duration_seconds",
            "The same, where every service was compared",
            full,
        );
        registry.register(
            "sync_partial_proxy_rules_duration_seconds",
            "The same, where only changes were",
            partial,
        );
        let programming = self.programming.clone();
        registry.register(
            "network_programming_duration_seconds",
            "From the change of a Pod or Service to the last map write",
            programming,
        );
        let (written, queued) = (self.last_written.clone(), self.last_queued.clone());
        registry.register(
            "sync_proxy_rules_last_timestamp_seconds",
            "When the tables were last in step",
            written,
        );
        registry.register(
            "sync_proxy_rules_last_queued_timestamp_seconds",
            "When a change last arrived",
            queued,
        );
    }

    fn register_counts(&mut self) {
        let registry = &mut self.registry;
        for (what, changes) in [("service", &self.service_changes), ("endpoint", &self.endpoint_changes)] {
            let name = |suffix: &str| format!("sync_proxy_rules_{what}_changes{suffix}");
            registry.register(name("_pending"), "Changes that are not written", changes.pending.clone());
            registry.register(name(""), "Changes seen", changes.total.clone());
        }
        registry.register(
            "sync_proxy_rules_no_local_endpoints_total",
            "Service ports with a Local traffic policy and endpoints elsewhere only",
            self.no_local_endpoints.clone(),
        );
        registry.register("refused_services", "Services that do not fit the tables", self.refused.clone());
        registry.register("sync_failures", "Synchronisations that failed", self.failures.clone());
        registry.register("map_operations", "Operations on the tables", self.operations.clone());
        registry.register("proxy_healthz", "Answers of /healthz", self.healthz.clone());
        registry.register("proxy_livez", "Answers of /livez", self.livez.clone());
    }

    /// Everything, as Prometheus reads it.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a String does not fail.
        encode(&mut text, &self.registry).ok();
        text
    }

    pub(crate) fn synced(&self, report: &SyncReport, now: Timestamp) {
        let failed = report.error.is_some();
        self.operations.inc_by(report.operations as u64);
        self.failures.inc_by(u64::from(failed));
        self.refused.set(report.refused as i64);
        for family in &self.families {
            let labels = vec![("ip_family", FAMILIES[*family])];
            let seconds = |time: Timestamp| time.as_millisecond() as f64 / 1000.0;
            let queued = now.checked_sub(report.latency).unwrap_or(now);
            self.last_queued.get_or_create(&labels).set(seconds(queued));
            self.service_changes.count(&labels, report.service_changes, failed);
            self.endpoint_changes.count(&labels, report.slice_changes, failed);
            self.count_no_local(*family, report);
            if failed {
                continue;
            }
            self.last_written.get_or_create(&labels).set(seconds(now));
            let took = report.duration.as_secs_f64();
            self.durations.get_or_create(&labels).observe(took);
            let kind = if report.full { &self.full_durations } else { &self.partial_durations };
            kind.get_or_create(&labels).observe(took);
            // What changed before this process was there says nothing about it.
            if let Some(trigger) = report.trigger_time.filter(|trigger| *trigger >= self.started) {
                let since = Duration::try_from(now.duration_since(trigger)).unwrap_or_default();
                self.programming.get_or_create(&labels).observe(since.as_secs_f64());
            }
        }
    }

    fn count_no_local(&self, family: usize, report: &SyncReport) {
        let counts = report.no_local_endpoints[family];
        for (policy, count) in [("internal", counts.internal), ("external", counts.external)] {
            let labels = vec![("traffic_policy", policy), ("ip_family", FAMILIES[family])];
            self.no_local_endpoints.get_or_create(&labels).set(count as i64);
        }
    }

    pub(crate) fn answered_healthz(&self, healthy: bool) {
        self.healthz.get_or_create(&code(healthy)).inc();
    }

    pub(crate) fn answered_livez(&self, healthy: bool) {
        self.livez.get_or_create(&code(healthy)).inc();
    }
}

impl Changes {
    /// Changes that could not be written are reported again by the synchronisation that writes them.
    fn count(&self, labels: &Labels, changes: usize, failed: bool) {
        self.pending.get_or_create(labels).set(if failed { changes as i64 } else { 0 });
        self.total.get_or_create(labels).inc_by(if failed { 0 } else { changes as u64 });
    }
}

fn code(healthy: bool) -> Labels {
    vec![("code", if healthy { "200" } else { "503" })]
}

/// 1 ms to 16 s, doubling.
fn sync_histogram() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 15))
}

/// A quarter of a second to five minutes, finest where the objective lies.
fn programming_histogram() -> Histogram {
    let quarters = linear_buckets(0.25, 0.25, 2);
    let seconds = linear_buckets(1.0, 1.0, 59);
    let minutes = linear_buckets(60.0, 5.0, 12).chain(linear_buckets(120.0, 30.0, 7));
    Histogram::new(quarters.chain(seconds).chain(minutes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::NoLocalEndpoints;

    fn report() -> SyncReport {
        SyncReport {
            service_changes: 2,
            slice_changes: 3,
            operations: 7,
            duration: Duration::from_millis(3),
            latency: Duration::from_millis(5),
            no_local_endpoints: [NoLocalEndpoints { internal: 4, external: 0 }, NoLocalEndpoints::default()],
            ..SyncReport::default()
        }
    }

    #[test]
    fn text_has_the_names_and_labels_that_dashboards_ask_for() {
        let metrics = Metrics::new([true, true]);
        let now = metrics.started.checked_add(Duration::from_secs(2)).unwrap();
        metrics.synced(&SyncReport { trigger_time: Some(metrics.started), full: true, ..report() }, now);
        metrics.synced(&report(), now);
        metrics.answered_healthz(false);
        metrics.answered_livez(true);
        let text = metrics.text();
        for line in [
            r#"kubeproxy_sync_proxy_rules_duration_seconds_count{ip_family="IPv4"} 2"#,
            r#"kubeproxy_sync_full_proxy_rules_duration_seconds_bucket{le="0.004",ip_family="IPv6"} 1"#,
            r#"kubeproxy_sync_partial_proxy_rules_duration_seconds_count{ip_family="IPv4"} 1"#,
            r#"kubeproxy_network_programming_duration_seconds_bucket{le="1.0",ip_family="IPv4"} 0"#,
            r#"kubeproxy_network_programming_duration_seconds_bucket{le="2.0",ip_family="IPv4"} 1"#,
            r#"kubeproxy_sync_proxy_rules_service_changes_total{ip_family="IPv4"} 4"#,
            r#"kubeproxy_sync_proxy_rules_endpoint_changes_total{ip_family="IPv6"} 6"#,
            r#"kubeproxy_sync_proxy_rules_endpoint_changes_pending{ip_family="IPv6"} 0"#,
            r#"kubeproxy_sync_proxy_rules_no_local_endpoints_total{traffic_policy="internal",ip_family="IPv4"} 4"#,
            r#"kubeproxy_proxy_healthz_total{code="503"} 1"#,
            r#"kubeproxy_proxy_livez_total{code="200"} 1"#,
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        for name in ["last_timestamp_seconds", "last_queued_timestamp_seconds"] {
            assert!(
                text.contains(&format!("kubeproxy_sync_proxy_rules_{name}{{ip_family=\"IPv4\"}} ")),
                "{text}"
            );
        }
    }

    #[test]
    fn failed_synchronisation_leaves_its_changes_pending_and_counts_them_once() {
        let metrics = Metrics::new([true, false]);
        let now = Timestamp::now();
        metrics.synced(&SyncReport { error: Some("no".into()), ..report() }, now);
        let text = metrics.text();
        assert!(
            text.contains("kubeproxy_sync_proxy_rules_service_changes_pending{ip_family=\"IPv4\"} 2"),
            "{text}"
        );
        assert!(!text.contains("kubeproxy_sync_proxy_rules_duration_seconds_count{"), "{text}");
        metrics.synced(&report(), now);
        let text = metrics.text();
        assert!(
            text.contains("kubeproxy_sync_proxy_rules_service_changes_pending{ip_family=\"IPv4\"} 0"),
            "{text}"
        );
        assert!(
            text.contains("kubeproxy_sync_proxy_rules_service_changes_total{ip_family=\"IPv4\"} 2"),
            "{text}"
        );
        assert!(!text.contains("IPv6"), "{text}");
    }

    #[test]
    fn change_older_than_the_process_is_not_timed() {
        let metrics = Metrics::new([true, false]);
        let before = metrics.started.checked_sub(Duration::from_secs(60)).unwrap();
        metrics.synced(&SyncReport { trigger_time: Some(before), ..report() }, metrics.started);
        assert!(!metrics.text().contains("network_programming_duration_seconds_count{"));
    }
}
