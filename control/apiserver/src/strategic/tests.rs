//! Expectations from upstream's documentation of strategic merge patch and its directives.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn merged(kind: &str, original: &Value, patch: &Value) -> Result<Value, PatchError> {
    let name = format!("io.k8s.api.core.v1.{kind}");
    merge(Schema::global().unwrap().named(&name).unwrap(), original, patch)
}

#[expect(clippy::needless_pass_by_value, reason = "a call reads as one literal")]
fn pod_spec(original: Value, patch: Value) -> Value {
    merged("PodSpec", &original, &patch).unwrap()
}

#[test]
fn lists_with_a_key_merge_by_it() {
    let original = json!({"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "1"}]});
    assert_eq!(
        pod_spec(original.clone(), json!({"containers": [{"name": "b", "image": "2"}, {"name": "c"}]})),
        json!({"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "2"}, {"name": "c"}]})
    );
    assert_eq!(
        pod_spec(original.clone(), json!({"containers": [{"name": "a", "$patch": "delete"}]})),
        json!({"containers": [{"name": "b", "image": "1"}]})
    );
    assert_eq!(
        pod_spec(original.clone(), json!({"containers": [{"name": "x"}, {"$patch": "replace"}]})),
        json!({"containers": [{"name": "x"}]})
    );
    assert_eq!(pod_spec(original.clone(), json!({"containers": null})), json!({}));
    let error = merged("PodSpec", &original, &json!({"containers": [{"image": "2"}]})).unwrap_err();
    assert_eq!(error.to_string(), "map: map[image:2] does not contain declared merge key: name");
}

#[test]
fn lists_without_a_strategy_are_replaced() {
    let original = json!({"tolerations": [{"key": "a"}], "containers": [{"name": "a", "args": ["x", "y"]}]});
    let patch = json!({"tolerations": [{"key": "b"}], "containers": [{"name": "a", "args": ["z"]}]});
    assert_eq!(
        pod_spec(original, patch),
        json!({"tolerations": [{"key": "b"}], "containers": [{"name": "a", "args": ["z"]}]})
    );
}

#[test]
fn maps_merge_and_nulls_delete() {
    let original = json!({"nodeSelector": {"a": "1", "b": "2"}, "hostname": "h"});
    assert_eq!(
        pod_spec(
            original.clone(),
            json!({"nodeSelector": {"b": null, "c": "3"}, "hostname": null, "x": null})
        ),
        json!({"nodeSelector": {"a": "1", "c": "3"}})
    );
    assert_eq!(
        pod_spec(original.clone(), json!({"nodeSelector": {"$patch": "replace", "z": "1"}})),
        json!({"nodeSelector": {"z": "1"}, "hostname": "h"})
    );
    assert_eq!(
        pod_spec(original.clone(), json!({"nodeSelector": {"$patch": "delete"}})),
        json!({"nodeSelector": {}, "hostname": "h"})
    );
    assert_eq!(
        pod_spec(
            json!({}),
            json!({"affinity": {"nodeAffinity": null}, "nodeSelector": {"$patch": "delete"}})
        ),
        json!({"affinity": {}})
    );
    let error = merged("PodSpec", &original, &json!({"$patch": "what"})).unwrap_err();
    assert_eq!(error.to_string(), "unknown patch type: what in map: map[$patch:what]");
}

#[test]
fn retained_keys_drop_the_rest() {
    let original = json!({"volumes": [{"name": "v", "emptyDir": {}}]});
    assert_eq!(
        pod_spec(
            original.clone(),
            json!({"volumes": [{"name": "v", "configMap": {"name": "c"}, "$retainKeys": ["name", "configMap"]}]})
        ),
        json!({"volumes": [{"name": "v", "configMap": {"name": "c"}}]})
    );
    let patch = json!({"volumes": [{"name": "v", "configMap": {}, "$retainKeys": ["name"]}]});
    let error = merged("PodSpec", &original, &patch).unwrap_err();
    assert!(matches!(error, PatchError::Format(Directive::RetainKeys)));
    assert_eq!(error.to_string(), "invalid patch format of retainKeys");
}

#[test]
fn scalars_merge_as_a_set() {
    let original = json!({"finalizers": ["a", "b", "c"]});
    let of = |patch: Value| {
        let definition =
            Schema::global().unwrap().named("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta").unwrap();
        merge(definition, &original, &patch).unwrap()
    };
    // An item of the object goes before the first item of the patch that the object has after it.
    assert_eq!(of(json!({"finalizers": ["d", "b"]})), json!({"finalizers": ["d", "a", "b", "c"]}));
    assert_eq!(
        of(json!({"$deleteFromPrimitiveList/finalizers": ["b", "x"]})),
        json!({"finalizers": ["a", "c"]})
    );
    assert_eq!(
        of(json!({"$setElementOrder/finalizers": ["c", "a"], "$deleteFromPrimitiveList/finalizers": ["b"]})),
        json!({"finalizers": ["c", "a"]})
    );
}

#[test]
fn the_order_directive_wins_over_the_live_order() {
    let original = json!({"containers": [{"name": "a"}, {"name": "s"}, {"name": "b"}]});
    assert_eq!(
        pod_spec(
            original.clone(),
            json!({
                "$setElementOrder/containers": [{"name": "b"}, {"name": "n"}, {"name": "a"}],
                "containers": [{"name": "n", "image": "1"}, {"name": "a", "image": "2"}],
            })
        ),
        json!({"containers": [
            {"name": "s"}, {"name": "b"}, {"name": "n", "image": "1"}, {"name": "a", "image": "2"}]})
    );
    let wrong = json!({
        "$setElementOrder/containers": [{"name": "a"}, {"name": "b"}],
        "containers": [{"name": "b"}, {"name": "a"}],
    });
    assert_eq!(
        merged("PodSpec", &original, &wrong).unwrap_err().to_string(),
        "The order in patch list:\n[map[name:b] map[name:a]]\n doesn't match $setElementOrder list:\n\
         [map[name:a] map[name:b]]\n"
    );
    assert_eq!(
        pod_spec(
            original,
            json!({
                "$setElementOrder/containers": [{"name": "b"}],
                "containers": [{"name": "a", "$patch": "delete"}, {"name": "s", "$patch": "delete"}],
            })
        ),
        json!({"containers": [{"name": "b"}]})
    );
}

#[test]
fn fields_of_another_type_are_replaced() {
    assert_eq!(pod_spec(json!({"hostname": "h"}), json!({"hostname": 5})), json!({"hostname": 5}));
    let error = merged("PodSpec", &json!({"nope": {}}), &json!({"nope": {"a": 1}})).unwrap_err();
    assert_eq!(error.to_string(), "unable to find api field in struct PodSpec for the json field \"nope\"");
    let lists = merged("PodSpec", &json!({"containers": [[]]}), &json!({"containers": [[]]})).unwrap_err();
    assert!(matches!(lists, PatchError::ListOfLists));
}

#[test]
fn long_lists_take_as_long_as_they_are() {
    const MANY: usize = 60_000;
    let definition =
        Schema::global().unwrap().named("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta").unwrap();
    let numbered =
        |range: std::ops::Range<usize>| range.map(|index| format!("a/{index}")).collect::<Vec<_>>();
    let original = json!({ "finalizers": numbered(0..MANY) });
    let patch = json!({ "finalizers": numbered(MANY / 2..MANY + MANY / 2) });
    // Compared one by one this would be more than a thousand million comparisons, each step of a sort as many again.
    let begun = std::time::Instant::now();
    let result = merge(definition, &original, &patch).unwrap();
    assert_eq!(result["finalizers"], json!(numbered(0..MANY + MANY / 2)));
    assert!(begun.elapsed() < std::time::Duration::from_secs(10), "{:?}", begun.elapsed());

    let items =
        |prefix: &str| (0..MANY / 4).map(|index| json!({"name": format!("{prefix}{index}")})).collect();
    let (live, patch): (Vec<Value>, Vec<Value>) = (items("a"), items("b"));
    let deletes: Vec<Value> = live
        .iter()
        .map(|item| json!({"name": item["name"], "$patch": "delete"}))
        .chain(patch.clone())
        .collect();
    let merged = pod_spec(json!({ "containers": live }), json!({ "containers": deletes }));
    assert_eq!(merged["containers"], json!(patch));
    assert!(begun.elapsed() < std::time::Duration::from_secs(20), "{:?}", begun.elapsed());
}

fn containers() -> impl Strategy<Value = Value> {
    let names = prop::sample::subsequence(vec!["a", "b", "c", "d", "e"], 0..=5).prop_shuffle();
    (names, "[0-9]").prop_map(|(names, image)| {
        let items: Vec<Value> = names.iter().map(|name| json!({"name": name, "image": image})).collect();
        json!({ "containers": items })
    })
}

proptest! {
    #[test]
    fn an_object_as_its_own_patch_changes_nothing(object in containers()) {
        prop_assert_eq!(merged("PodSpec", &object, &object).unwrap(), object);
    }

    #[test]
    fn patches_apply_once(original in containers(), patch in containers()) {
        let once = merged("PodSpec", &original, &patch).unwrap();
        prop_assert_eq!(merged("PodSpec", &once, &patch).unwrap(), once);
    }

    #[test]
    fn the_wanted_order_holds(original in containers(), patch in containers()) {
        let names = |value: &Value| -> Vec<Value> {
            value["containers"].as_array().unwrap().iter().map(|item| item["name"].clone()).collect()
        };
        let order: Vec<Value> = names(&patch).into_iter().map(|name| json!({ "name": name })).collect();
        let mut directed = patch.clone();
        directed["$setElementOrder/containers"] = order.into();
        let result = merged("PodSpec", &original, &directed).unwrap();
        let mut kept = names(&result);
        kept.retain(|name| names(&patch).contains(name));
        prop_assert_eq!(kept, names(&patch));
        prop_assert!(names(&original).iter().all(|name| names(&result).contains(name)));
    }
}
