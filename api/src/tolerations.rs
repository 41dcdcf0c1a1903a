//! Which toleration covers which taint.
//!
//! In: a pod's tolerations, a node's taint. Out: yes or no. Pure.

use k8s_openapi::api::core::v1::{Taint, Toleration};

/// Some toleration covers the taint.
pub fn tolerates(tolerations: &[Toleration], taint: &Taint) -> bool {
    tolerations.iter().any(|toleration| covers(toleration, taint))
}

/// This toleration covers the taint.
pub fn covers(toleration: &Toleration, taint: &Taint) -> bool {
    let effect = toleration.effect.as_deref().unwrap_or_default();
    let key = toleration.key.as_deref().unwrap_or_default();
    if (!effect.is_empty() && effect != taint.effect) || (!key.is_empty() && key != taint.key) {
        return false;
    }
    match toleration.operator.as_deref().unwrap_or_default() {
        "" | "Equal" => {
            let value = toleration.value.as_deref().unwrap_or_default();
            !key.is_empty() && value == taint.value.as_deref().unwrap_or_default()
        }
        "Exists" => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wellknown::taints::{NO_EXECUTE, NO_SCHEDULE};
    use serde_json::json;

    #[test]
    fn tolerations_cover_by_effect_key_operator_and_value() {
        let taint: Taint =
            serde_json::from_value(json!({"key": "a", "value": "b", "effect": NO_SCHEDULE})).unwrap();
        let cases = [
            (json!({"key": "a", "value": "b", "effect": NO_SCHEDULE}), true),
            (json!({"key": "a", "operator": "Equal", "value": "b"}), true),
            (json!({"key": "a", "operator": "Equal", "value": "c"}), false),
            (json!({"key": "a", "operator": "Exists"}), true),
            (json!({"key": "b", "operator": "Exists"}), false),
            (json!({"operator": "Exists"}), true),
            (json!({"operator": "Exists", "effect": NO_EXECUTE}), false),
            (json!({"key": "a", "operator": "Near", "value": "b"}), false),
            (json!({}), false),
        ];
        for (toleration, expected) in cases {
            let parsed: Toleration = serde_json::from_value(toleration.clone()).unwrap();
            assert_eq!(tolerates(&[parsed], &taint), expected, "{toleration}");
        }
    }
}
