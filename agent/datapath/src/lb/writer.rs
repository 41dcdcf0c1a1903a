//! Load-balancing entries to and from the maps.
//!
//! In: [`LbOp`]s in their order. Out: map writes, neighbours of one kind in one batch. Nothing is reordered: what a packet
//! may see halfway is the planner's decision.

use std::net::IpAddr;
use std::time::Duration;

use xebec_ebpf_common::{
    BackendValue, Be16, ServiceKey, ServiceValue, V4, V6, backend_flags, proto, scope, service_flags,
    service_kind,
};

use crate::address::{Address, Either};
use crate::error::Result;
use crate::lb::{
    Backend, BackendId, Frontend, FrontendKind, LbOp, LbSnapshot, Protocol, Scope, ServiceEntry, ServiceId,
};
use crate::maps::Maps;

/// Writes of one kind, waiting to go out together.
#[derive(Default)]
struct Pending {
    backends4: Vec<(u32, BackendValue<V4>)>,
    backends6: Vec<(u32, BackendValue<V6>)>,
    slots: Vec<(u32, u32)>,
    services4: Vec<(ServiceKey<V4>, ServiceValue)>,
    services6: Vec<(ServiceKey<V6>, ServiceValue)>,
    gone4: Vec<ServiceKey<V4>>,
    gone6: Vec<ServiceKey<V6>>,
}

/// A frontend's key in the map of its family.
enum Key {
    V4(ServiceKey<V4>),
    V6(ServiceKey<V6>),
}

/// Applies operations in order.
pub(crate) fn apply(maps: &Maps, ops: &[LbOp]) -> Result<()> {
    let mut pending = Pending::default();
    let mut kind = None;
    for op in ops {
        let next = std::mem::discriminant(op);
        if kind.replace(next).is_some_and(|last| last != next) {
            pending.flush(maps)?;
        }
        pending.add(maps, op)?;
    }
    pending.flush(maps)
}

/// Reads everything back.
pub(crate) fn snapshot(maps: &Maps) -> Result<LbSnapshot> {
    let mut services = Vec::new();
    services.extend(maps.services4.all()?.into_iter().filter_map(|(key, value)| frontend(key, value)));
    services.extend(maps.services6.all()?.into_iter().filter_map(|(key, value)| frontend(key, value)));
    let mut backends = Vec::new();
    backends.extend(maps.backends4.all()?.into_iter().filter_map(|(id, value)| backend(id, value)));
    backends.extend(maps.backends6.all()?.into_iter().filter_map(|(id, value)| backend(id, value)));
    let mut slots: Vec<u32> = maps.slots.all()?.into_iter().map(|(_, id)| id).collect();
    let used =
        services.iter().map(|(_, entry)| entry.base as usize + entry.count as usize).max().unwrap_or(0);
    slots.truncate(used);
    Ok(LbSnapshot { services, backends, slots })
}

impl Pending {
    fn add(&mut self, maps: &Maps, op: &LbOp) -> Result<()> {
        match op {
            LbOp::PutBackend { id, backend } => {
                maps.backends4.check(id.0)?;
                self.put_backend(*id, backend);
            }
            LbOp::PutSlots { base, backends } => {
                let end = base.saturating_add(backends.len() as u32);
                maps.slots.check(end.saturating_sub(1))?;
                self.slots.extend((*base..end).zip(backends.iter().map(|id| id.0)));
            }
            LbOp::PutService { frontend, entry } => match key(frontend) {
                Key::V4(key) => self.services4.push((key, service(entry))),
                Key::V6(key) => self.services6.push((key, service(entry))),
            },
            LbOp::DeleteService { frontend } => match key(frontend) {
                Key::V4(key) => self.gone4.push(key),
                Key::V6(key) => self.gone6.push(key),
            },
            LbOp::DeleteBackend { id } => {
                maps.backends4.check(id.0)?;
                // The family of an id is not remembered; an array write costs less than finding out.
                self.backends4.push((id.0, empty(V4(0))));
                self.backends6.push((id.0, empty(V6([0; 4]))));
            }
        }
        Ok(())
    }

    fn put_backend(&mut self, id: BackendId, backend: &Backend) {
        let port = Be16::new(backend.port);
        let proto = number(backend.protocol);
        let flags = if backend.local { backend_flags::LOCAL } else { 0 };
        match backend.address.into() {
            Either::V4(addr) => self.backends4.push((id.0, BackendValue { addr, port, proto, flags })),
            Either::V6(addr) => self.backends6.push((id.0, BackendValue { addr, port, proto, flags })),
        }
    }

    fn flush(&mut self, maps: &Maps) -> Result<()> {
        let Self { backends4, backends6, slots, services4, services6, gone4, gone6 } = std::mem::take(self);
        maps.backends4.put_all(&backends4)?;
        maps.backends6.put_all(&backends6)?;
        maps.slots.put_all(&slots)?;
        maps.services4.put_all(&services4)?;
        maps.services6.put_all(&services6)?;
        maps.services4.remove_all(&gone4)?;
        maps.services6.remove_all(&gone6)
    }
}

fn empty<A>(addr: A) -> BackendValue<A> {
    BackendValue { addr, port: Be16(0), proto: 0, flags: 0 }
}

fn key(frontend: &Frontend) -> Key {
    let port = Be16::new(frontend.port);
    let proto = number(frontend.protocol);
    let scope = match frontend.scope {
        Scope::Internal => scope::INTERNAL,
        Scope::External => scope::EXTERNAL,
    };
    match frontend.address.into() {
        Either::V4(addr) => Key::V4(ServiceKey { addr, port, proto, scope }),
        Either::V6(addr) => Key::V6(ServiceKey { addr, port, proto, scope }),
    }
}

fn service(entry: &ServiceEntry) -> ServiceValue {
    let mut flags = 0;
    if entry.masquerade {
        flags |= service_flags::MASQUERADE;
    }
    if entry.drop_when_empty {
        flags |= service_flags::DROP_EMPTY;
    }
    let kind = match entry.kind {
        FrontendKind::ClusterIp => service_kind::CLUSTER_IP,
        FrontendKind::NodePort => service_kind::NODE_PORT,
        FrontendKind::ExternalIp => service_kind::EXTERNAL_IP,
        FrontendKind::LoadBalancer => service_kind::LOAD_BALANCER,
    };
    // Affinity of less than a second would read as none.
    let affinity = entry.affinity.map_or(0, |timeout| timeout.as_secs().clamp(1, u64::from(u32::MAX)) as u32);
    ServiceValue {
        id: entry.id.0,
        base: entry.base,
        count: entry.count,
        generation: entry.generation,
        affinity,
        flags,
        kind,
        pad: [0; 2],
    }
}

/// An entry as it was written; `None` for numbers this version never writes.
fn frontend<A: Address>(key: ServiceKey<A>, value: ServiceValue) -> Option<(Frontend, ServiceEntry)> {
    let scope = match key.scope {
        scope::INTERNAL => Scope::Internal,
        scope::EXTERNAL => Scope::External,
        _ => return None,
    };
    let kind = match value.kind {
        service_kind::CLUSTER_IP => FrontendKind::ClusterIp,
        service_kind::NODE_PORT => FrontendKind::NodePort,
        service_kind::EXTERNAL_IP => FrontendKind::ExternalIp,
        service_kind::LOAD_BALANCER => FrontendKind::LoadBalancer,
        _ => return None,
    };
    let frontend =
        Frontend { address: key.addr.to_ip(), port: key.port.host(), protocol: protocol(key.proto)?, scope };
    let entry = ServiceEntry {
        id: ServiceId(value.id),
        kind,
        base: value.base,
        count: value.count,
        generation: value.generation,
        affinity: (value.affinity != 0).then(|| Duration::from_secs(value.affinity.into())),
        masquerade: value.flags & service_flags::MASQUERADE != 0,
        drop_when_empty: value.flags & service_flags::DROP_EMPTY != 0,
    };
    Some((frontend, entry))
}

fn backend<A: Address>(id: u32, value: BackendValue<A>) -> Option<(BackendId, Backend)> {
    let address: IpAddr = value.addr.to_ip();
    let protocol = protocol(value.proto)?;
    let local = value.flags & backend_flags::LOCAL != 0;
    Some((BackendId(id), Backend { address, port: value.port.host(), protocol, local }))
}

fn number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => proto::TCP,
        Protocol::Udp => proto::UDP,
        Protocol::Sctp => proto::SCTP,
    }
}

fn protocol(number: u8) -> Option<Protocol> {
    Some(match number {
        proto::TCP => Protocol::Tcp,
        proto::UDP => Protocol::Udp,
        proto::SCTP => Protocol::Sctp,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> ServiceEntry {
        ServiceEntry {
            id: ServiceId(7),
            kind: FrontendKind::NodePort,
            base: 40,
            count: 3,
            generation: 9,
            affinity: Some(Duration::from_secs(10_800)),
            masquerade: true,
            drop_when_empty: true,
        }
    }

    #[test]
    fn entries_read_back_as_written() {
        for address in ["10.96.0.1", "fd00::1"] {
            let written = Frontend {
                address: address.parse().unwrap(),
                port: 443,
                protocol: Protocol::Udp,
                scope: Scope::External,
            };
            let read = match key(&written) {
                Key::V4(key) => frontend(key, service(&entry())),
                Key::V6(key) => frontend(key, service(&entry())),
            };
            assert_eq!(read, Some((written, entry())));
        }
    }

    #[test]
    fn keys_are_in_the_order_of_the_wire() {
        use xebec_ebpf_common::Plain;
        let frontend = Frontend {
            address: "10.96.0.1".parse().unwrap(),
            port: 443,
            protocol: Protocol::Tcp,
            scope: Scope::Internal,
        };
        let Key::V4(key) = key(&frontend) else { panic!("not an IPv4 key") };
        assert_eq!(key.as_bytes(), [10, 96, 0, 1, 0x01, 0xbb, 6, 0]);
    }

    #[test]
    fn affinity_of_a_fraction_of_a_second_is_not_none() {
        let short = ServiceEntry { affinity: Some(Duration::from_millis(1)), ..entry() };
        assert_eq!(service(&short).affinity, 1);
    }
}
