//! What the node and its pods use, in upstream's two forms: `/stats/summary` and `/metrics/resource`.
//!
//! In: cgroups, the register of pods, the disk below the state folder. Out: JSON, metrics text. Read when asked, nothing
//! is kept.

use std::fmt::Write;
use std::path::PathBuf;

use jiff::Timestamp;
use nix::sys::statvfs::statvfs;
use serde_json::{Map, Value, json};

use crate::cgroup::{Cgroups, MemoryUsage, Usage};
use crate::config::KubeletConfig;
use crate::node::{KnownPod, KnownPods};
use crate::pod;

/// Reads usage when asked.
#[derive(Clone)]
pub struct Stats {
    cgroups: Cgroups,
    pods: KnownPods,
    node_name: String,
    state_dir: PathBuf,
    image_dir: PathBuf,
    memory_capacity: u64,
    started: Timestamp,
}

/// A metric family of `/metrics/resource`.
struct Family {
    name: &'static str,
    help: &'static str,
    kind: &'static str,
    samples: Vec<(String, f64)>,
}

// === impl Stats ===

impl Stats {
    pub(crate) fn new(cgroups: Cgroups, pods: KnownPods, config: &KubeletConfig) -> Self {
        Self {
            cgroups,
            pods,
            node_name: config.node_name.clone(),
            state_dir: config.state_dir.clone(),
            image_dir: config.image_dir.clone(),
            memory_capacity: config.capacity.memory,
            started: Timestamp::now(),
        }
    }

    /// Pods that run and containers that do, for gauges.
    pub fn running(&self) -> (usize, usize) {
        let pods = self.pods.all();
        let containers: Vec<usize> = pods.iter().map(|known| known.containers().count()).collect();
        (containers.iter().filter(|count| **count > 0).count(), containers.iter().sum())
    }

    /// The document of `/stats/summary`.
    pub fn summary(&self) -> Value {
        let pods: Vec<Value> = self.pods.all().iter().map(|known| self.pod(known)).collect();
        let usage = self.node();
        let mut node = json!({
            "nodeName": self.node_name,
            "startTime": self.started.to_string(),
            "fs": disk(&self.state_dir),
            "runtime": { "imageFs": disk(&self.image_dir) },
        });
        put(&mut node, &usage, Some(self.memory_capacity));
        json!({ "node": node, "pods": pods })
    }

    /// The node's processes; where no cgroup counts them (the root of v2), the machine's memory.
    fn node(&self) -> Usage {
        let mut usage = self.cgroups.usage(self.cgroups.root());
        if usage.memory.is_none() {
            usage.memory = machine_memory();
        }
        usage
    }

    fn pod(&self, known: &KnownPod) -> Value {
        let path = self.cgroups.pod_path(&known.pod);
        let containers: Vec<Value> = known
            .containers()
            .map(|(name, id, started)| {
                let mut container = json!({ "name": name });
                if let Some(started) = started {
                    container["startTime"] = started.to_string().into();
                }
                put(&mut container, &self.cgroups.usage(&format!("{path}/{}", id.0)), None);
                container
            })
            .collect();
        let mut document = json!({
            "podRef": { "name": pod::name(&known.pod), "namespace": pod::namespace(&known.pod), "uid": known.uid() },
            "containers": containers,
        });
        if let Some(started) = &known.status.start_time {
            document["startTime"] = started.0.to_string().into();
        }
        let usage = self.cgroups.usage(&path);
        put(&mut document, &usage, None);
        if let Some(processes) = usage.processes {
            document["process_stats"] = json!({ "process_count": processes });
        }
        document
    }

    /// The text of `/metrics/resource`.
    pub fn resource_metrics(&self) -> String {
        let cpu = |usage: &Usage| usage.cpu.map(|cpu| cpu.as_secs_f64());
        let memory = |usage: &Usage| usage.memory.map(|memory| memory.working_set as f64);
        let family = |name, help, kind| Family { name, help, kind, samples: Vec::new() };
        let mut families = [
            family(
                "node_cpu_usage_seconds_total",
                "Cumulative cpu time consumed by the node in core-seconds",
                "counter",
            ),
            family("node_memory_working_set_bytes", "Current working set of the node in bytes", "gauge"),
            family(
                "pod_cpu_usage_seconds_total",
                "Cumulative cpu time consumed by the pod in core-seconds",
                "counter",
            ),
            family("pod_memory_working_set_bytes", "Current working set of the pod in bytes", "gauge"),
            family(
                "container_cpu_usage_seconds_total",
                "Cumulative cpu time consumed by the container in core-seconds",
                "counter",
            ),
            family(
                "container_memory_working_set_bytes",
                "Current working set of the container in bytes",
                "gauge",
            ),
            family(
                "container_start_time_seconds",
                "Start time of the container since unix epoch in seconds",
                "gauge",
            ),
        ];
        let [node_cpu, node_memory, pod_cpu, pod_memory, one_cpu, one_memory, starts] = &mut families;
        let node = self.node();
        node_cpu.add("", cpu(&node));
        node_memory.add("", memory(&node));
        for known in self.pods.all() {
            let path = self.cgroups.pod_path(&known.pod);
            let of_pod =
                format!("namespace=\"{}\",pod=\"{}\"", pod::namespace(&known.pod), pod::name(&known.pod));
            let usage = self.cgroups.usage(&path);
            pod_cpu.add(&of_pod, cpu(&usage));
            pod_memory.add(&of_pod, memory(&usage));
            for (name, id, started) in known.containers() {
                let labels = format!("container=\"{name}\",{of_pod}");
                let usage = self.cgroups.usage(&format!("{path}/{}", id.0));
                one_cpu.add(&labels, cpu(&usage));
                one_memory.add(&labels, memory(&usage));
                starts.add(&labels, started.map(|time| time.as_millisecond() as f64 / 1000.0));
            }
        }
        let now = Timestamp::now().as_millisecond();
        let mut text = String::new();
        for family in &families {
            // Writing to a string does not fail.
            let _ = family.write(&mut text, now);
        }
        text.push_str("# HELP resource_scrape_error 1 if there was an error while getting container metrics, 0 otherwise\n");
        text.push_str("# TYPE resource_scrape_error gauge\nresource_scrape_error 0\n");
        text
    }
}

fn put(document: &mut Value, usage: &Usage, capacity: Option<u64>) {
    let time = Timestamp::now().to_string();
    if let Some(cpu) = usage.cpu {
        let nanos = u64::try_from(cpu.as_nanos()).unwrap_or(u64::MAX);
        document["cpu"] = json!({ "time": time, "usageCoreNanoSeconds": nanos });
    }
    if let Some(memory) = usage.memory {
        document["memory"] = json!({
            "time": time,
            "usageBytes": memory.usage,
            "workingSetBytes": memory.working_set,
            "rssBytes": memory.rss,
            "pageFaults": memory.page_faults,
            "majorPageFaults": memory.major_page_faults,
        });
        if let Some(capacity) = capacity {
            document["memory"]["availableBytes"] = capacity.saturating_sub(memory.working_set).into();
        }
    }
}

fn disk(path: &std::path::Path) -> Value {
    let mut document = Map::new();
    document.insert("time".into(), Timestamp::now().to_string().into());
    if let Ok(disk) = statvfs(path) {
        let block = disk.fragment_size();
        let (blocks, free, available) = (disk.blocks(), disk.blocks_free(), disk.blocks_available());
        for (name, value) in [
            ("availableBytes", available * block),
            ("capacityBytes", blocks * block),
            ("usedBytes", (blocks - free) * block),
            ("inodesFree", disk.files_free()),
            ("inodes", disk.files()),
            ("inodesUsed", disk.files() - disk.files_free()),
        ] {
            document.insert(name.into(), value.into());
        }
    }
    document.into()
}

fn machine_memory() -> Option<MemoryUsage> {
    let table = std::fs::read_to_string("/proc/meminfo").ok()?;
    let bytes = |name: &str| {
        let line = table.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.trim().trim_end_matches(" kB").parse::<u64>().ok().map(|kib| kib * 1024)
    };
    let (total, free, inactive) = (bytes("MemTotal")?, bytes("MemFree")?, bytes("Inactive(file)")?);
    let usage = total.saturating_sub(free);
    Some(MemoryUsage {
        usage,
        working_set: usage.saturating_sub(inactive),
        rss: bytes("AnonPages").unwrap_or_default(),
        page_faults: 0,
        major_page_faults: 0,
    })
}

// === impl Family ===

impl Family {
    fn add(&mut self, labels: &str, value: Option<f64>) {
        if let Some(value) = value {
            let labels = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
            self.samples.push((labels, value));
        }
    }

    fn write(&self, text: &mut String, now: i64) -> std::fmt::Result {
        let Self { name, help, kind, samples } = self;
        writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}")?;
        for (labels, value) in samples {
            writeln!(text, "{name}{labels} {value} {now}")?;
        }
        Ok(())
    }
}
