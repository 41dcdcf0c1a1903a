//! The tables and the few facts of the world that the logic asks for.
//!
//! In: keys. Out: values in place: the kernel's stack has no room for many copies. A value may change while it is read, and
//! once its entry is removed it may become another entry's: what must fit together is copied at once, and a flow is checked.
//! One implementation reads BPF maps, the other hash maps of `std`.

use core::ops::{Deref, DerefMut};

use xebec_ebpf_common::{
    Addr, AffinityKey, AffinityValue, BackendValue, ConfigValue, FlowKey, FlowValue, PodValue, Reason,
    ServiceKey, ServiceValue,
};

use crate::flow::Scratch;

/// Why an entry could not be added.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InsertError {
    /// The key is taken.
    Exists,
    /// The table is full or the kernel has no memory.
    Full,
}

/// What does not depend on the address family.
pub trait Node {
    /// Access to a value.
    type Ref<'a, T: 'a>: Deref<Target = T>
    where
        Self: 'a;
    /// Access to working memory.
    type Mut<'a, T: 'a>: DerefMut<Target = T>
    where
        Self: 'a;

    /// Backend id in a slot; `None` beyond the array, 0 for an empty slot.
    fn slot(&self, index: u32) -> Option<u32>;
    /// Settings of the node.
    fn config(&self) -> Option<Self::Ref<'_, ConfigValue>>;
    /// Whether a pod (or the host, index 0) has translated flows, so that its packets need a look at the flow table.
    fn has_flows(&self, index: u32) -> bool;
    /// Remembers that it has.
    fn mark_flows(&self, index: u32);
    /// The datapath's clock in ticks.
    fn now(&self) -> u32;
    /// A random number.
    fn random(&self) -> u32;
    /// Counts an event, by the number of its reason, and the bytes of its packet.
    fn count_number(&self, reason: u32, bytes: u32);

    /// Counts an event and the bytes of its packet.
    #[inline(always)]
    fn count(&self, reason: Reason, bytes: u32) {
        self.count_number(reason as u32, bytes);
    }
}

/// The tables of one address family.
pub trait Lookup<A: Addr>: Node {
    /// The frontend under this key.
    fn service(&self, key: &ServiceKey<A>) -> Option<Self::Ref<'_, ServiceValue>>;
    /// The backend with this id; `None` for an empty entry.
    fn backend(&self, id: u32) -> Option<Self::Ref<'_, BackendValue<A>>>;
    /// The local pod with this address.
    fn pod(&self, addr: &A) -> Option<Self::Ref<'_, PodValue>>;
    /// The flow entry under this tuple.
    fn flow(&self, key: &FlowKey<A>) -> Option<Self::Ref<'_, FlowValue<A>>>;
    /// Working memory; `None` never, but the verifier cannot know.
    fn scratch(&self) -> Option<Self::Mut<'_, Scratch<A>>>;
    /// Adds a flow entry under a tuple that has none.
    fn insert_flow(&self, key: &FlowKey<A>, value: &FlowValue<A>) -> Result<(), InsertError>;
    /// Sets the time of a flow entry and adds bits to its state, in place; false when there is none.
    fn touch_flow(&self, key: &FlowKey<A>, last_seen: u32, state: u8) -> bool;
    /// Removes a flow entry.
    fn remove_flow(&self, key: &FlowKey<A>);
    /// The client's last choice.
    fn affinity(&self, key: &AffinityKey<A>) -> Option<Self::Ref<'_, AffinityValue>>;
    /// Remembers a choice; false when the table is full.
    fn put_affinity(&self, key: &AffinityKey<A>, value: &AffinityValue) -> bool;
    /// The node's address of this family, unspecified if it has none.
    fn node_address(&self, config: &ConfigValue) -> A;
}
