//! The writes of controllers that own pods: claim, create, delete, each told in an Event and remembered until the
//! cache shows it.
//!
//! In: an owner, pods to be made or removed. Out: API writes, Events, expectations.

use std::fmt::Debug;
use std::sync::Arc;

use futures::future::join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::Resource;
use kube::api::{DeleteParams, PostParams, Preconditions};
use kube::core::NamespaceResourceScope;
use serde::de::DeserializeOwned;
use xebec_api::wellknown::reasons::workload;

use crate::cache::revision_of;
use crate::context::Context;
use crate::error::{Error, is_conflict, is_not_found, namespace_is_terminating};
use crate::expectations::Expectations;
use crate::key::{ControllerName, ObjectKey};
use crate::owner::{self, Claims};
use crate::recorder::Severity;

/// Writes pods in the name of one controller.
pub(crate) struct PodControl {
    context: Context,
    controller: ControllerName,
    pub(crate) expectations: Arc<Expectations>,
}

impl PodControl {
    pub(crate) fn new(context: &Context, controller: ControllerName) -> Self {
        Self { context: context.clone(), controller, expectations: Arc::default() }
    }

    /// Adopts and releases; the pods owned afterwards.
    pub(crate) async fn claim<O>(
        &self,
        key: &ObjectKey,
        owner: &O,
        claims: Claims<Pod>,
    ) -> Result<Vec<Arc<Pod>>, Error>
    where
        O: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
    {
        let (pods, owners) = (self.context.api(&key.namespace), self.context.api(&key.namespace));
        owner::claim_all(&pods, &owners, owner, claims, |at| self.expectations.wrote(key, at)).await
    }

    /// Creates pods in batches of 1, 2, 4, …: when the first is refused (a quota, say), the rest is not tried.
    pub(crate) async fn create<O>(&self, key: &ObjectKey, owner: &O, pods: &[Pod]) -> Result<(), Error>
    where
        O: Resource<DynamicType = ()>,
    {
        let (mut left, mut batch) = (pods, 1);
        while !left.is_empty() {
            let (now, later) = left.split_at(batch.min(left.len()));
            let results = join_all(now.iter().map(|pod| self.create_one(key, owner, pod))).await;
            let errors: Vec<Error> = results.into_iter().filter_map(Result::err).collect();
            if let Some(error) = Error::several(errors) {
                return Err(error);
            }
            left = later;
            batch *= 2;
        }
        Ok(())
    }

    async fn create_one<O>(&self, key: &ObjectKey, owner: &O, pod: &Pod) -> Result<(), Error>
    where
        O: Resource<DynamicType = ()>,
    {
        match self.context.api::<Pod>(&key.namespace).create(&PostParams::default(), pod).await {
            Ok(created) => {
                self.expectations.wrote(key, revision_of(&created));
                let name = created.metadata.name.unwrap_or_default();
                let message = self.success("create", &key.name, &name);
                self.event(owner, Severity::Normal, workload::SUCCESSFUL_CREATE, message);
                Ok(())
            }
            Err(error) if namespace_is_terminating(&error) => Ok(()),
            Err(error) => {
                let message = self.failure("create", &key.name, pod, &error);
                self.event(owner, Severity::Warning, workload::FAILED_CREATE, message);
                Err(Error::api(format!("create a pod of {} {key}", O::kind(&())), error))
            }
        }
    }

    pub(crate) async fn delete<O>(&self, key: &ObjectKey, owner: &O, pods: &[Arc<Pod>]) -> Result<(), Error>
    where
        O: Resource<DynamicType = ()>,
    {
        let results = join_all(pods.iter().map(|pod| self.delete_one(key, owner, pod))).await;
        Error::several(results.into_iter().filter_map(Result::err).collect()).map_or(Ok(()), Err)
    }

    async fn delete_one<O>(&self, key: &ObjectKey, owner: &O, pod: &Pod) -> Result<(), Error>
    where
        O: Resource<DynamicType = ()>,
    {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let params = DeleteParams::default()
            .preconditions(Preconditions { uid: pod.metadata.uid.clone(), resource_version: None });
        match self.context.api::<Pod>(&key.namespace).delete(name, &params).await {
            Ok(_) => {
                self.expectations.deleted(key, pod);
                let message = self.success("delete", &key.name, name);
                self.event(owner, Severity::Normal, workload::SUCCESSFUL_DELETE, message);
                Ok(())
            }
            // Gone already, or another pod of that name: what was to be deleted is not there.
            Err(error) if is_not_found(&error) || is_conflict(&error) => Ok(()),
            Err(error) => {
                let message = self.failure("delete", &key.name, pod, &error);
                self.event(owner, Severity::Warning, workload::FAILED_DELETE, message);
                Err(Error::api(format!("delete pod {}/{name}", key.namespace), error))
            }
        }
    }

    /// Upstream words it differently where pods have names of their own.
    fn success(&self, verb: &str, owner: &str, pod: &str) -> String {
        match (self.controller, verb) {
            (ControllerName::StatefulSet, _) => {
                format!("{verb} Pod {pod} in StatefulSet {owner} successful")
            }
            (_, "create") => format!("Created pod: {pod}"),
            _ => format!("Deleted pod: {pod}"),
        }
    }

    fn failure(&self, verb: &str, owner: &str, pod: &Pod, error: &kube::Error) -> String {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        match (self.controller, verb) {
            (ControllerName::StatefulSet, _) => {
                format!("{verb} Pod {name} in StatefulSet {owner} failed error: {error}")
            }
            (_, "create") => format!("Error creating: {error}"),
            _ => format!("Error deleting: {error}"),
        }
    }

    fn event<O>(&self, owner: &O, severity: Severity, reason: &'static str, message: String)
    where
        O: Resource<DynamicType = ()>,
    {
        self.context.record(self.controller, owner, severity, reason, message);
    }
}
