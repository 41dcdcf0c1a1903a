//! How much is read from a client before somebody takes it.
//!
//! In: what a client sent. Out: the same, once there is room for it among what still waits on its connection. Without
//! such a bound one client could fill the node's memory by opening streams that nobody reads.

use std::ops::Deref;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes that may wait on one connection, over all of its streams.
const ROOM: usize = 1 << 20;

/// The room of one connection.
#[derive(Clone, Debug)]
pub struct ReadAhead(Arc<Semaphore>);

/// Bytes of a client. Their room is free again when they are dropped.
#[derive(Debug)]
pub struct Chunk {
    bytes: Bytes,
    _room: Option<OwnedSemaphorePermit>,
}

// === impl ReadAhead ===

impl Default for ReadAhead {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(ROOM)))
    }
}

impl ReadAhead {
    /// Waits for room. What is larger than all of it waits until it is alone.
    pub async fn hold(&self, bytes: Bytes) -> Chunk {
        let wanted = u32::try_from(bytes.len().min(ROOM)).unwrap_or(u32::MAX);
        // The semaphore is never closed.
        let room = Arc::clone(&self.0).acquire_many_owned(wanted).await.ok();
        Chunk { bytes, _room: room }
    }
}

// === impl Chunk ===

impl Deref for Chunk {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_waits_on_a_connection_is_bounded() {
        let ahead = ReadAhead::default();
        let piece = Bytes::from(vec![0; ROOM / 4]);
        let mut held = Vec::new();
        while let Ok(chunk) = timeout(Duration::from_secs(1), ahead.hold(piece.clone())).await {
            held.push(chunk);
            assert!(held.len() <= 4, "no more than {ROOM} bytes");
        }
        assert_eq!(held.len(), 4);
        held.pop();
        assert_eq!(ahead.hold(piece).await.len(), ROOM / 4);
        held.clear();
        assert_eq!(ahead.hold(Bytes::from(vec![0; 2 * ROOM])).await.len(), 2 * ROOM);
    }
}
