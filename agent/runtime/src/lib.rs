//! Containers and images of one node, on containerd's own API.
//!
//! In: [`types::ContainerConfig`] and image references from `kubelet`. Out: containers, images, [`types::RuntimeEvent`]s.
//! Absent: Pod phases, restart decisions, networking. The only user of containerd.
//!
//! ```text
//! pull    reference → registry (manifest, config, layers) → content store → snapshots, one per layer → image record
//! create  config + image → user (image's passwd) → spec → container record → snapshot → task
//! start   task → pid; exit ← event or task → mark on the container record
//! logs    container → pipe → log sink process → CRI log file, and whoever is attached
//! attach  log sink's socket → client → FIFO → container
//! ```

pub mod config;
mod container;
mod containerd;
pub mod error;
mod image;
pub mod log_sink;
mod registry;
mod resolve;
mod rpc;
mod spec;
pub mod types;

pub use config::{ContainerdConfig, RegistryHost, Timeouts};
pub use container::attach::{AttachControl, Attached, OutputStream};
pub use container::exec_session::{Exec, ExecRequest};
pub use containerd::Containerd;
pub use resolve::open_below;
