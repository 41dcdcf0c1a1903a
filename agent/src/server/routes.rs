//! Paths of the kubelet API and what they answer.
//!
//! In: a request and who sent it. Out: the answer; logs as a stream.

use bytes::Bytes;
use futures::StreamExt;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use xebec_kubelet::{LogError, LogOptions};

use super::Served;
use super::tls::ClientIdentity;

type Body = UnsyncBoxBody<Bytes, std::io::Error>;

pub async fn answer(request: &Request<Incoming>, client: &ClientIdentity, served: &Served) -> Response<Body> {
    if request.uri().path() == "/healthz" && request.method() == Method::GET {
        return text(StatusCode::OK, "ok");
    }
    match client {
        ClientIdentity::Anonymous => return text(StatusCode::UNAUTHORIZED, "Unauthorized"),
        user if !user.is_allowed() => {
            let why = format!(
                "Forbidden (client={user:?}, verb={}, path={})",
                request.method(),
                request.uri().path()
            );
            return text(StatusCode::FORBIDDEN, &why);
        }
        ClientIdentity::User { .. } => {}
    }
    if request.method() != Method::GET {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET is served here");
    }
    let parts: Vec<&str> = request.uri().path().trim_matches('/').split('/').collect();
    match parts.as_slice() {
        ["pods"] => pods(served),
        ["containerLogs", namespace, pod, container] => {
            logs(served, namespace, pod, container, request.uri().query().unwrap_or_default())
        }
        _ => text(StatusCode::NOT_FOUND, "404 page not found"),
    }
}

/// The pods this kubelet knows, as a PodList with their newest statuses.
fn pods(served: &Served) -> Response<Body> {
    let items: Vec<Pod> = served
        .pods
        .all()
        .into_iter()
        .map(|known| {
            let mut pod = (*known.pod).clone();
            pod.status = Some((*known.status).clone());
            pod
        })
        .collect();
    let list = serde_json::json!({ "kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items });
    respond(StatusCode::OK, "application/json", Bytes::from(list.to_string()))
}

fn logs(served: &Served, namespace: &str, pod: &str, container: &str, query: &str) -> Response<Body> {
    let options = match parse_options(query) {
        Ok(options) => options,
        Err(why) => return text(StatusCode::BAD_REQUEST, &why),
    };
    match served.logs.open(namespace, pod, container, options) {
        Ok(chunks) => {
            let stream = tokio_stream(chunks).map(|chunk| chunk.map(Frame::data));
            let body = BodyExt::boxed_unsync(StreamBody::new(stream));
            Response::builder()
                .header(header::CONTENT_TYPE, "text/plain")
                .body(body)
                .unwrap_or_else(|_| text(StatusCode::INTERNAL_SERVER_ERROR, "no answer could be made"))
        }
        Err(error @ LogError::NoPod(_)) => text(StatusCode::NOT_FOUND, &error.to_string()),
        Err(error) => text(StatusCode::BAD_REQUEST, &error.to_string()),
    }
}

fn tokio_stream(
    mut chunks: tokio::sync::mpsc::Receiver<std::io::Result<Bytes>>,
) -> impl futures::Stream<Item = std::io::Result<Bytes>> {
    futures::stream::poll_fn(move |context| chunks.poll_recv(context))
}

/// `PodLogOptions` as query parameters.
fn parse_options(query: &str) -> Result<LogOptions, String> {
    let mut options = LogOptions::default();
    for (key, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
        let number = || value.parse::<u64>().map_err(|_| format!("{key}={value}: not a number from 0"));
        let flag = || value.parse::<bool>().map_err(|_| format!("{key}={value}: true or false"));
        match key {
            "follow" => options.follow = flag()?,
            "previous" => options.previous = flag()?,
            "timestamps" => options.timestamps = flag()?,
            "tailLines" => options.tail_lines = Some(number()?),
            "limitBytes" => options.limit_bytes = Some(number()?),
            "sinceSeconds" => {
                let seconds = i64::try_from(number()?).map_err(|_| format!("{key}={value}: too long ago"))?;
                let since = Timestamp::now().checked_sub(SignedDuration::from_secs(seconds));
                options.since = Some(since.unwrap_or(Timestamp::UNIX_EPOCH));
            }
            "sinceTime" => {
                let decoded =
                    value.replace("%3A", ":").replace("%3a", ":").replace("%2B", "+").replace("%2b", "+");
                options.since =
                    Some(decoded.parse().map_err(|_| format!("{key}={value}: not an RFC 3339 time"))?);
            }
            _ => {}
        }
    }
    Ok(options)
}

fn text(status: StatusCode, message: &str) -> Response<Body> {
    respond(status, "text/plain; charset=utf-8", Bytes::from(format!("{message}\n")))
}

fn respond(status: StatusCode, content_type: &'static str, content: Bytes) -> Response<Body> {
    let mut response =
        Response::new(BodyExt::boxed_unsync(Full::new(content).map_err(|never| match never {})));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_options_are_read_from_the_query() {
        let options =
            parse_options("follow=true&tailLines=5&sinceTime=2026-01-02T03%3A04%3A05Z&x=y").unwrap();
        assert!(options.follow && options.since.is_some());
        assert_eq!(options.tail_lines, Some(5));
        assert!(parse_options("tailLines=-1").is_err());
        assert!(parse_options("follow=perhaps").is_err());
    }
}
