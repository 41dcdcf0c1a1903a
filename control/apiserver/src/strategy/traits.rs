//! Facts about kinds that the registry goes by.
//!
//! In: a kind. Out: whether it counts generations, may be created by an update, and so on, as upstream has it.

use crate::kinds::Gvk;

/// When `metadata.generation` grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Generation {
    /// The kind has none.
    None,
    /// With everything but metadata and status.
    OnSpec,
    /// With these and with annotations.
    OnSpecAndAnnotations,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Traits {
    pub(crate) generation: Generation,
    /// An update of what does not exist creates it.
    pub(crate) create_on_update: bool,
    /// An update without a resource version overwrites.
    pub(crate) unconditional_update: bool,
    /// A deletion answers with the object instead of a `Status`.
    pub(crate) returns_deleted: bool,
    /// Dependents are orphaned unless the request says otherwise.
    pub(crate) orphans_by_default: bool,
    /// The client that creates the object says its first status.
    pub(crate) status_on_create: bool,
}

pub(crate) fn traits(gvk: &Gvk) -> Traits {
    let (group, kind) = (&*gvk.group, &*gvk.kind);
    Traits {
        generation: generation(group, kind),
        create_on_update: matches!(
            (group, kind),
            ("", "Endpoints" | "Event" | "LimitRange") | ("coordination.k8s.io", "Lease")
        ) || group == "rbac.authorization.k8s.io",
        unconditional_update: !matches!(
            (group, kind),
            ("coordination.k8s.io", "Lease")
                | ("policy", "PodDisruptionBudget")
                | ("apiregistration.k8s.io", "APIService")
                | ("apiextensions.k8s.io", "CustomResourceDefinition")
                | ("storage.k8s.io", "CSINode" | "CSIStorageCapacity" | "VolumeAttachment")
        ),
        returns_deleted: matches!(
            (group, kind),
            (
                "",
                "Pod"
                    | "Service"
                    | "ServiceAccount"
                    | "PodTemplate"
                    | "PersistentVolume"
                    | "PersistentVolumeClaim"
                    | "ResourceQuota"
            ) | ("storage.k8s.io", "StorageClass" | "VolumeAttachment" | "CSINode" | "CSIDriver")
        ),
        orphans_by_default: matches!((group, kind), ("", "ReplicationController") | ("batch", "Job")),
        status_on_create: matches!((group, kind), ("", "Node")),
    }
}

/// Of kinds that a CustomResourceDefinition adds.
pub(crate) fn custom() -> Traits {
    Traits {
        generation: Generation::OnSpec,
        create_on_update: false,
        unconditional_update: false,
        returns_deleted: false,
        orphans_by_default: false,
        status_on_create: false,
    }
}

fn generation(group: &str, kind: &str) -> Generation {
    match (group, kind) {
        ("apps", "Deployment") => Generation::OnSpecAndAnnotations,
        ("", "Pod" | "ReplicationController")
        | ("apps", "ReplicaSet" | "DaemonSet" | "StatefulSet")
        | ("batch", "Job" | "CronJob")
        | ("networking.k8s.io", "Ingress" | "IngressClass" | "NetworkPolicy")
        | ("policy", "PodDisruptionBudget")
        | ("discovery.k8s.io", "EndpointSlice")
        | ("scheduling.k8s.io", "PriorityClass")
        | ("admissionregistration.k8s.io" | "flowcontrol.apiserver.k8s.io", _)
        | ("apiextensions.k8s.io", "CustomResourceDefinition")
        | ("resource.k8s.io", "DeviceClass" | "ResourceSlice" | "DeviceTaintRule") => Generation::OnSpec,
        _ => Generation::None,
    }
}
