//! The legacy group (`/api/v1`).
//!
//! Out: rows for [`super::builtin`].

use super::{Row, STATUS_VERBS, SubRow, Verb, cluster, namespaced};

const SCALE: SubRow = ("scale", ("autoscaling", "v1", "Scale"), STATUS_VERBS);

/// Connections that may begin with any method.
const PROXY_VERBS: &[Verb] = &[Verb::Create, Verb::Delete, Verb::Get, Verb::Patch, Verb::Update];
/// Streams: a WebSocket begins with a GET, SPDY with a POST.
const STREAM_VERBS: &[Verb] = &[Verb::Create, Verb::Get];

pub(super) const CORE: &[Row] = &[
    namespaced("bindings", "Binding").verbs(&[Verb::Create]),
    cluster("componentstatuses", "ComponentStatus").short(&["cs"]).verbs(&[Verb::Get, Verb::List]),
    namespaced("configmaps", "ConfigMap").short(&["cm"]),
    namespaced("endpoints", "Endpoints").short(&["ep"]),
    namespaced("events", "Event").short(&["ev"]),
    namespaced("limitranges", "LimitRange").short(&["limits"]),
    cluster("namespaces", "Namespace")
        .short(&["ns"])
        .verbs(&[Verb::Create, Verb::Delete, Verb::Get, Verb::List, Verb::Patch, Verb::Update, Verb::Watch])
        .status()
        .subresources(&[("finalize", ("", "v1", "Namespace"), &[Verb::Update])]),
    cluster("nodes", "Node").short(&["no"]).status().subresources(&[(
        "proxy",
        ("", "v1", "NodeProxyOptions"),
        PROXY_VERBS,
    )]),
    namespaced("persistentvolumeclaims", "PersistentVolumeClaim").short(&["pvc"]).status().inert(),
    cluster("persistentvolumes", "PersistentVolume").short(&["pv"]).status().inert(),
    namespaced("pods", "Pod").short(&["po"]).category(&["all"]).status().subresources(&[
        ("attach", ("", "v1", "PodAttachOptions"), STREAM_VERBS),
        ("binding", ("", "v1", "Binding"), &[Verb::Create]),
        ("eviction", ("policy", "v1", "Eviction"), &[Verb::Create]),
        ("exec", ("", "v1", "PodExecOptions"), STREAM_VERBS),
        ("log", ("", "v1", "Pod"), &[Verb::Get]),
        ("portforward", ("", "v1", "PodPortForwardOptions"), STREAM_VERBS),
        ("proxy", ("", "v1", "PodProxyOptions"), PROXY_VERBS),
    ]),
    namespaced("podtemplates", "PodTemplate"),
    namespaced("replicationcontrollers", "ReplicationController")
        .short(&["rc"])
        .category(&["all"])
        .status()
        .subresources(&[SCALE]),
    namespaced("resourcequotas", "ResourceQuota").short(&["quota"]).status(),
    namespaced("secrets", "Secret"),
    namespaced("serviceaccounts", "ServiceAccount").short(&["sa"]).subresources(&[(
        "token",
        ("authentication.k8s.io", "v1", "TokenRequest"),
        &[Verb::Create],
    )]),
    namespaced("services", "Service").short(&["svc"]).category(&["all"]).status().subresources(&[(
        "proxy",
        ("", "v1", "ServiceProxyOptions"),
        PROXY_VERBS,
    )]),
];
