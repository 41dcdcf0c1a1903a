//! Containers and images of one node, on containerd's own API.
//!
//! In: [`types::ContainerConfig`] and image references from `kubelet`. Out: containers, images, [`types::RuntimeEvent`]s.
//! Absent: Pod phases, restart decisions, networking. The only user of containerd.

pub mod error;
pub mod types;
