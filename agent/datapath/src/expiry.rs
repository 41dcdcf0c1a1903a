//! Ends flows and affinities that nobody uses any more.
//!
//! In: the flow and affinity tables, the kernel's clock. Out: deletions. One call looks at a bounded number of entries and
//! the next goes on from there, so that a full table never holds the agent up.

use xebec_ebpf_common::{
    AffinityKey, AffinityValue, FlowKey, FlowValue, Plain, direction, flow_state, proto, ticks,
};

use crate::address::Address;
use crate::error::{Error, Result};
use crate::maps::Maps;
use crate::sys;
use crate::table::{Cursor, Table};

/// Idle times after which a flow ends, in seconds: kube-proxy's and the kernel's connection tracking defaults.
mod idle {
    pub(super) const TCP_ESTABLISHED: u64 = 86_400;
    pub(super) const TCP_OPENING: u64 = 60;
    pub(super) const TCP_CLOSING: u64 = 60;
    pub(super) const UDP_ONE_WAY: u64 = 30;
    pub(super) const UDP_STREAM: u64 = 180;
}

/// Batches of one table that one call reads.
const BATCHES: usize = 16;

/// Where the walks over the tables stand.
#[derive(Debug, Default)]
pub(crate) struct Walk {
    flows4: Cursor,
    flows6: Cursor,
    affinity4: Cursor,
    affinity6: Cursor,
}

/// What one call of the sweep did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Entries looked at.
    pub seen: usize,
    /// Flow entries removed; a flow has two.
    pub flows: usize,
    /// Affinities removed.
    pub affinities: usize,
}

/// Looks at the next entries of every table.
pub(crate) fn sweep(maps: &Maps, walk: &mut Walk) -> Result<Swept> {
    let now = now()?;
    let mut swept = Swept::default();
    sweep_flows(&maps.flows4, &mut walk.flows4, now, &mut swept)?;
    sweep_flows(&maps.flows6, &mut walk.flows6, now, &mut swept)?;
    sweep_affinity(&maps.affinity4, &mut walk.affinity4, now, &mut swept)?;
    sweep_affinity(&maps.affinity6, &mut walk.affinity6, now, &mut swept)?;
    Ok(swept)
}

/// The programs' clock in ticks.
fn now() -> Result<u32> {
    let nanoseconds = sys::monotonic_coarse().map_err(|source| Error::Syscall {
        call: "clock_gettime",
        object: "the monotonic clock".to_owned(),
        source,
    })?;
    Ok((nanoseconds >> ticks::SHIFT) as u32)
}

fn sweep_flows<A: Address>(
    flows: &Table<FlowKey<A>, FlowValue<A>>,
    cursor: &mut Cursor,
    now: u32,
    swept: &mut Swept,
) -> Result<()>
where
    FlowKey<A>: Plain,
    FlowValue<A>: Plain,
{
    for _ in 0..BATCHES {
        let Some(batch) = flows.next_batch(cursor)? else {
            *cursor = Cursor::default();
            return Ok(());
        };
        swept.seen += batch.len();
        let mut gone = Vec::new();
        for (key, flow) in batch.into_iter().filter(|(_, flow)| is_idle(flow, now)) {
            // A hit on either entry keeps the flow, so both must be old.
            let other =
                if flow.direction == direction::FORWARD { flow.reply_key() } else { flow.forward_key() };
            if flows.get(&other)?.is_none_or(|flow| is_idle(&flow, now)) {
                gone.push(key);
                gone.push(other);
            }
        }
        gone.sort_unstable();
        gone.dedup();
        flows.remove_all(&gone)?;
        swept.flows += gone.len();
    }
    Ok(())
}

fn sweep_affinity<A: Address>(
    affinities: &Table<AffinityKey<A>, AffinityValue>,
    cursor: &mut Cursor,
    now: u32,
    swept: &mut Swept,
) -> Result<()>
where
    AffinityKey<A>: Plain,
{
    for _ in 0..BATCHES {
        let Some(batch) = affinities.next_batch(cursor)? else {
            *cursor = Cursor::default();
            return Ok(());
        };
        swept.seen += batch.len();
        let gone: Vec<_> = batch
            .into_iter()
            .filter(|(_, value)| now.wrapping_sub(value.last_used) >= value.timeout)
            .map(|(key, _)| key)
            .collect();
        affinities.remove_all(&gone)?;
        swept.affinities += gone.len();
    }
    Ok(())
}

/// Whether nothing was seen of a flow for longer than its state allows. The time of an entry may be old by
/// [`ticks::REFRESH`], which counts in the flow's favour.
fn is_idle<A: Address>(flow: &FlowValue<A>, now: u32) -> bool {
    let age = now.wrapping_sub(flow.last_seen);
    // A packet that came after `now` was read.
    if age > u32::MAX / 2 {
        return false;
    }
    age > ticks::from_secs(idle_limit(flow)) + ticks::REFRESH
}

fn idle_limit<A: Address>(flow: &FlowValue<A>) -> u64 {
    let has = |bits: u8| flow.state & bits == bits;
    let replied = has(flow_state::REPLIED);
    if flow.proto != proto::TCP {
        return if replied { idle::UDP_STREAM } else { idle::UDP_ONE_WAY };
    }
    if has(flow_state::RESET) || has(flow_state::CLIENT_FIN | flow_state::BACKEND_FIN) {
        idle::TCP_CLOSING
    } else if replied {
        idle::TCP_ESTABLISHED
    } else {
        idle::TCP_OPENING
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use xebec_ebpf_common::{Be16, V4};

    fn flow(proto: u8, state: u8, last_seen: u32) -> FlowValue<V4> {
        FlowValue {
            client: V4(1),
            vip: V4(2),
            backend: V4(3),
            snat: V4(1),
            client_port: Be16(1),
            vip_port: Be16(2),
            backend_port: Be16(3),
            snat_port: Be16(1),
            ifindex: 1,
            last_seen,
            backend_id: 1,
            service_id: 1,
            proto,
            direction: direction::FORWARD,
            state,
            pad: 0,
        }
    }

    #[test]
    fn each_state_ends_after_its_own_time() {
        let both_fins = flow_state::CLIENT_FIN | flow_state::BACKEND_FIN | flow_state::REPLIED;
        for (proto, state, secs) in [
            (proto::TCP, 0, 60),
            (proto::TCP, flow_state::REPLIED, 86_400),
            (proto::TCP, flow_state::REPLIED | flow_state::CLIENT_FIN, 86_400),
            (proto::TCP, both_fins, 60),
            (proto::TCP, flow_state::RESET, 60),
            (proto::UDP, 0, 30),
            (proto::UDP, flow_state::REPLIED, 180),
        ] {
            let start = 1000;
            let limit = start + ticks::from_secs(secs) + ticks::REFRESH;
            assert!(!is_idle(&flow(proto, state, start), limit), "{proto} {state}");
            assert!(is_idle(&flow(proto, state, start), limit + 1), "{proto} {state}");
        }
    }

    #[test]
    fn a_packet_newer_than_the_sweeps_clock_keeps_the_flow() {
        assert!(!is_idle(&flow(proto::UDP, 0, 1001), 1000));
    }

    #[test]
    fn the_clock_may_wrap() {
        let before = u32::MAX - 10;
        assert!(!is_idle(&flow(proto::UDP, 0, before), before.wrapping_add(20)));
        assert!(is_idle(&flow(proto::UDP, 0, before), before.wrapping_add(ticks::from_secs(60))));
    }
}
