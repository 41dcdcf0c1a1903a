//! A registry that can be told to misbehave.
//!
//! In: images and faults. Out: the OCI distribution API on a loopback port, and what was asked of it.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::StreamBody;
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::AbortHandle;

use crate::image::{TestImage, media_type};

/// What goes wrong with one blob or manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Answered with this status.
    Status(u16),
    /// One byte is another.
    Corrupt,
    /// More bytes than the manifest says.
    Longer,
    /// The connection is cut after so many bytes of this answer.
    CutAfter(usize),
    /// Nothing more is sent after so many bytes, and the connection stays open.
    HangAfter(usize),
}

/// Who may read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Access {
    #[default]
    Anyone,
    /// This name and password, in every request.
    Basic(String, String),
    /// A token, given to this name and password.
    Bearer(String, String),
}

/// A running registry; it ends when dropped.
pub struct Registry {
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
    server: AbortHandle,
}

#[derive(Default)]
struct State {
    blobs: HashMap<String, Bytes>,
    /// `repository:tag` → digest.
    tags: HashMap<String, String>,
    /// By digest, and how often.
    faults: HashMap<String, (Fault, usize)>,
    access: Access,
    /// Path and range of each request.
    log: Vec<String>,
}

type Body = StreamBody<futures::stream::BoxStream<'static, Result<Frame<Bytes>, std::io::Error>>>;

impl Registry {
    /// # Errors
    /// When there is no loopback port.
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let shared = Arc::clone(&shared);
                tokio::spawn(async move {
                    let service = service_fn(move |request| {
                        let answer = answer(&shared, address, &request);
                        async move { Ok::<_, Infallible>(answer) }
                    });
                    let connection = hyper::server::conn::http1::Builder::new();
                    // Cut connections end with an error: that is their purpose.
                    connection.serve_connection(TokioIo::new(stream), service).await.ok();
                });
            }
        });
        Ok(Self { address, state, server: server.abort_handle() })
    }

    /// Serves an image under `repository:tag`.
    pub fn put(&self, repository: &str, tag: &str, image: &TestImage) {
        let mut state = lock(&self.state);
        state.blobs.extend(image.blobs.clone());
        state.tags.insert(format!("{repository}:{tag}"), image.target.clone());
    }

    /// Makes the next `times` answers about a digest go wrong.
    pub fn fault(&self, digest: &str, fault: Fault, times: usize) {
        lock(&self.state).faults.insert(digest.to_owned(), (fault, times));
    }

    pub fn require(&self, access: Access) {
        lock(&self.state).access = access;
    }

    /// Requests so far, as `path` or `path range`; asking clears them.
    #[must_use]
    pub fn requests(&self) -> Vec<String> {
        std::mem::take(&mut lock(&self.state).log)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn answer(state: &Mutex<State>, address: SocketAddr, request: &Request<Incoming>) -> Response<Body> {
    let mut state = lock(state);
    let path = request.uri().path().to_owned();
    let header = |name: http::HeaderName| request.headers().get(name)?.to_str().ok().map(str::to_owned);
    let range = header(http::header::RANGE);
    state.log.push(range.as_ref().map_or(path.clone(), |range| format!("{path} {range}")));
    let authorization = header(http::header::AUTHORIZATION);
    if path == "/token" {
        return token(&state, authorization.as_deref());
    }
    if let Some(refusal) = refusal(&state, address, authorization.as_deref()) {
        return refusal;
    }
    let Some((repository, kind, version)) = parse(&path) else { return plain(404, "no such page") };
    let digest = match (kind, version.starts_with("sha256:")) {
        ("manifests", false) => state.tags.get(&format!("{repository}:{version}")).cloned(),
        _ => Some(version.to_owned()),
    };
    let Some(bytes) = digest.as_ref().and_then(|digest| state.blobs.get(digest)).cloned() else {
        return plain(404, r#"{"errors":[{"code":"MANIFEST_UNKNOWN"}]}"#);
    };
    let fault = digest.and_then(|digest| {
        let (fault, left) = state.faults.get_mut(&digest).filter(|(_, left)| *left > 0)?;
        *left -= 1;
        Some(fault.clone())
    });
    let offset =
        range.and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
    let typed = media_type(&bytes).filter(|_| kind == "manifests");
    blob(&bytes, offset.unwrap_or(0), typed.as_deref(), fault.as_ref())
}

/// `/v2/<repository>/<manifests|blobs>/<version>`.
fn parse(path: &str) -> Option<(&str, &str, &str)> {
    let (rest, version) = path.strip_prefix("/v2/")?.rsplit_once('/')?;
    let (repository, kind) = rest.rsplit_once('/')?;
    matches!(kind, "manifests" | "blobs").then_some((repository, kind, version))
}

fn blob(bytes: &Bytes, offset: usize, typed: Option<&str>, fault: Option<&Fault>) -> Response<Body> {
    let mut bytes = bytes.slice(offset.min(bytes.len())..);
    let length = bytes.len();
    let mut end = None;
    match fault {
        Some(Fault::Status(code)) => return plain(*code, "as told"),
        Some(Fault::Corrupt) => {
            let mut changed = bytes.to_vec();
            changed[length / 2] ^= 1;
            bytes = changed.into();
        }
        Some(Fault::Longer) => bytes = [bytes.as_ref(), b"more"].concat().into(),
        Some(Fault::CutAfter(kept)) => end = Some((*kept, true)),
        Some(Fault::HangAfter(kept)) => end = Some((*kept, false)),
        None => {}
    }
    let status = if offset > 0 { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK };
    let builder = Response::builder().status(status).header("content-length", bytes.len());
    let builder = builder.header("content-type", typed.unwrap_or("application/octet-stream"));
    response(builder, &bytes, end)
}

fn response(builder: http::response::Builder, bytes: &Bytes, end: Option<(usize, bool)>) -> Response<Body> {
    use futures::stream::{self, StreamExt};
    let kept = end.map_or(bytes.len(), |(kept, _)| kept.min(bytes.len()));
    // Pieces, so that what comes before a fault is really sent.
    let pieces: Vec<_> = bytes[..kept].chunks(64 << 10).map(|piece| bytes.slice_ref(piece)).collect();
    let pieces = stream::iter(pieces).map(|piece| Ok(Frame::data(piece)));
    let body = match end {
        None => pieces.boxed(),
        Some((_, true)) => {
            let pause = stream::once(async {
                tokio::task::yield_now().await;
                Err(std::io::Error::other("cut"))
            });
            pieces.chain(pause).boxed()
        }
        Some((_, false)) => pieces.chain(stream::pending()).boxed(),
    };
    let (parts, ()) = builder.body(()).unwrap_or_default().into_parts();
    Response::from_parts(parts, StreamBody::new(body))
}

fn plain(code: u16, text: &'static str) -> Response<Body> {
    response(Response::builder().status(code), &Bytes::from_static(text.as_bytes()), None)
}

fn basic(name: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{name}:{password}")))
}

fn token(state: &State, authorization: Option<&str>) -> Response<Body> {
    match &state.access {
        Access::Bearer(name, password) if authorization == Some(&basic(name, password)) => {
            plain(200, r#"{"token":"good"}"#)
        }
        // As Docker Hub: anybody gets a token, but not one that opens this repository.
        _ if authorization.is_none() => plain(200, r#"{"access_token":"anonymous"}"#),
        _ => plain(401, "wrong password"),
    }
}

fn refusal(state: &State, address: SocketAddr, authorization: Option<&str>) -> Option<Response<Body>> {
    let (fits, challenge) = match &state.access {
        Access::Anyone => return None,
        Access::Basic(name, password) => {
            (authorization == Some(&basic(name, password)), r#"Basic realm="test""#.to_owned())
        }
        Access::Bearer(..) => {
            let realm = format!(r#"Bearer realm="http://{address}/token",service="test""#);
            (authorization == Some("Bearer good"), realm)
        }
    };
    let builder = Response::builder().status(401).header("www-authenticate", challenge);
    (!fits).then(|| response(builder, &Bytes::from_static(b"no"), None))
}
