//! Health-check ports over real sockets on the loopback.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::*;
use crate::operations::tests::get;

fn checks() -> (HealthChecks, Arc<Health>) {
    let health = Arc::new(Health::new());
    let loopback = [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)];
    (HealthChecks::new(loopback, Arc::clone(&health), CancellationToken::new()), health)
}

fn free_port() -> u16 {
    std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

fn change(name: &str, state: Option<(u16, usize)>) -> HealthCheckChange {
    let state = state.map(|(port, ready)| HealthCheck { port, ready: [Some(ready), None] });
    HealthCheckChange { namespace: "a".into(), name: name.into(), state }
}

/// Lets the servers run until somebody listens, or nobody does any more.
async fn until_listening(port: u16, wanted: bool) -> SocketAddr {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let change = async {
        while tokio::net::TcpStream::connect(address).await.is_ok() != wanted {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), change).await.expect("the listener changes in time");
    address
}

async fn asked(port: u16) -> (u16, String) {
    get(until_listening(port, true).await, "/anything").await
}

#[tokio::test]
async fn answer_follows_the_number_of_endpoints_and_the_proxys_health() {
    let ((checks, health), port) = (checks(), free_port());
    checks.update(&[change("web", Some((port, 2)))]);
    let (code, answer) = asked(port).await;
    assert_eq!(code, 200);
    assert!(answer.contains("x-load-balancing-endpoint-weight: 2"), "{answer}");
    let body: serde_json::Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
    let expected = json!({
        "service": {"namespace": "a", "name": "web"}, "localEndpoints": 2, "serviceProxyHealthy": true,
    });
    assert_eq!(body, expected);
    checks.update(&[change("web", Some((port, 0)))]);
    assert_eq!(asked(port).await.0, 503);
    checks.update(&[change("web", Some((port, 1)))]);
    health.queued(Instant::now().checked_sub(Duration::from_secs(61)).unwrap());
    let (code, answer) = asked(port).await;
    assert!(code == 503 && answer.contains(r#""serviceProxyHealthy":false"#), "{answer}");
}

#[tokio::test]
async fn port_that_changes_hands_at_once_is_had_in_the_end() {
    let ((checks, _), port) = (checks(), free_port());
    checks.update(&[change("old", Some((port, 1)))]);
    asked(port).await;
    // The new owner comes first: the port is still taken.
    checks.update(&[change("new", Some((port, 1))), change("old", None)]);
    let handed_over = async { while !asked(port).await.1.contains(r#""name":"new""#) {} };
    tokio::time::timeout(Duration::from_secs(10), handed_over).await.expect("the new owner answers");
    checks.update(&[change("new", None)]);
    until_listening(port, false).await;
}
