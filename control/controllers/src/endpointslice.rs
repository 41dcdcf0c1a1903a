//! Lists the endpoints of every Service that has a selector.
//!
//! In: Services, Pods, Nodes, EndpointSlices. Out: the slices of each Service, with as few writes as will do. Slices made
//! by others (for a Service without selector, by hand, by another controller) are left alone.

pub(crate) mod endpoint;
mod plan;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, join_all};
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::api::{DeleteParams, PostParams, Preconditions};
use xebec_api::labels::Selector;
use xebec_api::wellknown::labels::{
    ENDPOINT_SLICE_CONTROLLER, ENDPOINT_SLICE_MANAGED_BY, SERVICE_NAME, TOPOLOGY_ZONE,
};

use crate::cache::{Change, revision_of};
use crate::context::{Caches, Context, Controller, ControllerQueue, Informers, Outcome};
use crate::endpointslice::endpoint::NodeFacts;
pub(crate) use crate::endpointslice::plan::families;
use crate::endpointslice::plan::{SlicePlan, plan};
use crate::error::{Error, is_conflict, is_not_found, namespace_is_terminating};
use crate::expectations::Expectations;
use crate::key::{ControllerName, ObjectKey};
use crate::patch::{self, Half};
use crate::pod;
use crate::recorder::Severity;

/// How soon to look again while the cache is behind our own writes; the watch normally comes first.
const CATCH_UP: Duration = Duration::from_secs(1);

/// Index of the slice cache: `namespace/service`.
pub(crate) fn service_of_slice(slice: &EndpointSlice) -> Option<String> {
    let service = slice.metadata.labels.as_ref()?.get(SERVICE_NAME)?;
    Some(format!("{}/{service}", slice.metadata.namespace.as_deref()?))
}

/// The controller. Its keys are Services.
pub(crate) struct EndpointSliceController {
    context: Context,
    queue: ControllerQueue,
    expectations: Arc<Expectations>,
}

impl EndpointSliceController {
    pub(crate) fn new(context: &Context, informers: &mut Informers) -> Self {
        let queue = context.queue_of(ControllerName::EndpointSlice);
        let expectations = Arc::new(Expectations::default());
        informers.services.on_change({
            let (queue, expectations) = (queue.clone(), expectations.clone());
            move |change| match (&change.new, &change.old) {
                (Some(service), _) => queue.add(ObjectKey::of(service.as_ref())),
                (None, Some(service)) => expectations.forget(&ObjectKey::of(service.as_ref())),
                (None, None) => {}
            }
        });
        informers.pods.on_change({
            let (queue, caches) = (queue.clone(), context.caches.clone());
            move |change| enqueue_for_pod(&queue, &caches, change)
        });
        informers.slices.on_change({
            let queue = queue.clone();
            move |change| {
                for slice in change.sides().filter(|slice| is_ours(slice)) {
                    let service = slice.metadata.labels.as_ref().and_then(|labels| labels.get(SERVICE_NAME));
                    if let (Some(service), Some(namespace)) = (service, &slice.metadata.namespace) {
                        queue.add(ObjectKey::new(namespace, service));
                    }
                }
            }
        });
        informers.nodes.on_change({
            let (queue, caches) = (queue.clone(), context.caches.clone());
            move |change| enqueue_for_node(&queue, &caches, change)
        });
        Self { context: context.clone(), queue, expectations }
    }

    async fn sync(&self, key: &ObjectKey) -> Result<Outcome, Error> {
        let caches = &self.context.caches;
        let Some(service) = caches.services.get(key) else {
            // Its slices go with it: they name it as their owner.
            self.expectations.forget(key);
            return Ok(Outcome::Done);
        };
        let Some(selector) = selector(&service) else {
            return Ok(Outcome::Done);
        };
        if service.metadata.deletion_timestamp.is_some() {
            return Ok(Outcome::Done);
        }
        if !self.expectations.satisfied(key, &caches.slices) {
            return Ok(Outcome::After(CATCH_UP));
        }
        let mut pods = caches.pods.in_namespace(&key.namespace);
        pods.retain(|pod| selector.matches(pod::labels(pod)));
        let mut slices = caches.slices.indexed(&key.to_string());
        slices.retain(|slice| is_ours(slice));
        let node = |name: &str| caches.nodes.get(&ObjectKey::cluster(name)).map(|node| facts(&node));
        self.apply(key, &service, plan(&service, &pods, slices, node)).await?;
        Ok(Outcome::Done)
    }

    /// Creates first, deletes last: no endpoint is missing from all slices in between.
    async fn apply(&self, key: &ObjectKey, service: &Service, plan: SlicePlan) -> Result<(), Error> {
        let api: Api<EndpointSlice> = self.context.api(&key.namespace);
        let mut errors = Vec::new();
        let created = join_all(plan.create.iter().map(|slice| self.create(key, service, &api, slice))).await;
        errors.extend(created.into_iter().filter_map(Result::err));
        let updates = plan.update.iter().map(|(current, desired)| async {
            if let Some(updated) = patch::update(&api, Half::Main, current.as_ref(), desired).await? {
                self.expectations.wrote(key, revision_of(&updated));
            }
            Ok(())
        });
        let updated: Vec<Result<(), Error>> = join_all(updates).await;
        errors.extend(updated.into_iter().filter_map(Result::err));
        if errors.is_empty() {
            for slice in &plan.delete {
                errors.extend(self.delete(key, &api, slice).await.err());
            }
        }
        Error::several(errors).map_or(Ok(()), Err)
    }

    async fn create(
        &self,
        key: &ObjectKey,
        service: &Service,
        api: &Api<EndpointSlice>,
        slice: &EndpointSlice,
    ) -> Result<(), Error> {
        match api.create(&PostParams::default(), slice).await {
            Ok(created) => {
                self.expectations.wrote(key, revision_of(&created));
                Ok(())
            }
            Err(error) if namespace_is_terminating(&error) => Ok(()),
            Err(error) => {
                let message = format!("Error updating Endpoint Slices for Service {key}: {error}");
                let name = ControllerName::EndpointSlice;
                self.context.record(
                    name,
                    service,
                    Severity::Warning,
                    "FailedToUpdateEndpointSlices",
                    message,
                );
                Err(Error::api(format!("create an EndpointSlice of Service {key}"), error))
            }
        }
    }

    async fn delete(
        &self,
        key: &ObjectKey,
        api: &Api<EndpointSlice>,
        slice: &EndpointSlice,
    ) -> Result<(), Error> {
        let name = slice.metadata.name.as_deref().unwrap_or_default();
        let params = DeleteParams::default()
            .preconditions(Preconditions { uid: slice.metadata.uid.clone(), resource_version: None });
        match api.delete(name, &params).await {
            Ok(_) => {
                self.expectations.deleted(key, slice);
                Ok(())
            }
            Err(error) if is_not_found(&error) || is_conflict(&error) => Ok(()),
            Err(error) => Err(Error::api(format!("delete EndpointSlice {}/{name}", key.namespace), error)),
        }
    }
}

impl Controller for EndpointSliceController {
    fn reconcile(&self, key: ObjectKey) -> BoxFuture<'_, Result<Outcome, Error>> {
        async move { self.sync(&key).await }.boxed()
    }

    fn enqueue_all(&self) {
        self.queue.add_all(&self.context.caches.services);
    }
}

fn is_ours(slice: &EndpointSlice) -> bool {
    let labels = slice.metadata.labels.as_ref();
    labels
        .and_then(|labels| labels.get(ENDPOINT_SLICE_MANAGED_BY))
        .is_some_and(|by| by == ENDPOINT_SLICE_CONTROLLER)
}

/// Whose pods are the Service's endpoints; `None` when its endpoints are somebody else's business.
pub(crate) fn selector(service: &Service) -> Option<Selector> {
    let spec = service.spec.as_ref().filter(|spec| spec.type_.as_deref() != Some("ExternalName"))?;
    spec.selector.as_ref().filter(|selector| !selector.is_empty()).map(Selector::from_map)
}

fn facts(node: &Node) -> NodeFacts {
    NodeFacts { zone: node.metadata.labels.as_ref().and_then(|labels| labels.get(TOPOLOGY_ZONE)).cloned() }
}

/// Asks for a run of every Service that lists or listed the pod, if anything about it changed that slices tell.
fn enqueue_for_pod(queue: &ControllerQueue, caches: &Caches, change: &Change<Pod>) {
    for service in services_of_change(caches, change) {
        queue.add(service);
    }
}

/// The Services whose endpoints the change concerns.
pub(crate) fn services_of_change(caches: &Caches, change: &Change<Pod>) -> Vec<ObjectKey> {
    if let (Some(old), Some(new)) = (&change.old, &change.new)
        && tells_same(old, new)
    {
        return Vec::new();
    }
    change.sides().flat_map(|pod| services_of(caches, pod)).collect()
}

fn services_of(caches: &Caches, pod: &Pod) -> Vec<ObjectKey> {
    let services = caches.services.in_namespace(pod.metadata.namespace.as_deref().unwrap_or_default());
    let lists =
        |service: &Service| selector(service).is_some_and(|selector| selector.matches(pod::labels(pod)));
    services.iter().filter(|service| lists(service)).map(|service| ObjectKey::of(service.as_ref())).collect()
}

fn tells_same(old: &Pod, new: &Pod) -> bool {
    let facts = |pod: &Pod| {
        let spec = pod.spec.as_ref();
        (
            pod.metadata.uid.clone(),
            pod::is_ready(pod),
            pod::is_terminating(pod),
            endpoint::belongs(pod),
            spec.and_then(|spec| spec.node_name.clone()),
            spec.map(|spec| (spec.hostname.clone(), spec.subdomain.clone())),
        )
    };
    let addresses = |pod: &Pod| (pod::addresses(pod, false), pod::addresses(pod, true));
    old.metadata.labels == new.metadata.labels && facts(old) == facts(new) && addresses(old) == addresses(new)
}

/// A node that comes, goes or moves to another zone changes the endpoints on it.
fn enqueue_for_node(queue: &ControllerQueue, caches: &Caches, change: &Change<Node>) {
    if let (Some(old), Some(new)) = (&change.old, &change.new)
        && facts(old).zone == facts(new).zone
    {
        return;
    }
    let name = change.object().and_then(|node| node.metadata.name.as_deref()).unwrap_or_default();
    for pod in caches.pods.indexed(name) {
        services_of(caches, &pod).into_iter().for_each(|service| queue.add(service));
    }
}
