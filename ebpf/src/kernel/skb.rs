//! Packets as tcx programs see them.
//!
//! In: the program's context. Out: bytes changed, a redirect set up, a return code.

use core::mem::size_of;

use aya_ebpf::bindings::{
    __sk_buff, BPF_F_INGRESS, BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR, BPF_FIB_LKUP_RET_NO_NEIGH,
    BPF_FIB_LKUP_RET_SUCCESS, bpf_adj_room_mode::BPF_ADJ_ROOM_MAC, bpf_fib_lookup as FibLookup,
};
use aya_ebpf::helpers::generated::{
    bpf_fib_lookup, bpf_l3_csum_replace, bpf_l4_csum_replace, bpf_redirect, bpf_redirect_neigh,
    bpf_redirect_peer, bpf_skb_adjust_room, bpf_skb_change_tail, bpf_skb_pull_data, bpf_skb_store_bytes,
};
use aya_ebpf::programs::TcContext;
use xebec_ebpf::lookup::Node;
use xebec_ebpf::packet::{Packet, Route};
use xebec_ebpf::verdict::{Action, Verdict};
use xebec_ebpf_common::{Addr, V4, V6};

use super::maps::Kernel;

/// Bytes the headers we read can take: Ethernet, IPv6 or IPv4 with options, TCP without options.
const HEADERS: u32 = 14 + 60 + 20;

/// tcx: go on with the next program, then with the stack.
const TCX_NEXT: i32 = -1;
/// Drop.
const TC_ACT_SHOT: i32 = 2;
/// `PACKET_HOST` and, for what leaves, `PACKET_OUTGOING`: everything else is not addressed to this node.
const PACKET_HOST: u32 = 0;
const PACKET_OUTGOING: u32 = 4;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// A packet of the kernel.
pub struct Skb(*mut __sk_buff);

/// A field of the context, read by exactly its size: the verifier rewrites these accesses one by one.
macro_rules! field {
    ($skb:ident, $field:ident) => {{
        // SAFETY: the kernel's context.
        let value: u32 = unsafe { (&raw const (*$skb.0).$field).read_volatile() };
        value
    }};
}

/// Runs a hook on a packet. What is neither IPv4 nor IPv6 is the stack's business.
#[inline(always)]
pub fn classify(
    ctx: &TcContext,
    v4: impl FnOnce(&mut Skb) -> Verdict,
    v6: impl FnOnce(&mut Skb) -> Verdict,
) -> i32 {
    let mut skb = Skb(ctx.skb.skb);
    let kind = field!(skb, pkt_type);
    if kind != PACKET_HOST && kind != PACKET_OUTGOING {
        return TCX_NEXT;
    }
    let ethertype = skb.ethertype();
    if ethertype != V4::ETHERTYPE && ethertype != V6::ETHERTYPE {
        return TCX_NEXT;
    }
    skb.pull_headers();
    let verdict = if ethertype == V4::ETHERTYPE { v4(&mut skb) } else { v6(&mut skb) };
    finish(&skb, verdict)
}

#[inline(always)]
fn finish(skb: &Skb, verdict: Verdict) -> i32 {
    // SAFETY: the helpers take plain numbers; a null parameter block asks for the route's next hop.
    unsafe {
        match verdict.action {
            Action::Pass => TCX_NEXT,
            Action::Drop => {
                Kernel.count_number(verdict.argument, skb.len());
                TC_ACT_SHOT
            }
            Action::Peer => bpf_redirect_peer(verdict.argument, 0) as i32,
            Action::Neighbour => bpf_redirect_neigh(verdict.argument, core::ptr::null_mut(), 0, 0) as i32,
            Action::Out => bpf_redirect(verdict.argument, 0) as i32,
            Action::In => bpf_redirect(verdict.argument, BPF_F_INGRESS.into()) as i32,
        }
    }
}

impl Skb {
    /// Makes the headers readable in place; a packet of a local sender always is.
    #[inline(always)]
    fn pull_headers(&self) {
        let data = field!(self, data);
        let end = field!(self, data_end);
        let wanted = HEADERS.min(self.len());
        if (data as usize) + (wanted as usize) > end as usize {
            // SAFETY: the kernel's context. A failure shows as headers that cannot be read.
            unsafe { bpf_skb_pull_data(self.0, wanted) };
        }
    }

    /// Reads in place. Packets may lie at odd addresses; the verifier refuses this on machines that cannot read there.
    #[inline(always)]
    fn read<T: Copy>(&self, offset: u32) -> Option<T> {
        let data = field!(self, data) as usize;
        let end = field!(self, data_end) as usize;
        let at = data + offset as usize;
        if at + size_of::<T>() > end {
            return None;
        }
        // SAFETY: within the packet, by the comparison above that the verifier also follows.
        Some(unsafe { *(at as *const T) })
    }

    #[inline(always)]
    fn fib(&self, mut params: FibLookup) -> Option<u32> {
        params.ifindex = self.ifindex();
        // SAFETY: the context and a parameter block of the stated size on the stack.
        let result =
            unsafe { bpf_fib_lookup(self.0.cast(), &raw mut params, size_of::<FibLookup>() as i32, 0) }
                as u32;
        // The neighbour is resolved by the redirect; only the interface counts here.
        (result == BPF_FIB_LKUP_RET_SUCCESS || result == BPF_FIB_LKUP_RET_NO_NEIGH).then_some(params.ifindex)
    }
}

impl Packet for Skb {
    #[inline(always)]
    fn len(&self) -> u32 {
        field!(self, len)
    }

    #[inline(always)]
    fn ifindex(&self) -> u32 {
        field!(self, ifindex)
    }

    #[inline(always)]
    fn ethertype(&self) -> u16 {
        u16::from_be(field!(self, protocol) as u16)
    }

    #[inline(always)]
    fn read_u16(&self, offset: u32) -> Option<u16> {
        self.read(offset)
    }

    #[inline(always)]
    fn read_u32(&self, offset: u32) -> Option<u32> {
        self.read(offset)
    }

    #[inline(always)]
    fn write<const N: usize>(&mut self, offset: u32, bytes: [u8; N]) -> bool {
        // SAFETY: the context and N bytes on the stack.
        unsafe { bpf_skb_store_bytes(self.0.cast(), offset, bytes.as_ptr().cast(), N as u32, 0) == 0 }
    }

    #[inline(always)]
    fn update_l3_checksum(&mut self, offset: u32, diff: u32) -> bool {
        // SAFETY: the context and plain numbers; size 0 means that the last but one is a difference.
        unsafe { bpf_l3_csum_replace(self.0.cast(), offset, 0, diff.into(), 0) == 0 }
    }

    #[inline(always)]
    fn update_l4_checksum(&mut self, offset: u32, diff: u32, pseudo: bool, optional: bool, v6: bool) -> bool {
        let mut flags = 0_u64;
        if pseudo {
            flags |= u64::from(BPF_F_PSEUDO_HDR);
            if v6 && let Some(config) = Kernel.config() {
                flags |= u64::from(config.csum_v6_flag);
            }
        }
        if optional {
            flags |= u64::from(BPF_F_MARK_MANGLED_0);
        }
        // SAFETY: as above.
        unsafe { bpf_l4_csum_replace(self.0.cast(), offset, 0, diff.into(), flags) == 0 }
    }

    #[inline(always)]
    fn resize(&mut self, len: u32) -> bool {
        // SAFETY: the context and plain numbers.
        unsafe { bpf_skb_change_tail(self.0, len, 0) == 0 }
    }

    #[inline(always)]
    fn grow_l3(&mut self, bytes: u32) -> bool {
        // SAFETY: as above.
        unsafe { bpf_skb_adjust_room(self.0, bytes as i32, BPF_ADJ_ROOM_MAC, 0) == 0 }
    }
}

impl Route<V4> for Skb {
    #[inline(always)]
    fn route(&self, src: V4, dst: V4) -> Option<u32> {
        // SAFETY: the block consists of integers, for which zero is a value.
        let mut params: FibLookup = unsafe { core::mem::zeroed() };
        params.family = AF_INET;
        params.__bindgen_anon_3.ipv4_src = src.0;
        params.__bindgen_anon_4.ipv4_dst = dst.0;
        self.fib(params)
    }
}

impl Route<V6> for Skb {
    #[inline(always)]
    fn route(&self, src: V6, dst: V6) -> Option<u32> {
        // SAFETY: as above.
        let mut params: FibLookup = unsafe { core::mem::zeroed() };
        params.family = AF_INET6;
        params.__bindgen_anon_3.ipv6_src = src.0;
        params.__bindgen_anon_4.ipv6_dst = dst.0;
        self.fib(params)
    }
}
