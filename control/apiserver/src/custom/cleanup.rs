//! When a definition is deleted its objects go first.
//!
//! In: definitions that are marked for deletion. Out: none of their objects, then the definitions themselves.

use std::time::Duration;

use serde_json::Value;
use xebec_api::wellknown::names;

use super::definition::FINALIZER;
use crate::authn::UserInfo;
use crate::kinds::Verb;
use crate::meta;
use crate::options::{DeleteOptions, WriteOptions};
use crate::registry::update::{self, Door, Edit};
use crate::registry::{Cx, Served, delete};
use crate::server::ApiServer;
use crate::status::ApiError;
use crate::stored::{self, Stored};

const AGENT: &str = "crd-finalizer";
/// Until objects that have finalizers of their own are looked at again.
const AGAIN: Duration = Duration::from_secs(1);

impl ApiServer {
    /// Cleans up after definitions, until dropped.
    pub(crate) async fn clean_up_definitions(&self) {
        loop {
            let store = &self.registry().store;
            // Watch first: what changes while we look is seen by the watch.
            let watch = store.watch(super::PREFIX.as_bytes(), store.revision());
            let waits = self.clean_up_once().await;
            let Ok(mut watch) = watch else { return };
            let changed = async {
                if watch.next().await.is_err() {
                    tokio::time::sleep(AGAIN).await;
                }
            };
            if waits {
                tokio::select! {
                    () = changed => {}
                    () = tokio::time::sleep(AGAIN) => {}
                }
            } else {
                changed.await;
            }
        }
    }

    /// Whether there is something left to wait for.
    async fn clean_up_once(&self) -> bool {
        let Ok(page) = self.registry().store.list(super::PREFIX.as_bytes(), None, 0, None) else {
            return true;
        };
        let mut waits = false;
        for kv in &page.items {
            let Ok(definition) = Stored::from(kv).decode() else { continue };
            let held = meta::finalizers(&definition).iter().any(|finalizer| finalizer == FINALIZER);
            if meta::is_deleting(&definition) && held {
                match self.clean_up(&definition).await {
                    Ok(done) => waits |= !done,
                    Err(error) => {
                        tracing::warn!(%error, name = meta::name(&definition), "objects are not gone yet");
                        waits = true;
                    }
                }
            }
        }
        waits
    }

    /// Deletes the objects; once there are none, lets the definition go. Whether that is so.
    async fn clean_up(&self, definition: &Value) -> Result<bool, ApiError> {
        let user = UserInfo::authenticated(names::USER_APISERVER, [names::GROUP_MASTERS]);
        let cx = Cx::new(self.registry(), &user, AGENT, "");
        if let Some(served) = super::storage(definition) {
            let prefix = stored::prefix(&served.resource, None);
            let page = self
                .registry()
                .store
                .list(prefix.as_bytes(), None, 0, None)
                .map_err(|error| crate::status::from_store(&error))?;
            if !page.items.is_empty() {
                for kv in &page.items {
                    let object = Stored::from(kv).decode()?;
                    remove(&cx, &served, &object).await?;
                }
                return Ok(false);
            }
        }
        let Some(served) =
            self.registry().kinds.get("apiextensions.k8s.io", "v1", "customresourcedefinitions")
        else {
            return Ok(true);
        };
        let options = WriteOptions::default();
        let edit = Edit {
            served,
            namespace: None,
            name: meta::name(definition),
            door: Door::Own,
            verb: Verb::Patch,
            options: &options,
            records: false,
        };
        let updated = update::update(&cx, edit, |mut current| {
            let left: Vec<String> =
                meta::finalizers(&current).into_iter().filter(|finalizer| finalizer != FINALIZER).collect();
            meta::set_finalizers(&mut current, &left);
            Ok(current)
        });
        updated.await.map(|_| true)
    }
}

async fn remove(cx: &Cx<'_>, served: &Served, object: &Value) -> Result<(), ApiError> {
    if meta::is_deleting(object) {
        return Ok(());
    }
    let namespace = Some(meta::namespace(object)).filter(|namespace| !namespace.is_empty());
    match delete::delete(cx, served, namespace, meta::name(object), &DeleteOptions::default()).await {
        Err(error) if error.code() == http::StatusCode::NOT_FOUND => Ok(()),
        other => other.map(drop),
    }
}
