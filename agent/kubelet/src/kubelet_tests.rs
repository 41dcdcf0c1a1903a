//! Whole lives of pods: the real kubelet over an API server, a runtime and a network in memory.

use std::time::Duration;

use serde_json::{Value, json};

#[path = "kubelet_tests/admission.rs"]
mod admission;
#[path = "kubelet_tests/order.rs"]
mod order;

use super::*;
use crate::resources::NodeCapacity;
use crate::testing::api::FakeApi;
use crate::testing::network::FakeNetwork;
use crate::testing::runtime::FakeRuntime;

const KEY: &str = "pods/n/p";

struct World {
    api: FakeApi,
    runtime: FakeRuntime,
    network: FakeNetwork,
    dir: tempfile::TempDir,
    milli_cpu: u64,
    kubelet: Option<Kubelet>,
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            api: FakeApi::new(),
            runtime: FakeRuntime::default(),
            network: FakeNetwork::default(),
            dir: tempfile::tempdir().unwrap(),
            milli_cpu: 2000,
            kubelet: None,
        };
        world.start_kubelet();
        world
    }

    fn start_kubelet(&mut self) {
        let capacity =
            NodeCapacity { milli_cpu: self.milli_cpu, memory: 1 << 30, ephemeral_storage: 1 << 30 };
        let mut config = KubeletConfig::new("node", vec!["192.0.2.1".parse().unwrap()], capacity);
        config.state_dir = self.dir.path().join("state");
        config.log_dir = self.dir.path().join("logs");
        config.log_links_dir = Some(self.dir.path().join("links"));
        let cgroups = Cgroups::fake(&self.dir.path().join("cgroup"));
        let client = self.api.client();
        let recorder = Recorder::spawn(client.clone(), "node");
        let kubelet =
            Kubelet::start_in(cgroups, config, client, self.runtime.clone(), self.network.clone(), recorder);
        self.kubelet = Some(kubelet.unwrap());
    }

    /// The agent ends as a kill would end it.
    async fn stop_kubelet(&mut self) {
        self.kubelet = None;
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    }

    fn pod(&self, uid: &str, spec: Value) {
        self.pod_named("p", uid, spec);
    }

    fn pod_named(&self, name: &str, uid: &str, spec: Value) {
        let mut spec = spec;
        spec["nodeName"] = json!("node");
        self.api.put(
            "pods",
            json!({
                "metadata": {"namespace": "n", "name": name, "uid": uid, "generation": 1},
                "spec": spec, "status": {"phase": "Pending"},
            }),
        );
    }

    fn delete(&self, grace: i64) {
        self.api.change(KEY, |pod| {
            pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            pod["metadata"]["deletionGracePeriodSeconds"] = json!(grace);
        });
    }

    async fn running(&self) -> Value {
        self.api.wait(KEY, "ready", |pod| condition(pod, "Ready") == "True").await
    }

    async fn waiting(&self, reason: &str) -> Value {
        self.api.wait(KEY, reason, |pod| main(pod)["state"]["waiting"]["reason"] == reason).await
    }

    async fn gone(&self) {
        let api = &self.api;
        api.wait(KEY, "gone", Value::is_null).await;
        let known = self.kubelet.as_ref().unwrap().pods();
        api.wait_for("forgotten", || known.all().is_empty().then_some(())).await;
    }

    fn pod_dirs(&self) -> usize {
        std::fs::read_dir(self.dir.path().join("state/pods")).unwrap().count()
    }
}

fn main(pod: &Value) -> &Value {
    &pod["status"]["containerStatuses"][0]
}

fn condition(pod: &Value, type_: &str) -> String {
    let list = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
    list.iter().find(|c| c["type"] == type_).map_or("", |c| c["status"].as_str().unwrap()).to_owned()
}

fn simple() -> Value {
    json!({"containers": [{"name": "main", "image": "x:1"}]})
}

#[tokio::test(start_paused = true)]
async fn a_pod_runs_says_so_and_leaves_nothing_when_it_is_deleted() {
    let world = World::new();
    world.pod("u1", simple());
    let pod = world.running().await;
    assert_eq!(pod["status"]["phase"], "Running");
    assert_eq!(pod["status"]["podIP"], "10.1.0.2");
    assert_eq!(pod["status"]["hostIP"], "192.0.2.1");
    assert_eq!(main(&pod)["containerID"], "containerd://u1-main/0");
    assert_eq!(main(&pod)["imageID"], "x:1@sha256:manifest");
    assert_eq!(world.runtime.take_calls(), ["create main/0", "start main/0"]);
    let config = world.runtime.config("main", 0);
    assert_eq!(config.sandbox.cgroup_parent, "/kubepods/besteffort/podu1");
    assert!(config.log_path.ends_with("logs/n_p_u1/main/0.log"));
    let hosts = std::fs::read_to_string(world.dir.path().join("state/pods/u1/etc-hosts")).unwrap();
    assert!(hosts.contains("10.1.0.2\tp\n"), "{hosts}");

    let links = || std::fs::read_dir(world.dir.path().join("links")).unwrap().count();
    assert_eq!(links(), 1);

    world.delete(30);
    world.gone().await;
    assert_eq!(links(), 0);
    assert_eq!(world.runtime.take_calls(), ["signal main/0 15", "remove main/0"]);
    assert_eq!(world.api.deletes(), ["p Failed 0"], "the last status was written before");
    assert!(world.runtime.is_empty() && world.network.uids().is_empty());
    assert_eq!(world.pod_dirs(), 0);
    assert!(!world.dir.path().join("cgroup/kubepods/besteffort/podu1").exists());
    assert!(!world.dir.path().join("logs/n_p_u1").exists());
    let events = world.api.events().join("\n");
    for reason in ["Pulled", "Created", "Started", "Killing"] {
        assert!(events.contains(reason), "{events}");
    }
}

#[tokio::test(start_paused = true)]
async fn services_turn_away_before_the_container_hears_of_its_end() {
    let world = World::new();
    world.pod("u1", simple());
    world.running().await;
    world.runtime.take_calls();
    world.network.set_in_use(true);
    world.delete(30);
    tokio::time::sleep(Duration::from_millis(900)).await;
    assert!(world.runtime.take_calls().is_empty(), "a Service still sends here");
    world.network.set_in_use(false);
    world.gone().await;
    assert_eq!(world.runtime.take_calls()[0], "signal main/0 15");
}

#[tokio::test(start_paused = true)]
async fn services_that_do_not_turn_away_are_waited_for_a_second_only() {
    let world = World::new();
    world.pod("u1", simple());
    world.running().await;
    world.network.set_in_use(true);
    let begun = tokio::time::Instant::now();
    world.delete(30);
    world.gone().await;
    let took = begun.elapsed().as_millis();
    assert!((1000..1500).contains(&took), "{took}");
}

#[tokio::test(start_paused = true)]
async fn a_process_that_ignores_its_signal_is_killed_after_its_grace() {
    let world = World::new();
    world.runtime.ignore_term("main");
    world.pod("u1", simple());
    world.running().await;
    let begun = tokio::time::Instant::now();
    world.delete(7);
    world.gone().await;
    let took = begun.elapsed().as_secs();
    assert!((7..9).contains(&took), "{took}");
    let calls = world.runtime.take_calls();
    assert_eq!(calls[2..], ["signal main/0 15", "signal main/0 9", "remove main/0"]);
}

#[tokio::test(start_paused = true)]
async fn a_crashing_container_restarts_with_backoff_and_its_count() {
    let world = World::new();
    world.pod("u1", simple());
    world.running().await;
    world.runtime.exit("main", 3);
    world
        .api
        .wait(KEY, "restarted", |pod| main(pod)["restartCount"] == 1 && condition(pod, "Ready") == "True")
        .await;
    world.runtime.exit("main", 4);
    let pod = world.waiting("CrashLoopBackOff").await;
    assert_eq!(main(&pod)["lastState"]["terminated"]["exitCode"], 4);
    assert_eq!(pod["status"]["phase"], "Running");
    assert_eq!(condition(&pod, "Ready"), "False");
    let pod = world
        .api
        .wait(KEY, "restarted again", |pod| {
            main(pod)["restartCount"] == 2 && condition(pod, "Ready") == "True"
        })
        .await;
    assert_eq!(main(&pod)["lastState"]["terminated"]["reason"], "Error");
    let calls = world.runtime.take_calls();
    assert!(calls.contains(&"remove main/0".to_owned()), "{calls:?}");
    assert!(
        world.api.events().iter().any(|e| e.starts_with("BackOff: Back-off restarting failed container"))
    );
}

#[tokio::test(start_paused = true)]
async fn a_restart_of_the_agent_touches_no_container_and_flips_no_condition() {
    let mut world = World::new();
    world.pod(
        "u1",
        json!({"containers": [{"name": "main", "image": "x:1",
            "readinessProbe": {"exec": {"command": ["ready"]}, "periodSeconds": 5}}]}),
    );
    world.running().await;
    world.runtime.exit("main", 1);
    let before = world
        .api
        .wait(KEY, "restarted", |pod| main(pod)["restartCount"] == 1 && condition(pod, "Ready") == "True")
        .await;
    world.runtime.take_calls();
    world.stop_kubelet().await;
    let revision = |pod: &Value| pod["metadata"]["resourceVersion"].clone();
    world.start_kubelet();
    // A change of the pod proves that the new kubelet has it.
    world.api.change(KEY, |pod| pod["metadata"]["generation"] = json!(2));
    let after = world.api.wait(KEY, "seen", |pod| pod["status"]["observedGeneration"] == 2).await;
    assert_ne!(revision(&before), revision(&after));
    assert_eq!(after["status"]["containerStatuses"], before["status"]["containerStatuses"]);
    assert_eq!(condition(&after, "Ready"), "True");
    assert!(world.runtime.take_calls().is_empty());
    // And it goes on: the next exit waits for the backoff that the old kubelet began.
    world.runtime.exit("main", 1);
    world.waiting("CrashLoopBackOff").await;
}

#[tokio::test(start_paused = true)]
async fn a_runtime_that_does_not_answer_is_not_a_runtime_without_containers() {
    let mut world = World::new();
    world.pod("u1", json!({"containers": [{"name": "main", "image": "x:1"}]}));
    world.running().await;
    world.runtime.take_calls();
    world.stop_kubelet().await;
    std::fs::remove_file(crate::checkpoint::path(&world.dir.path().join("state/pods/u1"))).unwrap();
    world.runtime.set_down(true);
    world.start_kubelet();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(world.runtime.take_calls().is_empty(), "nothing is started beside what may go on");
    world.runtime.set_down(false);
    world.api.change(KEY, |pod| pod["metadata"]["generation"] = json!(2));
    let pod = world.api.wait(KEY, "seen", |pod| pod["status"]["observedGeneration"] == 2).await;
    assert_eq!(main(&pod)["restartCount"], 0);
    assert!(world.runtime.take_calls().is_empty(), "it is adopted");
}

#[tokio::test(start_paused = true)]
async fn what_ended_while_the_agent_was_away_is_noticed() {
    let mut world = World::new();
    world.pod("u1", json!({"restartPolicy": "Never", "containers": [{"name": "main", "image": "x:1"}]}));
    world.running().await;
    world.stop_kubelet().await;
    world.runtime.exit("main", 0);
    world.start_kubelet();
    let pod = world.api.wait(KEY, "done", |pod| pod["status"]["phase"] == "Succeeded").await;
    assert_eq!(main(&pod)["state"]["terminated"]["reason"], "Completed");
    assert_eq!(world.runtime.take_calls(), ["create main/0", "start main/0"]);
}

#[tokio::test(start_paused = true)]
async fn what_belongs_to_no_pod_is_removed_once_the_list_is_complete() {
    let mut world = World::new();
    world.pod("u1", simple());
    world.running().await;
    world.stop_kubelet().await;
    world.api.remove(KEY);
    world.network.put("u9");
    world.start_kubelet();
    let (runtime, network) = (&world.runtime, &world.network);
    world
        .api
        .wait_for("cleaned", || {
            (runtime.is_empty() && network.uids().is_empty() && world.pod_dirs() == 0).then_some(())
        })
        .await;
    assert!(!world.dir.path().join("cgroup/kubepods/besteffort/podu1").exists());
    assert!(!world.dir.path().join("logs/n_p_u1").exists());
}

#[tokio::test(start_paused = true)]
async fn a_missing_config_map_holds_the_container_back_until_it_comes() {
    let world = World::new();
    world.pod(
        "u1",
        json!({"containers": [{"name": "main", "image": "x:1", "env": [
            {"name": "V", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "k"}}}]}]}),
    );
    let pod = world.waiting("CreateContainerConfigError").await;
    assert_eq!(main(&pod)["state"]["waiting"]["message"], "configmap \"cm\" not found");
    let begun = tokio::time::Instant::now();
    world.api.put("configmaps", json!({"metadata": {"namespace": "n", "name": "cm"}, "data": {"k": "v"}}));
    world.running().await;
    assert!(begun.elapsed().as_secs() < 2, "a change heals at once");
    let env = world.runtime.config("main", 0).env;
    assert!(env.contains(&("V".to_owned(), "v".to_owned())), "{env:?}");
}

#[tokio::test(start_paused = true)]
async fn a_changed_config_map_is_on_disk_at_once() {
    let world = World::new();
    let put = |value: &str| {
        let data = json!({"metadata": {"namespace": "n", "name": "cm"}, "data": {"k": value}});
        world.api.put("configmaps", data);
    };
    put("old");
    world.pod(
        "u1",
        json!({"containers": [{"name": "main", "image": "x:1", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}],
            "volumes": [{"name": "v", "configMap": {"name": "cm"}}]}),
    );
    world.running().await;
    let mount = world.runtime.config("main", 0).mounts;
    let mount = mount.iter().find(|m| m.container_path.ends_with("v")).unwrap();
    let read = || std::fs::read_to_string(mount.host_path.join("k")).unwrap_or_default();
    assert_eq!(read(), "old");
    let begun = tokio::time::Instant::now();
    put("new");
    world.api.wait_for("new content", || (read() == "new").then_some(())).await;
    assert!(begun.elapsed().as_millis() < 1000);
}

#[tokio::test(start_paused = true)]
async fn an_image_that_is_not_there_is_tried_again() {
    let world = World::new();
    world.runtime.miss_image("x:1", true);
    world.pod("u1", simple());
    world.waiting("ErrImagePull").await;
    let pod = world.waiting("ImagePullBackOff").await;
    assert_eq!(pod["status"]["phase"], "Pending");
    world.runtime.miss_image("x:1", false);
    world.running().await;
    let events = world.api.events().join("\n");
    assert!(
        events.contains("Failed: Error: ErrImagePull") && events.contains("BackOff: Back-off pulling image")
    );
}

#[tokio::test(start_paused = true)]
async fn a_container_that_does_not_start_is_a_failed_run() {
    let world = World::new();
    world.runtime.fail_start("main", Some("exec: no such file"));
    world.pod("u1", simple());
    let pod = world.waiting("RunContainerError").await;
    assert_eq!(main(&pod)["lastState"]["terminated"]["reason"], "StartError");
    assert_eq!(main(&pod)["lastState"]["terminated"]["exitCode"], 128);
    world.waiting("CrashLoopBackOff").await;
    world.runtime.fail_start("main", None);
    world.running().await;
}

#[tokio::test(start_paused = true)]
async fn a_failed_liveness_probe_restarts_the_container() {
    let world = World::new();
    world.pod(
        "u1",
        json!({"containers": [{"name": "main", "image": "x:1",
            "livenessProbe": {"exec": {"command": ["alive"]}, "periodSeconds": 1, "failureThreshold": 2}}]}),
    );
    world.running().await;
    world.runtime.exec_code("alive", 1);
    world.api.wait(KEY, "restarted", |pod| main(pod)["restartCount"] == 1).await;
    let events = world.api.events().join("\n");
    assert!(events.contains("Unhealthy: Liveness probe failed: said"), "{events}");
    assert!(events.contains("Killing: Container main failed liveness probe, will be restarted"), "{events}");
    let calls = world.runtime.take_calls();
    assert!(calls.contains(&"signal main/0 15".to_owned()), "{calls:?}");
}

#[tokio::test(start_paused = true)]
async fn a_pod_of_the_same_name_waits_for_nobody() {
    let world = World::new();
    world.runtime.ignore_term("main");
    world.pod("u1", simple());
    world.running().await;
    world.api.remove(KEY);
    world.pod("u2", simple());
    let pod = world.running().await;
    assert_eq!(main(&pod)["containerID"], "containerd://u2-main/0");
}

#[tokio::test(start_paused = true)]
async fn a_condition_that_somebody_else_wrote_over_is_written_again() {
    let world = World::new();
    world.pod("u1", simple());
    world.running().await;
    world.api.change(KEY, |pod| {
        for condition in pod["status"]["conditions"].as_array_mut().unwrap() {
            if condition["type"] == "Ready" {
                condition["status"] = json!("False");
            }
        }
    });
    world.running().await;
}

#[tokio::test(start_paused = true)]
async fn finished_pods_keep_their_containers_for_logs_and_give_back_the_rest() {
    let world = World::new();
    world.pod("u1", json!({"restartPolicy": "Never", "containers": [{"name": "main", "image": "x:1"}]}));
    world.running().await;
    world.runtime.exit("main", 7);
    let pod = world.api.wait(KEY, "failed", |pod| pod["status"]["phase"] == "Failed").await;
    assert_eq!(main(&pod)["state"]["terminated"]["exitCode"], 7);
    let network = &world.network;
    world.api.wait_for("released", || network.uids().is_empty().then_some(())).await;
    assert!(!world.runtime.is_empty());
    world.delete(30);
    world.gone().await;
    assert_eq!(world.api.deletes(), ["p Failed 0"]);
    assert!(world.runtime.is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_ephemeral_container_joins_a_running_pod_once() {
    let world = World::new();
    world.pod("u1", simple());
    world.running().await;
    world.runtime.take_calls();
    world.api.change(KEY, |pod| {
        pod["spec"]["ephemeralContainers"] =
            json!([{"name": "debug", "image": "busybox:1", "targetContainerName": "main"}]);
    });
    let debug = |pod: &Value| pod["status"]["ephemeralContainerStatuses"][0].clone();
    world.api.wait(KEY, "debugged", |pod| debug(pod)["state"]["running"].is_object()).await;
    assert_eq!(world.runtime.take_calls(), ["create debug/0", "start debug/0"]);
    let target = world.runtime.config("debug", 0).sandbox.pid_of.unwrap();
    assert_eq!(target.0, "u1-main/0");
    world.runtime.exit("debug", 1);
    let pod = world.api.wait(KEY, "ended", |pod| debug(pod)["state"]["terminated"].is_object()).await;
    assert_eq!(pod["status"]["phase"], "Running");
    assert_eq!(condition(&pod, "Ready"), "True", "it counts for nothing");
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(world.runtime.take_calls().is_empty(), "and does not start again");
    world.delete(30);
    world.gone().await;
    assert!(world.runtime.is_empty());
}

#[tokio::test(start_paused = true)]
async fn readiness_is_told_while_a_pod_stops() {
    let world = World::new();
    world.pod(
        "u1",
        json!({"containers": [{"name": "main", "image": "x:1",
            "readinessProbe": {"exec": {"command": ["ready"]}, "periodSeconds": 1, "failureThreshold": 1},
            "livenessProbe": {"exec": {"command": ["alive"]}, "periodSeconds": 1, "failureThreshold": 1}}]}),
    );
    world.running().await;
    world.runtime.ignore_term("main");
    world.runtime.exec_code("alive", 1);
    world.delete(20);
    world.runtime.exec_code("ready", 1);
    let begun = tokio::time::Instant::now();
    world.api.wait(KEY, "not ready", |pod| condition(pod, "Ready") == "False").await;
    assert!(begun.elapsed().as_secs() < 5, "before the end of its grace");
    world.gone().await;
    let calls = world.runtime.take_calls();
    assert!(!calls.iter().any(|c| c == "start main/1"), "and liveness restarts nothing: {calls:?}");
}

#[tokio::test(start_paused = true)]
async fn a_variable_comes_from_a_file_that_an_init_container_wrote() {
    let world = World::new();
    let mounts = json!([{"name": "v", "mountPath": "/v"}]);
    let variable = json!({"name": "A",
        "valueFrom": {"fileKeyRef": {"volumeName": "v", "path": "e.env", "key": "A"}}});
    world.pod(
        "u1",
        json!({"initContainers": [{"name": "init", "image": "x:1", "volumeMounts": mounts}],
            "containers": [{"name": "main", "image": "x:1", "env": [variable]}],
            "volumes": [{"name": "v", "emptyDir": {}}]}),
    );
    let runs = |pod: &Value| pod["status"]["initContainerStatuses"][0]["state"]["running"].is_object();
    world.api.wait(KEY, "init runs", runs).await;
    let volume = world.dir.path().join("state/pods/u1/volumes/v");
    std::fs::write(volume.join("e.env"), "A='from init'\n").unwrap();
    world.runtime.exit("init", 0);
    world.running().await;
    let env = world.runtime.config("main", 0).env;
    assert!(env.contains(&("A".to_owned(), "from init".to_owned())), "{env:?}");
}

#[tokio::test(start_paused = true)]
async fn a_pod_deleted_while_the_agent_was_away_still_gets_its_grace() {
    let mut world = World::new();
    world.runtime.ignore_term("main");
    world.pod("u1", simple());
    world.running().await;
    world.runtime.take_calls();
    world.stop_kubelet().await;
    world.delete(9);
    let begun = tokio::time::Instant::now();
    world.start_kubelet();
    world.gone().await;
    assert!((9..11).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    assert_eq!(world.runtime.take_calls(), ["signal main/0 15", "signal main/0 9", "remove main/0"]);
    assert_eq!(world.api.deletes(), ["p Failed 0"]);
}

#[tokio::test(start_paused = true)]
async fn a_uid_that_comes_back_waits_until_its_last_life_is_over() {
    let world = World::new();
    world.runtime.ignore_term("main");
    world.pod("u1", simple());
    world.running().await;
    world.runtime.take_calls();
    world.api.remove(KEY);
    world.pod("u1", simple());
    let pod = world.running().await;
    assert_eq!(main(&pod)["restartCount"], 0);
    let calls = world.runtime.take_calls();
    assert_eq!(calls[..3], ["signal main/0 15", "signal main/0 9", "remove main/0"]);
    assert_eq!(calls[3..], ["create main/0", "start main/0"]);
}
