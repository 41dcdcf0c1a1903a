//! Answers of the kubelet API: bodies, and the shorthands for them.

use bytes::Bytes;
use futures::StreamExt;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use tokio::sync::mpsc;

pub type Body = UnsyncBoxBody<Bytes, std::io::Error>;

pub fn text(status: StatusCode, message: &str) -> Response<Body> {
    respond(status, "text/plain; charset=utf-8", Bytes::from(format!("{message}\n")))
}

pub fn json(document: &impl serde::Serialize) -> Response<Body> {
    match serde_json::to_vec(document) {
        Ok(bytes) => respond(StatusCode::OK, "application/json", Bytes::from(bytes)),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

pub fn respond(status: StatusCode, content_type: &'static str, content: Bytes) -> Response<Body> {
    let mut response = empty(status);
    *response.body_mut() = BodyExt::boxed_unsync(Full::new(content).map_err(|never| match never {}));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

pub fn empty(status: StatusCode) -> Response<Body> {
    let body = BodyExt::boxed_unsync(Full::new(Bytes::new()).map_err(|never| match never {}));
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
}

/// Chunks as they come.
pub fn stream(mut chunks: mpsc::Receiver<std::io::Result<Bytes>>) -> Response<Body> {
    let frames = futures::stream::poll_fn(move |context| chunks.poll_recv(context));
    let mut response = empty(StatusCode::OK);
    *response.body_mut() = BodyExt::boxed_unsync(StreamBody::new(frames.map(|chunk| chunk.map(Frame::data))));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}
