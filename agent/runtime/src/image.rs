//! Images: from a reference to unpacked snapshots, and back to what is present.
//!
//! In: references and credentials. Out: [`crate::types::Image`]. containerd is the only memory: nothing is kept here
//! but caches of immutable blobs.

pub(crate) mod content;
pub(crate) mod etc;
pub(crate) mod lease;
pub(crate) mod manifest;
pub(crate) mod pull;
pub(crate) mod reference;
mod shelf;
pub(crate) mod store;
pub(crate) mod unpack;
