//! Internet checksums as differences (RFC 1624).
//!
//! In: old and new words as they lie in the packet. Out: a 32-bit ones' complement sum. Byte order does not matter to a
//! ones' complement sum as long as all words are read alike, so nothing is swapped here.

use xebec_ebpf_common::{Addr, V4, V6};

/// Running ones' complement sum, folded only at the end.
#[derive(Clone, Copy, Default, Debug)]
pub struct Sum(u64);

impl Sum {
    /// The empty sum.
    #[inline(always)]
    pub const fn new() -> Self {
        Self(0)
    }

    /// Adds a word.
    #[inline(always)]
    pub const fn add(self, word: u32) -> Self {
        Self(self.0 + word as u64)
    }

    /// Takes a word away.
    #[inline(always)]
    pub const fn sub(self, word: u32) -> Self {
        Self(self.0 + !word as u64)
    }

    /// Adds a difference computed before.
    #[inline(always)]
    pub const fn add_sum(self, other: Sum) -> Self {
        Self(self.0 + other.word() as u64)
    }

    /// The sum in 32 bits, as the kernel's helpers take it.
    #[inline(always)]
    pub const fn word(self) -> u32 {
        let once = (self.0 & 0xffff_ffff) + (self.0 >> 32);
        ((once & 0xffff_ffff) + (once >> 32)) as u32
    }

    /// The sum in 16 bits, not complemented.
    #[inline(always)]
    pub const fn fold(self) -> u16 {
        let word = self.word();
        let once = (word & 0xffff) + (word >> 16);
        ((once & 0xffff) + (once >> 16)) as u16
    }

    /// The checksum field that belongs to this sum.
    #[inline(always)]
    pub const fn field(self) -> u16 {
        !self.fold()
    }
}

/// Addresses as words of a sum.
pub trait Words: Addr {
    /// Adds the address.
    fn add_to(self, sum: Sum) -> Sum;
    /// Takes the address away.
    fn sub_from(self, sum: Sum) -> Sum;
}

impl Words for V4 {
    #[inline(always)]
    fn add_to(self, sum: Sum) -> Sum {
        sum.add(self.0)
    }

    #[inline(always)]
    fn sub_from(self, sum: Sum) -> Sum {
        sum.sub(self.0)
    }
}

impl Words for V6 {
    #[inline(always)]
    fn add_to(self, sum: Sum) -> Sum {
        let [a, b, c, d] = self.0;
        sum.add(a).add(b).add(c).add(d)
    }

    #[inline(always)]
    fn sub_from(self, sum: Sum) -> Sum {
        let [a, b, c, d] = self.0;
        sum.sub(a).sub(b).sub(c).sub(d)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_applied_to_a_field_equals_the_field_computed_anew() {
        let old = [0x1234_5678_u32, 0xffff_ffff, 0x0000_0001];
        let new = [0xdead_beef_u32, 0x0102_0304, 0xffff_fffe];
        let full = |words: &[u32]| words.iter().fold(Sum::new(), |s, w| s.add(*w)).field();
        let diff = old.iter().zip(&new).fold(Sum::new(), |s, (o, n)| s.sub(*o).add(*n));
        let updated = Sum::new().add(u32::from(!full(&old))).add_sum(diff).field();
        assert_eq!(updated, full(&new));
    }
}
