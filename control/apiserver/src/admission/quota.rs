//! ResourceQuotas: how much a namespace may hold.
//!
//! In: writes, the quotas of their namespace, what is stored there. Out: 403 for what would go beyond; a guard that
//! keeps other writes of the namespace from being counted until this one is stored. Usage is counted from the objects
//! themselves each time, so it cannot drift; `status.used` only tells it.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;
use tokio::sync::OwnedMutexGuard;
use xebec_api::quantity::Quantity;
use xebec_store::Store;

use super::{Admit, Operation};
use crate::follow::Follow;
use crate::meta;
use crate::registry::{Cx, Registry};
use crate::status::ApiError;
use crate::stored::{self, Stored};

mod scope;
mod status;
mod usage;

use usage::{PodUsage, Usage};

/// Holds back other counted writes of the namespace.
pub(crate) type Guard = OwnedMutexGuard<()>;

/// What counting needs to keep.
pub(crate) struct Quotas {
    pods: Follow<PodUsage>,
    /// One counted write at a time in each namespace.
    turns: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

// === impl Quotas ===

impl Quotas {
    pub(crate) fn new() -> Self {
        Self { pods: Follow::new(usage::PODS), turns: Mutex::default() }
    }

    fn turn(&self, namespace: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        turns.entry(namespace.to_owned()).or_default().clone()
    }
}

/// Counts a write that is about to be stored. The guard is kept until it is.
pub(crate) async fn charge(
    cx: &Cx<'_>,
    admit: &Admit<'_>,
    object: &Value,
) -> Result<Option<Guard>, ApiError> {
    let namespace = meta::namespace(object);
    if namespace.is_empty() || admit.operation == Operation::Delete || !admit.subresource.is_empty() {
        return Ok(None);
    }
    let quotas = of_namespace(cx.registry, namespace);
    if quotas.is_empty() || admit.target() == ("", "resourcequotas", "") {
        return Ok(None);
    }
    let resource = &admit.served.resource;
    let mut wanted = usage::of_object(resource, object);
    if let Some(old) = admit.old {
        for (name, amount) in usage::of_object(resource, old) {
            *wanted.entry(name).or_default() -= amount;
        }
    }
    wanted.retain(|_, amount| !amount.is_zero() && !amount.is_negative());
    if wanted.is_empty() && resource.plural != "pods" {
        return Ok(None);
    }
    let guard = cx.registry.quotas.turn(namespace).lock_owned().await;
    // Read again: what was written while we waited counts.
    for quota in of_namespace(cx.registry, namespace) {
        check(cx.registry, admit, object, &quota, &wanted).map_err(|why| admit.refuse(why))?;
    }
    Ok(Some(guard))
}

/// Why one quota does not allow it.
fn check(
    registry: &Registry,
    admit: &Admit<'_>,
    object: &Value,
    quota: &Value,
    wanted: &Usage,
) -> Result<(), String> {
    let scopes = scope::of(quota);
    let is_pod = admit.target().1 == "pods";
    if !scopes.is_empty() && (!is_pod || !scope::all_match(&scopes, &scope::Facts::of(object))) {
        return Ok(());
    }
    let hard = amounts(&quota["spec"]["hard"]);
    let name = meta::name(quota);
    if is_pod && admit.operation == Operation::Create {
        let missing = usage::missing(object, &hard);
        if !missing.is_empty() {
            return Err(format!("failed quota: {name}: must specify {missing}"));
        }
    }
    let used = used(registry, quota);
    let mut beyond: Vec<&String> = hard
        .iter()
        .filter(|(resource, limit)| {
            wanted
                .get(*resource)
                .is_some_and(|more| used.get(*resource).copied().unwrap_or_default() + *more > **limit)
        })
        .map(|(resource, _)| resource)
        .collect();
    if beyond.is_empty() {
        return Ok(());
    }
    beyond.sort_unstable();
    let told = |amounts: &Usage| {
        let pairs: Vec<String> = beyond
            .iter()
            .map(|resource| format!("{resource}={}", amounts.get(*resource).copied().unwrap_or_default()))
            .collect();
        pairs.join(",")
    };
    Err(format!(
        "exceeded quota: {name}, requested: {}, used: {}, limited: {}",
        told(wanted),
        told(&used),
        told(&hard)
    ))
}

/// What is used of each thing a quota limits.
fn used(registry: &Registry, quota: &Value) -> Usage {
    let scopes = scope::of(quota);
    let namespace = meta::namespace(quota);
    let hard = amounts(&quota["spec"]["hard"]);
    let pods = registry.quotas.pods.read(&registry.store).total(namespace, &scopes);
    let mut used = Usage::new();
    for resource in hard.keys() {
        let amount = match pods.get(resource) {
            Some(amount) => *amount,
            None if usage::is_of_pods(resource) || !scopes.is_empty() => Quantity::ZERO,
            None => usage::counted(registry, namespace, resource),
        };
        used.insert(resource.clone(), amount);
    }
    used
}

fn of_namespace(registry: &Registry, namespace: &str) -> Vec<Value> {
    let served = registry.kinds.core("resourcequotas");
    objects(&registry.store, &stored::prefix(&served.resource, Some(namespace)))
}

fn objects(store: &Store, prefix: &str) -> Vec<Value> {
    let items = store.list(prefix.as_bytes(), None, 0, None).map(|page| page.items).unwrap_or_default();
    items.iter().filter_map(|kv| Stored::from(kv).decode().ok()).collect()
}

/// Amounts by name.
fn amounts(list: &Value) -> BTreeMap<String, Quantity> {
    let entries = list.as_object().into_iter().flatten();
    entries.filter_map(|(name, text)| Some((name.clone(), Quantity::parse(text.as_str()?).ok()?))).collect()
}
