//! Services: address families, cluster addresses, node ports, and what a change of type leaves behind.
//!
//! In: services on their way into the store. Out: services that own what they name.

use serde_json::{Value, json};

use crate::alloc;
use crate::meta;
use crate::registry::Cx;
use crate::status::ApiError;
use crate::strategy::{Reservation, Strategy};

mod families;
mod reserve;

pub(crate) struct ServiceStrategy;

impl Strategy for ServiceStrategy {
    fn prepare_create(&self, cx: &Cx<'_>, service: &mut Value) -> Result<(), ApiError> {
        meta::set(service, &["status"], Some(json!({ "loadBalancer": {} })));
        let cluster_ip = meta::text(service, &["spec", "clusterIP"]).to_owned();
        if !cluster_ip.is_empty() && cluster_ips(service).is_empty() {
            set_cluster_ips(service, vec![cluster_ip]);
        }
        families::init(&cx.registry.config.service_cidrs, service, None)
            .map_err(|errors| invalid(service, &errors))
    }

    fn prepare_update(&self, cx: &Cx<'_>, new: &mut Value, old: &Value) -> Result<(), ApiError> {
        keep_allocated(new, old);
        drop_type_dependent(new, old);
        follow_cluster_ip(new, old);
        families::init(&cx.registry.config.service_cidrs, new, Some(old))
            .map_err(|errors| invalid(new, &errors))
    }

    fn reserve(
        &self,
        cx: &Cx<'_>,
        new: &mut Value,
        old: Option<&Value>,
    ) -> Result<Option<Box<dyn Reservation>>, ApiError> {
        let registry = cx.registry.clone();
        let mut reservation = reserve::ServiceReservation::new(registry);
        reservation.addresses(new, old)?;
        reservation.node_ports(new, old)?;
        if let Some(old) = old {
            reservation.release_on_commit(new, old);
        }
        Ok(Some(Box::new(reservation)))
    }

    fn release(&self, cx: &Cx<'_>, old: &Value) -> Option<Box<dyn Reservation>> {
        let mut reservation = reserve::ServiceReservation::new(cx.registry.clone());
        reservation.release_all_on_commit(old);
        Some(Box::new(reservation))
    }
}

fn invalid(service: &Value, errors: &[crate::field_error::FieldError]) -> ApiError {
    ApiError::invalid(&crate::kinds::Gvk::new("", "v1", "Service"), meta::name(service), errors)
}

// === reading a service ===

fn service_type(service: &Value) -> &str {
    match meta::text(service, &["spec", "type"]) {
        "" => "ClusterIP",
        other => other,
    }
}

fn strings(service: &Value, field: &str) -> Vec<String> {
    meta::items(service, &["spec", field]).filter_map(Value::as_str).map(ToOwned::to_owned).collect()
}

fn cluster_ips(service: &Value) -> Vec<String> {
    strings(service, "clusterIPs")
}

/// Both fields: the first of the list is the old, single one.
fn set_cluster_ips(service: &mut Value, addresses: Vec<String>) {
    let first = addresses.first().cloned();
    meta::set(service, &["spec", "clusterIP"], first.map(Value::from));
    meta::set(service, &["spec", "clusterIPs"], (!addresses.is_empty()).then(|| addresses.into()));
}

fn is_headless(service: &Value) -> bool {
    cluster_ips(service).first().is_some_and(|first| first == "None")
        || meta::text(service, &["spec", "clusterIP"]) == "None"
}

fn needs_cluster_ip(service: &Value) -> bool {
    service_type(service) != "ExternalName"
}

fn needs_node_ports(service: &Value) -> bool {
    let allocates = meta::at(service, &["spec", "allocateLoadBalancerNodePorts"]);
    match service_type(service) {
        "NodePort" => true,
        "LoadBalancer" => allocates.and_then(Value::as_bool).unwrap_or(true),
        _ => false,
    }
}

fn needs_health_check_port(service: &Value) -> bool {
    service_type(service) == "LoadBalancer"
        && meta::text(service, &["spec", "externalTrafficPolicy"]) == "Local"
}

fn is_reachable_from_outside(service: &Value) -> bool {
    matches!(service_type(service), "NodePort" | "LoadBalancer")
        || (service_type(service) == "ClusterIP" && !strings(service, "externalIPs").is_empty())
}

fn ports_of(service: &Value) -> Vec<u64> {
    let ports = meta::items(service, &["spec", "ports"]);
    ports.map(|port| port.get("nodePort").and_then(Value::as_u64).unwrap_or(0)).collect()
}

// === what an update leaves out ===

/// A client that leaves out what was allocated means to keep it.
fn keep_allocated(new: &mut Value, old: &Value) {
    if needs_cluster_ip(new) && needs_cluster_ip(old) {
        if meta::text(new, &["spec", "clusterIP"]).is_empty() {
            meta::set(new, &["spec", "clusterIP"], meta::at(old, &["spec", "clusterIP"]).cloned());
        }
        let same = meta::text(new, &["spec", "clusterIP"]) == meta::text(old, &["spec", "clusterIP"]);
        if cluster_ips(new).is_empty() && same {
            meta::set(new, &["spec", "clusterIPs"], meta::at(old, &["spec", "clusterIPs"]).cloned());
        }
    }
    if needs_node_ports(new) && needs_node_ports(old) {
        let known: Vec<(String, u64)> = meta::items(old, &["spec", "ports"])
            .map(|port| meta::text(port, &["name"]).to_owned())
            .zip(ports_of(old))
            .collect();
        let used = ports_of(new);
        for port in new.pointer_mut("/spec/ports").and_then(Value::as_array_mut).into_iter().flatten() {
            let name = meta::text(port, &["name"]).to_owned();
            let unset = port.get("nodePort").and_then(Value::as_u64).unwrap_or(0) == 0;
            let before = known.iter().find(|(known, _)| *known == name).map_or(0, |(_, number)| *number);
            if unset && before > 0 && !used.contains(&before) {
                meta::set(port, &["nodePort"], Some(before.into()));
            }
        }
    }
    if needs_health_check_port(new) && needs_health_check_port(old) {
        let path = ["spec", "healthCheckNodePort"];
        if meta::at(new, &path).and_then(Value::as_u64).unwrap_or(0) == 0 {
            meta::set(new, &path, meta::at(old, &path).cloned());
        }
    }
}

/// Fields that only the former type had go with it, unless the client set them anew.
fn drop_type_dependent(new: &mut Value, old: &Value) {
    let unchanged =
        |new: &Value, field: &str| meta::at(new, &["spec", field]) == meta::at(old, &["spec", field]);
    let mut dropped: Vec<&str> = Vec::new();
    if needs_cluster_ip(old) && !needs_cluster_ip(new) {
        if unchanged(new, "clusterIPs") {
            dropped.extend(["clusterIP", "clusterIPs"]);
        }
        for field in ["ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"] {
            if unchanged(new, field) {
                dropped.push(field);
            }
        }
    }
    if needs_health_check_port(old) && !needs_health_check_port(new) && unchanged(new, "healthCheckNodePort")
    {
        dropped.push("healthCheckNodePort");
    }
    if service_type(old) == "LoadBalancer" && service_type(new) != "LoadBalancer" {
        for field in ["allocateLoadBalancerNodePorts", "loadBalancerClass"] {
            if unchanged(new, field) {
                dropped.push(field);
            }
        }
    }
    let outside = is_reachable_from_outside(old) && !is_reachable_from_outside(new);
    if outside && unchanged(new, "externalTrafficPolicy") {
        dropped.push("externalTrafficPolicy");
    }
    for field in dropped {
        meta::set(new, &["spec", field], None);
    }
    if needs_node_ports(old) && !needs_node_ports(new) && ports_of(new) == ports_of(old) {
        for port in new.pointer_mut("/spec/ports").and_then(Value::as_array_mut).into_iter().flatten() {
            meta::set(port, &["nodePort"], None);
        }
    }
}

/// Old clients write only the single field.
fn follow_cluster_ip(new: &mut Value, old: &Value) {
    let (now, before) = (meta::text(new, &["spec", "clusterIP"]), meta::text(old, &["spec", "clusterIP"]));
    if now == before || cluster_ips(new) != cluster_ips(old) {
        return;
    }
    let list = if now.is_empty() { Vec::new() } else { vec![now.to_owned()] };
    meta::set(new, &["spec", "clusterIPs"], (!list.is_empty()).then(|| list.into()));
}

/// The ports a service holds; used to tell what an update gives up.
fn held_ports(service: &Value) -> Vec<u16> {
    if needs_node_ports(service) || needs_health_check_port(service) {
        alloc::node_ports(service)
    } else {
        Vec::new()
    }
}

#[cfg(test)]
mod tests;
