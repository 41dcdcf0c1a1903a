//! A node without machine: registers, renews its Lease, reports its pods ready, ends those that say how, takes away
//! those that are deleted.
//!
//! In: a client. Out: what an agent would write. It can fall silent, as a machine that lost its power.

use std::time::Duration;

use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use serde_json::json;
use tokio::task::JoinHandle;

const RENEW: Duration = Duration::from_millis(500);
/// Annotation of pods that end as soon as they run: with this exit code.
pub(crate) const EXIT: &str = "hollow/exit";

pub(crate) struct HollowNode {
    pub(crate) name: String,
    client: Client,
    tasks: Vec<JoinHandle<()>>,
}

impl HollowNode {
    pub(crate) async fn join(client: &Client, name: &str) -> Self {
        let node: Node = serde_json::from_value(json!({"metadata": {
            "name": name, "labels": {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux"},
        }}))
        .unwrap();
        Api::<Node>::all(client.clone()).create(&PostParams::default(), &node).await.unwrap();
        let mut hollow = Self { name: name.to_owned(), client: client.clone(), tasks: Vec::new() };
        hollow.power_on().await;
        hollow
    }

    /// Reports ready and begins to look after its pods.
    pub(crate) async fn power_on(&mut self) {
        let status = json!({"status": {
            "capacity": {"cpu": "4", "memory": "8Gi", "pods": "110"},
            "allocatable": {"cpu": "4", "memory": "8Gi", "pods": "110"},
            "conditions": [{
                "type": "Ready", "status": "True", "reason": "KubeletReady", "message": "hollow",
                "lastHeartbeatTime": Timestamp::now(), "lastTransitionTime": Timestamp::now(),
            }],
        }});
        let nodes = Api::<Node>::all(self.client.clone());
        let patch = Patch::Strategic(&status);
        nodes.patch_status(&self.name, &PatchParams::default(), &patch).await.unwrap();
        self.tasks.push(tokio::spawn(renew(self.client.clone(), self.name.clone())));
        self.tasks.push(tokio::spawn(look_after(self.client.clone(), self.name.clone())));
    }

    /// Falls silent.
    pub(crate) fn power_off(&mut self) {
        self.tasks.drain(..).for_each(|task| task.abort());
    }
}

impl Drop for HollowNode {
    fn drop(&mut self) {
        self.power_off();
    }
}

async fn renew(client: Client, name: String) {
    let leases = Api::<Lease>::namespaced(client, "kube-node-lease");
    let mut tick = tokio::time::interval(RENEW);
    loop {
        tick.tick().await;
        let now = k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime(Timestamp::now());
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name},
            "spec": {"holderIdentity": name, "leaseDurationSeconds": 40, "renewTime": now},
        });
        if leases.get_opt(&name).await.unwrap().is_none() {
            let lease: Lease = serde_json::from_value(lease).unwrap();
            leases.create(&PostParams::default(), &lease).await.unwrap();
        } else {
            leases.patch(&name, &PatchParams::default(), &Patch::Merge(&lease)).await.unwrap();
        }
    }
}

async fn look_after(client: Client, name: String) {
    let api = Api::<Pod>::all(client.clone());
    let config = watcher::Config::default().fields(&format!("spec.nodeName={name}"));
    let pods = watcher(api, config).applied_objects();
    let mut pods = std::pin::pin!(pods);
    let mut address = 1_u8;
    while let Some(Ok(pod)) = pods.next().await {
        let (namespace, pod_name) =
            (pod.metadata.namespace.clone().unwrap(), pod.metadata.name.clone().unwrap());
        let api = Api::<Pod>::namespaced(client.clone(), &namespace);
        if pod.metadata.deletion_timestamp.is_some() {
            let params = DeleteParams::default()
                .grace_period(0)
                .preconditions(Preconditions { uid: pod.metadata.uid.clone(), resource_version: None });
            let _ = api.delete(&pod_name, &params).await;
            continue;
        }
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        if phase.is_some_and(|phase| phase != "Pending") {
            if let Some(ended) = end(&pod).filter(|_| phase == Some("Running")) {
                let _ = api.patch_status(&pod_name, &PatchParams::default(), &Patch::Strategic(&ended)).await;
            }
            continue;
        }
        let now = Timestamp::now();
        address = address.wrapping_add(1);
        let number: u32 = name.bytes().filter(u8::is_ascii_digit).map(|b| u32::from(b - b'0')).sum();
        let condition = |type_: &str| json!({"type": type_, "status": "True", "lastTransitionTime": now});
        let status = json!({"status": {
            "phase": "Running", "startTime": now, "podIP": format!("10.244.{number}.{address}"),
            "podIPs": [{"ip": format!("10.244.{number}.{address}")}, {"ip": format!("fd00:10:244:{number}::{address:x}")}],
            "conditions": [condition("Initialized"), condition("ContainersReady"), condition("Ready")],
        }});
        let _ = api.patch_status(&pod_name, &PatchParams::default(), &Patch::Strategic(&status)).await;
    }
}

/// The status of a pod that ended; `None` when it is to run on.
fn end(pod: &Pod) -> Option<serde_json::Value> {
    let code: i32 = pod.metadata.annotations.as_ref()?.get(EXIT)?.parse().ok()?;
    let containers: Vec<_> = pod
        .spec
        .iter()
        .flat_map(|spec| &spec.containers)
        .map(|container| {
            json!({
                "name": container.name, "image": "", "imageID": "", "ready": false, "restartCount": 0,
                "state": {"terminated": {"exitCode": code, "finishedAt": Timestamp::now()}},
            })
        })
        .collect();
    Some(json!({"status": {
        "phase": if code == 0 { "Succeeded" } else { "Failed" }, "containerStatuses": containers,
        "conditions": [{"type": "Ready", "status": "False", "reason": "PodCompleted"}],
    }}))
}
