//! The named groups (`/apis/...`), in upstream's order of preference.
//!
//! Out: rows for [`super::builtin`].

use super::{Group, STATUS_VERBS, SubRow, Verb, cluster, namespaced};

const SCALE: SubRow = ("scale", ("autoscaling", "v1", "Scale"), STATUS_VERBS);
const EXTENSIONS: &[&str] = &["api-extensions"];
const CREATE_ONLY: &[Verb] = &[Verb::Create];

pub(super) const GROUPS: &[Group] = &[
    Group {
        name: "apiregistration.k8s.io",
        version: "v1",
        resources: &[cluster("apiservices", "APIService").category(EXTENSIONS).status().inert()],
    },
    Group {
        name: "apps",
        version: "v1",
        resources: &[
            namespaced("controllerrevisions", "ControllerRevision"),
            namespaced("daemonsets", "DaemonSet").short(&["ds"]).category(&["all"]).status(),
            namespaced("deployments", "Deployment")
                .short(&["deploy"])
                .category(&["all"])
                .status()
                .subresources(&[SCALE]),
            namespaced("replicasets", "ReplicaSet")
                .short(&["rs"])
                .category(&["all"])
                .status()
                .subresources(&[SCALE]),
            namespaced("statefulsets", "StatefulSet")
                .short(&["sts"])
                .category(&["all"])
                .status()
                .subresources(&[SCALE]),
        ],
    },
    Group {
        name: "events.k8s.io",
        version: "v1",
        resources: &[namespaced("events", "Event").short(&["ev"]).stored_as("", "v1")],
    },
    Group {
        name: "authentication.k8s.io",
        version: "v1",
        resources: &[
            cluster("selfsubjectreviews", "SelfSubjectReview").verbs(CREATE_ONLY),
            cluster("tokenreviews", "TokenReview").verbs(CREATE_ONLY),
        ],
    },
    Group {
        name: "authorization.k8s.io",
        version: "v1",
        resources: &[
            namespaced("localsubjectaccessreviews", "LocalSubjectAccessReview").verbs(CREATE_ONLY),
            cluster("selfsubjectaccessreviews", "SelfSubjectAccessReview").verbs(CREATE_ONLY),
            cluster("selfsubjectrulesreviews", "SelfSubjectRulesReview").verbs(CREATE_ONLY),
            cluster("subjectaccessreviews", "SubjectAccessReview").verbs(CREATE_ONLY),
        ],
    },
    Group {
        name: "autoscaling",
        version: "v2",
        resources: &[namespaced("horizontalpodautoscalers", "HorizontalPodAutoscaler")
            .short(&["hpa"])
            .category(&["all"])
            .status()
            .inert()],
    },
    Group {
        name: "autoscaling",
        version: "v1",
        resources: &[namespaced("horizontalpodautoscalers", "HorizontalPodAutoscaler")
            .short(&["hpa"])
            .category(&["all"])
            .status()
            .stored_as("autoscaling", "v2")
            .inert()],
    },
    Group {
        name: "batch",
        version: "v1",
        resources: &[
            namespaced("cronjobs", "CronJob").short(&["cj"]).category(&["all"]).status(),
            namespaced("jobs", "Job").category(&["all"]).status(),
        ],
    },
    Group {
        name: "certificates.k8s.io",
        version: "v1",
        resources: &[
            cluster("certificatesigningrequests", "CertificateSigningRequest")
                .short(&["csr"])
                .status()
                .subresources(&[(
                    "approval",
                    ("certificates.k8s.io", "v1", "CertificateSigningRequest"),
                    STATUS_VERBS,
                )]),
            cluster("clustertrustbundles", "ClusterTrustBundle").inert(),
            namespaced("podcertificaterequests", "PodCertificateRequest").status().inert(),
        ],
    },
    Group {
        name: "networking.k8s.io",
        version: "v1",
        resources: &[
            cluster("ingressclasses", "IngressClass").inert(),
            namespaced("ingresses", "Ingress").short(&["ing"]).status().inert(),
            cluster("ipaddresses", "IPAddress").short(&["ip"]).inert(),
            namespaced("networkpolicies", "NetworkPolicy").short(&["netpol"]).inert(),
            cluster("servicecidrs", "ServiceCIDR").status().inert(),
        ],
    },
    Group {
        name: "policy",
        version: "v1",
        resources: &[namespaced("poddisruptionbudgets", "PodDisruptionBudget").short(&["pdb"]).status()],
    },
    Group {
        name: "rbac.authorization.k8s.io",
        version: "v1",
        resources: &[
            cluster("clusterrolebindings", "ClusterRoleBinding"),
            cluster("clusterroles", "ClusterRole"),
            namespaced("rolebindings", "RoleBinding"),
            namespaced("roles", "Role"),
        ],
    },
    Group {
        name: "storage.k8s.io",
        version: "v1",
        resources: &[
            cluster("csidrivers", "CSIDriver").inert(),
            cluster("csinodes", "CSINode").inert(),
            namespaced("csistoragecapacities", "CSIStorageCapacity").inert(),
            cluster("storageclasses", "StorageClass").short(&["sc"]).inert(),
            cluster("volumeattachments", "VolumeAttachment").status().inert(),
            cluster("volumeattributesclasses", "VolumeAttributesClass").short(&["vac"]).inert(),
        ],
    },
    Group {
        name: "admissionregistration.k8s.io",
        version: "v1",
        resources: &[
            cluster("mutatingadmissionpolicies", "MutatingAdmissionPolicy").category(EXTENSIONS).inert(),
            cluster("mutatingadmissionpolicybindings", "MutatingAdmissionPolicyBinding")
                .category(EXTENSIONS)
                .inert(),
            cluster("mutatingwebhookconfigurations", "MutatingWebhookConfiguration")
                .category(EXTENSIONS)
                .inert(),
            cluster("validatingadmissionpolicies", "ValidatingAdmissionPolicy")
                .category(EXTENSIONS)
                .status()
                .inert(),
            cluster("validatingadmissionpolicybindings", "ValidatingAdmissionPolicyBinding")
                .category(EXTENSIONS)
                .inert(),
            cluster("validatingwebhookconfigurations", "ValidatingWebhookConfiguration")
                .category(EXTENSIONS)
                .inert(),
        ],
    },
    Group {
        name: "apiextensions.k8s.io",
        version: "v1",
        resources: &[cluster("customresourcedefinitions", "CustomResourceDefinition")
            .short(&["crd", "crds"])
            .category(EXTENSIONS)
            .status()],
    },
    Group {
        name: "scheduling.k8s.io",
        version: "v1",
        resources: &[cluster("priorityclasses", "PriorityClass").short(&["pc"])],
    },
    Group { name: "coordination.k8s.io", version: "v1", resources: &[namespaced("leases", "Lease")] },
    Group {
        name: "node.k8s.io",
        version: "v1",
        resources: &[cluster("runtimeclasses", "RuntimeClass").inert()],
    },
    Group {
        name: "discovery.k8s.io",
        version: "v1",
        resources: &[namespaced("endpointslices", "EndpointSlice")],
    },
    Group {
        name: "flowcontrol.apiserver.k8s.io",
        version: "v1",
        resources: &[
            cluster("flowschemas", "FlowSchema").status().inert(),
            cluster("prioritylevelconfigurations", "PriorityLevelConfiguration").status().inert(),
        ],
    },
    Group {
        name: "resource.k8s.io",
        version: "v1",
        resources: &[
            cluster("deviceclasses", "DeviceClass").inert(),
            cluster("devicetaintrules", "DeviceTaintRule").status().inert(),
            namespaced("resourceclaims", "ResourceClaim").status().inert(),
            namespaced("resourceclaimtemplates", "ResourceClaimTemplate").inert(),
            cluster("resourceslices", "ResourceSlice").inert(),
        ],
    },
    Group {
        name: "storagemigration.k8s.io",
        version: "v1",
        resources: &[cluster("storageversionmigrations", "StorageVersionMigration").status().inert()],
    },
];
