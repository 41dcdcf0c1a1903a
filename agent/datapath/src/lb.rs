//! Service load balancing as `proxy` states it: frontends, backends, slots and the ordered operations on them.
//!
//! In: [`LbOp`]s in the order `proxy` planned them. Out: one batch of map writes per run of equal operations.
//! The write order that no packet can see half of: backends, slots, service, then deletions.

pub(crate) mod writer;

use std::net::IpAddr;
use std::time::Duration;

/// Transport protocol of a frontend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

/// Which clients a frontend entry answers: an `externalTrafficPolicy: Local` service has different backends for
/// traffic that began inside the cluster and outside of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// Seen by pods and by the node itself.
    Internal,
    /// Seen by packets that arrive at the uplink.
    External,
}

/// What kind of address a frontend is; decides about source ranges, loopback and masquerade.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FrontendKind {
    ClusterIp,
    NodePort,
    ExternalIp,
    LoadBalancer,
}

/// Virtual address, port (host order) and protocol that clients dial.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Frontend {
    pub address: IpAddr,
    pub port: u16,
    pub protocol: Protocol,
    pub scope: Scope,
}

/// Index of a backend in its map. Stable over agent restarts (restored from the pinned map). 0 is never used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackendId(pub u32);

/// Identity of a service entry, also its reverse-NAT index. Stable over restarts. 0 is never used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceId(pub u32);

/// One endpoint address and port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Backend {
    pub address: IpAddr,
    pub port: u16,
    pub protocol: Protocol,
    /// The endpoint runs on this node: its source address need not be translated.
    pub local: bool,
}

/// What a frontend resolves to: a run of slots in the flat slot array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceEntry {
    pub id: ServiceId,
    pub kind: FrontendKind,
    /// First slot of the run in the slot array.
    pub base: u32,
    /// Slots in the run. 0: no endpoint, connections are refused (or dropped, see `drop_when_empty`).
    pub count: u32,
    /// Rises with every change of the run, for whoever compares two looks at the tables; programs do not read it.
    pub generation: u32,
    /// `sessionAffinity: ClientIP` with this timeout.
    pub affinity: Option<Duration>,
    /// Traffic from outside is masqueraded (externalTrafficPolicy: Cluster).
    pub masquerade: bool,
    /// No usable endpoint by a Local policy: drop instead of reject (KEP-1669, kube-proxy's behaviour).
    pub drop_when_empty: bool,
}

/// One step of a plan. `proxy` orders them; `datapath` applies them in that order, batching neighbours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LbOp {
    PutBackend {
        id: BackendId,
        backend: Backend,
    },
    /// Writes `backends` to the slots `base..base + len`.
    PutSlots {
        base: u32,
        backends: Vec<BackendId>,
    },
    PutService {
        frontend: Frontend,
        entry: ServiceEntry,
    },
    DeleteService {
        frontend: Frontend,
    },
    DeleteBackend {
        id: BackendId,
    },
}

/// Everything the pinned maps hold, read once at start so that ids are adopted before the first write.
#[derive(Clone, Debug, Default)]
pub struct LbSnapshot {
    pub services: Vec<(Frontend, ServiceEntry)>,
    pub backends: Vec<(BackendId, Backend)>,
    /// The slot array up to the highest slot any service uses; 0 = empty slot.
    pub slots: Vec<u32>,
}
