//! The kubelet: makes the pods that the API binds to this node run, and tells how they do.
//!
//! In: a watch of Pods, ConfigMaps, Secrets, Services; the runtime's events; timers of probes and backoffs.
//! Out: calls to `runtime` and `network`, files of volumes, cgroups, `/status` patches, Events.
//! Absent: containerd, netlink, HTTP listeners, the Node object.

pub mod cgroup;
mod checkpoint;
pub mod config;
mod container_config;
pub mod dns;
mod downward;
mod env;
mod expansion;
mod gc;
mod hosts;
mod image;
mod kubelet;
pub mod logs;
mod machine;
mod node;
mod objects;
pub mod pod;
pub mod pod_network;
mod probe;
pub mod qos;
pub mod recorder;
pub mod resources;
mod security;
mod service_env;
mod status;
mod status_manager;
mod sync_loop;
mod termination_message;
mod volume;
mod worker;

pub use config::KubeletConfig;
pub use kubelet::{Kubelet, KubeletError};
pub use node::{KnownPod, KnownPods};
