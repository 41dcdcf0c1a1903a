//! What a connection is at, and since when: idle, in the middle of a request's head, at work.
//!
//! In: bytes that came, requests that began and ended. Out: the moment at which a client has had its time. Streams and slow
//! answers are work and have times of their own.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::Limits;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Idle(Instant),
    /// Part of a request's head has come.
    Head(Instant),
    /// So many requests are unanswered.
    Working(usize),
}

/// One connection's.
#[derive(Debug)]
pub(super) struct Activity {
    phase: Mutex<Phase>,
    changed: Notify,
}

/// A request under way.
#[derive(Debug)]
pub(super) struct Work(Arc<Activity>);

/// A stream that says when something came.
pub(super) struct Heard<S> {
    pub(super) stream: S,
    /// `None` where what comes need not be a request: HTTP/2 has frames of its own.
    pub(super) activity: Option<Arc<Activity>>,
}

// === impl Activity ===

impl Activity {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { phase: Mutex::new(Phase::Idle(Instant::now())), changed: Notify::new() })
    }

    fn phase(&self) -> MutexGuard<'_, Phase> {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn heard(&self) {
        let mut phase = self.phase();
        if let Phase::Idle(_) = *phase {
            *phase = Phase::Head(Instant::now());
            self.changed.notify_one();
        }
    }

    /// A request's head is whole.
    pub(super) fn begin(self: &Arc<Self>) -> Work {
        let mut phase = self.phase();
        *phase = match *phase {
            Phase::Working(count) => Phase::Working(count + 1),
            Phase::Idle(_) | Phase::Head(_) => Phase::Working(1),
        };
        self.changed.notify_one();
        Work(Arc::clone(self))
    }

    /// Ends when the client has had its time.
    pub(super) async fn overdue(&self, limits: &Limits) {
        loop {
            let deadline = match *self.phase() {
                Phase::Idle(since) => Some(since + limits.idle),
                Phase::Head(since) => Some(since + limits.request_head),
                Phase::Working(_) => None,
            };
            match deadline {
                None => self.changed.notified().await,
                Some(deadline) => tokio::select! {
                    () = sleep_until(deadline) => return,
                    () = self.changed.notified() => {}
                },
            }
        }
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        let mut phase = self.0.phase();
        *phase = match *phase {
            Phase::Working(count) if count > 1 => Phase::Working(count - 1),
            _ => Phase::Idle(Instant::now()),
        };
        self.0.changed.notify_one();
    }
}

// === impl Heard ===

impl<S: AsyncRead + Unpin> AsyncRead for Heard<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if buffer.filled().len() > before
            && let Some(activity) = &self.activity
        {
            activity.heard();
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Heard<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_phase_has_its_time() {
        let limits = Limits {
            idle: Duration::from_secs(90),
            request_head: Duration::from_secs(32),
            ..Limits::default()
        };
        let began = Instant::now();
        let activity = Activity::new();
        activity.overdue(&limits).await;
        assert_eq!(began.elapsed().as_secs(), 90, "idle from the start");

        let activity = Activity::new();
        let began = Instant::now();
        activity.heard();
        tokio::time::advance(Duration::from_secs(20)).await;
        activity.heard();
        activity.overdue(&limits).await;
        assert_eq!(began.elapsed().as_secs(), 32, "more of a head gives no more time");

        let work = [activity.begin(), activity.begin()];
        let [first, second] = work;
        drop(first);
        let long = tokio::time::timeout(Duration::from_secs(10_000), activity.overdue(&limits)).await;
        assert!(long.is_err(), "work takes its time");
        drop(second);
        let began = Instant::now();
        activity.overdue(&limits).await;
        assert_eq!(began.elapsed().as_secs(), 90, "idle after work");
    }
}
