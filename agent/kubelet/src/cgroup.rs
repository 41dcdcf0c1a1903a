//! The cgroup tree of pods: `<root>/kubepods/[burstable|besteffort/]pod<uid>`.
//!
//! In: pods, their limits. Out: folders with limits in every hierarchy that is mounted: one on cgroup v2; on v1 one
//! for each controller, beside a v2 tree without controllers (hybrid). Cgroups that were not made here stay untouched.

mod hierarchy;
mod usage;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::Pod;

use crate::pod::{self, PodUid};
use crate::qos::{self, QosClass};
use crate::resources::{self, CgroupLimits};

use hierarchy::Hierarchy;
pub use usage::{MemoryUsage, Usage};

/// Why a cgroup could not be made, limited or removed.
#[derive(Debug, thiserror::Error)]
#[error("cgroup {path}: {source}")]
pub struct CgroupError {
    pub path: PathBuf,
    pub source: std::io::Error,
}

impl CgroupError {
    fn at(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self { path, source }
    }
}

/// The tree below one root.
#[derive(Clone, Debug)]
pub struct Cgroups {
    hierarchies: Vec<Hierarchy>,
    /// Relative to the hierarchies' roots, without trailing slash: `/xebec-1/n1`; empty for the roots themselves.
    root: String,
}

impl Cgroups {
    /// Finds the hierarchies and makes `kubepods` with its QoS folders.
    pub fn open(root: &str) -> Result<Self, CgroupError> {
        let table = "/proc/self/mountinfo";
        let text = std::fs::read_to_string(table).map_err(CgroupError::at(table))?;
        let cgroups = Self { hierarchies: hierarchy::parse(&text), root: normal(root) };
        for class in [QosClass::Guaranteed, QosClass::Burstable, QosClass::BestEffort] {
            let path = cgroups.qos_path(class);
            for hierarchy in cgroups.used() {
                hierarchy.make(&cgroups.root, &path)?;
            }
        }
        cgroups.limit(
            &cgroups.qos_path(QosClass::BestEffort),
            &CgroupLimits { cpu_shares: Some(2), ..CgroupLimits::default() },
        )?;
        Ok(cgroups)
    }

    /// A v2 tree in an ordinary folder.
    #[cfg(test)]
    pub(crate) fn fake(mount: &Path) -> Self {
        Self { hierarchies: vec![Hierarchy::fake(mount)], root: String::new() }
    }

    /// Whether processes can be limited here: the OCI runtime refuses a limit that it cannot set.
    pub(crate) fn limits_processes(&self) -> bool {
        let mut hierarchies = self.hierarchies.iter();
        hierarchies.clone().any(|h| h.has("pids")) || hierarchies.all(Hierarchy::is_unified)
    }

    fn used(&self) -> impl Iterator<Item = &Hierarchy> {
        self.hierarchies.iter().filter(|h| h.is_used())
    }

    fn qos_path(&self, class: QosClass) -> String {
        let below = match class {
            QosClass::Guaranteed => "",
            QosClass::Burstable => "/burstable",
            QosClass::BestEffort => "/besteffort",
        };
        format!("{}/kubepods{below}", self.root)
    }

    /// The pod's cgroup, as the OCI spec names it.
    pub fn pod_path(&self, pod: &Pod) -> String {
        format!("{}/pod{}", self.qos_path(qos::class(pod)), pod::uid(pod))
    }

    /// Makes and limits the pod's cgroup. Idempotent.
    pub fn make_pod(&self, pod: &Pod) -> Result<(), CgroupError> {
        let path = self.pod_path(pod);
        for hierarchy in self.used() {
            hierarchy.make(&self.root, &path)?;
        }
        self.limit(&path, &resources::of_pod(pod))
    }

    /// Gives the burstable pods together the weight of what they asked for.
    pub fn weigh_burstable(&self, milli_cpu: i128) -> Result<(), CgroupError> {
        let limits =
            CgroupLimits { cpu_shares: Some(resources::shares(milli_cpu)), ..CgroupLimits::default() };
        self.limit(&self.qos_path(QosClass::Burstable), &limits)
    }

    fn limit(&self, path: &str, limits: &CgroupLimits) -> Result<(), CgroupError> {
        for hierarchy in self.used() {
            hierarchy.limit(path, limits)?;
        }
        Ok(())
    }

    /// Removes a pod's cgroup wherever it may be. Idempotent.
    pub fn remove_pod(&self, uid: &PodUid) -> Result<(), CgroupError> {
        for class in [QosClass::Guaranteed, QosClass::Burstable, QosClass::BestEffort] {
            let path = format!("{}/pod{uid}", self.qos_path(class));
            for hierarchy in &self.hierarchies {
                hierarchy.remove(&path)?;
            }
        }
        Ok(())
    }

    /// The cgroup of all processes of this node.
    pub fn root(&self) -> &str {
        &self.root
    }

    /// What the processes of a cgroup have used, wherever it is counted.
    pub fn usage(&self, path: &str) -> Usage {
        Usage {
            cpu: self.hierarchies.iter().find_map(|hierarchy| usage::cpu(hierarchy, path)),
            memory: self.hierarchies.iter().find_map(|hierarchy| usage::memory(hierarchy, path)),
            processes: self.hierarchies.iter().find_map(|hierarchy| usage::processes(hierarchy, path)),
        }
    }

    /// Pods that have a cgroup.
    pub fn pods(&self) -> BTreeSet<PodUid> {
        let mut found = BTreeSet::new();
        for class in [QosClass::Guaranteed, QosClass::Burstable, QosClass::BestEffort] {
            for hierarchy in &self.hierarchies {
                let dir = hierarchy.dir(&self.qos_path(class));
                let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
                let names = entries.filter_map(|e| e.file_name().into_string().ok());
                found.extend(names.filter_map(|n| n.strip_prefix("pod").map(|uid| PodUid(uid.to_owned()))));
            }
        }
        found
    }
}

fn normal(root: &str) -> String {
    let trimmed = root.trim_matches('/');
    if trimmed.is_empty() { String::new() } else { format!("/{trimmed}") }
}

fn write(path: &Path, value: &str) -> Result<(), CgroupError> {
    std::fs::write(path, value).map_err(CgroupError::at(path))
}
