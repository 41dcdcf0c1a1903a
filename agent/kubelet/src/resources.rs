//! Requests and limits of containers, and the kernel's units for them.
//!
//! Pure. In: Pod, Container. Out: milli-CPU, bytes, [`Resources`] for the runtime and [`CgroupLimits`] for the pod.

use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use xebec_api::Quantity;
use xebec_runtime::types::Resources;

use crate::pod::{self, ContainerKind};
use crate::qos;

const MIN_SHARES: u64 = 2;
const MAX_SHARES: u64 = 262_144;
const PERIOD_US: u64 = 100_000;
const MIN_QUOTA_US: i64 = 1000;

/// Limits of a pod's cgroup; `None` = not limited.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CgroupLimits {
    pub cpu_shares: Option<u64>,
    pub cpu_quota: Option<i64>,
    pub memory: Option<i64>,
    pub pids: Option<i64>,
}

/// What the node can say about itself for `resourceFieldRef` and OOM scores.
#[derive(Clone, Copy, Debug)]
pub struct NodeCapacity {
    pub milli_cpu: u64,
    pub memory: u64,
    pub ephemeral_storage: u64,
}

fn value(list: Option<&std::collections::BTreeMap<String, ApiQuantity>>, resource: &str) -> Option<i128> {
    let quantity = Quantity::parse(&list?.get(resource)?.0).ok()?;
    Some(if resource == "cpu" { i128::from(quantity.millis()) } else { i128::from(quantity.value()) })
}

/// Milli-CPU for `cpu`, whole units for all else. A limit without request is a request too (the API server writes it
/// so; pods from files come without).
pub fn request(container: &Container, resource: &str) -> Option<i128> {
    let resources = container.resources.as_ref()?;
    value(resources.requests.as_ref(), resource).or_else(|| value(resources.limits.as_ref(), resource))
}

pub fn limit(container: &Container, resource: &str) -> Option<i128> {
    value(container.resources.as_ref()?.limits.as_ref(), resource)
}

/// cgroup v1 shares of milli-CPU.
pub fn shares(milli_cpu: i128) -> u64 {
    let shares = u64::try_from(milli_cpu.max(0) * 1024 / 1000).unwrap_or(MAX_SHARES);
    shares.clamp(MIN_SHARES, MAX_SHARES)
}

/// Microseconds per period of 100 ms.
pub fn quota(milli_cpu: i128) -> i64 {
    let quota = milli_cpu * i128::from(PERIOD_US) / 1000;
    i64::try_from(quota).unwrap_or(i64::MAX).max(MIN_QUOTA_US)
}

/// Limits of one container.
pub fn of_container(
    pod: &Pod,
    container: &Container,
    node: NodeCapacity,
    pids_limit: Option<i64>,
) -> Resources {
    let cpu_limit = limit(container, "cpu").filter(|l| *l > 0);
    let memory = limit(container, "memory").filter(|l| *l > 0);
    Resources {
        cpu_shares: Some(shares(request(container, "cpu").unwrap_or(0))),
        cpu_quota: cpu_limit.map(quota),
        cpu_period: cpu_limit.map(|_| PERIOD_US),
        memory_limit: memory.map(|m| i64::try_from(m).unwrap_or(i64::MAX)),
        oom_score_adj: Some(qos::oom_score_adj(pod, container, node.memory)),
        pids_limit,
    }
}

/// What the pod needs at once: what it asks for as a whole (`spec.resources`), else the sum of main containers and
/// sidecars, or the largest init container with the sidecars started before it; plus the overhead.
pub fn pod_request(pod: &Pod, resource: &str) -> i128 {
    match pod_level(pod, resource, |r| r.requests.as_ref()) {
        Some(amount) => amount + overhead(pod, resource),
        None => pod_sum(pod, |c| Some(request(c, resource).unwrap_or(0)), resource).unwrap_or(0),
    }
}

/// The same for limits; `None` when a container has none.
pub fn pod_limit(pod: &Pod, resource: &str) -> Option<i128> {
    match pod_level(pod, resource, |r| r.limits.as_ref()) {
        Some(amount) => Some(amount + overhead(pod, resource)),
        None => pod_sum(pod, |c| limit(c, resource).filter(|l| *l > 0), resource),
    }
}

type Amounts = std::collections::BTreeMap<String, ApiQuantity>;

/// From `spec.resources`, which bounds all containers together.
pub fn pod_level(
    pod: &Pod,
    resource: &str,
    of: impl Fn(&ResourceRequirements) -> Option<&Amounts>,
) -> Option<i128> {
    value(of(pod.spec.as_ref()?.resources.as_ref()?), resource)
}

fn overhead(pod: &Pod, resource: &str) -> i128 {
    value(pod.spec.as_ref().and_then(|s| s.overhead.as_ref()), resource).unwrap_or(0)
}

fn pod_sum(pod: &Pod, of: impl Fn(&Container) -> Option<i128>, resource: &str) -> Option<i128> {
    let (mut running, mut sidecars, mut init_peak) = (0, 0, 0);
    for spec in pod::containers(pod) {
        let amount = of(spec.container)?;
        match spec.kind {
            ContainerKind::Main => running += amount,
            ContainerKind::Sidecar => {
                running += amount;
                sidecars += amount;
                init_peak = init_peak.max(sidecars);
            }
            ContainerKind::Init => init_peak = init_peak.max(sidecars + amount),
            ContainerKind::Ephemeral => {}
        }
    }
    Some(running.max(init_peak) + overhead(pod, resource))
}

/// Limits of the pod's cgroup.
pub fn of_pod(pod: &Pod) -> CgroupLimits {
    CgroupLimits {
        cpu_shares: Some(shares(pod_request(pod, "cpu"))),
        cpu_quota: pod_limit(pod, "cpu").filter(|l| *l > 0).map(quota),
        memory: pod_limit(pod, "memory").filter(|l| *l > 0).map(|m| i64::try_from(m).unwrap_or(i64::MAX)),
        pids: None,
    }
}

/// `resourceFieldRef`: the value of `limits.cpu` and the like, in units of the divisor, rounded up. An unset limit is
/// what the node can give.
pub fn field(
    container: &Container,
    resource: &str,
    divisor: Option<&ApiQuantity>,
    node: NodeCapacity,
) -> Result<String, String> {
    let (which, name) = resource.split_once('.').unwrap_or(("", resource));
    let amount = match (which, name) {
        ("limits", name) => limit(container, name).filter(|l| *l > 0).unwrap_or(match name {
            "cpu" => i128::from(node.milli_cpu),
            "memory" => i128::from(node.memory),
            "ephemeral-storage" => i128::from(node.ephemeral_storage),
            _ => 0,
        }),
        ("requests", name) => request(container, name).unwrap_or(0),
        _ => return Err(format!("unsupported container resource : {resource}")),
    };
    let divisor = match divisor.map(|d| d.0.as_str()) {
        None | Some("" | "0") => None,
        Some(text) => {
            let parsed = Quantity::parse(text).map_err(|e| format!("invalid divisor {text:?}: {e}"))?;
            Some(if name == "cpu" { i128::from(parsed.millis()) } else { i128::from(parsed.value()) })
        }
    };
    let divisor = divisor.filter(|d| *d > 0).unwrap_or(if name == "cpu" { 1000 } else { 1 });
    Ok(amount.div_euclid(divisor).saturating_add(i128::from(amount.rem_euclid(divisor) != 0)).to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn container(resources: serde_json::Value) -> Container {
        serde_json::from_value(json!({"name": "c", "resources": resources})).unwrap()
    }

    const NODE: NodeCapacity = NodeCapacity { milli_cpu: 2000, memory: 1 << 30, ephemeral_storage: 10 << 30 };

    #[test]
    fn resource_fields_divide_and_round_up() {
        let c =
            container(json!({"requests": {"cpu": "250m", "memory": "32Mi"}, "limits": {"memory": "64Mi"}}));
        let q = |s: &str| ApiQuantity(s.to_owned());
        let cases = [
            ("requests.cpu", None, "1"),
            ("requests.cpu", Some("1m"), "250"),
            ("limits.cpu", None, "2"),
            ("limits.memory", Some("1Mi"), "64"),
            ("requests.memory", Some("1Gi"), "1"),
            ("limits.memory", Some("0"), "67108864"),
        ];
        for (resource, divisor, expected) in cases {
            let divisor = divisor.map(q);
            assert_eq!(field(&c, resource, divisor.as_ref(), NODE).unwrap(), expected, "{resource}");
        }
        assert!(field(&c, "cpu", None, NODE).is_err());
    }

    #[test]
    fn shares_and_quota_follow_the_kernels_bounds() {
        assert_eq!((shares(0), shares(250), shares(1_000_000)), (2, 256, 262_144));
        assert_eq!((quota(500), quota(1)), (50_000, 1000));
    }

    #[test]
    fn a_pod_needs_its_init_peak_or_its_sum() {
        let pod: Pod = serde_json::from_value(json!({"spec": {
            "initContainers": [
                {"name": "side", "restartPolicy": "Always", "resources": {"requests": {"cpu": "100m"}}},
                {"name": "init", "resources": {"requests": {"cpu": "1"}}},
            ],
            "containers": [{"name": "main", "resources": {"requests": {"cpu": "300m"}}}],
            "overhead": {"cpu": "10m"},
        }}))
        .unwrap();
        assert_eq!(pod_request(&pod, "cpu"), 1110);
        assert_eq!(of_pod(&pod).memory, None);
    }

    #[test]
    fn what_a_pod_asks_for_as_a_whole_stands_before_its_containers() {
        let pod: Pod = serde_json::from_value(json!({"spec": {
            "resources": {"requests": {"cpu": "500m"}, "limits": {"cpu": "1", "memory": "64Mi"}},
            "containers": [
                {"name": "a", "resources": {"requests": {"cpu": "100m", "memory": "8Mi"}}}, {"name": "b"}],
            "overhead": {"cpu": "10m"},
        }}))
        .unwrap();
        assert_eq!((pod_request(&pod, "cpu"), pod_request(&pod, "memory")), (510, 8 << 20));
        let limits = of_pod(&pod);
        assert_eq!((limits.cpu_quota, limits.memory), (Some(101_000), Some(64 << 20)));
    }
}
