//! The kubelet: makes the pods that the API binds to this node run, and tells how they do.
//!
//! In: a watch of Pods, ConfigMaps, Secrets, Services; the runtime's events; timers of probes and backoffs.
//! Out: calls to `runtime` and `network`, files of volumes, cgroups, `/status` patches, Events.
//! Absent: containerd, netlink, HTTP listeners, the Node object.

#![cfg_attr(
    test,
    allow(clippy::needless_pass_by_value, reason = "json! values read best passed as they are")
)]

mod admission;
mod cgroup;
mod checkpoint;
mod config;
mod container_config;
mod dns;
mod downward;
mod env;
mod env_file;
mod expansion;
mod gc;
mod hosts;
mod image;
mod image_gc;
mod kubelet;
mod log_links;
mod logs;
mod machine;
mod node;
mod objects;
mod pod;
mod pod_network;
mod probe;
mod qos;
mod recorder;
mod resources;
mod runtime_class;
mod security;
mod service_env;
mod stats;
mod status;
mod status_manager;
mod sync_loop;
mod termination_message;
#[cfg(test)]
mod testing;
mod unsupported;
mod volume;
mod worker;

pub use cgroup::CgroupError;
pub use config::KubeletConfig;
pub use dns::ClusterDns;
pub use kubelet::{Kubelet, KubeletError};
pub use logs::{LogError, LogOptions, LogStream, Logs};
pub use node::{KnownPod, KnownPods};
pub use pod_network::PodNetworking;
pub use recorder::{EventType, Recorder};
pub use resources::NodeCapacity;
pub use stats::Stats;
