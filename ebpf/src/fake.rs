//! The tables and packets of host tests: hash maps and byte vectors that behave as the kernel's do.
//!
//! In: what a test puts there. Out: what the logic made of it. Capacity is enforced, and checksum updates follow
//! `inet_proto_csum_replace_by_diff`, with and without a checksum left to the interface.

pub mod wire;

use std::boxed::Box;
use std::cell::{Cell, RefCell, RefMut};
use std::collections::HashMap;
use std::vec::Vec;

use xebec_ebpf_common::{
    Addr, AffinityKey, AffinityValue, BackendValue, ConfigValue, FlowKey, FlowValue, NetnsValue, Plain,
    PodValue, Reason, ServiceKey, ServiceValue, SockDatagram, SockPeer, V4, V6,
};

use crate::checksum::Sum;
use crate::flow::Scratch;
use crate::lookup::{InsertError, Lookup, Node};
use crate::packet::{L3, Packet, Route};
use crate::socket::{Client, Socket};

/// Tables of one family.
#[derive(Debug)]
pub struct FamilyTables<A: Addr> {
    pub services: RefCell<HashMap<ServiceKey<A>, ServiceValue>>,
    pub backends: RefCell<HashMap<u32, BackendValue<A>>>,
    pub pods: RefCell<HashMap<A, PodValue>>,
    pub flows: RefCell<HashMap<FlowKey<A>, FlowValue<A>>>,
    pub affinity: RefCell<HashMap<AffinityKey<A>, AffinityValue>>,
}

/// All tables, a clock that stands still and random numbers that count up.
#[derive(Debug)]
pub struct Tables {
    pub v4: FamilyTables<V4>,
    pub v6: FamilyTables<V6>,
    pub slots: RefCell<Vec<u32>>,
    pub netns: RefCell<HashMap<u64, NetnsValue>>,
    pub marks: RefCell<HashMap<u32, u32>>,
    pub config: Cell<ConfigValue>,
    pub now: Cell<u32>,
    pub random: Cell<u32>,
    /// Entries a flow or affinity table can hold.
    pub capacity: Cell<usize>,
    pub counters: RefCell<HashMap<u32, u64>>,
}

/// A packet of a host test.
#[derive(Clone, Debug)]
pub struct Bytes {
    pub data: Vec<u8>,
    pub ifindex: u32,
    /// The checksum is left to the interface (`CHECKSUM_PARTIAL`).
    pub partial: bool,
    /// Answer to every route lookup.
    pub route: Option<u32>,
}

/// A socket of a host test.
#[derive(Debug, Default)]
pub struct FakeSocket {
    pub netns_cookie: u64,
    pub peer: Cell<Option<SockPeer>>,
    pub datagrams: RefCell<Option<SockDatagram>>,
    /// The kernel has no memory for it.
    pub full: bool,
}

// === impl Tables ===

impl<A: Addr> Default for FamilyTables<A> {
    fn default() -> Self {
        Self {
            services: RefCell::default(),
            backends: RefCell::default(),
            pods: RefCell::default(),
            flows: RefCell::default(),
            affinity: RefCell::default(),
        }
    }
}

impl Default for Tables {
    fn default() -> Self {
        Self {
            v4: FamilyTables::default(),
            v6: FamilyTables::default(),
            slots: RefCell::default(),
            netns: RefCell::default(),
            marks: RefCell::default(),
            config: Cell::new(ConfigValue::zeroed()),
            now: Cell::new(1000),
            random: Cell::new(0),
            capacity: Cell::new(1024),
            counters: RefCell::default(),
        }
    }
}

impl Tables {
    /// How often an event was counted.
    pub fn counted(&self, reason: Reason) -> u64 {
        self.counters.borrow().get(&(reason as u32)).copied().unwrap_or(0)
    }
}

impl Node for Tables {
    type Ref<'a, T: 'a> = Box<T>;
    type Mut<'a, T: 'a> = Box<T>;

    fn slot(&self, index: u32) -> Option<u32> {
        self.slots.borrow().get(index as usize).copied()
    }

    fn config(&self) -> Option<Self::Ref<'_, ConfigValue>> {
        Some(Box::new(self.config.get()))
    }

    fn has_flows(&self, index: u32) -> bool {
        self.marks.borrow().get(&index).is_some_and(|mark| *mark != 0)
    }

    fn mark_flows(&self, index: u32) {
        self.marks.borrow_mut().insert(index, 1);
    }

    fn now(&self) -> u32 {
        self.now.get()
    }

    fn random(&self) -> u32 {
        self.random.replace(self.random.get().wrapping_add(1))
    }

    fn count_number(&self, reason: u32, _bytes: u32) {
        *self.counters.borrow_mut().entry(reason).or_default() += 1;
    }
}

macro_rules! family {
    ($addr:ty, $field:ident) => {
        impl Lookup<$addr> for Tables {
            fn service(&self, key: &ServiceKey<$addr>) -> Option<Self::Ref<'_, ServiceValue>> {
                self.$field.services.borrow().get(key).copied().map(Box::new)
            }

            fn backend(&self, id: u32) -> Option<Self::Ref<'_, BackendValue<$addr>>> {
                self.$field
                    .backends
                    .borrow()
                    .get(&id)
                    .copied()
                    .filter(|backend| backend.proto != 0)
                    .map(Box::new)
            }

            fn pod(&self, addr: &$addr) -> Option<Self::Ref<'_, PodValue>> {
                self.$field.pods.borrow().get(addr).copied().map(Box::new)
            }

            fn flow(&self, key: &FlowKey<$addr>) -> Option<Self::Ref<'_, FlowValue<$addr>>> {
                self.$field.flows.borrow().get(key).copied().map(Box::new)
            }

            fn scratch(&self) -> Option<Self::Mut<'_, Scratch<$addr>>> {
                Some(Box::new(Scratch::new()))
            }

            fn insert_flow(&self, key: &FlowKey<$addr>, value: &FlowValue<$addr>) -> Result<(), InsertError> {
                let mut flows = self.$field.flows.borrow_mut();
                if flows.contains_key(key) {
                    return Err(InsertError::Exists);
                }
                if flows.len() >= self.capacity.get() {
                    return Err(InsertError::Full);
                }
                flows.insert(*key, *value);
                Ok(())
            }

            fn touch_flow(&self, key: &FlowKey<$addr>, last_seen: u32, state: u8) -> bool {
                let mut flows = self.$field.flows.borrow_mut();
                let Some(flow) = flows.get_mut(key) else { return false };
                flow.last_seen = last_seen;
                flow.state |= state;
                true
            }

            fn remove_flow(&self, key: &FlowKey<$addr>) {
                self.$field.flows.borrow_mut().remove(key);
            }

            fn affinity(&self, key: &AffinityKey<$addr>) -> Option<Self::Ref<'_, AffinityValue>> {
                self.$field.affinity.borrow().get(key).copied().map(Box::new)
            }

            fn put_affinity(&self, key: &AffinityKey<$addr>, value: &AffinityValue) -> bool {
                let mut affinity = self.$field.affinity.borrow_mut();
                if affinity.len() >= self.capacity.get() && !affinity.contains_key(key) {
                    return false;
                }
                affinity.insert(*key, *value);
                true
            }

            fn node_address(&self, config: &ConfigValue) -> $addr {
                config.$field
            }
        }

        impl Client<$addr> for Tables {
            fn client(&self, netns_cookie: u64) -> $addr {
                match self.netns.borrow().get(&netns_cookie) {
                    Some(pod) => pod.$field,
                    None if self.is_host_cookie(netns_cookie) => self.config.get().$field,
                    None => <$addr as Addr>::UNSPECIFIED,
                }
            }

            fn is_host(&self, netns_cookie: u64) -> bool {
                self.is_host_cookie(netns_cookie)
            }
        }
    };
}

family!(V4, v4);
family!(V6, v6);

impl Tables {
    fn is_host_cookie(&self, cookie: u64) -> bool {
        self.config.get().netns_cookie == cookie
    }
}

// === impl Bytes ===

impl Bytes {
    fn get<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        let from = offset as usize;
        self.data.get(from..from + N)?.try_into().ok()
    }
}

impl Packet for Bytes {
    fn len(&self) -> u32 {
        self.data.len() as u32
    }

    fn ifindex(&self) -> u32 {
        self.ifindex
    }

    fn ethertype(&self) -> u16 {
        self.get(12).map_or(0, u16::from_be_bytes)
    }

    fn read_u16(&self, offset: u32) -> Option<u16> {
        self.get(offset).map(u16::from_ne_bytes)
    }

    fn read_u32(&self, offset: u32) -> Option<u32> {
        self.get(offset).map(u32::from_ne_bytes)
    }

    fn write<const N: usize>(&mut self, offset: u32, bytes: [u8; N]) -> bool {
        let from = offset as usize;
        match self.data.get_mut(from..from + N) {
            Some(target) => {
                target.copy_from_slice(&bytes);
                true
            }
            None => false,
        }
    }

    fn update_l3_checksum(&mut self, offset: u32, diff: u32) -> bool {
        let Some(field) = self.read_u16(offset) else { return false };
        self.write(offset, replaced(field, diff).to_ne_bytes())
    }

    fn update_l4_checksum(
        &mut self,
        offset: u32,
        diff: u32,
        pseudo: bool,
        optional: bool,
        _v6: bool,
    ) -> bool {
        let Some(field) = self.read_u16(offset) else { return false };
        if optional && field == 0 {
            return true;
        }
        let mut new = match (self.partial, pseudo) {
            (false, _) => replaced(field, diff),
            (true, true) => Sum::new().add(u32::from(field)).add(diff).fold(),
            (true, false) => field,
        };
        if optional && new == 0 {
            new = 0xffff;
        }
        self.write(offset, new.to_ne_bytes())
    }

    fn resize(&mut self, len: u32) -> bool {
        self.data.resize(len as usize, 0);
        true
    }

    fn grow_l3(&mut self, bytes: u32) -> bool {
        let at = L3 as usize;
        self.data.splice(at..at, std::iter::repeat_n(0, bytes as usize));
        true
    }
}

impl<A: Addr> Route<A> for Bytes {
    fn route(&self, _src: A, _dst: A) -> Option<u32> {
        self.route
    }
}

fn replaced(field: u16, diff: u32) -> u16 {
    Sum::new().add(u32::from(!field)).add(diff).field()
}

// === impl FakeSocket ===

impl Socket for FakeSocket {
    type Datagrams<'a> = RefMut<'a, SockDatagram>;

    fn netns_cookie(&self) -> u64 {
        self.netns_cookie
    }

    fn peer(&self) -> Option<SockPeer> {
        self.peer.get()
    }

    fn set_peer(&self, peer: &SockPeer) -> bool {
        if !self.full {
            self.peer.set(Some(*peer));
        }
        !self.full
    }

    fn datagrams(&self, create: bool) -> Option<RefMut<'_, SockDatagram>> {
        let mut datagrams = self.datagrams.borrow_mut();
        if create && !self.full && datagrams.is_none() {
            *datagrams = Some(SockDatagram::zeroed());
        }
        RefMut::filter_map(datagrams, Option::as_mut).ok()
    }
}
