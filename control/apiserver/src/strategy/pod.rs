//! Pods: admission, first status, graceful deletion.
//!
//! In: pods on their way into the store. Out: pods with service account, tolerations, priority and QoS class, as
//! upstream's admission chain leaves them.

use jiff::Timestamp;
use serde_json::{Value, json};
use xebec_api::wellknown::{conditions, reasons};

use crate::meta;
use crate::options::DeleteOptions;
use crate::registry::Cx;
use crate::status::ApiError;
use crate::strategy::Strategy;

mod mirror;
mod priority;
mod qos;
mod service_account;
mod tolerations;

pub(crate) struct PodStrategy;

impl Strategy for PodStrategy {
    fn prepare_create(&self, cx: &Cx<'_>, pod: &mut Value) -> Result<(), ApiError> {
        if mirror::is_mirror(pod) {
            mirror::admit(pod)?;
        } else {
            service_account::admit(cx, pod)?;
        }
        tolerations::admit(pod);
        priority::admit(cx, pod)?;
        let mut status = json!({ "phase": "Pending", "qosClass": qos::class(pod) });
        if meta::items(pod, &["spec", "schedulingGates"]).next().is_some() {
            status["conditions"] = json!([{
                "type": conditions::POD_SCHEDULED, "status": conditions::FALSE,
                "reason": reasons::pod::SCHEDULING_GATED,
                "message": "Scheduling is blocked due to non-empty scheduling gates",
                "lastProbeTime": null, "lastTransitionTime": meta::time(Timestamp::now()),
            }]);
        }
        meta::set(pod, &["status"], Some(status));
        Ok(())
    }

    fn prepare_status(&self, new: &mut Value, old: &Value) {
        // The class was decided at creation.
        meta::set(new, &["status", "qosClass"], meta::at(old, &["status", "qosClass"]).cloned());
        agree(new, "podIP", "podIPs");
        agree(new, "hostIP", "hostIPs");
    }

    fn grace_period(&self, pod: &Value, options: &DeleteOptions) -> Option<i64> {
        let own = meta::at(pod, &["spec", "terminationGracePeriodSeconds"]).and_then(Value::as_i64);
        let asked = options.grace_period_seconds.or(own).unwrap_or(0);
        let unscheduled = meta::text(pod, &["spec", "nodeName"]).is_empty();
        let finished = matches!(meta::text(pod, &["status", "phase"]), "Failed" | "Succeeded");
        Some(if unscheduled || finished {
            0
        } else if asked < 0 {
            1
        } else {
            asked
        })
    }
}

/// The single address and the first of the list are the same.
fn agree(pod: &mut Value, single: &str, list: &str) {
    let first = meta::items(pod, &["status", list]).next().map(|entry| meta::text(entry, &["ip"]).to_owned());
    let address = meta::text(pod, &["status", single]).to_owned();
    match first {
        Some(first) if !first.is_empty() => meta::set(pod, &["status", single], Some(first.into())),
        _ if !address.is_empty() => meta::set(pod, &["status", list], Some(json!([{ "ip": address }]))),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_agree() {
        let mut pod = json!({"status": {"podIP": "10.0.0.1"}});
        agree(&mut pod, "podIP", "podIPs");
        assert_eq!(pod["status"]["podIPs"], json!([{"ip": "10.0.0.1"}]));
        let mut pod = json!({"status": {"podIPs": [{"ip": "10.0.0.2"}, {"ip": "fd00::2"}]}});
        agree(&mut pod, "podIP", "podIPs");
        assert_eq!(pod["status"]["podIP"], "10.0.0.2");
    }
}
