//! The node's network as its callers hold it.
//!
//! In: requests of `kubelet` (attach, detach) and `agent` (start, peers). Out: [`PodNetwork`]s. This file keeps the
//! shared state; how a pod is built and taken down is in `attach`, what a restart does in `restore`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::checkpoint::{self, Record};
use crate::datapath::PodDatapath;
use crate::error::Result;
use crate::host::Host;
use crate::ipam::Ipam;
use crate::namespaces::{Kind, Pins};
use crate::peers;
use crate::turns::Turns;
use crate::types::{Peer, PodNetwork};
use crate::uplink::Uplink;

/// Pod networking of this node. Clones share one state.
#[derive(Clone)]
pub struct Network {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) host: Host,
    pub(crate) datapath: Box<dyn PodDatapath>,
    pub(crate) pins: Pins,
    pub(crate) turns: Turns,
    pub(crate) book: Mutex<Book>,
    /// One change of the peers' routes at a time.
    pub(crate) peers: tokio::sync::Mutex<()>,
}

/// Who holds what. Every change is on disk before it is acted upon.
pub(crate) struct Book {
    pub(crate) path: PathBuf,
    pub(crate) ipam: Ipam,
    pub(crate) pods: BTreeMap<String, Record>,
}

impl Network {
    /// Pods that have anything here, also half-made or half-removed ones: what is not wanted can be detached.
    #[must_use]
    pub fn attached(&self) -> Vec<(String, PodNetwork)> {
        let book = self.book();
        book.pods.iter().map(|(uid, record)| (uid.clone(), self.describe(uid, record))).collect()
    }

    /// Routes to the pods of exactly these nodes; only differences are written.
    pub async fn set_peers(&self, peers: Vec<Peer>) -> Result<()> {
        let _alone = self.inner.peers.lock().await;
        peers::apply(&self.inner.host, &peers).await
    }

    /// The uplink, and whenever it changes: routes to peers are to be set again then. To be called in the node's network
    /// namespace.
    pub async fn follow_uplink(&self) -> Result<watch::Receiver<Uplink>> {
        self.inner.host.follow_uplink().await
    }

    pub(crate) fn book(&self) -> MutexGuard<'_, Book> {
        self.inner.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn describe(&self, uid: &str, record: &Record) -> PodNetwork {
        let pinned = |kind: Kind| record.kinds().contains(&kind).then(|| self.inner.pins.path(kind, uid));
        let addresses = if record.host_network {
            self.inner.host.node_addresses.clone()
        } else {
            record.addresses.clone()
        };
        PodNetwork { addresses, netns: pinned(Kind::Net), ipcns: pinned(Kind::Ipc), utsns: pinned(Kind::Uts) }
    }
}

impl Book {
    pub(crate) fn save(&self) -> Result<()> {
        checkpoint::save(&self.path, &self.ipam.cursors(), &self.pods)
    }
}

impl Record {
    /// Namespaces of its own that the pod has. A pod on the host's network also has the host's name.
    pub(crate) fn kinds(&self) -> Vec<Kind> {
        let mut kinds = Vec::new();
        if !self.host_network {
            kinds.extend([Kind::Net, Kind::Uts]);
        }
        if !self.host_ipc {
            kinds.push(Kind::Ipc);
        }
        kinds
    }
}
