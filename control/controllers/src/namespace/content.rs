//! Deletes what a namespace holds and counts what remains.
//!
//! In: the served kinds, a namespace. Out: a [`Sweep`]. Pods go first, and nothing else before they are gone: what
//! they still need to end well (their ConfigMaps, their network policies) must outlive them.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::StreamExt;
use kube::api::{DeleteParams, ListParams};
use kube::core::DynamicObject;
use kube::{Api, Client};

use crate::error::{Error, is_not_found};
use crate::inventory::{Inventory, Kind};

/// Kinds looked at together.
const PARALLEL: usize = 8;
/// Finalizers are named for at most this many objects of a kind; the count is always of all.
const PAGE: u32 = 500;

/// What a look at a namespace came to.
#[derive(Debug, Default)]
pub(crate) struct Sweep {
    /// Objects left, by kind.
    pub(crate) remaining: BTreeMap<String, usize>,
    /// Objects left, by finalizer.
    pub(crate) finalizers: BTreeMap<String, usize>,
    /// Why the served kinds are not known, if they are not.
    pub(crate) discovery_failure: Option<String>,
    pub(crate) errors: Vec<Error>,
}

impl Sweep {
    /// Nothing could be looked at.
    pub(crate) fn blind(failure: String) -> Self {
        Self { discovery_failure: Some(failure), ..Self::default() }
    }

    /// The namespace is known to be empty.
    pub(crate) fn is_clean(&self) -> bool {
        self.remaining.is_empty() && self.errors.is_empty() && self.discovery_failure.is_none()
    }

    fn take(&mut self, kind: &Kind, result: Result<Left, Error>) {
        match result {
            Ok(left) if left.count == 0 => {}
            Ok(left) => {
                self.remaining.insert(kind.title(), left.count);
                for (finalizer, count) in left.finalizers {
                    *self.finalizers.entry(finalizer).or_default() += count;
                }
            }
            Err(error) => self.errors.push(error),
        }
    }
}

/// What is left of one kind.
#[derive(Debug, Default)]
struct Left {
    count: usize,
    finalizers: BTreeMap<String, usize>,
}

/// Deletes everything in `namespace` that can be deleted.
pub(crate) async fn sweep(client: &Client, inventory: &Inventory, namespace: &str) -> Sweep {
    let mut sweep = Sweep::default();
    for stage in stages(inventory) {
        let work = stage.into_iter().map(|kind| async move {
            let left = empty(client, &kind, namespace).await;
            (kind, left)
        });
        let mut results = futures::stream::iter(work).buffer_unordered(PARALLEL);
        while let Some((kind, left)) = results.next().await {
            sweep.take(&kind, left);
        }
        if !sweep.is_clean() {
            break;
        }
    }
    sweep
}

/// Pods, then everything else.
fn stages(inventory: &Inventory) -> [Vec<Arc<Kind>>; 2] {
    let deletable = |kind: &&Arc<Kind>| kind.namespaced && kind.can("list") && kind.can("delete");
    let (pods, others) =
        inventory.preferred.iter().filter(deletable).cloned().partition(|kind| kind.is("", "pods"));
    [pods, others]
}

async fn empty(client: &Client, kind: &Kind, namespace: &str) -> Result<Left, Error> {
    let api = kind.api(client, namespace);
    // Most kinds have nothing here.
    let found = left(&api, kind, namespace).await?;
    if found.count == 0 {
        return Ok(found);
    }
    let params = DeleteParams::background();
    if kind.can("deletecollection") {
        let deleted = api.delete_collection(&params, &ListParams::default()).await;
        deleted.map_err(|error| failed("delete", kind, namespace, error))?;
    } else {
        let objects = api.list_metadata(&ListParams::default().limit(PAGE)).await;
        for object in objects.map_err(|error| failed("list", kind, namespace, error))?.items {
            match api.delete(object.metadata.name.as_deref().unwrap_or_default(), &params).await {
                Err(error) if !is_not_found(&error) => return Err(failed("delete", kind, namespace, error)),
                _ => {}
            }
        }
    }
    left(&api, kind, namespace).await
}

async fn left(api: &Api<DynamicObject>, kind: &Kind, namespace: &str) -> Result<Left, Error> {
    let page = match api.list_metadata(&ListParams::default().limit(PAGE)).await {
        Ok(page) => page,
        // The kind went with its definition, and its objects with it.
        Err(error) if is_not_found(&error) => return Ok(Left::default()),
        Err(error) => return Err(failed("list", kind, namespace, error)),
    };
    let further = page.metadata.remaining_item_count.and_then(|count| usize::try_from(count).ok());
    let mut finalizers = BTreeMap::new();
    for finalizer in page.items.iter().flat_map(|object| object.metadata.finalizers.iter().flatten()) {
        *finalizers.entry(finalizer.clone()).or_default() += 1;
    }
    Ok(Left { count: page.items.len() + further.unwrap_or(0), finalizers })
}

fn failed(verb: &str, kind: &Kind, namespace: &str, error: kube::Error) -> Error {
    Error::api(format!("{verb} {} in namespace {namespace}", kind.title()), error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::fixtures::kind;

    #[test]
    fn pods_are_a_stage_of_their_own_and_cluster_kinds_are_left_alone() {
        let inventory = Inventory::of([
            kind("v1", "ConfigMap", "configmaps", true),
            kind("v1", "Pod", "pods", true),
            kind("v1", "Node", "nodes", false),
            kind("example.com/v1", "Pod", "pods", true),
        ]);
        let titles =
            stages(&inventory).map(|stage| stage.iter().map(|kind| kind.title()).collect::<Vec<_>>());
        assert_eq!(titles, [vec!["pods."], vec!["configmaps.", "pods.example.com"]]);
    }
}
