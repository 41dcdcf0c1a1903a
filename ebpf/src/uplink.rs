//! Packets at the interface towards other machines.
//!
//! In: what arrives ([`ingress`]) and what leaves ([`egress`]). Out: verdicts. Here NodePorts, load balancer and external
//! addresses are served for clients that no socket hook sees, and the answers to masqueraded flows come back.

use xebec_ebpf_common::{HOST_INDEX, Reason, ServiceKey, scope};

use crate::deliver::{pass_by, serve, to_pod, translate};
use crate::flow;
use crate::lookup::Lookup;
use crate::packet::{Family, Packet, Parsed, Route};
use crate::reject::{Rejectable, reject};
use crate::rewrite::rewrite;
use crate::verdict::{Action, Verdict};

/// A packet arrives from another machine.
#[inline(never)]
pub fn ingress<A, P, L>(packet: &mut P, tables: &L) -> Verdict
where
    A: Family + Rejectable,
    P: Packet + Route<A>,
    L: Lookup<A>,
{
    // What the datapath cannot read is the host's to judge: most of it is not for pods.
    let Ok(mut parsed) = A::parse(packet) else { return Verdict::PASS };
    if let Some(pod) = tables.pod(&parsed.key.dst) {
        if parsed.has_ports()
            && tables.has_flows(pod.index)
            && let Some(mut scratch) = tables.scratch()
        {
            if flow::find(tables, &parsed, &mut scratch) {
                return translate(packet, tables, &mut parsed, &scratch.translation);
            }
            if parsed.opens() && flow::collides(tables, &parsed, &mut scratch) {
                return pass_by(packet, tables, &mut parsed, None, &mut scratch);
            }
        }
        return to_pod(packet, &pod);
    }
    if !parsed.has_ports() {
        return Verdict::PASS;
    }
    if let Some(service) = tables.service(&key(&parsed, scope::EXTERNAL)) {
        let service = *service;
        if let Some(mut scratch) = tables.scratch()
            && flow::find(tables, &parsed, &mut scratch)
        {
            return translate(packet, tables, &mut parsed, &scratch.translation);
        }
        if !parsed.opens() {
            tables.count(Reason::UnknownFlow, packet.len());
            return reject(packet, &parsed);
        }
        return serve(packet, tables, &mut parsed, &service, None);
    }
    if is_masqueraded(tables, &parsed)
        && let Some(mut scratch) = tables.scratch()
        && flow::find(tables, &parsed, &mut scratch)
    {
        return translate(packet, tables, &mut parsed, &scratch.translation);
    }
    Verdict::PASS
}

/// A packet leaves for another machine. Answers of backends in the node's own namespace get the address the client dialled;
/// the node's own packets to a service without endpoints are answered here, because no router would.
#[inline(never)]
pub fn egress<A, P, L>(packet: &mut P, tables: &L) -> Verdict
where
    A: Family + Rejectable,
    P: Packet,
    L: Lookup<A>,
{
    let Ok(mut parsed) = A::parse(packet) else { return Verdict::PASS };
    if !parsed.has_ports() {
        return Verdict::PASS;
    }
    if tables.has_flows(HOST_INDEX)
        && let Some(mut scratch) = tables.scratch()
        && flow::find(tables, &parsed, &mut scratch)
    {
        return match rewrite(packet, &mut parsed, &scratch.translation.to) {
            Ok(()) => Verdict::PASS,
            Err(reason) => Verdict::drop(reason),
        };
    }
    if !parsed.opens() || tables.config().is_none_or(|config| tables.node_address(&config) != parsed.key.src)
    {
        return Verdict::PASS;
    }
    match tables.service(&key(&parsed, scope::INTERNAL)) {
        Some(service) if service.count == 0 => {
            tables.count(Reason::NoEndpoint, packet.len());
            let verdict = reject(packet, &parsed);
            if verdict.action == Action::Out { Verdict { action: Action::In, ..verdict } } else { verdict }
        }
        _ => Verdict::PASS,
    }
}

#[inline(always)]
fn key<A: Family>(parsed: &Parsed<A>, scope: u8) -> ServiceKey<A> {
    ServiceKey { addr: parsed.key.dst, port: parsed.key.dport, proto: parsed.key.proto, scope }
}

/// Whether the packet may answer a masqueraded flow: it comes to the node's address at a port that no socket uses.
#[inline(always)]
fn is_masqueraded<A: Family, L: Lookup<A>>(tables: &L, parsed: &Parsed<A>) -> bool {
    let Some(config) = tables.config() else { return false };
    let port = parsed.key.dport.host();
    port >= config.masquerade_first
        && port <= config.masquerade_last
        && tables.node_address(&config) == parsed.key.dst
}
