//! Answers to packets that nobody serves: RST for TCP, ICMP port unreachable for UDP, made of the packet itself.
//!
//! In: the packet to refuse. Out: the answer, addressed to its sender, and [`Action::Out`] of the interface it came by.

use xebec_ebpf_common::{Be16, Reason, V4, V6, proto};

use crate::checksum::{Sum, Words};
use crate::packet::{Family, L3, Packet, Parsed, Transport, tcp};
use crate::rewrite::write_macs;
use crate::verdict::{Action, Verdict};

/// Hop limit of answers.
const HOPS: u8 = 64;
/// Length of a TCP header without options.
const TCP_LEN: u32 = 20;
/// Length of an ICMP header and of the part of the refused transport header that is quoted.
const ICMP_LEN: u32 = 8;

/// What the families do differently in an answer.
pub trait Rejectable: Family {
    /// Length of the network header of an answer.
    const HEADER: u32;
    /// Protocol number, type and code of "port unreachable".
    const UNREACHABLE: (u8, u8, u8);
    /// Writes a network header with a payload of `payload` bytes.
    fn write_header<P: Packet>(packet: &mut P, src: Self, dst: Self, number: u8, payload: u16) -> bool;
    /// The part of the ICMP checksum that covers the pseudo header; IPv4 has none.
    fn icmp_pseudo(src: Self, dst: Self, payload: u16) -> Sum;
}

/// Turns the packet into its own refusal.
#[inline(never)]
pub fn reject<A: Rejectable, P: Packet>(packet: &mut P, parsed: &Parsed<A>) -> Verdict {
    // Options would have to be moved out of the way; such packets are rare enough to be dropped.
    if parsed.l4 != L3 + A::HEADER {
        return Verdict::drop(Reason::NoEndpoint);
    }
    let done = match parsed.transport {
        // Nobody answers a reset.
        Transport::Tcp if parsed.detail & tcp::RST != 0 => return Verdict::drop(Reason::UnknownFlow),
        Transport::Tcp => swap_macs(packet).and_then(|()| reset(packet, parsed, parsed.detail)),
        Transport::Udp => swap_macs(packet).and_then(|()| unreachable(packet, parsed)),
        Transport::Icmp | Transport::Other => return Verdict::drop(Reason::NoEndpoint),
    };
    match done {
        Some(()) => Verdict::redirect(Action::Out, packet.ifindex()),
        None => Verdict::drop(Reason::RewriteFailed),
    }
}

#[inline(always)]
fn swap_macs<P: Packet>(packet: &mut P) -> Option<()> {
    let [a, b, c, d] = packet.read_u32(0)?.to_ne_bytes();
    let [e, f] = packet.read_u16(4)?.to_ne_bytes();
    let [g, h, i, j] = packet.read_u32(6)?.to_ne_bytes();
    let [k, l] = packet.read_u16(10)?.to_ne_bytes();
    write_macs(packet, [g, h, i, j, k, l], [a, b, c, d, e, f]).then_some(())
}

/// RFC 9293, 3.10.7.1: the answer to a segment of a connection that does not exist.
#[inline(always)]
fn reset<A: Rejectable, P: Packet>(packet: &mut P, parsed: &Parsed<A>, flags: u8) -> Option<()> {
    let sequence = u32::from_be(packet.read_u32(parsed.l4 + 4)?);
    let acknowledged = packet.read_u32(parsed.l4 + 8)?;
    let header = u32::from(packet.read_u8(parsed.l4 + 12)? >> 4) * 4;
    let payload = packet.len().saturating_sub(parsed.l4 + header);
    let counted = u32::from(flags & tcp::SYN != 0) + u32::from(flags & tcp::FIN != 0);
    let (sequence, acknowledged, flags) = if flags & tcp::ACK != 0 {
        (acknowledged, 0, tcp::RST)
    } else {
        (0, sequence.wrapping_add(payload).wrapping_add(counted).to_be(), tcp::RST | tcp::ACK)
    };

    let (src, dst) = (parsed.key.dst, parsed.key.src);
    let (sport, dport) = (parsed.key.dport, parsed.key.sport);
    let ports = pair(sport.0, dport.0);
    let control = u32::from_ne_bytes([5 << 4, flags, 0, 0]);
    let pseudo =
        dst.add_to(src.add_to(Sum::new())).add(u32::from_ne_bytes([0, proto::TCP, 0, TCP_LEN as u8])).fold();
    let data = Sum::new().add(ports).add(sequence).add(acknowledged).add(control);

    let done = packet.resize(parsed.l4 + TCP_LEN)
        && A::write_header(packet, src, dst, proto::TCP, TCP_LEN as u16)
        && packet.write(parsed.l4, words3(ports, sequence, acknowledged))
        && packet.write(parsed.l4 + 12, words2(control, pair(pseudo, 0)))
        // A packet whose checksum is left to the interface wants the sum of the pseudo header in the field, which is there
        // now, and ignores this update. Any other becomes right by it: ~(diff - pseudo) = ~(pseudo + data).
        && packet.update_l4_checksum(
            parsed.l4 + 16,
            data.add(u32::from(pseudo)).add(u32::from(pseudo)).word(),
            false,
            false,
            A::L3_CHECKSUM.is_none(),
        );
    done.then_some(())
}

/// Quotes the network header and the first eight bytes behind it.
#[inline(always)]
fn unreachable<A: Rejectable, P: Packet>(packet: &mut P, parsed: &Parsed<A>) -> Option<()> {
    let quoted = A::HEADER + ICMP_LEN;
    let payload = (ICMP_LEN + quoted) as u16;
    let (src, dst) = (parsed.key.dst, parsed.key.src);
    let (number, kind, code) = A::UNREACHABLE;
    let mut sum = A::icmp_pseudo(src, dst, payload).add(u32::from_ne_bytes([kind, code, 0, 0]));
    let mut offset = 0;
    while offset < quoted {
        sum = sum.add(packet.read_u32(L3 + offset)?);
        offset += 4;
    }
    let done = packet.resize(L3 + quoted)
        && packet.grow_l3(A::HEADER + ICMP_LEN)
        && A::write_header(packet, src, dst, number, payload)
        && packet.write(L3 + A::HEADER, words2(pair(u16::from_ne_bytes([kind, code]), sum.field()), 0));
    done.then_some(())
}

impl Rejectable for V4 {
    const HEADER: u32 = 20;
    const UNREACHABLE: (u8, u8, u8) = (proto::ICMP, 3, 3);

    #[inline(always)]
    fn write_header<P: Packet>(packet: &mut P, src: Self, dst: Self, number: u8, payload: u16) -> bool {
        let [len_high, len_low] = Be16::new(20 + payload).0.to_ne_bytes();
        let first = u32::from_ne_bytes([0x45, 0, len_high, len_low]);
        // Identification 0, don't fragment.
        let second = u32::from_ne_bytes([0, 0, 0x40, 0]);
        let third = u32::from_ne_bytes([HOPS, number, 0, 0]);
        let field = dst.add_to(src.add_to(Sum::new())).add(first).add(second).add(third).field();
        let [high, low] = field.to_ne_bytes();
        let third = u32::from_ne_bytes([HOPS, number, high, low]);
        packet.write(L3, words3(first, second, third)) && Self::write_addresses(packet, src, dst)
    }

    #[inline(always)]
    fn icmp_pseudo(_src: Self, _dst: Self, _payload: u16) -> Sum {
        Sum::new()
    }
}

impl Rejectable for V6 {
    const HEADER: u32 = 40;
    const UNREACHABLE: (u8, u8, u8) = (proto::ICMPV6, 1, 4);

    #[inline(always)]
    fn write_header<P: Packet>(packet: &mut P, src: Self, dst: Self, number: u8, payload: u16) -> bool {
        let [len_high, len_low] = Be16::new(payload).0.to_ne_bytes();
        packet.write(L3, [0x60, 0, 0, 0, len_high, len_low, number, HOPS])
            && Self::write_addresses(packet, src, dst)
    }

    #[inline(always)]
    fn icmp_pseudo(src: Self, dst: Self, payload: u16) -> Sum {
        let [high, low] = Be16::new(payload).0.to_ne_bytes();
        dst.add_to(src.add_to(Sum::new()))
            .add(u32::from_ne_bytes([0, 0, high, low]))
            .add(u32::from_ne_bytes([0, 0, 0, proto::ICMPV6]))
    }
}

#[inline(always)]
fn pair(first: u16, second: u16) -> u32 {
    let [a, b] = first.to_ne_bytes();
    let [c, d] = second.to_ne_bytes();
    u32::from_ne_bytes([a, b, c, d])
}

#[inline(always)]
fn words2(first: u32, second: u32) -> [u8; 8] {
    let [a, b, c, d] = first.to_ne_bytes();
    let [e, f, g, h] = second.to_ne_bytes();
    [a, b, c, d, e, f, g, h]
}

#[inline(always)]
fn words3(first: u32, second: u32, third: u32) -> [u8; 12] {
    let [a, b, c, d, e, f, g, h] = words2(first, second);
    let [i, j, k, l] = third.to_ne_bytes();
    [a, b, c, d, e, f, g, h, i, j, k, l]
}
