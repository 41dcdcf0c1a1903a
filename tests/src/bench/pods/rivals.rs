//! The same container, started by others: containerd's client library, `ctr`, runc.
//!
//! In: a container that the agent started, to be copied. Out: milliseconds until the copy runs. Copies have namespaces of
//! their own, made by runc, and are removed before the next measurement.

use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use containerd_client::services::v1::snapshots::{
    PrepareSnapshotRequest, RemoveSnapshotRequest, StatSnapshotRequest,
};
use containerd_client::services::v1::{
    Container as Record, CreateContainerRequest, CreateTaskRequest, DeleteContainerRequest,
    DeleteTaskRequest, GetContainerRequest, GetRequest, KillRequest, StartRequest, WaitRequest,
};
use containerd_client::types::Mount;
use containerd_client::{Client, with_namespace};
use nix::mount::{MsFlags, mount, umount};
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::time::timeout;
use tonic::{Code, Request};

const SOCKET: &str = "/run/containerd/containerd.sock";
const SPACE: &str = "k8s.io";
const SNAPSHOTTER: &str = "overlayfs";
/// Where the agent tells its log sinks what they are for.
const LOG_LABEL: &str = "xebec.dev/log";
const FOLDER: &str = "/run/xebec-bench";
const KEPT_SNAPSHOT: &str = "xebec-bench-runc";
const PATIENCE: Duration = Duration::from_secs(20);
const TURN: Duration = Duration::from_millis(2);
const SIGKILL: u32 = 9;

/// Calls to containerd, bounded in time, in the namespace of the node's containers.
macro_rules! call {
    ($client:expr, $service:ident.$method:ident($request:expr)) => {{
        let mut service = $client.$service();
        timeout(PATIENCE, service.$method(with_namespace!($request, SPACE))).await.context(concat!(
            stringify!($service),
            ".",
            stringify!($method),
            ": no answer"
        ))?
    }};
}

/// What is copied, and who can start it.
pub(super) struct Rivals {
    containerd: Client,
    template: Record,
    spec: Value,
    /// Snapshot of the image.
    parent: String,
    log: String,
    /// Cgroup that holds the copies.
    cgroup: String,
    rootfs: PathBuf,
}

impl Rivals {
    /// Takes the container as the agent made it.
    pub(super) async fn prepare(id: &str) -> Result<Self> {
        let containerd = Client::from_path(SOCKET).await?;
        let found = call!(containerd, containers.get(GetContainerRequest { id: id.to_owned() }))?;
        let template = found.into_inner().container.context("containerd knows the container")?;
        let mut spec: Value =
            serde_json::from_slice(&template.spec.as_ref().context("it has a spec")?.value)?;
        let namespaces = spec["linux"]["namespaces"].as_array_mut().context("it has namespaces")?;
        for namespace in namespaces.iter_mut().filter_map(Value::as_object_mut) {
            namespace.remove("path");
        }
        let own = spec["linux"]["cgroupsPath"].as_str().context("it has a cgroup")?;
        // <node>/kubepods/<class>/pod<uid>/<id>
        let cgroup = own.rsplitn(3, '/').nth(2).context("a pod's cgroup is below its class")?.to_owned();
        let stat =
            StatSnapshotRequest { snapshotter: SNAPSHOTTER.into(), key: template.snapshot_key.clone() };
        let stat = call!(containerd, snapshots.stat(stat))?.into_inner();
        let parent = stat.info.context("it has a snapshot")?.parent;
        let log = template.labels.get(LOG_LABEL).context("it has a log sink")?.clone();
        let rootfs = PathBuf::from(FOLDER).join("bundle/rootfs");
        let rivals = Self { containerd, template, spec, parent, log, cgroup, rootfs };
        rivals.mount_rootfs().await?;
        Ok(rivals)
    }

    /// The container's init process.
    pub(super) async fn pid(&self, id: &str) -> Result<i32> {
        let request = GetRequest { container_id: id.to_owned(), ..Default::default() };
        let found = call!(self.containerd, tasks.get(request))?.into_inner();
        Ok(i32::try_from(found.process.context("the container has a task")?.pid)?)
    }

    /// Waits until the agent has removed a container.
    pub(super) async fn gone(&self, id: &str) -> Result<()> {
        let begun = Instant::now();
        loop {
            match call!(self.containerd, containers.get(GetContainerRequest { id: id.to_owned() })) {
                Err(status) if status.code() == Code::NotFound => return Ok(()),
                _ if begun.elapsed() > PATIENCE => bail!("container {id} is not removed"),
                _ => tokio::time::sleep(TURN).await,
            }
        }
    }

    /// Through containerd's API, by its own library.
    pub(super) async fn by_client(&self, number: usize) -> Result<f64> {
        let id = format!("bench-client-{number}");
        let record = self.copy(&id)?;
        let log = self.log.replace(&self.template.id, &id);
        fs::create_dir_all(format!("/run/xebec/runtime/io/{id}"))?;
        let begun = Instant::now();
        call!(self.containerd, containers.create(CreateContainerRequest { container: Some(record) }))?;
        let rootfs = self.snapshot(&id).await?;
        let request = CreateTaskRequest {
            container_id: id.clone(),
            rootfs,
            stdout: log.clone(),
            stderr: log,
            ..Default::default()
        };
        call!(self.containerd, tasks.create(request))?;
        call!(self.containerd, tasks.start(StartRequest { container_id: id.clone(), ..Default::default() }))?;
        let took = begun.elapsed();
        self.remove(&id).await?;
        fs::remove_dir_all(format!("/run/xebec/runtime/io/{id}"))?;
        Ok(took.as_secs_f64() * 1e3)
    }

    /// By the program that comes with containerd.
    pub(super) async fn by_ctr(&self, number: usize) -> Result<f64> {
        let id = format!("bench-ctr-{number}");
        let cgroup = format!("{}/{id}", self.cgroup);
        let arguments = [
            "--address",
            SOCKET,
            "--namespace",
            SPACE,
            "run",
            "--detach",
            "--cgroup",
            &cgroup,
            &self.template.image,
            &id,
            "sleep",
            "100000",
        ];
        let took = run("ctr", &arguments).await?;
        self.remove(&id).await?;
        Ok(took)
    }

    /// By runc, on a root filesystem that is mounted already.
    pub(super) async fn by_runc(&self, number: usize) -> Result<f64> {
        let id = format!("bench-runc-{number}");
        let bundle = PathBuf::from(FOLDER).join("bundle");
        fs::write(bundle.join("config.json"), serde_json::to_vec(&self.spec_of(&id))?)?;
        let (bundle, state) = (bundle.display().to_string(), format!("{FOLDER}/state"));
        let took = run("runc", &["--root", &state, "run", "--detach", "--bundle", &bundle, &id]).await?;
        run("runc", &["--root", &state, "delete", "--force", &id]).await?;
        Ok(took)
    }

    /// Takes away what the copies needed.
    pub(super) async fn clean_up(&self) -> Result<()> {
        umount(&self.rootfs)?;
        fs::remove_dir_all(FOLDER)?;
        self.remove_snapshot(KEPT_SNAPSHOT).await
    }

    fn spec_of(&self, id: &str) -> Value {
        let mut spec = self.spec.clone();
        spec["linux"]["cgroupsPath"] = json!(format!("{}/{id}", self.cgroup));
        spec
    }

    fn copy(&self, id: &str) -> Result<Record> {
        let mut spec = self.template.spec.clone().context("it has a spec")?;
        spec.value = serde_json::to_vec(&self.spec_of(id))?;
        Ok(Record {
            id: id.to_owned(),
            // Not the agent's: it has nothing to do with them.
            labels: Default::default(),
            spec: Some(spec),
            snapshot_key: id.to_owned(),
            created_at: None,
            updated_at: None,
            ..self.template.clone()
        })
    }

    async fn snapshot(&self, key: &str) -> Result<Vec<Mount>> {
        let request = PrepareSnapshotRequest {
            snapshotter: SNAPSHOTTER.into(),
            key: key.to_owned(),
            parent: self.parent.clone(),
            // The collector takes what no record, lease or label keeps.
            labels: [("containerd.io/gc.root".to_owned(), "bench".to_owned())].into(),
        };
        Ok(call!(self.containerd, snapshots.prepare(request))?.into_inner().mounts)
    }

    async fn remove_snapshot(&self, key: &str) -> Result<()> {
        let request = RemoveSnapshotRequest { snapshotter: SNAPSHOTTER.into(), key: key.to_owned() };
        call!(self.containerd, snapshots.remove(request))?;
        Ok(())
    }

    async fn remove(&self, id: &str) -> Result<()> {
        let task = || id.to_owned();
        let kill = KillRequest { container_id: task(), signal: SIGKILL, ..Default::default() };
        call!(self.containerd, tasks.kill(kill))?;
        call!(self.containerd, tasks.wait(WaitRequest { container_id: task(), ..Default::default() }))?;
        call!(self.containerd, tasks.delete(DeleteTaskRequest { container_id: task() }))?;
        call!(self.containerd, containers.delete(DeleteContainerRequest { id: task() }))?;
        self.remove_snapshot(id).await
    }

    async fn mount_rootfs(&self) -> Result<()> {
        fs::create_dir_all(&self.rootfs)?;
        for layer in self.snapshot(KEPT_SNAPSHOT).await? {
            let options: Vec<&str> = layer.options.iter().map(String::as_str).collect();
            let source = OsStr::new(&layer.source);
            let kind = Some(layer.r#type.as_str());
            mount(Some(source), &self.rootfs, kind, MsFlags::empty(), Some(options.join(",").as_str()))
                .with_context(|| format!("mounting {} with {options:?}", layer.r#type))?;
        }
        Ok(())
    }
}

/// Runs a program to its end; the milliseconds it took.
async fn run(program: &str, arguments: &[&str]) -> Result<f64> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null());
    // What is detached keeps the stream: read to its end it would never come.
    let errors = PathBuf::from(FOLDER).join("errors");
    command.stderr(fs::File::create(&errors)?);
    let begun = Instant::now();
    let ended = timeout(PATIENCE, command.status()).await.with_context(|| format!("{program} hangs"))??;
    let took = begun.elapsed();
    let said = || fs::read_to_string(&errors).unwrap_or_default();
    ensure!(ended.success(), "{program} {}: {}", arguments.join(" "), said().trim());
    Ok(took.as_secs_f64() * 1e3)
}
