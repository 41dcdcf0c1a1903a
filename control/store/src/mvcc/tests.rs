//! What the map answers, now and in the past, before and after compaction and recovery.

use super::*;

/// Applies writes as the committer would and keeps the records an engine would hold.
struct Driver {
    mvcc: Mvcc,
    records: Vec<Record>,
}

impl Driver {
    fn new() -> Self {
        Self { mvcc: Mvcc::default(), records: Vec::new() }
    }

    fn put(&mut self, key: &'static str, value: &'static str) -> Revision {
        let revision = self.mvcc.revision().next();
        let create_revision = self.mvcc.get(key.as_bytes()).map_or(revision, |kv| kv.create_revision);
        self.write(Record { revision, create_revision, key: key.into(), value: Some(value.into()) })
    }

    fn delete(&mut self, key: &'static str) -> Revision {
        let revision = self.mvcc.revision().next();
        let create_revision = self.mvcc.get(key.as_bytes()).unwrap().create_revision;
        self.write(Record { revision, create_revision, key: key.into(), value: None })
    }

    fn write(&mut self, record: Record) -> Revision {
        let event = event_of(&record, self.mvcc.get(&record.key)).unwrap();
        self.mvcc.apply(Arc::new(event));
        self.records.push(record);
        self.mvcc.revision()
    }

    fn compact(&mut self, to: Revision) {
        let plan = self.mvcc.plan_compaction(to, usize::MAX);
        assert_eq!(plan.to, to);
        self.records.retain(|record| !plan.obsolete.contains(&record.revision));
        self.mvcc.compact(to);
    }

    /// The map as a restart would build it from the records.
    fn restarted(&self) -> Mvcc {
        let bounds = Bounds { compacted: self.mvcc.compacted(), revision: self.mvcc.revision() };
        let mut mvcc = Mvcc::starting_at(bounds);
        for record in &self.records {
            assert_eq!(mvcc.restore(record.clone()).unwrap(), []);
        }
        mvcc
    }
}

fn values(page: &Page) -> Vec<&str> {
    page.items.iter().map(|kv| std::str::from_utf8(&kv.value).unwrap()).collect()
}

#[test]
fn past_reads_see_what_was_there() {
    let mut driver = Driver::new();
    let first = driver.put("a", "1");
    let second = driver.put("a", "2");
    let gone = driver.delete("a");
    let again = driver.put("a", "3");

    let value = |at| driver.mvcc.get_at(b"a", at).unwrap().map(|kv| kv.value);
    assert_eq!(value(Revision(1)), None);
    assert_eq!(value(first), Some("1".into()));
    assert_eq!(value(second), Some("2".into()));
    assert_eq!(value(gone), None);
    assert_eq!(value(again), Some("3".into()));
    assert_eq!(driver.mvcc.get(b"a").unwrap().create_revision, again);
    assert_eq!(driver.mvcc.get_at(b"a", again.next()), Err(StoreError::Future { current: again }));
}

#[test]
fn pages_at_a_revision_do_not_see_later_writes() {
    let mut driver = Driver::new();
    for key in ["p/a", "p/b", "p/c", "q/a"] {
        driver.put(key, key);
    }
    let page = driver.mvcc.page(b"p/", None, 2, None).unwrap();
    assert_eq!((values(&page), page.more), (vec!["p/a", "p/b"], true));

    driver.delete("p/c");
    driver.put("p/bb", "p/bb");
    let rest = driver.mvcc.page(b"p/", Some(b"p/b"), 2, Some(page.revision)).unwrap();
    assert_eq!((values(&rest), rest.more), (vec!["p/c"], false));
    let all = driver.mvcc.page(b"p/", None, 0, None).unwrap();
    assert_eq!(values(&all), ["p/a", "p/b", "p/bb"]);
    assert_eq!(driver.mvcc.count(b"p/", Some(b"p/b"), Some(page.revision)), Ok(1));
    assert_eq!(driver.mvcc.count(b"p/", None, None), Ok(3));
    let from_before = driver.mvcc.page(b"q/", Some(b"p/a"), 0, None).unwrap();
    assert_eq!(values(&from_before), ["q/a"]);
}

#[test]
fn history_is_cut_by_its_bytes() {
    const LARGE: &str = "0123456789";
    let mut driver = Driver::new();
    let mut last = driver.put("a", "1");
    for _ in 0..10 {
        last = driver.put("a", LARGE);
        driver.put("b", "1");
    }
    assert_eq!(driver.mvcc.history_bytes(), 9 * 10 + 1 + 9);
    let to = driver.mvcc.revision_that_leaves(30);
    driver.mvcc.compact(to);
    assert!((20..=30).contains(&driver.mvcc.history_bytes()), "{}", driver.mvcc.history_bytes());
    assert_eq!(driver.mvcc.get_at(b"a", last).unwrap().map(|kv| kv.value), Some(LARGE.into()));
    assert_eq!(driver.mvcc.revision_that_leaves(30), to, "nothing more to cut");
}

#[test]
fn compaction_keeps_what_is_live_and_drops_the_rest() {
    let mut driver = Driver::new();
    driver.put("old", "old");
    driver.put("gone", "1");
    driver.put("changed", "1");
    driver.put("changed", "2");
    let to = driver.delete("gone");
    let later = driver.put("changed", "3");
    driver.compact(to);

    assert_eq!(driver.mvcc.key_count(), 2);
    assert_eq!(driver.mvcc.get(b"old").unwrap().value, "old");
    assert_eq!(driver.mvcc.get_at(b"changed", to).unwrap().unwrap().value, "2");
    assert_eq!(driver.mvcc.get_at(b"old", Revision(to.0 - 1)), Err(StoreError::Compacted { oldest: to }));
    assert_eq!(driver.mvcc.events_after(to).map(|event| event.revision()).collect::<Vec<_>>(), [later]);
    assert_eq!(driver.records.len(), 3, "old, changed=2, changed=3");
}

#[test]
fn compaction_of_everything_keeps_the_revision() {
    let mut driver = Driver::new();
    driver.put("a", "1");
    let last = driver.delete("a");
    driver.compact(last);
    assert!(driver.records.is_empty());
    assert_eq!((driver.mvcc.key_count(), driver.mvcc.history_bytes()), (0, 0));
    assert_eq!(driver.restarted().revision(), last);
    assert_eq!(driver.put("a", "2"), last.next());
    assert_eq!(driver.restarted().get(b"a"), driver.mvcc.get(b"a"));
}

#[test]
fn restart_brings_back_history_and_events() {
    let mut driver = Driver::new();
    driver.put("a", "1");
    let to = driver.put("b", "1");
    driver.compact(to);
    driver.put("a", "2");
    driver.delete("b");
    let end = driver.put("b", "2");

    let restarted = driver.restarted();
    assert_eq!(restarted.revision(), end);
    for at in to.0..=end.0 {
        for key in [b"a", b"b"] {
            assert_eq!(restarted.get_at(key, Revision(at)), driver.mvcc.get_at(key, Revision(at)));
        }
    }
    let events = |mvcc: &Mvcc| mvcc.events_after(to).cloned().collect::<Vec<_>>();
    assert_eq!(events(&restarted), events(&driver.mvcc));
}

#[test]
fn restart_finds_what_an_interrupted_compaction_left() {
    let mut driver = Driver::new();
    driver.put("a", "1");
    driver.put("a", "2");
    let to = driver.delete("a");
    let mut mvcc = Mvcc::starting_at(Bounds { compacted: to, revision: to });
    let left: Vec<_> =
        driver.records.iter().flat_map(|record| mvcc.restore(record.clone()).unwrap()).map(|r| r.0).collect();
    assert_eq!(left, [2, 3, 4]);
    assert_eq!(mvcc.get(b"a"), None);
}

#[test]
fn restart_refuses_a_gap() {
    let mut driver = Driver::new();
    driver.put("a", "1");
    driver.put("b", "1");
    driver.put("c", "1");
    driver.records.remove(1);
    let mut mvcc = Mvcc::starting_at(Bounds { compacted: Revision(0), revision: driver.mvcc.revision() });
    mvcc.restore(driver.records[0].clone()).unwrap();
    assert!(mvcc.restore(driver.records[1].clone()).is_err());
}
