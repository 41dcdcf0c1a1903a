//! Watches: the changes of a resource as a stream of framed JSON events.
//!
//! In: list options, the store's watcher. Out: a body of ADDED, MODIFIED, DELETED, BOOKMARK and ERROR events that keeps
//! upstream's resource version semantics. Objects that start or stop matching the selectors arrive and leave. A client
//! that falls behind is told 410 once history is gone; one that takes nothing at all for [`UNREAD`] is forgotten, with
//! the objects that were to be shown to it first.

use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use http::{HeaderValue, Response, header};
use tokio::sync::Mutex;
use tokio::time::{Instant, Sleep};
use xebec_store::{Event, Revision, StoreError, WatchBatch, WatchEnd, Watcher};

use crate::body::{self, Body, BoxError};
use crate::facts::Filter;
use crate::list;
use crate::options::ListOptions;
use crate::registry::{Registry, Served};
use crate::status::{self, ApiError};
use crate::stored::{self, Stored};
use crate::view::{self, Change, View};

const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// Initial events go out in pieces of about this size.
const PIECE: usize = 64 * 1024;

/// How long a client may leave what is sent to it where it is. A connection of HTTP/2 may live on although one of its
/// streams is never read: then nothing but this ends the watch.
const UNREAD: Duration = Duration::from_secs(120);

/// A watch between two readings of its client. Locked while the client waits for the next piece.
struct Slot {
    watching: Option<Watching>,
    /// When the last piece was taken.
    since: Instant,
}

/// One watch.
struct Watching {
    registry: Arc<Registry>,
    view: View,
    filter: Filter,
    watcher: Watcher,
    stage: Stage,
    bookmarks: bool,
    deadline: Pin<Box<Sleep>>,
    next_bookmark: Pin<Box<Sleep>>,
}

/// What is sent next.
enum Stage {
    /// The state before the first change, then perhaps the bookmark that says it is complete.
    Initial {
        items: std::vec::IntoIter<Stored>,
        bookmark: Option<Revision>,
    },
    Live,
    Ended,
}

/// Answers a watch request; later errors are events of the stream.
pub(crate) fn watch(
    registry: &Arc<Registry>,
    served: &Served,
    namespace: Option<&str>,
    options: &ListOptions,
    filter: Filter,
    view: View,
) -> Result<Response<Body>, ApiError> {
    let (stage, after) = begin(registry, served, namespace, options, &filter)?;
    let mut prefix = stored::prefix(&served.resource, namespace);
    let named = filter.exact_name().filter(|_| namespace.is_some() || !served.resource.namespaced);
    if let Some(name) = named {
        // The hub wakes by prefix; the filter still decides (`a` is a prefix of `ab`).
        prefix.push_str(name);
    }
    let watcher = match registry.store.watch(prefix.as_bytes(), after) {
        Ok(watcher) => watcher,
        // Upstream says in the stream what it finds once a request is known to be well formed.
        Err(StoreError::Compacted { oldest }) => return Ok(refused(&ApiError::too_old(after.0, oldest.0))),
        // Only a store restored from a backup forgets the future: whoever saw it must list again.
        Err(StoreError::Future { current }) => return Ok(refused(&ApiError::too_old(after.0, current.0))),
        Err(other) => return Err(status::from_store(&other)),
    };
    let timeout = options.timeout.unwrap_or_else(|| {
        // Spread, so that watches that began together do not end together.
        registry.config.requests.watch.mul_f64(rand::random_range(1.0..2.0))
    });
    let watching = Watching {
        registry: registry.clone(),
        view,
        filter,
        watcher,
        stage,
        bookmarks: options.bookmarks,
        deadline: Box::pin(tokio::time::sleep(timeout)),
        next_bookmark: Box::pin(tokio::time::sleep(BOOKMARK_EVERY)),
    };
    let slot = Arc::new(Mutex::new(Slot { watching: Some(watching), since: Instant::now() }));
    tokio::spawn(forget_unread(Arc::downgrade(&slot)));
    let frames = stream::unfold(slot, async |slot| {
        let mut held = slot.lock().await;
        let frame = held.watching.as_mut()?.next().await?;
        held.since = Instant::now();
        drop(held);
        Some((Ok::<_, BoxError>(frame), slot))
    });
    Ok(streamed(body::stream(frames)))
}

/// Ends a watch that nobody reads. Who only waits for changes holds the lock and is left alone.
async fn forget_unread(slot: Weak<Mutex<Slot>>) {
    loop {
        tokio::time::sleep(UNREAD / 2).await;
        let Some(slot) = slot.upgrade() else { return };
        let Ok(mut held) = slot.try_lock() else { continue };
        if held.since.elapsed() >= UNREAD {
            held.watching = None;
            tracing::debug!("a watch ended: its client takes nothing");
            return;
        }
    }
}

fn streamed(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// A stream that says why there is none.
fn refused(error: &ApiError) -> Response<Body> {
    let mut out = Vec::new();
    view::error_event(error, &mut out);
    streamed(body::full(out))
}

/// What to send first, and the revision to watch from.
fn begin(
    registry: &Registry,
    served: &Served,
    namespace: Option<&str>,
    options: &ListOptions,
    filter: &Filter,
) -> Result<(Stage, Revision), ApiError> {
    let asked = options.revision()?;
    let store = &registry.store;
    match (options.send_initial_events, asked) {
        (Some(false), None | Some(0)) => return Ok((Stage::Live, store.revision())),
        (None | Some(false), Some(revision)) if revision > 0 => {
            return Ok((Stage::Live, Revision(revision)));
        }
        (Some(true), Some(revision)) if revision > store.revision().0 => {
            return Err(ApiError::too_large_resource_version(revision, store.revision().0));
        }
        _ => {}
    }
    let now = ListOptions::default();
    let listing = list::list(store, &served.resource, namespace, &now, filter)?;
    let ends = options.send_initial_events == Some(true) && options.bookmarks;
    let stage =
        Stage::Initial { items: listing.items.into_iter(), bookmark: ends.then_some(listing.revision) };
    Ok((stage, listing.revision))
}

// === impl Watching ===

impl Watching {
    /// The next piece of the stream; never empty.
    async fn next(&mut self) -> Option<Bytes> {
        let mut out = Vec::new();
        while out.is_empty() {
            match &mut self.stage {
                Stage::Ended => return None,
                Stage::Initial { .. } => self.initial(&mut out),
                Stage::Live => self.live(&mut out).await,
            }
        }
        Some(out.into())
    }

    fn initial(&mut self, out: &mut Vec<u8>) {
        let Stage::Initial { items, bookmark } = &mut self.stage else { return };
        for stored in items.by_ref() {
            if let Err(error) = self.view.event(Change::Added, &stored, out) {
                view::error_event(&error, out);
                self.stage = Stage::Ended;
                return;
            }
            if out.len() >= PIECE {
                return;
            }
        }
        if let Some(revision) = bookmark.take() {
            self.view.bookmark(revision, true, out);
        }
        self.stage = Stage::Live;
    }

    async fn live(&mut self, out: &mut Vec<u8>) {
        tokio::select! {
            // Changes first: a deadline that is always past would otherwise starve a busy watch of its last events.
            biased;
            batch = self.watcher.next() => self.batch(batch, out),
            () = &mut self.deadline => {
                self.progress(out);
                self.stage = Stage::Ended;
            }
            () = &mut self.next_bookmark => {
                self.next_bookmark.as_mut().reset(Instant::now() + BOOKMARK_EVERY);
                self.progress(out);
            }
        }
        if Instant::now() >= self.deadline.deadline() {
            self.stage = Stage::Ended;
        }
    }

    /// What is there now and a bookmark behind it, if they were asked for.
    fn progress(&mut self, out: &mut Vec<u8>) {
        if !self.bookmarks {
            return;
        }
        let batch = self.watcher.ready();
        let complete = batch.as_ref().ok().map(|batch| batch.revision);
        self.batch(batch, out);
        if let (Some(revision), Stage::Live) = (complete, &self.stage) {
            self.view.bookmark(revision, false, out);
        }
    }

    fn batch(&mut self, batch: Result<WatchBatch, WatchEnd>, out: &mut Vec<u8>) {
        let failed = match batch {
            Ok(batch) => batch.events.iter().find_map(|event| self.event(event, out).err()),
            Err(WatchEnd::Lagged { oldest }) => Some(ApiError::too_old(0, oldest.0)),
            Err(WatchEnd::Closed) => {
                self.stage = Stage::Ended;
                None
            }
        };
        if let Some(error) = failed {
            view::error_event(&error, out);
            self.stage = Stage::Ended;
        }
    }

    fn event(&self, event: &Event, out: &mut Vec<u8>) -> Result<(), ApiError> {
        let accepts = |stored: &Stored| self.filter.accepts(stored, &self.registry.facts);
        let before = event.previous().map(Stored::from).filter(accepts);
        let after = match event {
            Event::Put { current, .. } => Some(Stored::from(current)).filter(accepts),
            Event::Delete { .. } => None,
        };
        match (before, after) {
            (None, Some(after)) => self.view.event(Change::Added, &after, out),
            (Some(_), Some(after)) => self.view.event(Change::Modified, &after, out),
            // As it was last seen, at the revision it left.
            (Some(before), None) => {
                let left = Stored { value: before.value, revision: event.revision() };
                self.view.event(Change::Deleted, &left, out)
            }
            (None, None) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_nobody_reads_is_forgotten_and_what_waits_is_not() {
        let slot = || Arc::new(Mutex::new(Slot { watching: None, since: Instant::now() }));
        let (unread, waiting) = (slot(), slot());
        let forgotten = tokio::spawn(forget_unread(Arc::downgrade(&unread)));
        let kept = tokio::spawn(forget_unread(Arc::downgrade(&waiting)));
        let held = waiting.lock().await;
        tokio::time::sleep(2 * UNREAD).await;
        assert!(forgotten.is_finished() && !kept.is_finished());
        drop(held);
        waiting.lock().await.since = Instant::now();
        tokio::time::sleep(UNREAD / 2).await;
        assert!(!kept.is_finished(), "read a moment ago");
        drop(waiting);
        tokio::time::sleep(UNREAD).await;
        assert!(kept.is_finished(), "its client left");
    }
}
