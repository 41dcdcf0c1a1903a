//! Keeps the older Endpoints object of every Service that has a selector, for clients that do not read slices.
//!
//! In: Services, Pods, Endpoints. Out: one Endpoints for each such Service, in the Service's first family. Those made by
//! hand, for Services without selector, are left alone. Changes are gathered for a moment: the object holds all
//! addresses of a Service, and every write sends them all to every watcher.

mod plan;

use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{Endpoints, Service};
use kube::api::{DeleteParams, PostParams, Preconditions};
use xebec_api::wellknown::labels::ENDPOINTS_MANAGED_BY;

use crate::cache::Change;
use crate::context::{Context, Controller, ControllerQueue, Informers, Outcome};
use crate::endpointslice;
use crate::error::{Error, is_already_exists, is_conflict, is_not_found, namespace_is_terminating};
use crate::key::{ControllerName, ObjectKey};
use crate::patch::{self, Half};
use crate::pod;

/// How long changes of a Service's pods are gathered.
const GATHER: Duration = Duration::from_millis(500);
/// Value of the managed-by label of the objects made here.
pub(crate) const MANAGER: &str = "endpoint-controller";

/// The controller. Its keys are Services.
pub(crate) struct EndpointsController {
    context: Context,
    queue: ControllerQueue,
}

impl EndpointsController {
    pub(crate) fn new(context: &Context, informers: &mut Informers) -> Self {
        let queue = context.queue_of(ControllerName::Endpoints);
        informers.services.on_change({
            let queue = queue.clone();
            move |change: &Change<Service>| {
                if let Some(service) = change.object() {
                    queue.add_after(ObjectKey::of(service.as_ref()), GATHER);
                }
            }
        });
        informers.pods.on_change({
            let (queue, caches) = (queue.clone(), context.caches.clone());
            move |change| {
                for service in endpointslice::services_of_change(&caches, change) {
                    queue.add_after(service, GATHER);
                }
            }
        });
        informers.endpoints.on_change({
            let queue = queue.clone();
            move |change| {
                if let Some(endpoints) = change.object() {
                    queue.add_after(ObjectKey::of(endpoints.as_ref()), GATHER);
                }
            }
        });
        Self { context: context.clone(), queue }
    }

    async fn sync(&self, key: &ObjectKey) -> Result<Outcome, Error> {
        let caches = &self.context.caches;
        let known = caches.endpoints.get(key);
        let Some(service) = caches.services.get(key) else {
            return match known.filter(|known| is_ours(known)) {
                Some(orphan) => self.delete(key, &orphan).await,
                None => Ok(Outcome::Done),
            };
        };
        let Some(selector) = endpointslice::selector(&service) else {
            return Ok(Outcome::Done);
        };
        if service.metadata.deletion_timestamp.is_some() {
            return Ok(Outcome::Done);
        }
        let mut pods = caches.pods.in_namespace(&key.namespace);
        pods.retain(|pod| selector.matches(pod::labels(pod)));
        let desired = plan::endpoints(&service, &pods, known.as_deref());
        let api = self.context.api::<Endpoints>(&key.namespace);
        let Some(known) = known else {
            return match api.create(&PostParams::default(), &desired).await {
                Err(error) if is_already_exists(&error) || namespace_is_terminating(&error) => {
                    Ok(Outcome::Done)
                }
                Err(error) => Err(Error::api(format!("create Endpoints {key}"), error)),
                Ok(_) => Ok(Outcome::Done),
            };
        };
        match patch::update(&api, Half::Main, known.as_ref(), &desired).await {
            Err(error) if error.is_not_found() => Ok(Outcome::Done),
            written => written.map(|_| Outcome::Done),
        }
    }

    /// The Service is gone.
    async fn delete(&self, key: &ObjectKey, orphan: &Endpoints) -> Result<Outcome, Error> {
        let params = DeleteParams::default()
            .preconditions(Preconditions { uid: orphan.metadata.uid.clone(), resource_version: None });
        match self.context.api::<Endpoints>(&key.namespace).delete(&key.name, &params).await {
            Err(error) if !is_not_found(&error) && !is_conflict(&error) => {
                Err(Error::api(format!("delete Endpoints {key}"), error))
            }
            _ => Ok(Outcome::Done),
        }
    }
}

impl Controller for EndpointsController {
    fn reconcile(&self, key: ObjectKey) -> BoxFuture<'_, Result<Outcome, Error>> {
        async move { self.sync(&key).await }.boxed()
    }

    fn enqueue_all(&self) {
        self.queue.add_all(&self.context.caches.services);
        self.queue.add_all(&self.context.caches.endpoints);
    }
}

fn is_ours(endpoints: &Endpoints) -> bool {
    let labels = endpoints.metadata.labels.as_ref();
    labels.and_then(|labels| labels.get(ENDPOINTS_MANAGED_BY)).is_some_and(|by| by == MANAGER)
}
