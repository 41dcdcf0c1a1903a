//! Roles of the cluster's own programs.

use super::{READ, RoleRow, RuleRow, named, on, role};

const KUBE_SYSTEM: &str = "kube-system";
const EVENTS: RuleRow = on(&["create", "patch", "update"], &["", "events.k8s.io"], &["events"]);
const TOKEN_REVIEWS: RuleRow = on(&["create"], &["authentication.k8s.io"], &["tokenreviews"]);
const ACCESS_REVIEWS: RuleRow = on(&["create"], &["authorization.k8s.io"], &["subjectaccessreviews"]);
const LEASES: &[&str] = &["leases"];
const COORDINATION: &[&str] = &["coordination.k8s.io"];
const CERTIFICATES: &[&str] = &["certificates.k8s.io"];
const STORAGE: &[&str] = &["storage.k8s.io"];

pub(super) const ROLES: &[RoleRow] = &[
    role("system:auth-delegator", &[TOKEN_REVIEWS, ACCESS_REVIEWS]),
    role("system:kube-aggregator", &[on(READ, &[""], &["endpoints", "services"])]),
    role("system:kube-controller-manager", CONTROLLER_MANAGER),
    role("system:kube-dns", &[on(&["list", "watch"], &[""], &["endpoints", "services"])]),
    role("system:kube-scheduler", SCHEDULER),
    role(
        "system:volume-scheduler",
        &[
            on(
                &["get", "list", "patch", "update", "watch"],
                &[""],
                &["persistentvolumes", "persistentvolumeclaims"],
            ),
            on(READ, STORAGE, &["storageclasses"]),
        ],
    ),
    role(
        "system:kubelet-api-admin",
        &[
            on(READ, &[""], &["nodes"]),
            on(&["proxy"], &[""], &["nodes"]),
            on(
                &["*"],
                &[""],
                &[
                    "nodes/configz",
                    "nodes/healthz",
                    "nodes/log",
                    "nodes/metrics",
                    "nodes/pods",
                    "nodes/proxy",
                    "nodes/stats",
                ],
            ),
        ],
    ),
    role("system:node", NODE),
    role(
        "system:node-bootstrapper",
        &[on(&["create", "get", "list", "watch"], CERTIFICATES, &["certificatesigningrequests"])],
    ),
    role(
        "system:node-problem-detector",
        &[on(&["get"], &[""], &["nodes"]), on(&["patch"], &[""], &["nodes/status"]), EVENTS],
    ),
    role(
        "system:node-proxier",
        &[
            on(&["list", "watch"], &[""], &["endpoints", "services"]),
            on(READ, &[""], &["nodes"]),
            EVENTS,
            on(&["list", "watch"], &["discovery.k8s.io"], &["endpointslices"]),
            on(&["list", "watch"], &["networking.k8s.io"], &["servicecidrs"]),
        ],
    ),
    role(
        "system:persistent-volume-provisioner",
        &[
            on(&["create", "delete", "get", "list", "watch"], &[""], &["persistentvolumes"]),
            on(&["get", "list", "update", "watch"], &[""], &["persistentvolumeclaims"]),
            on(READ, STORAGE, &["storageclasses"]),
            on(&["watch"], &[""], &["events"]),
            EVENTS,
        ],
    ),
    role(
        "system:certificates.k8s.io:certificatesigningrequests:nodeclient",
        &[on(&["create"], CERTIFICATES, &["certificatesigningrequests/nodeclient"])],
    ),
    role(
        "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient",
        &[on(&["create"], CERTIFICATES, &["certificatesigningrequests/selfnodeclient"])],
    ),
    role(
        "extension-apiserver-authentication-reader",
        &[named(READ, &[""], &["configmaps"], &["extension-apiserver-authentication"])],
    )
    .in_namespace(KUBE_SYSTEM),
    role("xebec:cluster-info", &[named(&["get"], &[""], &["configmaps"], &["cluster-info"])])
        .in_namespace("kube-public"),
    role(
        "system::leader-locking-kube-controller-manager",
        &[
            on(&["watch"], &[""], &["configmaps"]),
            named(&["get", "update"], &[""], &["configmaps"], &["kube-controller-manager"]),
        ],
    )
    .in_namespace(KUBE_SYSTEM),
    role(
        "system::leader-locking-kube-scheduler",
        &[
            on(&["watch"], &[""], &["configmaps"]),
            named(&["get", "update"], &[""], &["configmaps"], &["kube-scheduler"]),
        ],
    )
    .in_namespace(KUBE_SYSTEM),
];

const CONTROLLER_MANAGER: &[RuleRow] = &[
    EVENTS,
    on(&["create"], COORDINATION, LEASES),
    named(&["get", "update"], COORDINATION, LEASES, &["kube-controller-manager"]),
    on(&["create"], &[""], &["secrets", "serviceaccounts"]),
    on(&["delete"], &[""], &["secrets"]),
    on(&["get"], &[""], &["configmaps", "namespaces", "secrets", "serviceaccounts"]),
    on(&["update"], &[""], &["secrets", "serviceaccounts"]),
    TOKEN_REVIEWS,
    ACCESS_REVIEWS,
    on(&["list", "watch"], &["*"], &["*"]),
    on(&["create"], &[""], &["serviceaccounts/token"]),
];

const SCHEDULER: &[RuleRow] = &[
    EVENTS,
    on(&["create"], COORDINATION, LEASES),
    named(&["get", "list", "update", "watch"], COORDINATION, LEASES, &["kube-scheduler"]),
    on(READ, &[""], &["nodes"]),
    on(&["delete", "get", "list", "watch"], &[""], &["pods"]),
    on(&["create"], &[""], &["bindings", "pods/binding"]),
    on(&["patch", "update"], &[""], &["pods/status"]),
    on(READ, &[""], &["replicationcontrollers", "services"]),
    on(READ, &["apps"], &["replicasets", "statefulsets"]),
    on(READ, &["policy"], &["poddisruptionbudgets"]),
    on(READ, &[""], &["persistentvolumeclaims", "persistentvolumes"]),
    TOKEN_REVIEWS,
    ACCESS_REVIEWS,
    on(READ, STORAGE, &["csidrivers", "csinodes", "csistoragecapacities", "volumeattachments"]),
    on(READ, &[""], &["namespaces"]),
    on(READ, &["resource.k8s.io"], &["deviceclasses", "resourceslices"]),
    on(&["get", "list", "patch", "update", "watch"], &["resource.k8s.io"], &["resourceclaims"]),
    on(&["patch", "update"], &["resource.k8s.io"], &["resourceclaims/status"]),
    on(&["update"], &[""], &["pods/finalizers"]),
];

/// Bound to nobody: nodes are let in by the node authorizer, each to its own. Here for those who bind it themselves.
const NODE: &[RuleRow] = &[
    TOKEN_REVIEWS,
    on(&["create"], &["authorization.k8s.io"], &["localsubjectaccessreviews", "subjectaccessreviews"]),
    on(READ, &[""], &["services"]),
    on(&["create", "get", "list", "watch"], &[""], &["nodes"]),
    on(&["patch", "update"], &[""], &["nodes/status"]),
    on(&["patch", "update"], &[""], &["nodes"]),
    on(&["create", "patch", "update"], &[""], &["events"]),
    on(READ, &[""], &["pods"]),
    on(&["create", "delete"], &[""], &["pods"]),
    on(&["patch", "update"], &[""], &["pods/status"]),
    on(&["create"], &[""], &["pods/eviction"]),
    on(READ, &[""], &["configmaps", "secrets"]),
    on(&["get"], &[""], &["persistentvolumeclaims", "persistentvolumes"]),
    on(&["get"], &[""], &["endpoints"]),
    on(&["create", "get", "list", "watch"], CERTIFICATES, &["certificatesigningrequests"]),
    on(&["create", "delete", "get", "patch", "update"], COORDINATION, LEASES),
    on(&["get"], STORAGE, &["volumeattachments"]),
    on(&["create"], &[""], &["serviceaccounts/token"]),
    on(&["get", "patch", "update"], &[""], &["persistentvolumeclaims/status"]),
    on(READ, STORAGE, &["csidrivers"]),
    on(&["create", "delete", "get", "patch", "update"], STORAGE, &["csinodes"]),
    on(READ, &["node.k8s.io"], &["runtimeclasses"]),
    on(&["get"], &["resource.k8s.io"], &["resourceclaims"]),
    on(&["deletecollection"], &["resource.k8s.io"], &["resourceslices"]),
    on(
        &["create", "delete", "get", "list", "patch", "update", "watch"],
        &["resource.k8s.io"],
        &["resourceslices"],
    ),
];
