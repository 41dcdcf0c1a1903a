//! The Priority admission: the number behind a priority class.
//!
//! In: a new pod, the priority classes. Out: the pod with priority and preemption policy, or upstream's refusal.

use serde_json::Value;

use crate::meta;
use crate::registry::{Cx, Served};
use crate::status::ApiError;
use crate::stored::{self, Stored};

const DEFAULT_POLICY: &str = "PreemptLowerPriority";

pub(super) fn admit(cx: &Cx<'_>, pod: &mut Value) -> Result<(), ApiError> {
    let refuse = |why: String| ApiError::forbidden("", "pods", meta::name(pod), why);
    let class = match meta::text(pod, &["spec", "priorityClassName"]) {
        "" => default_class(cx),
        name => {
            let found = classes(cx).and_then(|served| cx.registry.find(served, None, name));
            let class = found.and_then(|stored| stored.decode().ok());
            Some(class.ok_or_else(|| refuse(format!("no PriorityClass with name {name} was found")))?)
        }
    };
    let value =
        class.as_ref().and_then(|class| meta::at(class, &["value"])).and_then(Value::as_i64).unwrap_or(0);
    let policy =
        class.as_ref().map(|class| meta::text(class, &["preemptionPolicy"])).filter(|text| !text.is_empty());
    let policy = policy.unwrap_or(DEFAULT_POLICY).to_owned();
    let claimed = meta::at(pod, &["spec", "priority"]).and_then(Value::as_i64);
    if claimed.is_some_and(|claimed| claimed != value) {
        return Err(refuse(format!(
            "the integer value of priority ({}) must not be provided in pod spec; priority admission controller \
             computed {value} from the given PriorityClass name",
            claimed.unwrap_or_default()
        )));
    }
    let claimed = meta::text(pod, &["spec", "preemptionPolicy"]);
    if !claimed.is_empty() && claimed != policy {
        return Err(refuse(format!(
            "the string value of PreemptionPolicy ({claimed}) must not be provided in pod spec; priority admission \
             controller computed {policy} from the given PriorityClass name"
        )));
    }
    if let Some(class) = &class {
        meta::set(pod, &["spec", "priorityClassName"], Some(meta::name(class).into()));
    }
    meta::set(pod, &["spec", "priority"], Some(value.into()));
    meta::set(pod, &["spec", "preemptionPolicy"], Some(policy.into()));
    Ok(())
}

fn classes<'a>(cx: &'a Cx<'_>) -> Option<&'a Served> {
    cx.registry.kinds.get("scheduling.k8s.io", "v1", "priorityclasses")
}

/// Of several global defaults the lowest counts.
fn default_class(cx: &Cx<'_>) -> Option<Value> {
    let prefix = stored::prefix(&classes(cx)?.resource, None);
    let page = cx.registry.store.list(prefix.as_bytes(), None, 0, None).ok()?;
    let classes = page.items.iter().filter_map(|kv| Stored::from(kv).decode().ok());
    classes
        .filter(|class| meta::at(class, &["globalDefault"]).and_then(Value::as_bool) == Some(true))
        .min_by_key(|class| meta::at(class, &["value"]).and_then(Value::as_i64))
}
