//! The last step: from a packet's final tuple to a verdict.
//!
//! In: a packet, translated or not. Out: where it goes. Opens flows for packets that dial a service.

use xebec_ebpf_common::{PodValue, Reason, ServiceValue, service_flags};

use crate::flow::{self, Origin, Scratch, Translation};
use crate::lookup::Lookup;
use crate::packet::{Family, Packet, Parsed, Route};
use crate::reject::{Rejectable, reject};
use crate::rewrite::{rewrite, write_macs};
use crate::verdict::{Action, Verdict};

/// Into a pod of this node, past the node's stack.
#[inline(always)]
pub fn to_pod<P: Packet>(packet: &mut P, pod: &PodValue) -> Verdict {
    if write_macs(packet, pod.mac, pod.host_mac) {
        Verdict::redirect(Action::Peer, pod.ifindex)
    } else {
        Verdict::drop(Reason::RewriteFailed)
    }
}

/// Translates a packet of a known flow and sends it on.
#[inline(always)]
pub fn translate<A, P, L>(
    packet: &mut P,
    tables: &L,
    parsed: &mut Parsed<A>,
    flow: &Translation<A>,
) -> Verdict
where
    A: Family,
    P: Packet + Route<A>,
    L: Lookup<A>,
{
    if let Err(reason) = rewrite(packet, parsed, &flow.to) {
        return Verdict::drop(reason);
    }
    if let Some(pod) = tables.pod(&parsed.key.dst) {
        return to_pod(packet, &pod);
    }
    // The stack drops a forwarded packet whose source is an address of the node itself, so answers to clients outside and
    // masqueraded packets go past it.
    if flow.reply != 0 {
        return Verdict::redirect(Action::Neighbour, flow.ifindex);
    }
    if flow.masqueraded == 0 {
        return Verdict::PASS;
    }
    match packet.route(parsed.key.src, parsed.key.dst) {
        Some(ifindex) => Verdict::redirect(Action::Neighbour, ifindex),
        None => Verdict::drop(Reason::NoRoute),
    }
}

/// Serves a packet that opens a connection to a service; `pod` is the index of the pod that sent it, if one did.
#[inline(always)]
pub fn serve<A, P, L>(
    packet: &mut P,
    tables: &L,
    parsed: &mut Parsed<A>,
    service: &ServiceValue,
    pod: Option<u32>,
) -> Verdict
where
    A: Family + Rejectable,
    P: Packet + Route<A>,
    L: Lookup<A>,
{
    if service.count == 0 {
        if service.flags & service_flags::DROP_EMPTY != 0 {
            return Verdict::drop(Reason::NoLocalEndpoint);
        }
        tables.count(Reason::NoEndpoint, packet.len());
        return reject(packet, parsed);
    }
    let Some(mut scratch) = tables.scratch() else { return Verdict::PASS };
    match flow::open(tables, parsed, service, &Origin { pod, ifindex: packet.ifindex() }, &mut scratch) {
        Ok(()) => translate(packet, tables, parsed, &scratch.translation),
        Err(reason) => Verdict::drop(reason),
    }
}

/// Sends a packet that dials no service past the translated flow it [`flow::collides`] with.
#[inline(always)]
pub fn pass_by<A, P, L>(
    packet: &mut P,
    tables: &L,
    parsed: &mut Parsed<A>,
    pod: Option<u32>,
    scratch: &mut Scratch<A>,
) -> Verdict
where
    A: Family,
    P: Packet + Route<A>,
    L: Lookup<A>,
{
    match flow::open_direct(tables, parsed, &Origin { pod, ifindex: packet.ifindex() }, scratch) {
        Ok(()) => translate(packet, tables, parsed, &scratch.translation),
        Err(reason) => Verdict::drop(reason),
    }
}
