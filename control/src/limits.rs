//! Limits of the process.
//!
//! In: nothing. Out: as many descriptors as the system allows: each connection is one.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

pub fn raise_descriptors() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, most)| setrlimit(Resource::RLIMIT_NOFILE, most, most));
    if let Err(error) = raised {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}
