//! The controllers and the scheduler against the real API server over a store in memory, with hollow nodes.
//!
//! In: nothing. Out: what a user would see of the objects. No container runs; a hollow node says of every pod bound to
//! it that it is ready, and takes it away when asked to.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends here")]

#[path = "cluster/control_plane.rs"]
mod control_plane;
#[path = "cluster/daemons.rs"]
mod daemons;
#[path = "cluster/deletion.rs"]
mod deletion;
#[path = "cluster/disruptions.rs"]
mod disruptions;
#[path = "cluster/hollow.rs"]
mod hollow;
#[path = "cluster/jobs.rs"]
mod jobs;
#[path = "cluster/nodes.rs"]
mod nodes;
#[path = "cluster/placement.rs"]
mod placement;
#[path = "cluster/replication.rs"]
mod replication;
#[path = "cluster/rollouts.rs"]
mod rollouts;
#[path = "cluster/scheduling.rs"]
mod scheduling;
#[path = "cluster/services.rs"]
mod services;
#[path = "cluster/stateful.rs"]
mod stateful;
#[path = "cluster/wait.rs"]
mod wait;
#[path = "cluster/workloads.rs"]
mod workloads;
