//! Serves the API from memory over plain HTTP on loopback, everyone being an administrator. For development only.
//!
//! In: a port. Out: an API server that `kubectl --server http://127.0.0.1:PORT` can use.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use http_body_util::BodyExt;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use tokio::net::TcpListener;
use xebec_apiserver::authn::{InProcess, UserInfo};
use xebec_apiserver::token::{SigningKey, TokenIssuer, TokenVerifier, issuer_url};
use xebec_apiserver::{ApiServer, ApiServerConfig, RequestLimits, Tokens};
use xebec_store::{EngineConfig, Store};

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let port: u16 = std::env::args().nth(1).map_or(Ok(8080), |port| port.parse())?;
    let server = ApiServer::new(config(port)?, Store::open(EngineConfig::Memory)?)?;
    server.bootstrap().await?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    println!("serving on http://127.0.0.1:{port}");
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let server = server.clone();
        let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
            let server = server.clone();
            async move {
                let mut request = request.map(|body| body.map_err(Failure::from).boxed_unsync());
                let user = UserInfo::authenticated("developer", ["system:masters"]);
                request.extensions_mut().insert(InProcess(user));
                Ok::<_, Infallible>(server.handle(request).await)
            }
        });
        tokio::spawn(async move {
            let builder = Builder::new(TokioExecutor::new());
            if let Err(error) = builder.serve_connection(TokioIo::new(stream), service).await {
                eprintln!("connection: {error}");
            }
        });
    }
}

fn config(port: u16) -> Result<ApiServerConfig, Failure> {
    let issuer = issuer_url("cluster.local");
    let key = SigningKey::from_pem(&SigningKey::generate_pem()?)?;
    let verifier = TokenVerifier::new(issuer.clone(), vec![key.public().clone()]);
    Ok(ApiServerConfig {
        service_cidrs: vec!["10.96.0.0/16".parse()?, "fd00:10:96::/108".parse()?],
        node_ports: 30000..=32767,
        advertise_addresses: vec![IpAddr::V4(Ipv4Addr::LOCALHOST)],
        advertise_port: port,
        dns_addresses: vec!["10.96.0.10".parse()?, "fd00:10:96::a".parse()?],
        cluster_domain: "cluster.local".into(),
        tokens: Arc::new(Tokens { issuer: TokenIssuer::new(issuer, key), verifier }),
        service_external_ips: false,
        kubelet_tls: None,
        requests: RequestLimits::default(),
    })
}
