//! Bodies: what comes in, bounded in size and time, and what goes out.
//!
//! In: request bodies. Out: whole bytes of at most [`MAX_BODY`]; answers made of bytes or of a stream of frames.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt};
use http::Request;
use http_body::{Body as _, Frame};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::status::ApiError;

/// What a body ends with when it ends badly.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// The body of every request and answer.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

/// The largest request body, as upstream's.
pub const MAX_BODY: usize = 3 * 1024 * 1024;
/// How long a client may take to send its body.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// How much more than a body may have is read and thrown away, so that who sent it comes to read why it is refused.
const MAX_DISCARDED: usize = 4 * MAX_BODY;
/// Bytes of bodies in memory, over all requests.
const MAX_HELD: usize = 256 * 1024 * 1024;
/// Of each body so much is not counted: nobody is kept from small requests by large ones.
const FREE: usize = 64 * 1024;

/// Bodies of requests that wait or are at work, bounded over all.
pub(crate) struct Bodies {
    room: Arc<Semaphore>,
}

/// Room that one body takes, until it is dropped.
pub(crate) type Held = OwnedSemaphorePermit;

// === impl Bodies ===

impl Default for Bodies {
    fn default() -> Self {
        Self { room: Arc::new(Semaphore::new(MAX_HELD)) }
    }
}

impl Bodies {
    /// The request once all of its body is there.
    pub(crate) async fn whole(
        &self,
        request: Request<Body>,
    ) -> Result<(Request<Body>, Option<Held>), ApiError> {
        if request.body().is_end_stream() {
            return Ok((request, None));
        }
        let (head, body) = request.into_parts();
        let mut held = None;
        let bytes = within(READ_TIMEOUT, collect(body, |whole| self.hold(whole, &mut held))).await?;
        Ok((Request::from_parts(head, full(bytes)), held))
    }

    /// Makes room for a body of this size, or says 429.
    fn hold(&self, size: usize, held: &mut Option<Held>) -> Result<(), ApiError> {
        let has = held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let more = size.saturating_sub(FREE).saturating_sub(has);
        if more == 0 {
            return Ok(());
        }
        let more = u32::try_from(more).unwrap_or(u32::MAX);
        let place = Arc::clone(&self.room).try_acquire_many_owned(more);
        let place = place.map_err(|_| ApiError::too_many_requests(BUSY, 1))?;
        match held {
            Some(held) => held.merge(place),
            None => *held = Some(place),
        }
        Ok(())
    }
}

const BUSY: &str = "Too many requests, please try again later.";

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
    within(READ_TIMEOUT, collect(body, |_| Ok(()))).await
}

async fn within(
    limit: Duration,
    collected: impl Future<Output = Result<Bytes, ApiError>>,
) -> Result<Bytes, ApiError> {
    match tokio::time::timeout(limit, collected).await {
        Ok(collected) => collected,
        Err(_) => Err(ApiError::timeout("the request body did not arrive in time")),
    }
}

/// `grow` is told the size before the body becomes that large.
async fn collect(
    mut body: Body,
    mut grow: impl FnMut(usize) -> Result<(), ApiError>,
) -> Result<Bytes, ApiError> {
    let mut whole = BytesMut::new();
    let mut size = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame
            .map_err(|error| ApiError::bad_request(format!("unable to read the request body: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        size += data.len();
        if size > MAX_BODY {
            whole = BytesMut::new();
            if size > MAX_DISCARDED {
                break;
            }
            continue;
        }
        grow(size)?;
        if whole.is_empty() && body.is_end_stream() {
            return Ok(data);
        }
        whole.extend_from_slice(&data);
    }
    if size > MAX_BODY { Err(ApiError::request_entity_too_large(MAX_BODY)) } else { Ok(whole.freeze()) }
}

fn never(error: Infallible) -> BoxError {
    match error {}
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(sizes: &[usize]) -> Request<Body> {
        let frames: Vec<_> = sizes.iter().map(|size| Ok(Bytes::from(vec![b'x'; *size]))).collect();
        Request::new(stream(futures::stream::iter(frames)))
    }

    #[tokio::test]
    async fn bodies_have_a_size() {
        let bodies = Bodies::default();
        let (request, _held) = bodies.whole(pieces(&[MAX_BODY - 1, 1])).await.expect("as large as may be");
        assert_eq!(read(request.into_body()).await.expect("read").len(), MAX_BODY);
        for sizes in [&[MAX_BODY, 1][..], &[MAX_BODY; 100]] {
            assert_eq!(bodies.whole(pieces(sizes)).await.expect_err("too large").code(), 413);
        }
    }

    #[tokio::test]
    async fn large_bodies_wait_their_turn_and_small_ones_do_not() {
        let bodies = Bodies { room: Arc::new(Semaphore::new(2 * FREE)) };
        let (_, held) = bodies.whole(pieces(&[FREE, 2 * FREE])).await.expect("there is room");
        assert_eq!(bodies.whole(pieces(&[FREE, 1])).await.expect_err("there is none").code(), 429);
        bodies.whole(pieces(&[FREE])).await.expect("a small one");
        drop(held);
        bodies.whole(pieces(&[FREE, 1])).await.expect("there is room again");
    }
}
