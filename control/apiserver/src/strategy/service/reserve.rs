//! Taking addresses and ports for one write of a service.
//!
//! In: the service as wanted and as it was. Out: the service with every address and port filled in. What was taken goes
//! back if the write does not happen; what the service gave up goes back if it does.

use std::net::IpAddr;
use std::sync::Arc;

use serde_json::{Value, json};

use super::{
    cluster_ips, held_ports, is_headless, needs_cluster_ip, needs_health_check_port, needs_node_ports,
};
use super::{families, set_cluster_ips, strings};
use crate::alloc::{self, AllocError};
use crate::field_error::FieldError;
use crate::kinds::Gvk;
use crate::meta;
use crate::registry::Registry;
use crate::status::ApiError;
use crate::strategy::Reservation;

/// Taken and to be given back.
pub(super) struct ServiceReservation {
    registry: Arc<Registry>,
    taken_addresses: Vec<IpAddr>,
    taken_ports: Vec<u16>,
    freed_addresses: Vec<IpAddr>,
    freed_ports: Vec<u16>,
}

// === impl ServiceReservation ===

impl ServiceReservation {
    pub(super) fn new(registry: Arc<Registry>) -> Self {
        Self {
            registry,
            taken_addresses: Vec::new(),
            taken_ports: Vec::new(),
            freed_addresses: Vec::new(),
            freed_ports: Vec::new(),
        }
    }

    /// An address per family: the ones named, else any.
    pub(super) fn addresses(&mut self, service: &mut Value, old: Option<&Value>) -> Result<(), ApiError> {
        if !needs_cluster_ip(service) || is_headless(service) {
            return Ok(());
        }
        let owned = old.filter(|old| needs_cluster_ip(old)).map(cluster_ips).unwrap_or_default();
        let mut addresses = cluster_ips(service);
        let registry = self.registry.clone();
        let mut ranges = registry.allocators.lock();
        for (index, wanted) in strings(service, "ipFamilies").iter().enumerate() {
            let named = addresses.get(index).cloned().filter(|address| !address.is_empty());
            if named.as_ref().is_some_and(|named| owned.contains(named)) {
                continue;
            }
            let range = ranges.addresses.iter_mut().find(|range| {
                let first = range.first();
                families::family(&first) == wanted
            });
            let Some(range) = range else { continue };
            let address = match named {
                Some(named) => {
                    let refuse = |error: &dyn std::fmt::Display| {
                        let detail = format!("failed to allocate IP {named}: {error}");
                        let value = json!(cluster_ips(service));
                        invalid(service, FieldError::invalid("spec.clusterIPs", &value, detail))
                    };
                    let address: IpAddr = named.parse().map_err(|error| refuse(&error))?;
                    range.allocate(address).map_err(|error| refuse(&error))?;
                    address
                }
                None => range.allocate_next().map_err(|error| {
                    ApiError::internal(format!("failed to allocate a serviceIP: {error}"))
                })?,
            };
            self.taken_addresses.push(address);
            let text = address.to_string();
            match addresses.get_mut(index) {
                Some(slot) => *slot = text,
                None => addresses.push(text),
            }
        }
        drop(ranges);
        set_cluster_ips(service, addresses);
        Ok(())
    }

    /// A port per port: the ones named, else any; one number for two protocols of the same port.
    pub(super) fn node_ports(&mut self, service: &mut Value, old: Option<&Value>) -> Result<(), ApiError> {
        let owned = old.map(held_ports).unwrap_or_default();
        let registry = self.registry.clone();
        let mut ranges = registry.allocators.lock();
        let copy = service.clone();
        if needs_node_ports(service) {
            // (service port, node port) of what this loop has settled.
            let mut settled: Vec<(u64, u16)> = Vec::new();
            let ports = service.pointer_mut("/spec/ports").and_then(Value::as_array_mut);
            for (index, port) in ports.into_iter().flatten().enumerate() {
                let number = port.get("port").and_then(Value::as_u64).unwrap_or(0);
                let named = port.get("nodePort").and_then(Value::as_u64).filter(|port| *port > 0);
                let sibling = settled.iter().find(|(other, _)| *other == number).map(|(_, port)| *port);
                let node_port = match (named, sibling) {
                    (None, Some(sibling)) => sibling,
                    (Some(named), _) => {
                        let named = u16::try_from(named).unwrap_or(0);
                        if !owned.contains(&named) && !settled.iter().any(|(_, port)| *port == named) {
                            ranges.ports.allocate(named).map_err(|error| {
                                let field = format!("spec.ports[{index}].nodePort");
                                invalid(&copy, FieldError::invalid(field, &json!(named), error.to_string()))
                            })?;
                            self.taken_ports.push(named);
                        }
                        named
                    }
                    (None, None) => {
                        // A later port of the same number may name one for both.
                        let requested = later_request(&copy, number);
                        let node_port = match requested {
                            Some(requested) if owned.contains(&requested) => requested,
                            Some(requested) => {
                                ranges.ports.allocate(requested).map(|()| requested).map_err(|error| {
                                    let field = format!("spec.ports[{index}].nodePort");
                                    let value = json!(requested);
                                    invalid(&copy, FieldError::invalid(field, &value, error.to_string()))
                                })?
                            }
                            None => ranges.ports.allocate_next().map_err(|error| full(&error))?,
                        };
                        if !owned.contains(&node_port) {
                            self.taken_ports.push(node_port);
                        }
                        node_port
                    }
                };
                settled.push((number, node_port));
                meta::set(port, &["nodePort"], Some(node_port.into()));
            }
        }
        if needs_health_check_port(service) {
            let named = meta::at(service, &["spec", "healthCheckNodePort"])
                .and_then(Value::as_u64)
                .and_then(|port| u16::try_from(port).ok())
                .filter(|port| *port > 0);
            let port = match named {
                Some(named) if owned.contains(&named) => named,
                Some(named) => {
                    ranges.ports.allocate(named).map_err(|error| {
                        ApiError::internal(format!(
                            "failed to allocate requested HealthCheck NodePort {named}: {error}"
                        ))
                    })?;
                    self.taken_ports.push(named);
                    named
                }
                None => {
                    let port = ranges.ports.allocate_next().map_err(|error| {
                        ApiError::internal(format!("failed to allocate a HealthCheck NodePort: {error}"))
                    })?;
                    self.taken_ports.push(port);
                    port
                }
            };
            drop(ranges);
            meta::set(service, &["spec", "healthCheckNodePort"], Some(port.into()));
        }
        Ok(())
    }

    /// Notes everything a service has that goes.
    pub(super) fn release_all_on_commit(&mut self, old: &Value) {
        self.freed_addresses = alloc::addresses(old);
        self.freed_ports = alloc::node_ports(old);
    }

    /// Notes what the service had and has no more.
    pub(super) fn release_on_commit(&mut self, new: &Value, old: &Value) {
        let kept: Vec<IpAddr> = if needs_cluster_ip(new) { alloc::addresses(new) } else { Vec::new() };
        self.freed_addresses = alloc::addresses(old).into_iter().filter(|a| !kept.contains(a)).collect();
        let kept = held_ports(new);
        self.freed_ports = held_ports(old).into_iter().filter(|port| !kept.contains(port)).collect();
    }
}

impl Reservation for ServiceReservation {
    fn commit(mut self: Box<Self>) {
        self.taken_addresses = std::mem::take(&mut self.freed_addresses);
        self.taken_ports = std::mem::take(&mut self.freed_ports);
        // Dropped here: now it gives back what the service gave up.
    }
}

impl Drop for ServiceReservation {
    fn drop(&mut self) {
        if self.taken_addresses.is_empty() && self.taken_ports.is_empty() {
            return;
        }
        let mut ranges = self.registry.allocators.lock();
        for address in &self.taken_addresses {
            ranges.release_address(*address);
        }
        for port in &self.taken_ports {
            ranges.ports.release(*port);
        }
    }
}

fn later_request(service: &Value, number: u64) -> Option<u16> {
    meta::items(service, &["spec", "ports"])
        .filter(|port| port.get("port").and_then(Value::as_u64) == Some(number))
        .filter_map(|port| port.get("nodePort").and_then(Value::as_u64))
        .find_map(|port| u16::try_from(port).ok().filter(|port| *port > 0))
}

fn full(error: &AllocError) -> ApiError {
    ApiError::internal(format!("failed to allocate a nodePort: {error}"))
}

fn invalid(service: &Value, error: FieldError) -> ApiError {
    ApiError::invalid(&Gvk::new("", "v1", "Service"), meta::name(service), &[error])
}
