//! Packets at the host end of a pod's veth.
//!
//! In: what the pod sends ([`ingress`]) and what the node's stack sends to it ([`egress`]). Out: verdicts. Packets whose
//! destination the socket hooks chose pass with two lookups: the source's entry and the destination's.

use xebec_ebpf_common::{HOST_INDEX, Reason, ServiceKey, scope};

use crate::deliver::{pass_by, serve, to_pod, translate};
use crate::flow;
use crate::lookup::Lookup;
use crate::packet::{Family, Packet, Route};
use crate::reject::Rejectable;
use crate::rewrite::rewrite;
use crate::verdict::Verdict;

/// A packet leaves a pod.
#[inline(never)]
pub fn ingress<A, P, L>(packet: &mut P, tables: &L) -> Verdict
where
    A: Family + Rejectable,
    P: Packet + Route<A>,
    L: Lookup<A>,
{
    let Ok(mut parsed) = A::parse(packet) else { return Verdict::drop(Reason::Malformed) };
    let source = match tables.pod(&parsed.key.src) {
        Some(pod) if pod.ifindex == packet.ifindex() => pod,
        _ if A::is_neighbour_discovery(&parsed) => return Verdict::PASS,
        _ => return Verdict::drop(Reason::SpoofedSource),
    };
    if parsed.has_ports()
        && tables.has_flows(source.index)
        && let Some(mut scratch) = tables.scratch()
    {
        if flow::find(tables, &parsed, &mut scratch) {
            return translate(packet, tables, &mut parsed, &scratch.translation);
        }
        if parsed.opens() && flow::collides(tables, &parsed, &mut scratch) {
            return pass_by(packet, tables, &mut parsed, Some(source.index), &mut scratch);
        }
    }
    if let Some(pod) = tables.pod(&parsed.key.dst) {
        return to_pod(packet, &pod);
    }
    if parsed.opens()
        && let Some(service) = tables.service(&ServiceKey {
            addr: parsed.key.dst,
            port: parsed.key.dport,
            proto: parsed.key.proto,
            scope: scope::INTERNAL,
        })
    {
        let service = *service;
        return serve(packet, tables, &mut parsed, &service, Some(source.index));
    }
    Verdict::PASS
}

/// The node's stack sends a packet to a pod: the answer of a backend in the node's own namespace gets the address the pod
/// dialled.
#[inline(never)]
pub fn egress<A, P, L>(packet: &mut P, tables: &L) -> Verdict
where
    A: Family,
    P: Packet,
    L: Lookup<A>,
{
    if !tables.has_flows(HOST_INDEX) {
        return Verdict::PASS;
    }
    let Ok(mut parsed) = A::parse(packet) else { return Verdict::PASS };
    if !parsed.has_ports() {
        return Verdict::PASS;
    }
    let Some(mut scratch) = tables.scratch() else { return Verdict::PASS };
    if !flow::find(tables, &parsed, &mut scratch) {
        return Verdict::PASS;
    }
    match rewrite(packet, &mut parsed, &scratch.translation.to) {
        Ok(()) => Verdict::PASS,
        Err(reason) => Verdict::drop(reason),
    }
}
