//! The DefaultTolerationSeconds admission: pods outlive a short absence of their node.
//!
//! In: a new pod. Out: with the two tolerations every pod has unless it says otherwise.

use serde_json::{Value, json};
use xebec_api::wellknown::taints;

use crate::meta;

const SECONDS: i64 = 300;

pub(super) fn admit(pod: &mut Value) {
    let mut list: Vec<Value> = meta::items(pod, &["spec", "tolerations"]).cloned().collect();
    for taint in [taints::NOT_READY, taints::UNREACHABLE] {
        if !list.iter().any(|toleration| tolerates(toleration, taint)) {
            list.push(json!({
                "key": taint, "operator": "Exists", "effect": taints::NO_EXECUTE, "tolerationSeconds": SECONDS,
            }));
        }
    }
    meta::set(pod, &["spec", "tolerations"], Some(list.into()));
}

/// As upstream: any toleration of the key, or of every key, that covers `NoExecute`.
fn tolerates(toleration: &Value, taint: &str) -> bool {
    let (key, effect) = (meta::text(toleration, &["key"]), meta::text(toleration, &["effect"]));
    (key == taint || key.is_empty()) && (effect == taints::NO_EXECUTE || effect.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_tolerations_are_added() {
        let mut pod = json!({"spec": {"tolerations": [{"key": taints::NOT_READY, "operator": "Exists"}]}});
        admit(&mut pod);
        let list = pod["spec"]["tolerations"].as_array().expect("a list");
        assert_eq!(list.len(), 2);
        assert_eq!(list[1]["key"], taints::UNREACHABLE);
        let mut pod = json!({"spec": {"tolerations": [{"operator": "Exists"}]}});
        admit(&mut pod);
        assert_eq!(pod["spec"]["tolerations"].as_array().map(Vec::len), Some(1));
    }
}
