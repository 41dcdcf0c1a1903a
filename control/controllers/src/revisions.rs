//! Reads and writes an owner's ControllerRevisions.
//!
//! In: an owner, a [`History`]. Out: revisions adopted, written and removed; those written are expected in the cache.

use std::fmt::Debug;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::ControllerRevision;
use kube::Resource;
use kube::api::{DeleteParams, PostParams, Preconditions};
use kube::core::NamespaceResourceScope;
use serde::Serialize;
use serde::de::DeserializeOwned;
use xebec_api::labels::Selector;

use crate::cache::revision_of;
use crate::context::Context;
use crate::error::{Error, is_already_exists, is_conflict, is_not_found, namespace_is_terminating};
use crate::expectations::Expectations;
use crate::history::History;
use crate::key::ObjectKey;
use crate::owner::{self, claims};
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

    /// Those the owner controls, after it has adopted those nobody does: what an owner of this name left behind when it
    /// was deleted without them is its successor's history.
    pub(crate) async fn claim<O>(
        &self,
        key: &ObjectKey,
        owner: &O,
        selector: &Selector,
    ) -> Result<Vec<Arc<ControllerRevision>>, Error>
    where
        O: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
    {
        let cache = &self.context.caches.controller_revisions;
        let mut candidates = cache.controlled_by(owner.meta().uid.as_deref().unwrap_or_default());
        candidates.extend(cache.uncontrolled_in(&key.namespace));
        let claims = claims(owner, selector, candidates, |_| true);
        owner::claim_all(
            &self.context.api(&key.namespace),
            &self.context.api(&key.namespace),
            owner,
            claims,
            |at| {
                self.expectations.wrote(key, at);
            },
        )
        .await
    }

    /// The current revision's name is another's: the next hash is made with a higher count.
    pub(crate) async fn name_is_taken<O>(
        &self,
        key: &ObjectKey,
        owner: &Arc<O>,
        count: impl FnOnce(&mut O),
    ) -> Result<(), Error>
    where
        O: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + Debug
            + Serialize
            + DeserializeOwned,
    {
        let mut desired = (**owner).clone();
        count(&mut desired);
        patch::update(&self.context.api(&key.namespace), Half::Status, owner.as_ref(), &desired).await?;
        Ok(())
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
