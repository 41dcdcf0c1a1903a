//! Services as they are created and changed: allocations, families, ports.

use super::*;
use ipnet::IpNet;

fn ranges() -> Vec<IpNet> {
    vec!["10.96.0.0/16".parse().unwrap(), "fd00:10:96::/108".parse().unwrap()]
}

#[expect(clippy::needless_pass_by_value, reason = "a call reads as one literal")]
fn service(spec: Value) -> Value {
    json!({ "metadata": { "name": "s" }, "spec": spec })
}

#[test]
fn families_follow_the_policy() {
    for (spec, families, policy) in [
        (json!({"selector": {"a": "b"}}), json!(["IPv4"]), "SingleStack"),
        (json!({"ipFamilyPolicy": "PreferDualStack"}), json!(["IPv4", "IPv6"]), "PreferDualStack"),
        (json!({"ipFamilies": ["IPv6"]}), json!(["IPv6"]), "SingleStack"),
        (json!({"ipFamilies": ["IPv6", "IPv4"]}), json!(["IPv6", "IPv4"]), "RequireDualStack"),
        (
            json!({"clusterIP": "fd00:10:96::5", "clusterIPs": ["fd00:10:96::5"]}),
            json!(["IPv6"]),
            "SingleStack",
        ),
        (json!({"clusterIP": "None", "clusterIPs": ["None"]}), json!(["IPv4", "IPv6"]), "RequireDualStack"),
        (
            json!({"clusterIP": "None", "clusterIPs": ["None"], "selector": {"a": "b"}}),
            json!(["IPv4"]),
            "SingleStack",
        ),
    ] {
        let mut service = service(spec.clone());
        families::init(&ranges(), &mut service, None).unwrap();
        assert_eq!(service["spec"]["ipFamilies"], families, "{spec}");
        assert_eq!(service["spec"]["ipFamilyPolicy"], policy, "{spec}");
    }
}

#[test]
fn what_the_cluster_has_not_is_refused() {
    let single = &ranges()[..1];
    let mut dual = service(json!({"ipFamilyPolicy": "RequireDualStack"}));
    let errors = families::init(single, &mut dual, None).unwrap_err();
    assert_eq!(errors[0].detail, "this cluster is not configured for dual-stack services");
    let mut v6 = service(json!({"ipFamilies": ["IPv6"]}));
    let errors = families::init(single, &mut v6, None).unwrap_err();
    assert_eq!(
        errors[0].to_string(),
        "spec.ipFamilies[0]: Invalid value: \"IPv6\": not configured on this cluster"
    );
    let mut prefer = service(json!({"ipFamilyPolicy": "PreferDualStack"}));
    families::init(single, &mut prefer, None).unwrap();
    assert_eq!(prefer["spec"]["ipFamilies"], json!(["IPv4"]));
}

#[test]
fn an_update_keeps_what_was_allocated() {
    let old = service(json!({
        "type": "NodePort", "clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7"],
        "ports": [{"name": "a", "port": 80, "nodePort": 30100}],
    }));
    let mut new =
        service(json!({"type": "NodePort", "ports": [{"name": "a", "port": 81}, {"name": "b", "port": 82}]}));
    keep_allocated(&mut new, &old);
    assert_eq!(new["spec"]["clusterIPs"], json!(["10.96.0.7"]));
    assert_eq!(new["spec"]["ports"][0]["nodePort"], 30100);
    assert_eq!(new["spec"]["ports"][1].get("nodePort"), None);
}

#[test]
fn a_change_of_type_drops_what_it_alone_needed() {
    let old = service(json!({
        "type": "NodePort", "clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7"], "externalTrafficPolicy": "Cluster",
        "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack", "ports": [{"port": 80, "nodePort": 30100}],
    }));
    let mut cluster_ip = old.clone();
    cluster_ip["spec"]["type"] = "ClusterIP".into();
    drop_type_dependent(&mut cluster_ip, &old);
    assert_eq!(cluster_ip["spec"]["ports"][0].get("nodePort"), None);
    assert_eq!(cluster_ip["spec"].get("externalTrafficPolicy"), None);
    assert_eq!(cluster_ip["spec"]["clusterIP"], "10.96.0.7");

    let mut external = old.clone();
    external["spec"]["type"] = "ExternalName".into();
    drop_type_dependent(&mut external, &old);
    assert_eq!(external["spec"].get("clusterIPs"), None);
    assert_eq!(external["spec"].get("ipFamilies"), None);
}
