//! Harness of the suites that need more than a unit test: clusters, real kernels, real clients.
//!
//! In: the environment that `cargo xtask test` prepares. Out: what several suites share. The suites are in `tests/`.

pub mod api;
pub mod api_client;
pub mod bench;
pub mod busybox;
pub mod cgroup;
pub mod cluster;
pub mod containerd;
pub mod control;
pub mod fabric;
pub mod history;
pub mod image;
pub mod kubectl;
pub mod load;
pub mod netns;
pub mod pty;
pub mod registry;
pub mod runtime;
pub mod skip;
pub mod tls;
