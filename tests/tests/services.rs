//! Services as objects of a real API server, followed by each node's proxy, on real sockets.
//!
//! In: an API server in the process, two nodes and their pods as namespaces, a proxy per node over the node's maps. Out: who
//! answers at which address, and what a restart of the proxy changes: nothing.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::FutureExt;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use xebec_apiserver::authn::UserInfo;
use xebec_apiserver::token::{SigningKey, TokenIssuer, TokenVerifier};
use xebec_apiserver::{ApiServer, ApiServerConfig, RequestLimits, Tokens};
use xebec_datapath::Datapath;
use xebec_datapath::lb::{LbOp, LbSnapshot, Protocol, Scope, ServiceEntry};
use xebec_proxy::{LbLimits, LbSink, NodeView, Observer, ProxyConfig, SinkError, SyncReport};
use xebec_store::{EngineConfig, Store};
use xebec_tests::fabric::{
    CAPACITY, Fabric, Family, Netns, PORT, Pod, TcpClient, UdpClient, serve_tcp, serve_udp,
};
use xebec_tests::netns::{Node, on_node};

const NODE_PORT: u16 = 30_080;
const PATIENCE: Duration = Duration::from_secs(20);

/// Two nodes with a pod each, and what the API says.
struct World {
    fabric: Fabric,
    near: Pod,
    far: Pod,
    client: Client,
    proxies: Vec<Proxy>,
}

/// A node's running proxy.
struct Proxy {
    reports: Arc<Reports>,
    stop: CancellationToken,
    task: JoinHandle<xebec_proxy::Result<()>>,
    _node: watch::Sender<NodeView>,
}

/// Reports so far, and whoever waits for the next.
#[derive(Default)]
struct Reports {
    all: Mutex<Vec<SyncReport>>,
    changed: Notify,
}

/// A node's maps.
struct Maps(Datapath);

impl Observer for Reports {
    fn synced(&self, report: &SyncReport) {
        self.all.lock().expect("no test panics with it").push(report.clone());
        self.changed.notify_waiters();
    }
}

impl LbSink for Maps {
    fn snapshot(&self) -> Result<LbSnapshot, SinkError> {
        self.0.lb().snapshot().map_err(Into::into)
    }

    fn apply(&self, ops: &[LbOp]) -> Result<(), SinkError> {
        self.0.lb().apply(ops).map_err(Into::into)
    }

    fn limits(&self) -> LbLimits {
        LbLimits { backends: CAPACITY.backends, slots: CAPACITY.slots }
    }
}

impl Proxy {
    fn start(fabric: &Fabric, index: usize, client: &Client) -> Self {
        let node = &fabric.nodes[index];
        let addresses = Family::BOTH.map(|family| node.address(family)).to_vec();
        let (sender, view) = watch::channel(NodeView { addresses, zone: None });
        let reports = Arc::new(Reports::default());
        let config = ProxyConfig {
            node_name: node_name(index),
            node: view,
            external_ips: false,
            observer: Arc::clone(&reports) as Arc<dyn Observer>,
        };
        let stop = CancellationToken::new();
        let run = xebec_proxy::run(client.clone(), config, Maps(node.datapath().clone()), stop.clone());
        Self { reports, stop, task: tokio::spawn(run), _node: sender }
    }

    /// As a stop of the agent: the maps stay as they are.
    async fn end(self) -> Result<()> {
        self.stop.cancel();
        Ok(self.task.await??)
    }

    /// Waits until a check of the tables holds.
    async fn until(&self, what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
        let wait = async {
            loop {
                let changed = self.reports.changed.notified();
                let mut changed = std::pin::pin!(changed);
                changed.as_mut().enable();
                if holds()? {
                    return Ok(());
                }
                changed.await;
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.with_context(|| format!("waiting for {what}"))?
    }
}

fn node_name(index: usize) -> String {
    format!("node-{}", index + 1)
}

async fn api_server() -> Result<ApiServer> {
    let key = SigningKey::from_pem(&SigningKey::generate_pem()?)?;
    let issuer = "https://kubernetes.default.svc.cluster.local";
    let verifier = TokenVerifier::new(issuer, vec![key.public().clone()]);
    let config = ApiServerConfig {
        service_cidrs: vec!["10.96.0.0/16".parse()?, "fd96::/112".parse()?],
        node_ports: 30_000..=32_767,
        advertise_addresses: vec!["192.0.2.1".parse()?],
        advertise_port: 6443,
        dns_addresses: Vec::new(),
        cluster_domain: "cluster.local".to_owned(),
        tokens: Arc::new(Tokens { issuer: TokenIssuer::new(issuer, key), verifier }),
        service_external_ips: false,
        kubelet_tls: None,
        requests: RequestLimits::default(),
    };
    let api = ApiServer::new(config, Store::open(EngineConfig::Memory)?)?;
    api.bootstrap().await?;
    Ok(api)
}

impl World {
    async fn create(node: &Node) -> Result<Self> {
        let fabric = Fabric::create(&node.dir, 2)?;
        let (near, far) = (fabric.nodes[0].add_pod(1)?, fabric.nodes[1].add_pod(1)?);
        let client = api_server().await?.client(UserInfo::authenticated("admin", ["system:masters"]));
        let proxies = (0..2).map(|index| Proxy::start(&fabric, index, &client)).collect();
        Ok(Self { fabric, near, far, client, proxies })
    }

    async fn create_object<K>(&self, object: Value) -> Result<K>
    where
        K: Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>,
        K: Clone + Debug + Serialize + DeserializeOwned,
    {
        let object: K = serde_json::from_value(object)?;
        Ok(Api::default_namespaced(self.client.clone()).create(&PostParams::default(), &object).await?)
    }

    /// A dual-stack Service with one number for TCP and UDP, inside and outside.
    async fn create_service(&self, extra: Value) -> Result<Vec<SocketAddr>> {
        let ports = ["TCP", "UDP"].map(|protocol| {
            json!({"name": protocol.to_lowercase(), "protocol": protocol, "port": 80, "nodePort": NODE_PORT})
        });
        let mut spec = json!({"type": "NodePort", "ipFamilyPolicy": "RequireDualStack", "ports": ports});
        for (key, value) in extra.as_object().into_iter().flatten() {
            spec[key] = value.clone();
        }
        let service: Service = self.create_object(json!({"metadata": {"name": "web"}, "spec": spec})).await?;
        let ips = service.spec.and_then(|spec| spec.cluster_ips).context("the Service has addresses")?;
        ensure!(ips.len() == 2, "the Service has the addresses {ips:?}");
        ips.iter().map(|ip| Ok(SocketAddr::new(ip.parse()?, 80))).collect()
    }

    /// One slice per pod and family.
    async fn create_slice(&self, pod: &Pod, family: Family) -> Result<()> {
        let kind = if family == Family::V4 { "IPv4" } else { "IPv6" };
        let ports = ["TCP", "UDP"]
            .map(|protocol| json!({"name": protocol.to_lowercase(), "protocol": protocol, "port": PORT}));
        let node = node_name(usize::from(pod.node) - 1);
        let endpoint = json!({"addresses": [pod.address(family).to_string()], "nodeName": node,
                              "conditions": {"ready": true, "serving": true, "terminating": false}});
        let labels = json!({"kubernetes.io/service-name": "web"});
        let slice = json!({
            "metadata": {"name": slice_name(pod, family), "labels": labels},
            "addressType": kind, "ports": ports, "endpoints": [endpoint],
        });
        self.create_object::<EndpointSlice>(slice).await.map(drop)
    }

    fn slices(&self) -> Api<EndpointSlice> {
        Api::default_namespaced(self.client.clone())
    }

    /// What a node's maps hold for a frontend.
    fn entry(&self, index: usize, to: SocketAddr, protocol: Protocol, scope: Scope) -> Result<Option<Found>> {
        let snapshot = self.fabric.nodes[index].datapath().lb().snapshot()?;
        let wanted = |f: &xebec_datapath::lb::Frontend| {
            (f.address, f.port, f.protocol, f.scope) == (to.ip(), to.port(), protocol, scope)
        };
        let Some((_, entry)) = snapshot.services.iter().find(|(frontend, _)| wanted(frontend)) else {
            return Ok(None);
        };
        let slots = &snapshot.slots[entry.base as usize..(entry.base + entry.count) as usize];
        let backends = slots.iter().filter_map(|slot| snapshot.backends.iter().find(|(id, _)| id.0 == *slot));
        let backends = backends.map(|(_, backend)| SocketAddr::new(backend.address, backend.port)).collect();
        Ok(Some(Found { entry: *entry, backends }))
    }

    /// Waits until every node sends new flows of these frontends to these pods.
    async fn settle(&self, vips: &[SocketAddr], pods: &[&Pod]) -> Result<()> {
        for (index, proxy) in self.proxies.iter().enumerate() {
            for (vip, family) in vips.iter().zip(Family::BOTH) {
                let wanted: BTreeSet<_> = pods.iter().map(|pod| endpoint(pod, family)).collect();
                for protocol in [Protocol::Tcp, Protocol::Udp] {
                    let what = format!("{vip} to lead to {wanted:?} on {}", node_name(index));
                    let holds = || {
                        let found = self.entry(index, *vip, protocol, Scope::Internal)?;
                        Ok(found.is_some_and(|found| found.backends == wanted))
                    };
                    proxy.until(&what, holds).await?;
                }
            }
        }
        Ok(())
    }

    /// Where NodePorts are dialled from outside.
    fn node_ports(&self, family: Family) -> Vec<SocketAddr> {
        self.fabric.nodes.iter().map(|node| SocketAddr::new(node.address(family), NODE_PORT)).collect()
    }
}

struct Found {
    entry: ServiceEntry,
    backends: BTreeSet<SocketAddr>,
}

fn endpoint(pod: &Pod, family: Family) -> SocketAddr {
    SocketAddr::new(pod.address(family), PORT)
}

fn slice_name(pod: &Pod, family: Family) -> String {
    format!("web-{}-{family:?}", pod.node).to_lowercase()
}

/// Who answers at an address: enough attempts that each of two backends is met.
fn answered_by(from: &Netns, to: SocketAddr) -> Result<BTreeSet<SocketAddr>> {
    from.run(|| (0..24).map(|_| Ok(TcpClient::connect(to)?.served_by)).collect())
}

fn datagrams_are_answered(from: &Netns, to: SocketAddr) -> Result<()> {
    from.run(|| UdpClient::open(to)?.ask("who?").map(drop))
}

/// Runs a test in a world; skipped where namespaces cannot be made.
fn on_world(test: impl AsyncFnOnce(World) -> Result<()> + Send + 'static) {
    on_node(async move |node| test(World::create(&node).await?).boxed_local().await);
}

#[test]
fn services_of_the_api_are_answered_on_every_node_over_tcp_and_udp() {
    on_world(async |world| {
        let _tcp = (serve_tcp(&world.near.netns)?, serve_tcp(&world.far.netns)?);
        let _udp = (serve_udp(&world.near.netns)?, serve_udp(&world.far.netns)?);
        let vips = world.create_service(json!({})).await?;
        let both = [&world.near, &world.far];
        for (pod, family) in both.into_iter().flat_map(|pod| Family::BOTH.map(|family| (pod, family))) {
            world.create_slice(pod, family).await?;
        }
        world.settle(&vips, &both).await?;
        for (vip, family) in vips.iter().zip(Family::BOTH) {
            let wanted: BTreeSet<_> = both.map(|pod| endpoint(pod, family)).into();
            let inside = both.map(|pod| (&pod.netns, *vip));
            let outside = world.node_ports(family).into_iter().map(|to| (&world.fabric.hub, to));
            for (from, to) in inside.into_iter().chain(outside) {
                ensure!(answered_by(from, to)? == wanted, "{to} is answered by others than {wanted:?}");
                datagrams_are_answered(from, to)?;
            }
        }
        for family in Family::BOTH {
            world.slices().delete(&slice_name(&world.far, family), &DeleteParams::default()).await?;
        }
        world.settle(&vips, &[&world.near]).await?;
        for (vip, family) in vips.iter().zip(Family::BOTH) {
            let answers = answered_by(&world.far.netns, *vip)?;
            ensure!(answers == BTreeSet::from([endpoint(&world.near, family)]), "{vip} leads to {answers:?}");
        }
        world.fabric.ensure_untracked(&both)
    });
}

#[test]
fn deleted_service_leaves_nothing_in_the_maps() {
    on_world(async |world| {
        let vips = world.create_service(json!({"sessionAffinity": "ClientIP"})).await?;
        world.create_slice(&world.near, Family::V4).await?;
        world.create_slice(&world.near, Family::V6).await?;
        world.settle(&vips, &[&world.near]).await?;
        let services: Api<Service> = Api::default_namespaced(world.client.clone());
        services.delete("web", &DeleteParams::default()).await?;
        for (index, proxy) in world.proxies.iter().enumerate() {
            let holds = || {
                let snapshot = world.fabric.nodes[index].datapath().lb().snapshot()?;
                let left =
                    snapshot.services.iter().filter(|(f, _)| vips.iter().any(|vip| vip.ip() == f.address));
                let ours = |ip| Family::BOTH.iter().any(|family| world.near.address(*family) == ip);
                Ok(left.count() == 0 && !snapshot.backends.iter().any(|(_, b)| ours(b.address)))
            };
            proxy.until("the maps to be free of the Service", holds).await?;
        }
        Ok(())
    });
}

#[test]
fn external_local_policy_keeps_the_source_and_shuts_the_other_node() {
    on_world(async |world| {
        let _tcp = serve_tcp(&world.near.netns)?;
        let vips = world.create_service(json!({"externalTrafficPolicy": "Local"})).await?;
        for family in Family::BOTH {
            world.create_slice(&world.near, family).await?;
        }
        world.settle(&vips, &[&world.near]).await?;
        for family in Family::BOTH {
            let ports = world.node_ports(family);
            let seen = world.fabric.hub.run(|| Ok(TcpClient::connect(ports[0])?.seen))?;
            let local = world.fabric.hub.run(|| Ok(std::net::TcpStream::connect(ports[0])?.local_addr()?))?;
            ensure!(seen.ip() == local.ip(), "the pod sees {seen}, not the client {local}");
            let found =
                world.entry(1, ports[1], Protocol::Tcp, Scope::External)?.context("the NodePort is known")?;
            ensure!(found.backends.is_empty() && found.entry.drop_when_empty, "{:?}", found.entry);
        }
        Ok(())
    });
}

#[test]
fn restarted_proxy_adopts_the_maps_and_writes_nothing() {
    on_world(async |mut world| {
        let _tcp = serve_tcp(&world.far.netns)?;
        let affinity = json!({"sessionAffinity": "ClientIP",
                              "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 77}}});
        let vips = world.create_service(affinity).await?;
        for (pod, family) in [(&world.near, Family::V4), (&world.far, Family::V4), (&world.far, Family::V6)] {
            world.create_slice(pod, family).await?;
        }
        world.create_slice(&world.near, Family::V6).await?;
        world.settle(&vips, &[&world.near, &world.far]).await?;
        for family in Family::BOTH {
            world.slices().delete(&slice_name(&world.near, family), &DeleteParams::default()).await?;
        }
        world.settle(&vips, &[&world.far]).await?;
        let mut live = world.fabric.hub.run(|| TcpClient::connect(world.node_ports(Family::V4)[0]))?;
        let maps = |world: &World, index: usize| -> Result<String> {
            let mut snapshot = world.fabric.nodes[index].datapath().lb().snapshot()?;
            snapshot.services.sort_by_key(|(frontend, _)| *frontend);
            snapshot.backends.sort();
            Ok(format!("{:?} {:?}", snapshot.services, snapshot.backends))
        };
        for index in 0..2 {
            let before = maps(&world, index)?;
            world.proxies.remove(index).end().await?;
            let proxy = Proxy::start(&world.fabric, index, &world.client);
            let first = || proxy.reports.all.lock().expect("no test panics with it").first().cloned();
            proxy.until("the first comparison", || Ok(first().is_some())).await?;
            let report = first().context("there is a report")?;
            ensure!(report.operations == 0 && report.error.is_none(), "{report:?}");
            ensure!(maps(&world, index)? == before, "the maps differ");
            world.proxies.insert(index, proxy);
        }
        world.fabric.hub.run(|| live.echo(b"still here"))?;
        // And it goes on following the API.
        let services: Api<Service> = Api::default_namespaced(world.client.clone());
        let patch = json!({"spec": {"internalTrafficPolicy": "Local"}});
        services.patch("web", &PatchParams::default(), &Patch::Merge(patch)).await?;
        let holds = || {
            let found = world.entry(0, vips[0], Protocol::Tcp, Scope::Internal)?;
            Ok(found.is_some_and(|found| found.backends.is_empty() && found.entry.drop_when_empty))
        };
        world.proxies[0].until("the new policy", holds).await
    });
}
