//! Load balancing where the application names its peer: `connect`, `sendmsg`, `recvmsg`, `getpeername`.
//!
//! In: the address the application gave or is about to see. Out: the address to use instead. After `connect` no service
//! code runs for the flow. A frontend without endpoint is left as it is: a refusal here would be EPERM, so its packets are
//! answered at tcx as a router would.
#![expect(unsafe_code, reason = "ordered writes to memory that threads share, where no atomics exist")]

use core::ops::DerefMut;

use xebec_ebpf_common::{
    Addr, BackendValue, Be16, DATAGRAM_PEERS, Reason, ServiceKey, ServiceValue, SockDatagram, SockPeer, V4,
    V6, proto, scope, service_kind,
};

use crate::lookup::Lookup;
use crate::select::{BackendRef, Choice, choose};

/// The socket a hook runs for.
pub trait Socket {
    /// Access to [`Socket::datagrams`].
    type Datagrams<'a>: DerefMut<Target = SockDatagram>
    where
        Self: 'a;
    /// Cookie of its network namespace.
    fn netns_cookie(&self) -> u64;
    /// The service it is connected to.
    fn peer(&self) -> Option<SockPeer>;
    /// Remembers the service it is connected to; false when the kernel has no memory for it.
    fn set_peer(&self, peer: &SockPeer) -> bool;
    /// The services it sends datagrams to; made when absent if `create`.
    fn datagrams(&self, create: bool) -> Option<Self::Datagrams<'_>>;
}

/// Where a client in a network namespace speaks from: keys affinity as the packet path does.
pub trait Client<A> {
    /// The address of the pod with this namespace; the node's address in the node's namespace; else unspecified.
    fn client(&self, netns_cookie: u64) -> A;
    /// Whether this is the node's own namespace.
    fn is_host(&self, netns_cookie: u64) -> bool;
}

/// Address and port of one end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Endpoint<A> {
    pub addr: A,
    pub port: Be16,
}

/// `connect`: what to connect to instead; `None` leaves the address as it is.
#[inline(always)]
pub fn connect<A, L, S>(tables: &L, socket: &S, to: Endpoint<A>, protocol: u8) -> Option<Endpoint<A>>
where
    A: Addr,
    L: Lookup<A> + Client<A>,
    S: Socket,
{
    let service = find(tables, socket, to, protocol)?;
    let choice = backend(tables, socket, &service)?;
    if !socket.set_peer(&peer_of(to, &service, choice.id, &choice.backend)) {
        tables.count(Reason::SocketStorageFull, 0);
    }
    Some(Endpoint { addr: choice.backend.addr, port: choice.backend.port })
}

/// `sendmsg` of an unconnected datagram socket: where to send instead. A socket keeps the backend of a service for as long
/// as it lives, as connection tracking would.
#[inline(always)]
pub fn sendmsg<A, L, S>(tables: &L, socket: &S, to: Endpoint<A>) -> Option<Endpoint<A>>
where
    A: Addr,
    L: Lookup<A> + Client<A>,
    S: Socket,
{
    let service = find(tables, socket, to, proto::UDP)?;
    if let Some(known) = socket.datagrams(false)
        && let Some(peer) = known.peers.iter().find(|peer| is_for(peer, to, service.id))
        && let Some(backend) = tables.backend(peer.backend_id)
        && backend.addr.to_v6() == peer.backend
        && backend.port == peer.backend_port
    {
        return Some(Endpoint { addr: backend.addr, port: backend.port });
    }
    let choice = backend(tables, socket, &service)?;
    let peer = peer_of(to, &service, choice.id, &choice.backend);
    let random = tables.random();
    let Some(mut known) = socket.datagrams(true) else {
        // Replies would come from an address the application never spoke to: rather no translation than half of one.
        tables.count(Reason::SocketStorageFull, 0);
        return None;
    };
    remember(&mut known, &peer, random);
    Some(Endpoint { addr: choice.backend.addr, port: choice.backend.port })
}

/// `recvmsg`: the address to show as the sender; `None` leaves it.
#[inline(always)]
pub fn recvmsg<S: Socket>(socket: &S, from: Endpoint<V6>) -> Option<Endpoint<V6>> {
    if let Some(known) = socket.datagrams(false)
        && let Some(peer) = known.peers.iter().find(|peer| is_from(peer, from))
    {
        return Some(Endpoint { addr: peer.vip, port: peer.vip_port });
    }
    getpeername(socket, from)
}

/// `getpeername`: the address to show as the peer; `None` leaves it.
#[inline(always)]
pub fn getpeername<S: Socket>(socket: &S, peer: Endpoint<V6>) -> Option<Endpoint<V6>> {
    let known = socket.peer()?;
    is_from(&known, peer).then_some(Endpoint { addr: known.vip, port: known.vip_port })
}

/// `connect` on an IPv6 socket, which may name an IPv4 peer in mapped form.
#[inline(always)]
pub fn connect6<L, S>(tables: &L, socket: &S, to: Endpoint<V6>, protocol: u8) -> Option<Endpoint<V6>>
where
    L: Lookup<V4> + Lookup<V6> + Client<V4> + Client<V6>,
    S: Socket,
{
    match to.addr.mapped() {
        Some(addr) => connect(tables, socket, Endpoint { addr, port: to.port }, protocol).map(mapped),
        None => connect(tables, socket, to, protocol),
    }
}

/// `sendmsg` on an IPv6 socket, which may name an IPv4 peer in mapped form.
#[inline(always)]
pub fn sendmsg6<L, S>(tables: &L, socket: &S, to: Endpoint<V6>) -> Option<Endpoint<V6>>
where
    L: Lookup<V4> + Lookup<V6> + Client<V4> + Client<V6>,
    S: Socket,
{
    match to.addr.mapped() {
        Some(addr) => sendmsg(tables, socket, Endpoint { addr, port: to.port }).map(mapped),
        None => sendmsg(tables, socket, to),
    }
}

/// The form in which an IPv6 socket and the socket's memory hold an IPv4 endpoint.
#[inline(always)]
pub fn mapped<A: Addr>(endpoint: Endpoint<A>) -> Endpoint<V6> {
    Endpoint { addr: endpoint.addr.to_v6(), port: endpoint.port }
}

/// The frontend under an address. On the node itself a loopback address means the node's own address, so that NodePorts
/// answer on localhost.
#[inline(always)]
fn find<A, L, S>(tables: &L, socket: &S, to: Endpoint<A>, protocol: u8) -> Option<ServiceValue>
where
    A: Addr,
    L: Lookup<A> + Client<A>,
    S: Socket,
{
    let mut key = ServiceKey { addr: to.addr, port: to.port, proto: protocol, scope: scope::INTERNAL };
    let loopback = to.addr.is_loopback();
    if loopback {
        let cookie = socket.netns_cookie();
        if !tables.is_host(cookie) {
            return None;
        }
        key.addr = tables.client(cookie);
    }
    tables
        .service(&key)
        .map(|service| *service)
        .filter(|service| service.count > 0 && (!loopback || service.kind == service_kind::NODE_PORT))
}

#[inline(always)]
fn backend<'a, A, L, S>(
    tables: &'a L,
    socket: &S,
    service: &ServiceValue,
) -> Option<Choice<BackendRef<'a, A, L>>>
where
    A: Addr,
    L: Lookup<A> + Client<A>,
    S: Socket,
{
    let client = if service.affinity == 0 { A::UNSPECIFIED } else { tables.client(socket.netns_cookie()) };
    let choice = choose(tables, service, client);
    if choice.is_none() {
        tables.count(Reason::NoLiveBackend, 0);
    }
    choice
}

#[inline(always)]
fn peer_of<A: Addr>(to: Endpoint<A>, service: &ServiceValue, id: u32, backend: &BackendValue<A>) -> SockPeer {
    SockPeer {
        backend: backend.addr.to_v6(),
        vip: to.addr.to_v6(),
        backend_port: backend.port,
        vip_port: to.port,
        backend_id: id,
        service_id: service.id,
    }
}

#[inline(always)]
fn is_from(peer: &SockPeer, from: Endpoint<V6>) -> bool {
    peer.service_id != 0 && peer.backend_port == from.port && peer.backend == from.addr
}

#[inline(always)]
fn is_for<A: Addr>(peer: &SockPeer, to: Endpoint<A>, service_id: u32) -> bool {
    peer.service_id == service_id && peer.vip_port == to.port && peer.vip == to.addr.to_v6()
}

/// Writes a peer over the entry of the same service, whose backend is gone, else over an empty one, else over a random one:
/// threads that share the socket then rarely meet in one entry.
#[inline(always)]
fn remember(known: &mut SockDatagram, peer: &SockPeer, random: u32) {
    let same = known.peers.iter().position(|entry| {
        entry.service_id == peer.service_id && entry.vip_port == peer.vip_port && entry.vip == peer.vip
    });
    let index = same
        .or_else(|| known.peers.iter().position(|entry| entry.service_id == 0))
        .unwrap_or(random as usize % DATAGRAM_PEERS);
    if let Some(entry) = known.peers.get_mut(index) {
        let id = &raw mut entry.service_id;
        let entry = core::ptr::from_mut(entry);
        // Cleared first and written last, so that another thread sees an entry whole or not at all.
        // SAFETY: both pointers come from one exclusive reference; volatile keeps the order of the three writes.
        unsafe {
            id.write_volatile(0);
            entry.write_volatile(SockPeer { service_id: 0, ..*peer });
            id.write_volatile(peer.service_id);
        }
    }
}

#[cfg(test)]
mod tests;
