//! Roles for people: `cluster-admin`, `admin`, `edit`, `view` and what everyone may.

use super::{READ, READ_WRITE, RoleRow, RuleRow, WRITE, named, on, paths, role};

const SIGNERS: &[&str] = &["signers"];
const CERTIFICATES: &[&str] = &["certificates.k8s.io"];

pub(super) const ROLES: &[RoleRow] = &[
    role("cluster-admin", &[on(&["*"], &["*"], &["*"]), paths(&["*"], &["*"])]),
    role("admin", &[]).of("admin"),
    role("edit", &[]).of("edit").to("admin"),
    role("view", &[]).of("view").to("edit"),
    role(
        "system:aggregate-to-admin",
        &[
            on(&["create"], &["authorization.k8s.io"], &["localsubjectaccessreviews"]),
            on(READ_WRITE, &["rbac.authorization.k8s.io"], &["rolebindings", "roles"]),
        ],
    )
    .to("admin"),
    role("system:aggregate-to-edit", EDIT).to("edit"),
    role("system:aggregate-to-view", VIEW).to("view"),
    role(
        "system:discovery",
        &[paths(
            &["get"],
            &[
                "/api",
                "/api/*",
                "/apis",
                "/apis/*",
                "/healthz",
                "/livez",
                "/openapi",
                "/openapi/*",
                "/readyz",
                "/version",
                "/version/",
            ],
        )],
    ),
    role(
        "system:public-info-viewer",
        &[paths(&["get"], &["/healthz", "/livez", "/readyz", "/version", "/version/"])],
    ),
    role(
        "system:basic-user",
        &[
            on(
                &["create"],
                &["authorization.k8s.io"],
                &["selfsubjectaccessreviews", "selfsubjectrulesreviews"],
            ),
            on(&["create"], &["authentication.k8s.io"], &["selfsubjectreviews"]),
        ],
    ),
    role(
        "system:monitoring",
        &[paths(
            &["get"],
            &[
                "/healthz",
                "/healthz/*",
                "/livez",
                "/livez/*",
                "/metrics",
                "/metrics/slis",
                "/readyz",
                "/readyz/*",
            ],
        )],
    ),
    role(
        "system:service-account-issuer-discovery",
        &[paths(&["get"], &["/.well-known/openid-configuration", "/openid/v1/jwks"])],
    ),
    role(
        "system:certificates.k8s.io:legacy-unknown-approver",
        &[named(&["approve"], CERTIFICATES, SIGNERS, &["kubernetes.io/legacy-unknown"])],
    ),
    role(
        "system:certificates.k8s.io:kubelet-serving-approver",
        &[named(&["approve"], CERTIFICATES, SIGNERS, &["kubernetes.io/kubelet-serving"])],
    ),
    role(
        "system:certificates.k8s.io:kube-apiserver-client-approver",
        &[named(&["approve"], CERTIFICATES, SIGNERS, &["kubernetes.io/kube-apiserver-client"])],
    ),
    role(
        "system:certificates.k8s.io:kube-apiserver-client-kubelet-approver",
        &[named(&["approve"], CERTIFICATES, SIGNERS, &["kubernetes.io/kube-apiserver-client-kubelet"])],
    ),
];

const EDIT: &[RuleRow] = &[
    on(
        READ,
        &[""],
        &["pods/attach", "pods/exec", "pods/portforward", "pods/proxy", "secrets", "services/proxy"],
    ),
    on(&["impersonate"], &[""], &["serviceaccounts"]),
    on(WRITE, &[""], &["pods", "pods/attach", "pods/exec", "pods/portforward", "pods/proxy"]),
    on(&["create"], &[""], &["pods/eviction"]),
    on(
        WRITE,
        &[""],
        &[
            "configmaps",
            "events",
            "persistentvolumeclaims",
            "replicationcontrollers",
            "replicationcontrollers/scale",
            "secrets",
            "serviceaccounts",
            "services",
            "services/proxy",
        ],
    ),
    on(&["create"], &[""], &["serviceaccounts/token"]),
    on(
        WRITE,
        &["apps"],
        &[
            "daemonsets",
            "deployments",
            "deployments/rollback",
            "deployments/scale",
            "replicasets",
            "replicasets/scale",
            "statefulsets",
            "statefulsets/scale",
        ],
    ),
    on(WRITE, &["autoscaling"], &["horizontalpodautoscalers"]),
    on(WRITE, &["batch"], &["cronjobs", "jobs"]),
    on(WRITE, &["policy"], &["poddisruptionbudgets"]),
    on(WRITE, &["networking.k8s.io"], &["ingresses", "networkpolicies"]),
    on(READ_WRITE, &["coordination.k8s.io"], &["leases"]),
];

const VIEW: &[RuleRow] = &[
    on(
        READ,
        &[""],
        &[
            "configmaps",
            "endpoints",
            "persistentvolumeclaims",
            "persistentvolumeclaims/status",
            "pods",
            "replicationcontrollers",
            "replicationcontrollers/scale",
            "serviceaccounts",
            "services",
            "services/status",
        ],
    ),
    on(
        READ,
        &[""],
        &[
            "bindings",
            "events",
            "limitranges",
            "namespaces/status",
            "pods/log",
            "pods/status",
            "replicationcontrollers/status",
            "resourcequotas",
            "resourcequotas/status",
        ],
    ),
    on(READ, &[""], &["namespaces"]),
    on(READ, &["discovery.k8s.io"], &["endpointslices"]),
    on(
        READ,
        &["apps"],
        &[
            "controllerrevisions",
            "daemonsets",
            "daemonsets/status",
            "deployments",
            "deployments/scale",
            "deployments/status",
            "replicasets",
            "replicasets/scale",
            "replicasets/status",
            "statefulsets",
            "statefulsets/scale",
            "statefulsets/status",
        ],
    ),
    on(READ, &["autoscaling"], &["horizontalpodautoscalers", "horizontalpodautoscalers/status"]),
    on(READ, &["batch"], &["cronjobs", "cronjobs/status", "jobs", "jobs/status"]),
    on(READ, &["policy"], &["poddisruptionbudgets", "poddisruptionbudgets/status"]),
    on(READ, &["networking.k8s.io"], &["ingresses", "ingresses/status", "networkpolicies"]),
];
