//! Services as a node's proxy would write them.
//!
//! In: what is dialled and what serves it. Out: operations in the order that no packet sees half of.

use std::net::SocketAddr;
use std::time::Duration;

use xebec_datapath::lb::{
    Backend, BackendId, Frontend, FrontendKind, LbOp, Protocol, Scope, ServiceEntry, ServiceId,
};

/// Slots and backend ids of one service in a test.
const RUN: u32 = 4;

/// One address and port that is dialled. It is known to clients inside and, but for a cluster IP, outside.
#[derive(Clone, Debug)]
pub struct Service {
    pub vip: SocketAddr,
    pub protocol: Protocol,
    pub kind: FrontendKind,
    /// Endpoints and the number of the node each is on.
    pub backends: Vec<(SocketAddr, u8)>,
    pub affinity: Option<Duration>,
    pub drop_when_empty: bool,
}

impl Service {
    #[must_use]
    pub fn new(
        vip: SocketAddr,
        protocol: Protocol,
        kind: FrontendKind,
        backends: &[(SocketAddr, u8)],
    ) -> Self {
        let backends = backends.to_vec();
        Self { vip, protocol, kind, backends, affinity: None, drop_when_empty: false }
    }

    /// What makes a node serve it: `id` is the service's number there.
    #[must_use]
    pub fn ops(&self, node: u8, id: u32) -> Vec<LbOp> {
        let (base, protocol) = (id * RUN, self.protocol);
        let ids: Vec<BackendId> = (base..).take(self.backends.len()).map(BackendId).collect();
        let mut ops: Vec<LbOp> = ids
            .iter()
            .zip(&self.backends)
            .map(|(id, (address, on))| LbOp::PutBackend {
                id: *id,
                backend: Backend {
                    address: address.ip(),
                    port: address.port(),
                    protocol,
                    local: *on == node,
                },
            })
            .collect();
        let count = ids.len() as u32;
        ops.extend((count > 0).then_some(LbOp::PutSlots { base, backends: ids }));
        let scopes: &[Scope] = match self.kind {
            FrontendKind::ClusterIp => &[Scope::Internal],
            _ => &[Scope::Internal, Scope::External],
        };
        ops.extend(scopes.iter().map(|scope| LbOp::PutService {
            frontend: Frontend { address: self.vip.ip(), port: self.vip.port(), protocol, scope: *scope },
            entry: ServiceEntry {
                id: ServiceId(id),
                kind: self.kind,
                base,
                count,
                generation: 1,
                affinity: self.affinity,
                masquerade: true,
                drop_when_empty: self.drop_when_empty,
            },
        }));
        ops
    }
}
