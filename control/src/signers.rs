//! The cluster's signers: what nodes may have for the asking is approved, what is approved is signed.
//!
//! In: CertificateSigningRequests, the CA. Out: approvals and certificates, or why there is none; old requests go.
//! Absent: any judgement about requests to other signers.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::TryStreamExt;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::core::v1::Node;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::pki::Authority;

mod asked;
mod verdict;

use asked::Asked;
use verdict::{Approval, approval, signing_fault};

pub const CLIENT: &str = "kubernetes.io/kube-apiserver-client";
pub const KUBELET_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
pub const KUBELET_SERVING: &str = "kubernetes.io/kubelet-serving";
const LEGACY: &str = "kubernetes.io/legacy-unknown";

/// How often requests that wait for something else (a Node's addresses, a role) are looked at again.
const AGAIN: Duration = Duration::from_secs(5);
const SETTLED_KEPT: SignedDuration = SignedDuration::from_hours(1);
const PENDING_KEPT: SignedDuration = SignedDuration::from_hours(24);

/// Approves and signs, until told to stop. `life` is the longest a certificate lives, and how long it does when nobody asks
/// for less.
pub async fn run(client: Client, authority: Arc<Authority>, life: Duration, stop: CancellationToken) {
    let requests: Api<CertificateSigningRequest> = Api::all(client.clone());
    let signers = Signers { client, requests: requests.clone(), authority, life };
    let changes = watcher(requests, watcher::Config::default()).default_backoff().applied_objects();
    let mut changes = std::pin::pin!(changes);
    let mut ticks = tokio::time::interval(AGAIN);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            change = changes.try_next() => match change {
                Ok(Some(request)) => signers.look(&request).await,
                Ok(None) => return,
                Err(error) => tracing::debug!(%error, "the watch of signing requests goes on"),
            },
            _ = ticks.tick() => signers.look_again().await,
        }
    }
}

struct Signers {
    client: Client,
    requests: Api<CertificateSigningRequest>,
    authority: Arc<Authority>,
    life: Duration,
}

// === impl Signers ===

impl Signers {
    async fn look(&self, request: &CertificateSigningRequest) {
        if let Err(error) = self.settle(request).await {
            tracing::warn!(request = request.name_any(), "not signed: {error:#}");
        }
    }

    /// What still waits is looked at, what is long settled goes.
    async fn look_again(&self) {
        let Ok(all) = self.requests.list(&ListParams::default()).await else { return };
        for request in all {
            let age = request
                .creation_timestamp()
                .map_or(SignedDuration::ZERO, |time| Timestamp::now().duration_since(time.0));
            let settled = is_issued(&request) || has(&request, "Denied") || has(&request, "Failed");
            if age > PENDING_KEPT || (settled && age > SETTLED_KEPT) {
                // Gone already, or gone with the next tick.
                let _gone = self.requests.delete(&request.name_any(), &DeleteParams::default()).await;
            } else if !settled {
                self.look(&request).await;
            }
        }
    }

    async fn settle(&self, request: &CertificateSigningRequest) -> Result<()> {
        if is_issued(request) || has(request, "Denied") || has(request, "Failed") {
            return Ok(());
        }
        let signer = request.spec.signer_name.as_str();
        if ![CLIENT, KUBELET_CLIENT, KUBELET_SERVING, LEGACY].contains(&signer) {
            return Ok(());
        }
        let asked = Asked::of(request)?;
        if has(request, "Approved") {
            return self.sign(request, &asked).await;
        }
        let node = match request.spec.username.as_deref().and_then(|user| user.strip_prefix("system:node:")) {
            Some(node) => Api::<Node>::all(self.client.clone()).get_opt(node).await?,
            None => None,
        };
        let message = match approval(request, &asked, node.as_ref()) {
            Approval::Leave => return Ok(()),
            Approval::Grant(message) => message,
            Approval::Ask { subresource, message } => {
                if !self.may(request, subresource).await? {
                    return Ok(());
                }
                message
            }
        };
        let mut conditions = conditions(request);
        conditions.push(condition("Approved", "AutoApproved", message));
        let patch = json!({ "status": { "conditions": conditions } });
        let params = PatchParams::default();
        self.requests.patch_approval(&request.name_any(), &params, &Patch::Merge(patch)).await?;
        Ok(())
    }

    /// Whether who asks may ask for this.
    async fn may(&self, request: &CertificateSigningRequest, subresource: &str) -> Result<bool> {
        let spec = &request.spec;
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: spec.username.clone(),
                uid: spec.uid.clone(),
                groups: spec.groups.clone(),
                extra: spec.extra.clone(),
                resource_attributes: Some(ResourceAttributes {
                    group: Some("certificates.k8s.io".into()),
                    resource: Some("certificatesigningrequests".into()),
                    subresource: Some(subresource.into()),
                    verb: Some("create".into()),
                    ..ResourceAttributes::default()
                }),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let reviews: Api<SubjectAccessReview> = Api::all(self.client.clone());
        let answer = reviews.create(&PostParams::default(), &review).await?;
        Ok(answer.status.is_some_and(|status| status.allowed))
    }

    async fn sign(&self, request: &CertificateSigningRequest, asked: &Asked) -> Result<()> {
        let status = match signing_fault(request, asked) {
            Some(fault) => {
                let mut conditions = conditions(request);
                conditions.push(condition("Failed", "SignerValidationFailure", &fault));
                json!({ "conditions": conditions })
            }
            None => {
                let life = match request.spec.expiration_seconds {
                    Some(seconds) => {
                        self.life.min(Duration::from_secs(u64::try_from(seconds).unwrap_or(600)))
                    }
                    None => self.life,
                };
                let usages = request.spec.usages.clone().unwrap_or_default();
                let names = asked.alternative_names()?;
                let certificate =
                    self.authority.sign_request(&asked.der, asked.subject(), names, &usages, life)?;
                json!({ "certificate": STANDARD.encode(certificate) })
            }
        };
        let patch = Patch::Merge(json!({ "status": status }));
        self.requests.patch_status(&request.name_any(), &PatchParams::default(), &patch).await?;
        tracing::info!(
            request = request.name_any(),
            signer = request.spec.signer_name,
            "signing request settled"
        );
        Ok(())
    }
}

fn is_issued(request: &CertificateSigningRequest) -> bool {
    request.status.as_ref().is_some_and(|status| status.certificate.is_some())
}

fn has(request: &CertificateSigningRequest, kind: &str) -> bool {
    let conditions = request.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == kind)
}

fn conditions(request: &CertificateSigningRequest) -> Vec<Value> {
    let held = request.status.as_ref().and_then(|status| status.conditions.as_ref());
    held.into_iter().flatten().filter_map(|condition| serde_json::to_value(condition).ok()).collect()
}

fn condition(kind: &str, reason: &str, message: &str) -> Value {
    let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    json!({
        "type": kind, "status": "True", "reason": reason, "message": message,
        "lastUpdateTime": now, "lastTransitionTime": now,
    })
}
