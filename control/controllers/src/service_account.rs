//! Gives every active namespace its `default` ServiceAccount.
//!
//! In: Namespaces, ServiceAccounts named `default`. Out: creations. Pods cannot be admitted without it.

use futures::FutureExt;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use xebec_api::wellknown::names::DEFAULT_SERVICE_ACCOUNT as DEFAULT;

use crate::context::{Context, Controller, ControllerQueue, Informers, Outcome};
use crate::error::{Error, is_already_exists, is_not_found, namespace_is_terminating};
use crate::key::{ControllerName, ObjectKey};

/// The controller. Its keys are namespaces.
pub(crate) struct ServiceAccountController {
    context: Context,
    queue: ControllerQueue,
}

impl ServiceAccountController {
    pub(crate) fn new(context: &Context, informers: &mut Informers) -> Self {
        let queue = context.queue_of(ControllerName::ServiceAccount);
        informers.namespaces.on_change({
            let queue = queue.clone();
            move |change| {
                if let Some(namespace) = &change.new {
                    queue.add(ObjectKey::of(namespace.as_ref()));
                }
            }
        });
        informers.service_accounts.on_change({
            let queue = queue.clone();
            move |change| {
                if let (None, Some(account)) = (&change.new, &change.old) {
                    queue.add(ObjectKey::cluster(account.metadata.namespace.clone().unwrap_or_default()));
                }
            }
        });
        Self { context: context.clone(), queue }
    }

    async fn ensure(&self, namespace: &str) -> Result<Outcome, Error> {
        let caches = &self.context.caches;
        let account = caches.service_accounts.get(&ObjectKey::new(namespace, DEFAULT));
        let known = caches.namespaces.get(&ObjectKey::cluster(namespace));
        if account.is_some() || !known.is_some_and(|n| is_active(&n)) {
            return Ok(Outcome::Done);
        }
        let account = ServiceAccount {
            metadata: ObjectMeta { name: Some(DEFAULT.to_owned()), ..ObjectMeta::default() },
            ..ServiceAccount::default()
        };
        match self.context.api(namespace).create(&PostParams::default(), &account).await {
            Ok(_) => Ok(Outcome::Done),
            Err(error)
                if is_already_exists(&error) || is_not_found(&error) || namespace_is_terminating(&error) =>
            {
                Ok(Outcome::Done)
            }
            Err(error) => Err(Error::api(format!("create ServiceAccount {namespace}/{DEFAULT}"), error)),
        }
    }
}

impl Controller for ServiceAccountController {
    fn reconcile(&self, key: ObjectKey) -> BoxFuture<'_, Result<Outcome, Error>> {
        async move { self.ensure(&key.name).await }.boxed()
    }

    fn enqueue_all(&self) {
        self.queue.add_all(&self.context.caches.namespaces);
    }
}

/// New objects are still accepted in this namespace.
pub(crate) fn is_active(namespace: &Namespace) -> bool {
    namespace.metadata.deletion_timestamp.is_none()
}
