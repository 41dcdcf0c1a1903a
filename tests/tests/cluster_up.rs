//! What `cargo xtask up` and `down` promise: repeated for nothing, side by side, behind a firewall, gone without a trace.
//!
//! In: a running cluster, the xtask that started it. Out: clusters of one node in folders beside it, removed again.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::mount::{MsFlags, mount};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use xebec_tests::cluster::{Cluster, deploy_web, eventually, http_get};
use xebec_tests::netns::{ip, on_node};

const REQUEST: Duration = Duration::from_secs(5);
/// The goal for `up` on a cluster that runs.
const NO_OP: Duration = Duration::from_secs(3);

/// A host that lets nobody in or through; neighbour discovery is part of being on a link.
const WALL: &str = "
table inet wall {
  chain input {
    type filter hook input priority 0; policy drop;
    iif lo accept
    ct state established,related accept
    icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
  }
  chain forward { type filter hook forward priority 0; policy drop; }
}
";

/// A cluster beside the one under test; purged when dropped.
struct Beside(PathBuf);

impl Beside {
    fn new(name: &str) -> Self {
        let this = Self(variable("XEBEC_CLUSTER_DIR").with_file_name(name));
        // What a killed run left.
        this.down();
        this
    }

    fn up(&self) -> Result<()> {
        xtask(&["up", "--nodes", "1", "--built"], &self.0)
    }

    fn down(&self) {
        let mut down = Command::new(variable("XEBEC_XTASK"));
        down.args(["down", "--purge", "--dir"]).arg(&self.0);
        down.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().ok();
    }

    /// The served request, asked again.
    fn serves(&self) -> Result<()> {
        let get = |what: &[&str]| {
            let mut kubectl = Command::new(variable("XEBEC_KUBECTL"));
            kubectl.arg("--kubeconfig").arg(self.0.join("kubeconfig")).args(what).args(["-o", "json"]);
            let out = kubectl.output()?;
            ensure!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
            Ok(serde_json::from_slice::<Value>(&out.stdout)?)
        };
        let service = get(&["get", "service", "hello", "--namespace", "xebec-hello"])?;
        let port = service["spec"]["ports"][0]["nodePort"].as_u64().context("a node port")?;
        let node = get(&["get", "node", "n1"])?;
        for address in node["status"]["addresses"].as_array().into_iter().flatten() {
            if address["type"] != "InternalIP" {
                continue;
            }
            let address: IpAddr = address["address"].as_str().context("an address")?.parse()?;
            http_get(address, u16::try_from(port)?, REQUEST).with_context(|| format!("{address}:{port}"))?;
        }
        Ok(())
    }

    fn pids(&self) -> Vec<i32> {
        let records = std::fs::read_dir(self.0.join("processes")).into_iter().flatten().flatten();
        records
            .filter_map(|entry| serde_json::from_slice::<Value>(&std::fs::read(entry.path()).ok()?).ok())
            .filter_map(|record| i32::try_from(record["pid"].as_i64()?).ok())
            .collect()
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        self.down();
    }
}

fn variable(name: &str) -> PathBuf {
    std::env::var_os(name).unwrap_or_else(|| panic!("`cargo xtask test` sets {name}")).into()
}

/// Runs xtask; `args` end with `--built`.
fn xtask(args: &[&str], dir: &Path) -> Result<()> {
    let mut command = Command::new(variable("XEBEC_XTASK"));
    command.args(args).arg(variable("XEBEC_BIN_DIR")).arg("--dir").arg(dir).stdin(Stdio::null());
    let out = command.output()?;
    let said = || format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    ensure!(out.status.success(), "xtask {}: {}", args.join(" "), said());
    Ok(())
}

#[test]
fn a_second_up_is_a_no_op_within_three_seconds() {
    let cluster = Cluster::running();
    let processes =
        || ["n1.agent", "n1.control", "n2.agent", "n1.containerd", "hub.hub"].map(|p| cluster.pid(p));
    let before = processes();
    let start = Instant::now();
    xtask(&["up", "--nodes", "2", "--built"], &cluster.dir).expect("a second up");
    let took = start.elapsed();
    println!("a second up took {took:?}");
    assert_eq!(processes(), before, "nothing was started again");
    assert!(took <= NO_OP, "{took:?}");
}

#[test]
fn two_clusters_live_side_by_side() {
    let first = Cluster::running();
    let (ns, port) = deploy_web(&first, "up-beside");
    let second = Beside::new("test-cluster-beside");
    second.up().expect("a second cluster");
    second.serves().expect("the second serves");
    for (_, addresses) in &first.nodes {
        for address in addresses {
            http_get(*address, port, REQUEST).expect("the first serves beside it");
        }
    }
    drop(second);
    http_get(first.nodes[0].1[0], port, REQUEST).expect("the first serves after it");
    drop(ns);
}

#[test]
fn down_after_everything_was_killed_leaves_nothing() {
    let killed = Beside::new("test-cluster-killed");
    let before = host();
    killed.up().expect("a cluster");
    for pid in killed.pids() {
        kill(Pid::from_raw(pid), Signal::SIGKILL).ok();
    }
    let dir = killed.0.clone();
    drop(killed);
    assert!(!dir.exists(), "{} is left", dir.display());
    // The last shims end when the kernel has reaped what they looked after.
    assert!(eventually(REQUEST, || host() == before), "left: {:?}, had: {before:?}", host());
}

/// Links, mounts, namespaces and cgroups of the host, and how many of our and containerd's processes there are.
fn host() -> Vec<String> {
    let names = |dir: &str| {
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        entries.map(|e| e.path().display().to_string()).collect::<Vec<_>>()
    };
    let mut found = names("/sys/class/net");
    found.extend(names("/run/netns"));
    for line in std::fs::read_to_string("/proc/self/mounts").unwrap_or_default().lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        found.push(format!("mount {}", fields[1]));
        if fields[2].starts_with("cgroup") {
            found.extend(
                names(fields[1])
                    .into_iter()
                    .filter(|name| name.contains("xebec") && !name.contains("xebec-test")),
            );
        }
    }
    found.sort();
    let processes = Command::new("ps").args(["-eo", "comm="]).output().expect("ps runs").stdout;
    let processes = String::from_utf8_lossy(&processes).into_owned();
    let ours =
        |name: &&str| ["xebec", "containerd", "runc", "xtask"].iter().any(|ours| name.starts_with(ours));
    found.push(format!("{} processes", processes.lines().filter(ours).count()));
    found
}

#[test]
fn a_host_that_forwards_nothing_and_accepts_only_replies_runs_a_cluster() {
    on_node(async |_host| {
        // Names of network namespaces are files: this host has its own.
        std::fs::create_dir_all("/run/netns")?;
        mount(Some("tmpfs"), "/run/netns", Some("tmpfs"), MsFlags::empty(), None::<&str>)?;
        let mut nft = Command::new(variable("XEBEC_NFT"));
        let mut nft = nft.args(["-f", "-"]).stdin(Stdio::piped()).spawn()?;
        std::io::Write::write_all(&mut nft.stdin.take().context("piped")?, WALL.as_bytes())?;
        ensure!(nft.wait()?.success(), "nft refuses the rules");
        let walled = Beside::new("test-cluster-walled");
        walled.up()?;
        walled.serves()?;
        drop(walled);
        let links = ip("-o link")?;
        ensure!(links.lines().count() == 1, "down leaves links: {links}");
        Ok(())
    });
}
