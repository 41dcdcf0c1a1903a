//! What the API server counts, under upstream's names, so that dashboards and alerts work.
//!
//! In: requests that were answered, requests under way, the store. Out: OpenMetrics text at `/metrics`. Labels come from
//! tables here, never from what a client invents: paths that lead nowhere share one series.

use std::time::Duration;

use http::{HeaderValue, Response, StatusCode, header};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry as Series;

use crate::body::{self, Body};
use crate::registry::Registry;
use crate::request::RequestInfo;
use crate::status::ApiError;
use crate::stored;
use crate::version;

const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Upstream's buckets, in seconds.
const BUCKETS: &[f64] = &[
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0,
    20.0, 30.0, 45.0, 60.0,
];
/// Paths that are no resources and have a series of their own.
const PATHS: &[&str] =
    &["/api", "/apis", "/healthz", "/livez", "/metrics", "/openapi/v2", "/openapi/v3", "/readyz", "/version"];

type Labels = Vec<(&'static str, String)>;
type Histograms = Family<Labels, Histogram, fn() -> Histogram>;

/// Counts since the start.
pub(crate) struct Metrics {
    series: Series,
    requests: Family<Labels, Counter>,
    durations: Histograms,
    under_way: Family<Labels, Gauge>,
    refused: Family<Labels, Counter>,
    objects: Family<Labels, Gauge>,
    resident: Gauge,
    revision: Gauge,
}

/// A request that is being answered; not any more when dropped.
pub(crate) struct UnderWay(Gauge);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.dec();
    }
}

// === impl Metrics ===

impl Metrics {
    pub(crate) fn new() -> Self {
        let histogram: fn() -> Histogram = || Histogram::new(BUCKETS.iter().copied());
        let mut metrics = Self {
            series: Series::default(),
            requests: Family::default(),
            durations: Family::new_with_constructor(histogram),
            under_way: Family::default(),
            refused: Family::default(),
            objects: Family::default(),
            resident: Gauge::default(),
            revision: Gauge::default(),
        };
        metrics.register();
        metrics
    }

    fn register(&mut self) {
        let series = &mut self.series;
        series.register("apiserver_request", "Requests that were answered", self.requests.clone());
        series.register(
            "apiserver_request_duration_seconds",
            "From the head of a request to the beginning of its answer, without watches",
            self.durations.clone(),
        );
        series.register(
            "apiserver_current_inflight_requests",
            "Requests that are being answered",
            self.under_way.clone(),
        );
        series.register(
            "apiserver_flowcontrol_rejected_requests",
            "Requests refused because too many were being answered",
            self.refused.clone(),
        );
        series.register("apiserver_resource_objects", "Objects that are stored", self.objects.clone());
        series.register("apiserver_storage_revision", "Revision of the last write", self.revision.clone());
        series.register("process_resident_memory_bytes", "Memory held by the process", self.resident.clone());
        let build = Family::<Labels, Gauge>::default();
        let info = version::info();
        let text = |field: &str| info[field].as_str().unwrap_or_default().to_owned();
        build
            .get_or_create(&vec![
                ("git_version", text("gitVersion")),
                ("major", text("major")),
                ("minor", text("minor")),
            ])
            .set(1);
        series.register("kubernetes_build_info", "Version of the API that is served", build);
    }

    pub(crate) fn begin(&self, reads: bool) -> UnderWay {
        let kind = if reads { "readOnly" } else { "mutating" };
        let gauge = self.under_way.get_or_create_owned(&vec![("request_kind", kind.to_owned())]);
        gauge.inc();
        UnderWay(gauge)
    }

    pub(crate) fn count(
        &self,
        registry: &Registry,
        info: &RequestInfo,
        dry_run: bool,
        code: StatusCode,
        took: Duration,
    ) {
        let mut labels = self.labels(registry, info, dry_run);
        if info.verb != "watch" {
            self.durations.get_or_create(&labels).observe(took.as_secs_f64());
        }
        if code == StatusCode::TOO_MANY_REQUESTS {
            self.refused.get_or_create(&vec![("reason", "concurrency-limit".to_owned())]).inc();
        }
        labels.push(("code", code.as_u16().to_string()));
        self.requests.get_or_create(&labels).inc();
    }

    fn labels(&self, registry: &Registry, info: &RequestInfo, dry_run: bool) -> Labels {
        let served =
            info.is_resource_request.then(|| registry.served(&info.group, &info.version, &info.resource));
        let served = served.flatten();
        let subresource = match &served {
            Some(served) if served.resource.subresource(&info.subresource).is_some() => {
                info.subresource.clone()
            }
            Some(_) => String::new(),
            None => {
                PATHS.iter().find(|path| **path == info.path).map_or(String::new(), |path| (*path).to_owned())
            }
        };
        let scope = match (&served, info.name.is_empty(), info.namespace.is_some()) {
            (None, ..) => "",
            (Some(_), false, _) => "resource",
            (Some(_), true, true) => "namespace",
            (Some(_), true, false) => "cluster",
        };
        let gvk = served.as_ref().map(|served| &served.resource.gvk);
        vec![
            ("verb", info.verb.to_ascii_uppercase()),
            ("dry_run", if dry_run { "All".to_owned() } else { String::new() }),
            ("group", gvk.map_or_else(String::new, |gvk| gvk.group.to_string())),
            ("version", gvk.map_or_else(String::new, |gvk| gvk.version.to_string())),
            ("resource", served.as_ref().map_or_else(String::new, |served| served.resource.plural.clone())),
            ("subresource", subresource),
            ("scope", scope.to_owned()),
            ("component", "apiserver".to_owned()),
        ]
    }

    /// The answer to `/metrics`.
    pub(crate) fn respond(&self, registry: &Registry) -> Result<Response<Body>, ApiError> {
        self.look(registry);
        let mut text = String::new();
        encode(&mut text, &self.series).map_err(ApiError::internal)?;
        let mut response = Response::new(body::full(text));
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
        Ok(response)
    }

    /// Reads what is only known when somebody asks.
    fn look(&self, registry: &Registry) {
        let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        self.revision.set(signed(registry.store.revision().0));
        self.resident.set(signed(resident_bytes().unwrap_or(0)));
        for resource in registry.catalog().all().filter(|resource| resource.stored_as.is_none()) {
            let prefix = stored::prefix(resource, None);
            let Ok(count) = registry.store.count(prefix.as_bytes(), None, None) else { continue };
            let labels =
                vec![("group", resource.gvk.group.to_string()), ("resource", resource.plural.clone())];
            self.objects.get_or_create(&labels).set(signed(count));
        }
    }
}

/// What the kernel says this process holds in memory.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_process_holds_memory() {
        assert!(super::resident_bytes().expect("Linux says it") > 1 << 20);
    }
}
