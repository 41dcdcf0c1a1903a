//! Which pod addresses of this node are taken.
//!
//! In: the node's pod ranges, allocations, releases. Out: addresses, handed out round robin so that an address just
//! released is the last to be used again: a peer may still hold flows and neighbour entries towards it. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::error::{Error, Result};

/// Addresses kept per range: IPv6 ranges are larger than any node's pods.
const MAX_RANGE: u128 = 1 << 16;

/// Offsets that no pod gets: the network's own address and the gateway.
const RESERVED_HEAD: u32 = 2;

/// Offset of the gateway within its range.
const GATEWAY: u32 = 1;

/// The pod ranges of one node, at most one per family.
#[derive(Debug)]
pub(crate) struct Ipam {
    ranges: Vec<Range>,
}

#[derive(Debug)]
struct Range {
    net: IpNet,
    /// One past the last offset a pod may have.
    end: u32,
    /// Offset the next search starts at.
    next: u32,
    used: Vec<u64>,
}

impl Ipam {
    /// Refuses ranges without room for a single pod and two ranges of one family.
    pub(crate) fn new(ranges: &[IpNet]) -> Result<Self> {
        let ranges = ranges.iter().map(|net| Range::new(*net)).collect::<Result<Vec<_>>>()?;
        for family in [true, false] {
            if ranges.iter().filter(|r| r.net.addr().is_ipv4() == family).count() > 1 {
                return Err(Error::Config("more than one pod range of one address family".into()));
            }
        }
        Ok(Self { ranges })
    }

    /// One address per range, in the order of the ranges; all or none.
    pub(crate) fn allocate(&mut self) -> Result<Vec<IpAddr>> {
        let mut taken = Vec::with_capacity(self.ranges.len());
        for index in 0..self.ranges.len() {
            match self.ranges[index].allocate() {
                Some(address) => taken.push(address),
                None => {
                    let range = &self.ranges[index];
                    let error = Error::Exhausted { range: range.net, size: range.end - RESERVED_HEAD };
                    self.release(&taken);
                    return Err(error);
                }
            }
        }
        Ok(taken)
    }

    /// Marks an address that a restored pod holds. `false`: it lies outside of the ranges and cannot clash.
    pub(crate) fn hold(&mut self, address: IpAddr) -> bool {
        match self.find(address) {
            Some((range, offset)) => {
                range.set(offset, true);
                true
            }
            None => false,
        }
    }

    /// Gives addresses back; unknown ones are ignored.
    pub(crate) fn release(&mut self, addresses: &[IpAddr]) {
        for address in addresses {
            if let Some((range, offset)) = self.find(*address) {
                range.set(offset, false);
            }
        }
    }

    /// Where the next search starts, per range: kept over restarts.
    pub(crate) fn cursors(&self) -> Vec<u32> {
        self.ranges.iter().map(|range| range.next).collect()
    }

    /// Restores what [`Ipam::cursors`] told; cursors of other ranges do no harm.
    pub(crate) fn set_cursors(&mut self, cursors: &[u32]) {
        for (range, cursor) in self.ranges.iter_mut().zip(cursors) {
            range.next = (*cursor).clamp(RESERVED_HEAD, range.end - 1);
        }
    }

    fn find(&mut self, address: IpAddr) -> Option<(&mut Range, u32)> {
        self.ranges.iter_mut().find_map(|range| range.offset(address).map(|offset| (range, offset)))
    }
}

/// The address that pods of a range use as gateway.
pub(crate) fn gateway(net: &IpNet) -> IpAddr {
    at(net, GATEWAY)
}

impl Range {
    fn new(net: IpNet) -> Result<Self> {
        let net = net.trunc();
        let host_bits = u32::from(net.max_prefix_len() - net.prefix_len());
        let size = 1u128.checked_shl(host_bits).unwrap_or(u128::MAX).min(MAX_RANGE);
        // The last IPv4 address is the broadcast address of those who see the range as one subnet.
        let tail = u128::from(net.addr().is_ipv4());
        let end = u32::try_from(size.saturating_sub(tail)).unwrap_or(u32::MAX);
        if end <= RESERVED_HEAD {
            return Err(Error::Config(format!("pod range {net} has no room for a pod")));
        }
        let words = usize::try_from(size.div_ceil(64)).unwrap_or(usize::MAX);
        Ok(Self { net, end, next: RESERVED_HEAD, used: vec![0; words] })
    }

    fn allocate(&mut self) -> Option<IpAddr> {
        let next = self.next;
        let offset = self.free_from(next, self.end).or_else(|| self.free_from(RESERVED_HEAD, next))?;
        self.set(offset, true);
        self.next = if offset + 1 < self.end { offset + 1 } else { RESERVED_HEAD };
        Some(at(&self.net, offset))
    }

    /// First free offset in `from..end`, a word at a time.
    fn free_from(&self, from: u32, end: u32) -> Option<u32> {
        let mut offset = from;
        while offset < end {
            let free = !self.used[(offset / 64) as usize] >> (offset % 64);
            if free != 0 {
                let found = offset + free.trailing_zeros();
                return (found < end).then_some(found);
            }
            offset = (offset / 64 + 1) * 64;
        }
        None
    }

    fn set(&mut self, offset: u32, used: bool) {
        let word = &mut self.used[(offset / 64) as usize];
        let bit = 1u64 << (offset % 64);
        if used {
            *word |= bit;
        } else {
            *word &= !bit;
        }
    }

    fn offset(&self, address: IpAddr) -> Option<u32> {
        let distance = match (self.net.network(), address) {
            (IpAddr::V4(base), IpAddr::V4(address)) => {
                u128::from(u32::from(address).checked_sub(u32::from(base))?)
            }
            (IpAddr::V6(base), IpAddr::V6(address)) => u128::from(address).checked_sub(u128::from(base))?,
            _ => return None,
        };
        let offset = u32::try_from(distance).ok()?;
        (RESERVED_HEAD..self.end).contains(&offset).then_some(offset)
    }
}

fn at(net: &IpNet, offset: u32) -> IpAddr {
    match net.network() {
        IpAddr::V4(base) => Ipv4Addr::from(u32::from(base) + offset).into(),
        IpAddr::V6(base) => Ipv6Addr::from(u128::from(base) + u128::from(offset)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ipam(ranges: &[&str]) -> Ipam {
        let ranges: Vec<IpNet> = ranges.iter().map(|r| r.parse().unwrap()).collect();
        Ipam::new(&ranges).unwrap()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn first_pod_gets_the_address_after_the_gateway_in_both_families() {
        let mut ipam = ipam(&["10.244.1.0/24", "fd00:10:244:1::/64"]);
        assert_eq!(ipam.allocate().unwrap(), [ip("10.244.1.2"), ip("fd00:10:244:1::2")]);
        assert_eq!(gateway(&"10.244.1.0/24".parse().unwrap()), ip("10.244.1.1"));
    }

    #[test]
    fn released_address_is_used_last() {
        let mut ipam = ipam(&["10.0.0.0/29"]);
        let first = ipam.allocate().unwrap();
        ipam.release(&first);
        let seen: Vec<_> = (0..5).map(|_| ipam.allocate().unwrap()[0]).collect();
        assert_eq!(seen, ["10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6", "10.0.0.2"].map(ip));
    }

    #[test]
    fn full_range_refuses_and_takes_nothing_of_the_other_family() {
        let mut ipam = ipam(&["fd00::/120", "10.0.0.0/30"]);
        assert_eq!(ipam.allocate().unwrap(), [ip("fd00::2"), ip("10.0.0.2")]);
        let error = ipam.allocate().unwrap_err().to_string();
        assert_eq!(error, "no free pod address in 10.0.0.0/30: all 1 are in use");
        ipam.release(&[ip("10.0.0.2")]);
        assert_eq!(ipam.allocate().unwrap(), [ip("fd00::4"), ip("10.0.0.2")]);
    }

    #[test]
    fn held_addresses_are_skipped_and_foreign_ones_ignored() {
        let mut ipam = ipam(&["10.0.0.0/29"]);
        assert!(ipam.hold(ip("10.0.0.2")));
        assert!(!ipam.hold(ip("10.0.1.2")));
        assert!(!ipam.hold(ip("10.0.0.1")));
        assert!(!ipam.hold(ip("fd00::2")));
        assert_eq!(ipam.allocate().unwrap(), [ip("10.0.0.3")]);
    }

    #[test]
    fn every_address_of_a_range_is_given_exactly_once() {
        let mut ipam = ipam(&["10.0.0.0/24"]);
        let all: std::collections::BTreeSet<_> = (0..253).map(|_| ipam.allocate().unwrap()[0]).collect();
        assert_eq!(all.len(), 253);
        assert!(!all.contains(&ip("10.0.0.0")) && !all.contains(&ip("10.0.0.1")));
        assert!(!all.contains(&ip("10.0.0.255")));
        assert!(ipam.allocate().is_err());
    }

    #[test]
    fn cursor_survives_and_a_foreign_one_is_clamped() {
        let mut first = ipam(&["10.0.0.0/24"]);
        first.allocate().unwrap();
        let mut second = ipam(&["10.0.0.0/24"]);
        second.set_cursors(&first.cursors());
        assert_eq!(second.allocate().unwrap(), [ip("10.0.0.3")]);
        second.set_cursors(&[9_000]);
        assert_eq!(second.allocate().unwrap(), [ip("10.0.0.254")]);
    }

    #[test]
    fn unusable_ranges_are_refused() {
        let nets = |ranges: &[&str]| -> Vec<IpNet> { ranges.iter().map(|r| r.parse().unwrap()).collect() };
        assert!(Ipam::new(&nets(&["10.0.0.0/31"])).is_err());
        assert!(Ipam::new(&nets(&["fd00::/128"])).is_err());
        assert!(Ipam::new(&nets(&["10.0.0.0/24", "10.0.1.0/24"])).is_err());
        assert!(Ipam::new(&nets(&["::/0"])).is_ok());
    }
}
