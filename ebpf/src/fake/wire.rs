//! Packets made and read by the book, with checksums computed over every byte.
//!
//! In: addresses, ports, flags, payload. Out: bytes from the Ethernet header on, and the other way. Nothing is shared with
//! the logic under test.

use std::net::{IpAddr, SocketAddr};
use std::vec::Vec;

use xebec_ebpf_common::proto;

/// A packet as a person would describe it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wire {
    pub macs: [[u8; 6]; 2],
    pub src: SocketAddr,
    pub dst: SocketAddr,
    pub body: Body,
}

/// What follows the network header. Ports are those of the socket addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    Tcp {
        flags: u8,
        sequence: u32,
        acknowledged: u32,
        payload: Vec<u8>,
    },
    Udp {
        payload: Vec<u8>,
        checksum: bool,
    },
    /// ICMP or ICMPv6: type, code, everything after the checksum.
    Icmp {
        kind: u8,
        code: u8,
        rest: Vec<u8>,
    },
}

impl Wire {
    /// A TCP segment.
    pub fn tcp(src: SocketAddr, dst: SocketAddr, flags: u8) -> Self {
        let body = Body::Tcp { flags, sequence: 1000, acknowledged: 2000, payload: b"tcp!".to_vec() };
        Self { macs: [[0; 6]; 2], src, dst, body }
    }

    /// A datagram.
    pub fn udp(src: SocketAddr, dst: SocketAddr) -> Self {
        let body = Body::Udp { payload: b"udp".to_vec(), checksum: true };
        Self { macs: [[0; 6]; 2], src, dst, body }
    }

    /// The same to another Ethernet address.
    pub fn to_mac(mut self, mac: [u8; 6]) -> Self {
        self.macs = [mac, [2, 0, 0, 9, 9, 9]];
        self
    }

    /// The bytes of it.
    ///
    /// # Panics
    /// When the addresses are of different families.
    pub fn bytes(&self) -> Vec<u8> {
        let transport = self.transport();
        let mut out: Vec<u8> = self.macs.concat();
        match (self.src.ip(), self.dst.ip()) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                out.extend([0x08, 0x00]);
                let total = (20 + transport.len() as u16).to_be_bytes();
                let mut header =
                    Vec::from([0x45, 0, total[0], total[1], 0x12, 0x34, 0x40, 0, 63, self.number(), 0, 0]);
                header.extend(src.octets());
                header.extend(dst.octets());
                let sum = checksum(&header).to_be_bytes();
                header[10..12].copy_from_slice(&sum);
                out.extend(header);
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                out.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
                out.extend((transport.len() as u16).to_be_bytes());
                out.extend([self.number(), 63]);
                out.extend(src.octets());
                out.extend(dst.octets());
            }
            _ => panic!("two families in one packet"),
        }
        out.extend(transport);
        out
    }

    /// Reads bytes; `None` when a length or a checksum is wrong.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let macs = [bytes.get(..6)?.try_into().ok()?, bytes.get(6..12)?.try_into().ok()?];
        let header = bytes.get(14..)?;
        let (src, dst, number, transport): (IpAddr, IpAddr, u8, &[u8]) = match bytes.get(12..14)? {
            [0x08, 0x00] => {
                let own = header.get(..20)?;
                let total = usize::from(u16::from_be_bytes([own[2], own[3]]));
                if own[0] != 0x45 || checksum(own) != 0 || total != header.len() {
                    return None;
                }
                let address = |at: usize| <[u8; 4]>::try_from(&own[at..at + 4]).map(IpAddr::from).ok();
                (address(12)?, address(16)?, own[9], &header[20..])
            }
            [0x86, 0xdd] => {
                let own = header.get(..40)?;
                let length = usize::from(u16::from_be_bytes([own[4], own[5]]));
                if own[0] >> 4 != 6 || 40 + length != header.len() {
                    return None;
                }
                let address = |at: usize| <[u8; 16]>::try_from(&own[at..at + 16]).map(IpAddr::from).ok();
                (address(8)?, address(24)?, own[6], &header[40..])
            }
            _ => return None,
        };
        let (sport, dport, body) = body(src, dst, number, transport)?;
        Some(Self { macs, src: SocketAddr::new(src, sport), dst: SocketAddr::new(dst, dport), body })
    }

    fn number(&self) -> u8 {
        match &self.body {
            Body::Tcp { .. } => proto::TCP,
            Body::Udp { .. } => proto::UDP,
            Body::Icmp { .. } if self.src.is_ipv4() => proto::ICMP,
            Body::Icmp { .. } => proto::ICMPV6,
        }
    }

    fn transport(&self) -> Vec<u8> {
        let ports = [self.src.port().to_be_bytes(), self.dst.port().to_be_bytes()].concat();
        let (mut out, at) = match &self.body {
            Body::Tcp { flags, sequence, acknowledged, payload } => {
                let mut out = ports;
                out.extend(sequence.to_be_bytes());
                out.extend(acknowledged.to_be_bytes());
                out.extend([0x50, *flags, 0xff, 0xff, 0, 0, 0, 0]);
                out.extend(payload);
                (out, 16)
            }
            Body::Udp { payload, checksum } => {
                let mut out = ports;
                out.extend((8 + payload.len() as u16).to_be_bytes());
                out.extend([0, 0]);
                out.extend(payload);
                if !checksum {
                    return out;
                }
                (out, 6)
            }
            Body::Icmp { kind, code, rest } => {
                let mut out = Vec::from([*kind, *code, 0, 0]);
                out.extend(rest);
                (out, 2)
            }
        };
        let sum = match checksum(&with_pseudo(self.src.ip(), self.dst.ip(), self.number(), &out)) {
            0 if self.number() == proto::UDP => 0xffff,
            sum => sum,
        };
        out[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        out
    }
}

fn body(src: IpAddr, dst: IpAddr, number: u8, bytes: &[u8]) -> Option<(u16, u16, Body)> {
    let word = |at: usize| Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
    let long = |at: usize| Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let has_checksum = number != proto::UDP || word(6)? != 0;
    if has_checksum && checksum(&with_pseudo(src, dst, number, bytes)) != 0 {
        return None;
    }
    Some(match number {
        proto::TCP => {
            let payload = bytes.get(usize::from(bytes.get(12)? >> 4) * 4..)?.to_vec();
            let body =
                Body::Tcp { flags: *bytes.get(13)?, sequence: long(4)?, acknowledged: long(8)?, payload };
            (word(0)?, word(2)?, body)
        }
        proto::UDP => {
            if usize::from(word(4)?) != bytes.len() {
                return None;
            }
            (word(0)?, word(2)?, Body::Udp { payload: bytes[8..].to_vec(), checksum: has_checksum })
        }
        proto::ICMP | proto::ICMPV6 => {
            (0, 0, Body::Icmp { kind: *bytes.first()?, code: *bytes.get(1)?, rest: bytes.get(4..)?.to_vec() })
        }
        _ => return None,
    })
}

/// What the checksum of a transport covers.
fn with_pseudo(src: IpAddr, dst: IpAddr, number: u8, transport: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    match (src, dst) {
        (IpAddr::V4(_), IpAddr::V4(_)) if number == proto::ICMP => {}
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            out.extend(src.octets());
            out.extend(dst.octets());
            out.extend([0, number]);
            out.extend((transport.len() as u16).to_be_bytes());
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            out.extend(src.octets());
            out.extend(dst.octets());
            out.extend((transport.len() as u32).to_be_bytes());
            out.extend([0, 0, 0, number]);
        }
        _ => {}
    }
    out.extend(transport);
    out
}

/// RFC 1071, two bytes at a time.
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum = 0_u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_read_back_as_made_and_a_flipped_bit_is_seen() {
        for (src, dst) in [("10.0.0.1:1", "10.0.0.2:2"), ("[fd00::1]:1", "[fd00::2]:2")] {
            let (src, dst) = (src.parse().unwrap(), dst.parse().unwrap());
            for wire in [Wire::tcp(src, dst, 2), Wire::udp(src, dst)] {
                let mut bytes = wire.bytes();
                assert_eq!(Wire::read(&bytes), Some(wire));
                *bytes.last_mut().unwrap() ^= 1;
                assert_eq!(Wire::read(&bytes), None);
            }
        }
    }
}
