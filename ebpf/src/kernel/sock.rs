//! Socket addresses as the cgroup hooks see them.
//!
//! In: the hook's context. Out: the context with another address, and "allowed": a refusal would reach the application as
//! EPERM, which no network ever answers.

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::bpf_sock_addr;
use aya_ebpf::helpers::generated::bpf_get_netns_cookie;
use aya_ebpf::programs::SockAddrContext;
use xebec_ebpf::socket::{
    Endpoint, Socket, connect, connect6, getpeername, mapped, recvmsg, sendmsg, sendmsg6,
};
use xebec_ebpf_common::{Be16, SockDatagram, SockPeer, V4, V6};

use super::maps::{Kernel, SOCK_DATAGRAM, SOCK_PEER};

/// Lets the call go on.
const ALLOW: i32 = 1;

/// A hook of an IPv4 call.
pub struct V4Hook<'a>(pub &'a SockAddrContext);
/// A hook of an IPv6 call.
pub struct V6Hook<'a>(pub &'a SockAddrContext);

/// The socket of a hook.
struct Sock<'a>(&'a SockAddrContext);

impl Socket for Sock<'_> {
    type Datagrams<'a>
        = &'a mut SockDatagram
    where
        Self: 'a;

    #[inline(always)]
    fn netns_cookie(&self) -> u64 {
        // SAFETY: the context is the one the kernel gave this program.
        unsafe { bpf_get_netns_cookie(self.0.as_ptr()) }
    }

    #[inline(always)]
    fn peer(&self) -> Option<SockPeer> {
        // SAFETY: the storage of the hook's own socket; the pointer is null or valid while the program runs.
        unsafe { SOCK_PEER.get_ptr_mut(self.0).as_ref() }.copied()
    }

    #[inline(always)]
    fn set_peer(&self, peer: &SockPeer) -> bool {
        // SAFETY: as above.
        match unsafe { SOCK_PEER.get_or_insert_ptr_mut(self.0, None).as_mut() } {
            Some(stored) => {
                *stored = *peer;
                true
            }
            None => false,
        }
    }

    #[inline(always)]
    fn datagrams(&self, create: bool) -> Option<&mut SockDatagram> {
        // SAFETY: as above; threads that share the socket share the storage, which its one writer accounts for.
        unsafe {
            if create {
                SOCK_DATAGRAM.get_or_insert_ptr_mut(self.0, None).as_mut()
            } else {
                SOCK_DATAGRAM.get_ptr_mut(self.0).as_mut()
            }
        }
    }
}

impl V4Hook<'_> {
    #[inline(always)]
    fn endpoint(&self) -> Endpoint<V4> {
        let ctx = self.0.sock_addr;
        // SAFETY: the kernel's context; volatile, because the verifier allows only accesses of exactly these sizes.
        unsafe { Endpoint { addr: V4((&raw const (*ctx).user_ip4).read_volatile()), port: port(ctx) } }
    }

    #[inline(always)]
    fn replace(&self, endpoint: Option<Endpoint<V4>>) -> i32 {
        if let Some(Endpoint { addr, port }) = endpoint {
            let ctx = self.0.sock_addr;
            // SAFETY: as above.
            unsafe {
                (&raw mut (*ctx).user_ip4).write_volatile(addr.0);
                (&raw mut (*ctx).user_port).write_volatile(port.0.into());
            }
        }
        ALLOW
    }

    #[inline(always)]
    pub fn connect(&self) -> i32 {
        self.replace(connect(&Kernel, &Sock(self.0), self.endpoint(), protocol(self.0)))
    }

    #[inline(always)]
    pub fn sendmsg(&self) -> i32 {
        self.replace(sendmsg(&Kernel, &Sock(self.0), self.endpoint()))
    }

    #[inline(always)]
    pub fn recvmsg(&self) -> i32 {
        self.replace_mapped(recvmsg(&Sock(self.0), mapped(self.endpoint())))
    }

    #[inline(always)]
    pub fn getpeername(&self) -> i32 {
        self.replace_mapped(getpeername(&Sock(self.0), mapped(self.endpoint())))
    }

    #[inline(always)]
    fn replace_mapped(&self, endpoint: Option<Endpoint<V6>>) -> i32 {
        self.replace(endpoint.and_then(|e| e.addr.mapped().map(|addr| Endpoint { addr, port: e.port })))
    }
}

impl V6Hook<'_> {
    #[inline(always)]
    fn endpoint(&self) -> Endpoint<V6> {
        let ctx = self.0.sock_addr;
        // SAFETY: as in `V4Hook`; word by word, the only way the verifier allows on every kernel.
        unsafe {
            let ip = &raw const (*ctx).user_ip6 as *const u32;
            let words = [
                ip.read_volatile(),
                ip.add(1).read_volatile(),
                ip.add(2).read_volatile(),
                ip.add(3).read_volatile(),
            ];
            Endpoint { addr: V6(words), port: port(ctx) }
        }
    }

    #[inline(always)]
    fn replace(&self, endpoint: Option<Endpoint<V6>>) -> i32 {
        if let Some(Endpoint { addr: V6([a, b, c, d]), port }) = endpoint {
            let ctx = self.0.sock_addr;
            // SAFETY: as above.
            unsafe {
                let ip = &raw mut (*ctx).user_ip6 as *mut u32;
                ip.write_volatile(a);
                ip.add(1).write_volatile(b);
                ip.add(2).write_volatile(c);
                ip.add(3).write_volatile(d);
                (&raw mut (*ctx).user_port).write_volatile(port.0.into());
            }
        }
        ALLOW
    }

    #[inline(always)]
    pub fn connect(&self) -> i32 {
        self.replace(connect6(&Kernel, &Sock(self.0), self.endpoint(), protocol(self.0)))
    }

    #[inline(always)]
    pub fn sendmsg(&self) -> i32 {
        self.replace(sendmsg6(&Kernel, &Sock(self.0), self.endpoint()))
    }

    #[inline(always)]
    pub fn recvmsg(&self) -> i32 {
        self.replace(recvmsg(&Sock(self.0), self.endpoint()))
    }

    #[inline(always)]
    pub fn getpeername(&self) -> i32 {
        self.replace(getpeername(&Sock(self.0), self.endpoint()))
    }
}

/// # Safety
/// `ctx` is the kernel's context.
#[inline(always)]
unsafe fn port(ctx: *const bpf_sock_addr) -> Be16 {
    // SAFETY: by the caller; the port is in the lower half, in the order of the wire.
    Be16(unsafe { (&raw const (*ctx).user_port).read_volatile() } as u16)
}

#[inline(always)]
fn protocol(ctx: &SockAddrContext) -> u8 {
    // SAFETY: the kernel's context.
    (unsafe { (&raw const (*ctx.sock_addr).protocol).read_volatile() }) as u8
}
