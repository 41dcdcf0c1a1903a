//! Who has the default roles from the start.

use super::{BindingRow, SubjectRow};

const KUBE_SYSTEM: &str = "kube-system";
const AUTHENTICATED: SubjectRow = SubjectRow::Group("system:authenticated");
const CONTROLLER_MANAGER: SubjectRow = SubjectRow::User("system:kube-controller-manager");
const SCHEDULER: SubjectRow = SubjectRow::User("system:kube-scheduler");
const BOOTSTRAPPERS: SubjectRow = SubjectRow::Group("system:bootstrappers");

/// A binding of the cluster that has the name of its role.
const fn binding(name: &'static str, subjects: &'static [SubjectRow]) -> BindingRow {
    to(name, name, subjects)
}

const fn to(name: &'static str, role: &'static str, subjects: &'static [SubjectRow]) -> BindingRow {
    BindingRow { namespace: "", name, role: ("ClusterRole", role), subjects }
}

const fn local(name: &'static str, subjects: &'static [SubjectRow]) -> BindingRow {
    BindingRow { namespace: KUBE_SYSTEM, name, role: ("Role", name), subjects }
}

pub(super) const BINDINGS: &[BindingRow] = &[
    binding("cluster-admin", &[SubjectRow::Group("system:masters")]),
    binding("system:monitoring", &[SubjectRow::Group("system:monitoring")]),
    binding("system:discovery", &[AUTHENTICATED]),
    binding("system:basic-user", &[AUTHENTICATED]),
    binding("system:public-info-viewer", &[AUTHENTICATED, SubjectRow::Group("system:unauthenticated")]),
    binding("system:node-proxier", &[SubjectRow::User("system:kube-proxy")]),
    binding("system:kube-controller-manager", &[CONTROLLER_MANAGER]),
    binding("system:kube-dns", &[SubjectRow::ServiceAccount("kube-dns")]),
    binding("system:kube-scheduler", &[SCHEDULER]),
    binding("system:volume-scheduler", &[SCHEDULER]),
    binding("system:node", &[]),
    binding("system:service-account-issuer-discovery", &[SubjectRow::Group("system:serviceaccounts")]),
    local(
        "system::leader-locking-kube-controller-manager",
        &[CONTROLLER_MANAGER, SubjectRow::ServiceAccount("kube-controller-manager")],
    ),
    local(
        "system::leader-locking-kube-scheduler",
        &[SCHEDULER, SubjectRow::ServiceAccount("kube-scheduler")],
    ),
    BindingRow {
        namespace: KUBE_SYSTEM,
        name: "system::extension-apiserver-authentication-reader",
        role: ("Role", "extension-apiserver-authentication-reader"),
        subjects: &[CONTROLLER_MANAGER, SCHEDULER],
    },
    // What upstream's installer adds, too: who has a token can check what is said here.
    BindingRow {
        namespace: "kube-public",
        name: "xebec:cluster-info",
        role: ("Role", "xebec:cluster-info"),
        subjects: &[SubjectRow::User("system:anonymous")],
    },
    // What upstream's installer adds so that machines can join: a token asks for a node's certificate, a node for its
    // next one.
    to("xebec:node-bootstrapper", "system:node-bootstrapper", &[BOOTSTRAPPERS]),
    to(
        "xebec:approve-node-client",
        "system:certificates.k8s.io:certificatesigningrequests:nodeclient",
        &[BOOTSTRAPPERS],
    ),
    to(
        "xebec:approve-self-node-client",
        "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient",
        &[SubjectRow::Group("system:nodes")],
    ),
];
