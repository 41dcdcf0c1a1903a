//! Publishes the API server's CA in every namespace, where pods mount it from.
//!
//! In: Namespaces, the ConfigMaps named `kube-root-ca.crt`, the CA bundle. Out: these ConfigMaps, kept as they should
//! be whatever anyone does to them.

use std::collections::BTreeMap;

use futures::FutureExt;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use xebec_api::wellknown::names::ROOT_CA_CONFIG_MAP;

use crate::context::{Context, Controller, ControllerQueue, Informers, Outcome};
use crate::error::{Error, is_already_exists, is_not_found, namespace_is_terminating};
use crate::key::{ControllerName, ObjectKey};
use crate::patch::{self, Half};
use crate::service_account::is_active;

const KEY: &str = "ca.crt";
const DESCRIPTION: &str = "kubernetes.io/description";
const DESCRIPTION_TEXT: &str = "CA bundle to verify the API server by at its addresses inside the cluster.";

/// The controller. Its keys are namespaces.
pub(crate) struct RootCaPublisher {
    context: Context,
    queue: ControllerQueue,
    root_ca: String,
}

impl RootCaPublisher {
    pub(crate) fn new(context: &Context, informers: &mut Informers, root_ca: String) -> Self {
        let queue = context.queue_of(ControllerName::RootCaCertificatePublisher);
        informers.namespaces.on_change({
            let queue = queue.clone();
            move |change| {
                if let Some(namespace) = &change.new {
                    queue.add(ObjectKey::of(namespace.as_ref()));
                }
            }
        });
        informers.config_maps.on_change({
            let queue = queue.clone();
            move |change| {
                if let Some(map) = change.object() {
                    queue.add(ObjectKey::cluster(map.metadata.namespace.clone().unwrap_or_default()));
                }
            }
        });
        Self { context: context.clone(), queue, root_ca }
    }

    async fn publish(&self, namespace: &str) -> Result<Outcome, Error> {
        let caches = &self.context.caches;
        if !caches.namespaces.get(&ObjectKey::cluster(namespace)).is_some_and(|n| is_active(&n)) {
            return Ok(Outcome::Done);
        }
        let api = self.context.api::<ConfigMap>(namespace);
        let current = caches.config_maps.get(&ObjectKey::new(namespace, ROOT_CA_CONFIG_MAP));
        let desired = desired(current.as_deref(), &self.root_ca);
        let Some(current) = current else {
            return match api.create(&PostParams::default(), &desired).await {
                Ok(_) => Ok(Outcome::Done),
                Err(error)
                    if is_already_exists(&error)
                        || is_not_found(&error)
                        || namespace_is_terminating(&error) =>
                {
                    Ok(Outcome::Done)
                }
                Err(error) => {
                    Err(Error::api(format!("create ConfigMap {namespace}/{ROOT_CA_CONFIG_MAP}"), error))
                }
            };
        };
        match patch::update(&api, Half::Main, &current, &desired).await {
            Err(error) if error.is_not_found() => Ok(Outcome::Done),
            result => result.map(|_| Outcome::Done),
        }
    }
}

impl Controller for RootCaPublisher {
    fn reconcile(&self, key: ObjectKey) -> BoxFuture<'_, Result<Outcome, Error>> {
        async move { self.publish(&key.name).await }.boxed()
    }

    fn enqueue_all(&self) {
        self.queue.add_all(&self.context.caches.namespaces);
    }
}

/// The ConfigMap as it should be; what others added to its metadata stays.
fn desired(current: Option<&ConfigMap>, root_ca: &str) -> ConfigMap {
    let mut map = current.cloned().unwrap_or_else(|| ConfigMap {
        metadata: ObjectMeta { name: Some(ROOT_CA_CONFIG_MAP.to_owned()), ..ObjectMeta::default() },
        ..ConfigMap::default()
    });
    map.data = Some(BTreeMap::from([(KEY.to_owned(), root_ca.to_owned())]));
    map.binary_data = None;
    map.metadata
        .annotations
        .get_or_insert_default()
        .insert(DESCRIPTION.to_owned(), DESCRIPTION_TEXT.to_owned());
    map
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn desired_map_restores_data_and_keeps_foreign_metadata() {
        let fresh = desired(None, "PEM");
        assert_eq!(fresh.data.as_ref().unwrap()[KEY], "PEM");
        let mut spoiled = fresh.clone();
        spoiled.data = Some(BTreeMap::from([("other".to_owned(), "x".to_owned())]));
        spoiled.metadata.labels = Some(BTreeMap::from([("mine".to_owned(), "kept".to_owned())]));
        let mended = desired(Some(&spoiled), "PEM");
        assert_eq!(mended.data, fresh.data);
        assert_eq!(mended.metadata.labels, spoiled.metadata.labels);
        assert_eq!(desired(Some(&mended), "PEM"), mended);
    }
}
