//! What a node admits: pods that fit, nodes that shrink, runtime classes.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_pod_that_does_not_fit_is_refused_and_one_that_runs_is_not_judged_again() {
    let mut world = World::new();
    let cpu = |amount: &str| json!({"containers": [{"name": "main", "image": "x:1", "resources": {"requests": {"cpu": amount}}}]});
    world.pod("u1", cpu("1500m"));
    world.running().await;
    world.pod_named("q", "u2", cpu("600m"));
    let pod = world.api.wait("pods/n/q", "refused", |pod| pod["status"]["phase"] == "Failed").await;
    assert_eq!(pod["status"]["reason"], "OutOfcpu");
    let message =
        "Pod was rejected: Node didn't have enough resource: cpu, requested: 600, used: 1500, capacity: 2000";
    assert_eq!(pod["status"]["message"], message);
    assert_eq!(pod["status"]["containerStatuses"], Value::Null);
    assert!(world.api.events().iter().any(|e| e.starts_with("OutOfcpu: Node didn't have enough")));
    world.runtime.take_calls();
    world.stop_kubelet().await;
    world.start_kubelet();
    world.api.change(KEY, |pod| pod["metadata"]["generation"] = json!(2));
    world.api.wait(KEY, "seen", |pod| pod["status"]["observedGeneration"] == 2).await;
    assert!(world.runtime.take_calls().is_empty());
    let pod = world.api.get("pods/n/q").unwrap();
    assert_eq!(pod["status"]["reason"], "OutOfcpu", "a restart of the agent changes nothing");
    assert_eq!(pod["status"]["containerStatuses"], Value::Null);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_shrank_keeps_what_runs() {
    let asking = |cpu: &str| json!({"containers": [{"name": "main", "image": "x:1", "resources": {"requests": {"cpu": cpu}}}]});
    let mut world = World::new();
    world.pod("u1", asking("1500m"));
    world.running().await;
    world.runtime.take_calls();
    world.stop_kubelet().await;
    world.milli_cpu = 1000;
    world.start_kubelet();
    world.pod_named("q", "u2", asking("100m"));
    world.api.wait("pods/n/q", "refused", |pod| pod["status"]["reason"] == "OutOfcpu").await;
    assert_eq!(world.api.get(KEY).unwrap()["status"]["phase"], "Running");
    assert!(world.runtime.take_calls().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_runtime_class_must_exist_and_have_a_handler_here() {
    let world = World::new();
    let mut spec = simple();
    spec["runtimeClassName"] = json!("sandboxed");
    world.pod("u1", spec);
    let told = |text: &str| {
        let (api, text) = (world.api.clone(), text.to_owned());
        async move {
            let found = || api.events().iter().any(|e| e.contains(&text)).then_some(());
            api.wait_for(&text, found).await;
        }
    };
    told("FailedCreatePodSandBox: Failed to create pod sandbox: RuntimeClass.node.k8s.io \"sandboxed\" not found").await;
    let class = |handler: &str| {
        let name = json!({"namespace": "-", "name": "sandboxed"});
        world.api.put("runtimeclasses", json!({"metadata": name, "handler": handler}));
    };
    class("runsc");
    told("no runtime for \"runsc\" is configured").await;
    assert!(world.network.uids().is_empty() && world.runtime.is_empty());
    class("runc");
    world.running().await;
}
