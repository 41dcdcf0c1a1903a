//! The cluster domain: which names exist and what they resolve to. Pure.
//!
//! In: Services and EndpointSlices as they come and go. Out: [`Answer`]s by the Kubernetes DNS specification 1.1.

mod service;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;

pub(crate) use service::{Endpoint, ServiceEntry, ServiceKind, SliceEntry};

/// Version of the specification, answered at `dns-version.<domain>`.
const VERSION: &str = "1.1.0";
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// A Service's namespace and name.
type Key = (String, String);

/// All names of the cluster domain.
#[derive(Debug)]
pub(crate) struct Zone {
    /// Labels of the cluster domain, `cluster.local` → `["cluster", "local"]`.
    domain: Vec<String>,
    services: HashMap<Key, ServiceEntry>,
    /// By namespace and slice name.
    slices: HashMap<Key, SliceEntry>,
    /// Slices that have an endpoint with the address: anybody may ask for any address, and often.
    slices_by_address: HashMap<IpAddr, BTreeSet<Key>>,
    /// Slices of each Service.
    slices_of: HashMap<Key, BTreeSet<String>>,
    /// Services per namespace: a namespace's name exists while it has one.
    namespaces: BTreeMap<String, usize>,
    /// Cluster address → Service.
    by_address: HashMap<IpAddr, Key>,
}

/// Record types the zone knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    V4,
    V6,
    Srv,
    Txt,
    /// Any other type: the name may exist, the type does not.
    Other,
}

/// One record, without its owner name (that of the query).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Data {
    Address(IpAddr),
    /// Port and target name without the final dot.
    Srv(u16, String),
    Alias(String),
    Text(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Records(Vec<Data>),
    /// The name exists, the type does not.
    NoData,
    NoName,
}

// === impl Zone ===

impl Zone {
    /// An empty zone of a domain given as its labels in lower case.
    pub(crate) fn new(domain: Vec<String>) -> Self {
        Self {
            domain,
            services: HashMap::new(),
            slices: HashMap::new(),
            slices_by_address: HashMap::new(),
            slices_of: HashMap::new(),
            namespaces: BTreeMap::new(),
            by_address: HashMap::new(),
        }
    }

    pub(crate) fn put_service(&mut self, service: &Service) {
        let key = (service.namespace().unwrap_or_default(), service.name_any());
        self.remove_service(&key);
        let entry = ServiceEntry::of(service);
        for address in &entry.addresses {
            self.by_address.insert(*address, key.clone());
        }
        *self.namespaces.entry(key.0.clone()).or_default() += 1;
        self.services.insert(key, entry);
    }

    pub(crate) fn remove_service(&mut self, key: &Key) {
        let Some(old) = self.services.remove(key) else { return };
        for address in &old.addresses {
            // The address may have gone to another Service in the meantime.
            if self.by_address.get(address) == Some(key) {
                self.by_address.remove(address);
            }
        }
        if let Some(count) = self.namespaces.get_mut(&key.0) {
            *count -= 1;
            if *count == 0 {
                self.namespaces.remove(&key.0);
            }
        }
    }

    pub(crate) fn put_slice(&mut self, slice: &EndpointSlice) {
        let key = (slice.namespace().unwrap_or_default(), slice.name_any());
        self.remove_slice(&key);
        let Some(service) = slice.labels().get(SERVICE_NAME).cloned() else { return };
        self.slices_of.entry((key.0.clone(), service.clone())).or_default().insert(key.1.clone());
        let entry = SliceEntry::of(slice, service);
        for address in entry.endpoints.iter().flat_map(|endpoint| &endpoint.addresses) {
            self.slices_by_address.entry(*address).or_default().insert(key.clone());
        }
        self.slices.insert(key, entry);
    }

    pub(crate) fn remove_slice(&mut self, key: &Key) {
        let Some(old) = self.slices.remove(key) else { return };
        for address in old.endpoints.iter().flat_map(|endpoint| &endpoint.addresses) {
            if let Some(slices) = self.slices_by_address.get_mut(address) {
                slices.remove(key);
                if slices.is_empty() {
                    self.slices_by_address.remove(address);
                }
            }
        }
        let owner = (key.0.clone(), old.service);
        if let Some(names) = self.slices_of.get_mut(&owner) {
            names.remove(&key.1);
            if names.is_empty() {
                self.slices_of.remove(&owner);
            }
        }
    }

    /// The part of a name before the cluster domain; `None` when it is not of this domain. In lower case.
    pub(crate) fn inside<'a>(&self, labels: &'a [String]) -> Option<&'a [String]> {
        let split = labels.len().checked_sub(self.domain.len())?;
        (labels[split..] == self.domain[..]).then(|| &labels[..split])
    }

    /// Resolves a name given as its labels before the cluster domain.
    pub(crate) fn lookup(&self, labels: &[String], wanted: Wanted) -> Answer {
        let parts: Vec<&str> = labels.iter().map(String::as_str).collect();
        match parts.as_slice() {
            [] | ["svc" | "pod"] => Answer::NoData,
            ["dns-version"] => match wanted {
                Wanted::Txt => Answer::Records(vec![Data::Text(VERSION.to_owned())]),
                _ => Answer::NoData,
            },
            [namespace, "svc" | "pod"] => {
                if self.namespaces.contains_key(*namespace) {
                    Answer::NoData
                } else {
                    Answer::NoName
                }
            }
            [service, namespace, "svc"] => self.service(namespace, service, wanted),
            [protocol, service, namespace, "svc"] if is_protocol(protocol) => {
                // An empty non-terminal above the port names.
                if self.find(namespace, service).is_some() { Answer::NoData } else { Answer::NoName }
            }
            [port, protocol, service, namespace, "svc"] if is_protocol(protocol) && port.starts_with('_') => {
                self.port(namespace, service, &port[1..], &protocol[1..], wanted)
            }
            [host, service, namespace, "svc"] => self.endpoint(namespace, service, host, wanted),
            [address, namespace, "pod"] => self.pod(namespace, address, wanted),
            _ => Answer::NoName,
        }
    }

    /// Name of a cluster address or of an endpoint of a headless Service, without the final dot.
    pub(crate) fn reverse(&self, address: IpAddr) -> Option<String> {
        if let Some((namespace, name)) = self.by_address.get(&address) {
            return Some(format!("{name}.{namespace}.svc.{}", self.domain.join(".")));
        }
        self.slices_by_address.get(&address)?.iter().find_map(|key| {
            let (namespace, slice) = (&key.0, self.slices.get(key)?);
            let endpoint = slice.endpoints.iter().find(|e| e.addresses.contains(&address))?;
            let entry = self.find(namespace, &slice.service)?;
            (entry.kind == ServiceKind::Headless)
                .then(|| self.endpoint_name(namespace, &slice.service, &endpoint.host(address)))
        })
    }

    fn find(&self, namespace: &str, service: &str) -> Option<&ServiceEntry> {
        self.services.get(&(namespace.to_owned(), service.to_owned()))
    }

    fn service(&self, namespace: &str, name: &str, wanted: Wanted) -> Answer {
        let Some(service) = self.find(namespace, name) else { return Answer::NoName };
        match &service.kind {
            ServiceKind::Alias(target) => match wanted {
                Wanted::V4 | Wanted::V6 | Wanted::Other => Answer::Records(vec![Data::Alias(target.clone())]),
                Wanted::Srv | Wanted::Txt => Answer::NoData,
            },
            ServiceKind::ClusterIp => addresses(service.addresses.iter().copied(), wanted),
            ServiceKind::Headless => {
                let ready = self.endpoints(namespace, name);
                let mut found: Vec<IpAddr> = ready.flat_map(|(_, e)| e.addresses.iter().copied()).collect();
                // With no endpoint at all the name does not resolve, which clients wait for.
                if found.is_empty() {
                    return Answer::NoName;
                }
                found.sort_unstable();
                found.dedup();
                addresses(found.into_iter(), wanted)
            }
        }
    }

    /// `_port._protocol.service.namespace.svc`.
    fn port(&self, namespace: &str, name: &str, port: &str, protocol: &str, wanted: Wanted) -> Answer {
        let Some(service) = self.find(namespace, name) else { return Answer::NoName };
        let domain = self.domain.join(".");
        let records: Vec<Data> = match service.kind {
            ServiceKind::Alias(_) => return Answer::NoName,
            ServiceKind::ClusterIp => service
                .ports
                .iter()
                .filter(|p| p.is(port, protocol))
                .map(|p| Data::Srv(p.number, format!("{name}.{namespace}.svc.{domain}")))
                .collect(),
            ServiceKind::Headless => self
                .endpoints(namespace, name)
                .flat_map(|(slice, endpoint)| {
                    let ports = slice.ports.iter().filter(|p| p.is(port, protocol));
                    ports.flat_map(|p| {
                        endpoint.addresses.iter().map(|address| {
                            Data::Srv(p.number, self.endpoint_name(namespace, name, &endpoint.host(*address)))
                        })
                    })
                })
                .collect(),
        };
        match (records.is_empty(), wanted) {
            (true, _) => Answer::NoName,
            (false, Wanted::Srv) => Answer::Records(records),
            (false, _) => Answer::NoData,
        }
    }

    /// `hostname.service.namespace.svc` of a headless Service.
    fn endpoint(&self, namespace: &str, name: &str, host: &str, wanted: Wanted) -> Answer {
        if self.find(namespace, name).is_none_or(|s| s.kind != ServiceKind::Headless) {
            return Answer::NoName;
        }
        let found: Vec<IpAddr> = self
            .endpoints(namespace, name)
            .flat_map(|(_, e)| e.addresses.iter().filter(|a| e.host(**a) == host).copied())
            .collect();
        if found.is_empty() { Answer::NoName } else { addresses(found.into_iter(), wanted) }
    }

    /// `10-0-0-1.namespace.pod`.
    fn pod(&self, namespace: &str, dashed: &str, wanted: Wanted) -> Answer {
        if !self.namespaces.contains_key(namespace) {
            return Answer::NoName;
        }
        let parsed = dashed.replace('-', ".").parse().or_else(|_| dashed.replace('-', ":").parse());
        match parsed {
            Ok(address) => addresses(std::iter::once(address), wanted),
            Err(_) => Answer::NoName,
        }
    }

    fn endpoints<'a>(
        &'a self,
        namespace: &'a str,
        service: &str,
    ) -> impl Iterator<Item = (&'a SliceEntry, &'a Endpoint)> {
        let names = self.slices_of.get(&(namespace.to_owned(), service.to_owned()));
        names
            .into_iter()
            .flatten()
            .filter_map(move |slice| self.slices.get(&(namespace.to_owned(), slice.clone())))
            .flat_map(|slice| slice.endpoints.iter().map(move |endpoint| (slice, endpoint)))
    }

    fn endpoint_name(&self, namespace: &str, service: &str, host: &str) -> String {
        format!("{host}.{service}.{namespace}.svc.{}", self.domain.join("."))
    }
}

fn is_protocol(label: &str) -> bool {
    matches!(label, "_tcp" | "_udp" | "_sctp")
}

fn addresses(all: impl Iterator<Item = IpAddr>, wanted: Wanted) -> Answer {
    let fits = |address: &IpAddr| match wanted {
        Wanted::V4 => address.is_ipv4(),
        Wanted::V6 => address.is_ipv6(),
        _ => false,
    };
    let records: Vec<Data> = all.filter(fits).map(Data::Address).collect();
    if records.is_empty() { Answer::NoData } else { Answer::Records(records) }
}
