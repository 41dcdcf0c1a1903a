//! Bodies: what comes in, bounded in size and time, and what goes out.
//!
//! In: request bodies. Out: whole bytes of at most [`MAX_BODY`]; answers made of bytes or of a stream of frames.

use std::convert::Infallible;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt};
use http_body::{Body as _, Frame};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};

use crate::status::ApiError;

/// What a body ends with when it ends badly.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// The body of every request and answer.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

/// The largest request body, as upstream's.
pub const MAX_BODY: usize = 3 * 1024 * 1024;
/// How long a client may take to send its body.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// A body of these bytes.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(never).boxed_unsync()
}

/// A body without bytes.
pub fn empty() -> Body {
    full(Bytes::new())
}

/// A body that sends what the stream gives until it ends.
pub(crate) fn stream(frames: impl Stream<Item = Result<Bytes, BoxError>> + Send + 'static) -> Body {
    StreamBody::new(frames.map(|frame| frame.map(Frame::data))).boxed_unsync()
}

/// The whole body, or why it is refused.
pub(crate) async fn read(body: Body) -> Result<Bytes, ApiError> {
    match tokio::time::timeout(READ_TIMEOUT, collect(body)).await {
        Ok(collected) => collected,
        Err(_) => Err(ApiError::timeout("the request body did not arrive in time")),
    }
}

async fn collect(mut body: Body) -> Result<Bytes, ApiError> {
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame
            .map_err(|error| ApiError::bad_request(format!("unable to read the request body: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        if whole.len() + data.len() > MAX_BODY {
            return Err(ApiError::request_entity_too_large(MAX_BODY));
        }
        if whole.is_empty() && body.is_end_stream() {
            return Ok(data);
        }
        whole.extend_from_slice(&data);
    }
    Ok(whole.freeze())
}

fn never(error: Infallible) -> BoxError {
    match error {}
}
