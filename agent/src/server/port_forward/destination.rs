//! Where the connections of a port forwarding go: a running pod's loopback.
//!
//! In: a pod as the kubelet knows it, the network namespace recorded for it. Out: its loopback. A pod without a
//! record has no network (it has not started, or has ended): that must never be read as the host's.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use xebec_kubelet::KnownPod;

/// A network namespace whose loopback a pod's processes listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Loopback {
    /// The node's: the pod runs with `hostNetwork`.
    Host,
    /// That of the namespace pinned at this path.
    Pod(PathBuf),
}

/// The pod of a port forwarding.
#[derive(Clone)]
pub struct Destination {
    /// As messages name it.
    pub pod: String,
    pub uid: String,
    /// Asked for every connection: the pod may end between two of them.
    pub loopback: Arc<dyn Fn() -> Option<Loopback> + Send + Sync>,
}

impl fmt::Debug for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Destination").field("pod", &self.pod).field("uid", &self.uid).finish_non_exhaustive()
    }
}

// === impl Loopback ===

impl Loopback {
    /// That of a pod with the namespace recorded for it; `None` when the pod does not run.
    pub fn of(known: &KnownPod, netns: Option<PathBuf>) -> Option<Self> {
        let host_network = known.pod.spec.as_ref().and_then(|spec| spec.host_network).unwrap_or(false);
        if !host_network {
            return netns.map(Self::Pod);
        }
        (known.status.phase.as_deref() == Some("Running")).then_some(Self::Host)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn known(host_network: bool, phase: &str) -> KnownPod {
        let pod = json!({ "spec": { "hostNetwork": host_network, "containers": [] } });
        KnownPod {
            pod: Arc::new(serde_json::from_value(pod).unwrap()),
            status: Arc::new(serde_json::from_value(json!({ "phase": phase })).unwrap()),
        }
    }

    #[test]
    fn a_pod_without_a_network_is_not_the_host() {
        for phase in ["Pending", "Running", "Succeeded", "Failed"] {
            assert_eq!(Loopback::of(&known(false, phase), None), None, "{phase}");
        }
        let netns = PathBuf::from("/run/netns/pod");
        let attached = Loopback::of(&known(false, "Running"), Some(netns.clone()));
        assert_eq!(attached, Some(Loopback::Pod(netns)));
    }

    #[test]
    fn the_hosts_loopback_is_for_host_network_pods_while_they_run() {
        assert_eq!(Loopback::of(&known(true, "Running"), None), Some(Loopback::Host));
        for phase in ["Pending", "Succeeded", "Failed"] {
            assert_eq!(Loopback::of(&known(true, phase), None), None, "{phase}");
        }
    }
}
