//! What a pod asks for in all.
//!
//! In: a pod, `requests` or `limits`. Out: amounts by resource: what runs at once is added up, init containers count
//! where one of them asks for more than that; the pod's own word counts before its containers'.

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use xebec_api::quantity::Quantity;

use crate::meta;

pub(super) type Amounts = BTreeMap<String, Quantity>;

pub(super) fn of_pod(pod: &Value, which: &str) -> Value {
    let asked = amounts(pod, which);
    Value::Object(
        asked.into_iter().map(|(name, amount)| (name, amount.to_string().into())).collect::<Map<_, _>>(),
    )
}

/// The same as quantities.
pub(super) fn amounts(pod: &Value, which: &str) -> Amounts {
    let mut total = Amounts::new();
    for container in meta::items(pod, &["spec", "containers"]) {
        add(&mut total, &of(&container["resources"][which]));
    }
    let (mut sidecars, mut peak) = (Amounts::new(), Amounts::new());
    for container in meta::items(pod, &["spec", "initContainers"]) {
        let mut own = of(&container["resources"][which]);
        if container["restartPolicy"] == "Always" {
            add(&mut total, &own);
            add(&mut sidecars, &own);
            own = sidecars.clone();
        } else {
            add(&mut own, &sidecars);
        }
        raise(&mut peak, &own);
    }
    raise(&mut total, &peak);
    for (name, amount) in of(&pod["spec"]["resources"][which]) {
        total.insert(name, amount);
    }
    for (name, amount) in of(&pod["spec"]["overhead"]) {
        // A limit that nobody set is not made by the overhead.
        if which == "requests" || total.contains_key(&name) {
            *total.entry(name).or_default() += amount;
        }
    }
    total
}

fn of(list: &Value) -> Amounts {
    let entries = list.as_object().into_iter().flatten();
    entries.filter_map(|(name, text)| Some((name.clone(), Quantity::parse(text.as_str()?).ok()?))).collect()
}

fn add(total: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        *total.entry(name.clone()).or_default() += *amount;
    }
}

fn raise(total: &mut Amounts, least: &Amounts) {
    for (name, amount) in least {
        let held = total.entry(name.clone()).or_default();
        *held = (*held).max(*amount);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_runs_at_once_is_added_up() {
        let asks = |name: &str, cpu: &str, restart: Option<&str>| {
            let mut container = json!({"name": name, "resources": {"requests": {"cpu": cpu}}});
            if let Some(restart) = restart {
                container["restartPolicy"] = restart.into();
            }
            container
        };
        let pod = json!({"spec": {
            "containers": [asks("a", "1", None), asks("b", "500m", None)],
            "initContainers": [asks("i", "3", None), asks("s", "250m", Some("Always")), asks("j", "1", None)],
            "overhead": {"cpu": "10m"},
        }});
        assert_eq!(of_pod(&pod, "requests"), json!({"cpu": "3010m"}));
        let level =
            json!({"spec": {"containers": [asks("a", "1", None)], "resources": {"requests": {"cpu": "2"}}}});
        assert_eq!(of_pod(&level, "requests"), json!({"cpu": "2"}));
    }
}
