//! One task at a time per pod.
//!
//! In: uids. Out: guards; a second task for the same uid waits until the first one's guard is dropped.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OwnedMutexGuard;

/// Locks by uid; a lock exists only while somebody holds or awaits it.
#[derive(Default)]
pub(crate) struct Turns {
    locks: Arc<Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>>,
}

/// The right to change one pod.
pub(crate) struct Turn {
    uid: String,
    locks: Arc<Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>>,
    guard: Option<OwnedMutexGuard<()>>,
}

impl Turns {
    pub(crate) async fn take(&self, uid: &str) -> Turn {
        let lock = {
            let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(locks.entry(uid.to_owned()).or_default())
        };
        let mut turn = Turn { uid: uid.to_owned(), locks: Arc::clone(&self.locks), guard: None };
        turn.guard = Some(lock.lock_owned().await);
        turn
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.guard = None;
        let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        // One reference is the table's own: nobody else holds or awaits it, and nobody can without this table lock.
        if locks.get(&self.uid).is_some_and(|lock| Arc::strong_count(lock) == 1) {
            locks.remove(&self.uid);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn second_task_waits_and_the_table_empties() {
        let turns = Turns::default();
        let first = turns.take("a").await;
        let other = turns.take("b").await;
        let mut second = Box::pin(turns.take("a"));
        assert!(futures::poll!(&mut second).is_pending());
        drop(first);
        drop(second.await);
        drop(other);
        assert!(turns.locks.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn abandoned_wait_leaves_nothing() {
        let turns = Turns::default();
        let first = turns.take("a").await;
        {
            let mut second = Box::pin(turns.take("a"));
            assert!(futures::poll!(&mut second).is_pending());
        }
        drop(first);
        assert!(turns.locks.lock().unwrap().is_empty());
    }
}
