//! Containers: records, tasks, their states, and what happens to them.
//!
//! In: [`crate::types::ContainerConfig`]s and ids. Out: running processes and [`crate::types::Container`]s. containerd is
//! the memory: what it does not keep by itself (when a container was started, how it ended) is put on its record as
//! labels.

pub(crate) mod attach;
pub(crate) mod cgroup;
pub(crate) mod create;
pub(crate) mod events;
pub(crate) mod exec;
pub(crate) mod exec_session;
pub(crate) mod io;
pub(crate) mod marks;
pub(crate) mod record;
mod remove;
mod shm;
pub(crate) mod state;
pub(crate) mod task;
