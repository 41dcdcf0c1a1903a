//! `cargo xtask bench pods`: how long a bound pod takes to run, beside containerd's own clients and runc; what the agent
//! holds in memory.
//!
//! In: a cluster of one node, whose namespaces this process is in (`XEBEC_CLUSTER_DIR`, `XEBEC_KUBECTL`), containerd and
//! runc in PATH. Out: rows.
//!
//! ```text
//! K1       a pod of one container, from the watch's event that shows its node to the event that shows it Running, over
//!          the same container made and started through containerd's API: record, snapshot, task, start; namespaces of
//!          its own, the same mounts, seccomp, cgroups and log sink
//! K1.ctr   over `ctr run --detach`, K1.runc over `runc run --detach` of the same container
//! K4       from SIGKILL of the container's process to the event that shows its end
//! K5       agent resident, without a pod and with 100
//! ```

mod rivals;
mod watched;

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::runtime::Builder;

use super::{Goal, Options, Row, percentile, resident};
use crate::cluster::Cluster;
use rivals::Rivals;
use watched::Watched;

/// Pods that the agent's memory is measured with.
const PODS: usize = 100;
const SAMPLES: usize = 15;
const PACE: Duration = Duration::from_millis(200);
/// Until what begins with the agent, or ends with a pod, is over.
const SETTLE: Duration = Duration::from_secs(3);
/// Between two measurements: the kernel takes namespaces apart after their last process has gone.
const PAUSE: Duration = Duration::from_millis(50);

/// Milliseconds by round.
#[derive(Default)]
struct Times {
    pod: Vec<Vec<f64>>,
    exit: Vec<Vec<f64>>,
    client: Vec<Vec<f64>>,
    ctr: Vec<Vec<f64>>,
    runc: Vec<Vec<f64>>,
}

/// # Errors
/// When something cannot be measured.
pub fn measure(options: &Options) -> Result<Vec<Row>> {
    let cluster = Cluster::running();
    Builder::new_current_thread().enable_all().build()?.block_on(async {
        tokio::time::sleep(SETTLE).await;
        let idle = [memory(&cluster, "n1.agent").await?, memory(&cluster, "n1.control").await?];
        let mut watched = Watched::start(&cluster).await?;
        let mut rows = start_times(options, &mut watched).await?;
        let names: Vec<String> = (0..PODS).map(|number| format!("many-{number}")).collect();
        watched.run_all(&names).await?;
        tokio::time::sleep(SETTLE).await;
        let full = [memory(&cluster, "n1.agent").await?, memory(&cluster, "n1.control").await?];
        let row = |id, case, values: &[f64], goal| Row::absolute(id, case, "MiB", values, goal);
        rows.extend([
            row("K5", "agent resident, idle", &idle[0], Some(Goal::AtMost(40.0))),
            row("K5.pods", "agent resident, 101 pods", &full[0], None),
            row("C5.node", "control resident, one node, idle", &idle[1], None),
            row("C5.node-pods", "control resident, one node, 101 pods", &full[1], None),
        ]);
        Ok(rows)
    })
}

/// What a process of the cluster holds, looked at several times.
async fn memory(cluster: &Cluster, process: &str) -> Result<Vec<f64>> {
    let pid = cluster.pid(process);
    let mut samples = Vec::with_capacity(SAMPLES);
    while samples.len() < SAMPLES {
        samples.push(resident(pid)?);
        tokio::time::sleep(PACE).await;
    }
    Ok(samples)
}

async fn start_times(options: &Options, watched: &mut Watched) -> Result<Vec<Row>> {
    // Its container is what the others start too; the first pod also pulls the image.
    let template = watched.run_all(&["template".to_owned()]).await?;
    let template = template.into_iter().next().context("one pod was started")?;
    let mut rivals = Rivals::prepare(&template).await?;
    let mut times = Times::default();
    let outcome = rounds(options, watched, &mut rivals, &mut times).await;
    let cleaned = rivals.clean_up().await;
    outcome?;
    cleaned?;
    Ok(rows(&times))
}

async fn rounds(
    options: &Options,
    watched: &mut Watched,
    rivals: &mut Rivals,
    times: &mut Times,
) -> Result<()> {
    let most = if options.quick { 40 } else { 150 };
    for round in 0..=most {
        let mut warm = Times::default();
        // What is not counted: the first round warms caches.
        let times = if round == 0 { &mut warm } else { &mut *times };
        // Each is first as often as the others.
        for place in 0..4 {
            tokio::time::sleep(PAUSE).await;
            match (round + place) % 4 {
                0 => {
                    let (start, exit) = watched.run_once(&format!("once-{round}"), rivals).await?;
                    times.pod.push(vec![start]);
                    times.exit.push(vec![exit]);
                }
                1 => times.client.push(vec![rivals.by_client(round).await?]),
                2 => times.ctr.push(vec![rivals.by_ctr(round).await?]),
                _ => times.runc.push(vec![rivals.by_runc(round).await?]),
            }
        }
    }
    Ok(())
}

fn rows(times: &Times) -> Vec<Row> {
    let start = |id, case, rank, base: &[Vec<f64>], goal| {
        percentile((id, case, "ms"), rank, &times.pod, Some(base), goal)
    };
    let exit = |id, case, rank| percentile((id, case, "ms"), rank, &times.exit, None, None);
    vec![
        start("K1", "bound to Running, p50, over containerd's API", 0.5, &times.client, None),
        start("K1.p99", "bound to Running, p99, over containerd's API", 0.99, &times.client, None),
        start("K1.ctr", "bound to Running, p50, over ctr run", 0.5, &times.ctr, None),
        start("K1.runc", "bound to Running, p50, over runc run", 0.5, &times.runc, None),
        start("K1.runc-p99", "bound to Running, p99, over runc run", 0.99, &times.runc, None),
        exit("K4", "SIGKILL to the container's end in the API, p99", 0.99),
        exit("K4.p50", "SIGKILL to the container's end in the API, p50", 0.5),
    ]
}
