//! Paths and codes over real sockets on the loopback.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;

/// A free port. Another process could take it before it is used; nothing else here does.
fn free(address: IpAddr) -> SocketAddr {
    std::net::TcpListener::bind((address, 0)).unwrap().local_addr().unwrap()
}

/// Status, headers and body of a GET.
pub(crate) async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let talk = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        (answer.split(' ').nth(1).unwrap().parse().unwrap(), answer)
    };
    tokio::time::timeout(Duration::from_secs(10), talk).await.expect("an answer in time")
}

struct Served {
    operations: Arc<Operations>,
    config: OperationsConfig,
    _stop: tokio_util::sync::DropGuard,
}

fn served() -> Served {
    let loopback = IpAddr::from(Ipv4Addr::LOCALHOST);
    let shutdown = CancellationToken::new();
    let config = OperationsConfig {
        healthz: Some(free(loopback)),
        metrics: Some(free(loopback)),
        ..OperationsConfig::new("here", &[loopback])
    };
    let operations = Operations::start(&config, &shutdown).unwrap();
    Served { operations, config, _stop: shutdown.drop_guard() }
}

#[tokio::test]
async fn health_is_told_by_code_and_counted() {
    let served = served();
    let address = served.config.healthz.unwrap();
    let (code, answer) = get(address, "/healthz").await;
    assert!(
        code == 200 && answer.contains(r#""nodeEligible":true"#) && answer.contains("nosniff"),
        "{answer}"
    );
    served.operations.set_node_eligible(false);
    assert_eq!(get(address, "/healthz").await.0, 503);
    assert_eq!(get(address, "/livez").await.0, 200, "a node about to go is alive");
    assert_eq!(get(address, "/").await.0, 404);
    let (code, text) = get(served.config.metrics.unwrap(), "/metrics").await;
    assert!(code == 200 && text.contains(r#"kubeproxy_proxy_healthz_total{code="503"} 1"#), "{text}");
    assert!(text.contains("application/openmetrics-text"), "{text}");
}

#[tokio::test]
async fn metrics_port_shows_mode_and_configuration() {
    let served = served();
    let address = served.config.metrics.unwrap();
    let (_, mode) = get(address, "/proxyMode").await;
    assert!(mode.ends_with("\r\n\r\nebpf"), "{mode}");
    let (code, configuration) = get(address, "/configz").await;
    assert!(code == 200 && configuration.contains(r#""hostnameOverride":"here""#), "{configuration}");
    assert_eq!(get(address, "/healthz").await.0, 200);
}

#[tokio::test]
async fn address_in_use_is_one_clear_error() {
    let served = served();
    let error = Operations::start(&served.config, &CancellationToken::new()).unwrap_err().to_string();
    let expected = format!("cannot listen at {}", served.config.healthz.unwrap());
    assert!(error.starts_with(&expected), "{error}");
}

#[tokio::test]
async fn failed_synchronisation_does_not_count_as_an_update() {
    let served = served();
    served.operations.queued();
    served.operations.synced(&SyncReport { error: Some("no".into()), ..SyncReport::default() });
    assert!(!served.operations.health.keeps_up(Instant::now() + Duration::from_secs(61)));
    served.operations.synced(&SyncReport::default());
    assert!(served.operations.health.keeps_up(Instant::now() + Duration::from_secs(61)));
}
