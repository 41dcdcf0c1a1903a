//! The hub's registry: the read side of the OCI distribution API over an image layout, with pull-through.
//!
//! In: `GET`/`HEAD` of manifests and blobs. Out: what the layout holds, byte for byte; for everything else what the real
//! docker.io answers, or 404 when it cannot be reached. Agents check every digest themselves.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use oci_client::manifest::OciDescriptor;
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::oci::{INDEX, MANIFEST, REFERENCE};

type Body = UnsyncBoxBody<Bytes, std::io::Error>;

const CONNECTIONS: usize = 256;
const UPSTREAM_TIMEOUT: Duration = Duration::from_secs(10);
const ACCEPTED: [&str; 4] = [
    MANIFEST,
    INDEX,
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
];

struct Registry {
    images: PathBuf,
    upstream: Client,
}

/// A request path of the distribution API.
#[derive(Debug, PartialEq, Eq)]
enum Asked<'a> {
    Base,
    Manifest { name: &'a str, reference: &'a str },
    Blob { name: &'a str, digest: &'a str },
}

pub async fn serve(listener: TcpListener, images: PathBuf) {
    // The provider may have been installed by the listener of the other family.
    rustls::crypto::ring::default_provider().install_default().ok();
    let registry = Arc::new(Registry { images, upstream: Client::default() });
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let Ok(permit) = Arc::clone(&room).try_acquire_owned() else { continue };
        let registry = Arc::clone(&registry);
        tokio::spawn(async move {
            let _permit = permit;
            let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                let registry = Arc::clone(&registry);
                async move { Ok::<_, std::convert::Infallible>(registry.answer(&request).await) }
            });
            let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            // A client that hangs up is no event here.
            server.serve_connection(TokioIo::new(stream), service).await.ok();
        });
    }
}

impl Registry {
    async fn answer(&self, request: &Request<Incoming>) -> Response<Body> {
        if request.method() != Method::GET && request.method() != Method::HEAD {
            return failure(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED", "this registry only serves");
        }
        let head = request.method() == Method::HEAD;
        match parse(request.uri().path()) {
            Some(Asked::Base) => {
                whole(StatusCode::OK, "application/json", Bytes::from_static(b"{}"), None, false)
            }
            Some(Asked::Manifest { name, reference }) => self.manifest(name, reference, head).await,
            Some(Asked::Blob { name, digest }) => self.blob(name, digest, head).await,
            None => failure(StatusCode::NOT_FOUND, "NAME_UNKNOWN", "not a path of the distribution API"),
        }
    }

    async fn manifest(&self, name: &str, reference: &str, head: bool) -> Response<Body> {
        if let Some((digest, media_type)) = self.local_manifest(name, reference)
            && let Some(content) = self.local_blob(&digest)
        {
            return whole(StatusCode::OK, &media_type, content, Some(&digest), head);
        }
        let Ok(image) = upstream_reference(name, reference).parse::<Reference>() else {
            return failure(StatusCode::NOT_FOUND, "NAME_INVALID", "not an image reference");
        };
        let pull = self.upstream.pull_manifest_raw(&image, &RegistryAuth::Anonymous, &ACCEPTED);
        match tokio::time::timeout(UPSTREAM_TIMEOUT, pull).await {
            Ok(Ok((content, digest))) => {
                let media_type = serde_json::from_slice::<Value>(&content)
                    .ok()
                    .and_then(|m| m["mediaType"].as_str().map(str::to_owned))
                    .unwrap_or_else(|| MANIFEST.to_owned());
                whole(StatusCode::OK, &media_type, content, Some(&digest), head)
            }
            Ok(Err(error)) => failure(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN", &error.to_string()),
            Err(_) => failure(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN", "the real registry does not answer"),
        }
    }

    async fn blob(&self, name: &str, digest: &str, head: bool) -> Response<Body> {
        if let Some(content) = self.local_blob(digest) {
            return whole(StatusCode::OK, "application/octet-stream", content, Some(digest), head);
        }
        let Ok(image) = upstream_reference(name, digest).parse::<Reference>() else {
            return failure(StatusCode::NOT_FOUND, "BLOB_UNKNOWN", "not an image reference");
        };
        let descriptor = OciDescriptor { digest: digest.to_owned(), ..Default::default() };
        let open = self.upstream.pull_blob_stream(&image, &descriptor);
        match tokio::time::timeout(UPSTREAM_TIMEOUT, open).await {
            Ok(Ok(blob)) => {
                let mut response = Response::builder().status(StatusCode::OK);
                if let Some(length) = blob.content_length {
                    response = response.header(header::CONTENT_LENGTH, length);
                }
                let body = BodyExt::boxed_unsync(StreamBody::new(blob.stream.map_ok(Frame::data)));
                response.body(body).unwrap_or_default()
            }
            _ => failure(
                StatusCode::NOT_FOUND,
                "BLOB_UNKNOWN",
                "not here, and the real registry does not answer",
            ),
        }
    }

    /// Digest and media type of a manifest of the layout, by tag or digest.
    fn local_manifest(&self, name: &str, reference: &str) -> Option<(String, String)> {
        let index: Value =
            serde_json::from_slice(&std::fs::read(self.images.join("index.json")).ok()?).ok()?;
        let wanted = format!("docker.io/{name}:{reference}");
        let found = index["manifests"].as_array()?.iter().find(|manifest| {
            manifest["annotations"][REFERENCE] == wanted.as_str() || manifest["digest"] == reference
        })?;
        Some((found["digest"].as_str()?.to_owned(), found["mediaType"].as_str()?.to_owned()))
    }

    fn local_blob(&self, digest: &str) -> Option<Bytes> {
        let hex = digest.strip_prefix("sha256:")?;
        // Nothing but a digest may become a path.
        if hex.len() != 64 || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        std::fs::read(Path::new(&self.images).join("blobs/sha256").join(hex)).ok().map(Bytes::from)
    }
}

fn parse(path: &str) -> Option<Asked<'_>> {
    let rest = path.strip_prefix("/v2")?;
    let rest = rest.strip_prefix('/').unwrap_or(rest);
    if rest.is_empty() {
        return Some(Asked::Base);
    }
    if let Some((name, reference)) = rest.rsplit_once("/manifests/") {
        return Some(Asked::Manifest { name, reference });
    }
    let (name, digest) = rest.rsplit_once("/blobs/")?;
    Some(Asked::Blob { name, digest })
}

fn upstream_reference(name: &str, reference: &str) -> String {
    let separator = if reference.starts_with("sha256:") { '@' } else { ':' };
    format!("docker.io/{name}{separator}{reference}")
}

fn whole(
    status: StatusCode,
    media_type: &str,
    content: Bytes,
    digest: Option<&str>,
    head: bool,
) -> Response<Body> {
    let mut response = Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, media_type)
        .header(header::CONTENT_LENGTH, content.len());
    if let Some(digest) = digest {
        response = response.header("Docker-Content-Digest", digest);
    }
    let content = if head { Bytes::new() } else { content };
    response.body(Full::new(content).map_err(|never| match never {}).boxed_unsync()).unwrap_or_default()
}

fn failure(status: StatusCode, code: &str, message: &str) -> Response<Body> {
    let body = serde_json::json!({ "errors": [{ "code": code, "message": message }] });
    whole(status, "application/json", Bytes::from(body.to_string()), None, false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_the_distribution_api_are_told_apart() {
        assert_eq!(parse("/v2/"), Some(Asked::Base));
        assert_eq!(
            parse("/v2/library/nginx/manifests/1.22"),
            Some(Asked::Manifest { name: "library/nginx", reference: "1.22" })
        );
        assert_eq!(
            parse("/v2/library/nginx/blobs/sha256:ab"),
            Some(Asked::Blob { name: "library/nginx", digest: "sha256:ab" })
        );
        assert_eq!(parse("/v1/x"), None);
    }
}
