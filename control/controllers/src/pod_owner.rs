//! Which owners are asked to look when a pod changes.
//!
//! In: a change of a pod, the owners of one kind. Out: keys in that kind's queue.

use k8s_openapi::api::core::v1::Pod;
use kube::Resource;
use xebec_api::labels::Selector;

use crate::cache::{Cache, Change};
use crate::context::ControllerQueue;
use crate::error::Error;
use crate::key::ObjectKey;
use crate::owner;

/// Asks for a run of the object that owns or owned the pod.
pub(crate) fn enqueue_owners<O>(queue: &ControllerQueue, change: &Change<Pod>)
where
    O: Resource<DynamicType = ()>,
{
    for pod in change.sides() {
        if let Some(reference) = owner::controller_of_kind::<O, Pod>(pod.as_ref()) {
            queue.add(ObjectKey::new(pod.metadata.namespace.clone().unwrap_or_default(), &reference.name));
        }
    }
}

/// Asks for a run of all that might adopt a pod nobody owns: new to them, or with other labels than before.
pub(crate) fn enqueue_adopters<O>(
    queue: &ControllerQueue,
    owners: &Cache<O>,
    selector: impl Fn(&O) -> Result<Selector, Error>,
    change: &Change<Pod>,
) where
    O: Resource,
{
    let Some(pod) = change.new.as_ref().filter(|pod| owner::controller_of(pod.as_ref()).is_none()) else {
        return;
    };
    let news = change.old.as_ref().is_none_or(|old| {
        old.metadata.labels != pod.metadata.labels || owner::controller_of(old.as_ref()).is_some()
    });
    if !news {
        return;
    }
    for candidate in owners.in_namespace(pod.metadata.namespace.as_deref().unwrap_or_default()) {
        if selector(&candidate).is_ok_and(|selector| owner::matches(&selector, pod.as_ref())) {
            queue.add(ObjectKey::of(candidate.as_ref()));
        }
    }
}
