//! The loop, fed by hand: no API server, a model for the tables.

mod api;
mod scenarios;

use futures::channel::mpsc;
use serde_json::json;
use std::sync::{Arc, Mutex};
use tokio::sync::watch;
use xebec_datapath::lb::Scope;

use super::*;
use crate::applied::Applied;
use crate::model::Model;
use crate::observe::Observer;

/// Hands every report on and keeps what is told of health checks.
struct Reports {
    reports: Mutex<mpsc::UnboundedSender<SyncReport>>,
    health_checks: Arc<Mutex<Vec<HealthCheckChange>>>,
}

impl Observer for Reports {
    fn synced(&self, report: &SyncReport) {
        let sender = self.reports.lock().unwrap();
        // The test may be over.
        let _ = sender.unbounded_send(report.clone());
    }

    fn health_checks(&self, changes: &[HealthCheckChange]) {
        self.health_checks.lock().unwrap().extend_from_slice(changes);
    }
}

type Feed<K> = mpsc::UnboundedSender<watcher::Result<Event<K>>>;

struct Bench {
    model: Arc<Model>,
    services: Feed<Service>,
    slices: Feed<EndpointSlice>,
    reports: mpsc::UnboundedReceiver<SyncReport>,
    health_checks: Arc<Mutex<Vec<HealthCheckChange>>>,
    node: watch::Sender<NodeView>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<Result<()>>,
}

/// Settings, the reports to come, and what keeps the node's view alive.
fn config() -> (ProxyConfig, mpsc::UnboundedReceiver<SyncReport>, watch::Sender<NodeView>) {
    let (config, reports, node, _) = observed_config();
    (config, reports, node)
}

type Told = Arc<Mutex<Vec<HealthCheckChange>>>;

fn observed_config() -> (ProxyConfig, mpsc::UnboundedReceiver<SyncReport>, watch::Sender<NodeView>, Told) {
    let (outbox, reports) = mpsc::unbounded();
    let view = NodeView { addresses: vec!["172.30.0.1".parse().unwrap()], zone: None };
    let (node, view) = watch::channel(view);
    let health_checks = Told::default();
    let observer = Reports { reports: Mutex::new(outbox), health_checks: Arc::clone(&health_checks) };
    let config = ProxyConfig {
        node_name: "here".into(),
        node: view,
        external_ips: false,
        observer: Arc::new(observer),
    };
    (config, reports, node, health_checks)
}

fn start(model: &Arc<Model>) -> Bench {
    let (config, reports, node, health_checks) = observed_config();
    start_with(model, config, reports, node, health_checks)
}

fn start_with(
    model: &Arc<Model>,
    config: ProxyConfig,
    reports: mpsc::UnboundedReceiver<SyncReport>,
    node: watch::Sender<NodeView>,
    health_checks: Told,
) -> Bench {
    let (services, service_events) = mpsc::unbounded();
    let (slices, slice_events) = mpsc::unbounded();
    let stop = CancellationToken::new();
    let proxier = Proxier::new(config, Arc::clone(model));
    let task = tokio::spawn(proxier.run(service_events.boxed(), slice_events.boxed(), stop.clone()));
    Bench { model: Arc::clone(model), services, slices, reports, health_checks, node, stop, task }
}

fn service(name: &str, ip: &str) -> Service {
    let ports = json!([{"port": 80, "nodePort": if ip.ends_with(".1") { 30080 } else { 30081 }}]);
    let spec = json!({"type": "NodePort", "clusterIP": ip, "ports": ports});
    serde_json::from_value(json!({"metadata": {"namespace": "a", "name": name}, "spec": spec})).unwrap()
}

fn slice(service: &str, addresses: &[&str]) -> EndpointSlice {
    let endpoints: Vec<_> = addresses.iter().map(|a| json!({"addresses": [a]})).collect();
    serde_json::from_value(json!({
        "metadata": {"namespace": "a", "name": service, "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4", "ports": [{"port": 8080}], "endpoints": endpoints,
    }))
    .unwrap()
}

impl Bench {
    fn list_services(&self, services: &[Service]) {
        let list = services.iter().cloned().map(Event::InitApply);
        for event in std::iter::once(Event::Init).chain(list).chain([Event::InitDone]) {
            self.services.unbounded_send(Ok(event)).unwrap();
        }
    }

    fn list_slices(&self, slices: &[EndpointSlice]) {
        let list = slices.iter().cloned().map(Event::InitApply);
        for event in std::iter::once(Event::Init).chain(list).chain([Event::InitDone]) {
            self.slices.unbounded_send(Ok(event)).unwrap();
        }
    }

    async fn synced(&mut self) -> SyncReport {
        // The clock is paused: it runs ahead only when there is nothing left to do.
        let next = tokio::time::timeout(Duration::from_secs(3600), self.reports.next()).await;
        next.expect("the proxy has something to tell").expect("the proxy runs")
    }

    async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap().unwrap();
    }

    fn reach(&self, address: &str) -> Option<usize> {
        self.model.reach(address, 80, Scope::Internal).map(|backends| backends.len())
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_written_before_both_lists_are_complete() {
    let mut bench = start(&Arc::new(Model::new(100, 100)));
    bench.list_services(&[service("web", "10.96.0.1")]);
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    assert_eq!(bench.model.tables().applied, 0);
    bench.list_slices(&[slice("web", &["10.1.0.1", "10.1.0.2"])]);
    let report = bench.synced().await;
    assert!(report.first && report.error.is_none(), "{report:?}");
    assert_eq!(bench.reach("10.96.0.1"), Some(2));
    assert_eq!(bench.model.reach("172.30.0.1", 30_080, Scope::External).unwrap().len(), 2);
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn restart_adopts_the_tables_and_removes_what_went_meanwhile() {
    let model = Arc::new(Model::new(100, 100));
    let mut bench = start(&model);
    bench.list_services(&[service("web", "10.96.0.1"), service("old", "10.96.0.2")]);
    bench.list_slices(&[slice("web", &["10.1.0.1"])]);
    bench.synced().await;
    let before = model.tables().services.clone();
    bench.stop().await;

    let mut bench = start(&model);
    bench.list_services(&[service("web", "10.96.0.1")]);
    bench.list_slices(&[slice("web", &["10.1.0.1"])]);
    let report = bench.synced().await;
    assert!(report.operations <= 3, "only the lost service is removed: {report:?}");
    assert_eq!(bench.reach("10.96.0.2"), None);
    let tables = model.tables().clone();
    assert!(tables.services.iter().all(|(frontend, entry)| before.get(frontend) == Some(entry)));
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn deletion_in_a_gap_of_the_watch_is_found_by_the_next_list() {
    let mut bench = start(&Arc::new(Model::new(100, 100)));
    bench.list_services(&[service("web", "10.96.0.1"), service("api", "10.96.0.2")]);
    bench.list_slices(&[slice("web", &["10.1.0.1"]), slice("api", &["10.1.0.2"])]);
    bench.synced().await;
    bench.services.unbounded_send(Err(watcher::Error::NoResourceVersion)).unwrap();
    bench.list_services(&[service("web", "10.96.0.1")]);
    bench.synced().await;
    assert_eq!((bench.reach("10.96.0.1"), bench.reach("10.96.0.2")), (Some(1), None));
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn failed_write_is_mended_from_the_tables_themselves() {
    for fail_after in 0..12 {
        let mut bench = start(&Arc::new(Model::new(100, 100)));
        bench.list_services(&[service("web", "10.96.0.1")]);
        bench.list_slices(&[slice("web", &["10.1.0.1"])]);
        bench.synced().await;
        bench.model.tables().fail_after = Some(fail_after);
        bench.services.unbounded_send(Ok(Event::Apply(service("api", "10.96.0.2")))).unwrap();
        bench.slices.unbounded_send(Ok(Event::Apply(slice("api", &["10.1.0.2", "10.1.0.3"])))).unwrap();
        bench.slices.unbounded_send(Ok(Event::Apply(slice("web", &["10.1.0.4"])))).unwrap();
        let mut report = bench.synced().await;
        for _ in 0..3 {
            if report.error.is_none() {
                break;
            }
            report = bench.synced().await;
        }
        assert!(report.error.is_none(), "{report:?}");
        assert_eq!((bench.reach("10.96.0.1"), bench.reach("10.96.0.2")), (Some(1), Some(2)));
        assert_eq!(bench.model.tables().backends.len(), 3, "after {fail_after}");
        bench.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn node_address_that_changes_moves_every_node_port() {
    let mut bench = start(&Arc::new(Model::new(100, 100)));
    bench.list_services(&[service("web", "10.96.0.1")]);
    bench.list_slices(&[slice("web", &["10.1.0.1"])]);
    bench.synced().await;
    bench.node.send(NodeView { addresses: vec!["172.30.0.9".parse().unwrap()], zone: None }).unwrap();
    bench.synced().await;
    assert!(bench.model.reach("172.30.0.1", 30_080, Scope::External).is_none());
    assert_eq!(bench.model.reach("172.30.0.9", 30_080, Scope::External).unwrap().len(), 1);
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn service_that_does_not_fit_is_tried_again() {
    let mut bench = start(&Arc::new(Model::new(100, 3)));
    bench.list_services(&[service("web", "10.96.0.1"), service("api", "10.96.0.2")]);
    bench.list_slices(&[slice("web", &["10.1.0.1", "10.1.0.2"]), slice("api", &["10.1.0.3", "10.1.0.4"])]);
    let report = bench.synced().await;
    assert_eq!(report.refused, 1);
    let refused = if bench.reach("10.96.0.1").is_none() { "10.96.0.1" } else { "10.96.0.2" };
    let fits = if refused == "10.96.0.1" { "api" } else { "web" };
    bench.services.unbounded_send(Ok(Event::Delete(service(fits, "10.96.0.9")))).unwrap();
    bench.synced().await;
    let report = bench.synced().await;
    assert_eq!((report.refused, bench.reach(refused)), (0, Some(2)));
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn sink_that_fails_is_tried_ever_less_often() {
    let mut bench = start(&Arc::new(Model::new(100, 100)));
    bench.model.tables().broken = true;
    bench.list_services(&[service("web", "10.96.0.1")]);
    bench.list_slices(&[slice("web", &["10.1.0.1"])]);
    let began = Instant::now();
    let mut failures = 0;
    while began.elapsed() < Duration::from_secs(600) {
        let report = bench.synced().await;
        assert!(report.error.is_some_and(|error| error.starts_with("reading the load-balancing tables")));
        failures += 1;
    }
    assert!((20..60).contains(&failures), "{failures} attempts in ten minutes");
    bench.model.tables().broken = false;
    assert!(bench.synced().await.error.is_none());
    assert_eq!(bench.reach("10.96.0.1"), Some(1));
    bench.stop().await;
}

/// Keeps the newest progress only.
struct Follower(watch::Sender<Applied>);

impl Observer for Follower {
    fn synced(&self, _: &SyncReport) {}

    fn applied(&self, applied: Applied) {
        self.0.send_replace(applied);
    }
}

#[tokio::test(start_paused = true)]
async fn progress_is_told_when_the_tables_have_it_and_not_before() {
    let (mut config, reports, node, health_checks) = observed_config();
    let (sender, mut applied) = watch::channel(Applied::default());
    config.observer = Arc::new(Follower(sender));
    let bench = start_with(&Arc::new(Model::new(100, 100)), config, reports, node, health_checks);
    let revised = |revision: &str, addresses: &[&str]| {
        let mut slice = slice("web", addresses);
        slice.metadata.resource_version = Some(revision.to_owned());
        slice
    };
    bench.list_services(&[service("web", "10.96.0.1")]);
    bench.list_slices(&[revised("7", &["10.1.0.1"])]);
    assert_eq!(applied.wait_for(|a| a.revision > 0).await.unwrap().revision, 7);
    bench.model.tables().fail_after = Some(1);
    let began = Instant::now();
    bench.slices.unbounded_send(Ok(Event::Apply(revised("9", &["10.1.0.2"])))).unwrap();
    assert_eq!(applied.wait_for(|a| a.revision > 7).await.unwrap().revision, 9);
    assert!(began.elapsed() >= WRITE_RETRY.0 / 2, "the first write failed");
    // What means nothing to the tables is progress all the same.
    bench.slices.unbounded_send(Ok(Event::Apply(revised("12", &["10.1.0.2"])))).unwrap();
    applied.wait_for(|a| a.revision == 12).await.unwrap();
    bench.stop().await;
}
