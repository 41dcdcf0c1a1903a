//! Kind and sizes by map, to recognise a pin that is not ours.

use xebec_ebpf_common::names;
use xebec_ebpf_common::{
    AffinityKey, AffinityValue, BackendValue, ConfigValue, CounterValue, FlowKey, FlowValue, NetnsValue,
    PodValue, ServiceKey, ServiceValue, SockDatagram, SockPeer, V4, V6,
};

use crate::sys::MapInfo;

const HASH: u32 = 1;
const ARRAY: u32 = 2;
const PER_CPU_ARRAY: u32 = 6;
const SK_STORAGE: u32 = 24;
const NO_PREALLOC: u32 = 1;

/// What must be the same for two maps to be one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shape {
    kind: u32,
    flags: u32,
    key_size: u32,
    value_size: u32,
}

impl From<MapInfo> for Shape {
    fn from(info: MapInfo) -> Self {
        Self { kind: info.kind, flags: info.flags, key_size: info.key_size, value_size: info.value_size }
    }
}

/// The shape of a map; all zeroes for a name that is not one.
pub(crate) fn of(name: &str) -> Shape {
    let (key_size, value_size) = sizes_of(name);
    let (kind, flags) = match name {
        names::SLOTS | names::POD_FLOWS | names::BACKENDS4 | names::BACKENDS6 | names::CONFIG => (ARRAY, 0),
        names::COUNTERS => (PER_CPU_ARRAY, 0),
        names::SOCK_PEER | names::SOCK_DATAGRAM => (SK_STORAGE, NO_PREALLOC),
        _ if key_size == 0 => (0, 0),
        _ => (HASH, NO_PREALLOC),
    };
    Shape { kind, flags, key_size, value_size }
}

fn sizes<K, V>() -> (u32, u32) {
    (size_of::<K>() as u32, size_of::<V>() as u32)
}

fn sizes_of(name: &str) -> (u32, u32) {
    match name {
        names::SERVICES4 => sizes::<ServiceKey<V4>, ServiceValue>(),
        names::SERVICES6 => sizes::<ServiceKey<V6>, ServiceValue>(),
        names::SLOTS | names::POD_FLOWS => sizes::<u32, u32>(),
        names::BACKENDS4 => sizes::<u32, BackendValue<V4>>(),
        names::BACKENDS6 => sizes::<u32, BackendValue<V6>>(),
        names::PODS4 => sizes::<V4, PodValue>(),
        names::PODS6 => sizes::<V6, PodValue>(),
        names::NETNS => sizes::<u64, NetnsValue>(),
        names::FLOWS4 => sizes::<FlowKey<V4>, FlowValue<V4>>(),
        names::FLOWS6 => sizes::<FlowKey<V6>, FlowValue<V6>>(),
        names::AFFINITY4 => sizes::<AffinityKey<V4>, AffinityValue>(),
        names::AFFINITY6 => sizes::<AffinityKey<V6>, AffinityValue>(),
        names::SOCK_PEER => sizes::<i32, SockPeer>(),
        names::SOCK_DATAGRAM => sizes::<i32, SockDatagram>(),
        names::CONFIG => sizes::<u32, ConfigValue>(),
        names::COUNTERS => sizes::<u32, CounterValue>(),
        _ => (0, 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_map_has_a_shape() {
        for name in names::MAPS {
            assert_ne!(of(name), Shape::default(), "{name}");
        }
    }
}
