//! Start: what an earlier agent left is adopted as it is.
//!
//! In: the checkpoint, pinned namespaces, links. Out: a [`Network`] in the same state; namespaces, addresses and veths
//! of running pods are not touched, their entries are written again as they were. A pod that lost its host end gets
//! a new one; namespaces and links that nobody recorded are removed.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};

use tracing::{info, warn};

use crate::checkpoint::{self, Checkpoint, Loaded, Record};
use crate::datapath::PodDatapath;
use crate::error::{Error, Result};
use crate::host::Host;
use crate::ipam::Ipam;
use crate::names::INTERFACE_PREFIX;
use crate::namespaces::{Kind, Pins};
use crate::netlink::Link;
use crate::network::{Book, Inner, Network};
use crate::turns::Turns;
use crate::types::NetworkConfig;
use crate::wire;

/// The checkpoint's name in the run folder.
const CHECKPOINT: &str = "network.json";

impl Network {
    /// Sets the node up for pods and adopts those that are there.
    pub async fn start(config: NetworkConfig, datapath: impl PodDatapath) -> Result<Self> {
        let mut ipam = Ipam::new(&config.pod_cidrs)?;
        fs::create_dir_all(&config.run_dir)
            .map_err(|error| Error::file("creating", &config.run_dir, error))?;
        let pins = Pins::open(&config.run_dir)?;
        let path = config.run_dir.join(CHECKPOINT);
        let checkpoint = adopt_checkpoint(&path, &pins)?;
        for (uid, record) in &checkpoint.pods {
            for address in &record.addresses {
                if !ipam.hold(*address) {
                    warn!(uid, %address, "pod keeps an address outside of the node's pod ranges");
                }
            }
        }
        ipam.set_cursors(&checkpoint.cursors);
        let host = Host::prepare(&config).await?;
        let network = Self {
            inner: Arc::new(Inner {
                host,
                datapath: Box::new(datapath),
                pins,
                turns: Turns::default(),
                book: Mutex::new(Book { path, ipam, pods: checkpoint.pods }),
                peers: tokio::sync::Mutex::default(),
            }),
        };
        network.restore().await?;
        Ok(network)
    }

    async fn restore(&self) -> Result<()> {
        let links: BTreeMap<String, Link> = self
            .inner
            .host
            .netlink
            .links()
            .await?
            .into_iter()
            .filter(|link| link.name.starts_with(INTERFACE_PREFIX))
            .map(|link| (link.name.clone(), link))
            .collect();
        let pods = self.book().pods.clone();
        let mut adopted = 0;
        for (uid, record) in pods.iter().filter(|(_, record)| record.ready) {
            match self.adopt(uid, record, links.get(&record.interface)).await {
                Ok(()) => adopted += 1,
                Err(error) => {
                    warn!(uid, %error, "pod network cannot be adopted: its next attach makes a new one");
                    self.forget_ready(uid)?;
                }
            }
        }
        self.sweep(&pods, links).await?;
        info!(pods = adopted, "pod network restored");
        Ok(())
    }

    async fn adopt(&self, uid: &str, record: &Record, link: Option<&Link>) -> Result<()> {
        for kind in record.kinds() {
            if !self.inner.pins.is_live(kind, uid) {
                let source = std::io::ErrorKind::NotFound.into();
                return Err(Error::file("adopting the namespace", self.inner.pins.path(kind, uid), source));
            }
        }
        if record.host_network {
            return Ok(());
        }
        let (host, datapath) = (&self.inner.host, &*self.inner.datapath);
        if let Some(link) = link {
            return wire::connect_host(host, datapath, record, link).await;
        }
        warn!(uid, interface = record.interface, "host end of a pod's interface is gone: making a new one");
        let netns = self.inner.pins.enter(uid).await?;
        wire::connect(host, datapath, record, &netns).await
    }

    fn forget_ready(&self, uid: &str) -> Result<()> {
        let mut book = self.book();
        if let Some(record) = book.pods.get_mut(uid) {
            record.ready = false;
        }
        book.save()
    }

    /// Removes links and pins without a record: left by a crash after the record was dropped.
    async fn sweep(&self, pods: &BTreeMap<String, Record>, mut links: BTreeMap<String, Link>) -> Result<()> {
        for record in pods.values() {
            links.remove(&record.interface);
        }
        for name in links.keys() {
            warn!(interface = name, "removing an interface that belongs to no pod");
            self.inner.host.netlink.delete_link(name).await?;
        }
        for uid in self.inner.pins.uids()? {
            if !pods.contains_key(&uid) {
                warn!(uid, "removing namespaces that belong to no pod");
                for kind in Kind::ALL {
                    self.inner.pins.release(kind, &uid)?;
                }
            }
        }
        Ok(())
    }
}

/// A checkpoint that cannot be read counts as empty only where no pod would lose its address by it.
fn adopt_checkpoint(path: &Path, pins: &Pins) -> Result<Checkpoint> {
    let reason = match checkpoint::load(path)? {
        Loaded::Found(checkpoint) => return Ok(checkpoint),
        Loaded::Missing => "it is missing".to_owned(),
        Loaded::Unreadable(reason) => {
            warn!(path = %path.display(), reason, "network checkpoint is not readable");
            reason
        }
    };
    let live = pins.uids()?.iter().filter(|uid| pins.is_live(Kind::Net, uid)).count();
    if live > 0 {
        return Err(Error::Checkpoint { path: path.to_owned(), reason, pods: live });
    }
    Ok(Checkpoint::default())
}
