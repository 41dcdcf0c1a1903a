//! Pods waiting for a node.
//!
//! In: pods from the watch, outcomes of scheduling cycles, cluster changes, the time. Out: the pod to try next. Its
//! length is the number of pending pods, which the API bounds. Pure but for the clock it is given.
//!
//! ```text
//!            put                  pop
//!   (none) ──────► active ──────────────► in flight ──bound──► (none)
//!             ▲       ▲                       │
//!    gate     │       │ time            fits  │ nowhere, or bind failed
//!    opens    │       │                       ▼
//!   gated ────┘    backoff ◄──event── unschedulable
//! ```
//!
//! A pod that fits nowhere waits for a change that may help it (each plugin names those), not for time; after five
//! minutes it is tried anyway, should a change have been missed.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::events::ClusterEvents;
use crate::pod_info::{PodInfo, PodUid};

const BACKOFF_BASE: Duration = Duration::from_secs(1);
const BACKOFF_CAP: Duration = Duration::from_secs(10);
const UNSCHEDULABLE_LIMIT: Duration = Duration::from_secs(300);

/// Highest priority first, then whoever waits longest.
type Turn = (Reverse<i32>, u64);

/// Pending pods by what they wait for.
#[derive(Debug, Default)]
pub(crate) struct SchedulingQueue {
    pods: HashMap<PodUid, Pending>,
    active: BTreeSet<(Turn, PodUid)>,
    backoff: BTreeSet<(Instant, PodUid)>,
    unschedulable: BTreeSet<(Instant, PodUid)>,
    turns: u64,
}

#[derive(Debug)]
struct Pending {
    pod: Arc<PodInfo>,
    attempts: u32,
    /// Earliest next try; set when a try fails.
    backoff_until: Option<Instant>,
    place: Place,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Gated,
    Active(Turn),
    Backoff(Instant),
    Unschedulable { since: Instant, hopes: ClusterEvents },
    InFlight,
}

impl SchedulingQueue {
    /// Takes in a pending pod as the watch tells it.
    pub(crate) fn put(&mut self, pod: Arc<PodInfo>, now: Instant) {
        let uid = pod.uid.clone();
        let Some(known) = self.pods.get_mut(&uid) else {
            let gated = pod.gated;
            let pending = Pending { pod, attempts: 0, backoff_until: None, place: Place::Gated };
            self.pods.insert(uid.clone(), pending);
            if !gated {
                self.activate(&uid, now);
            }
            return;
        };
        let changed = !known.pod.same_demands(&pod);
        let gated = pod.gated;
        known.pod = pod;
        match known.place {
            Place::Gated if !gated => self.activate(&uid, now),
            Place::Unschedulable { .. } if changed => self.activate(&uid, now),
            // Its turn may have changed with its priority.
            Place::Active(_) if changed => self.activate(&uid, now),
            _ => {}
        }
    }

    /// Forgets a pod: deleted, bound, or another scheduler's.
    pub(crate) fn remove(&mut self, uid: &PodUid) {
        self.leave(uid);
        self.pods.remove(uid);
    }

    pub(crate) fn contains(&self, uid: &PodUid) -> bool {
        self.pods.contains_key(uid)
    }

    /// The pod whose turn it is; it stays known as in flight until an outcome is reported.
    pub(crate) fn pop(&mut self) -> Option<Arc<PodInfo>> {
        let (_, uid) = self.active.pop_first()?;
        let pending = self.pods.get_mut(&uid)?;
        pending.place = Place::InFlight;
        pending.attempts = pending.attempts.saturating_add(1);
        Some(pending.pod.clone())
    }

    /// The pod fits nowhere; only these changes may help.
    pub(crate) fn unschedulable(&mut self, uid: &PodUid, hopes: ClusterEvents, now: Instant) {
        let Some(pending) = self.in_flight(uid) else {
            return;
        };
        pending.backoff_until = Some(now + backoff(pending.attempts));
        pending.place = Place::Unschedulable { since: now, hopes };
        self.unschedulable.insert((now, uid.clone()));
    }

    /// The try failed for no reason of the pod's: again after its backoff.
    pub(crate) fn retry(&mut self, uid: &PodUid, now: Instant) {
        let Some(pending) = self.in_flight(uid) else {
            return;
        };
        let until = now + backoff(pending.attempts);
        pending.backoff_until = Some(until);
        pending.place = Place::Backoff(until);
        self.backoff.insert((until, uid.clone()));
    }

    /// Something changed: pods that hope for it are tried again.
    pub(crate) fn cluster_changed(&mut self, events: ClusterEvents, now: Instant) {
        if events.is_none() {
            return;
        }
        let hopeful = |uid: &PodUid| {
            let place = self.pods.get(uid).map(|pending| pending.place);
            matches!(place, Some(Place::Unschedulable { hopes, .. }) if hopes.intersects(events))
        };
        let moved: Vec<PodUid> =
            self.unschedulable.iter().filter(|(_, uid)| hopeful(uid)).map(|(_, uid)| uid.clone()).collect();
        for uid in moved {
            self.activate(&uid, now);
        }
    }

    /// Moves on whoever waited long enough.
    pub(crate) fn tick(&mut self, now: Instant) {
        while let Some((until, uid)) = self.backoff.first().cloned()
            && until <= now
        {
            self.activate(&uid, now);
        }
        while let Some((since, uid)) = self.unschedulable.first().cloned()
            && since + UNSCHEDULABLE_LIMIT <= now
        {
            self.activate(&uid, now);
        }
    }

    /// When [`Self::tick`] has something to do next.
    pub(crate) fn next_tick(&self) -> Option<Instant> {
        let backoff = self.backoff.first().map(|(until, _)| *until);
        let unschedulable = self.unschedulable.first().map(|(since, _)| *since + UNSCHEDULABLE_LIMIT);
        backoff.into_iter().chain(unschedulable).min()
    }

    pub(crate) fn has_active(&self) -> bool {
        !self.active.is_empty()
    }

    /// To the active queue, or to the backoff queue while the pod's backoff lasts.
    fn activate(&mut self, uid: &PodUid, now: Instant) {
        self.leave(uid);
        self.turns += 1;
        let turn = self.turns;
        let Some(pending) = self.pods.get_mut(uid) else {
            return;
        };
        if let Some(until) = pending.backoff_until.filter(|until| *until > now) {
            pending.place = Place::Backoff(until);
            self.backoff.insert((until, uid.clone()));
            return;
        }
        let turn = (Reverse(pending.pod.priority), turn);
        pending.place = Place::Active(turn);
        self.active.insert((turn, uid.clone()));
    }

    fn leave(&mut self, uid: &PodUid) {
        match self.pods.get(uid).map(|pending| pending.place) {
            Some(Place::Active(turn)) => {
                self.active.remove(&(turn, uid.clone()));
            }
            Some(Place::Backoff(until)) => {
                self.backoff.remove(&(until, uid.clone()));
            }
            Some(Place::Unschedulable { since, .. }) => {
                self.unschedulable.remove(&(since, uid.clone()));
            }
            Some(Place::Gated | Place::InFlight) | None => {}
        }
    }

    fn in_flight(&mut self, uid: &PodUid) -> Option<&mut Pending> {
        self.pods.get_mut(uid).filter(|pending| pending.place == Place::InFlight)
    }
}

fn backoff(attempts: u32) -> Duration {
    let doublings = attempts.saturating_sub(1).min(16);
    BACKOFF_BASE.saturating_mul(1 << doublings).min(BACKOFF_CAP)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::pod;
    use serde_json::json;

    fn put(queue: &mut SchedulingQueue, name: &str, spec: serde_json::Value) {
        queue.put(Arc::new(pod(name, spec)), Instant::now());
    }

    fn pop(queue: &mut SchedulingQueue) -> Option<String> {
        queue.pop().map(|pod| pod.name.clone())
    }

    #[tokio::test(start_paused = true)]
    async fn priority_decides_then_order_of_arrival() {
        let mut queue = SchedulingQueue::default();
        for (name, priority) in [("a", 0), ("b", 0), ("c", 10)] {
            put(&mut queue, name, json!({"priority": priority}));
        }
        let order: Vec<_> = std::iter::from_fn(|| pop(&mut queue)).collect();
        assert_eq!(order, ["c", "a", "b"]);
    }

    #[tokio::test(start_paused = true)]
    async fn unschedulable_pod_returns_on_a_change_it_hopes_for_after_its_backoff() {
        let mut queue = SchedulingQueue::default();
        put(&mut queue, "a", json!({}));
        queue.pop();
        queue.unschedulable(&"a".into(), ClusterEvents::NODE_ADDED, Instant::now());
        queue.cluster_changed(ClusterEvents::POD_DELETED, Instant::now());
        assert_eq!(queue.next_tick().unwrap().duration_since(Instant::now()), UNSCHEDULABLE_LIMIT);

        queue.cluster_changed(ClusterEvents::NODE_ADDED, Instant::now());
        assert!(!queue.has_active(), "its backoff is not over");
        tokio::time::advance(BACKOFF_BASE).await;
        queue.tick(Instant::now());
        assert_eq!(pop(&mut queue), Some("a".to_owned()));

        queue.unschedulable(&"a".into(), ClusterEvents::NODE_ADDED, Instant::now());
        tokio::time::advance(BACKOFF_CAP).await;
        queue.cluster_changed(ClusterEvents::NODE_ADDED, Instant::now());
        assert!(queue.has_active(), "its backoff is over");
    }

    #[tokio::test(start_paused = true)]
    async fn unschedulable_pod_is_tried_anyway_in_the_end() {
        let mut queue = SchedulingQueue::default();
        put(&mut queue, "a", json!({}));
        queue.pop();
        queue.unschedulable(&"a".into(), ClusterEvents::NONE, Instant::now());
        tokio::time::advance(UNSCHEDULABLE_LIMIT).await;
        queue.tick(Instant::now());
        assert_eq!(pop(&mut queue), Some("a".to_owned()));
    }

    #[tokio::test(start_paused = true)]
    async fn backoff_doubles_to_its_cap() {
        let mut queue = SchedulingQueue::default();
        put(&mut queue, "a", json!({}));
        let mut waits = Vec::new();
        for _ in 0..6 {
            queue.pop().unwrap();
            queue.retry(&"a".into(), Instant::now());
            let wait = queue.next_tick().unwrap() - Instant::now();
            waits.push(wait.as_secs());
            tokio::time::advance(wait).await;
            queue.tick(Instant::now());
        }
        assert_eq!(waits, [1, 2, 4, 8, 10, 10]);
    }

    #[tokio::test(start_paused = true)]
    async fn gated_pod_waits_for_its_gates_and_a_removed_pod_is_gone() {
        let mut queue = SchedulingQueue::default();
        put(&mut queue, "a", json!({"schedulingGates": [{"name": "g"}]}));
        assert_eq!(pop(&mut queue), None);
        put(&mut queue, "a", json!({}));
        assert_eq!(pop(&mut queue), Some("a".to_owned()));
        put(&mut queue, "a", json!({"priority": 3}));
        assert_eq!(pop(&mut queue), None, "a pod in flight is not handed out again");
        queue.remove(&"a".into());
        queue.retry(&"a".into(), Instant::now());
        assert!(queue.next_tick().is_none() && !queue.contains(&"a".into()));
    }

    #[tokio::test(start_paused = true)]
    async fn changed_demands_bring_an_unschedulable_pod_back() {
        let mut queue = SchedulingQueue::default();
        put(&mut queue, "a", json!({}));
        queue.pop();
        queue.unschedulable(&"a".into(), ClusterEvents::NONE, Instant::now());
        tokio::time::advance(BACKOFF_BASE).await;
        put(&mut queue, "a", json!({}));
        assert!(!queue.has_active(), "a status update is no change of demands");
        put(&mut queue, "a", json!({"tolerations": [{"operator": "Exists"}]}));
        assert!(queue.has_active());
    }
}
