//! What the `api_*` suites begin with: a control plane of the test's own, kubectl for it, and a node without a machine.
//!
//! In: the built program, kubectl. Out: a fixture, or `None` with the reason said as skipped.

use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::control::Control;
use crate::kubectl::Kubectl;
use crate::skip::skipped;

/// A control plane and kubectl for it. Ends with the test.
pub struct Api {
    pub kubectl: Kubectl,
    pub control: Control,
    /// The hearts of nodes; they stop when this goes.
    hearts: Mutex<Vec<Sender<()>>>,
}

/// Nodes are believed for 40 seconds.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// How long a controller may take.
const SOON: Duration = Duration::from_secs(30);

/// One object of each kind that kubectl is shown, in the namespace `show`; its pod is on the node `n1`.
const SHOWCASE: &str = include_str!("showcase.yaml");

/// Arguments that read a manifest from standard input.
pub const APPLY: &[&str] = &["apply", "-f", "-"];
pub const CREATE: &[&str] = &["create", "-f", "-"];

// === impl Api ===

impl Api {
    /// `None`, said as skipped, where a program is missing.
    pub async fn start(test: &str) -> Option<Self> {
        let control = Control::start(test).await?;
        let Some(kubectl) = Kubectl::find(&control.kubeconfig(), control.folder()) else {
            skipped(test, "there is no kubectl: XEBEC_KUBECTL names none and PATH holds none");
            return None;
        };
        Some(Self { kubectl, control, hearts: Mutex::default() })
    }

    /// The same with a node and one object of each kind in the namespace `show`.
    pub async fn showcase(test: &str) -> Option<Self> {
        let api = Self::start(test).await?;
        api.node("n1", "10.0.0.1");
        api.kubectl.ok_with(APPLY, SHOWCASE);
        Some(api)
    }

    /// Waits until a field of an object of the showcase has a value: `{.status.replicas}=2`.
    ///
    /// # Panics
    /// When it does not come to that.
    pub fn settled(&self, object: &str, wanted: &str) {
        // A controller may have to make it first.
        self.kubectl.ok(&["wait", "-n", "show", object, "--for=create", "--timeout=30s"]);
        let condition = format!("--for=jsonpath={wanted}");
        self.kubectl.ok(&["wait", "-n", "show", object, &condition, "--timeout=30s"]);
    }

    /// The slice of the showcase's Service, once its controller has put the pod into it.
    ///
    /// # Panics
    /// When it does not.
    pub fn slice(&self) -> String {
        let ready = "jsonpath={.items[?(@.endpoints[0].conditions.ready==true)].metadata.name}";
        let deadline = Instant::now() + SOON;
        loop {
            let name = self.kubectl.ok(&["get", "endpointslices", "-n", "show", "-o", ready]);
            if !name.is_empty() {
                return format!("endpointslice.discovery.k8s.io/{name}");
            }
            assert!(Instant::now() < deadline, "the service has no ready endpoint");
        }
    }

    /// kubectl with a kubeconfig of the test's own.
    ///
    /// # Panics
    /// When the file cannot be written.
    pub fn kubectl_with(&self, name: &str, kubeconfig: &str) -> Kubectl {
        let path = self.file(name, kubeconfig);
        Kubectl::find(&path, self.control.folder()).expect("kubectl was found before")
    }

    /// A file in the control plane's folder.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.control.folder().join(name);
        std::fs::write(&path, text).expect("a file");
        path
    }

    /// A Node that says it is ready, with nothing behind it but a Lease that is renewed.
    ///
    /// # Panics
    /// When it is refused.
    pub fn node(&self, name: &str, address: &str) {
        let node = json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": { "name": name, "labels": { "kubernetes.io/hostname": name, "kubernetes.io/os": "linux" } },
        });
        self.kubectl.ok_with(CREATE, &node.to_string());
        let room = json!({ "cpu": "4", "memory": "8Gi", "pods": "110" });
        let status = json!({ "status": {
            "capacity": room, "allocatable": room,
            "addresses": [{ "type": "InternalIP", "address": address }, { "type": "Hostname", "address": name }],
            "conditions": [{
                "type": "Ready", "status": "True", "reason": "KubeletReady",
                "message": "kubelet is posting ready status",
                "lastHeartbeatTime": "2026-01-01T00:00:00Z", "lastTransitionTime": "2026-01-01T00:00:00Z",
            }],
            "nodeInfo": {
                "kubeletVersion": "v1.37.0", "kubeProxyVersion": "", "containerRuntimeVersion": "containerd://2.3.1",
                "osImage": "Debian GNU/Linux 12", "kernelVersion": "6.18.0", "operatingSystem": "linux",
                "architecture": "amd64", "machineID": "m", "systemUUID": "s", "bootID": "b",
            },
        } });
        self.status("node", name, &status.to_string());
        let (stop, stopped) = mpsc::channel();
        self.hearts.lock().unwrap_or_else(PoisonError::into_inner).push(stop);
        let (kubectl, name) = (self.kubectl.clone(), name.to_owned());
        std::thread::spawn(move || beat(&kubectl, &name, &stopped));
    }

    /// Merges something into an object's status.
    ///
    /// # Panics
    /// When it is refused.
    pub fn status(&self, kind: &str, name: &str, patch: &str) {
        self.kubectl.ok(&["patch", kind, name, "--subresource=status", "--type=merge", "-p", patch]);
    }
}

/// Renews a node's Lease until the test ends.
fn beat(kubectl: &Kubectl, name: &str, stopped: &Receiver<()>) {
    let mut beats = 0;
    while stopped.recv_timeout(HEARTBEAT) == Err(RecvTimeoutError::Timeout) {
        beats += 1;
        let renewed = format!("2026-01-01T00:{:02}:{:02}.000000Z", beats / 60 % 60, beats % 60);
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": { "name": name, "namespace": "kube-node-lease" },
            "spec": { "holderIdentity": name, "leaseDurationSeconds": 40, "renewTime": renewed },
        });
        // The server may be away.
        kubectl.run_with(&["apply", "--server-side", "-f", "-"], &lease.to_string());
    }
}
