//! Whether a pod that is bound to this node may run on it: asked once, before anything is made for it.
//!
//! Pure. In: the pod, the pods that were admitted before and have not ended, what the node has. Out: nothing, or the
//! [`Rejection`] that becomes the status of a failed pod. Two schedulers, or a pod bound by hand, can bind too much.

use k8s_openapi::api::core::v1::Pod;

use crate::pod;
use crate::resources::{self, NodeCapacity};
use crate::security;
use crate::unsupported;

/// Why a pod must not run here, in upstream's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    pub reason: String,
    pub message: String,
}

impl Rejection {
    fn new(reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self { reason: reason.into(), message: message.into() }
    }
}

/// What can be given to pods.
#[derive(Clone, Copy, Debug)]
pub struct Allocatable {
    pub capacity: NodeCapacity,
    pub max_pods: u32,
}

/// A port of the node that a pod wants for itself. An empty address is every address.
#[derive(Debug, PartialEq, Eq)]
struct HostPort<'a> {
    address: &'a str,
    protocol: &'a str,
    port: i32,
}

pub fn check(pod: &Pod, admitted: &[&Pod], node: Allocatable) -> Result<(), Rejection> {
    security::check_sysctls(pod).map_err(|message| Rejection::new("SysctlForbidden", message))?;
    if let Some(unsupported) = unsupported::of_pod(pod) {
        return Err(Rejection::new(unsupported.reason, unsupported.message));
    }
    check_os(pod)?;
    check_resources(pod, admitted, node)?;
    check_ports(pod, admitted)
}

fn check_os(pod: &Pod) -> Result<(), Rejection> {
    let spec = pod.spec.as_ref();
    let selected = spec.and_then(|s| s.node_selector.as_ref()).and_then(|s| s.get("kubernetes.io/os"));
    if selected.is_some_and(|os| os != "linux") {
        let message = "Failed to admit pod as the `kubernetes.io/os` label doesn't match node label";
        return Err(Rejection::new("PodOSSelectorNodeLabelDoesNotMatch", message));
    }
    if spec.and_then(|s| s.os.as_ref()).is_some_and(|os| os.name != "linux") {
        let message = "Failed to admit pod as the OS field doesn't match node OS";
        return Err(Rejection::new("PodOSNotSupported", message));
    }
    Ok(())
}

fn check_resources(pod: &Pod, admitted: &[&Pod], node: Allocatable) -> Result<(), Rejection> {
    let lacks = |resource: &str, requested: i128, used: i128, capacity: i128| {
        if requested == 0 || used + requested <= capacity {
            return Ok(());
        }
        let message = format!(
            "Node didn't have enough resource: {resource}, requested: {requested}, used: {used}, capacity: {capacity}"
        );
        Err(Rejection::new(format!("OutOf{resource}"), message))
    };
    lacks("pods", 1, i128::try_from(admitted.len()).unwrap_or(i128::MAX), node.max_pods.into())?;
    let NodeCapacity { milli_cpu, memory, ephemeral_storage } = node.capacity;
    for (resource, capacity) in
        [("cpu", milli_cpu), ("memory", memory), ("ephemeral-storage", ephemeral_storage)]
    {
        let used = admitted.iter().map(|other| resources::pod_request(other, resource)).sum();
        lacks(resource, resources::pod_request(pod, resource), used, capacity.into())?;
    }
    Ok(())
}

fn check_ports(pod: &Pod, admitted: &[&Pod]) -> Result<(), Rejection> {
    let wanted = host_ports(pod);
    let taken = || admitted.iter().flat_map(|other| host_ports(other));
    if !wanted.is_empty() && taken().any(|t| wanted.iter().any(|w| clash(w, &t))) {
        let message =
            "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports";
        return Err(Rejection::new("NodePorts", message));
    }
    Ok(())
}

fn host_ports(pod: &Pod) -> Vec<HostPort<'_>> {
    pod::containers(pod)
        .flat_map(|spec| spec.container.ports.iter().flatten())
        .filter_map(|port| {
            let address = port.host_ip.as_deref().filter(|ip| !["0.0.0.0", "::"].contains(ip));
            Some(HostPort {
                address: address.unwrap_or_default(),
                protocol: port.protocol.as_deref().unwrap_or("TCP"),
                port: port.host_port.filter(|port| *port > 0)?,
            })
        })
        .collect()
}

fn clash(a: &HostPort<'_>, b: &HostPort<'_>) -> bool {
    let same_place = a.address.is_empty() || b.address.is_empty() || a.address == b.address;
    a.port == b.port && a.protocol == b.protocol && same_place
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const NODE: Allocatable = Allocatable {
        capacity: NodeCapacity { milli_cpu: 1000, memory: 1 << 20, ephemeral_storage: 1 << 20 },
        max_pods: 2,
    };

    fn pod(container: Value, spec: Value) -> Pod {
        let mut whole = json!({"containers": [container]});
        whole["containers"][0]["name"] = json!("c");
        whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        serde_json::from_value(json!({"spec": whole})).unwrap()
    }

    fn cpu(amount: &str) -> Pod {
        pod(json!({"resources": {"requests": {"cpu": amount}}}), json!({}))
    }

    fn port(number: i32, address: &str) -> Pod {
        pod(json!({"ports": [{"containerPort": 1, "hostPort": number, "hostIP": address}]}), json!({}))
    }

    fn reason(pod: &Pod, admitted: &[&Pod]) -> String {
        check(pod, admitted, NODE).err().map(|r| r.reason).unwrap_or_default()
    }

    #[test]
    fn what_does_not_fit_beside_the_others_is_refused_and_says_what_is_missing() {
        assert_eq!(reason(&cpu("600m"), &[&cpu("400m")]), "");
        let rejection = check(&cpu("601m"), &[&cpu("400m")], NODE).unwrap_err();
        assert_eq!(rejection.reason, "OutOfcpu");
        let message = "Node didn't have enough resource: cpu, requested: 601, used: 400, capacity: 1000";
        assert_eq!(rejection.message, message);
        let memory = pod(json!({"resources": {"requests": {"memory": "2Mi"}}}), json!({}));
        assert_eq!(reason(&memory, &[]), "OutOfmemory");
        let none = pod(json!({}), json!({}));
        assert_eq!(reason(&none, &[&cpu("1"), &none]), "OutOfpods");
        assert_eq!(reason(&none, &[&cpu("9")]), "", "who asks for nothing of a resource does not lack it");
    }

    #[test]
    fn a_port_of_the_node_is_given_once_for_each_address() {
        let cases = [
            (80, "", 80, "", "NodePorts"),
            (80, "", 81, "", ""),
            (80, "192.0.2.1", 80, "192.0.2.2", ""),
            (80, "192.0.2.1", 80, "0.0.0.0", "NodePorts"),
            (80, "::", 80, "192.0.2.2", "NodePorts"),
        ];
        for (number, address, taken, at, expected) in cases {
            assert_eq!(reason(&port(number, address), &[&port(taken, at)]), expected, "{number} {address}");
        }
    }

    #[test]
    fn another_operating_system_and_unsafe_sysctls_are_refused() {
        let windows = pod(json!({}), json!({"os": {"name": "windows"}}));
        assert_eq!(reason(&windows, &[]), "PodOSNotSupported");
        let selected = pod(json!({}), json!({"nodeSelector": {"kubernetes.io/os": "windows"}}));
        assert_eq!(reason(&selected, &[]), "PodOSSelectorNodeLabelDoesNotMatch");
        let sysctl = json!({"securityContext": {"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}});
        assert_eq!(reason(&pod(json!({}), sysctl), &[]), "SysctlForbidden");
    }
}
