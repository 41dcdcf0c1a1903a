//! The consistent key-value store: bytes under keys, one global revision, watch from any revision not compacted.
//!
//! In: conditional writes. Out: committed revisions, pages, watch events. A write is answered only after the engine
//! made it durable. Absent: any API type; the store does not know what a Pod is.

pub mod types;
