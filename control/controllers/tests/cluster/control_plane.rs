//! A control plane in the process: API server over memory, controllers, scheduler, each to be stopped and started.
//!
//! In: settings of the controllers. Out: a client that may do everything, and the hollow nodes that were asked for.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, Node, ServiceAccount};
use kube::api::PostParams;
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use xebec_apiserver::authn::UserInfo;
use xebec_apiserver::token::{SigningKey, TokenIssuer, TokenVerifier};
use xebec_apiserver::{ApiServer, ApiServerConfig, RequestLimits, Tokens};
use xebec_controllers::ControllersConfig;
use xebec_scheduler::SchedulerConfig;
use xebec_store::{EngineConfig, Store};

use crate::hollow::HollowNode;
use crate::wait::until_object;

pub(crate) const NAMESPACE: &str = "test";

pub(crate) struct ControlPlane {
    pub(crate) client: Client,
    api: ApiServer,
    config: ControllersConfig,
    parts: Option<Parts>,
    nodes: Vec<HollowNode>,
}

struct Parts {
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl ControlPlane {
    /// With this many hollow nodes, `node-0` and so on, of 4 CPUs each.
    pub(crate) async fn start(nodes: usize) -> Self {
        Self::with_config(nodes, |_| {}).await
    }

    pub(crate) async fn with_config(nodes: usize, adjust: impl FnOnce(&mut ControllersConfig)) -> Self {
        let store = Store::open(EngineConfig::Memory).unwrap();
        let api = ApiServer::new(api_config(), store).unwrap();
        api.bootstrap().await.unwrap();
        let client = api.client(UserInfo::authenticated("admin", ["system:masters"]));
        let mut config = ControllersConfig {
            root_ca: "PEM".to_owned(),
            job_pod_failure_backoff: Duration::from_millis(100),
            cluster_cidrs: vec!["10.244.0.0/16".parse().unwrap(), "fd00:10:244::/56".parse().unwrap()],
            ..ControllersConfig::default()
        };
        adjust(&mut config);
        let mut plane = Self { client, api, config, parts: None, nodes: Vec::new() };
        plane.start_parts();
        let namespace: Namespace = serde_json::from_value(json!({"metadata": {"name": NAMESPACE}})).unwrap();
        plane.all::<Namespace>().create(&PostParams::default(), &namespace).await.unwrap();
        // Pods are refused before.
        until_object("the default account", &plane.api::<ServiceAccount>(), "default", |_| true).await;
        for number in 0..nodes {
            plane.join(&format!("node-{number}")).await;
        }
        plane
    }

    /// One more hollow node.
    pub(crate) async fn join(&mut self, name: &str) {
        let node = HollowNode::join(&self.client, name).await;
        self.nodes.push(node);
        // Until it was seen to be ready a node is tainted.
        let untainted = |node: &Node| node.spec.as_ref().is_none_or(|spec| spec.taints.is_none());
        until_object("untainted", &self.all::<Node>(), name, untainted).await;
    }

    /// Starts scheduler and controllers.
    pub(crate) fn start_parts(&mut self) {
        let stop = CancellationToken::new();
        let client = |user: &str, groups: &[&str]| {
            self.api.client(UserInfo::authenticated(user, groups.iter().copied()))
        };
        let run = xebec_controllers::run(
            // As in `xebec-control`: some of them act on every kind there is.
            client("system:kube-controller-manager", &["system:masters"]),
            self.config.clone(),
            stop.clone(),
        );
        let controllers = tokio::spawn(async { run.await.unwrap() });
        let run = xebec_scheduler::run(
            client("system:kube-scheduler", &[]),
            SchedulerConfig::default(),
            stop.clone(),
        );
        self.parts = Some(Parts { stop, tasks: vec![controllers, tokio::spawn(run)] });
    }

    /// Cuts scheduler and controllers off in the middle of whatever they do, as a kill does.
    pub(crate) fn kill_parts(&mut self) {
        if let Some(parts) = self.parts.take() {
            parts.tasks.iter().for_each(JoinHandle::abort);
            parts.stop.cancel();
        }
    }

    pub(crate) fn node(&mut self, name: &str) -> &mut HollowNode {
        self.nodes.iter_mut().find(|node| node.name == name).unwrap()
    }

    /// Objects of [`NAMESPACE`].
    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    pub(crate) fn all<K: Resource<DynamicType = ()>>(&self) -> Api<K> {
        Api::all(self.client.clone())
    }

    /// Creates an object in [`NAMESPACE`].
    pub(crate) async fn create<K>(&self, object: Value) -> K
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + serde::Serialize
            + DeserializeOwned,
    {
        let object: K = serde_json::from_value(object).unwrap();
        self.api().create(&PostParams::default(), &object).await.unwrap()
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        self.kill_parts();
    }
}

fn api_config() -> ApiServerConfig {
    let key = SigningKey::from_pem(&SigningKey::generate_pem().unwrap()).unwrap();
    let issuer = "https://kubernetes.default.svc.cluster.local";
    let verifier = TokenVerifier::new(issuer, vec![key.public().clone()]);
    ApiServerConfig {
        service_cidrs: vec!["10.96.0.0/16".parse().unwrap(), "fd00:10:96::/112".parse().unwrap()],
        node_ports: 30000..=32767,
        advertise_addresses: vec!["192.0.2.1".parse().unwrap()],
        advertise_port: 6443,
        dns_addresses: Vec::new(),
        cluster_domain: "cluster.local".to_owned(),
        tokens: Arc::new(Tokens { issuer: TokenIssuer::new(issuer, key), verifier }),
        service_external_ips: false,
        kubelet_tls: None,
        requests: RequestLimits::default(),
    }
}

/// How long anything in these tests may take to become true.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
