//! `cargo xtask bench control`: what a write costs over the disk's own price, how many there are a second, and what the
//! control plane holds in memory.
//!
//! In: `--quick`, `--json FILE`, the program in `XEBEC_BIN_DIR`. Out: rows on stdout, exit code 0 only if every goal
//! holds. Control runs alone on loopback, its data in the temporary folder, which must be on a disk.
//!
//! ```text
//! C1  one client creates ConfigMaps of 1 KiB; between two of them 4 KiB are written to a file that has its size already, and
//!     synced (fdatasync)
//! C2  64 connections, each with one request under way: create, then get what was created
//! C5  resident, some time after the start; then with 100 running pods, as many ConfigMaps and ten Services
//! ```

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use http::{Method, StatusCode};
use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;

use super::{Goal, Options, Row, resident};
use crate::api_client::{ApiConnection, ApiServer};
use crate::control::Control;

const CONNECTIONS: usize = 64;
/// Threads of the client side: the machine has two CPUs, and the server wants one of them.
const CLIENT_THREADS: usize = 2;
const OBJECT_BYTES: usize = 1024;
const BLOCK: usize = 4096;
const FLOOR_BLOCKS: u64 = 4096;
/// Pairs of a create and a bare write in one round.
const PAIRS: usize = 50;
const PODS: usize = 100;
const SERVICES: usize = 10;
const SETTLE: Duration = Duration::from_secs(2);
const NAMESPACE: &str = "/api/v1/namespaces/bench";

/// # Errors
/// When something cannot be measured.
pub fn measure(options: &Options) -> Result<Vec<Row>> {
    let mut rows = latency_and_rate(options)?;
    rows.extend(memory(options)?);
    Ok(rows)
}

async fn start() -> Result<(Control, ApiServer)> {
    let mut control = Control::prepare("bench")
        .context("xebec-control is not built: run by `cargo xtask bench control`")?;
    let disk = statfs(control.folder())?;
    if disk.filesystem_type() == TMPFS_MAGIC {
        bail!("{} is in memory: set TMPDIR to a folder on a disk", control.folder().display());
    }
    control.spawn();
    control.ready().await;
    let server = ApiServer::from_kubeconfig(&control.kubeconfig()).await?;
    let mut connection = server.connect().await?;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "bench"}});
    connection.must(Method::POST, "/api/v1/namespaces", text(&namespace)).await?;
    Ok((control, server))
}

fn text(object: &Value) -> Bytes {
    object.to_string().into()
}

fn config_map(name: &str) -> Bytes {
    let data = "x".repeat(OBJECT_BYTES);
    text(
        &json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"data": data}}),
    )
}

fn latency_and_rate(options: &Options) -> Result<Vec<Row>> {
    let alone = Builder::new_current_thread().enable_all().build()?;
    let (control, server) = alone.block_on(start())?;
    let mut rows = latency(&alone, &control, &server, options)?;
    rows.extend(rate(&server, options)?);
    Ok(rows)
}

// === C1 ===

fn latency(runtime: &Runtime, control: &Control, server: &ApiServer, options: &Options) -> Result<Vec<Row>> {
    let mut floor = Floor::create(&control.folder().join("floor"))?;
    let mut connection = runtime.block_on(server.connect())?;
    let path = format!("{NAMESPACE}/configmaps");
    let (mut creates, mut writes) = (Vec::new(), Vec::new());
    let rows = |creates: &[f64], writes: &[f64]| {
        let ratios: Vec<f64> = creates.iter().zip(writes).map(|(create, write)| create / write).collect();
        let case = "create by one client, HTTP/1.1 and TLS, over a durable write";
        vec![
            Row::absolute("C1", case, "ratio", &ratios, Some(Goal::AtMost(4.0))),
            Row::new("C1.create", case, "µs", creates, writes, None),
        ]
    };
    // One more than is counted: the first warms both.
    for round in 0.. {
        if options.rounds(300).enough(creates.len(), || rows(&creates, &writes)) {
            break;
        }
        let (mut created, mut written) = (Vec::with_capacity(PAIRS), Vec::with_capacity(PAIRS));
        for pair in 0..PAIRS {
            written.push(timed(|| floor.write())?);
            let body = config_map(&format!("one-{round}-{pair}"));
            let create = connection.must(Method::POST, &path, body);
            created.push(timed(|| runtime.block_on(create).map(drop))?);
        }
        if round > 0 {
            creates.push(median(&mut created));
            writes.push(median(&mut written));
        }
    }
    Ok(rows(&creates, &writes))
}

fn timed(work: impl FnOnce() -> Result<()>) -> Result<f64> {
    let begun = Instant::now();
    work()?;
    Ok(begun.elapsed().as_secs_f64() * 1e6)
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// A file that has its size and its blocks: writing into it costs the disk and nothing else.
struct Floor {
    file: File,
    block: u64,
}

impl Floor {
    fn create(path: &Path) -> Result<Self> {
        let file = File::create_new(path).with_context(|| format!("creating {}", path.display()))?;
        for block in 0..FLOOR_BLOCKS {
            file.write_all_at(&[0; BLOCK], block * BLOCK as u64)?;
        }
        file.sync_all()?;
        Ok(Self { file, block: 0 })
    }

    fn write(&mut self) -> Result<()> {
        self.file.write_all_at(&[1; BLOCK], self.block * BLOCK as u64)?;
        self.block = (self.block + 1) % FLOOR_BLOCKS;
        Ok(self.file.sync_data()?)
    }
}

// === C2 ===

/// What all connections do at a time.
#[derive(Clone, Copy)]
enum Phase {
    Create,
    Get,
}

/// One of the connections, and how many objects are its.
struct Client {
    connection: ApiConnection,
    number: usize,
    created: usize,
}

impl Client {
    async fn create(&mut self) -> Result<()> {
        let body = config_map(&format!("c{}-{}", self.number, self.created));
        self.connection.must(Method::POST, &format!("{NAMESPACE}/configmaps"), body).await?;
        self.created += 1;
        Ok(())
    }

    /// Neighbours in the order of asking are far from each other in the store.
    async fn get(&mut self, turn: usize) -> Result<()> {
        let path = format!("{NAMESPACE}/configmaps/c{}-{}", self.number, turn * 7919 % self.created);
        let answer = self.connection.must(Method::GET, &path, Bytes::new()).await?;
        ensure!(answer.len() > OBJECT_BYTES, "{path}: {} bytes", answer.len());
        Ok(())
    }
}

fn rate(server: &ApiServer, options: &Options) -> Result<Vec<Row>> {
    let runtime = Builder::new_multi_thread().worker_threads(CLIENT_THREADS).enable_all().build()?;
    let round_time = Duration::from_millis(if options.quick { 300 } else { 500 });
    let rows = |creates: &[f64], gets: &[f64]| {
        let row = |id, case, values, least| Row::absolute(id, case, "/s", values, Some(Goal::AtLeast(least)));
        vec![
            row("C2.create", "1 KiB ConfigMaps, 64 connections, HTTP/1.1 and TLS", creates, 4000.0),
            row("C2.get", "1 KiB ConfigMaps, 64 connections, HTTP/1.1 and TLS", gets, 10_000.0),
        ]
    };
    runtime.block_on(async {
        let mut clients = Vec::new();
        for number in 0..CONNECTIONS {
            clients.push(Client { connection: server.connect().await?, number, created: 0 });
        }
        let (mut creates, mut gets) = (Vec::new(), Vec::new());
        for round in 0.. {
            if options.rounds(45).enough(creates.len(), || rows(&creates, &gets)) {
                break;
            }
            let (back, created) = together(clients, Phase::Create, round_time).await?;
            let (back, got) = together(back, Phase::Get, round_time).await?;
            clients = back;
            if round > 0 {
                creates.push(created);
                gets.push(got);
            }
        }
        Ok(rows(&creates, &gets))
    })
}

/// Lets all clients ask again and again for a while; how often a second they were answered.
async fn together(clients: Vec<Client>, phase: Phase, time: Duration) -> Result<(Vec<Client>, f64)> {
    let begun = Instant::now();
    let mut tasks = JoinSet::new();
    for mut client in clients {
        tasks.spawn(async move {
            let mut answers = 0;
            while begun.elapsed() < time {
                match phase {
                    Phase::Create => client.create().await?,
                    Phase::Get => client.get(answers).await?,
                }
                answers += 1;
            }
            Ok::<_, anyhow::Error>((client, answers))
        });
    }
    let (mut back, mut answers) = (Vec::new(), 0_usize);
    while let Some(ended) = tasks.join_next().await {
        let (client, own) = ended??;
        back.push(client);
        answers += own;
    }
    Ok((back, answers as f64 / begun.elapsed().as_secs_f64()))
}

// === C5 ===

fn memory(options: &Options) -> Result<Vec<Row>> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let rows = |idle: &[f64], full: &[f64]| {
        vec![
            Row::absolute("C5", "control resident, idle", "MiB", idle, Some(Goal::AtMost(64.0))),
            Row::absolute(
                "C5.pods",
                "the same with 100 running pods and 110 other objects",
                "MiB",
                full,
                None,
            ),
        ]
    };
    let (mut idle, mut full) = (Vec::new(), Vec::new());
    while !options.rounds(30).enough(idle.len(), || rows(&idle, &full)) {
        // A fresh one each time: how memory is laid out differs from start to start.
        runtime.block_on(async {
            let (control, server) = start().await?;
            tokio::time::sleep(SETTLE).await;
            idle.push(resident(control.pid())?);
            fill(&server).await?;
            tokio::time::sleep(SETTLE).await;
            full.push(resident(control.pid())?);
            Ok::<_, anyhow::Error>(())
        })?;
    }
    Ok(rows(&idle, &full))
}

/// What a small cluster has: a node, its pods, and objects around them.
async fn fill(server: &ApiServer) -> Result<()> {
    let mut connection = server.connect().await?;
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}});
    connection.must(Method::POST, "/api/v1/nodes", text(&node)).await?;
    let account = format!("{NAMESPACE}/serviceaccounts/default");
    while connection.call(Method::GET, &account, Bytes::new()).await?.0 == StatusCode::NOT_FOUND {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for number in 0..PODS {
        let name = format!("pod-{number}");
        connection.must(Method::POST, &format!("{NAMESPACE}/pods"), text(&pod(&name))).await?;
        let status = format!("{NAMESPACE}/pods/{name}/status");
        connection.must(Method::PATCH, &status, text(&running(number))).await?;
        connection.must(Method::POST, &format!("{NAMESPACE}/configmaps"), config_map(&name)).await?;
    }
    for number in 0..SERVICES {
        let service = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": format!("service-{number}")},
            "spec": {"selector": {"app": "bench"}, "ports": [{"port": 80}]},
        });
        connection.must(Method::POST, &format!("{NAMESPACE}/services"), text(&service)).await?;
    }
    Ok(())
}

fn pod(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "bench"}},
        "spec": {
            "nodeName": "n1",
            "containers": [{"name": "main", "image": "busybox", "command": ["sleep", "100000"]}],
        },
    })
}

fn running(number: usize) -> Value {
    let now = "2026-01-01T00:00:00Z";
    let address = format!("10.244.0.{}", number + 2);
    let conditions = ["Initialized", "Ready", "ContainersReady", "PodScheduled"]
        .map(|name| json!({"type": name, "status": "True", "lastTransitionTime": now}));
    json!({"status": {
        "phase": "Running", "startTime": now, "podIP": address, "podIPs": [{"ip": address}],
        "conditions": conditions,
        "containerStatuses": [{
            "name": "main", "image": "docker.io/library/busybox:latest", "ready": true, "started": true,
            "restartCount": 0, "imageID": "docker.io/library/busybox@sha256:0", "containerID": "containerd://0",
            "state": {"running": {"startedAt": now}},
        }],
    }})
}
