//! Where crates that do not know each other meet: each adapter says one crate's wish in another crate's words.
//!
//! In: calls of `network`, `proxy` and `kubelet`. Out: calls of `datapath` and `network`.

use std::net::IpAddr;

use xebec_datapath::Datapath;
use xebec_datapath::lb::{LbOp, LbSnapshot};
use xebec_datapath::pod::PodEntry;
use xebec_kubelet::PodNetworking;
use xebec_network::{DatapathError, Network, PodDatapath, PodNetwork, PodRequest};
use xebec_proxy::{LbLimits, LbSink, SinkError};

use crate::drain::Drain;

/// The pod side of the datapath, for `network`.
pub struct PodSide(pub Datapath);

/// The load-balancing tables, for `proxy`.
pub struct LbTables {
    pub datapath: Datapath,
    pub limits: LbLimits,
}

/// The pod network, for `kubelet`.
#[derive(Clone)]
pub struct PodNet {
    pub network: Network,
    pub drain: Drain,
}

impl PodDatapath for PodSide {
    fn attach(&self, interface: &str) -> Result<(), DatapathError> {
        self.0.attach_pod(interface).map_err(Into::into)
    }

    fn detach(&self, interface: &str) -> Result<(), DatapathError> {
        self.0.detach_pod(interface).map_err(Into::into)
    }

    fn put(&self, entry: PodEntry) -> Result<(), DatapathError> {
        self.0.pods().put(&entry).map_err(Into::into)
    }

    fn remove(&self, address: IpAddr) -> Result<(), DatapathError> {
        self.0.pods().remove(address).map_err(Into::into)
    }
}

impl LbSink for LbTables {
    fn snapshot(&self) -> Result<LbSnapshot, SinkError> {
        self.datapath.lb().snapshot().map_err(Into::into)
    }

    fn apply(&self, ops: &[LbOp]) -> Result<(), SinkError> {
        self.datapath.lb().apply(ops).map_err(Into::into)
    }

    fn limits(&self) -> LbLimits {
        self.limits
    }
}

impl PodNetworking for PodNet {
    async fn attach(&self, request: &PodRequest) -> Result<PodNetwork, String> {
        self.network.attach(request).await.map_err(|e| e.to_string())
    }

    async fn detach(&self, uid: &str) -> Result<(), String> {
        self.network.detach(uid).await.map_err(|e| e.to_string())
    }

    async fn attached(&self) -> Result<Vec<String>, String> {
        Ok(self.network.attached().into_iter().map(|(uid, _)| uid).collect())
    }

    async fn drained(&self, _uid: &str, addresses: &[IpAddr]) {
        self.drain.drained(addresses).await;
    }
}
