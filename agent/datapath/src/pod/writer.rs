//! Pod entries to and from the maps.
//!
//! In: [`PodEntry`]s. Out: `PODS4/6`, `NETNS` and the index by which both addresses of a pod share their flow mark.

use std::collections::BTreeSet;
use std::net::IpAddr;

use xebec_ebpf_common::{HOST_INDEX, NetnsValue, PodValue, V4, V6};

use crate::address::{Address, Either};
use crate::error::{Error, Result};
use crate::maps::Maps;
use crate::pod::PodEntry;

/// Adds or replaces the entry of an address.
pub(crate) fn put(maps: &Maps, entry: &PodEntry) -> Result<()> {
    let existing = values(maps)?;
    let index = match existing.iter().find(|(_, value)| value.ifindex == entry.ifindex) {
        Some((_, value)) => value.index,
        None => {
            let index = free_index(existing.iter().map(|(_, value)| value.index), maps.pod_flows.capacity())?;
            // The mark of the pod that had the index before.
            maps.pod_flows.put(&index, &0)?;
            index
        }
    };
    let value = PodValue { ifindex: entry.ifindex, index, mac: entry.mac, host_mac: entry.host_mac };
    if entry.netns_cookie != 0 {
        let known = maps.netns.get(&entry.netns_cookie)?;
        let mut netns = known.unwrap_or(NetnsValue { v4: V4(0), v6: V6([0; 4]) });
        match entry.address.into() {
            Either::V4(addr) => netns.v4 = addr,
            Either::V6(addr) => netns.v6 = addr,
        }
        maps.netns.put(&entry.netns_cookie, &netns)?;
    }
    match entry.address.into() {
        Either::V4(addr) => maps.pods4.put(&addr, &value),
        Either::V6(addr) => maps.pods6.put(&addr, &value),
    }
}

/// Removes the entry of an address; nothing to remove is fine.
pub(crate) fn remove(maps: &Maps, address: IpAddr) -> Result<()> {
    match address.into() {
        Either::V4(addr) => maps.pods4.remove(&addr)?,
        Either::V6(addr) => maps.pods6.remove(&addr)?,
    };
    for (cookie, netns) in maps.netns.all()? {
        let rest = without(netns, address);
        if rest == netns {
            continue;
        }
        if rest == (NetnsValue { v4: V4(0), v6: V6([0; 4]) }) {
            maps.netns.remove(&cookie)?;
        } else {
            maps.netns.put(&cookie, &rest)?;
        }
    }
    Ok(())
}

/// All entries, as they were put.
pub(crate) fn list(maps: &Maps) -> Result<Vec<PodEntry>> {
    let netns = maps.netns.all()?;
    let cookie_of = |address: IpAddr| {
        netns.iter().find(|(_, value)| without(*value, address) != *value).map_or(0, |(cookie, _)| *cookie)
    };
    Ok(values(maps)?
        .into_iter()
        .map(|(address, value)| PodEntry {
            address,
            ifindex: value.ifindex,
            mac: value.mac,
            host_mac: value.host_mac,
            netns_cookie: cookie_of(address),
        })
        .collect())
}

fn values(maps: &Maps) -> Result<Vec<(IpAddr, PodValue)>> {
    let v4 = maps.pods4.all()?.into_iter().map(|(addr, value)| (addr.to_ip(), value));
    let v6 = maps.pods6.all()?.into_iter().map(|(addr, value)| (addr.to_ip(), value));
    Ok(v4.chain(v6).collect())
}

fn without(mut netns: NetnsValue, address: IpAddr) -> NetnsValue {
    match address.into() {
        Either::V4(addr) if netns.v4 == addr => netns.v4 = V4(0),
        Either::V6(addr) if netns.v6 == addr => netns.v6 = V6([0; 4]),
        _ => {}
    }
    netns
}

/// The lowest index no pod has.
fn free_index(used: impl Iterator<Item = u32>, capacity: u32) -> Result<u32> {
    let used: BTreeSet<u32> = used.collect();
    (HOST_INDEX + 1..capacity)
        .find(|index| !used.contains(index))
        .ok_or(Error::MapFull { map: xebec_ebpf_common::names::POD_FLOWS, capacity })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_free_index_is_taken_and_never_the_hosts() {
        assert_eq!(free_index([].into_iter(), 4).unwrap(), 1);
        assert_eq!(free_index([1, 3].into_iter(), 4).unwrap(), 2);
        assert!(matches!(free_index([1, 2, 3].into_iter(), 4), Err(Error::MapFull { .. })));
    }
}
