//! The ranges one cluster CIDR splits into, and which of them are taken.
//!
//! In: a cluster CIDR, the prefix length of a node's share, shares in use. Out: free shares, each next after the last
//! one given, so that a range just released rests before another node gets it. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// Bitmap over the equally sized parts of a CIDR.
#[derive(Debug)]
pub(crate) struct CidrSet {
    cluster: IpNet,
    node_mask: u8,
    taken: Vec<u64>,
    parts: usize,
    next: usize,
}

impl CidrSet {
    /// `node_mask` must lie between the cluster's prefix length and 16 bits more (checked with the configuration).
    pub(crate) fn new(cluster: IpNet, node_mask: u8) -> Self {
        let bits = u32::from(node_mask.saturating_sub(cluster.prefix_len()).min(16));
        let parts = 1_usize << bits;
        Self { cluster: cluster.trunc(), node_mask, taken: vec![0; parts.div_ceil(64)], parts, next: 0 }
    }

    pub(crate) fn cluster(&self) -> IpNet {
        self.cluster
    }

    /// Takes the next free part; `None` when all are taken.
    pub(crate) fn allocate(&mut self) -> Option<IpNet> {
        let free = (0..self.parts)
            .map(|offset| (self.next + offset) % self.parts)
            .find(|part| !self.is_taken(*part))?;
        self.mark(free, true);
        self.next = (free + 1) % self.parts;
        Some(self.part(free))
    }

    /// Marks all parts that `range` touches as taken. Says whether it lies in this CIDR at all.
    pub(crate) fn occupy(&mut self, range: IpNet) -> bool {
        self.mark_range(range, true)
    }

    /// Frees all parts that `range` touches.
    pub(crate) fn release(&mut self, range: IpNet) -> bool {
        self.mark_range(range, false)
    }

    fn mark_range(&mut self, range: IpNet, taken: bool) -> bool {
        let (Some(first), Some(last)) = (self.position(range.network()), self.position(range.broadcast()))
        else {
            // A range that holds the whole cluster CIDR has both ends outside it.
            let covers = range.contains(&self.cluster);
            if covers {
                (0..self.parts).for_each(|part| self.mark(part, taken));
            }
            return covers;
        };
        (first..=last).for_each(|part| self.mark(part, taken));
        true
    }

    fn is_taken(&self, part: usize) -> bool {
        self.taken[part / 64] & (1 << (part % 64)) != 0
    }

    fn mark(&mut self, part: usize, taken: bool) {
        let bit = 1 << (part % 64);
        if taken {
            self.taken[part / 64] |= bit;
        } else {
            self.taken[part / 64] &= !bit;
        }
    }

    /// Which part `address` falls in.
    fn position(&self, address: IpAddr) -> Option<usize> {
        if !self.cluster.contains(&address) {
            return None;
        }
        let offset = to_bits(address) - to_bits(self.cluster.network());
        usize::try_from(offset.checked_shr(self.shift()).unwrap_or(0)).ok()
    }

    fn part(&self, position: usize) -> IpNet {
        let offset = (position as u128).checked_shl(self.shift()).unwrap_or(0);
        let bits = to_bits(self.cluster.network()) + offset;
        let address = match self.cluster {
            // A part of an IPv4 CIDR fits 32 bits.
            IpNet::V4(_) => IpAddr::V4(Ipv4Addr::from(bits as u32)),
            IpNet::V6(_) => IpAddr::V6(Ipv6Addr::from(bits)),
        };
        IpNet::new_assert(address, self.node_mask)
    }

    fn shift(&self) -> u32 {
        u32::from(self.cluster.max_prefix_len() - self.node_mask)
    }
}

fn to_bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(cluster: &str, mask: u8) -> CidrSet {
        CidrSet::new(cluster.parse().unwrap(), mask)
    }

    fn take(set: &mut CidrSet) -> Option<String> {
        set.allocate().map(|c| c.to_string())
    }

    #[test]
    fn parts_are_given_in_order_until_none_is_left() {
        let mut set = set("10.1.0.0/22", 24);
        for third in 0..4 {
            assert_eq!(take(&mut set), Some(format!("10.1.{third}.0/24")));
        }
        assert_eq!(take(&mut set), None);
        assert!(set.release("10.1.2.0/24".parse().unwrap()));
        assert_eq!(take(&mut set), Some("10.1.2.0/24".to_owned()));
    }

    #[test]
    fn released_part_rests_while_others_are_free() {
        let mut set = set("10.1.0.0/22", 24);
        let first = set.allocate().unwrap();
        set.release(first);
        assert_eq!(take(&mut set), Some("10.1.1.0/24".to_owned()));
    }

    #[test]
    fn occupied_ranges_of_any_size_are_avoided() {
        let mut set = set("fd00::/60", 64);
        assert!(set.occupy("fd00::/62".parse().unwrap()));
        assert!(set.occupy("fd00:0:0:4::17/128".parse().unwrap()));
        assert_eq!(take(&mut set), Some("fd00:0:0:5::/64".to_owned()));
        assert!(!set.occupy("fe00::/64".parse().unwrap()));
        assert!(set.occupy("fd00::/48".parse().unwrap()), "a range around the whole CIDR takes all of it");
        assert_eq!(take(&mut set), None);
    }

    #[test]
    fn one_part_may_be_the_whole_cidr() {
        let mut set = set("10.1.0.0/24", 24);
        assert_eq!(take(&mut set), Some("10.1.0.0/24".to_owned()));
        assert_eq!(take(&mut set), None);
        let mut hosts = CidrSet::new("10.1.0.0/30".parse().unwrap(), 32);
        hosts.allocate();
        assert_eq!(take(&mut hosts), Some("10.1.0.1/32".to_owned()));
    }
}
