//! This node's EndpointSlices of the `kube-dns` Service.
//!
//! In: the node's name and addresses, the port of its DNS process. Out: one slice per family, `kube-dns-<node>-ipv4`, kept
//! as it should be. With `internalTrafficPolicy: Local` each node's pods use their own node's DNS, without any special
//! case in the datapath. A `kube-dns` Service of another kind is another's: a cluster whose DNS runs in pods has one with
//! a selector, and a slice of ours beside theirs would send part of its queries astray.

use std::net::IpAddr;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

const NAMESPACE: &str = "kube-system";
const SERVICE: &str = "kube-dns";
/// Who looks after the slice, so that the endpoint-slice controller leaves it alone.
const MANAGER: &str = "xebec-agent";
/// The first wait after a failure; it doubles.
const RETRY: Duration = Duration::from_secs(2);
const LONGEST_RETRY: Duration = Duration::from_secs(60);
/// Safety net against a slice that somebody deleted.
const RESYNC: Duration = Duration::from_secs(300);
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// What became of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    Written,
    /// The Service is not there.
    Absent,
    /// The Service is answered by others.
    Foreign,
    Failed(String),
}

/// Keeps the slices until shut down. They stay when the agent ends: the DNS process goes on.
pub async fn keep(
    client: Client,
    node: String,
    addresses: Vec<IpAddr>,
    port: u16,
    shutdown: CancellationToken,
) {
    let (mut last, mut retry) = (Outcome::Written, RETRY);
    while !shutdown.is_cancelled() {
        let outcome = match tokio::time::timeout(CALL_TIMEOUT, ensure(&client, &node, &addresses, port)).await
        {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(error)) => Outcome::Failed(error.to_string()),
            Err(_) => Outcome::Failed("no answer in time".to_owned()),
        };
        if outcome != last {
            outcome.tell();
        }
        let wait = match outcome {
            Outcome::Written | Outcome::Foreign => {
                retry = RETRY;
                RESYNC
            }
            Outcome::Absent | Outcome::Failed(_) => {
                let wait = retry;
                retry = (retry * 2).min(LONGEST_RETRY);
                wait
            }
        };
        last = outcome;
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = shutdown.cancelled() => {}
        }
    }
}

// === impl Outcome ===

impl Outcome {
    fn tell(&self) {
        match self {
            Self::Written => tracing::info!("the node's kube-dns slices are written"),
            Self::Absent => {
                tracing::warn!("there is no Service {NAMESPACE}/{SERVICE}: it gets no slices yet");
            }
            Self::Foreign => {
                tracing::info!(
                    "{NAMESPACE}/{SERVICE} is answered by others: the node's DNS adds no slices to it"
                );
            }
            Self::Failed(why) => tracing::warn!("cannot write the node's kube-dns slices: {why}"),
        }
    }
}

/// Whether the Service is one whose slices the nodes write.
fn is_for_nodes(service: &Service) -> bool {
    let Some(spec) = &service.spec else { return false };
    spec.selector.as_ref().is_none_or(std::collections::BTreeMap::is_empty)
        && spec.internal_traffic_policy.as_deref() == Some("Local")
}

async fn ensure(client: &Client, node: &str, addresses: &[IpAddr], port: u16) -> kube::Result<Outcome> {
    let Some(service) = Api::<Service>::namespaced(client.clone(), NAMESPACE).get_opt(SERVICE).await? else {
        return Ok(Outcome::Absent);
    };
    if !is_for_nodes(&service) {
        return Ok(Outcome::Foreign);
    }
    // Owned by the Node: a node that is gone answers no queries.
    let owner = Api::<Node>::all(client.clone()).get(node).await?;
    let slices: Api<EndpointSlice> = Api::namespaced(client.clone(), NAMESPACE);
    let families = service.spec.and_then(|s| s.ip_families).unwrap_or_default();
    for address in addresses {
        let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
        if !families.is_empty() && !families.iter().any(|f| f == family) {
            continue;
        }
        let wanted = slice(node, &owner.uid().unwrap_or_default(), *address, family, port);
        let object: EndpointSlice =
            serde_json::from_value(wanted.clone()).map_err(kube::Error::SerdeError)?;
        let name = object.name_any();
        match slices.get_opt(&name).await? {
            None => slices.create(&PostParams::default(), &object).await.map(drop)?,
            Some(held) if held.endpoints == object.endpoints && held.ports == object.ports => {}
            Some(_) => slices.patch(&name, &PatchParams::default(), &Patch::Merge(wanted)).await.map(drop)?,
        }
    }
    Ok(Outcome::Written)
}

fn slice(node: &str, uid: &str, address: IpAddr, family: &str, port: u16) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": format!("{SERVICE}-{node}-{}", family.to_ascii_lowercase()),
            "namespace": NAMESPACE,
            "labels": {
                "kubernetes.io/service-name": SERVICE,
                "endpointslice.kubernetes.io/managed-by": MANAGER,
            },
            "ownerReferences": [{ "apiVersion": "v1", "kind": "Node", "name": node, "uid": uid }],
        },
        "addressType": family,
        "endpoints": [{
            "addresses": [address.to_string()],
            "conditions": { "ready": true, "serving": true, "terminating": false },
            "nodeName": node,
        }],
        "ports": [
            { "name": "dns", "port": port, "protocol": "UDP" },
            { "name": "dns-tcp", "port": port, "protocol": "TCP" },
        ],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dns_of_another_cluster_is_left_alone() {
        let service = |spec: Value| serde_json::from_value(json!({ "spec": spec })).unwrap();
        assert!(is_for_nodes(&service(json!({ "internalTrafficPolicy": "Local" }))));
        assert!(!is_for_nodes(&service(json!({ "internalTrafficPolicy": "Cluster" }))));
        assert!(!is_for_nodes(&service(json!({}))));
        let selector = json!({ "internalTrafficPolicy": "Local", "selector": { "k8s-app": "kube-dns" } });
        assert!(!is_for_nodes(&service(selector)));
    }

    #[test]
    fn a_slice_names_its_node_and_another_port_than_53() {
        let value = slice("n1", "u", "10.0.0.1".parse().unwrap(), "IPv4", 10053);
        let slice: EndpointSlice = serde_json::from_value(value).unwrap();
        assert_eq!(slice.name_any(), "kube-dns-n1-ipv4");
        assert_eq!(slice.endpoints.unwrap()[0].node_name.as_deref(), Some("n1"));
        assert_eq!(slice.ports.unwrap()[0].port, Some(10053));
    }
}
