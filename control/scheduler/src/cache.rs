//! Which pods take which nodes, including those the API does not tell of yet.
//!
//! In: assigned pods from the watch; pods this scheduler just decided on. Out: the node table, always complete. Pure
//! but for the clock it is given.
//!
//! ```text
//!            assume            watch says bound
//!   (none) ─────────► assumed ──────────────────► bound ──► (none)
//!                        │ bind failed, pod deleted,
//!                        └ bound but not confirmed in time ──► (none)
//! ```

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::node_table::NodeTable;
use crate::pod_info::{PodInfo, PodUid};

/// How long an assumed pod that was bound may stay unconfirmed. The watch tells within milliseconds; past this it told
/// something else and was not heard.
const ASSUME_TTL: Duration = Duration::from_secs(120);

/// Pods on nodes.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    pub(crate) table: NodeTable,
    pods: HashMap<PodUid, Placed>,
    /// Binds that succeeded, the oldest first: all wait equally long.
    unconfirmed: VecDeque<(Instant, PodUid)>,
}

#[derive(Debug)]
struct Placed {
    node: String,
    state: State,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    /// The bind request is under way.
    Assumed,
    /// The bind request succeeded.
    Bound { expires: Instant },
    /// The watch confirmed it.
    Confirmed,
}

/// What an assigned pod's event meant to the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    Added,
    Changed,
    Unchanged,
    Removed,
}

impl Cache {
    /// Takes in what the watch says about a pod that has a node.
    pub(crate) fn put_assigned(&mut self, pod: &Arc<PodInfo>) -> Effect {
        let Some(node) = pod.node_name.as_deref().filter(|_| !pod.terminal) else {
            return if self.remove(&pod.uid) { Effect::Removed } else { Effect::Unchanged };
        };
        let confirmed = |placed: &Placed| placed.state == State::Confirmed && placed.node == node;
        if self.pods.get(&pod.uid).is_some_and(confirmed) && self.table.renew(pod, node) {
            return Effect::Unchanged;
        }
        let known =
            self.pods.insert(pod.uid.clone(), Placed { node: node.to_owned(), state: State::Confirmed });
        let effect = match &known {
            None => Effect::Added,
            // What was assumed counted already; that it is true now makes no room.
            Some(known) if known.node == node && known.state != State::Confirmed => Effect::Unchanged,
            Some(_) => Effect::Changed,
        };
        if let Some(known) = known {
            self.table.displace(&pod.uid, &known.node);
        }
        self.table.place(pod, node);
        effect
    }

    /// Forgets a pod. Says whether it was known.
    pub(crate) fn remove(&mut self, uid: &PodUid) -> bool {
        let Some(known) = self.pods.remove(uid) else {
            return false;
        };
        self.table.displace(uid, &known.node);
        true
    }

    /// The pod counts on a node, assumed or confirmed.
    pub(crate) fn is_placed(&self, uid: &PodUid) -> bool {
        self.pods.contains_key(uid)
    }

    /// Counts a pod on the node just chosen for it, before the API knows.
    pub(crate) fn assume(&mut self, pod: &Arc<PodInfo>, node: &str) {
        self.table.place(pod, node);
        self.pods.insert(pod.uid.clone(), Placed { node: node.to_owned(), state: State::Assumed });
    }

    /// The bind request succeeded; the watch has to confirm it in time.
    pub(crate) fn finish_binding(&mut self, uid: &PodUid, now: Instant) {
        if let Some(known) = self.pods.get_mut(uid)
            && known.state == State::Assumed
        {
            let expires = now + ASSUME_TTL;
            known.state = State::Bound { expires };
            self.unconfirmed.push_back((expires, uid.clone()));
        }
    }

    /// The bind request failed. Says whether the pod was still assumed.
    pub(crate) fn forget(&mut self, uid: &PodUid) -> bool {
        let assumed = self.pods.get(uid).is_some_and(|known| known.state == State::Assumed);
        assumed && self.remove(uid)
    }

    /// Forgets what was bound but never confirmed.
    pub(crate) fn expire(&mut self, now: Instant) -> Vec<PodUid> {
        let mut forgotten = Vec::new();
        while let Some((expires, uid)) = self.unconfirmed.pop_front_if(|(expires, _)| *expires <= now) {
            let waits = |placed: &Placed| placed.state == State::Bound { expires };
            if self.pods.get(&uid).is_some_and(waits) {
                self.remove(&uid);
                forgotten.push(uid);
            }
        }
        forgotten
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::pod;
    use serde_json::json;

    fn spec(node: Option<&str>) -> serde_json::Value {
        json!({"nodeName": node, "containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}]})
    }

    fn used(cache: &Cache, node: &str) -> i64 {
        cache.table.row_of(node).map_or(0, |row| cache.table.requested.milli_cpu[row])
    }

    #[tokio::test(start_paused = true)]
    async fn assumed_pod_counts_once_through_confirmation() {
        let mut cache = Cache::default();
        cache.assume(&Arc::new(pod("p", spec(None))), "n");
        assert_eq!(used(&cache, "n"), 1000);
        assert_eq!(cache.put_assigned(&Arc::new(pod("p", spec(Some("n"))))), Effect::Unchanged);
        cache.finish_binding(&"p".into(), Instant::now());
        assert!(cache.expire(Instant::now() + ASSUME_TTL).is_empty(), "a confirmed pod does not expire");
        assert!(!cache.forget(&"p".into()), "a confirmed pod is not forgotten");
        assert_eq!(used(&cache, "n"), 1000);
        assert!(cache.remove(&"p".into()));
        assert_eq!(used(&cache, "n"), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn failed_and_unconfirmed_pods_make_room() {
        let mut cache = Cache::default();
        cache.assume(&Arc::new(pod("failed", spec(None))), "n");
        assert!(cache.forget(&"failed".into()));
        cache.assume(&Arc::new(pod("silent", spec(None))), "n");
        assert!(cache.expire(Instant::now() + ASSUME_TTL).is_empty(), "a bind under way does not expire");
        cache.finish_binding(&"silent".into(), Instant::now());
        assert_eq!(cache.expire(Instant::now() + ASSUME_TTL).len(), 1);
        assert_eq!(used(&cache, "n"), 0);
    }

    #[test]
    fn pod_moves_and_ends_with_what_the_watch_says() {
        let mut cache = Cache::default();
        cache.assume(&Arc::new(pod("p", spec(None))), "n1");
        assert_eq!(cache.put_assigned(&Arc::new(pod("p", spec(Some("n2"))))), Effect::Changed);
        assert_eq!((used(&cache, "n1"), used(&cache, "n2")), (0, 1000));
        let mut done = pod("p", spec(Some("n2")));
        done.terminal = true;
        assert_eq!(cache.put_assigned(&Arc::new(done)), Effect::Removed);
        assert_eq!(used(&cache, "n2"), 0);
    }
}
