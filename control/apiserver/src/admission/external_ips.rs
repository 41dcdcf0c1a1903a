//! DenyServiceExternalIPs: nobody takes over an address by writing it into a Service (CVE-2020-8554).
//!
//! In: a Service, the one it replaces. Out: 403 for an external address that was not there before, unless the cluster
//! allows them.

use serde_json::Value;

use super::{Admit, Operation};
use crate::meta;
use crate::registry::Cx;
use crate::status::ApiError;

pub(super) fn validate(cx: &Cx<'_>, admit: &Admit<'_>, object: &Value) -> Result<(), ApiError> {
    let concerned = admit.target() == ("", "services", "") && admit.operation != Operation::Delete;
    if concerned && !cx.registry.config.service_external_ips && adds_any(object, admit.old) {
        return Err(admit.refuse("Use of external IPs is denied by admission control."));
    }
    Ok(())
}

/// What is there may stay and may go.
fn adds_any(new: &Value, old: Option<&Value>) -> bool {
    let addresses = |service| meta::items(service, &["spec", "externalIPs"]);
    let mut added =
        addresses(new).filter(|address| !old.is_some_and(|old| addresses(old).any(|a| a == *address)));
    added.next().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_new_addresses_are_refused() {
        let service = |addresses: &[&str]| json!({"spec": {"externalIPs": addresses}});
        let old = service(&["192.0.2.1", "192.0.2.2"]);
        assert!(!adds_any(&json!({"spec": {}}), None) && !adds_any(&service(&[]), None));
        assert!(!adds_any(&service(&["192.0.2.2"]), Some(&old)) && !adds_any(&json!({}), Some(&old)));
        assert!(adds_any(&service(&["192.0.2.1"]), None) && adds_any(&service(&["192.0.2.3"]), Some(&old)));
    }
}
