//! The other nodes, and what this node is told about itself.
//!
//! In: a watch of all Nodes, news of the uplink. Out: routes to peers' pods, this node's pod ranges and zone.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use kube::runtime::reflector::{self, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use xebec_datapath::Datapath;
use xebec_network::{Network, Peer, Uplink};
use xebec_proxy::{NodeView, Operations, node_is_eligible};

/// The first wait after a route was refused; it doubles.
const RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_secs(60);
const ZONE: &str = "topology.kubernetes.io/zone";

/// All Nodes, kept up to date. The receiver changes whenever any of them did.
pub fn watch_nodes(client: Client, shutdown: CancellationToken) -> (Store<Node>, watch::Receiver<u64>) {
    let (reader, writer) = reflector::store();
    let (changed, receiver) = watch::channel(0_u64);
    let stream = watcher(Api::<Node>::all(client), watcher::Config::default())
        .default_backoff()
        .modify(keep_what_is_used)
        .reflect(writer);
    tokio::spawn(async move {
        let mut stream = std::pin::pin!(stream);
        while let Some(event) =
            tokio::select! { event = stream.next() => event, () = shutdown.cancelled() => None }
        {
            match event {
                // A list is whole only at its end.
                Ok(watcher::Event::Init | watcher::Event::InitApply(_)) => {}
                Ok(_) => changed.send_modify(|n| *n += 1),
                Err(error) => tracing::warn!("watching nodes: {error}"),
            }
        }
    });
    (reader, receiver)
}

/// Every agent holds every Node: what nobody here reads is most of one.
fn keep_what_is_used(node: &mut Node) {
    node.metadata.managed_fields = None;
    if let Some(status) = &mut node.status {
        status.images = None;
    }
}

/// Waits until this node has its pod ranges.
pub async fn pod_cidrs(
    nodes: &Store<Node>,
    changed: &mut watch::Receiver<u64>,
    name: &str,
) -> anyhow::Result<Vec<IpNet>> {
    let mut said = false;
    loop {
        if let Some(node) = find(nodes, name) {
            let cidrs = cidrs_of(&node);
            if !cidrs.is_empty() {
                return Ok(cidrs);
            }
            if !std::mem::replace(&mut said, true) {
                tracing::info!("waiting for the node's pod ranges (spec.podCIDRs)");
            }
        }
        changed.changed().await.map_err(|_| anyhow::anyhow!("the watch of nodes ended"))?;
    }
}

/// Who is told about Nodes.
pub struct Followed {
    pub network: Network,
    /// The uplink programs are attached again when the uplink was made anew.
    pub datapath: Datapath,
    pub uplink: String,
    pub view: watch::Sender<NodeView>,
    pub operations: Arc<Operations>,
}

/// The zone of a node, as far as it is known.
pub fn zone(nodes: &Store<Node>, name: &str) -> Option<String> {
    find(nodes, name)?.labels().get(ZONE).cloned()
}

/// Keeps routes to peers' pods, the proxy's view of this node, and whether load balancers may use it.
pub async fn follow(
    name: String,
    nodes: Store<Node>,
    mut changed: watch::Receiver<u64>,
    followed: Followed,
    shutdown: CancellationToken,
) {
    let mut links = match followed.network.follow_uplink().await {
        Ok(links) => Some(links),
        Err(error) => {
            tracing::warn!("a change of the uplink will not be noticed: {error}");
            None
        }
    };
    let mut held = links.as_mut().map(|links| *links.borrow_and_update());
    // What was set last; none when it must be set again.
    let mut set: Option<BTreeSet<Peer>> = None;
    let mut retry = RETRY;
    loop {
        let uplink = links.as_mut().map(|links| *links.borrow_and_update());
        if uplink != held {
            set = None;
            followed.attach_uplink(held, uplink);
            held = uplink;
        }
        let peers: BTreeSet<Peer> =
            nodes.state().iter().filter(|n| n.name_any() != name).map(|n| peer_of(n)).collect();
        if set.as_ref() != Some(&peers) {
            set = match followed.network.set_peers(peers.iter().cloned().collect()).await {
                Ok(()) => {
                    retry = RETRY;
                    Some(peers)
                }
                Err(error) => {
                    tracing::warn!("cannot set routes to other nodes: {error}");
                    retry = (retry * 2).min(LONGEST_RETRY);
                    None
                }
            };
        }
        if let Some(node) = find(&nodes, &name) {
            let zone = node.labels().get(ZONE).cloned();
            followed.operations.set_node_eligible(node_is_eligible(&node));
            followed.view.send_if_modified(|view| std::mem::replace(&mut view.zone, zone.clone()) != zone);
        }
        let link_changed = async {
            if let Some(links) = &mut links
                && links.changed().await.is_ok()
            {
                return;
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            outcome = changed.changed() => if outcome.is_err() { return },
            () = link_changed => {}
            () = tokio::time::sleep(retry), if set.is_none() => {}
            () = shutdown.cancelled() => return,
        }
    }
}

impl Followed {
    fn attach_uplink(&self, before: Option<Uplink>, now: Option<Uplink>) {
        tracing::info!(uplink = self.uplink, ?before, ?now, "the uplink has changed");
        let index = |uplink: Option<Uplink>| uplink.map_or(0, |uplink| uplink.index);
        if index(now) == 0 || index(now) == index(before) {
            return;
        }
        if let Err(error) = self.datapath.attach_uplink(&self.uplink) {
            tracing::warn!(uplink = self.uplink, "the uplink's programs are not attached: {error}");
        }
    }
}

fn find(nodes: &Store<Node>, name: &str) -> Option<Arc<Node>> {
    nodes.find(|node| node.name_any() == name)
}

fn peer_of(node: &Node) -> Peer {
    let addresses = node.status.iter().flat_map(|s| s.addresses.iter().flatten());
    Peer {
        node: node.name_any(),
        addresses: addresses
            .filter(|a| a.type_ == "InternalIP")
            .filter_map(|a| a.address.parse::<IpAddr>().ok())
            .collect(),
        pod_cidrs: cidrs_of(node),
    }
}

fn cidrs_of(node: &Node) -> Vec<IpNet> {
    let cidrs = node.spec.iter().flat_map(|s| s.pod_cidrs.iter().flatten());
    cidrs.filter_map(|cidr| cidr.parse().ok()).collect()
}
