//! gRPC checks: one call of `grpc.health.v1.Health/Check`.
//!
//! In: address, port, service name. Out: a finding. The two messages of that protocol have one field each, so they are
//! written and read here by hand.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use super::Finding;

const MAX_BODY: usize = 4 * 1024;
/// `HealthCheckResponse.ServingStatus`.
const STATUSES: [&str; 4] = ["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"];
const SERVING: u64 = 1;
const UNIMPLEMENTED: &str = "12";

/// What the server said.
enum Answer {
    Status(u64),
    /// `grpc-status` other than 0, and its message.
    Refused(String, String),
}

pub(super) async fn check(ip: IpAddr, port: u16, service: &str, timeout: Duration) -> Finding {
    let address = SocketAddr::new(ip, port);
    match tokio::time::timeout(timeout, call(address, service)).await {
        Ok(Ok(Answer::Status(SERVING))) => Finding::Success,
        Ok(Ok(Answer::Status(other))) => {
            let name =
                usize::try_from(other).ok().and_then(|i| STATUSES.get(i)).copied().unwrap_or("UNKNOWN");
            Finding::Failure(format!("service unhealthy (responded with \"{name}\")"))
        }
        Ok(Ok(Answer::Refused(code, message))) if code == UNIMPLEMENTED => Finding::Failure(format!(
            "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): {message}"
        )),
        Ok(Ok(Answer::Refused(code, message))) => {
            Finding::Failure(format!("error: health rpc probe failed with code {code}: {message}"))
        }
        Ok(Err(reason)) => {
            Finding::Failure(format!("error: failed to connect service at \"{address}\": {reason}"))
        }
        Err(_) => Finding::Failure(format!(
            "timeout: failed to connect service \"{address}\" within {}s: context deadline exceeded",
            timeout.as_secs()
        )),
    }
}

async fn call(address: SocketAddr, service: &str) -> Result<Answer, String> {
    let tcp = TcpStream::connect(address).await.map_err(|e| e.to_string())?;
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(tcp))
            .await
            .map_err(|e| e.to_string())?;
    let _connection = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(connection));
    let request = Request::post(format!("http://{address}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", "kube-probe/1.37")
        .body(Full::new(encode(service)))
        .map_err(|e| e.to_string())?;
    let response = sender.send_request(request).await.map_err(|e| e.to_string())?;
    let (head, body) = response.into_parts();
    if let Some(refused) = refusal(&head.headers) {
        return Ok(refused);
    }
    if !head.status.is_success() {
        return Err(format!("unexpected HTTP status {}", head.status));
    }
    let collected = Limited::new(body, MAX_BODY).collect().await.map_err(|e| e.to_string())?;
    if let Some(refused) = collected.trailers().and_then(refusal) {
        return Ok(refused);
    }
    decode(&collected.to_bytes()).map(Answer::Status).ok_or_else(|| "malformed health response".to_owned())
}

fn refusal(headers: &HeaderMap) -> Option<Answer> {
    let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
    let code = text("grpc-status").filter(|code| code != "0")?;
    Some(Answer::Refused(code, text("grpc-message").unwrap_or_default()))
}

/// A frame with `HealthCheckRequest { service = 1 }`; an empty name is left out, as protobuf does.
fn encode(service: &str) -> Bytes {
    let mut message = Vec::new();
    if !service.is_empty() {
        message.push(0x0a);
        push_varint(&mut message, service.len() as u64);
        message.extend_from_slice(service.as_bytes());
    }
    let mut frame = vec![0];
    // A service name is a few bytes: the API server bounds it.
    frame.extend_from_slice(&u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
    frame.extend_from_slice(&message);
    Bytes::from(frame)
}

fn push_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// `HealthCheckResponse { status = 1 }` out of its frame; an absent field is 0. `None`: not such a message.
fn decode(frame: &[u8]) -> Option<u64> {
    let (head, message) = frame.split_at_checked(5)?;
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
    if head[0] != 0 || usize::try_from(length).ok()? != message.len() {
        return None;
    }
    match message.split_first() {
        None => Some(0),
        Some((0x08, value)) => {
            let mut status = 0;
            for (index, byte) in value.iter().enumerate().take(10) {
                status |= u64::from(byte & 0x7f).checked_shl(7 * u32::try_from(index).ok()?)?;
                if byte & 0x80 == 0 {
                    return Some(status);
                }
            }
            None
        }
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http::Response;
    use http_body_util::StreamBody;
    use hyper::body::{Frame, Incoming};
    use hyper::service::service_fn;
    use tokio::net::TcpListener;

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(5);

    /// A health server: `good` serves, `bad` does not, everything else is not found.
    async fn server() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let service = service_fn(answer);
                let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service);
                tokio::spawn(connection);
            }
        });
        address
    }

    async fn answer(
        request: Request<Incoming>,
    ) -> Result<Response<StreamBody<impl futures::Stream<Item = Result<Frame<Bytes>, Infallible>>>>, Infallible>
    {
        assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let name =
            if body.len() > 7 { String::from_utf8(body[7..].to_vec()).unwrap() } else { String::new() };
        let (message, status): (&[u8], &str) = match name.as_str() {
            "" | "good" => (&[0, 0, 0, 0, 2, 8, 1], "0"),
            "bad" => (&[0, 0, 0, 0, 2, 8, 2], "0"),
            _ => (&[], "5"),
        };
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", status.parse().unwrap());
        let frames = [Ok(Frame::data(Bytes::copy_from_slice(message))), Ok(Frame::trailers(trailers))];
        Ok(Response::new(StreamBody::new(futures::stream::iter(frames))))
    }

    #[tokio::test]
    async fn serving_is_success_and_everything_else_says_why_not() {
        let address = server().await;
        let ask = |service: &'static str| check(address.ip(), address.port(), service, TIMEOUT);
        assert_eq!(ask("").await, Finding::Success);
        assert_eq!(ask("good").await, Finding::Success);
        let unhealthy = "service unhealthy (responded with \"NOT_SERVING\")";
        assert_eq!(ask("bad").await, Finding::Failure(unhealthy.into()));
        let unknown = "error: health rpc probe failed with code 5: ";
        assert_eq!(ask("none").await, Finding::Failure(unknown.into()));
    }

    #[tokio::test]
    async fn nobody_listening_is_a_failure() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let finding = check(address.ip(), address.port(), "", TIMEOUT).await;
        assert!(matches!(finding, Finding::Failure(m) if m.contains("failed to connect")));
    }

    #[test]
    fn messages_are_framed_and_malformed_ones_refused() {
        assert_eq!(encode(""), &[0, 0, 0, 0, 0][..]);
        assert_eq!(encode("ab"), &[0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b'][..]);
        assert_eq!(decode(&[0, 0, 0, 0, 0]), Some(0));
        assert_eq!(decode(&[0, 0, 0, 0, 2, 8, 3]), Some(3));
        for bad in [&[0, 0][..], &[1, 0, 0, 0, 0], &[0, 0, 0, 0, 9, 8, 1], &[0, 0, 0, 0, 2, 9, 1]] {
            assert_eq!(decode(bad), None, "{bad:?}");
        }
    }
}
