//! Reads and writes an owner's ControllerRevisions.
//!
//! In: an owner, a [`History`]. Out: revisions written and removed; those written are expected in the cache.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::ControllerRevision;
use kube::Resource;
use kube::api::{DeleteParams, PostParams, Preconditions};
use xebec_api::labels::Selector;

use crate::cache::revision_of;
use crate::context::Context;
use crate::error::{Error, is_already_exists, is_conflict, is_not_found, namespace_is_terminating};
use crate::expectations::Expectations;
use crate::history::History;
use crate::key::ObjectKey;
use crate::owner;
use crate::patch::{self, Half};

/// The revisions of one controller's objects.
pub(crate) struct Revisions {
    context: Context,
    pub(crate) expectations: Arc<Expectations>,
}

impl Revisions {
    pub(crate) fn new(context: &Context) -> Self {
        Self { context: context.clone(), expectations: Arc::default() }
    }

    /// Those the owner controls.
    pub(crate) fn of<O: Resource>(
        &self,
        key: &ObjectKey,
        owner: &O,
        selector: &Selector,
    ) -> Vec<Arc<ControllerRevision>> {
        let uid = owner.meta().uid.as_deref().unwrap_or_default();
        let mut known = self.context.caches.controller_revisions.controlled_by(uid);
        known.retain(|revision| {
            revision.metadata.namespace.as_deref() == Some(&key.namespace)
                && owner::matches(selector, revision.as_ref())
        });
        known
    }

    /// Brings the current revision into the API. `false`: its name is taken by another's.
    pub(crate) async fn write(&self, key: &ObjectKey, history: &History) -> Result<bool, Error> {
        let api = self.context.api::<ControllerRevision>(&key.namespace);
        let Some(replaces) = &history.write else {
            return Ok(true);
        };
        if let Some(known) = replaces {
            if let Some(updated) = patch::update(&api, Half::Main, known.as_ref(), &history.current).await? {
                self.expectations.wrote(key, revision_of(&updated));
            }
            return Ok(true);
        }
        let name = history.current.metadata.name.as_deref().unwrap_or_default();
        match api.create(&PostParams::default(), &history.current).await {
            Ok(created) => {
                self.expectations.wrote(key, revision_of(&created));
                Ok(true)
            }
            Err(error) if namespace_is_terminating(&error) => Ok(true),
            Err(error) if is_already_exists(&error) => {
                let found = api.get(name).await.map_err(|e| Error::api(format!("get revision {name}"), e))?;
                self.expectations.wrote(key, revision_of(&found));
                Ok(found.data == history.current.data)
            }
            Err(error) => {
                Err(Error::api(format!("create ControllerRevision {}/{name}", key.namespace), error))
            }
        }
    }

    pub(crate) async fn remove(
        &self,
        key: &ObjectKey,
        surplus: &[Arc<ControllerRevision>],
    ) -> Result<(), Error> {
        let api = self.context.api::<ControllerRevision>(&key.namespace);
        for revision in surplus {
            let name = revision.metadata.name.as_deref().unwrap_or_default();
            let params = DeleteParams::default()
                .preconditions(Preconditions { uid: revision.metadata.uid.clone(), resource_version: None });
            match api.delete(name, &params).await {
                Ok(_) => self.expectations.deleted(key, revision.as_ref()),
                Err(error) if is_not_found(&error) || is_conflict(&error) => {}
                Err(error) => {
                    return Err(Error::api(
                        format!("delete ControllerRevision {}/{name}", key.namespace),
                        error,
                    ));
                }
            }
        }
        Ok(())
    }
}
