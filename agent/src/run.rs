//! `xebec-agent run`: wires the node together, in the order in which its parts can start.
//!
//! In: flags. Out: a registered node, until SIGTERM. At the end containers, maps and links stay as they are: traffic and
//! pods do not notice that an agent is gone.
//!
//! ```text
//! place → datapath (adopts pins) → credentials (joins the cluster) → register → pod ranges → network → proxy →
//! containerd → kubelet → API, Lease, status, renewal of certificates
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
use crate::certificates::{self, ClientFile, Counts, ServingFile};
use crate::cli::RunArgs;
use crate::credentials::{Credentials, Obtained};
use crate::drain::{self, Drain};
use crate::node::{Capacity, Identity};
use crate::place::Place;
use crate::server::{ClientCa, Shown, Told};
use crate::{datapath, node, peers, server};

/// The kubelet API's certificate and key, below the state folder.
const SERVING: &str = "pki/kubelet-server-current.pem";

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
    args.join.check()
}

async fn run(args: &RunArgs) -> Result<()> {
    let shutdown = CancellationToken::new();
    tokio::spawn(cancel_on_signal(shutdown.clone()));
    for dir in [&args.place.state_dir, &args.run_dir, &args.log_dir] {
        std::fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    }
    let credentials = Credentials {
        kubeconfig: args.place.kubeconfig(),
        join: &args.join,
        state_dir: &args.place.state_dir,
    };
    let place = Place::find(&args.place.told(), &credentials.server()?).await?;
    tracing::info!(node = place.node_name, addresses = ?place.addresses, uplink = place.uplink, "starting");
    let datapath = datapath::open(args, &place)?;
    // Those of the maps, which may be older than this program's defaults.
    let limits = LbLimits { backends: datapath.backends(), slots: datapath.slots() };
    let started = tokio::select! {
        started = start(args, &place, &credentials, datapath.clone(), limits, shutdown.clone()) => started?,
        () = shutdown.cancelled() => return Ok(()),
    };
    tracing::info!(node = place.node_name, "the node runs");
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
    place: &Place,
    credentials: &Credentials<'_>,
    datapath: Datapath,
    limits: LbLimits,
    shutdown: CancellationToken,
) -> Result<Started> {
    let obtained = credentials.obtain(&place.node_name).await?;
    let client = obtained.access.client.clone();
    let capacity = Capacity::read(&args.place.state_dir, args.max_pods)?;
    let identity = Identity {
        name: place.node_name.clone(),
        hostname: node::hostname(),
        addresses: place.addresses.clone(),
        kubelet_port: args.kubelet_port,
        taints: args.register_with_taints.clone(),
    };
    let registered = node::register(&client, &identity).await?;
    tokio::spawn(node::renew(client.clone(), registered, shutdown.clone()));

    let (nodes, mut changed) = peers::watch_nodes(client.clone(), shutdown.clone());
    let pod_cidrs = peers::pod_cidrs(&nodes, &mut changed, &place.node_name).await?;
    let network = Network::start(
        NetworkConfig {
            uplink: place.uplink.clone(),
            node_addresses: place.addresses.clone(),
            pod_cidrs,
            run_dir: args.run_dir.clone(),
            mtu: None,
        },
        PodSide(datapath.clone()),
    )
    .await?;
    let operations =
        Operations::start(&OperationsConfig::new(&place.node_name, &place.addresses), &shutdown)?;
    // The zone is known before the first comparison with the tables: a restart moves no slot.
    let zone = peers::zone(&nodes, &place.node_name);
    let (view, node_view) = watch::channel(NodeView { addresses: place.addresses.clone(), zone });
    let followed = peers::Followed {
        network: network.clone(),
        datapath: datapath.clone(),
        uplink: place.uplink.clone(),
        view,
        operations: Arc::clone(&operations),
    };
    tokio::spawn(peers::follow(place.node_name.clone(), nodes.clone(), changed, followed, shutdown.clone()));

    let expiry = datapath.clone();
    tokio::spawn(async move { expiry.run().await });
    let tables = Arc::new(LbTables { datapath, limits });
    let (proxy, applied) = start_proxy(&client, &place.node_name, node_view, tables, operations, &shutdown);

    let containerd = Containerd::connect(containerd_config(args)?).await?;
    let config = kubelet_config(args, place, capacity);
    let recorder = Recorder::spawn(client.clone(), &place.node_name);
    let drain = Drain::new(client.clone(), applied, nodes.clone(), &place.node_name);
    let pod_net = PodNet { network: network.clone(), drain };
    let kubelet = Kubelet::start(config.clone(), client.clone(), containerd.clone(), pod_net, recorder)?;
    let told = Told {
        certificates: renew_certificates(args, place, &identity, &obtained, &shutdown),
        requests: obtained.access.counts.clone(),
        configuration: configuration(args),
    };
    let served = server::Served::new(&kubelet, config, client.clone(), containerd.clone(), network, told);
    serve(args, place, obtained.access.roots, served, &shutdown).await?;
    let dns_addresses = place.addresses.clone();
    tokio::spawn(xebec_dns::slice::keep(
        client.clone(),
        place.node_name.clone(),
        dns_addresses,
        args.dns_port,
        shutdown.clone(),
    ));
    tokio::spawn(node::keep_status(
        client,
        identity,
        args.place.state_dir.clone(),
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

/// Opens the kubelet API and the health port.
async fn serve(
    args: &RunArgs,
    place: &Place,
    roots: Vec<Vec<u8>>,
    served: server::Served,
    shutdown: &CancellationToken,
) -> Result<()> {
    let client_ca = match &args.client_ca {
        Some(file) => ClientCa::File(file.clone()),
        None => ClientCa::Known(roots),
    };
    if args.healthz_port != 0 {
        server::start_health(args.healthz_bind_address, args.healthz_port, shutdown.clone()).await?;
    }
    server::start(args.kubelet_port, shown(args, place), &client_ca, served, shutdown.clone())
}

/// What this kubelet was told, in upstream's words.
fn configuration(args: &RunArgs) -> serde_json::Value {
    serde_json::json!({
        "kind": "KubeletConfiguration",
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "port": args.kubelet_port,
        "healthzBindAddress": args.healthz_bind_address,
        "healthzPort": args.healthz_port,
        "containerRuntimeEndpoint": format!("unix://{}", args.containerd_socket.display()),
        "cgroupRoot": args.cgroup_root,
        "clusterDNS": args.cluster_dns,
        "clusterDomain": args.cluster_domain,
        "resolvConf": args.resolv_conf,
        "maxPods": args.max_pods,
        "podLogsDir": args.log_dir,
        "rotateCertificates": true,
        "serverTLSBootstrap": args.tls_cert.is_none(),
        "tlsCertFile": args.tls_cert,
        "registerWithTaints": args.register_with_taints,
        "authentication": {
            "anonymous": { "enabled": false },
            "webhook": { "enabled": true },
            "x509": { "clientCAFile": args.client_ca },
        },
        "authorization": { "mode": "Webhook" },
    })
}

/// Which certificate the kubelet API shows.
fn shown(args: &RunArgs, place: &Place) -> Shown {
    match (&args.tls_cert, &args.tls_key) {
        (Some(certificate), Some(key)) => Shown::Given { certificate: certificate.clone(), key: key.clone() },
        _ => Shown::Signed {
            file: args.place.state_dir.join(SERVING),
            name: place.node_name.clone(),
            addresses: place.addresses.clone(),
        },
    }
}

/// Renews what the cluster signs for nodes: only a node may ask for it.
fn renew_certificates(
    args: &RunArgs,
    place: &Place,
    identity: &Identity,
    obtained: &Obtained,
    shutdown: &CancellationToken,
) -> [Counts; 2] {
    let counts = [Counts::of_client(), Counts::of_server()];
    if !obtained.renewed {
        return counts;
    }
    let client = obtained.access.client.clone();
    let node = place.node_name.clone();
    let own = ClientFile { kubeconfig: args.place.kubeconfig(), node: node.clone() };
    tokio::spawn(certificates::keep_fresh(client.clone(), own, counts[0].clone(), shutdown.clone()));
    if args.tls_cert.is_none() {
        let serving = ServingFile {
            path: args.place.state_dir.join(SERVING),
            node,
            names: vec![identity.hostname.clone()],
            addresses: place.addresses.clone(),
        };
        tokio::spawn(certificates::keep_fresh(client, serving, counts[1].clone(), shutdown.clone()));
    }
    counts
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
        namespace: args.containerd_namespace.clone(),
        log_sink: std::env::current_exe().context("finding this program, which is also the log sink")?,
        runc_root: args.run_dir.join("runc"),
        run_dir: args.run_dir.join("runtime"),
        image_dir: Some(args.place.state_dir.clone()),
        seccomp_dir: args.place.state_dir.join("seccomp"),
        registries,
        ..ContainerdConfig::default()
    })
}

fn kubelet_config(args: &RunArgs, place: &Place, capacity: Capacity) -> KubeletConfig {
    let capacity = NodeCapacity {
        milli_cpu: capacity.cpus * 1000,
        memory: capacity.memory,
        ephemeral_storage: capacity.ephemeral_storage,
    };
    KubeletConfig {
        state_dir: args.place.state_dir.clone(),
        image_dir: args.place.state_dir.clone(),
        log_dir: args.log_dir.clone(),
        log_links_dir: args.log_links_dir.clone(),
        cgroup_root: args.cgroup_root.clone(),
        cluster_dns: ClusterDns { servers: args.cluster_dns.clone(), domain: args.cluster_domain.clone() },
        resolv_conf: PathBuf::from(&args.resolv_conf),
        max_pods: args.max_pods,
        ..KubeletConfig::new(&place.node_name, place.addresses.clone(), capacity)
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
