//! A world for tests: an API server, a runtime and a network that live in memory.
//!
//! Only in test builds. Time is tokio's: tests pause it and let it jump.

pub(crate) mod api;
pub(crate) mod network;
pub(crate) mod runtime;
