//! The kubelet's health at a port of its own, without TLS or credentials, for probes on the machine itself.
//!
//! In: HTTP on loopback. Out: `ok`. Other machines do not reach it, and it tells nothing else.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::answer::{self, Body};

const CONNECTIONS: usize = 16;
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection is for one question, or a few.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(60);

/// Listens; serving goes on in the background until shut down.
///
/// # Errors
/// When the port is taken.
pub async fn start(address: IpAddr, port: u16, shutdown: CancellationToken) -> Result<()> {
    let address = SocketAddr::new(address, port);
    let listener = TcpListener::bind(address).await.with_context(|| {
        format!("cannot answer health checks at {address}: choose --healthz-port, 0 for none")
    })?;
    tokio::spawn(async move {
        let room = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = shutdown.cancelled() => return,
            };
            let Ok((stream, _)) = accepted else {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let Ok(permit) = Arc::clone(&room).try_acquire_owned() else { continue };
            tokio::spawn(async move {
                let _permit = permit;
                let mut builder = hyper::server::conn::http1::Builder::new();
                builder.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
                let service = service_fn(|request| async move { Ok::<_, Infallible>(respond(&request)) });
                let connection = builder.serve_connection(TokioIo::new(stream), service);
                // However it ends, there is nobody left to tell.
                tokio::time::timeout(CONNECTION_TIMEOUT, connection).await.ok();
            });
        }
    });
    Ok(())
}

fn respond(request: &Request<Incoming>) -> Response<Body> {
    match (request.method(), health(request.uri().path(), request.uri().query())) {
        (&Method::GET | &Method::HEAD, Some(text)) => answer::text(StatusCode::OK, &text),
        _ => answer::text(StatusCode::NOT_FOUND, "404 page not found"),
    }
}

/// Checks of the kubelet. They hold as long as somebody answers.
const CHECKS: [&str; 3] = ["ping", "log", "syncloop"];

/// What `/healthz` and its checks answer; `None` for other paths.
pub fn health(path: &str, query: Option<&str>) -> Option<String> {
    let rest = path.strip_prefix("/healthz")?.trim_end_matches('/');
    if rest.is_empty() {
        let verbose =
            query.unwrap_or_default().split('&').any(|part| part == "verbose" || part == "verbose=true");
        if !verbose {
            return Some("ok".to_owned());
        }
        let lines: String = CHECKS.iter().map(|check| format!("[+]{check} ok\n")).collect();
        return Some(format!("{lines}healthz check passed\n"));
    }
    CHECKS.iter().any(|check| rest.strip_prefix('/') == Some(check)).then(|| "ok".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[test]
    fn checks_have_names() {
        assert_eq!(health("/healthz", None).as_deref(), Some("ok"));
        assert_eq!(health("/healthz/ping", None).as_deref(), Some("ok"));
        let all = "[+]ping ok\n[+]log ok\n[+]syncloop ok\nhealthz check passed\n";
        assert_eq!(health("/healthz", Some("verbose")).as_deref(), Some(all));
        for none in ["/healthzz", "/healthz/moon", "/metrics", "/"] {
            assert_eq!(health(none, None), None, "{none}");
        }
    }

    #[tokio::test]
    async fn the_machine_itself_is_answered() {
        let local: IpAddr = "127.0.0.1".parse().unwrap();
        let port = std::net::TcpListener::bind((local, 0)).unwrap().local_addr().unwrap().port();
        let shutdown = CancellationToken::new();
        start(local, port, shutdown.clone()).await.unwrap();
        assert!(start(local, port, shutdown.clone()).await.is_err(), "the port is taken");
        for (path, wanted) in [("/healthz", "200 OK"), ("/pods", "404 Not Found")] {
            let mut stream = tokio::net::TcpStream::connect((local, port)).await.unwrap();
            let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            assert!(answer.starts_with(&format!("HTTP/1.1 {wanted}")), "{answer}");
        }
        shutdown.cancel();
    }
}
