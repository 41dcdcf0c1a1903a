//! What services own alone: cluster addresses and node ports.
//!
//! In: configured ranges, the services in the store. Out: reservations that are given back unless committed. Kept in
//! memory, rebuilt at start: the services themselves are the record.

use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::Value;

use crate::config::ApiServerConfig;
use crate::meta;

pub(crate) mod ip;
pub(crate) mod port;

pub(crate) use ip::IpRange;
pub(crate) use port::PortRange;

/// The ranges, each owned by one lock holder at a time.
pub(crate) struct Allocators {
    ranges: Mutex<Ranges>,
}

pub(crate) struct Ranges {
    /// The first is the default family's.
    pub(crate) addresses: Vec<IpRange>,
    pub(crate) ports: PortRange,
}

/// Why nothing can be allocated; the texts are upstream's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AllocError {
    #[error("range is full")]
    Full,
    #[error("provided IP is already allocated")]
    AddressTaken,
    #[error("provided port is already allocated")]
    PortTaken,
    #[error("the provided IP ({address}) is not in the valid range. The range of valid IPs is {range}")]
    AddressOutside { address: String, range: String },
    #[error("provided port is not in the valid range. The range of valid ports is {0}")]
    PortOutside(String),
}

impl Allocators {
    /// Empty ranges; [`Self::adopt`] fills them.
    pub(crate) fn new(config: &ApiServerConfig) -> Self {
        let addresses = config.service_cidrs.iter().map(|cidr| IpRange::new(*cidr)).collect();
        let ports = PortRange::new(config.node_ports.clone());
        Self { ranges: Mutex::new(Ranges { addresses, ports }) }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Ranges> {
        // A panic between two insertions leaves a superset of what is taken: safe, and a restart rebuilds it.
        self.ranges.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what a stored service owns.
    pub(crate) fn adopt(&self, service: &Value) {
        let mut ranges = self.lock();
        for address in addresses(service) {
            let taken = ranges.range_of(address).map(|range| range.allocate(address));
            if !matches!(taken, Some(Ok(()))) {
                let name = meta::name(service);
                tracing::warn!(%address, service = name, "a stored service address is outside its range or taken twice");
            }
        }
        for port in node_ports(service) {
            // Two protocols of one service may share a number.
            let _ = ranges.ports.allocate(port);
        }
    }
}

impl Ranges {
    pub(crate) fn range_of(&mut self, address: std::net::IpAddr) -> Option<&mut IpRange> {
        self.addresses.iter_mut().find(|range| range.cidr().contains(&address))
    }

    pub(crate) fn release_address(&mut self, address: std::net::IpAddr) {
        if let Some(range) = self.range_of(address) {
            range.release(address);
        }
    }
}

/// The cluster addresses of a service; a headless one has none.
pub(crate) fn addresses(service: &Value) -> Vec<std::net::IpAddr> {
    let listed: Vec<&str> = meta::items(service, &["spec", "clusterIPs"]).filter_map(Value::as_str).collect();
    let listed = if listed.is_empty() { vec![meta::text(service, &["spec", "clusterIP"])] } else { listed };
    listed.into_iter().filter_map(|text| text.parse().ok()).collect()
}

/// The node ports of a service, each once, with that of its health check.
pub(crate) fn node_ports(service: &Value) -> Vec<u16> {
    let number =
        |value: &Value| value.as_u64().and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0);
    let mut ports: Vec<u16> = meta::items(service, &["spec", "ports"])
        .filter_map(|port| port.get("nodePort").and_then(number))
        .chain(meta::at(service, &["spec", "healthCheckNodePort"]).and_then(number))
        .collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}
