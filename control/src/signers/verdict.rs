//! What a request may have: pure rules.
//!
//! In: a request, what it asks for, the node it is from. Out: whether it is approved without anybody looking at it, and
//! whether it can be signed at all.

use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::core::v1::Node;

use super::asked::Asked;
use super::{CLIENT, KUBELET_CLIENT, KUBELET_SERVING};

const NODE_PREFIX: &str = "system:node:";
const NODES: &str = "system:nodes";

/// Whether a request is approved here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Approval {
    /// Somebody has to look at it.
    Leave,
    Grant(&'static str),
    /// If who asks may create this sub-resource of signing requests.
    Ask {
        subresource: &'static str,
        message: &'static str,
    },
}

pub fn approval(request: &CertificateSigningRequest, asked: &Asked, node: Option<&Node>) -> Approval {
    let user = request.spec.username.as_deref().unwrap_or_default();
    match request.spec.signer_name.as_str() {
        KUBELET_CLIENT if kubelet_client_fault(request, asked).is_none() => {
            if user == asked.name {
                Approval::Ask {
                    subresource: "selfnodeclient",
                    message: "Auto approving self kubelet client certificate after SubjectAccessReview.",
                }
            } else {
                Approval::Ask {
                    subresource: "nodeclient",
                    message: "Auto approving kubelet client certificate after SubjectAccessReview.",
                }
            }
        }
        KUBELET_SERVING if kubelet_serving_fault(request, asked).is_none() => {
            let is_node = request.spec.groups.iter().flatten().any(|group| group == NODES);
            if is_node && user == asked.name && node.is_some_and(|node| are_its_own(asked, node)) {
                Approval::Grant("Auto approving kubelet serving certificate for the node's own addresses.")
            } else {
                Approval::Leave
            }
        }
        _ => Approval::Leave,
    }
}

/// Why an approved request cannot be signed.
pub fn signing_fault(request: &CertificateSigningRequest, asked: &Asked) -> Option<String> {
    if let Some(fault) = asked.fault {
        return Some(fault.to_owned());
    }
    match request.spec.signer_name.as_str() {
        KUBELET_CLIENT => kubelet_client_fault(request, asked).map(ToOwned::to_owned),
        KUBELET_SERVING => kubelet_serving_fault(request, asked).map(ToOwned::to_owned),
        CLIENT => usages_fault(request, "client auth").map(ToOwned::to_owned),
        _ => None,
    }
}

fn kubelet_client_fault(request: &CertificateSigningRequest, asked: &Asked) -> Option<&'static str> {
    subject_fault(asked).or_else(|| {
        if asked.has_names() {
            return Some("names are not allowed in client certificates of kubelets");
        }
        usages_fault(request, "client auth")
    })
}

fn kubelet_serving_fault(request: &CertificateSigningRequest, asked: &Asked) -> Option<&'static str> {
    subject_fault(asked).or_else(|| {
        if asked.has_other_names() || (asked.dns.is_empty() && asked.addresses.is_empty()) {
            return Some("DNS names or addresses, and nothing else, are needed in serving certificates");
        }
        usages_fault(request, "server auth")
    })
}

fn subject_fault(asked: &Asked) -> Option<&'static str> {
    if asked.fault.is_some() {
        return asked.fault;
    }
    if asked.organizations != [NODES] {
        return Some("subject organization is not system:nodes");
    }
    let is_node = asked.name.strip_prefix(NODE_PREFIX).is_some_and(|node| !node.is_empty());
    (!is_node).then_some("subject common name does not begin with system:node:")
}

fn usages_fault(request: &CertificateSigningRequest, purpose: &str) -> Option<&'static str> {
    let usages: Vec<&str> = request.spec.usages.iter().flatten().map(String::as_str).collect();
    let free = |usage: &&str| ["digital signature", "key encipherment", purpose].contains(usage);
    let needed = ["digital signature", purpose].iter().all(|usage| usages.contains(usage));
    (!needed || !usages.iter().all(free)).then_some("usages did not match what the signer signs for")
}

/// Every name and address is one the node has told.
fn are_its_own(asked: &Asked, node: &Node) -> bool {
    let told: Vec<&str> = node
        .status
        .iter()
        .flat_map(|status| status.addresses.iter().flatten())
        .map(|address| address.address.as_str())
        .collect();
    let name = node.metadata.name.as_deref().unwrap_or_default();
    asked.dns.iter().all(|dns| dns == name || told.contains(&dns.as_str()))
        && asked.addresses.iter().all(|address| told.contains(&address.to_string().as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn request(signer: &str, user: &str, groups: &[&str], usages: &[&str]) -> CertificateSigningRequest {
        serde_json::from_value(json!({
            "metadata": {"name": "r"},
            "spec": {"request": "", "signerName": signer, "username": user, "groups": groups, "usages": usages},
        }))
        .unwrap()
    }

    fn asked(name: &str) -> Asked {
        Asked { name: name.into(), organizations: vec![NODES.into()], ..Asked::default() }
    }

    fn node() -> Node {
        serde_json::from_value(json!({
            "metadata": {"name": "n1"},
            "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.1"}, {"type": "Hostname", "address": "h1"}]},
        }))
        .unwrap()
    }

    #[test]
    fn a_token_gets_the_certificate_of_a_node_and_nothing_else() {
        let usages = ["digital signature", "client auth"];
        let bootstrap =
            request(KUBELET_CLIENT, "system:bootstrap:abcdef", &["system:bootstrappers"], &usages);
        let asks = |asked: &Asked| {
            matches!(approval(&bootstrap, asked, None), Approval::Ask { subresource: "nodeclient", .. })
        };
        assert!(asks(&asked("system:node:n1")));
        for wrong in [
            asked("system:node:"),
            asked("root"),
            Asked { organizations: vec!["system:masters".into()], ..asked("system:node:n1") },
            Asked { organizations: vec![NODES.into(), "system:masters".into()], ..asked("system:node:n1") },
            Asked { dns: vec!["n1".into()], ..asked("system:node:n1") },
            Asked { fault: Some("subject: exactly one common name is needed"), ..asked("system:node:n1") },
        ] {
            assert_eq!(approval(&bootstrap, &wrong, None), Approval::Leave, "{wrong:?}");
            assert!(signing_fault(&bootstrap, &wrong).is_some(), "{wrong:?}");
        }
        let greedy = request(KUBELET_CLIENT, "u", &[], &["digital signature", "client auth", "server auth"]);
        assert_eq!(approval(&greedy, &asked("system:node:n1"), None), Approval::Leave);
        let own = request(KUBELET_CLIENT, "system:node:n1", &[NODES], &usages);
        let renewed = approval(&own, &asked("system:node:n1"), None);
        assert!(matches!(renewed, Approval::Ask { subresource: "selfnodeclient", .. }));
    }

    #[test]
    fn a_node_serves_under_its_own_names_only() {
        let own = request(KUBELET_SERVING, "system:node:n1", &[NODES], &["digital signature", "server auth"]);
        let with = |dns: &[&str], addresses: &[&str]| Asked {
            dns: dns.iter().map(|&name| name.to_owned()).collect(),
            addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
            ..asked("system:node:n1")
        };
        let node = node();
        for good in [with(&["n1"], &["192.0.2.1"]), with(&["h1"], &[])] {
            assert!(matches!(approval(&own, &good, Some(&node)), Approval::Grant(_)), "{good:?}");
        }
        for bad in [with(&["n2"], &[]), with(&["n1"], &["192.0.2.2"]), with(&[], &[])] {
            assert_eq!(approval(&own, &bad, Some(&node)), Approval::Leave, "{bad:?}");
        }
        assert_eq!(
            approval(&own, &with(&["n1"], &[]), None),
            Approval::Leave,
            "the node has told nothing yet"
        );
        let other =
            request(KUBELET_SERVING, "system:node:n2", &[NODES], &["digital signature", "server auth"]);
        assert_eq!(approval(&other, &with(&["n1"], &[]), Some(&node)), Approval::Leave);
    }
}
