//! Addresses and ports in the order of the wire.
//!
//! In: octets and host-order ports. Out: words that compare equal to what a packet holds. Absent: text, `std::net`.
#![expect(unsafe_code, reason = "implements Plain through its macro")]

use crate::plain::{Plain, plain};

/// A 16-bit number as it lies in a packet.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(transparent)]
pub struct Be16(pub u16);

/// An IPv4 address as it lies in a packet.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(transparent)]
pub struct V4(pub u32);

/// An IPv6 address as it lies in a packet: four words, each in the order of the wire.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(transparent)]
pub struct V6(pub [u32; 4]);

plain! { Be16 = 2, V4 = 4, V6 = 16 }

/// What the two address families have in common.
pub trait Addr: Plain + PartialEq + Eq + core::hash::Hash + Ord + core::fmt::Debug {
    /// The unspecified address, also the mark of an empty entry.
    const UNSPECIFIED: Self;
    /// EtherType of the family, host order.
    const ETHERTYPE: u16;
    /// The address as IPv6; an IPv4 address becomes its mapped form `::ffff:a.b.c.d`.
    fn to_v6(self) -> V6;
    /// Whether the address is one of the loopback range.
    fn is_loopback(self) -> bool;
}

/// Third word of an IPv4-mapped IPv6 address.
const MAPPED: u32 = 0x0000_ffff_u32.to_be();

// === impl Be16 ===

impl Be16 {
    /// From a number in host order.
    #[inline(always)]
    pub const fn new(host: u16) -> Self {
        Self(host.to_be())
    }

    /// The number in host order.
    #[inline(always)]
    pub const fn host(self) -> u16 {
        u16::from_be(self.0)
    }
}

// === impl V4 ===

impl V4 {
    /// From octets as written in dotted notation.
    #[inline(always)]
    pub const fn from_octets(octets: [u8; 4]) -> Self {
        Self(u32::from_ne_bytes(octets))
    }

    /// Octets as written in dotted notation.
    #[inline(always)]
    pub const fn octets(self) -> [u8; 4] {
        self.0.to_ne_bytes()
    }
}

impl Addr for V4 {
    const UNSPECIFIED: Self = Self(0);
    const ETHERTYPE: u16 = 0x0800;

    #[inline(always)]
    fn to_v6(self) -> V6 {
        V6([0, 0, MAPPED, self.0])
    }

    #[inline(always)]
    fn is_loopback(self) -> bool {
        u32::from_be(self.0) >> 24 == 127
    }
}

// === impl V6 ===

impl V6 {
    /// From the sixteen octets of the address.
    pub const fn from_octets(o: [u8; 16]) -> Self {
        Self([
            u32::from_ne_bytes([o[0], o[1], o[2], o[3]]),
            u32::from_ne_bytes([o[4], o[5], o[6], o[7]]),
            u32::from_ne_bytes([o[8], o[9], o[10], o[11]]),
            u32::from_ne_bytes([o[12], o[13], o[14], o[15]]),
        ])
    }

    /// The sixteen octets of the address.
    pub const fn octets(self) -> [u8; 16] {
        let [a, b, c, d] = self.0;
        let (a, b, c, d) = (a.to_ne_bytes(), b.to_ne_bytes(), c.to_ne_bytes(), d.to_ne_bytes());
        [a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3], c[0], c[1], c[2], c[3], d[0], d[1], d[2], d[3]]
    }

    /// The IPv4 address inside a mapped one.
    #[inline(always)]
    pub fn mapped(self) -> Option<V4> {
        let [a, b, c, d] = self.0;
        (a == 0 && b == 0 && c == MAPPED).then_some(V4(d))
    }
}

impl Addr for V6 {
    const UNSPECIFIED: Self = Self([0; 4]);
    const ETHERTYPE: u16 = 0x86dd;

    #[inline(always)]
    fn to_v6(self) -> V6 {
        self
    }

    #[inline(always)]
    fn is_loopback(self) -> bool {
        self.0 == [0, 0, 0, 1_u32.to_be()]
    }
}
