//! What the product does not do: no netfilter rule, no tracked connection, no executed program.
//!
//! In: a running cluster of two nodes with services live and loaded. Out: the kernel's own account of rules, connection
//! tracking entries and executed programs.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::mount::{MsFlags, mount, umount};
use xebec_tests::cluster::{Cluster, deploy_web, eventually, http_get};
use xebec_tests::skip::skipped;

/// What containerd, runc and the product itself are called when they are executed. `exe` and the memory file are how
/// runc starts its own copy inside a container.
const OURS: &[&str] = &[
    "containerd-shim-runc-v2",
    "runc",
    "exe",
    "xebec-agent",
    "xebec-control",
    "memfd:runc_cloned:/proc/self/exe",
];

/// A trace of `execve` by some processes and all they fork.
struct ExecTrace {
    mountpoint: PathBuf,
    instance: PathBuf,
}

impl ExecTrace {
    fn start(pids: &[i32]) -> std::io::Result<Self> {
        let mountpoint = std::env::temp_dir().join(format!("trace-{}", std::process::id()));
        fs::create_dir_all(&mountpoint)?;
        mount(Some("tracefs"), &mountpoint, Some("tracefs"), MsFlags::empty(), None::<&str>)?;
        let instance = mountpoint.join("instances").join(format!("exec-{}", std::process::id()));
        let trace = Self { mountpoint, instance };
        fs::create_dir(&trace.instance)?;
        fs::write(trace.instance.join("trace_options"), "event-fork")?;
        let pids: String = pids.iter().map(|pid| format!("{pid} ")).collect();
        fs::write(trace.instance.join("set_event_pid"), pids)?;
        fs::write(trace.instance.join("events/sched/sched_process_exec/enable"), "1")?;
        Ok(trace)
    }

    /// Paths of the programs executed so far.
    fn programs(&self) -> BTreeSet<String> {
        let trace = fs::read_to_string(self.instance.join("trace")).expect("the trace is readable");
        trace
            .lines()
            .filter_map(|line| line.split("filename=").nth(1)?.split(" pid=").next())
            .map(str::to_owned)
            .collect()
    }
}

impl Drop for ExecTrace {
    fn drop(&mut self) {
        fs::write(self.instance.join("events/sched/sched_process_exec/enable"), "0").ok();
        fs::remove_dir(&self.instance).ok();
        umount(&self.mountpoint).ok();
        fs::remove_dir(&self.mountpoint).ok();
    }
}

/// Threads of every process in the nodes' `system` cgroups: agents, DNS, control, containerd, shims, log sinks.
fn product_threads(cluster: &Cluster) -> Vec<i32> {
    let mut threads = Vec::new();
    for (node, _) in &cluster.nodes {
        let agent = cluster.pid(&format!("{node}.agent"));
        let cgroups = fs::read_to_string(format!("/proc/{agent}/cgroup")).expect("the agent lives");
        let path = cgroups.lines().find_map(|line| line.rsplit_once(":/")?.1.strip_suffix("/agent"));
        let path = path.expect("each program has a cgroup of its own");
        for root in fs::read_dir("/sys/fs/cgroup").expect("cgroups").flatten() {
            for program in fs::read_dir(root.path().join(path)).into_iter().flatten().flatten() {
                let procs = fs::read_to_string(program.path().join("cgroup.procs")).unwrap_or_default();
                for pid in procs.lines() {
                    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
                    threads.extend(tasks.filter_map(|t| t.file_name().to_string_lossy().parse::<i32>().ok()));
                }
            }
        }
    }
    threads.sort_unstable();
    threads.dedup();
    threads
}

#[test]
fn the_product_executes_only_containerd_runc_and_itself() {
    let cluster = Cluster::running();
    let trace = match ExecTrace::start(&product_threads(&cluster)) {
        Ok(trace) => trace,
        Err(error) => {
            return skipped(
                "the_product_executes_only_containerd_runc_and_itself",
                &format!("tracefs: {error}"),
            );
        }
    };
    let (ns, port) = deploy_web(&cluster, "trace-exec");
    for _ in 0..100 {
        http_get(cluster.nodes[0].1[0], port, Duration::from_secs(5)).expect("an answer");
    }
    ns.ok(&["delete", "deployment", "web"]);
    assert!(
        eventually(Duration::from_secs(60), || ns.ok(&["get", "pods", "-o", "name"]).is_empty()),
        "pods end"
    );
    let programs = trace.programs();
    let names: BTreeSet<&str> = programs.iter().map(|p| p.rsplit('/').next().unwrap_or(p)).collect();
    assert!(names.contains("nginx"), "the trace sees into containers: {programs:?}");
    let foreign: Vec<&String> = programs
        .iter()
        .filter(|path| {
            let name =
                Path::new(path).file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            let own = OURS.contains(&path.as_str()) || OURS.contains(&name.as_str());
            // runc's init executes a sealed copy of runc by descriptor (CVE-2019-5736).
            let copy = ["/proc/self/fd/", "/dev/fd/", "memfd:runc"].iter().any(|by| path.starts_with(by));
            // nginx is the workload of this test.
            !own && !copy && name != "nginx"
        })
        .collect();
    assert!(foreign.is_empty(), "executed: {foreign:?}");
}

#[test]
fn services_need_no_netfilter_rule_and_no_tracked_connection() {
    let cluster = Cluster::running();
    let (ns, port) = deploy_web(&cluster, "trace-netfilter");
    let client =
        "i=0; while [ $i -lt 50 ]; do timeout 5 wget -q -O /dev/null http://web/ || exit 1; i=$((i+1)); done";
    for (node, addresses) in &cluster.nodes {
        ns.run_on(node, &format!("client-{node}"), client);
        for address in addresses {
            for _ in 0..50 {
                http_get(*address, port, Duration::from_secs(5)).expect("an answer");
            }
        }
    }
    for (node, _) in &cluster.nodes {
        let net = PathBuf::from(format!("/proc/{}/net", cluster.pid(&format!("{node}.agent"))));
        for file in ["ip_tables_names", "ip6_tables_names", "nf_conntrack"] {
            let content = fs::read_to_string(net.join(file)).unwrap_or_default();
            assert!(content.is_empty(), "{node}: {file}:\n{content}");
        }
        let Some(nft) = std::env::var_os("XEBEC_NFT") else {
            skipped(
                "services_need_no_netfilter_rule_and_no_tracked_connection",
                "nft cannot be had: nftables not listed",
            );
            continue;
        };
        let netns = format!("--net=/proc/{}/ns/net", cluster.pid(&format!("{node}.agent")));
        let rules = Command::new("nsenter")
            .arg(netns)
            .arg(nft)
            .args(["list", "ruleset"])
            .output()
            .expect("nsenter runs");
        assert!(rules.status.success(), "{}", String::from_utf8_lossy(&rules.stderr));
        assert!(rules.stdout.is_empty(), "{node}: {}", String::from_utf8_lossy(&rules.stdout));
    }
}
