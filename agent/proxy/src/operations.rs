//! What operators and load balancers see of the proxy: health, metrics, configuration, health-check ports.
//!
//! In: [`OperationsConfig`], what the proxy tells as an [`Observer`]. Out: plain HTTP on kube-proxy's ports and paths.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use hyper::StatusCode;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::error::{Error, Result};
use crate::health::Health;
use crate::healthcheck::HealthChecks;
use crate::http::{self, Handler, Reply};
use crate::metrics::{self, Metrics};
use crate::observe::{HealthCheckChange, Observer, SyncReport};

/// kube-proxy's port for health.
pub const HEALTHZ_PORT: u16 = 10256;

/// kube-proxy's port for metrics, which only the node itself may see.
pub const METRICS_PORT: u16 = 10249;

/// Settings of what operators see.
#[derive(Clone, Debug)]
pub struct OperationsConfig {
    /// Name of this node, shown in `/configz`.
    pub node_name: String,
    /// Address of `/healthz` and `/livez`; none: not served.
    pub healthz: Option<SocketAddr>,
    /// Address of `/metrics`, `/proxyMode` and `/configz`; none: not served.
    pub metrics: Option<SocketAddr>,
    /// Where health-check ports of Services listen, for IPv4 and IPv6.
    pub health_checks: [IpAddr; 2],
    /// Families that this node serves: IPv4, IPv6.
    pub families: [bool; 2],
}

/// Health, metrics and health-check ports of a running proxy.
#[derive(Debug)]
pub struct Operations {
    metrics: Metrics,
    health: Arc<Health>,
    health_checks: HealthChecks,
    configuration: Value,
}

impl OperationsConfig {
    /// kube-proxy's addresses for a node.
    #[must_use]
    pub fn new(node_name: &str, node_addresses: &[IpAddr]) -> Self {
        let families = [true, false].map(|v4| node_addresses.iter().any(|ip| ip.is_ipv4() == v4));
        let everywhere = [IpAddr::from(Ipv4Addr::UNSPECIFIED), IpAddr::from(Ipv6Addr::UNSPECIFIED)];
        let loopback = [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)];
        // As kube-proxy has it: the node's first family decides.
        let family = usize::from(node_addresses.first().is_some_and(IpAddr::is_ipv6));
        Self {
            node_name: node_name.to_owned(),
            healthz: Some(SocketAddr::new(everywhere[family], HEALTHZ_PORT)),
            metrics: Some(SocketAddr::new(loopback[family], METRICS_PORT)),
            health_checks: everywhere,
            families,
        }
    }
}

impl Operations {
    /// Listens; serving goes on in the background until shut down. The result is the proxy's observer.
    ///
    /// # Errors
    /// When an address cannot be listened at.
    pub fn start(config: &OperationsConfig, shutdown: &CancellationToken) -> Result<Arc<Self>> {
        let health = Arc::new(Health::new());
        let operations = Arc::new(Self {
            metrics: Metrics::new(config.families),
            health_checks: HealthChecks::new(config.health_checks, Arc::clone(&health), shutdown.clone()),
            health,
            configuration: configuration(config),
        });
        for (address, answer) in
            [(config.healthz, Self::health as fn(&Self, &str) -> Reply), (config.metrics, Self::monitor)]
        {
            let Some(address) = address else { continue };
            let listener = http::listen(address).map_err(|error| in_use(address, error))?;
            let operations = Arc::clone(&operations);
            let handler: Handler = Arc::new(move |path| answer(&operations, path));
            tokio::spawn(http::serve(listener, handler, shutdown.clone()));
        }
        Ok(operations)
    }

    /// Whether load balancers may send new connections to this node; see [`crate::node_is_eligible`].
    pub fn set_node_eligible(&self, eligible: bool) {
        self.health.set_eligible(eligible);
    }

    /// Everything counted, as OpenMetrics text.
    #[must_use]
    pub fn metrics(&self) -> String {
        self.metrics.text()
    }

    /// The port for health.
    fn health(&self, path: &str) -> Reply {
        match path {
            "/healthz" => {
                let answer = self.health.healthz(Instant::now(), Timestamp::now());
                self.metrics.answered_healthz(answer.healthy);
                Reply::json(Reply::status(answer.healthy), &answer)
            }
            "/livez" => {
                let answer = self.health.livez(Instant::now(), Timestamp::now());
                self.metrics.answered_livez(answer.healthy);
                Reply::json(Reply::status(answer.healthy), &answer)
            }
            _ => not_found(path),
        }
    }

    /// The port for metrics.
    fn monitor(&self, path: &str) -> Reply {
        match path {
            "/metrics" => Reply {
                content_type: metrics::CONTENT_TYPE,
                ..Reply::text(StatusCode::OK, self.metrics.text())
            },
            "/healthz" => self.health(path),
            "/proxyMode" => Reply::text(StatusCode::OK, "ebpf"),
            "/configz" => Reply::json(StatusCode::OK, &self.configuration),
            _ => not_found(path),
        }
    }
}

impl Observer for Operations {
    fn queued(&self) {
        self.health.queued(Instant::now());
    }

    fn synced(&self, report: &SyncReport) {
        let now = Timestamp::now();
        self.metrics.synced(report, now);
        if report.error.is_none() {
            self.health.updated(now);
        }
    }

    fn health_checks(&self, changes: &[HealthCheckChange]) {
        self.health_checks.update(changes);
    }
}

fn not_found(path: &str) -> Reply {
    Reply::text(StatusCode::NOT_FOUND, format!("nothing is served at {path}\n"))
}

fn in_use(address: SocketAddr, source: io::Error) -> Error {
    Error::Listen { address, source }
}

/// What kube-proxy shows, as far as it has a meaning here.
fn configuration(config: &OperationsConfig) -> Value {
    let shown = |address: Option<SocketAddr>| address.map(|address| address.to_string()).unwrap_or_default();
    json!({"kubeproxy.config.k8s.io": {
        "kind": "KubeProxyConfiguration",
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "hostnameOverride": config.node_name,
        "healthzBindAddress": shown(config.healthz),
        "metricsBindAddress": shown(config.metrics),
        "mode": "ebpf",
    }})
}

#[cfg(test)]
pub(crate) mod tests;
