//! What makes a pod of a StatefulSet that pod and no other: its name, its labels, its host name, its claims.
//!
//! In: a StatefulSet, an ordinal, a template. Out: the pod and the claims it needs. Pure.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, Pod, PodTemplateSpec, Volume,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use xebec_api::wellknown::labels::{CONTROLLER_REVISION_HASH, POD_INDEX, STATEFULSET_POD_NAME};

use crate::owner::controller_reference;
use crate::pod_template::pod_from;

pub(crate) fn name_of(set: &StatefulSet) -> &str {
    set.metadata.name.as_deref().unwrap_or_default()
}

pub(crate) fn pod_name(set: &StatefulSet, ordinal: i32) -> String {
    format!("{}-{ordinal}", name_of(set))
}

/// The ordinal in a pod's name; `None` when the pod is not named after the set.
pub(crate) fn ordinal_of(set: &StatefulSet, pod: &Pod) -> Option<i32> {
    let rest = pod.metadata.name.as_deref()?.strip_prefix(name_of(set))?.strip_prefix('-')?;
    let ordinal = rest.parse::<i32>().ok().filter(|ordinal| *ordinal >= 0)?;
    // `web-01` is another's name.
    (ordinal.to_string() == rest).then_some(ordinal)
}

/// The ordinals the set wants, in order.
pub(crate) fn ordinals(set: &StatefulSet) -> std::ops::Range<i32> {
    let start = set.spec.ordinals.as_ref().and_then(|ordinals| ordinals.start).unwrap_or(0);
    start..start.saturating_add(set.spec.replicas.unwrap_or(1))
}

/// The pod of an ordinal, of the revision whose template this is.
pub(crate) fn pod(set: &StatefulSet, ordinal: i32, template: &PodTemplateSpec, revision: &str) -> Pod {
    let mut pod = pod_from(template, &controller_reference(set));
    let name = pod_name(set, ordinal);
    pod.metadata.generate_name = None;
    pod.metadata.name = Some(name.clone());
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(STATEFULSET_POD_NAME.to_owned(), name.clone());
    labels.insert(POD_INDEX.to_owned(), ordinal.to_string());
    labels.insert(CONTROLLER_REVISION_HASH.to_owned(), revision.to_owned());
    if let Some(spec) = &mut pod.spec {
        spec.hostname = Some(name);
        spec.subdomain = set.spec.service_name.clone().filter(|service| !service.is_empty());
        let claimed: Vec<Volume> = templates(set).map(|template| volume(set, ordinal, template)).collect();
        let volumes = spec.volumes.get_or_insert_default();
        volumes.retain(|volume| !claimed.iter().any(|claimed| claimed.name == volume.name));
        volumes.extend(claimed);
        if volumes.is_empty() {
            spec.volumes = None;
        }
    }
    pod
}

fn templates(set: &StatefulSet) -> impl Iterator<Item = &PersistentVolumeClaim> {
    set.spec.volume_claim_templates.iter().flatten()
}

fn template_name(template: &PersistentVolumeClaim) -> &str {
    template.metadata.name.as_deref().unwrap_or_default()
}

fn claim_name(set: &StatefulSet, ordinal: i32, template: &PersistentVolumeClaim) -> String {
    format!("{}-{}", template_name(template), pod_name(set, ordinal))
}

fn volume(set: &StatefulSet, ordinal: i32, template: &PersistentVolumeClaim) -> Volume {
    Volume {
        name: template_name(template).to_owned(),
        persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
            claim_name: claim_name(set, ordinal, template),
            read_only: Some(false),
        }),
        ..Volume::default()
    }
}

/// The claims of an ordinal; they outlive its pods.
pub(crate) fn claims(set: &StatefulSet, ordinal: i32) -> Vec<PersistentVolumeClaim> {
    let claim = |template: &PersistentVolumeClaim| {
        let mut claim = template.clone();
        claim.status = None;
        claim.metadata.name = Some(claim_name(set, ordinal, template));
        claim.metadata.namespace = set.metadata.namespace.clone();
        let labels = claim.metadata.labels.get_or_insert_default();
        labels.extend(set.spec.selector.match_labels.clone().unwrap_or_default());
        if deletes_claims_with_set(set) {
            let mut owner = controller_reference(set);
            owner.block_owner_deletion = None;
            claim.metadata.owner_references = Some(vec![OwnerReference { controller: None, ..owner }]);
        }
        claim
    };
    templates(set).map(claim).collect()
}

/// The claims go with the set instead of outliving it.
fn deletes_claims_with_set(set: &StatefulSet) -> bool {
    let policy = set.spec.persistent_volume_claim_retention_policy.as_ref();
    policy.and_then(|policy| policy.when_deleted.as_deref()) == Some("Delete")
}
