//! Was what clients saw the story of one store, one step after the other?
//!
//! In: what each client asked, when, and what it was told; the changes a watch showed. Out: the first thing that cannot be.
//! Pure. The store itself numbers its writes, so the order that would have to be searched for is known: a history is
//! linearizable when that order agrees with the clocks of the clients and with every answer.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

/// What a key held: `None` is absent.
pub type State = Option<Version>;

/// One value of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    pub revision: u64,
    pub value: String,
}

/// What a client did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Wrote this value, new to the whole history.
    Put {
        value: String,
    },
    Delete,
    /// Read without naming a revision: the newest state is asked for.
    Get,
}

/// What it was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A put happened at this revision.
    Written(u64),
    /// A deletion happened.
    Deleted,
    Read(State),
    /// It did not happen.
    Refused,
    /// No answer: it may or may not have happened, also later.
    Unknown,
}

/// One call. Times are of one clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    pub key: String,
    pub operation: Operation,
    pub outcome: Outcome,
    pub began: Duration,
    pub ended: Duration,
}

/// One change as a watch showed it; `value` is `None` for a deletion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub revision: u64,
    pub key: String,
    pub value: Option<String>,
}

/// What is known of one revision.
struct Step<'a> {
    change: &'a Change,
    /// When the write began and ended, as far as its writer is known.
    began: Option<Duration>,
}

/// Checks a whole history. `changes` are all there were from before the first call on.
///
/// # Errors
/// What cannot be.
pub fn check(calls: &[Call], changes: &[Change]) -> Result<(), String> {
    if let Some(pair) = changes.windows(2).find(|pair| pair[1].revision <= pair[0].revision) {
        return Err(format!("a watch showed revision {} after {}", pair[1].revision, pair[0].revision));
    }
    let writers = writers(calls)?;
    let mut steps = BTreeMap::new();
    for change in changes {
        let began = match &change.value {
            Some(value) => match writers.get(value.as_str()) {
                None => return Err(format!("nobody wrote what a watch showed: {change:?}")),
                Some(call) if call.outcome == Outcome::Refused => {
                    return Err(format!("a refused write happened: {call:?}"));
                }
                Some(call) if call.key != change.key => {
                    return Err(format!("written to {}, shown under {}", call.key, change.key));
                }
                Some(call) => Some(call.began),
            },
            None => None,
        };
        steps.insert(change.revision, Step { change, began });
    }
    check_values(changes)?;
    check_writes(calls, &steps)?;
    check_deletions(calls, changes)?;
    check_order(calls)?;
    check_reads(calls, &steps)
}

/// Who wrote each value.
fn writers(calls: &[Call]) -> Result<HashMap<&str, &Call>, String> {
    let mut writers = HashMap::new();
    for call in calls {
        if let Operation::Put { value } = &call.operation
            && let Some(other) = writers.insert(value.as_str(), call)
        {
            return Err(format!("the history is of no use: two calls wrote {value}: {call:?} and {other:?}"));
        }
    }
    Ok(writers)
}

/// No write happens twice.
fn check_values(changes: &[Change]) -> Result<(), String> {
    let mut seen = HashMap::new();
    for change in changes {
        if let Some(value) = &change.value
            && let Some(before) = seen.insert(value, change.revision)
        {
            return Err(format!("{value} happened at {before} and again at {}", change.revision));
        }
    }
    Ok(())
}

/// Every acknowledged put is a change, at the revision its writer was told.
fn check_writes(calls: &[Call], steps: &BTreeMap<u64, Step<'_>>) -> Result<(), String> {
    for call in calls {
        let (Operation::Put { value }, Outcome::Written(revision)) = (&call.operation, &call.outcome) else {
            continue;
        };
        match steps.get(revision) {
            Some(step) if step.change.value.as_ref() == Some(value) && step.change.key == call.key => {}
            Some(step) => return Err(format!("{call:?} was acknowledged, {:?} is there", step.change)),
            None => return Err(format!("an acknowledged write is lost: {call:?}")),
        }
    }
    Ok(())
}

/// No more deletions were acknowledged than a watch showed: each happened, and one only for each that was told so.
fn check_deletions(calls: &[Call], changes: &[Change]) -> Result<(), String> {
    let mut left: HashMap<&str, usize> = HashMap::new();
    for change in changes.iter().filter(|change| change.value.is_none()) {
        *left.entry(&change.key).or_default() += 1;
    }
    for call in calls.iter().filter(|call| call.outcome == Outcome::Deleted) {
        match left.get_mut(call.key.as_str()) {
            Some(left) if *left > 0 => *left -= 1,
            _ => return Err(format!("an acknowledged deletion is lost: {call:?}")),
        }
    }
    Ok(())
}

/// A write that began after another was acknowledged comes after it.
fn check_order(calls: &[Call]) -> Result<(), String> {
    let written = |call: &&Call| matches!(call.outcome, Outcome::Written(_));
    let revision = |call: &Call| match call.outcome {
        Outcome::Written(revision) => revision,
        _ => 0,
    };
    let mut by_end: Vec<&Call> = calls.iter().filter(written).collect();
    let mut by_begin = by_end.clone();
    by_end.sort_by_key(|call| call.ended);
    by_begin.sort_by_key(|call| call.began);
    let mut ended = by_end.into_iter().peekable();
    let mut highest: Option<&Call> = None;
    for call in by_begin {
        while let Some(earlier) = ended.next_if(|earlier| earlier.ended < call.began) {
            if highest.is_none_or(|highest| revision(highest) < revision(earlier)) {
                highest = Some(earlier);
            }
        }
        if let Some(earlier) = highest.filter(|earlier| revision(earlier) >= revision(call)) {
            return Err(format!("revisions went back: {earlier:?} was over before {call:?} began"));
        }
    }
    Ok(())
}

/// A read shows what was newest at some moment while it was under way.
fn check_reads(calls: &[Call], steps: &BTreeMap<u64, Step<'_>>) -> Result<(), String> {
    let mut acknowledged: Vec<(Duration, u64)> = calls
        .iter()
        .filter_map(|call| match (&call.operation, &call.outcome) {
            (_, Outcome::Written(revision)) => Some((call.ended, *revision)),
            (Operation::Get, Outcome::Read(Some(version))) => Some((call.ended, version.revision)),
            _ => None,
        })
        .collect();
    acknowledged.sort_unstable();
    // What everybody knows at each moment: the highest revision told by then.
    let mut known = 0;
    for entry in &mut acknowledged {
        known = known.max(entry.1);
        entry.1 = known;
    }
    let mut of_key: HashMap<&str, Vec<&Change>> = HashMap::new();
    for step in steps.values() {
        of_key.entry(step.change.key.as_str()).or_default().push(step.change);
    }
    for call in calls {
        let Outcome::Read(state) = &call.outcome else { continue };
        let changes = of_key.get(call.key.as_str()).map_or(&[][..], Vec::as_slice);
        let told = acknowledged.partition_point(|(ended, _)| *ended < call.began);
        let floor = told.checked_sub(1).map_or(0, |index| acknowledged[index].1);
        check_read(call, state.as_ref(), floor, changes, steps)?;
    }
    Ok(())
}

fn check_read(
    call: &Call,
    state: Option<&Version>,
    floor: u64,
    changes: &[&Change],
    steps: &BTreeMap<u64, Step<'_>>,
) -> Result<(), String> {
    // The spans of revisions in which the key was in this state.
    let mut spans = Vec::new();
    if state.is_none() {
        spans.push((0, changes.first().map(|change| change.revision)));
    }
    for (index, change) in changes.iter().enumerate() {
        let fits = match (state, &change.value) {
            (None, None) => true,
            (Some(version), Some(value)) => change.revision == version.revision && *value == version.value,
            _ => false,
        };
        if fits {
            spans.push((change.revision, changes.get(index + 1).map(|next| next.revision)));
        }
    }
    if spans.is_empty() {
        return Err(format!("nothing like it was ever there: {call:?}"));
    }
    let current = |(_, end): &&(u64, Option<u64>)| end.is_none_or(|end| end > floor);
    let Some((start, _)) = spans.iter().find(current) else {
        return Err(format!("a stale read: revision {floor} was known before {call:?} began"));
    };
    match steps.get(start).and_then(|step| step.began) {
        Some(began) if began > call.ended => Err(format!("a read from the future: {call:?}")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(operation: Operation, outcome: Outcome, began: u64, ended: u64) -> Call {
        let at = Duration::from_millis;
        Call { key: "a".into(), operation, outcome, began: at(began), ended: at(ended) }
    }

    fn put(value: &str, revision: u64, began: u64, ended: u64) -> Call {
        call(Operation::Put { value: value.into() }, Outcome::Written(revision), began, ended)
    }

    fn get(found: Option<(u64, &str)>, began: u64, ended: u64) -> Call {
        let version = found.map(|(revision, value)| Version { revision, value: value.into() });
        call(Operation::Get, Outcome::Read(version), began, ended)
    }

    fn shown(changes: &[(u64, Option<&str>)]) -> Vec<Change> {
        let change = |(revision, value): &(u64, Option<&str>)| Change {
            revision: *revision,
            key: "a".into(),
            value: value.map(str::to_owned),
        };
        changes.iter().map(change).collect()
    }

    fn refused(calls: &[Call], changes: &[(u64, Option<&str>)], complaint: &str) {
        let said = check(calls, &shown(changes)).unwrap_err();
        assert!(said.starts_with(complaint), "{said}");
    }

    #[test]
    fn a_true_story_is_believed() {
        let lost = call(Operation::Put { value: "3".into() }, Outcome::Unknown, 30, 35);
        let late = call(Operation::Put { value: "4".into() }, Outcome::Unknown, 30, 36);
        let no = call(Operation::Put { value: "5".into() }, Outcome::Refused, 41, 42);
        let gone = call(Operation::Delete, Outcome::Deleted, 60, 70);
        let calls = [
            get(None, 0, 1),
            put("1", 2, 2, 10),
            // Under way with the write: either state is right.
            get(None, 3, 9),
            get(Some((2, "1")), 3, 9),
            put("2", 3, 11, 12),
            lost,
            late,
            get(Some((7, "4")), 40, 50),
            no,
            gone,
            get(None, 71, 72),
        ];
        let changes = [(2, Some("1")), (3, Some("2")), (7, Some("4")), (9, None)];
        assert_eq!(check(&calls, &shown(&changes)), Ok(()));
    }

    #[test]
    fn what_cannot_be_is_found() {
        let two = [put("1", 2, 0, 1), put("2", 3, 2, 3)];
        refused(&two, &[(2, Some("1"))], "an acknowledged write is lost");
        refused(&two, &[(3, Some("2")), (2, Some("1"))], "a watch showed revision 2 after 3");
        refused(&two, &[(2, Some("1")), (3, Some("2")), (4, Some("1"))], "1 happened at 2 and again at 4");
        refused(&two, &[(2, Some("1")), (3, Some("2")), (4, Some("9"))], "nobody wrote");
        let both = [(2, Some("1")), (3, Some("2"))];
        let with = |call: Call| [two.to_vec(), vec![call]].concat();
        refused(&with(get(Some((2, "1")), 4, 5)), &both, "a stale read");
        refused(&with(get(None, 4, 5)), &both, "a stale read");
        refused(&with(get(Some((9, "2")), 4, 5)), &both, "nothing like it");
        let early = [get(Some((2, "1")), 0, 1), put("1", 2, 2, 3)];
        refused(&early, &[(2, Some("1"))], "a read from the future");
        refused(
            &[put("1", 3, 0, 1), put("2", 2, 2, 3)],
            &[(2, Some("2")), (3, Some("1"))],
            "revisions went back",
        );
        let gone = call(Operation::Delete, Outcome::Deleted, 4, 5);
        refused(&with(gone), &both, "an acknowledged deletion is lost");
        let refusal = call(Operation::Put { value: "3".into() }, Outcome::Refused, 4, 5);
        refused(
            &with(refusal),
            &[(2, Some("1")), (3, Some("2")), (4, Some("3"))],
            "a refused write happened",
        );
    }
}
