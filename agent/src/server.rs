//! The kubelet API server: what the API server dials to reach this node's containers.
//!
//! In: HTTPS on port 10250 with client certificates of the cluster's CA or bearer tokens. Out: health, pods, what they
//! use, logs, exec, attach and port forwarding. Who is not known gets 401, who may not 403, on every path.

mod answer;
mod authn;
mod authz;
mod idle;
mod logs;
mod metrics;
mod port_forward;
mod query;
mod read_ahead;
mod remote_command;
mod routes;
mod spdy;
mod strangers;
mod tls;
mod upgrade;

use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use kube::Client;
use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use xebec_kubelet::{KnownPods, Kubelet, KubeletConfig, Logs, Stats};
use xebec_network::Network;
use xebec_runtime::Containerd;

use self::authn::Authenticator;
use self::authz::Authorizer;
use self::metrics::Metrics;
use self::port_forward::Loopback;
use self::strangers::{Place, Strangers};

pub use tls::ServerFiles;

const CONNECTIONS: usize = 512;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
const BACKLOG: u32 = 256;
/// A peer that vanished without a word is noticed after idle + interval × probes.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(15);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_PROBES: u32 = 3;
/// So often a quiet HTTP/2 connection is asked whether anybody is there, and so long it may take to answer.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// Upgraded connections at a time.
const STREAMS: usize = 1024;

/// What requests are answered from.
#[derive(Clone)]
pub struct Served {
    pub pods: KnownPods,
    pub logs: Logs,
    pub stats: Stats,
    pub runtime: Containerd,
    pub network: Network,
    authenticator: Authenticator,
    authorizer: Authorizer,
    metrics: Metrics,
    streams: Arc<Semaphore>,
}

// === impl Served ===

impl Served {
    /// `client` asks the API server about senders of requests.
    pub fn new(
        kubelet: &Kubelet,
        config: KubeletConfig,
        client: Client,
        runtime: Containerd,
        network: Network,
    ) -> Self {
        Self {
            authenticator: Authenticator::new(client.clone()),
            authorizer: Authorizer::new(client, &config.node_name),
            metrics: Metrics::new(&config.node_name),
            streams: Arc::new(Semaphore::new(STREAMS)),
            pods: kubelet.pods(),
            stats: kubelet.stats(),
            logs: Logs::new(config, kubelet.pods()),
            runtime,
            network,
        }
    }

    /// Where the processes of a pod listen; `None` when it does not run.
    fn loopback(&self, namespace: &str, pod: &str, uid: &str) -> Option<Loopback> {
        let known = self.pods.find(namespace, pod).filter(|known| known.uid() == uid)?;
        let attached = self.network.attached().into_iter().find(|(attached, _)| attached == uid);
        Loopback::of(&known, attached.and_then(|(_, network)| network.netns))
    }
}

/// Listens; serving goes on in the background until shut down.
///
/// # Errors
/// When a file cannot be used or the port is taken.
pub fn start(port: u16, files: &ServerFiles, served: Served, shutdown: CancellationToken) -> Result<()> {
    let acceptor = TlsAcceptor::from(Arc::new(tls::config(files)?));
    let listener = listen(port)?;
    tokio::spawn(async move {
        let room = Arc::new(Semaphore::new(CONNECTIONS));
        let strangers = Strangers::default();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = shutdown.cancelled() => return,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file descriptors: others must end first.
                    tracing::warn!("kubelet API: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let Ok(permit) = Arc::clone(&room).try_acquire_owned() else { continue };
            let Some(place) = strangers.admit(peer.ip()) else { continue };
            let (acceptor, served, shutdown) = (acceptor.clone(), served.clone(), shutdown.clone());
            tokio::spawn(async move {
                let _permit = permit;
                if let Err(error) = serve(stream, place, &acceptor, served, shutdown).await {
                    tracing::debug!("kubelet API connection: {error:#}");
                }
            });
        }
    });
    Ok(())
}

/// Both families on one socket.
fn listen(port: u16) -> Result<TcpListener> {
    let socket = TcpSocket::new_v6()?;
    socket.set_reuseaddr(true)?;
    socket.bind(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port)).with_context(|| {
        format!("the kubelet API cannot listen on port {port}: is another kubelet running?")
    })?;
    Ok(socket.listen(BACKLOG)?)
}

/// Makes a connection's socket notice that its peer is gone.
fn probe(stream: &TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    setsockopt(stream, sockopt::KeepAlive, &true)?;
    setsockopt(stream, sockopt::TcpKeepIdle, &(KEEPALIVE_IDLE.as_secs() as u32))?;
    setsockopt(stream, sockopt::TcpKeepInterval, &(KEEPALIVE_INTERVAL.as_secs() as u32))?;
    setsockopt(stream, sockopt::TcpKeepCount, &KEEPALIVE_PROBES)?;
    Ok(())
}

async fn serve(
    stream: TcpStream,
    place: Place,
    acceptor: &TlsAcceptor,
    served: Served,
    shutdown: CancellationToken,
) -> Result<()> {
    probe(&stream)?;
    let stream =
        tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await.context("TLS handshake")??;
    let client = tls::client(stream.get_ref().1);
    let known = CancellationToken::new();
    let becomes_known = known.clone();
    let service = hyper::service::service_fn(move |request| {
        let (served, client, known) = (served.clone(), client.clone(), becomes_known.clone());
        async move {
            let response = routes::answer(request, client.as_ref(), &known, &served).await;
            Ok::<_, std::convert::Infallible>(response)
        }
    });
    let mut server = auto::Builder::new(TokioExecutor::new());
    server.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    server
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    let connection = server.serve_connection_with_upgrades(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        outcome = connection.as_mut() => outcome.map_err(|e| anyhow::anyhow!(e)),
        // Also before the first byte of a request, where no limit of the protocol counts yet.
        () = place.expired(&known) => bail!("nobody known has sent a request in time"),
        () = shutdown.cancelled() => Ok(()),
    }
}
