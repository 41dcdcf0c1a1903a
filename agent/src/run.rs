//! `xebec-agent run`: wires the node together, in the order in which its parts can start.
//!
//! In: flags. Out: a registered node, until SIGTERM. At the end containers, maps and links stay as they are: traffic and
//! pods do not notice that an agent is gone.
//!
//! ```text
//! datapath (adopts pins) → client → register → pod ranges → network → proxy → containerd → kubelet → API, Lease, status
//! ```

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use kube::Client;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use xebec_datapath::Datapath;
use xebec_kubelet::{ClusterDns, Kubelet, KubeletConfig, NodeCapacity, Recorder};
use xebec_network::{Network, NetworkConfig};
use xebec_proxy::{
    Applied, HealthCheckChange, LbLimits, NodeView, Observer, Operations, OperationsConfig, ProxyConfig,
    SyncReport,
};
use xebec_runtime::{Containerd, ContainerdConfig, RegistryHost};

use crate::adapters::{LbTables, PodNet, PodSide};
use crate::cli::RunArgs;
use crate::drain::{self, Drain};
use crate::node::{Capacity, Identity};
use crate::{cluster, datapath, node, peers, server};

pub fn main(args: &RunArgs) -> Result<()> {
    check(args)?;
    install_crypto();
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(run(args))
}

/// One crypto library for all TLS of the process.
pub fn install_crypto() {
    // Only a second call could fail.
    rustls::crypto::ring::default_provider().install_default().ok();
}

pub async fn cancel_on_signal(shutdown: CancellationToken) {
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    shutdown.cancel();
}

fn check(args: &RunArgs) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("xebec-agent run needs root: it makes namespaces, mounts and eBPF programs");
    }
    let families = |v4: bool| args.node_ip.iter().filter(|ip| ip.is_ipv4() == v4).count();
    if families(true) > 1 || families(false) > 1 {
        bail!("--node-ip: at most one address per family");
    }
    Ok(())
}

async fn run(args: &RunArgs) -> Result<()> {
    let shutdown = CancellationToken::new();
    tokio::spawn(cancel_on_signal(shutdown.clone()));
    for dir in [&args.state_dir, &args.run_dir, &args.log_dir] {
        std::fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    }
    let datapath = datapath::open(args)?;
    // Those of the maps, which may be older than this program's defaults.
    let limits = LbLimits { backends: datapath.backends(), slots: datapath.slots() };
    let started = tokio::select! {
        started = start(args, datapath.clone(), limits, shutdown.clone()) => started?,
        () = shutdown.cancelled() => return Ok(()),
    };
    tracing::info!(node = args.node_name, "the node runs");
    tokio::select! {
        () = shutdown.cancelled() => {}
        outcome = started.proxy => bail!("the proxy ended: {outcome:?}"),
        () = started.kubelet.ended_for_good() => bail!("the kubelet ended"),
    }
    Ok(())
}

/// What must go on for the node to be one.
struct Started {
    proxy: tokio::task::JoinHandle<xebec_proxy::Result<()>>,
    kubelet: RunningKubelet,
}

struct RunningKubelet(Kubelet);

impl RunningKubelet {
    async fn ended_for_good(mut self) {
        self.0.ended().await;
    }
}

async fn start(
    args: &RunArgs,
    datapath: Datapath,
    limits: LbLimits,
    shutdown: CancellationToken,
) -> Result<Started> {
    let client = cluster::client(&args.kubeconfig).await?;
    let capacity = Capacity::read(&args.state_dir, args.max_pods)?;
    let identity = Identity {
        name: args.node_name.clone(),
        hostname: node::hostname(),
        addresses: args.node_ip.clone(),
        kubelet_port: args.kubelet_port,
    };
    let registered = node::register(&client, &identity).await?;
    tokio::spawn(node::renew(client.clone(), registered, shutdown.clone()));

    let (nodes, mut changed) = peers::watch_nodes(client.clone(), shutdown.clone());
    let pod_cidrs = peers::pod_cidrs(&nodes, &mut changed, &args.node_name).await?;
    let network = Network::start(
        NetworkConfig {
            uplink: args.uplink.clone(),
            node_addresses: args.node_ip.clone(),
            pod_cidrs,
            run_dir: args.run_dir.clone(),
            mtu: None,
        },
        PodSide(datapath.clone()),
    )
    .await?;
    let operations = Operations::start(&OperationsConfig::new(&args.node_name, &args.node_ip), &shutdown)?;
    // The zone is known before the first comparison with the tables: a restart moves no slot.
    let zone = peers::zone(&nodes, &args.node_name);
    let (view, node_view) = watch::channel(NodeView { addresses: args.node_ip.clone(), zone });
    let followed = peers::Followed {
        network: network.clone(),
        datapath: datapath.clone(),
        uplink: args.uplink.clone(),
        view,
        operations: Arc::clone(&operations),
    };
    tokio::spawn(peers::follow(args.node_name.clone(), nodes.clone(), changed, followed, shutdown.clone()));

    let expiry = datapath.clone();
    tokio::spawn(async move { expiry.run().await });
    let tables = Arc::new(LbTables { datapath, limits });
    let (proxy, applied) = start_proxy(&client, &args.node_name, node_view, tables, operations, &shutdown);

    let containerd = Containerd::connect(containerd_config(args)?).await?;
    let config = kubelet_config(args, capacity);
    let recorder = Recorder::spawn(client.clone(), &args.node_name);
    let drain = Drain::new(client.clone(), applied, nodes.clone(), &args.node_name);
    let pod_net = PodNet { network: network.clone(), drain };
    let kubelet = Kubelet::start(config.clone(), client.clone(), containerd.clone(), pod_net, recorder)?;
    let files = server::ServerFiles {
        certificate: args.tls_cert.clone(),
        key: args.tls_key.clone(),
        client_ca: args.client_ca.clone(),
    };
    let served = server::Served::new(&kubelet, config, client.clone(), containerd.clone(), network);
    server::start(args.kubelet_port, &files, served, shutdown.clone())?;
    let dns_addresses = args.node_ip.clone();
    tokio::spawn(xebec_dns::slice::keep(
        client.clone(),
        args.node_name.clone(),
        dns_addresses,
        args.dns_port,
        shutdown.clone(),
    ));
    tokio::spawn(node::keep_status(
        client,
        identity,
        args.state_dir.clone(),
        node::Limits { max_pods: args.max_pods, thresholds: args.eviction_hard },
        containerd,
        nodes,
        shutdown,
    ));
    Ok(Started { proxy, kubelet: RunningKubelet(kubelet) })
}

/// The service proxy, and how far it has followed the EndpointSlices, which the other nodes are told too.
fn start_proxy(
    client: &Client,
    node_name: &str,
    node: watch::Receiver<NodeView>,
    tables: Arc<LbTables>,
    operations: Arc<Operations>,
    shutdown: &CancellationToken,
) -> (tokio::task::JoinHandle<xebec_proxy::Result<()>>, watch::Receiver<Applied>) {
    let (sender, applied) = watch::channel(Applied::default());
    let config = ProxyConfig {
        node_name: node_name.to_owned(),
        node,
        external_ips: false,
        observer: Arc::new(Progress { operations, applied: sender }),
    };
    let proxy = tokio::spawn(xebec_proxy::run(client.clone(), config, tables, shutdown.clone()));
    let announced = drain::announce(client.clone(), node_name.to_owned(), applied.clone(), shutdown.clone());
    tokio::spawn(announced);
    (proxy, applied)
}

fn containerd_config(args: &RunArgs) -> Result<ContainerdConfig> {
    let mut registries: Vec<RegistryHost> = Vec::new();
    for (registry, url) in &args.registry_mirror {
        match registries.iter_mut().find(|host| host.registry == *registry) {
            Some(host) => host.mirrors.push(url.clone()),
            None => registries.push(RegistryHost {
                registry: registry.clone(),
                mirrors: vec![url.clone()],
                mirrors_only: false,
            }),
        }
    }
    Ok(ContainerdConfig {
        socket: args.containerd_socket.clone(),
        log_sink: std::env::current_exe().context("finding this program, which is also the log sink")?,
        runc_root: args.run_dir.join("runc"),
        run_dir: args.run_dir.join("runtime"),
        image_dir: Some(args.state_dir.clone()),
        seccomp_dir: args.state_dir.join("seccomp"),
        registries,
        ..ContainerdConfig::default()
    })
}

fn kubelet_config(args: &RunArgs, capacity: Capacity) -> KubeletConfig {
    let capacity = NodeCapacity {
        milli_cpu: capacity.cpus * 1000,
        memory: capacity.memory,
        ephemeral_storage: capacity.ephemeral_storage,
    };
    KubeletConfig {
        state_dir: args.state_dir.clone(),
        image_dir: args.state_dir.clone(),
        log_dir: args.log_dir.clone(),
        log_links_dir: args.log_links_dir.clone(),
        cgroup_root: args.cgroup_root.clone(),
        cluster_dns: ClusterDns { servers: args.cluster_dns.clone(), domain: args.cluster_domain.clone() },
        resolv_conf: PathBuf::from(&args.resolv_conf),
        max_pods: args.max_pods,
        ..KubeletConfig::new(&args.node_name, args.node_ip.clone(), capacity)
    }
}

/// Passes on what the proxy does: to metrics and health, and to those who wait for it to have followed.
struct Progress {
    operations: Arc<Operations>,
    applied: watch::Sender<Applied>,
}

impl Observer for Progress {
    fn queued(&self) {
        self.operations.queued();
    }

    fn synced(&self, report: &SyncReport) {
        self.operations.synced(report);
    }

    fn health_checks(&self, changes: &[HealthCheckChange]) {
        self.operations.health_checks(changes);
    }

    fn applied(&self, applied: Applied) {
        self.applied.send_replace(applied);
    }
}
