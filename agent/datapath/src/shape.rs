//! Sizes of keys and values by map, to recognise a pin that is not ours.

use xebec_ebpf_common::names;
use xebec_ebpf_common::{
    AffinityKey, AffinityValue, BackendValue, ConfigValue, CounterValue, FlowKey, FlowValue, NetnsValue,
    PodValue, ServiceKey, ServiceValue, SockDatagram, SockPeer, V4, V6,
};

fn sizes<K, V>() -> (u32, u32) {
    (size_of::<K>() as u32, size_of::<V>() as u32)
}

/// Key and value size of a map; zeroes for a name that is not one.
pub(crate) fn of(name: &str) -> (u32, u32) {
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
            assert_ne!(of(name), (0, 0), "{name}");
        }
    }
}
