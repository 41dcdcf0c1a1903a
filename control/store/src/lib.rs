//! The consistent key-value store: bytes under keys, one global revision, watch from any revision not compacted.
//!
//! In: conditional writes. Out: committed revisions, pages, watch events. A write is answered only after the engine
//! made it durable. Absent: any API type; the store does not know what a Pod is.
//!
//! The way of a write, one room each: [`Store::write`] queues it, the committer checks its precondition and gives
//! it a revision, the [`engine`] makes the batch durable, the multi-version map takes it in, the watch hub wakes
//! who waits for its key. Every read is answered from the map.

pub mod engine;
pub mod types;

mod committer;
mod error;
mod hub;
mod import;
mod mvcc;
mod store;
mod watcher;

pub use engine::EngineConfig;
pub use error::StoreError;
pub use import::import;
pub use store::{Stats, Store};
pub use types::{Event, KeyValue, Page, Precondition, Revision, Write, Written};
pub use watcher::{WatchBatch, WatchEnd, Watcher};
