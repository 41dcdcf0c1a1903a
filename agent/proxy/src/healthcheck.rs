//! `healthCheckNodePort`: tells load balancers whether this node has endpoints of a Service.
//!
//! In: changes of health checks. Out: one listener per Service and family, which answers any path. A port that cannot be
//! had is tried again: its last owner may be on its way out.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::header::{HeaderName, HeaderValue};
use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{info, warn};

use crate::health::Health;
use crate::http::{self, Handler, Reply};
use crate::observe::{HealthCheck, HealthCheckChange};
use crate::retry::Retry;
use crate::types::ServiceKey;

/// Tells a load balancer how many connections this node should have.
const WEIGHT: HeaderName = HeaderName::from_static("x-load-balancing-endpoint-weight");

/// First and longest wait for a port that is taken.
const LISTEN_RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));

/// Listeners of health-check ports.
#[derive(Debug)]
pub(crate) struct HealthChecks {
    /// Where to listen, for IPv4 and IPv6.
    addresses: [IpAddr; 2],
    health: Arc<Health>,
    shutdown: CancellationToken,
    open: Mutex<HashMap<ServiceKey, Listeners>>,
}

/// Listeners of one Service, for IPv4 and IPv6.
type Listeners = [Option<Open>; 2];

/// One listener, perhaps still waiting for its port.
#[derive(Debug)]
struct Open {
    port: u16,
    ready: Arc<AtomicUsize>,
    /// Cancelled with this value.
    _stop: DropGuard,
}

impl HealthChecks {
    pub(crate) fn new(addresses: [IpAddr; 2], health: Arc<Health>, shutdown: CancellationToken) -> Self {
        Self { addresses, health, shutdown, open: Mutex::default() }
    }

    /// Opens, closes and updates listeners. To be called within the runtime.
    pub(crate) fn update(&self, changes: &[HealthCheckChange]) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        for change in changes {
            let key = ServiceKey::new(&change.namespace, &change.name);
            let Some(state) = change.state else {
                open.remove(&key);
                continue;
            };
            let listeners = open.entry(key).or_default();
            for (family, slot) in listeners.iter_mut().enumerate() {
                self.update_one(change, state, family, slot);
            }
        }
    }

    fn update_one(
        &self,
        change: &HealthCheckChange,
        state: HealthCheck,
        family: usize,
        slot: &mut Option<Open>,
    ) {
        let Some(ready) = state.ready[family] else {
            *slot = None;
            return;
        };
        if let Some(open) = slot.as_ref().filter(|open| open.port == state.port) {
            open.ready.store(ready, Ordering::Relaxed);
            return;
        }
        let address = SocketAddr::new(self.addresses[family], state.port);
        let (ready, stop) = (Arc::new(AtomicUsize::new(ready)), self.shutdown.child_token());
        let handler = handler(change, Arc::clone(&ready), Arc::clone(&self.health));
        tokio::spawn(keep_open(address, handler, stop.clone()));
        *slot = Some(Open { port: state.port, ready, _stop: stop.drop_guard() });
    }
}

/// Listens and serves; tries again for as long as the port is taken.
async fn keep_open(address: SocketAddr, handler: Handler, stop: CancellationToken) {
    let mut warned = false;
    for wait in Retry::new(LISTEN_RETRY.0, LISTEN_RETRY.1) {
        match http::listen(address) {
            Ok(listener) => {
                info!(%address, "health checks of a Service are answered");
                return http::serve(listener, handler, stop).await;
            }
            Err(error) if !std::mem::replace(&mut warned, true) => {
                warn!(%address, %error, "the health-check port of a Service cannot be had: trying on");
            }
            Err(_) => {}
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = stop.cancelled() => return,
        }
    }
}

fn handler(change: &HealthCheckChange, ready: Arc<AtomicUsize>, health: Arc<Health>) -> Handler {
    let service = json!({"namespace": change.namespace, "name": change.name});
    Arc::new(move |_| {
        let (count, keeps_up) = (ready.load(Ordering::Relaxed), health.keeps_up(Instant::now()));
        let body = json!({"service": service, "localEndpoints": count, "serviceProxyHealthy": keeps_up});
        let mut reply = Reply::json(Reply::status(count > 0 && keeps_up), &body);
        reply.headers.push((WEIGHT, HeaderValue::from(count)));
        reply
    })
}

#[cfg(test)]
mod tests;
