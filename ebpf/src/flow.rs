//! Flows that the packet path translates.
//!
//! In: a packet's tuple. Out: the flow it belongs to, or a new one. What the socket hooks translate has no flow.

use xebec_ebpf_common::{
    Addr, Be16, FlowKey, FlowValue, HOST_INDEX, Plain, Reason, ServiceValue, backend_flags, direction,
    flow_state, service_flags, ticks,
};

use crate::lookup::{InsertError, Lookup};
use crate::packet::{Family, Parsed, Transport, tcp};
use crate::select::choose;

/// Bits of a TCP connection that no new one may join.
const CLOSING: u8 = flow_state::CLIENT_FIN | flow_state::BACKEND_FIN | flow_state::RESET;

/// Masquerade ports tried before the range counts as exhausted.
const PORT_ATTEMPTS: u32 = 8;

/// Where a flow begins; decides about its source address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Origin {
    /// Index of the pod of this node that opens it; `None`: another machine does.
    pub pod: Option<u32>,
    /// Interface its packets arrive at.
    pub ifindex: u32,
}

/// Where the two ends of a new flow are.
struct Place {
    /// Index of the pod of this node that is the backend.
    pod: Option<u32>,
    /// The backend is on this node.
    local: bool,
    /// Index of the pod of this node that is the client.
    client: Option<u32>,
    /// The backend may not see the client's address.
    must_masquerade: bool,
}

/// What a flow makes of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct Translation<A> {
    /// The tuple the packet shall have.
    pub to: FlowKey<A>,
    /// Interface the client's packets arrive at.
    pub ifindex: u32,
    /// 1: the packet goes to the client.
    pub reply: u32,
    /// 1: the backend sees the node's address.
    pub masqueraded: u32,
}

/// Working memory of one packet. The kernel's is per CPU: the stack of 512 bytes has no room for IPv6 flows, and no other
/// packet program runs on a CPU before this one ends.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Scratch<A> {
    flow: FlowValue<A>,
    key: FlowKey<A>,
    /// Result of [`find`] and [`open`].
    pub translation: Translation<A>,
}

impl<A: Addr> Scratch<A> {
    /// An empty one.
    pub fn new() -> Self
    where
        FlowValue<A>: Plain,
        FlowKey<A>: Plain,
    {
        let to = FlowKey::zeroed();
        let translation = Translation { to, ifindex: 0, reply: 0, masqueraded: 0 };
        Self { flow: FlowValue::zeroed(), key: to, translation }
    }
}

impl<A: Addr> Default for Scratch<A>
where
    FlowValue<A>: Plain,
    FlowKey<A>: Plain,
{
    fn default() -> Self {
        Self::new()
    }
}

/// Looks a packet's flow up by its tuple and keeps it alive; true: `scratch.translation` is what to make of the packet. A
/// packet that opens a connection ends a flow whose backend is gone or whose connection is closing, and finds none.
#[inline(always)]
pub fn find<A: Addr, L: Lookup<A>>(tables: &L, parsed: &Parsed<A>, scratch: &mut Scratch<A>) -> bool {
    if !read(tables, &parsed.key, scratch) {
        return false;
    }
    if scratch.flow.direction == direction::FORWARD
        && parsed.opens()
        && is_over(tables, parsed, &scratch.flow)
    {
        end(tables, scratch);
        return false;
    }
    translate(&scratch.flow, &mut scratch.translation);
    touch(tables, parsed, scratch);
    true
}

/// Copies the entry under `key` to `scratch.flow`. The kernel gives the memory of an entry that is removed to the next one
/// at once, under the eyes of whoever still reads it; an entry names its flow, so that a foreign one is seen.
#[inline(always)]
fn read<A: Addr, L: Lookup<A>>(tables: &L, key: &FlowKey<A>, scratch: &mut Scratch<A>) -> bool {
    let Some(flow) = tables.flow(key) else { return false };
    scratch.flow = *flow;
    if is_forward(&scratch.flow, key) {
        scratch.flow.direction = direction::FORWARD;
        return true;
    }
    scratch.flow.direction = direction::REPLY;
    is_reply(&scratch.flow, key)
}

/// The same for the key in `scratch`.
#[inline(always)]
fn reread<A: Addr, L: Lookup<A>>(tables: &L, scratch: &mut Scratch<A>) -> bool {
    let Some(flow) = tables.flow(&scratch.key) else { return false };
    scratch.flow = *flow;
    is_forward(&scratch.flow, &scratch.key)
}

#[inline(always)]
fn is_forward<A: Addr>(flow: &FlowValue<A>, key: &FlowKey<A>) -> bool {
    flow.client_port == key.sport
        && flow.vip_port == key.dport
        && flow.proto == key.proto
        && flow.client == key.src
        && flow.vip == key.dst
}

#[inline(always)]
fn is_reply<A: Addr>(flow: &FlowValue<A>, key: &FlowKey<A>) -> bool {
    flow.backend_port == key.sport
        && flow.snat_port == key.dport
        && flow.proto == key.proto
        && flow.backend == key.src
        && flow.snat == key.dst
}

#[inline(always)]
fn translate<A: Addr>(flow: &FlowValue<A>, translation: &mut Translation<A>) {
    let reply = flow.direction == direction::REPLY;
    let to = &mut translation.to;
    if reply {
        (to.src, to.sport, to.dst, to.dport) = (flow.vip, flow.vip_port, flow.client, flow.client_port);
    } else {
        (to.src, to.sport, to.dst, to.dport) = (flow.snat, flow.snat_port, flow.backend, flow.backend_port);
    }
    (to.proto, to.pad) = (flow.proto, [0; 3]);
    translation.ifindex = flow.ifindex;
    translation.reply = reply.into();
    translation.masqueraded = (flow.snat != flow.client).into();
}

/// Opens a flow from a client to a backend of `service`; `scratch.translation` is what to make of the packet.
// Not inlined, here and below: each call has a stack frame of its own. All return a value: the verifier looks at the register
// for it even where nobody else does.
#[inline(never)]
pub fn open<A: Family, L: Lookup<A>>(
    tables: &L,
    parsed: &Parsed<A>,
    service: &ServiceValue,
    origin: &Origin,
    scratch: &mut Scratch<A>,
) -> Result<(), Reason> {
    let Some(choice) = choose(tables, service, parsed.key.src) else { return Err(Reason::NoLiveBackend) };
    begin(&mut scratch.flow, parsed, origin, tables.now());
    scratch.flow.backend_id = choice.id;
    scratch.flow.service_id = service.id;
    (scratch.flow.backend, scratch.flow.backend_port) = (choice.backend.addr, choice.backend.port);
    let pod = tables.pod(&choice.backend.addr).map(|pod| pod.index);
    let local = pod.is_some() || choice.backend.flags & backend_flags::LOCAL != 0;
    let must_masquerade = must_masquerade(&scratch.flow, service, origin, local);
    establish(tables, &Place { pod, local, client: origin.pod, must_masquerade }, scratch)
}

/// Whether answers to a packet that dials no service would be taken for those of a translated flow: the same client reaches
/// the same backend from the same port. A flow that is over makes way.
#[inline(never)]
pub fn collides<A: Addr, L: Lookup<A>>(tables: &L, parsed: &Parsed<A>, scratch: &mut Scratch<A>) -> bool {
    let key = &mut scratch.key;
    (key.src, key.sport, key.dst, key.dport) =
        (parsed.key.dst, parsed.key.dport, parsed.key.src, parsed.key.sport);
    (key.proto, key.pad) = (parsed.key.proto, [0; 3]);
    let Some(flow) = tables.flow(key) else { return false };
    scratch.flow = *flow;
    if !is_reply(&scratch.flow, &scratch.key) {
        return false;
    }
    if parsed.transport == Transport::Tcp && scratch.flow.state & CLOSING != 0 {
        end(tables, scratch);
        return false;
    }
    true
}

/// Opens a flow for a packet that dials no service but [`collides`]: it keeps its destination and gets another source.
#[inline(never)]
pub fn open_direct<A: Family, L: Lookup<A>>(
    tables: &L,
    parsed: &Parsed<A>,
    origin: &Origin,
    scratch: &mut Scratch<A>,
) -> Result<(), Reason> {
    begin(&mut scratch.flow, parsed, origin, tables.now());
    let pod = tables.pod(&parsed.key.dst).map(|pod| pod.index);
    establish(
        tables,
        &Place { pod, local: pod.is_some(), client: origin.pod, must_masquerade: true },
        scratch,
    )
}

/// Inserts both entries of the flow in `scratch`, with another source where it must have one.
#[inline(always)]
fn establish<A: Family, L: Lookup<A>>(
    tables: &L,
    place: &Place,
    scratch: &mut Scratch<A>,
) -> Result<(), Reason> {
    // The reply entry first: it reserves the source the backend sees.
    let mut must_masquerade = place.must_masquerade;
    if !must_masquerade {
        reply_key(&scratch.flow, &mut scratch.key);
        match tables.insert_flow(&scratch.key, &scratch.flow) {
            Ok(()) => {}
            // Another flow of this client reaches the same backend from the same port: this one gets another source.
            // A backend in the node's own namespace would answer that source over loopback, out of our sight.
            Err(InsertError::Exists) if place.pod.is_some() || !place.local => must_masquerade = true,
            Err(InsertError::Exists) => return Err(Reason::MasqueradePortsExhausted),
            Err(InsertError::Full) => return Err(Reason::FlowTableFull),
        }
    }
    if must_masquerade {
        masquerade(tables, scratch)?;
    }
    scratch.flow.direction = direction::FORWARD;
    forward_key(&scratch.flow, &mut scratch.key);
    if let Err(error) = tables.insert_flow(&scratch.key, &scratch.flow) {
        scratch.translation.to = scratch.key;
        reply_key(&scratch.flow, &mut scratch.key);
        tables.remove_flow(&scratch.key);
        // Two first packets of one flow on two CPUs: the other one's choice stands.
        scratch.key = scratch.translation.to;
        if error == InsertError::Exists && reread(tables, scratch) {
            translate(&scratch.flow, &mut scratch.translation);
            return Ok(());
        }
        return Err(Reason::FlowTableFull);
    }
    if let Some(index) = place.client {
        tables.mark_flows(index);
    }
    match place.pod {
        Some(index) => tables.mark_flows(index),
        None if place.local => tables.mark_flows(HOST_INDEX),
        None => {}
    }
    translate(&scratch.flow, &mut scratch.translation);
    Ok(())
}

/// A flow without translation, as far as the packet tells.
#[inline(always)]
fn begin<A: Addr>(flow: &mut FlowValue<A>, parsed: &Parsed<A>, origin: &Origin, now: u32) {
    let key = &parsed.key;
    (flow.client, flow.client_port) = (key.src, key.sport);
    (flow.vip, flow.vip_port) = (key.dst, key.dport);
    (flow.backend, flow.backend_port) = (key.dst, key.dport);
    (flow.snat, flow.snat_port) = (key.src, key.sport);
    flow.ifindex = origin.ifindex;
    flow.last_seen = now;
    (flow.backend_id, flow.service_id) = (0, 0);
    flow.proto = key.proto;
    (flow.direction, flow.state, flow.pad) = (direction::REPLY, 0, 0);
}

#[inline(always)]
fn forward_key<A: Addr>(flow: &FlowValue<A>, key: &mut FlowKey<A>) {
    (key.src, key.sport, key.dst, key.dport) = (flow.client, flow.client_port, flow.vip, flow.vip_port);
    (key.proto, key.pad) = (flow.proto, [0; 3]);
}

#[inline(always)]
fn reply_key<A: Addr>(flow: &FlowValue<A>, key: &mut FlowKey<A>) {
    (key.src, key.sport, key.dst, key.dport) = (flow.backend, flow.backend_port, flow.snat, flow.snat_port);
    (key.proto, key.pad) = (flow.proto, [0; 3]);
}

/// Removes both entries of the flow in `scratch`.
#[inline(never)]
fn end<A: Addr, L: Lookup<A>>(tables: &L, scratch: &mut Scratch<A>) -> u32 {
    reply_key(&scratch.flow, &mut scratch.key);
    tables.remove_flow(&scratch.key);
    forward_key(&scratch.flow, &mut scratch.key);
    tables.remove_flow(&scratch.key);
    0
}

/// Whether the backend must see the node's address: a pod that reaches itself would answer itself directly; a backend on
/// another node would answer a client outside directly.
#[inline(always)]
fn must_masquerade<A: Addr>(
    flow: &FlowValue<A>,
    service: &ServiceValue,
    origin: &Origin,
    local: bool,
) -> bool {
    if origin.pod.is_some() {
        flow.backend == flow.client
    } else {
        !local && service.flags & service_flags::MASQUERADE != 0
    }
}

/// Finds a free source port at the node's address and inserts the reply entry under it.
#[inline(always)]
fn masquerade<A: Addr, L: Lookup<A>>(tables: &L, scratch: &mut Scratch<A>) -> Result<(), Reason> {
    let Some(config) = tables.config() else { return Err(Reason::NoMasqueradeAddress) };
    let address = tables.node_address(&config);
    if address == A::UNSPECIFIED {
        return Err(Reason::NoMasqueradeAddress);
    }
    scratch.flow.snat = address;
    let first = u32::from(config.masquerade_first);
    let range = u32::from(config.masquerade_last).saturating_sub(first) + 1;
    let start = tables.random() % range;
    for attempt in 0..PORT_ATTEMPTS {
        let port = first + (start + attempt) % range;
        scratch.flow.snat_port = Be16::new(port as u16);
        reply_key(&scratch.flow, &mut scratch.key);
        match tables.insert_flow(&scratch.key, &scratch.flow) {
            Ok(()) => return Ok(()),
            Err(InsertError::Exists) => {}
            Err(InsertError::Full) => return Err(Reason::FlowTableFull),
        }
    }
    Err(Reason::MasqueradePortsExhausted)
}

/// Whether an opening packet may not join the flow it matches.
#[inline(always)]
fn is_over<A: Addr, L: Lookup<A>>(tables: &L, parsed: &Parsed<A>, flow: &FlowValue<A>) -> bool {
    if parsed.transport == Transport::Tcp && flow.state & CLOSING != 0 {
        return true;
    }
    // Without a service the flow has the destination it dialled.
    if flow.service_id == 0 {
        return false;
    }
    match tables.backend(flow.backend_id) {
        Some(backend) => backend.addr != flow.backend || backend.port != flow.backend_port,
        None => true,
    }
}

/// Notes a packet in both entries, but only when the state changes or the time is old, so that most packets write nothing.
#[inline(always)]
fn touch<A: Addr, L: Lookup<A>>(tables: &L, parsed: &Parsed<A>, scratch: &mut Scratch<A>) {
    let (now, state) = (tables.now(), seen(parsed, scratch.flow.direction));
    if scratch.flow.state | state != scratch.flow.state
        || now.wrapping_sub(scratch.flow.last_seen) >= ticks::REFRESH
    {
        refresh(tables, scratch, now, state);
    }
}

/// Entries are changed where they lie: to replace one would free it under the eyes of other CPUs. One that was lost is
/// brought back.
#[inline(never)]
fn refresh<A: Addr, L: Lookup<A>>(tables: &L, scratch: &mut Scratch<A>, now: u32, state: u8) -> u32 {
    (scratch.flow.last_seen, scratch.flow.state) = (now, scratch.flow.state | state);
    forward_key(&scratch.flow, &mut scratch.key);
    if !tables.touch_flow(&scratch.key, now, state) {
        scratch.flow.direction = direction::FORWARD;
        let _ = tables.insert_flow(&scratch.key, &scratch.flow);
    }
    reply_key(&scratch.flow, &mut scratch.key);
    if !tables.touch_flow(&scratch.key, now, state) {
        scratch.flow.direction = direction::REPLY;
        let _ = tables.insert_flow(&scratch.key, &scratch.flow);
    }
    0
}

#[inline(always)]
fn seen<A: Addr>(parsed: &Parsed<A>, from: u8) -> u8 {
    let (replied, fin) = if from == direction::FORWARD {
        (0, flow_state::CLIENT_FIN)
    } else {
        (flow_state::REPLIED, flow_state::BACKEND_FIN)
    };
    if parsed.transport != Transport::Tcp {
        replied
    } else if parsed.detail & tcp::RST != 0 {
        replied | flow_state::RESET
    } else if parsed.detail & tcp::FIN != 0 {
        replied | fin
    } else {
        replied
    }
}

#[cfg(test)]
mod tests;
