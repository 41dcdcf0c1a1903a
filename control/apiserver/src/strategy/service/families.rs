//! IP families of a service: which ones it gets, from its policy, its addresses and what the cluster has.
//!
//! In: a service, perhaps as it was before, the cluster's ranges. Out: the service with `ipFamilyPolicy` and
//! `ipFamilies` filled in, or field errors.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::{Value, json};

use super::{cluster_ips, is_headless, service_type, set_cluster_ips, strings};
use crate::field_error::FieldError;
use crate::meta;
use crate::validation;

const SINGLE: &str = "SingleStack";
const PREFER: &str = "PreferDualStack";
const REQUIRE: &str = "RequireDualStack";

/// Fills in the families.
pub(super) fn init(
    ranges: &[IpNet],
    service: &mut Value,
    old: Option<&Value>,
) -> Result<(), Vec<FieldError>> {
    if service_type(service) == "ExternalName" {
        return Ok(());
    }
    if let Some(old) = old.filter(|old| service_type(old) != "ExternalName") {
        if keeps_preferred(service, old) {
            return Ok(());
        }
        trim_downgrade(service, old);
    }
    if old.is_none()
        && policy(service).is_empty()
        && (families(service).len() == 2 || cluster_ips(service).len() == 2)
    {
        set_policy(service, REQUIRE);
    }
    check(service)?;
    if is_headless(service) && meta::at(service, &["spec", "selector"]).is_none() {
        init_headless(ranges, service);
        return Ok(());
    }
    if policy(service).is_empty() {
        set_policy(service, SINGLE);
    }
    let cluster: Vec<&str> = ranges.iter().map(|range| family(&range.addr())).collect();
    if policy(service) == REQUIRE && cluster.len() < 2 {
        return Err(vec![FieldError::invalid(
            "spec.ipFamilyPolicy",
            &json!(REQUIRE),
            "this cluster is not configured for dual-stack services",
        )]);
    }
    let mut wanted = families(service);
    for (index, address) in cluster_ips(service).iter().enumerate() {
        if let (Ok(address), true) = (address.parse::<IpAddr>(), wanted.len() <= index) {
            wanted.push(family(&address).to_owned());
        }
    }
    if wanted.is_empty() {
        wanted.extend(cluster.first().map(|&first| first.to_owned()));
    }
    if wanted.len() == 1 && policy(service) != SINGLE && cluster.len() > 1 {
        wanted.push(other(&wanted[0]).to_owned());
    }
    let missing: Vec<FieldError> = wanted
        .iter()
        .enumerate()
        .filter(|(_, family)| !cluster.contains(&family.as_str()))
        .map(|(index, family)| {
            FieldError::invalid(
                format!("spec.ipFamilies[{index}]"),
                &json!(family),
                "not configured on this cluster",
            )
        })
        .collect();
    if !missing.is_empty() {
        return Err(missing);
    }
    meta::set(service, &["spec", "ipFamilies"], Some(wanted.into()));
    Ok(())
}

/// Without a selector nobody knows the addresses: all families are allowed unless one was asked for.
fn init_headless(ranges: &[IpNet], service: &mut Value) {
    if policy(service).is_empty() {
        set_policy(service, REQUIRE);
    }
    let mut wanted = families(service);
    if wanted.is_empty() {
        wanted.extend(ranges.first().map(|range| family(&range.addr()).to_owned()));
    }
    if wanted.len() == 1 && policy(service) != SINGLE {
        wanted.push(other(&wanted[0]).to_owned());
    }
    meta::set(service, &["spec", "ipFamilies"], Some(wanted.into()));
}

/// A service that prefers two families keeps what it has until its policy or its addresses change.
fn keeps_preferred(new: &Value, old: &Value) -> bool {
    policy(new) == PREFER
        && policy(old) == PREFER
        && service_type(new) != "ExternalName"
        && cluster_ips(new) == cluster_ips(old)
        && families(new) == families(old)
        && !families(new).is_empty()
}

/// `SingleStack` on a service that had two families drops the second, unless the client named others.
fn trim_downgrade(new: &mut Value, old: &Value) {
    if policy(new) != SINGLE || policy(old) == SINGLE {
        return;
    }
    if cluster_ips(new) == cluster_ips(old) {
        let mut addresses = cluster_ips(new);
        addresses.truncate(1);
        set_cluster_ips(new, addresses);
    }
    if families(new) == families(old) {
        let mut kept = families(new);
        kept.truncate(1);
        meta::set(new, &["spec", "ipFamilies"], (!kept.is_empty()).then(|| kept.into()));
    }
}

/// Addresses and families that contradict each other.
fn check(service: &Value) -> Result<(), Vec<FieldError>> {
    let mut errors = validation::service_addresses(service);
    let (addresses, families) = (cluster_ips(service), families(service));
    if policy(service) == SINGLE {
        for (field, count) in [("clusterIPs", addresses.len()), ("ipFamilies", families.len())] {
            if count > 1 {
                let value = meta::at(service, &["spec", field]).cloned().unwrap_or_default();
                let detail = "may only hold up to 1 value";
                errors.push(FieldError::invalid(format!("spec.{field}"), &value, detail));
            }
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

fn policy(service: &Value) -> &str {
    meta::text(service, &["spec", "ipFamilyPolicy"])
}

fn set_policy(service: &mut Value, policy: &str) {
    meta::set(service, &["spec", "ipFamilyPolicy"], Some(policy.into()));
}

fn families(service: &Value) -> Vec<String> {
    strings(service, "ipFamilies")
}

pub(super) fn family(address: &IpAddr) -> &'static str {
    if address.is_ipv6() { "IPv6" } else { "IPv4" }
}

fn other(family: &str) -> &'static str {
    if family == "IPv4" { "IPv6" } else { "IPv4" }
}
