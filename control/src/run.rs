//! `xebec-control run`: store → API server → scheduler and controllers, which use the API like anyone.
//!
//! In: settings. Out: a control plane, until it is told to stop or cannot go on.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use rustls::ClientConfig;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use xebec_apiserver::authn::{MASTERS_GROUP, UserInfo};
use xebec_apiserver::token::{TokenIssuer, TokenVerifier, issuer_url};
use xebec_apiserver::{ApiServer, ApiServerConfig, Tokens};
use xebec_controllers::ControllersConfig;
use xebec_store::{EngineConfig, Store};

use crate::cli::{AdmissionPlugin, RunArgs};
use crate::data_dir::DataDir;
use crate::pki::Pki;
use crate::server::{self, Handler, Limits, ResponseBody};
use crate::signals::Stop;
use crate::tls::Live;
use crate::{backup, bootstrap_tokens, compaction, limits, log, pki, renewal, signers, tls};

const SCHEDULER_USER: &str = "system:kube-scheduler";
const CONTROLLERS_USER: &str = "system:kube-controller-manager";
const NODE_PORTS: std::ops::RangeInclusive<u16> = 30000..=32767;
const NO_GROUPS: [&str; 0] = [];
/// How long requests that were under way at the signal may take, and then each part of the rest.
const GRACE: Duration = Duration::from_secs(5);

/// Documents are walked by recursion, as deep as they may nest. Only what is used is memory.
const STACK: usize = 8 << 20;

/// Hands requests to the API server and knows how many it has not answered yet.
#[derive(Clone)]
struct FrontDoor {
    api: ApiServer,
    unanswered: TaskTracker,
}

// === impl FrontDoor ===

impl Handler for FrontDoor {
    async fn handle(&self, request: Request<Incoming>) -> Response<ResponseBody> {
        let _unanswered = self.unanswered.token();
        self.api.handle(request.map(|body| body.map_err(Into::into).boxed_unsync())).await
    }
}

pub fn run(arguments: &RunArgs) -> Result<()> {
    if let Err(complaint) = arguments.check() {
        bail!("{complaint}");
    }
    log::start(arguments.log_format);
    tls::install_provider();
    let limits = Limits { connections: limits::connections(), ..Limits::default() };
    let data = DataDir::open(&arguments.data_dir)?;
    let reached_by = arguments.advertise_address.iter().copied();
    let addresses = reached_by.chain(arguments.kubernetes_addresses()).chain(arguments.bind_address);
    let serving = pki::serving_subject(&arguments.cluster_domain, addresses);
    let pki = pki::prepare(&data.pki(), serving, arguments.cluster_signing_duration)?;
    let store =
        Store::open(EngineConfig::Embedded { path: data.store() }).context("cannot open the store")?;
    let backups = backup::Door::open(&data)?;

    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_stack_size(STACK)
        .build()
        .context("no threads to run on")?;
    let outcome = runtime.block_on(serve(arguments, limits, pki, store, backups));
    runtime.shutdown_timeout(GRACE);
    outcome
}

async fn serve(
    arguments: &RunArgs,
    limits: Limits,
    pki: Pki,
    store: Store,
    backups: backup::Door,
) -> Result<()> {
    let mut signals = Stop::listen()?;
    let listener = server::bind(arguments.bind_address, arguments.secure_port).await?;
    let address = listener.local_addr()?;
    let used =
        renewal::Used { serving: Live::new(&pki.serving)?, kubelet_client: Live::new(&pki.kubelet_client)? };
    let tls = tls::server(&pki, used.serving.clone())?;
    let kubelets = tls::kubelet_client(&pki, used.kubelet_client.clone())?;
    let api = ApiServer::new(api_config(arguments, &pki, address.port(), kubelets), store.clone())
        .context("the API server cannot start")?;
    let door = FrontDoor { api: api.clone(), unanswered: TaskTracker::new() };

    let stop_serving = CancellationToken::new();
    let front = tokio::spawn(server::serve(listener, tls, limits, door.clone(), stop_serving.clone()));
    tracing::info!(%address, "serving");

    // The scheduler may nothing before the roles are there. What fails here is tried again beside everything else.
    if let Err(error) = api.bootstrap().await {
        tracing::warn!(%error, "a bootstrap object could not be made");
    }
    let stop_parts = CancellationToken::new();
    let hold = compaction::Hold::default();
    let mut parts = spawn_parts(arguments, &pki, &api, &stop_parts);
    parts.spawn(publish(arguments, &pki, &api, address.port(), &stop_parts)?);
    let renewal = renewal::run(pki, used, stop_parts.clone());
    parts.spawn(async {
        renewal.await;
        Ok("renewal of certificates")
    });
    let give_backups = backups.serve(store.clone(), hold.clone(), stop_parts.clone());
    parts.spawn(async { give_backups.await.map(|()| "backups") });
    let compact = compaction::run(store.clone(), hold, stop_parts.clone());
    parts.spawn(async {
        compact.await;
        Ok("compaction")
    });
    let outcome = tokio::select! {
        signal = signals.wait() => {
            tracing::info!(signal, "stopping");
            Ok(())
        }
        reason = store.closed() => Err(anyhow!("the store failed: {reason}")),
        Some(part) = parts.join_next() => Err(ended(part)),
    };

    api.begin_shutdown();
    stop_parts.cancel();
    if timeout(GRACE, async { while parts.join_next().await.is_some() {} }).await.is_err() {
        tracing::warn!("scheduler and controllers were cut: they did not finish in time");
        parts.abort_all();
    }
    stop_serving.cancel();
    door.unanswered.close();
    if timeout(GRACE, door.unanswered.wait()).await.is_err() {
        tracing::warn!(left = door.unanswered.len(), "requests were cut: they did not finish in time");
    }
    // Ends the watches, and with them the last connections.
    store.close().await;
    front.await.context("the server panicked")?;
    outcome
}

/// What runs beside the API server; none of it ends by itself.
fn spawn_parts(
    arguments: &RunArgs,
    pki: &Pki,
    api: &ApiServer,
    stop: &CancellationToken,
) -> JoinSet<Result<&'static str>> {
    let mut parts = JoinSet::new();
    let (masks, stop) = (arguments.node_masks(), stop.clone());
    let controllers = ControllersConfig {
        root_ca: pki.authority.certificate().to_owned(),
        cluster_cidrs: arguments.cluster_cidr.clone(),
        node_mask_ipv4: masks.0,
        node_mask_ipv6: masks.1,
        service_cidrs: arguments.service_cidr.clone(),
        ..ControllersConfig::default()
    };
    // All controllers are one user here, and some of them act on every kind there is.
    let client = api.client(UserInfo::authenticated(CONTROLLERS_USER, [MASTERS_GROUP]));
    let run = xebec_controllers::run(client, controllers, stop.clone());
    parts.spawn(async { run.await.context("controllers").map(|()| "controllers") });

    let client = api.client(UserInfo::authenticated(SCHEDULER_USER, NO_GROUPS));
    let run = xebec_scheduler::run(client, xebec_scheduler::SchedulerConfig::default(), stop.clone());
    parts.spawn(async {
        run.await;
        Ok("scheduler")
    });

    let (maintained, halt) = (api.clone(), stop.clone());
    parts.spawn(async move {
        tokio::select! {
            () = maintained.maintain() => {}
            () = halt.cancelled() => {}
        }
        Ok("bootstrap objects")
    });

    let client = api.client(UserInfo::authenticated(CONTROLLERS_USER, [MASTERS_GROUP]));
    let signing = signers::run(client, pki.authority.clone(), arguments.cluster_signing_duration, stop);
    parts.spawn(async {
        signing.await;
        Ok("signers")
    });
    parts
}

/// Keeps `cluster-info` for machines that join.
fn publish(
    arguments: &RunArgs,
    pki: &Pki,
    api: &ApiServer,
    port: u16,
    stop: &CancellationToken,
) -> Result<impl Future<Output = Result<&'static str>> + use<>> {
    let address = arguments.advertise_address.first().context("there is no address to advertise")?;
    let server = format!("https://{}", SocketAddr::new(*address, port));
    let kubeconfig = bootstrap_tokens::published(&server, pki.authority.certificate())?;
    let client = api.client(UserInfo::authenticated(CONTROLLERS_USER, [MASTERS_GROUP]));
    let stop = stop.clone();
    Ok(async move {
        bootstrap_tokens::run(client, kubeconfig, stop).await;
        Ok("bootstrap tokens")
    })
}

fn ended(part: Result<Result<&'static str>, tokio::task::JoinError>) -> anyhow::Error {
    match part {
        Ok(Ok(part)) => anyhow!("{part} ended"),
        Ok(Err(error)) => error,
        Err(error) => anyhow!("a part of the control plane panicked: {error}"),
    }
}

fn api_config(arguments: &RunArgs, pki: &Pki, port: u16, kubelets: ClientConfig) -> ApiServerConfig {
    let issuer = issuer_url(&arguments.cluster_domain);
    let verifier = TokenVerifier::new(&issuer, vec![pki.service_accounts.public().clone()]);
    let tokens = Tokens { issuer: TokenIssuer::new(&issuer, pki.service_accounts.clone()), verifier };
    ApiServerConfig {
        service_cidrs: arguments.service_cidr.clone(),
        node_ports: NODE_PORTS,
        advertise_addresses: arguments.advertise_address.clone(),
        advertise_port: port,
        dns_addresses: arguments.dns_addresses(),
        cluster_domain: arguments.cluster_domain.clone(),
        tokens: Arc::new(tokens),
        service_external_ips: arguments.disables(AdmissionPlugin::DenyServiceExternalIPs),
        kubelet_tls: Some(Arc::new(kubelets)),
        requests: arguments.request_limits(),
    }
}
