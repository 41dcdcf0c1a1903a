//! The Node object as this agent writes it. Pure.
//!
//! In: identity, capacity, pressure, health, the conditions the API holds. Out: the object to create, the status to patch.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{
    ContainerImage, DaemonEndpoint, Node, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeSpec,
    NodeStatus, NodeSystemInfo, Taint,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

use super::facts::{Capacity, Pressure, architecture};
use super::status::Health;

/// Who this node is.
#[derive(Clone, Debug)]
pub struct Identity {
    pub name: String,
    pub hostname: String,
    pub addresses: Vec<IpAddr>,
    pub kubelet_port: u16,
    /// Besides the one that goes with the first status.
    pub taints: Vec<Taint>,
}

/// What a status is made of.
pub struct Facts<'a> {
    pub identity: &'a Identity,
    pub capacity: Capacity,
    pub pressure: Pressure,
    pub health: &'a Health,
    pub system: NodeSystemInfo,
    pub images: Vec<ContainerImage>,
}

/// Images listed in a status at most (upstream's `nodeStatusMaxImages`).
pub const MAX_IMAGES: usize = 50;

/// The node's own name for itself.
pub fn hostname() -> String {
    nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

impl Identity {
    pub fn labels(&self) -> BTreeMap<String, String> {
        [
            ("kubernetes.io/hostname", self.hostname.as_str()),
            ("kubernetes.io/os", "linux"),
            ("kubernetes.io/arch", architecture()),
            ("beta.kubernetes.io/os", "linux"),
            ("beta.kubernetes.io/arch", architecture()),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
    }

    /// The object to register with: not ready, so that nothing is scheduled before the first status.
    pub fn node(&self) -> Node {
        Node {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                labels: Some(self.labels()),
                ..ObjectMeta::default()
            },
            spec: Some(NodeSpec {
                taints: Some(std::iter::once(not_ready()).chain(self.taints.clone()).collect()),
                ..NodeSpec::default()
            }),
            status: None,
        }
    }
}

fn not_ready() -> Taint {
    Taint {
        key: "node.kubernetes.io/not-ready".to_owned(),
        effect: "NoSchedule".to_owned(),
        ..Taint::default()
    }
}

/// The status at `now`. A condition that did not change keeps the time of its last transition.
pub fn status(facts: Facts<'_>, held: &[NodeCondition], now: &Time) -> NodeStatus {
    let capacity = resources(&facts.capacity);
    let mut addresses: Vec<NodeAddress> = facts
        .identity
        .addresses
        .iter()
        .map(|address| NodeAddress { type_: "InternalIP".to_owned(), address: address.to_string() })
        .collect();
    addresses.push(NodeAddress { type_: "Hostname".to_owned(), address: facts.identity.hostname.clone() });
    NodeStatus {
        addresses: Some(addresses),
        // Nothing is reserved for the system yet: all of it can be given to pods.
        allocatable: Some(capacity.clone()),
        capacity: Some(capacity),
        conditions: Some(conditions(&facts.pressure, facts.health, held, now)),
        daemon_endpoints: Some(NodeDaemonEndpoints {
            kubelet_endpoint: Some(DaemonEndpoint { port: i32::from(facts.identity.kubelet_port) }),
        }),
        images: Some(facts.images),
        node_info: Some(facts.system),
        ..NodeStatus::default()
    }
}

fn resources(capacity: &Capacity) -> BTreeMap<String, Quantity> {
    [
        ("cpu", capacity.cpus.to_string()),
        ("memory", format!("{}Ki", capacity.memory / 1024)),
        ("ephemeral-storage", format!("{}Ki", capacity.ephemeral_storage / 1024)),
        ("pods", capacity.pods.to_string()),
    ]
    .map(|(name, value)| (name.to_owned(), Quantity(value)))
    .into()
}

fn conditions(
    pressure: &Pressure,
    health: &Health,
    held: &[NodeCondition],
    now: &Time,
) -> Vec<NodeCondition> {
    let pressure_of = |type_: &str, short: bool, no: [&str; 2], yes: [&str; 2]| {
        let [reason, message] = if short { yes } else { no };
        condition(held, now, type_, short, reason, message)
    };
    let ready = match health {
        Health::Ready => {
            condition(held, now, "Ready", true, "KubeletReady", "kubelet is posting ready status")
        }
        Health::NotReady(why) => condition(held, now, "Ready", false, "KubeletNotReady", why),
    };
    vec![
        pressure_of(
            "MemoryPressure",
            pressure.memory,
            ["KubeletHasSufficientMemory", "kubelet has sufficient memory available"],
            ["KubeletHasInsufficientMemory", "kubelet has insufficient memory available"],
        ),
        pressure_of(
            "DiskPressure",
            pressure.disk,
            ["KubeletHasNoDiskPressure", "kubelet has no disk pressure"],
            ["KubeletHasDiskPressure", "kubelet has disk pressure"],
        ),
        pressure_of(
            "PIDPressure",
            pressure.pids,
            ["KubeletHasSufficientPID", "kubelet has sufficient PID available"],
            ["KubeletHasInsufficientPID", "kubelet has insufficient PID available"],
        ),
        ready,
    ]
}

fn condition(
    held: &[NodeCondition],
    now: &Time,
    type_: &str,
    yes: bool,
    reason: &str,
    message: &str,
) -> NodeCondition {
    let status = if yes { "True" } else { "False" };
    let before = held.iter().find(|c| c.type_ == type_ && c.status == status);
    NodeCondition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_heartbeat_time: Some(now.clone()),
        last_transition_time: before
            .and_then(|c| c.last_transition_time.clone())
            .or_else(|| Some(now.clone())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::jiff;

    fn at(second: i64) -> Time {
        Time(jiff::Timestamp::from_second(second).unwrap())
    }

    #[test]
    fn an_unchanged_condition_keeps_its_transition_time() {
        let first = conditions(&Pressure::default(), &Health::Ready, &[], &at(1));
        let second = conditions(&Pressure::default(), &Health::NotReady("x".into()), &first, &at(2));
        let time = |conditions: &[NodeCondition], type_: &str| {
            conditions.iter().find(|c| c.type_ == type_).unwrap().last_transition_time.clone().unwrap()
        };
        assert_eq!(time(&second, "MemoryPressure"), at(1));
        assert_eq!(time(&second, "Ready"), at(2));
    }

    #[test]
    fn every_pressure_is_told_under_its_own_name() {
        let pressures = [
            ("MemoryPressure", Pressure { memory: true, ..Pressure::default() }),
            ("DiskPressure", Pressure { disk: true, ..Pressure::default() }),
            ("PIDPressure", Pressure { pids: true, ..Pressure::default() }),
        ];
        for (name, pressure) in pressures {
            let told = conditions(&pressure, &Health::Ready, &[], &at(1));
            let found = told.iter().filter(|c| c.type_ != "Ready" && c.status == "True");
            assert_eq!(found.map(|c| c.type_.as_str()).collect::<Vec<_>>(), [name]);
        }
    }

    #[test]
    fn every_node_says_where_and_what_it_is() {
        let identity = Identity {
            name: "n".into(),
            hostname: "h".into(),
            addresses: vec!["10.0.0.1".parse().unwrap()],
            kubelet_port: 10250,
            taints: Vec::new(),
        };
        assert_eq!(identity.labels()["kubernetes.io/hostname"], "h");
        assert_eq!(identity.node().spec.unwrap().taints.unwrap().len(), 1);
    }
}
