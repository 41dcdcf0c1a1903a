//! The maps, and the tables they are to the logic.
//!
//! In: keys. Out: copies of values. Capacities stated here are the smallest; the loader sets the node's.

use aya_ebpf::bindings::{BPF_ANY, BPF_F_NO_PREALLOC, BPF_NOEXIST};
use aya_ebpf::btf_maps::SkStorage;
use aya_ebpf::helpers::{bpf_get_prandom_u32, generated::bpf_ktime_get_coarse_ns};
use aya_ebpf::macros::{btf_map, map};
use aya_ebpf::maps::{Array, HashMap, PerCpuArray};
use xebec_ebpf::flow::Scratch;
use xebec_ebpf::lookup::{InsertError, Lookup, Node};
use xebec_ebpf::socket::Client;
use xebec_ebpf_common::{
    Addr, AffinityKey, AffinityValue, BackendValue, COUNTER_ENTRIES, ConfigValue, CounterValue, FlowKey,
    FlowValue, NetnsValue, PodValue, ServiceKey, ServiceValue, SockDatagram, SockPeer, V4, V6, ticks,
};

/// Entries before the loader says otherwise.
const SMALL: u32 = 1024;

#[map]
static SERVICES4: HashMap<ServiceKey<V4>, ServiceValue> = HashMap::with_max_entries(SMALL, BPF_F_NO_PREALLOC);
#[map]
static SERVICES6: HashMap<ServiceKey<V6>, ServiceValue> = HashMap::with_max_entries(SMALL, BPF_F_NO_PREALLOC);
#[map]
static SLOTS: Array<u32> = Array::with_max_entries(SMALL, 0);
#[map]
static BACKENDS4: Array<BackendValue<V4>> = Array::with_max_entries(SMALL, 0);
#[map]
static BACKENDS6: Array<BackendValue<V6>> = Array::with_max_entries(SMALL, 0);
#[map]
static PODS4: HashMap<V4, PodValue> = HashMap::with_max_entries(SMALL, BPF_F_NO_PREALLOC);
#[map]
static PODS6: HashMap<V6, PodValue> = HashMap::with_max_entries(SMALL, BPF_F_NO_PREALLOC);
#[map]
static NETNS: HashMap<u64, NetnsValue> = HashMap::with_max_entries(SMALL, BPF_F_NO_PREALLOC);
#[map]
static POD_FLOWS: Array<u32> = Array::with_max_entries(SMALL, 0);
#[map]
static FLOWS4: HashMap<FlowKey<V4>, FlowValue<V4>> = HashMap::with_max_entries(SMALL, BPF_F_NO_PREALLOC);
#[map]
static FLOWS6: HashMap<FlowKey<V6>, FlowValue<V6>> = HashMap::with_max_entries(SMALL, BPF_F_NO_PREALLOC);
#[map]
static AFFINITY4: HashMap<AffinityKey<V4>, AffinityValue> =
    HashMap::with_max_entries(SMALL, BPF_F_NO_PREALLOC);
#[map]
static AFFINITY6: HashMap<AffinityKey<V6>, AffinityValue> =
    HashMap::with_max_entries(SMALL, BPF_F_NO_PREALLOC);
#[map]
static CONFIG: Array<ConfigValue> = Array::with_max_entries(1, 0);
#[map]
static COUNTERS: PerCpuArray<CounterValue> = PerCpuArray::with_max_entries(COUNTER_ENTRIES, 0);
// Not pinned: nothing in them outlives a packet.
#[map]
static SCRATCH4: PerCpuArray<Scratch<V4>> = PerCpuArray::with_max_entries(1, 0);
#[map]
static SCRATCH6: PerCpuArray<Scratch<V6>> = PerCpuArray::with_max_entries(1, 0);
#[btf_map]
pub static SOCK_PEER: SkStorage<SockPeer> = SkStorage::new();
#[btf_map]
pub static SOCK_DATAGRAM: SkStorage<SockDatagram> = SkStorage::new();

/// Errno of an update that found its key taken.
const EEXIST: i32 = 17;

/// The kernel's tables.
#[derive(Clone, Copy)]
pub struct Kernel;

impl Node for Kernel {
    type Ref<'a, T: 'a> = &'a T;
    type Mut<'a, T: 'a> = &'a mut T;

    #[inline(always)]
    fn slot(&self, index: u32) -> Option<u32> {
        SLOTS.get(index).copied()
    }

    #[inline(always)]
    fn config(&self) -> Option<Self::Ref<'_, ConfigValue>> {
        CONFIG.get(0)
    }

    #[inline(always)]
    fn has_flows(&self, index: u32) -> bool {
        POD_FLOWS.get(index).is_some_and(|flag| *flag != 0)
    }

    #[inline(always)]
    fn mark_flows(&self, index: u32) {
        if let Some(flag) = POD_FLOWS.get_ptr_mut(index) {
            // SAFETY: the pointer is to an element of an array map, which is never freed; a race writes the same value.
            unsafe { flag.write(1) };
        }
    }

    #[inline(always)]
    fn now(&self) -> u32 {
        // SAFETY: the helper takes nothing and reads a clock.
        (unsafe { bpf_ktime_get_coarse_ns() } >> ticks::SHIFT) as u32
    }

    #[inline(always)]
    fn random(&self) -> u32 {
        // SAFETY: the helper takes nothing.
        unsafe { bpf_get_prandom_u32() }
    }

    #[inline(always)]
    fn count_number(&self, reason: u32, bytes: u32) {
        if let Some(counter) = COUNTERS.get_ptr_mut(reason) {
            // SAFETY: an element of a per-CPU array belongs to this CPU while the program runs.
            unsafe {
                (*counter).packets += 1;
                (*counter).bytes += u64::from(bytes);
            }
        }
    }
}

#[inline(always)]
fn inserted(result: Result<(), i32>) -> Result<(), InsertError> {
    result.map_err(|errno| if errno == -EEXIST { InsertError::Exists } else { InsertError::Full })
}

/// The tables of one family over its maps.
macro_rules! tables {
    ($addr:ty, $field:ident, $services:ident, $backends:ident, $pods:ident, $flows:ident, $scratch:ident, $affinity:ident) => {
        impl Lookup<$addr> for Kernel {
            #[inline(always)]
            fn service(&self, key: &ServiceKey<$addr>) -> Option<Self::Ref<'_, ServiceValue>> {
                // SAFETY: elements live until the program ends; one that is replaced meanwhile still holds plain words.
                unsafe { $services.get(key) }
            }

            #[inline(always)]
            fn backend(&self, id: u32) -> Option<Self::Ref<'_, BackendValue<$addr>>> {
                $backends.get(id).filter(|backend| backend.proto != 0)
            }

            #[inline(always)]
            fn pod(&self, addr: &$addr) -> Option<Self::Ref<'_, PodValue>> {
                // SAFETY: as above.
                unsafe { $pods.get(addr) }
            }

            #[inline(always)]
            fn flow(&self, key: &FlowKey<$addr>) -> Option<Self::Ref<'_, FlowValue<$addr>>> {
                // SAFETY: as above.
                unsafe { $flows.get(key) }
            }

            #[inline(always)]
            fn scratch(&self) -> Option<Self::Mut<'_, Scratch<$addr>>> {
                // SAFETY: this CPU's element; a packet program is not interrupted by another one.
                unsafe { $scratch.get_ptr_mut(0)?.as_mut() }
            }

            #[inline(always)]
            fn insert_flow(&self, key: &FlowKey<$addr>, value: &FlowValue<$addr>) -> Result<(), InsertError> {
                inserted($flows.insert(key, value, BPF_NOEXIST.into()))
            }

            #[inline(always)]
            fn touch_flow(&self, key: &FlowKey<$addr>, last_seen: u32, state: u8) -> bool {
                let Some(flow) = $flows.get_ptr_mut(key) else { return false };
                // SAFETY: as above; two CPUs that write at once write about the same time, and bits that were seen.
                unsafe {
                    (&raw mut (*flow).last_seen).write(last_seen);
                    (*flow).state |= state;
                }
                true
            }

            #[inline(always)]
            fn remove_flow(&self, key: &FlowKey<$addr>) {
                let _ = $flows.remove(key);
            }

            #[inline(always)]
            fn affinity(&self, key: &AffinityKey<$addr>) -> Option<Self::Ref<'_, AffinityValue>> {
                // SAFETY: as above.
                unsafe { $affinity.get(key) }
            }

            #[inline(always)]
            fn put_affinity(&self, key: &AffinityKey<$addr>, value: &AffinityValue) -> bool {
                $affinity.insert(key, value, BPF_ANY.into()).is_ok()
            }

            #[inline(always)]
            fn node_address(&self, config: &ConfigValue) -> $addr {
                config.$field
            }
        }

        impl Client<$addr> for Kernel {
            #[inline(always)]
            fn client(&self, netns_cookie: u64) -> $addr {
                // SAFETY: as above.
                if let Some(pod) = unsafe { NETNS.get(netns_cookie) } {
                    return pod.$field;
                }
                match CONFIG.get(0) {
                    Some(config) if config.netns_cookie == netns_cookie => config.$field,
                    _ => <$addr as Addr>::UNSPECIFIED,
                }
            }

            #[inline(always)]
            fn is_host(&self, netns_cookie: u64) -> bool {
                CONFIG.get(0).is_some_and(|config| config.netns_cookie == netns_cookie)
            }
        }
    };
}

tables!(V4, v4, SERVICES4, BACKENDS4, PODS4, FLOWS4, SCRATCH4, AFFINITY4);
tables!(V6, v6, SERVICES6, BACKENDS6, PODS6, FLOWS6, SCRATCH6, AFFINITY6);
