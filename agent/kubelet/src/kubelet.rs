//! The running kubelet of a node.
//!
//! In: configuration, API client, runtime, network. Out: a task that lives until the handle is dropped, and the
//! register of pods for the kubelet API server.

use std::path::PathBuf;
use std::sync::Arc;

use kube::Client;
use tokio_util::task::AbortOnDropHandle;
use xebec_runtime::types::ContainerRuntime;

use crate::cgroup::{CgroupError, Cgroups};
use crate::config::KubeletConfig;
use crate::image_gc;
use crate::node::{KnownPods, Node};
use crate::pod_network::PodNetworking;
use crate::recorder::Recorder;
use crate::stats::Stats;
use crate::sync_loop::SyncLoop;

/// Why the kubelet cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum KubeletError {
    #[error("cannot make the pods' cgroups ({0}); check --cgroup-root and that the agent runs as root")]
    Cgroup(#[from] CgroupError),
    #[error("cannot make {path}: {source}")]
    Folder { path: PathBuf, source: std::io::Error },
}

/// Handle of a running kubelet. When it is dropped the kubelet stops and the containers go on.
pub struct Kubelet {
    pods: KnownPods,
    stats: Stats,
    task: AbortOnDropHandle<()>,
    _image_gc: AbortOnDropHandle<()>,
}

impl Kubelet {
    /// Begins to make this node's pods run. Networks and images must work by now.
    pub fn start<R: ContainerRuntime, N: PodNetworking>(
        config: KubeletConfig,
        client: Client,
        runtime: R,
        network: N,
        recorder: Recorder,
    ) -> Result<Self, KubeletError> {
        let cgroups = Cgroups::open(&config.cgroup_root)?;
        Self::start_in(cgroups, config, client, runtime, network, recorder)
    }

    fn start_in<R: ContainerRuntime, N: PodNetworking>(
        cgroups: Cgroups,
        mut config: KubeletConfig,
        client: Client,
        runtime: R,
        network: N,
        recorder: Recorder,
    ) -> Result<Self, KubeletError> {
        config.pids_limit = config.pids_limit.filter(|_| cgroups.limits_processes());
        for dir in [config.state_dir.join("pods"), config.log_dir.clone()] {
            std::fs::create_dir_all(&dir).map_err(|source| KubeletError::Folder { path: dir, source })?;
        }
        let node = Arc::new(Node::new(config, client.clone(), runtime, network, recorder, cgroups));
        let pods = node.known.clone();
        let stats = Stats::new(node.cgroups.clone(), pods.clone(), &node.config);
        let image_gc = AbortOnDropHandle::new(tokio::spawn(image_gc::run(Arc::clone(&node))));
        let task = AbortOnDropHandle::new(tokio::spawn(SyncLoop::new(node).run(client)));
        Ok(Self { pods, stats, task, _image_gc: image_gc })
    }

    /// The pods of this node with their newest statuses.
    pub fn pods(&self) -> KnownPods {
        self.pods.clone()
    }

    /// What the node and its pods use.
    pub fn stats(&self) -> Stats {
        self.stats.clone()
    }

    /// Ends when the kubelet can no longer go on, which it does not by itself.
    pub async fn ended(&mut self) {
        let _ended = (&mut self.task).await;
    }
}

#[cfg(test)]
#[path = "kubelet_tests.rs"]
mod tests;
