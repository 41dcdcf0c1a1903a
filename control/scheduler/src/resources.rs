//! Amounts of compute resources as the scheduler counts them.
//!
//! In: resource lists of pods and nodes. Out: [`Resources`], a pod's effective request. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, PodSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as WireQuantity;
use xebec_api::Quantity;

type ResourceList = BTreeMap<String, WireQuantity>;

/// What scoring takes a container without requests to use: it does use something.
const DEFAULT_MILLI_CPU: i64 = 100;
const DEFAULT_MEMORY: i64 = 200 * 1024 * 1024;

/// One amount of each resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Resources {
    pub(crate) milli_cpu: i64,
    pub(crate) memory: i64,
    pub(crate) ephemeral_storage: i64,
    /// Extended resources and huge pages, sorted by name.
    pub(crate) scalars: Vec<(Arc<str>, i64)>,
}

impl Resources {
    /// Reads a resource list; a quantity that does not parse counts as nothing (the API refuses such objects).
    pub(crate) fn of(list: Option<&ResourceList>) -> Self {
        let mut resources = Self::default();
        for (name, quantity) in list.into_iter().flatten() {
            let quantity = Quantity::parse(&quantity.0).unwrap_or(Quantity::ZERO);
            match name.as_str() {
                "cpu" => resources.milli_cpu = quantity.millis(),
                "memory" => resources.memory = quantity.value(),
                "ephemeral-storage" => resources.ephemeral_storage = quantity.value(),
                // Counted by their own column and by volumes.
                "pods" | "storage" => {}
                other => resources.scalars.push((other.into(), quantity.value())),
            }
        }
        resources
    }

    pub(crate) fn is_zero(&self) -> bool {
        self.milli_cpu == 0
            && self.memory == 0
            && self.ephemeral_storage == 0
            && self.scalars.iter().all(|s| s.1 == 0)
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.combine(other, i64::saturating_add);
    }

    fn max(&mut self, other: &Self) {
        self.combine(other, i64::max);
    }

    fn combine(&mut self, other: &Self, with: fn(i64, i64) -> i64) {
        self.milli_cpu = with(self.milli_cpu, other.milli_cpu);
        self.memory = with(self.memory, other.memory);
        self.ephemeral_storage = with(self.ephemeral_storage, other.ephemeral_storage);
        for (name, amount) in &other.scalars {
            match self.scalars.binary_search_by(|(known, _)| known.cmp(name)) {
                Ok(position) => {
                    let known = &mut self.scalars[position].1;
                    *known = with(*known, *amount);
                }
                Err(position) => self.scalars.insert(position, (name.clone(), with(0, *amount))),
            }
        }
    }
}

/// What a pod takes on its node: the larger of what its containers take together and what its init containers take on
/// their way (sidecars count in both), or the pod's own figure where it has one; plus its overhead.
pub(crate) fn pod_requests(spec: &PodSpec) -> Resources {
    effective(spec, |container| {
        Resources::of(container.resources.as_ref().and_then(|resources| resources.requests.as_ref()))
    })
}

/// The same for scoring, where a container that asks for no CPU or memory counts as a small one.
pub(crate) fn pod_requests_nonzero(spec: &PodSpec) -> Resources {
    effective(spec, |container| {
        let list = container.resources.as_ref().and_then(|resources| resources.requests.as_ref());
        let mut requests = Resources::of(list);
        if !list.is_some_and(|list| list.contains_key("cpu")) {
            requests.milli_cpu = DEFAULT_MILLI_CPU;
        }
        if !list.is_some_and(|list| list.contains_key("memory")) {
            requests.memory = DEFAULT_MEMORY;
        }
        requests
    })
}

fn effective(spec: &PodSpec, request: impl Fn(&Container) -> Resources) -> Resources {
    let mut together = Resources::default();
    for container in &spec.containers {
        together.add(&request(container));
    }
    let (mut sidecars, mut on_the_way) = (Resources::default(), Resources::default());
    for container in spec.init_containers.iter().flatten() {
        let mut step = request(container);
        if container.restart_policy.as_deref() == Some("Always") {
            together.add(&step);
            sidecars.add(&step);
            step = sidecars.clone();
        } else {
            step.add(&sidecars);
        }
        on_the_way.max(&step);
    }
    together.max(&on_the_way);
    let own = spec.resources.as_ref().and_then(|resources| resources.requests.as_ref());
    let own_amounts = Resources::of(own);
    for name in own.into_iter().flat_map(BTreeMap::keys) {
        match name.as_str() {
            "cpu" => together.milli_cpu = own_amounts.milli_cpu,
            "memory" => together.memory = own_amounts.memory,
            _ => {}
        }
    }
    together.max(&Resources { scalars: own_amounts.scalars, ..Resources::default() });
    together.add(&Resources::of(spec.overhead.as_ref()));
    together
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn requests(spec: &Value) -> (i64, i64, Vec<(String, i64)>) {
        let spec: PodSpec = serde_json::from_value(spec.clone()).unwrap();
        let requests = pod_requests(&spec);
        let scalars = requests.scalars.iter().map(|(name, amount)| (name.to_string(), *amount)).collect();
        (requests.milli_cpu, requests.memory, scalars)
    }

    fn container(cpu: &str, restart: Option<&str>) -> Value {
        json!({"name": "c", "restartPolicy": restart, "resources": {"requests": {"cpu": cpu}}})
    }

    #[test]
    fn containers_add_up_with_overhead_and_extended_resources() {
        let spec = json!({
            "containers": [
                {"name": "a", "resources": {"requests": {"cpu": "250m", "memory": "64Mi", "example.com/gpu": "1"}}},
                {"name": "b", "resources": {"requests": {"cpu": "1", "example.com/gpu": "2"}}},
            ],
            "overhead": {"cpu": "50m", "memory": "1Mi"},
        });
        assert_eq!(requests(&spec), (1300, 65 << 20, vec![("example.com/gpu".to_owned(), 3)]));
    }

    #[test]
    fn init_containers_and_sidecars_count_as_they_run() {
        let cases = [
            // An init container larger than the rest decides.
            (vec![container("3", None)], 3000),
            (vec![container("1", None)], 2000),
            // A sidecar runs beside the containers.
            (vec![container("1", Some("Always"))], 3000),
            // An init container after a sidecar runs beside it, one before it does not.
            (vec![container("1", Some("Always")), container("3", None)], 4000),
            (vec![container("3", None), container("1", Some("Always"))], 3000),
        ];
        for (init, expected) in cases {
            let spec = json!({"containers": [container("2", None)], "initContainers": init});
            assert_eq!(requests(&spec).0, expected, "{spec}");
        }
    }

    #[test]
    fn pod_level_requests_replace_the_sum() {
        let spec = json!({"containers": [container("2", None)], "resources": {"requests": {"cpu": "5"}}});
        assert_eq!(requests(&spec).0, 5000);
    }

    #[test]
    fn scoring_takes_missing_requests_for_small_ones() {
        let spec: PodSpec =
            serde_json::from_value(json!({"containers": [{"name": "a"}, container("2", None)]})).unwrap();
        let nonzero = pod_requests_nonzero(&spec);
        assert_eq!((nonzero.milli_cpu, nonzero.memory), (2100, 2 * DEFAULT_MEMORY));
        assert!(
            pod_requests(&serde_json::from_value(json!({"containers": [{"name": "a"}]})).unwrap()).is_zero()
        );
    }
}
