//! `eviction`: a deletion that asks the pod's disruption budgets first.
//!
//! In: an Eviction. Out: success, or 429 while a budget holds the pod.

use http::{Request, Response, StatusCode};
use serde_json::{Value, json};
use xebec_api::labels::Selector;
use xebec_api::wellknown::conditions::{DISRUPTION_TARGET, POD_READY, TRUE};

use crate::body::Body;
use crate::dispatch::{self, Call, json_response};
use crate::kinds::{Gvk, Verb};
use crate::meta;
use crate::options::{DeleteOptions, FieldValidation, WriteOptions};
use crate::registry::update::{self, Door, Edit};
use crate::registry::{Served, delete, input};
use crate::status::{self, ApiError};
use crate::stored::{self, Stored};

/// Evictions granted and not yet seen to happen; more are a sign that nobody counts them.
const MOST_GRANTED: usize = 2000;

pub(super) async fn create(call: &Call<'_>, request: Request<Body>) -> Result<Response<Body>, ApiError> {
    let gvk = Gvk::new("policy", "v1", "Eviction");
    let body = dispatch::read(request).await?;
    let eviction = input::check(call.cx, &gvk, body, FieldValidation::Warn)?;
    let name = meta::name(&eviction);
    if !name.is_empty() && name != call.info.name {
        return Err(ApiError::bad_request("name in URL does not match name in Eviction object"));
    }
    let options = DeleteOptions::parse(call.query, eviction.get("deleteOptions"))?;
    let pod = call.cx.registry.get(call.served, call.namespace, &call.info.name)?.decode()?;
    // Before a budget is spent: nothing is, for who may not or means another pod.
    delete::admit(call.cx, call.served, &call.info.name, &pod, &options)?;
    let judged = if may_be_disrupted(&pod) {
        spend_budget(call, &pod, options.dry_run).await?
    } else if meta::text(&pod, &["status", "phase"]) == "Pending" {
        Judged::AsItIs
    } else {
        Judged::ForGood
    };
    let evicted = evict(call, &pod, &options, judged).await;
    evicted.map_err(|error| match error.code() {
        // The pod that was judged is no more, or no more the same: not the client's mistake.
        StatusCode::CONFLICT if options.resource_version.is_none() && options.uid.is_none() => {
            ApiError::disruption_budget(HELD, "The pod changed while it was being evicted.", 0)
        }
        _ => error,
    })?;
    Ok(json_response(StatusCode::CREATED, &status::success(StatusCode::CREATED)))
}

const HELD: &str = "Cannot evict pod as it would violate the pod's disruption budget.";

/// For how long it is true that the pod may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Judged {
    /// As long as it is the same pod: a budget counted it, or none ever will.
    ForGood,
    /// As long as nothing in it changes: it is not counted because it serves nobody yet.
    AsItIs,
}

/// Finished, unscheduled and deleted pods serve nobody: no budget counts them.
fn may_be_disrupted(pod: &Value) -> bool {
    let phase = meta::text(pod, &["status", "phase"]);
    !meta::is_deleting(pod) && !matches!(phase, "Succeeded" | "Failed" | "Pending")
}

/// Marks and deletes the pod that was judged, and no other.
async fn evict(
    call: &Call<'_>,
    pod: &Value,
    options: &DeleteOptions,
    judged: Judged,
) -> Result<(), ApiError> {
    let mut bound = options.clone();
    bound.uid.get_or_insert_with(|| meta::uid(pod).to_owned());
    if judged == Judged::AsItIs {
        bound.resource_version.get_or_insert_with(|| meta::resource_version(pod).to_owned());
    }
    if !meta::is_deleting(pod) {
        let marked = mark(call, pod, &bound).await?;
        if bound.resource_version.is_some() {
            bound.resource_version = Some(marked.revision.to_string());
        }
    }
    delete::delete(call.cx, call.served, call.namespace, &call.info.name, &bound).await.map(drop)
}

/// Says in the pod's status that it does not end of itself.
async fn mark(call: &Call<'_>, pod: &Value, bound: &DeleteOptions) -> Result<Stored, ApiError> {
    let options = WriteOptions { dry_run: bound.dry_run, ..WriteOptions::default() };
    let edit = Edit {
        served: call.served,
        namespace: call.namespace,
        name: meta::name(pod),
        door: Door::Status,
        verb: Verb::Patch,
        options: &options,
        records: false,
    };
    let now = meta::time(jiff::Timestamp::now());
    let updated = update::update(call.cx, edit, |mut pod| {
        delete::check_preconditions(call.served, edit.name, &pod, bound)?;
        let others = meta::items(&pod, &["status", "conditions"]);
        let mut conditions: Vec<Value> =
            others.filter(|known| meta::text(known, &["type"]) != DISRUPTION_TARGET).cloned().collect();
        conditions.push(json!({
            "type": DISRUPTION_TARGET, "status": TRUE, "reason": "EvictionByEvictionAPI",
            "message": "Eviction API: evicting", "lastTransitionTime": now,
        }));
        meta::set(&mut pod, &["status", "conditions"], Some(conditions.into()));
        Ok(pod)
    })
    .await?;
    Ok(updated.stored)
}

/// Takes one allowed disruption from the budget that selects the pod.
async fn spend_budget(call: &Call<'_>, pod: &Value, dry_run: bool) -> Result<Judged, ApiError> {
    let Some(served) = call.cx.registry.kinds.get("policy", "v1", "poddisruptionbudgets") else {
        return Ok(Judged::ForGood);
    };
    let budgets = budgets_of(call, served, pod)?;
    let budget = match budgets.as_slice() {
        [] => return Ok(Judged::ForGood),
        [budget] => budget,
        _ => {
            let why = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
            return Err(ApiError::internal(why));
        }
    };
    if !is_ready(pod) && spares_unready(budget) {
        return Ok(Judged::AsItIs);
    }
    let options = WriteOptions { dry_run, ..WriteOptions::default() };
    let edit = Edit {
        served,
        namespace: call.namespace,
        name: meta::name(budget),
        door: Door::Own,
        verb: Verb::Patch,
        options: &options,
        records: false,
    };
    update::update(call.cx, edit, |mut budget| {
        spend(&mut budget, meta::name(pod))?;
        Ok(budget)
    })
    .await?;
    Ok(Judged::ForGood)
}

fn is_ready(pod: &Value) -> bool {
    meta::items(pod, &["status", "conditions"])
        .any(|known| meta::text(known, &["type"]) == POD_READY && meta::text(known, &["status"]) == TRUE)
}

/// A pod that serves nobody may go without being counted: always, or while enough others do serve.
fn spares_unready(budget: &Value) -> bool {
    let count = |field: &str| meta::at(budget, &["status", field]).and_then(Value::as_i64).unwrap_or(0);
    let (healthy, desired) = (count("currentHealthy"), count("desiredHealthy"));
    meta::text(budget, &["spec", "unhealthyPodEvictionPolicy"]) == "AlwaysAllow"
        || (desired > 0 && healthy >= desired)
}

fn budgets_of(call: &Call<'_>, served: &Served, pod: &Value) -> Result<Vec<Value>, ApiError> {
    let prefix = stored::prefix(&served.resource, call.namespace);
    let page = call.cx.registry.store.list(prefix.as_bytes(), None, 0, None);
    let page = page.map_err(|error| status::from_store(&error))?;
    let empty = serde_json::Map::new();
    let labels = meta::at(pod, &["metadata", "labels"]).and_then(Value::as_object).unwrap_or(&empty);
    let selects = |budget: &Value| {
        Selector::from_json(meta::at(budget, &["spec", "selector"])).is_ok_and(|s| s.matches(labels))
    };
    let budgets = page.items.iter().filter_map(|kv| Stored::from(kv).decode().ok());
    Ok(budgets.filter(selects).collect())
}

fn spend(budget: &mut Value, pod: &str) -> Result<(), ApiError> {
    let name = meta::name(budget);
    let count = |path: &[&str]| meta::at(budget, path).and_then(Value::as_i64).unwrap_or(0);
    if count(&["status", "observedGeneration"]) < meta::generation(budget) {
        let what = format!("The disruption budget {name} is still being processed by the server.");
        return Err(ApiError::disruption_budget(HELD, &what, 10));
    }
    let allowed = count(&["status", "disruptionsAllowed"]);
    if allowed <= 0 {
        let what = format!(
            "The disruption budget {name} needs {} healthy pods and has {} currently",
            count(&["status", "desiredHealthy"]),
            count(&["status", "currentHealthy"])
        );
        return Err(ApiError::disruption_budget(HELD, &what, 0));
    }
    let granted = meta::at(budget, &["status", "disruptedPods"]).and_then(Value::as_object);
    if granted.is_some_and(|granted| granted.len() > MOST_GRANTED) {
        let why = "DisruptedPods map too big - too many evictions not confirmed by PDB controller";
        return Err(ApiError::forbidden("policy", "poddisruptionbudgets", name, why));
    }
    meta::set(budget, &["status", "disruptionsAllowed"], Some((allowed - 1).into()));
    let now = meta::time(jiff::Timestamp::now());
    meta::set(budget, &["status", "disruptedPods", pod], Some(now.into()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_spent_and_then_holds() {
        let mut budget = json!({
            "metadata": {"name": "b", "generation": 1},
            "status": {"observedGeneration": 1, "disruptionsAllowed": 1, "desiredHealthy": 1, "currentHealthy": 2},
        });
        spend(&mut budget, "p").expect("one is allowed");
        assert_eq!(budget["status"]["disruptionsAllowed"], 0);
        assert_eq!(spend(&mut budget, "q").expect_err("held").code(), 429);
        budget["metadata"]["generation"] = 2.into();
        assert_eq!(spend(&mut budget, "q").expect_err("unknown yet").code(), 429);
    }

    #[test]
    fn pod_that_is_not_ready_is_spared_the_count_while_the_others_are_well() {
        let budget = |policy: &str, healthy: i64| {
            json!({
                "spec": {"unhealthyPodEvictionPolicy": policy},
                "status": {"currentHealthy": healthy, "desiredHealthy": 2},
            })
        };
        assert!(
            spares_unready(&budget("IfHealthyBudget", 2)) && !spares_unready(&budget("IfHealthyBudget", 1))
        );
        assert!(spares_unready(&budget("AlwaysAllow", 0)));
        assert!(!spares_unready(&json!({"status": {"currentHealthy": 0, "desiredHealthy": 0}})));
        assert!(is_ready(&json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}})));
    }
}
