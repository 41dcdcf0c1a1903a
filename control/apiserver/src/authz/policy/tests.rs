//! Policies against hand-picked questions, and random ones against an evaluator that does everything the long way.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use super::*;

fn policy(objects: &[(&str, Value)]) -> Policy {
    let mut policy = Policy::default();
    for (place, object) in objects {
        policy.put(place, object.clone());
    }
    policy
}

fn user(name: &str, groups: &[&str]) -> UserInfo {
    UserInfo {
        name: name.into(),
        groups: groups.iter().map(|&group| group.to_owned()).collect(),
        ..UserInfo::default()
    }
}

fn reader(resources: &[&str]) -> Value {
    json!({"rules": [{"verbs": ["get"], "apiGroups": [""], "resources": resources}]})
}

fn get<'a>(namespace: &'a str, resource: &'a str) -> Attributes<'a> {
    Attributes { verb: "get", namespace, resource, name: "x", ..Attributes::default() }
}

#[test]
fn only_the_four_kinds_count() {
    let all = json!({"rules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}]});
    let bound = json!({
        "roleRef": {"kind": "ClusterRole", "name": "pods"}, "subjects": [{"kind": "User", "name": "jane"}],
    });
    let mut policy =
        policy(&[("clusterroles/pods", reader(&["pods"])), ("clusterrolebindings/pods", bound.clone())]);
    policy.put("xroles/pods", all.clone());
    policy.put("xclusterrolebindings/other", bound);
    policy.put("clusterroles/x/pods", all);
    let jane = user("jane", &[]);
    assert_eq!(policy.allows(&jane, &get("", "secrets")), None);
    policy.delete("xroles/pods");
    assert!(policy.allows(&jane, &get("", "pods")).is_some());
}

#[test]
fn bindings_reach_as_far_as_they_are_made_for() {
    let to = |kind: &str, role: &str, subject: Value| json!({"roleRef": {"kind": kind, "name": role}, "subjects": [subject]});
    let policy = policy(&[
        ("clusterroles/pods", reader(&["pods"])),
        ("clusterroles/nodes", reader(&["nodes"])),
        ("roles/a/maps", reader(&["configmaps"])),
        ("clusterrolebindings/all", to("ClusterRole", "nodes", json!({"kind": "Group", "name": "people"}))),
        ("rolebindings/a/pods", to("ClusterRole", "pods", json!({"kind": "User", "name": "jane"}))),
        ("rolebindings/a/maps", to("Role", "maps", json!({"kind": "ServiceAccount", "name": "robot"}))),
        ("rolebindings/a/none", to("Role", "gone", json!({"kind": "User", "name": "jane"}))),
    ]);
    let jane = user("jane", &["people"]);
    assert_eq!(
        policy.allows(&jane, &get("", "nodes")).as_deref(),
        Some("RBAC: allowed by ClusterRoleBinding \"all\" of ClusterRole \"nodes\" to Group \"people\"")
    );
    assert_eq!(
        policy.allows(&jane, &get("a", "pods")).as_deref(),
        Some("RBAC: allowed by RoleBinding \"pods/a\" of ClusterRole \"pods\" to User \"jane\"")
    );
    for (namespace, resource) in [("b", "pods"), ("", "pods"), ("a", "configmaps"), ("a", "secrets")] {
        assert_eq!(policy.allows(&jane, &get(namespace, resource)), None, "{namespace} {resource}");
    }
    let robot = user("system:serviceaccount:a:robot", &[]);
    assert_eq!(
        policy.allows(&robot, &get("a", "configmaps")).as_deref(),
        Some("RBAC: allowed by RoleBinding \"maps/a\" of Role \"maps\" to ServiceAccount \"robot/a\"")
    );
    assert_eq!(policy.rules_of(&jane, "a").len(), 2);
    assert_eq!(policy.rules_of(&jane, "").len(), 1);
}

#[test]
fn what_is_deleted_allows_nothing() {
    let binding = json!({"roleRef": {"kind": "ClusterRole", "name": "r"}, "subjects": [{"kind": "User", "name": "jane"}]});
    let objects = [("clusterroles/r", reader(&["pods"])), ("rolebindings/a/b", binding)];
    let jane = user("jane", &[]);
    for gone in ["clusterroles/r", "rolebindings/a/b"] {
        let mut policy = policy(&objects);
        assert!(policy.allows(&jane, &get("a", "pods")).is_some());
        policy.delete(gone);
        assert_eq!(policy.allows(&jane, &get("a", "pods")), None, "{gone}");
    }
}

/// The same question, answered from the JSON alone.
fn reference(objects: &[(String, Value)], user: &UserInfo, asked: &Attributes<'_>) -> bool {
    let texts = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().map(|text| text.as_str().unwrap().to_owned()).collect()
    };
    let any = |value: &Value, wanted: &str| texts(value).iter().any(|text| text == "*" || text == wanted);
    for (place, binding) in objects {
        let at: Vec<&str> = place.split('/').collect();
        let namespace = match at[..] {
            ["clusterrolebindings", _] => "",
            ["rolebindings", namespace, _] if namespace == asked.namespace => namespace,
            _ => continue,
        };
        let named = binding["subjects"].as_array().unwrap().iter().any(|subject| {
            let name = subject["name"].as_str().unwrap();
            match subject["kind"].as_str().unwrap() {
                "User" => user.name == name,
                "Group" => user.groups.iter().any(|group| group == name),
                _ => {
                    user.name
                        == format!("system:serviceaccount:{}:{name}", subject["namespace"].as_str().unwrap())
                }
            }
        });
        if !named {
            continue;
        }
        let name = binding["roleRef"]["name"].as_str().unwrap();
        let role = match binding["roleRef"]["kind"].as_str().unwrap() {
            "ClusterRole" => format!("clusterroles/{name}"),
            _ => format!("roles/{namespace}/{name}"),
        };
        let Some((_, role)) = objects.iter().find(|(place, _)| *place == role) else { continue };
        for rule in role["rules"].as_array().unwrap() {
            let full = if asked.subresource.is_empty() {
                asked.resource.to_owned()
            } else {
                format!("{}/{}", asked.resource, asked.subresource)
            };
            let wild = format!("*/{}", asked.subresource);
            let resources = texts(&rule["resources"]);
            let names = texts(&rule["resourceNames"]);
            if any(&rule["verbs"], asked.verb)
                && any(&rule["apiGroups"], asked.group)
                && resources
                    .iter()
                    .any(|own| own == "*" || *own == full || (!asked.subresource.is_empty() && *own == wild))
                && (names.is_empty() || names.iter().any(|name| name == asked.name))
            {
                return true;
            }
        }
    }
    false
}

#[test]
fn random_policies_are_judged_as_the_long_way_judges_them() {
    const VERBS: &[&str] = &["get", "list", "create", "*"];
    const GROUPS: &[&str] = &["", "apps", "*"];
    const RESOURCES: &[&str] = &["pods", "pods/log", "secrets", "*/scale", "deployments/scale", "*"];
    const NAMES: &[&str] = &["x", "y", "z"];
    const PLACES: &[&str] = &["a", "b"];
    const USERS: &[&str] = &["jane", "joe", "system:serviceaccount:a:robot"];
    const TEAMS: &[&str] = &["red", "blue"];
    let mut random = StdRng::seed_from_u64(37);
    let (mut yes, mut no) = (0_u32, 0_u32);
    // A hundred questions each: a million in a soak.
    let policies = if std::env::var_os("XEBEC_SOAK").is_some() { 10_000 } else { 2_000 };
    for _ in 0..policies {
        let mut some = |list: &[&str], most: usize| -> Vec<String> {
            let count = random.random_range(1..=most);
            list.choose_multiple(&mut random, count).map(|&text| text.to_owned()).collect()
        };
        let mut objects: Vec<(String, Value)> = Vec::new();
        for index in 0..4 {
            let rule = |names: Value, some: &mut dyn FnMut(&[&str], usize) -> Vec<String>| {
                json!({
                    "verbs": some(VERBS, 2), "apiGroups": some(GROUPS, 1), "resources": some(RESOURCES, 2),
                    "resourceNames": names,
                })
            };
            let names = if index % 2 == 0 { json!([]) } else { json!(some(NAMES, 2)) };
            let place = some(PLACES, 1).remove(0);
            let name = some(NAMES, 1).remove(0);
            let role = json!({"rules": [rule(names, &mut some)]});
            objects.push((format!("clusterroles/{name}"), role.clone()));
            objects.push((format!("roles/{place}/{name}"), role));
            let subject = match index {
                0 => json!({"kind": "User", "name": some(USERS, 1).remove(0)}),
                1 => {
                    json!({"kind": "ServiceAccount", "name": "robot", "namespace": some(PLACES, 1).remove(0)})
                }
                _ => json!({"kind": "Group", "name": some(TEAMS, 1).remove(0)}),
            };
            let to = |kind: &str| json!({"roleRef": {"kind": kind, "name": name}, "subjects": [subject]});
            objects.push((format!("clusterrolebindings/{index}"), to("ClusterRole")));
            objects.push((format!("rolebindings/{place}/{index}"), to("Role")));
        }
        // The last of one key counts, as in a store.
        let mut seen = std::collections::BTreeMap::new();
        seen.extend(objects);
        let objects: Vec<(String, Value)> = seen.into_iter().collect();
        let policy = {
            let mut policy = Policy::default();
            objects.iter().for_each(|(place, object)| policy.put(place, object.clone()));
            policy
        };
        for _ in 0..500 {
            let mut pick = |list: &[&'static str]| *list.choose(&mut random).unwrap();
            let user = user(pick(USERS), &[pick(TEAMS)]);
            let (resource, subresource) =
                *[("pods", ""), ("pods", "log"), ("secrets", ""), ("deployments", "scale")]
                    .choose(&mut random)
                    .unwrap();
            let mut pick = |list: &[&'static str]| *list.choose(&mut random).unwrap();
            let asked = Attributes {
                verb: pick(&VERBS[..3]),
                group: pick(&GROUPS[..2]),
                namespace: pick(&["", "a", "b"]),
                name: pick(&["", "x", "y", "z"]),
                resource,
                subresource,
                ..Attributes::default()
            };
            let expected = reference(&objects, &user, &asked);
            *(if expected { &mut yes } else { &mut no }) += 1;
            assert_eq!(policy.allows(&user, &asked).is_some(), expected, "{objects:?} {user:?} {asked:?}");
        }
    }
    assert!(yes > 50_000 && no > 50_000, "{yes} {no}");
}
