//! Pods for which others made room, until they are bound: their place is kept from pods of lower priority.
//!
//! In: preemptions of this scheduler, `status.nominatedNodeName` of pending pods. Out: who is expected where. Bounded
//! by the pending pods. Pure.

use std::collections::HashMap;
use std::sync::Arc;

use crate::pod_info::{PodInfo, PodUid};

/// Expected pods and where.
#[derive(Debug, Default)]
pub(crate) struct Nominations {
    pods: HashMap<PodUid, Nomination>,
}

/// One pod that is expected on a node.
#[derive(Clone, Debug)]
pub(crate) struct Nomination {
    pub(crate) pod: Arc<PodInfo>,
    pub(crate) node: String,
}

impl Nominations {
    pub(crate) fn put(&mut self, pod: &Arc<PodInfo>, node: &str) {
        self.pods.insert(pod.uid.clone(), Nomination { pod: pod.clone(), node: node.to_owned() });
    }

    /// Takes in what the watch says: a nomination this scheduler just made may not show there yet.
    pub(crate) fn see(&mut self, pod: &Arc<PodInfo>) {
        if let Some(known) = self.pods.get_mut(&pod.uid) {
            known.pod = pod.clone();
        } else if let Some(node) = &pod.nominated_node {
            self.put(pod, node);
        }
    }

    /// Says whether the pod was expected anywhere.
    pub(crate) fn remove(&mut self, uid: &PodUid) -> bool {
        self.pods.remove(uid).is_some()
    }

    pub(crate) fn of(&self, uid: &PodUid) -> Option<&str> {
        self.pods.get(uid).map(|known| known.node.as_str())
    }

    /// Expected pods that `pod` must leave room for.
    pub(crate) fn ahead_of(&self, pod: &PodInfo) -> Vec<Nomination> {
        let ahead = |known: &&Nomination| known.pod.uid != pod.uid && known.pod.priority >= pod.priority;
        self.pods.values().filter(ahead).cloned().collect()
    }

    /// Pods of lower priority lose their place on the node to `pod`.
    pub(crate) fn give_way(&mut self, pod: &PodInfo, node: &str) {
        self.pods
            .retain(|uid, known| *uid == pod.uid || known.node != node || known.pod.priority >= pod.priority);
    }
}
