//! How many pods a rollout may have too many and too few.
//!
//! In: a Deployment's strategy. Out: surge and unavailability as counts. Pure.

use k8s_openapi::api::apps::v1::{Deployment, RollingUpdateDeployment};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use xebec_api::int_or_string::{Rounding, scaled_value};

pub(crate) fn replicas(deployment: &Deployment) -> i32 {
    deployment.spec.replicas.unwrap_or(1)
}

pub(crate) fn is_rolling(deployment: &Deployment) -> bool {
    let strategy = deployment.spec.strategy.as_ref().and_then(|strategy| strategy.type_.as_deref());
    strategy.unwrap_or("RollingUpdate") == "RollingUpdate"
}

/// Pods above the wanted number that a rollout may create.
pub(crate) fn max_surge(deployment: &Deployment) -> i32 {
    if is_rolling(deployment) { resolve(deployment).0 } else { 0 }
}

/// Pods of the wanted number that may be missing meanwhile.
pub(crate) fn max_unavailable(deployment: &Deployment) -> i32 {
    let replicas = replicas(deployment);
    if !is_rolling(deployment) || replicas == 0 {
        return 0;
    }
    resolve(deployment).1.min(replicas)
}

/// Surge rounds up and unavailability down, so that the service suffers least; both zero would stall the rollout.
fn resolve(deployment: &Deployment) -> (i32, i32) {
    let default = IntOrString::String("25%".to_owned());
    let rolling = deployment.spec.strategy.as_ref().and_then(|strategy| strategy.rolling_update.clone());
    let RollingUpdateDeployment { max_surge, max_unavailable } = rolling.unwrap_or_default();
    let replicas = replicas(deployment);
    // The API refuses what does not scale.
    let scale = |value: Option<IntOrString>, rounding| {
        scaled_value(value.as_ref().unwrap_or(&default), replicas, rounding).unwrap_or(0)
    };
    let (surge, unavailable) = (scale(max_surge, Rounding::Up), scale(max_unavailable, Rounding::Down));
    if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn fenceposts_round_in_favour_of_the_service() {
        let cases = [
            (2, json!(null), json!(null), (1, 0)),
            (10, json!("25%"), json!("25%"), (3, 2)),
            (10, json!(2), json!(3), (2, 3)),
            (1, json!("0%"), json!("10%"), (0, 1)),
            (3, json!(0), json!(0), (0, 1)),
            (2, json!(1), json!("100%"), (1, 2)),
            (2, json!(1), json!(5), (1, 2)),
            (0, json!(1), json!(1), (1, 0)),
        ];
        for (replicas, surge, unavailable, expected) in cases {
            let got = of(replicas, "RollingUpdate", &surge, &unavailable);
            assert_eq!(got, expected, "{replicas} {surge} {unavailable}");
        }
        assert_eq!(of(10, "Recreate", &json!(null), &json!(null)), (0, 0));
    }

    fn of(replicas: i32, strategy: &str, surge: &Value, unavailable: &Value) -> (i32, i32) {
        let deployment: Deployment = serde_json::from_value(json!({
            "metadata": {}, "spec": {
                "replicas": replicas, "selector": {}, "template": {},
                "strategy": {"type": strategy, "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}},
            },
        }))
        .unwrap();
        (max_surge(&deployment), max_unavailable(&deployment))
    }
}
