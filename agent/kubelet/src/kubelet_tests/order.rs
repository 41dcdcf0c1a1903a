//! Pods whose containers take turns, or whose time is up.
//!
//! In: the world of the tests beside. Out: the order of what happens in it.

use super::*;

#[tokio::test(start_paused = true)]
async fn init_containers_run_in_order_and_a_failed_one_is_tried_again() {
    let world = World::new();
    let container = |name: &str| json!({"name": name, "image": "x:1"});
    world.pod(
        "u1",
        json!({"initContainers": [container("one"), container("two")], "containers": [container("main")]}),
    );
    let init = |index: usize, state: &'static str| {
        move |pod: &Value| pod["status"]["initContainerStatuses"][index]["state"][state].is_object()
    };
    let pod = world.api.wait(KEY, "one runs", init(0, "running")).await;
    assert_eq!(main(&pod)["state"]["waiting"]["reason"], "PodInitializing");
    assert_eq!(condition(&pod, "Initialized"), "False");
    world.runtime.exit("one", 0);
    world.api.wait(KEY, "two runs", init(1, "running")).await;
    world.runtime.exit("two", 1);
    world
        .api
        .wait(KEY, "two again", |pod| pod["status"]["initContainerStatuses"][1]["restartCount"] == 1)
        .await;
    world.api.wait(KEY, "two runs again", init(1, "running")).await;
    world.runtime.exit("two", 0);
    let pod = world.running().await;
    assert_eq!(condition(&pod, "Initialized"), "True");
    let starts =
        world.runtime.take_calls().into_iter().filter(|c| c.starts_with("start")).collect::<Vec<_>>();
    assert_eq!(starts, ["start one/0", "start two/0", "start two/1", "start main/0"]);
}

#[tokio::test(start_paused = true)]
async fn a_deadline_that_is_set_later_ends_the_pod() {
    let world = World::new();
    world.pod("u1", simple());
    world.running().await;
    world.api.change(KEY, |pod| pod["spec"]["activeDeadlineSeconds"] = json!(5));
    let pod = world.api.wait(KEY, "failed", |pod| pod["status"]["phase"] == "Failed").await;
    assert_eq!(pod["status"]["reason"], "DeadlineExceeded");
    assert_eq!(main(&pod)["state"]["terminated"]["exitCode"], 143);
}

#[tokio::test(start_paused = true)]
async fn a_pod_is_deleted_only_after_its_last_status_was_written() {
    let world = World::new();
    world.pod("u1", simple());
    world.running().await;
    world.api.delay_statuses(Duration::from_secs(5));
    world.delete(30);
    world.gone().await;
    assert_eq!(world.api.deletes(), ["p Failed 0"]);
}
