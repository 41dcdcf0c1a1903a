//! Changing addresses and ports of a packet, checksums included.
//!
//! In: a parsed packet and the tuple it shall have. Out: the changed packet.

use xebec_ebpf_common::{FlowKey, Reason};

use crate::checksum::Sum;
use crate::packet::{Family, Packet, Parsed, Transport};

/// Bytes of a MAC pair at the start of the packet.
const MACS: u32 = 0;

/// Gives a TCP or UDP packet the tuple `to`. `parsed` follows.
#[inline(never)]
pub fn rewrite<A: Family, P: Packet>(
    packet: &mut P,
    parsed: &mut Parsed<A>,
    to: &FlowKey<A>,
) -> Result<(), Reason> {
    let from = parsed.key;
    let (checksum, optional) = match parsed.transport {
        Transport::Tcp => (16, false),
        Transport::Udp => (6, true),
        Transport::Icmp | Transport::Other => return Err(Reason::Malformed),
    };
    let v6 = A::L3_CHECKSUM.is_none();
    let addresses = to.dst.add_to(to.src.add_to(from.dst.sub_from(from.src.sub_from(Sum::new())))).word();
    let ports = Sum::new().sub(word(from.sport.0, from.dport.0)).add(word(to.sport.0, to.dport.0)).word();

    let done = packet.update_l4_checksum(parsed.l4 + checksum, addresses, true, optional, v6)
        && packet.update_l4_checksum(parsed.l4 + checksum, ports, false, optional, v6)
        && A::L3_CHECKSUM.is_none_or(|offset| packet.update_l3_checksum(offset, addresses))
        && A::write_addresses(packet, to.src, to.dst)
        && packet.write(parsed.l4, ports_of(to));
    if !done {
        return Err(Reason::RewriteFailed);
    }
    parsed.key = *to;
    Ok(())
}

/// Overwrites the MAC addresses.
#[inline(always)]
pub fn write_macs<P: Packet>(packet: &mut P, dst: [u8; 6], src: [u8; 6]) -> bool {
    let [a, b, c, d, e, f] = dst;
    let [g, h, i, j, k, l] = src;
    packet.write(MACS, [a, b, c, d, e, f, g, h, i, j, k, l])
}

/// Two ports as the one word they form in the packet.
#[inline(always)]
fn word(first: u16, second: u16) -> u32 {
    let [a, b] = first.to_ne_bytes();
    let [c, d] = second.to_ne_bytes();
    u32::from_ne_bytes([a, b, c, d])
}

#[inline(always)]
fn ports_of<A: Family>(key: &FlowKey<A>) -> [u8; 4] {
    word(key.sport.0, key.dport.0).to_ne_bytes()
}
