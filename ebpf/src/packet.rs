//! One packet: access to its bytes and the view of its headers.
//!
//! In: bytes from the Ethernet header on. Out: [`Parsed`]. Headers beyond TCP, UDP and ICMP are passed, not understood.

use xebec_ebpf_common::{Addr, Be16, FlowKey, V4, V6, proto};

use crate::checksum::Words;

/// Length of an Ethernet header without VLAN tag; the network header starts here.
pub const L3: u32 = 14;

/// Bytes of one packet. Reads give words as they lie in the packet, without a swap.
pub trait Packet {
    /// Length from the Ethernet header on.
    fn len(&self) -> u32;
    /// Interface the program runs at.
    fn ifindex(&self) -> u32;
    /// EtherType, host order.
    fn ethertype(&self) -> u16;
    /// Two bytes.
    fn read_u16(&self, offset: u32) -> Option<u16>;
    /// Four bytes.
    fn read_u32(&self, offset: u32) -> Option<u32>;
    /// Overwrites bytes; no checksum is touched.
    fn write<const N: usize>(&mut self, offset: u32, bytes: [u8; N]) -> bool;
    /// Applies a difference to the checksum of an IPv4 header.
    fn update_l3_checksum(&mut self, offset: u32, diff: u32) -> bool;
    /// Applies a difference to a TCP, UDP or ICMPv6 checksum. `pseudo`: the difference is one of the pseudo header, which
    /// a packet whose checksum is left to the interface already holds. `optional`: a zero checksum stays zero (UDP).
    fn update_l4_checksum(&mut self, offset: u32, diff: u32, pseudo: bool, optional: bool, v6: bool) -> bool;
    /// Cuts or grows the packet at its end.
    fn resize(&mut self, len: u32) -> bool;
    /// Makes room between the Ethernet and the network header.
    fn grow_l3(&mut self, bytes: u32) -> bool;

    /// One byte that is not the last: the verifier does not follow the comparison a single byte is compiled to.
    #[inline(always)]
    fn read_u8(&self, offset: u32) -> Option<u8> {
        self.read_u16(offset).map(|word| word.to_ne_bytes()[0])
    }

    /// Whether the packet is empty; no packet is.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The route a translated packet would take.
pub trait Route<A: Addr> {
    /// Interface on the way from `src` to `dst`; `None` without a route.
    fn route(&self, src: A, dst: A) -> Option<u32>;
}

/// TCP flag bits.
pub mod tcp {
    /// No more data.
    pub const FIN: u8 = 0x01;
    /// Opens a connection.
    pub const SYN: u8 = 0x02;
    /// Aborts a connection.
    pub const RST: u8 = 0x04;
    /// The acknowledgement number counts.
    pub const ACK: u8 = 0x10;
}

/// What follows the network header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Transport {
    /// A fragment without ports, or a protocol without any.
    Other = 0,
    Tcp = 1,
    Udp = 2,
    /// ICMP or ICMPv6.
    Icmp = 3,
}

/// Headers of a packet of one family. Every field always has a value; see [`crate::verdict::Verdict`] for why.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Parsed<A> {
    /// Addresses, and ports where there are any.
    pub key: FlowKey<A>,
    /// Offset of the transport header.
    pub l4: u32,
    /// What is there.
    pub transport: Transport,
    /// Flags of TCP, type of ICMP, else 0.
    pub detail: u8,
}

/// The packet cannot be what it claims to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Malformed;

/// Where a family keeps its addresses.
pub trait Family: Addr + Words {
    /// Reads the headers.
    fn parse<P: Packet>(packet: &P) -> Result<Parsed<Self>, Malformed>;
    /// Overwrites source and destination address.
    fn write_addresses<P: Packet>(packet: &mut P, src: Self, dst: Self) -> bool;
    /// Offset of the header checksum, where the family has one.
    const L3_CHECKSUM: Option<u32>;
    /// Whether a source without an entry may be used to find neighbours.
    fn is_neighbour_discovery(parsed: &Parsed<Self>) -> bool;
}

impl<A: Addr> Parsed<A> {
    /// Whether the packet opens a connection: a SYN without ACK, or anything of a protocol without connections.
    #[inline(always)]
    pub fn opens(&self) -> bool {
        self.transport == Transport::Udp
            || self.transport == Transport::Tcp && self.detail & (tcp::SYN | tcp::ACK) == tcp::SYN
    }

    /// Whether the packet has ports and a checksum we can change.
    #[inline(always)]
    pub fn has_ports(&self) -> bool {
        self.transport == Transport::Tcp || self.transport == Transport::Udp
    }
}

/// Ports, kind and detail of what follows the network header.
type Ports = (Be16, Be16, Transport, u8);

/// Reads ports and flags behind the network header.
#[inline(always)]
fn transport<P: Packet>(packet: &P, l4: u32, number: u8) -> Result<Ports, Malformed> {
    let none = Be16(0);
    match number {
        proto::TCP | proto::UDP => {}
        proto::ICMP | proto::ICMPV6 => {
            return Ok((none, none, Transport::Icmp, packet.read_u8(l4).ok_or(Malformed)?));
        }
        _ => return Ok((none, none, Transport::Other, 0)),
    }
    let sport = Be16(packet.read_u16(l4).ok_or(Malformed)?);
    let dport = Be16(packet.read_u16(l4 + 2).ok_or(Malformed)?);
    if number == proto::UDP {
        return Ok((sport, dport, Transport::Udp, 0));
    }
    Ok((sport, dport, Transport::Tcp, packet.read_u8(l4 + 13).ok_or(Malformed)?))
}

impl Family for V4 {
    const L3_CHECKSUM: Option<u32> = Some(L3 + 10);

    #[inline(always)]
    fn parse<P: Packet>(packet: &P) -> Result<Parsed<Self>, Malformed> {
        let version = packet.read_u8(L3).ok_or(Malformed)?;
        let header = u32::from(version & 0x0f) * 4;
        if version >> 4 != 4 || header < 20 {
            return Err(Malformed);
        }
        let fragment = u16::from_be(packet.read_u16(L3 + 6).ok_or(Malformed)?) & 0x1fff;
        let number = packet.read_u8(L3 + 9).ok_or(Malformed)?;
        let src = V4(packet.read_u32(L3 + 12).ok_or(Malformed)?);
        let dst = V4(packet.read_u32(L3 + 16).ok_or(Malformed)?);
        let l4 = L3 + header;
        let (sport, dport, transport, detail) = if fragment == 0 {
            transport(packet, l4, number)?
        } else {
            (Be16(0), Be16(0), Transport::Other, 0)
        };
        Ok(Parsed {
            key: FlowKey { src, dst, sport, dport, proto: number, pad: [0; 3] },
            l4,
            transport,
            detail,
        })
    }

    #[inline(always)]
    fn write_addresses<P: Packet>(packet: &mut P, src: Self, dst: Self) -> bool {
        let [a, b, c, d] = src.octets();
        let [e, f, g, h] = dst.octets();
        packet.write(L3 + 12, [a, b, c, d, e, f, g, h])
    }

    #[inline(always)]
    fn is_neighbour_discovery(_parsed: &Parsed<Self>) -> bool {
        false
    }
}

impl Family for V6 {
    const L3_CHECKSUM: Option<u32> = None;

    #[inline(always)]
    fn parse<P: Packet>(packet: &P) -> Result<Parsed<Self>, Malformed> {
        if packet.read_u8(L3).ok_or(Malformed)? >> 4 != 6 {
            return Err(Malformed);
        }
        let number = packet.read_u8(L3 + 6).ok_or(Malformed)?;
        let src = read_v6(packet, L3 + 8)?;
        let dst = read_v6(packet, L3 + 24)?;
        let l4 = L3 + 40;
        let (sport, dport, transport, detail) = transport(packet, l4, number)?;
        Ok(Parsed {
            key: FlowKey { src, dst, sport, dport, proto: number, pad: [0; 3] },
            l4,
            transport,
            detail,
        })
    }

    #[inline(always)]
    fn write_addresses<P: Packet>(packet: &mut P, src: Self, dst: Self) -> bool {
        packet.write(L3 + 8, src.octets()) && packet.write(L3 + 24, dst.octets())
    }

    #[inline(always)]
    fn is_neighbour_discovery(parsed: &Parsed<Self>) -> bool {
        // Router and neighbour solicitation and advertisement, multicast listener reports: they have link-local or no
        // source and never leave the link.
        parsed.transport == Transport::Icmp && matches!(parsed.detail, 133..=136 | 143)
            || is_listener_report(parsed)
    }
}

/// Multicast listener reports travel behind a hop-by-hop header (next header 0) from a link-local source.
#[inline(always)]
fn is_listener_report(parsed: &Parsed<V6>) -> bool {
    let [first, ..] = parsed.key.dst.octets();
    parsed.key.proto == 0 && first == 0xff
}

#[inline(always)]
fn read_v6<P: Packet>(packet: &P, offset: u32) -> Result<V6, Malformed> {
    Ok(V6([
        packet.read_u32(offset).ok_or(Malformed)?,
        packet.read_u32(offset + 4).ok_or(Malformed)?,
        packet.read_u32(offset + 8).ok_or(Malformed)?,
        packet.read_u32(offset + 12).ok_or(Malformed)?,
    ]))
}
