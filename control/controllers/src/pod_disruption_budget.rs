//! Counts for every PodDisruptionBudget how many of its pods may be evicted.
//!
//! In: PodDisruptionBudgets, Pods, the workloads that own them. Out: the status that the `eviction` sub-resource
//! spends from, Events.

mod plan;
mod scale;

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use kube::Resource;
use xebec_api::labels::Selector;

use crate::cache::{Cache, Change};
use crate::context::{Context, Controller, ControllerQueue, Informers, Outcome};
use crate::error::Error;
use crate::key::{ControllerName, ObjectKey};
use crate::owner;
use crate::patch::{self, Half};
use crate::pod;
use crate::pod_disruption_budget::plan::{Expected, Granted};
use crate::recorder::Severity;

/// The controller. Its keys are PodDisruptionBudgets.
pub(crate) struct DisruptionController {
    context: Context,
    queue: ControllerQueue,
}

impl DisruptionController {
    pub(crate) fn new(context: &Context, informers: &mut Informers) -> Self {
        let queue = context.queue_of(ControllerName::Disruption);
        informers.disruption_budgets.on_change({
            let queue = queue.clone();
            move |change| {
                if let Some(budget) = &change.new {
                    queue.add(ObjectKey::of(budget.as_ref()));
                }
            }
        });
        informers.pods.on_change({
            let (queue, budgets) = (queue.clone(), context.caches.disruption_budgets.clone());
            move |change| enqueue_for_pod(&queue, &budgets, change)
        });
        Self { context: context.clone(), queue }
    }

    async fn sync(&self, key: &ObjectKey) -> Result<Outcome, Error> {
        let Some(budget) = self.context.caches.disruption_budgets.get(key) else {
            return Ok(Outcome::Done);
        };
        let now = Timestamp::now();
        match self.count(key, &budget, now).await {
            Ok((status, next)) => {
                self.write(key, &budget, status).await?;
                Ok(Outcome::after(next.and_then(|left| Duration::try_from(left).ok())))
            }
            Err(error) => {
                // What cannot be counted must not be spent.
                self.write(key, &budget, plan::failed(&budget, &error.to_string(), now)).await?;
                Err(error)
            }
        }
    }

    /// The status, and when it may change with time alone.
    async fn count(
        &self,
        key: &ObjectKey,
        budget: &PodDisruptionBudget,
        now: Timestamp,
    ) -> Result<(PodDisruptionBudgetStatus, Option<jiff::SignedDuration>), Error> {
        let selector = selector(budget)?;
        let mut pods = self.context.caches.pods.in_namespace(&key.namespace);
        pods.retain(|pod| owner::matches(&selector, pod.as_ref()));
        if pods.is_empty() {
            self.event(budget, Severity::Normal, "NoPods", "No matching pods found".to_owned());
        }
        let expected = self.expected(key, budget, &pods).await.inspect_err(|error| {
            let message = format!("Failed to calculate the number of expected pods: {error}");
            self.event(budget, Severity::Warning, "CalculateExpectedPodCountFailed", message);
        })?;
        let granted = plan::granted(budget, &pods, now);
        self.tell_overdue(key, &granted);
        Ok((plan::status(budget, &pods, expected, &granted, now), granted.next))
    }

    async fn expected(
        &self,
        key: &ObjectKey,
        budget: &PodDisruptionBudget,
        pods: &[Arc<Pod>],
    ) -> Result<Expected, Error> {
        let mut wanted = 0;
        if plan::asks_owners(budget) {
            let asked = scale::wanted(&self.context, &key.namespace, pods).await?;
            wanted = asked.pods;
            if !asked.unmanaged.is_empty() {
                let message = format!(
                    "Pods selected by this PodDisruptionBudget were found to be unmanaged ({}). As a result, the \
                     status of the PDB cannot be calculated correctly, which may result in undefined behavior. To \
                     account for these pods please set \".spec.minAvailable\" field of the PDB to an integer value.",
                    asked.unmanaged.join(", ")
                );
                self.event(budget, Severity::Warning, "UnmanagedPods", message);
            }
        }
        plan::expected(budget, pods.len(), wanted).map_err(|error| Error::Invalid {
            object: format!("PodDisruptionBudget {key}"),
            field: "spec",
            reason: error.to_string(),
        })
    }

    fn tell_overdue(&self, key: &ObjectKey, granted: &Granted) {
        for pod in &granted.overdue {
            let message = format!("Pod was expected by PDB {key} to be deleted but it wasn't");
            let name = ControllerName::Disruption;
            self.context.record(name, pod.as_ref(), Severity::Warning, "NotDeleted", message);
        }
    }

    async fn write(
        &self,
        key: &ObjectKey,
        budget: &Arc<PodDisruptionBudget>,
        status: PodDisruptionBudgetStatus,
    ) -> Result<(), Error> {
        let mut desired = (**budget).clone();
        desired.status = Some(status);
        let api = self.context.api(&key.namespace);
        match patch::update(&api, Half::Status, budget.as_ref(), &desired).await {
            Err(error) if error.is_not_found() => Ok(()),
            written => written.map(drop),
        }
    }

    fn event(&self, budget: &PodDisruptionBudget, severity: Severity, reason: &'static str, message: String) {
        self.context.record(ControllerName::Disruption, budget, severity, reason, message);
    }
}

impl Controller for DisruptionController {
    fn reconcile(&self, key: ObjectKey) -> BoxFuture<'_, Result<Outcome, Error>> {
        async move { self.sync(&key).await }.boxed()
    }

    fn enqueue_all(&self) {
        self.queue.add_all(&self.context.caches.disruption_budgets);
    }
}

/// A budget without a selector selects nothing, one with an empty selector everything.
fn selector(budget: &PodDisruptionBudget) -> Result<Selector, Error> {
    let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    Selector::from_label_selector(selector).map_err(|error| Error::Invalid {
        object: format!("PodDisruptionBudget {}", budget.meta().name.as_deref().unwrap_or_default()),
        field: "spec.selector",
        reason: error.to_string(),
    })
}

/// Asks for a run of every budget that counts or counted the pod.
fn enqueue_for_pod(queue: &ControllerQueue, budgets: &Cache<PodDisruptionBudget>, change: &Change<Pod>) {
    let Some(pod) = change.object() else {
        return;
    };
    let what_counts =
        |pod: &Arc<Pod>| (pod.metadata.labels.clone(), pod::is_ready(pod), pod::is_terminating(pod));
    if change.old.as_ref().map(what_counts) == change.new.as_ref().map(what_counts) {
        return;
    }
    for budget in budgets.in_namespace(pod.metadata.namespace.as_deref().unwrap_or_default()) {
        let selects = |selector: Selector| change.sides().any(|pod| owner::matches(&selector, pod.as_ref()));
        if selector(&budget).is_ok_and(selects) {
            queue.add(ObjectKey::of(budget.as_ref()));
        }
    }
}
