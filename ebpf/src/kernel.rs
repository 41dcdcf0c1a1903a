//! Hooks: one function each, named as user space attaches it.

mod maps;
mod skb;
mod sock;

use aya_ebpf::macros::{cgroup_sock_addr, classifier};
use aya_ebpf::programs::{SockAddrContext, TcContext};
use xebec_ebpf::{pod, uplink};
use xebec_ebpf_common::{V4, V6};

use self::maps::Kernel;
use self::skb::classify;
use self::sock::{V4Hook, V6Hook};

/// Licence of the object. Helpers such as the redirects are open to GPL-compatible programs only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
pub static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cgroup_sock_addr(connect4)]
pub fn connect4(ctx: SockAddrContext) -> i32 {
    V4Hook(&ctx).connect()
}

#[cgroup_sock_addr(connect6)]
pub fn connect6(ctx: SockAddrContext) -> i32 {
    V6Hook(&ctx).connect()
}

#[cgroup_sock_addr(sendmsg4)]
pub fn sendmsg4(ctx: SockAddrContext) -> i32 {
    V4Hook(&ctx).sendmsg()
}

#[cgroup_sock_addr(sendmsg6)]
pub fn sendmsg6(ctx: SockAddrContext) -> i32 {
    V6Hook(&ctx).sendmsg()
}

#[cgroup_sock_addr(recvmsg4)]
pub fn recvmsg4(ctx: SockAddrContext) -> i32 {
    V4Hook(&ctx).recvmsg()
}

#[cgroup_sock_addr(recvmsg6)]
pub fn recvmsg6(ctx: SockAddrContext) -> i32 {
    V6Hook(&ctx).recvmsg()
}

#[cgroup_sock_addr(getpeername4)]
pub fn getpeername4(ctx: SockAddrContext) -> i32 {
    V4Hook(&ctx).getpeername()
}

#[cgroup_sock_addr(getpeername6)]
pub fn getpeername6(ctx: SockAddrContext) -> i32 {
    V6Hook(&ctx).getpeername()
}

#[classifier]
pub fn pod_ingress(ctx: TcContext) -> i32 {
    classify(&ctx, |p| pod::ingress::<V4, _, _>(p, &Kernel), |p| pod::ingress::<V6, _, _>(p, &Kernel))
}

#[classifier]
pub fn pod_egress(ctx: TcContext) -> i32 {
    classify(&ctx, |p| pod::egress::<V4, _, _>(p, &Kernel), |p| pod::egress::<V6, _, _>(p, &Kernel))
}

#[classifier]
pub fn uplink_ingress(ctx: TcContext) -> i32 {
    classify(&ctx, |p| uplink::ingress::<V4, _, _>(p, &Kernel), |p| uplink::ingress::<V6, _, _>(p, &Kernel))
}

#[classifier]
pub fn uplink_egress(ctx: TcContext) -> i32 {
    classify(&ctx, |p| uplink::egress::<V4, _, _>(p, &Kernel), |p| uplink::egress::<V6, _, _>(p, &Kernel))
}
