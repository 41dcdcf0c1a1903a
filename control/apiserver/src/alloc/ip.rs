//! One range of service addresses.
//!
//! In: a CIDR. Out: addresses, each given out once. The lower band is left to static assignments as long as the rest
//! has room (KEP-3070), so that a fixed address of a manifest is rarely taken by chance.

use std::collections::HashSet;
use std::net::IpAddr;

use ipnet::IpNet;

use super::AllocError;

/// Larger ranges are used up to this many addresses.
const MAX_BITS: u8 = 20;

#[derive(Debug)]
pub(crate) struct IpRange {
    cidr: IpNet,
    /// Offsets from the network address that can be given out: 1..=last.
    last: u32,
    /// Offsets up to here are given out last.
    band: u32,
    taken: HashSet<u32>,
}

impl IpRange {
    pub(crate) fn new(cidr: IpNet) -> Self {
        let cidr = cidr.trunc();
        let bits = (cidr.max_prefix_len() - cidr.prefix_len()).min(MAX_BITS);
        let size = 1u32 << bits;
        // The network address stays out, and so does the broadcast address where there is one.
        let last = match (cidr, bits) {
            (_, 0) => 0,
            (IpNet::V4(_), _) => size - 2,
            (IpNet::V6(_), _) => size - 1,
        };
        let band = if size <= 16 { 0 } else { (size / 16).clamp(16, 256) };
        Self { cidr, last, band, taken: HashSet::new() }
    }

    pub(crate) fn cidr(&self) -> &IpNet {
        &self.cidr
    }

    /// The first address: the `kubernetes` service's.
    pub(crate) fn first(&self) -> IpAddr {
        self.address(1)
    }

    /// Takes one address.
    pub(crate) fn allocate(&mut self, address: IpAddr) -> Result<(), AllocError> {
        let offset = self.offset(address).ok_or_else(|| AllocError::AddressOutside {
            address: address.to_string(),
            range: self.cidr.to_string(),
        })?;
        if self.taken.insert(offset) { Ok(()) } else { Err(AllocError::AddressTaken) }
    }

    /// Takes any address: above the band while there is one, then inside it.
    pub(crate) fn allocate_next(&mut self) -> Result<IpAddr, AllocError> {
        let offset = self
            .free(self.band + 1, self.last)
            .or_else(|| self.free(1, self.band.min(self.last)))
            .ok_or(AllocError::Full)?;
        self.taken.insert(offset);
        Ok(self.address(offset))
    }

    pub(crate) fn release(&mut self, address: IpAddr) {
        if let Some(offset) = self.offset(address) {
            self.taken.remove(&offset);
        }
    }

    /// The first free offset from a random one on, around the end.
    fn free(&self, first: u32, last: u32) -> Option<u32> {
        if first > last || self.taken.len() >= usize::try_from(self.last).unwrap_or(usize::MAX) {
            return None;
        }
        let start = rand::random_range(first..=last);
        (start..=last).chain(first..start).find(|offset| !self.taken.contains(offset))
    }

    fn address(&self, offset: u32) -> IpAddr {
        match self.cidr {
            IpNet::V4(net) => (u32::from(net.addr()) + offset).to_be_bytes().into(),
            IpNet::V6(net) => (u128::from(net.addr()) + u128::from(offset)).to_be_bytes().into(),
        }
    }

    fn offset(&self, address: IpAddr) -> Option<u32> {
        let offset = match (self.cidr, address) {
            (IpNet::V4(net), IpAddr::V4(address)) => u32::from(address).checked_sub(u32::from(net.addr())),
            (IpNet::V6(net), IpAddr::V6(address)) => u128::from(address)
                .checked_sub(u128::from(net.addr()))
                .and_then(|offset| offset.try_into().ok()),
            _ => None,
        };
        offset.filter(|offset| (1..=self.last).contains(offset))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(cidr: &str) -> IpRange {
        IpRange::new(cidr.parse().expect("a CIDR"))
    }

    #[test]
    fn every_address_is_given_out_once_and_the_band_last() {
        let mut range = range("10.96.0.0/24");
        assert_eq!(range.first().to_string(), "10.96.0.1");
        let all: Vec<IpAddr> = std::iter::from_fn(|| range.allocate_next().ok()).collect();
        assert_eq!(all.len(), 254);
        assert_eq!(all.iter().collect::<HashSet<_>>().len(), 254);
        let in_band = |address: &IpAddr| matches!(address, IpAddr::V4(v4) if v4.octets()[3] <= 16);
        assert_eq!(all.iter().position(in_band), Some(254 - 16));
        assert_eq!(range.allocate_next(), Err(AllocError::Full));
        range.release(all[3]);
        assert_eq!(range.allocate_next(), Ok(all[3]));
    }

    #[test]
    fn named_addresses_are_checked() {
        let mut range = range("fd00:10:96::/108");
        let address = "fd00:10:96::a".parse().expect("an address");
        assert_eq!(range.allocate(address), Ok(()));
        assert_eq!(range.allocate(address), Err(AllocError::AddressTaken));
        let outside = range.allocate("fd00::1".parse().expect("an address")).expect_err("outside");
        assert_eq!(
            outside.to_string(),
            "the provided IP (fd00::1) is not in the valid range. The range of valid IPs is fd00:10:96::/108"
        );
        let network = range.allocate("fd00:10:96::".parse().expect("an address"));
        assert!(matches!(network, Err(AllocError::AddressOutside { .. })));
    }

    #[test]
    fn tiny_ranges_work() {
        let mut range = range("10.0.0.0/30");
        assert!(range.allocate_next().is_ok() && range.allocate_next().is_ok());
        assert_eq!(range.allocate_next(), Err(AllocError::Full));
    }
}
