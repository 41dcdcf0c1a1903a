//! Deletion: at once, after a grace period, or when the last finalizer is gone.
//!
//! In: which object and the delete options. Out: the object as it stays behind, or that it is gone. The rules are
//! upstream's, in upstream's order.

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use xebec_api::wellknown::finalizers::{FOREGROUND_DELETION, ORPHAN};
use xebec_store::{Precondition, StoreError, Write};

use crate::admission::{self, Admit, Operation};
use crate::meta;
use crate::options::{DeleteOptions, Propagation};
use crate::registry::settle::{self, Held, Refused};
use crate::registry::{Cx, Served};
use crate::status::{self, ApiError};
use crate::stored::{self, Stored};
use crate::strategy;

/// Tries before giving up; each failure means that another writer succeeded.
const ATTEMPTS: usize = 32;

/// What became of the object.
#[derive(Clone, Debug)]
pub(crate) enum Deleted {
    /// It is gone; this is how it was.
    Gone(Stored),
    /// It waits for a grace period or for finalizers.
    Pending(Stored),
}

/// What is to be done, decided from the object and the options alone.
#[derive(Clone, Debug, PartialEq)]
enum Plan {
    /// Nothing: the deletion that is under way is at least as quick.
    Leave,
    /// Write the object as marked.
    Mark(Value),
    Remove,
}

/// Deletes one object.
pub(crate) async fn delete(
    cx: &Cx<'_>,
    served: &Served,
    namespace: Option<&str>,
    name: &str,
    options: &DeleteOptions,
) -> Result<Deleted, ApiError> {
    let key = bytes::Bytes::from(stored::key(&served.resource, namespace, name));
    for _ in 0..ATTEMPTS {
        let current = cx.registry.get(served, namespace, name)?;
        let object = current.decode()?;
        admit(cx, served, name, &object, options)?;
        let write = match plan(served, &object, options, Timestamp::now()) {
            Plan::Leave => return Ok(Deleted::Pending(current)),
            Plan::Mark(marked) => {
                let value = served.layout.encode(&marked)?;
                if value == current.value {
                    return Ok(Deleted::Pending(current));
                }
                if options.dry_run {
                    return Ok(Deleted::Pending(Stored { value, revision: current.revision }));
                }
                let precondition = Precondition::Unchanged(current.revision);
                Write::Put { key: key.clone(), value, precondition }
            }
            Plan::Remove if options.dry_run => return Ok(Deleted::Gone(current)),
            Plan::Remove => Write::Delete { key: key.clone(), unchanged: current.revision },
        };
        let removes = matches!(write, Write::Delete { .. });
        let reservation = if removes { strategy::of(&served.stored).release(cx, &object) } else { None };
        match settle::write(&cx.registry.store, write, Held { reservation, charge: None }).await {
            Ok(written) if removes => {
                return Ok(Deleted::Gone(Stored { value: current.value, revision: written.revision }));
            }
            Ok(written) => return Ok(Deleted::Pending(written.kv.into())),
            Err(Refused { error: StoreError::Conflict { .. }, .. }) => {}
            Err(refused) => return Err(status::from_store(&refused.error)),
        }
    }
    Err(ApiError::modified(&served.resource, name))
}

/// Whether the object may be deleted as it is now.
pub(crate) fn admit(
    cx: &Cx<'_>,
    served: &Served,
    name: &str,
    object: &Value,
    options: &DeleteOptions,
) -> Result<(), ApiError> {
    check_preconditions(served, name, object, options)?;
    strategy::of(&served.stored).check_delete(object)?;
    let (operation, subresource) = (Operation::Delete, cx.subresource());
    admission::validate(cx, &Admit { served, operation, subresource, name, old: None }, object)
}

/// Whether the object is the one that is meant.
pub(crate) fn check_preconditions(
    served: &Served,
    name: &str,
    object: &Value,
    options: &DeleteOptions,
) -> Result<(), ApiError> {
    if let Some(uid) = &options.uid
        && uid != meta::uid(object)
    {
        let why = format!(
            "the UID in the precondition ({uid}) does not match the UID in record ({}). The object might have been \
             deleted and then recreated",
            meta::uid(object)
        );
        return Err(ApiError::conflict(&served.resource, name, &why));
    }
    if let Some(version) = &options.resource_version
        && version != meta::resource_version(object)
    {
        let why = format!(
            "the ResourceVersion in the precondition ({version}) does not match the ResourceVersion in record ({}). \
             The object might have been modified",
            meta::resource_version(object)
        );
        return Err(ApiError::conflict(&served.resource, name, &why));
    }
    Ok(())
}

fn plan(served: &Served, object: &Value, options: &DeleteOptions, now: Timestamp) -> Plan {
    let strategy = strategy::of(&served.stored);
    let grace = strategy.grace_period(object, options);
    let deleting = meta::is_deleting(object);
    let mut marked = object.clone();

    if let (Some(grace), true, Some(left)) = (grace, deleting, meta::deletion_grace(object)) {
        // Graceful and under way: only a shorter period changes anything.
        if options.grace_period_seconds.is_none() || grace >= left {
            return if left == 0 && meta::finalizers(object).is_empty() { Plan::Remove } else { Plan::Leave };
        }
        let ends = meta::deletion_timestamp(object).unwrap_or(now);
        // A period beyond the end of time was cut: then its begin is not what is left of it.
        let begun = ends.checked_sub(SignedDuration::from_secs(left)).unwrap_or(Timestamp::MIN);
        let created = meta::text(object, &["metadata", "creationTimestamp"]).parse().unwrap_or(begun);
        let begun = begun.max(created);
        set_deletion(&mut marked, begun, grace);
    } else if !deleting {
        let finalizers = finalizers_for(served, object, options);
        meta::set_finalizers(&mut marked, &finalizers);
        set_deletion(&mut marked, now, grace.unwrap_or(0));
        if meta::generation(object) > 0 {
            meta::set(&mut marked, &["metadata", "generation"], Some((meta::generation(object) + 1).into()));
        }
        strategy.mark_deleting(&mut marked);
    } else {
        // Marked before: the garbage collection that was asked for may still change.
        let finalizers = finalizers_for(served, object, options);
        meta::set_finalizers(&mut marked, &finalizers);
    }

    let waits = meta::deletion_grace(&marked).unwrap_or(0) > 0;
    if waits || !meta::finalizers(&marked).is_empty() || strategy.holds_back_deletion(&marked) {
        Plan::Mark(marked)
    } else {
        Plan::Remove
    }
}

fn set_deletion(object: &mut Value, begun: Timestamp, grace: i64) {
    let at = begun.checked_add(SignedDuration::from_secs(grace)).unwrap_or(Timestamp::MAX);
    meta::set(object, &["metadata", "deletionTimestamp"], Some(meta::time(at).into()));
    meta::set(object, &["metadata", "deletionGracePeriodSeconds"], Some(grace.into()));
}

/// The finalizers with which the garbage collector is told what to do with dependents.
fn finalizers_for(served: &Served, object: &Value, options: &DeleteOptions) -> Vec<String> {
    let mut finalizers = meta::finalizers(object);
    let has = |name: &str| finalizers.iter().any(|finalizer| finalizer == name);
    let (orphan, foreground) = match options.propagation {
        Some(Propagation::Orphan) => (true, false),
        Some(Propagation::Foreground) => (false, true),
        Some(Propagation::Background) => (false, false),
        None => {
            let orphan = has(ORPHAN) || served.traits().orphans_by_default;
            (orphan, has(FOREGROUND_DELETION))
        }
    };
    finalizers.retain(|finalizer| finalizer != ORPHAN && finalizer != FOREGROUND_DELETION);
    if orphan {
        finalizers.push(ORPHAN.to_owned());
    }
    if foreground {
        finalizers.push(FOREGROUND_DELETION.to_owned());
    }
    finalizers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Kinds;
    use serde_json::json;

    #[expect(clippy::needless_pass_by_value, reason = "a call reads as one literal")]
    fn pod(node: &str, metadata: Value) -> Value {
        let mut pod = json!({
            "kind": "Pod", "apiVersion": "v1", "metadata": {"name": "a", "generation": 1},
            "spec": {"nodeName": node, "terminationGracePeriodSeconds": 30}, "status": {"phase": "Running"},
        });
        for (key, value) in metadata.as_object().expect("a map") {
            pod["metadata"][key] = value.clone();
        }
        pod
    }

    fn plan_for(plural: &str, object: &Value, options: &DeleteOptions) -> Plan {
        let kinds = Kinds::builtin();
        plan(kinds.core(plural), object, options, "2026-01-01T00:00:00Z".parse().expect("a time"))
    }

    fn grace(seconds: i64) -> DeleteOptions {
        DeleteOptions { grace_period_seconds: Some(seconds), ..DeleteOptions::default() }
    }

    #[test]
    fn a_scheduled_pod_gets_its_grace_period() {
        let Plan::Mark(marked) = plan_for("pods", &pod("n1", json!({})), &DeleteOptions::default()) else {
            panic!("marked")
        };
        assert_eq!(marked["metadata"]["deletionTimestamp"], "2026-01-01T00:00:30Z");
        assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 30);
        assert_eq!(marked["metadata"]["generation"], 2);
    }

    #[test]
    fn a_pod_without_node_or_grace_goes_at_once() {
        assert_eq!(plan_for("pods", &pod("", json!({})), &DeleteOptions::default()), Plan::Remove);
        assert_eq!(plan_for("pods", &pod("n1", json!({})), &grace(0)), Plan::Remove);
        let mut finished = pod("n1", json!({}));
        finished["status"]["phase"] = "Succeeded".into();
        assert_eq!(plan_for("pods", &finished, &DeleteOptions::default()), Plan::Remove);
    }

    #[test]
    fn a_pending_deletion_may_only_be_shortened() {
        let deleting =
            pod("n1", json!({"deletionTimestamp": "2026-01-01T00:00:30Z", "deletionGracePeriodSeconds": 30}));
        assert_eq!(plan_for("pods", &deleting, &DeleteOptions::default()), Plan::Leave);
        assert_eq!(plan_for("pods", &deleting, &grace(60)), Plan::Leave);
        let Plan::Mark(marked) = plan_for("pods", &deleting, &grace(5)) else { panic!("marked") };
        assert_eq!(marked["metadata"]["deletionTimestamp"], "2026-01-01T00:00:05Z");
        assert_eq!(marked["metadata"]["generation"], 1);
        assert_eq!(plan_for("pods", &deleting, &grace(0)), Plan::Remove);
    }

    #[test]
    fn a_grace_period_beyond_the_end_of_time_ends_there() {
        for seconds in [300_000_000_000, i64::MAX] {
            let mut endless = pod("n1", json!({"creationTimestamp": "2025-12-31T00:00:00Z"}));
            endless["spec"]["terminationGracePeriodSeconds"] = seconds.into();
            let Plan::Mark(marked) = plan_for("pods", &endless, &DeleteOptions::default()) else {
                panic!("marked")
            };
            assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], seconds);
            assert!(meta::deletion_timestamp(&marked).is_some(), "{marked}");
            let Plan::Mark(shorter) = plan_for("pods", &marked, &grace(5)) else { panic!("marked") };
            assert_eq!(shorter["metadata"]["deletionTimestamp"], "2025-12-31T00:00:05Z");
            assert_eq!(plan_for("pods", &marked, &grace(i64::MAX)), Plan::Leave);
        }
    }

    #[test]
    fn finalizers_hold_an_object_back() {
        let object = json!({"kind": "ConfigMap", "metadata": {"name": "a", "finalizers": ["example.com/x"]}});
        let Plan::Mark(marked) = plan_for("configmaps", &object, &DeleteOptions::default()) else {
            panic!("marked")
        };
        assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 0);
        let again = plan_for("configmaps", &marked, &DeleteOptions::default());
        assert_eq!(again, Plan::Mark(marked));
    }

    #[test]
    fn propagation_is_written_as_a_finalizer() {
        let object = json!({"kind": "ConfigMap", "metadata": {"name": "a"}});
        for (propagation, finalizer) in
            [(Propagation::Foreground, FOREGROUND_DELETION), (Propagation::Orphan, ORPHAN)]
        {
            let options = DeleteOptions { propagation: Some(propagation), ..DeleteOptions::default() };
            let Plan::Mark(marked) = plan_for("configmaps", &object, &options) else { panic!("marked") };
            assert_eq!(meta::finalizers(&marked), [finalizer]);
        }
        let options =
            DeleteOptions { propagation: Some(Propagation::Background), ..DeleteOptions::default() };
        assert_eq!(plan_for("configmaps", &object, &options), Plan::Remove);
    }
}
