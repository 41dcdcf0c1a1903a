//! Deletes objects whose owners are gone, and lets owners go that wait for their dependents.
//!
//! In: metadata of every object. Out: deletions; finalizers and owner references taken away. Whatever the graph
//! suspects is checked against the API itself before anything is written.
//!
//! ```text
//! background: owner gone ──► dependents deleted
//! foreground: owner waits ──► dependents deleted ──► those that block are gone ──► finalizer off, owner gone
//! orphan:     owner waits ──► its reference taken off the dependents ──► finalizer off, owner gone
//! ```

mod graph;
#[cfg(test)]
mod tests;
mod verdict;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Resource;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use serde_json::json;
use uuid::Uuid;

use crate::cache::Change;
use crate::context::{Context, Controller, ControllerQueue, Informers, Outcome};
use crate::error::{Error, is_not_found};
use crate::garbage_collector::graph::{Graph, Node, Waits, parse, uid_of};
use crate::garbage_collector::verdict::{Dependent, Owner, Verdict, judge, owner_state};
use crate::informer::Informer;
use crate::inventory::{Inventory, Kind};
use crate::key::{ControllerName, ObjectKey};
use crate::metadata_watch::{Observer, Sighting};

/// How soon to look again at what an owner waits for; normally its dependents' watch comes first.
const RECHECK: Duration = Duration::from_secs(30);
/// How soon to look again for an owner's kind that is not served.
const UNKNOWN_KIND: Duration = Duration::from_secs(30);

/// The controller. Its keys are UIDs.
pub(crate) struct GarbageCollector {
    context: Context,
    shared: Arc<Shared>,
}

struct Shared {
    graph: Mutex<Graph>,
    inventory: Mutex<Arc<Inventory>>,
    queue: ControllerQueue,
    /// Every kind has been listed: an owner nobody saw is suspect.
    synced: AtomicBool,
}

impl GarbageCollector {
    /// The observer belongs on the metadata watches.
    pub(crate) fn new(context: &Context, informers: &mut Informers) -> (Self, Observer) {
        let shared = Arc::new(Shared {
            graph: Mutex::default(),
            inventory: Mutex::default(),
            queue: context.queue_of(ControllerName::GarbageCollector),
            synced: AtomicBool::new(false),
        });
        bridge(&shared, &mut informers.endpoints, true);
        bridge(&shared, &mut informers.namespaces, false);
        bridge(&shared, &mut informers.nodes, false);
        bridge(&shared, &mut informers.pods, true);
        bridge(&shared, &mut informers.services, true);
        bridge(&shared, &mut informers.controller_revisions, true);
        bridge(&shared, &mut informers.daemon_sets, true);
        bridge(&shared, &mut informers.deployments, true);
        bridge(&shared, &mut informers.replica_sets, true);
        bridge(&shared, &mut informers.stateful_sets, true);
        bridge(&shared, &mut informers.slices, true);
        let observer: Observer = Box::new({
            let shared = shared.clone();
            move |sighting| shared.observe(sighting)
        });
        (Self { context: context.clone(), shared }, observer)
    }

    async fn collect(&self, uid: Uuid) -> Result<Outcome, Error> {
        if !self.shared.synced.load(Ordering::Acquire) {
            // Asked for again, with everything else, when every kind is known.
            return Ok(Outcome::Done);
        }
        let Some(node) = self.shared.graph().node(&uid).cloned() else {
            return Ok(Outcome::Done);
        };
        let Some(meta) = self.live(&node.kind, &node.namespace, &node.name).await? else {
            return Ok(Outcome::Done);
        };
        if uid_of(&meta) != Some(uid) {
            return Ok(Outcome::Done);
        }
        match Waits::of(&meta) {
            Some(Waits::Orphan) => self.orphan(uid, &node, &meta).await,
            Some(Waits::Foreground) => self.finish_foreground(uid, &node, &meta).await,
            None => self.settle(uid, &node, &meta).await,
        }
    }

    /// Takes the owner off its dependents, then lets it go.
    async fn orphan(&self, uid: Uuid, node: &Node, meta: &ObjectMeta) -> Result<Outcome, Error> {
        for dependent in self.shared.dependents(&uid) {
            let Some(meta) = self.live(&dependent.kind, &dependent.namespace, &dependent.name).await? else {
                continue;
            };
            let owners = meta.owner_references.clone().unwrap_or_default();
            let left: Vec<OwnerReference> =
                owners.iter().filter(|owner| parse(&owner.uid) != Some(uid)).cloned().collect();
            if left.len() < owners.len() {
                self.set_owners(&dependent, &meta, &left).await?;
            }
        }
        self.remove_finalizer(node, meta, Waits::Orphan).await
    }

    /// Lets an owner go once no dependent blocks it; asks for a look at those that do.
    async fn finish_foreground(&self, uid: Uuid, node: &Node, meta: &ObjectMeta) -> Result<Outcome, Error> {
        let blocking: Vec<(Uuid, Node)> = {
            let graph = self.shared.graph();
            let blocks = |node: &Node| {
                let named = node.owners.iter().filter(|owner| parse(&owner.uid) == Some(uid));
                named.into_iter().any(|owner| owner.block_owner_deletion == Some(true))
            };
            let dependents = graph.dependents(&uid).into_iter();
            dependents.filter(|(_, node)| blocks(node)).map(|(uid, node)| (uid, node.clone())).collect()
        };
        if blocking.is_empty() {
            return self.remove_finalizer(node, meta, Waits::Foreground).await;
        }
        for (dependent, node) in blocking {
            if node.waits != Some(Waits::Foreground) {
                self.shared.queue.add(key(dependent));
            }
        }
        Ok(Outcome::After(RECHECK))
    }

    /// Decides about an object by its owners.
    async fn settle(&self, uid: Uuid, node: &Node, meta: &ObjectMeta) -> Result<Outcome, Error> {
        let mut owners = Vec::new();
        for owner in meta.owner_references.iter().flatten() {
            owners.push((owner.clone(), self.state_of(node, owner).await?));
        }
        let dependents: Vec<Dependent> = self
            .shared
            .dependents(&uid)
            .iter()
            .map(|dependent| Dependent { waits_foreground: dependent.waits == Some(Waits::Foreground) })
            .collect();
        match judge(meta, &owners, &dependents) {
            Verdict::Leave => {}
            Verdict::KeepOwners(left) => self.set_owners(node, meta, &left).await?,
            Verdict::Delete { propagation, unblock } => {
                let mut version = meta.resource_version.clone();
                if unblock {
                    let mut owners = meta.owner_references.clone().unwrap_or_default();
                    owners.iter_mut().for_each(|owner| owner.block_owner_deletion = Some(false));
                    self.set_owners(node, meta, &owners).await?;
                    version = None;
                }
                tracing::debug!(kind = %node.kind.title(), object = %object(node), "no owner is left; deleted");
                let params = DeleteParams {
                    propagation_policy: Some(propagation),
                    preconditions: Some(Preconditions {
                        uid: meta.uid.clone(),
                        // An owner added meanwhile may want it.
                        resource_version: version,
                    }),
                    ..DeleteParams::default()
                };
                let api = node.kind.api(&self.context.client, &node.namespace);
                match api.delete(&node.name, &params).await {
                    Err(error) if !is_not_found(&error) => {
                        return Err(Error::api(
                            format!("delete {} {}", node.kind.title(), object(node)),
                            error,
                        ));
                    }
                    _ => {}
                }
            }
        }
        Ok(Outcome::Done)
    }

    async fn state_of(&self, node: &Node, owner: &OwnerReference) -> Result<Owner, Error> {
        let inventory = self.shared.inventory();
        let Some(kind) = inventory.by_type(&owner.api_version, &owner.kind) else {
            return Err(Error::NotYet {
                reason: format!("{} names an owner of a kind nobody serves: {}", object(node), owner.kind),
                after: UNKNOWN_KIND,
            });
        };
        if kind.namespaced && node.namespace.is_empty() {
            return Err(Error::Invalid {
                object: format!("{} {}", node.kind.title(), node.name),
                field: "metadata.ownerReferences",
                reason: format!("{} {} lives in a namespace, its dependent does not", owner.kind, owner.name),
            });
        }
        let live = self.live(&kind, &node.namespace, &owner.name).await?;
        Ok(owner_state(owner, live.as_ref()))
    }

    async fn live(&self, kind: &Kind, namespace: &str, name: &str) -> Result<Option<ObjectMeta>, Error> {
        let found = kind.api(&self.context.client, namespace).get_metadata_opt(name).await;
        let found = found.map_err(|error| Error::api(format!("get {} {name}", kind.title()), error))?;
        Ok(found.map(|object| object.metadata))
    }

    async fn set_owners(
        &self,
        node: &Node,
        meta: &ObjectMeta,
        owners: &[OwnerReference],
    ) -> Result<(), Error> {
        let owners = if owners.is_empty() { json!(null) } else { json!(owners) };
        self.patch(node, meta, "ownerReferences", &owners).await
    }

    async fn remove_finalizer(&self, node: &Node, meta: &ObjectMeta, waits: Waits) -> Result<Outcome, Error> {
        let kept = meta.finalizers.iter().flatten().filter(|finalizer| *finalizer != waits.finalizer());
        let kept: Vec<&String> = kept.collect();
        let finalizers = if kept.is_empty() { json!(null) } else { json!(kept) };
        self.patch(node, meta, "finalizers", &finalizers).await?;
        Ok(Outcome::Done)
    }

    /// Replaces one list of the metadata, unless the object changed since `meta`.
    async fn patch(
        &self,
        node: &Node,
        meta: &ObjectMeta,
        field: &str,
        value: &serde_json::Value,
    ) -> Result<(), Error> {
        let patch = json!({"metadata": {
            "uid": meta.uid, "resourceVersion": meta.resource_version, field: value,
        }});
        let api = node.kind.api(&self.context.client, &node.namespace);
        match api.patch_metadata(&node.name, &PatchParams::default(), &Patch::Merge(&patch)).await {
            Ok(_) => Ok(()),
            Err(error) if is_not_found(&error) => Ok(()),
            Err(error) => Err(Error::api(format!("update {} {}", node.kind.title(), object(node)), error)),
        }
    }
}

impl Controller for GarbageCollector {
    fn reconcile(&self, key: ObjectKey) -> BoxFuture<'_, Result<Outcome, Error>> {
        async move {
            match parse(&key.name) {
                Some(uid) => self.collect(uid).await,
                None => Ok(Outcome::Done),
            }
        }
        .boxed()
    }

    fn enqueue_all(&self) {
        let suspects = self.shared.graph().suspects();
        self.shared.enqueue(suspects);
    }
}

impl Shared {
    fn observe(&self, sighting: &Sighting<'_>) {
        let look = match sighting {
            Sighting::ListBegins(kind) => {
                self.graph().list_begins(kind);
                Vec::new()
            }
            Sighting::Present(kind, meta) => self.graph().present(kind, meta),
            Sighting::Gone(meta) => uid_of(meta).map(|uid| self.graph().gone(&uid)).unwrap_or_default(),
            Sighting::ListEnds(kind) => self.graph().list_ends(kind),
            Sighting::KindGone(kind) => {
                self.graph().forget_kind(kind);
                Vec::new()
            }
            Sighting::Discovered(inventory) => {
                *self.inventory.lock().unwrap_or_else(PoisonError::into_inner) = (*inventory).clone();
                Vec::new()
            }
            Sighting::Synced => {
                self.synced.store(true, Ordering::Release);
                self.graph().suspects()
            }
        };
        // Before the first lists are complete every owner is unknown.
        if self.synced.load(Ordering::Acquire) {
            self.enqueue(look);
        }
    }

    fn enqueue(&self, uids: Vec<Uuid>) {
        for uid in uids {
            self.queue.add(key(uid));
        }
    }

    fn dependents(&self, owner: &Uuid) -> Vec<Node> {
        self.graph().dependents(owner).into_iter().map(|(_, node)| node.clone()).collect()
    }

    fn graph(&self) -> MutexGuard<'_, Graph> {
        self.graph.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn inventory(&self) -> Arc<Inventory> {
        self.inventory.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Feeds an informer's changes to the graph, so that its kind needs no second watch.
fn bridge<K>(shared: &Arc<Shared>, informer: &mut Informer<K>, namespaced: bool)
where
    K: Resource<DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned
        + Send
        + Sync
        + 'static,
{
    let kind = Arc::new(Kind::builtin::<K>(namespaced));
    let shared = shared.clone();
    informer.on_change(move |change: &Change<K>| {
        // An object deleted and made anew between two lists is one change with two UIDs.
        let replaced = change
            .old
            .as_ref()
            .filter(|old| change.new.as_ref().is_none_or(|new| new.meta().uid != old.meta().uid));
        if let Some(old) = replaced {
            shared.observe(&Sighting::Gone(old.meta()));
        }
        if let Some(new) = &change.new {
            shared.observe(&Sighting::Present(&kind, new.meta()));
        }
    });
}

fn key(uid: Uuid) -> ObjectKey {
    ObjectKey::cluster(uid.to_string())
}

fn object(node: &Node) -> ObjectKey {
    ObjectKey::new(&node.namespace, &node.name)
}
