//! A container's configuration as an OCI runtime specification.
//!
//! In: [`ContainerConfig`] and what was found out for it ([`Facts`]). Out: the [`Spec`] that runc runs. Pure. containerd's
//! native API adds nothing of its own, so every default that protects the host is made here: capabilities, seccomp,
//! masked paths, devices.

pub(crate) mod capabilities;
pub(crate) mod devices;
pub(crate) mod host;
mod mounts;
mod process;
pub(crate) mod seccomp;
pub(crate) mod user;

use std::path::{Path, PathBuf};

use oci_spec::OciSpecError;
use oci_spec::runtime::{
    Linux, LinuxBuilder, LinuxCpuBuilder, LinuxDevice, LinuxDeviceCgroup, LinuxDeviceCgroupBuilder,
    LinuxMemoryBuilder, LinuxNamespace, LinuxNamespaceBuilder, LinuxNamespaceType, LinuxPidsBuilder,
    LinuxResources, LinuxResourcesBuilder, LinuxSeccomp, RootBuilder, Spec, SpecBuilder,
};

use self::host::HostFacts;
use self::user::User;
use crate::error::RuntimeError;
use crate::types::{ContainerConfig, MountPropagation, Resources};

/// Version of the runtime specification that the oldest supported runc implements.
const OCI_VERSION: &str = "1.0.2";

/// Hidden: they tell about, or reach into, the host.
const MASKED_PATHS: [&str; 13] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/devices/system/cpu/cpu0/thermal_throttle",
    "/sys/firmware",
];
const READONLY_PATHS: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// What must be looked up before a specification can be written.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    pub(crate) host: HostFacts,
    pub(crate) user: User,
    /// PID namespace of the container that `pid_of` names.
    pub(crate) pid_namespace: Option<PathBuf>,
    /// The profile of `Seccomp::Localhost`.
    pub(crate) seccomp_profile: Option<LinuxSeccomp>,
    /// The host's devices, for a privileged container.
    pub(crate) devices: Vec<LinuxDevice>,
    /// `pod/container`'s cgroup, below the hierarchy roots.
    pub(crate) cgroup: String,
}

/// Writes the specification.
///
/// # Errors
/// [`RuntimeError::Config`] with a sentence for the user.
pub(crate) fn build(config: &ContainerConfig, facts: &Facts) -> Result<Spec, RuntimeError> {
    let root =
        RootBuilder::default().path("rootfs").readonly(config.security.read_only_root_filesystem).build()?;
    let mut spec = SpecBuilder::default()
        .version(OCI_VERSION)
        .root(root)
        .process(process::build(config, facts)?)
        .mounts(mounts::build(config, &facts.host)?)
        .linux(linux(config, facts)?)
        .build()?;
    // The UTS namespace is the pod's and has its name already.
    spec.set_hostname(None);
    spec.set_annotations(None);
    Ok(spec)
}

fn linux(config: &ContainerConfig, facts: &Facts) -> Result<Linux, RuntimeError> {
    let security = &config.security;
    let mut linux = LinuxBuilder::default()
        .cgroups_path(&facts.cgroup)
        .namespaces(namespaces(config, facts)?)
        .resources(resources(&config.resources, facts, security.privileged)?)
        .build()?;
    let unmasked = security.privileged || security.unmasked_proc;
    let paths = |paths: &[&str]| {
        Some(if unmasked { Vec::new() } else { paths.iter().map(ToString::to_string).collect() })
    };
    linux.set_masked_paths(paths(&MASKED_PATHS));
    linux.set_readonly_paths(paths(&READONLY_PATHS));
    linux.set_seccomp(seccomp::of(config, facts)?);
    if security.privileged {
        linux.set_devices(Some(facts.devices.clone()));
    }
    if !security.sysctls.is_empty() {
        linux.set_sysctl(Some(security.sysctls.clone().into_iter().collect()));
    }
    // A mount can only pass on or receive what its parent does.
    let widest = config.mounts.iter().map(|mount| mount.propagation);
    let shared = widest.clone().any(|propagation| propagation == MountPropagation::Bidirectional);
    let slave = widest.into_iter().any(|propagation| propagation == MountPropagation::HostToContainer);
    if shared || slave {
        linux.set_rootfs_propagation(Some(if shared { "rshared" } else { "rslave" }.to_owned()));
    }
    Ok(linux)
}

fn namespaces(config: &ContainerConfig, facts: &Facts) -> Result<Vec<LinuxNamespace>, OciSpecError> {
    let sandbox = &config.sandbox;
    let new = |typ| LinuxNamespaceBuilder::default().typ(typ).build();
    let join = |typ, path: &Path| LinuxNamespaceBuilder::default().typ(typ).path(path).build();
    let mut namespaces = vec![new(LinuxNamespaceType::Mount)?];
    // A kind that is not listed stays the host's.
    for (typ, path) in [
        (LinuxNamespaceType::Network, &sandbox.netns),
        (LinuxNamespaceType::Ipc, &sandbox.ipcns),
        (LinuxNamespaceType::Uts, &sandbox.utsns),
    ] {
        if let Some(path) = path {
            namespaces.push(join(typ, path)?);
        }
    }
    match &facts.pid_namespace {
        Some(path) => namespaces.push(join(LinuxNamespaceType::Pid, path)?),
        None if sandbox.host_pid => {}
        None => namespaces.push(new(LinuxNamespaceType::Pid)?),
    }
    if facts.host.unified_cgroups && !config.security.privileged {
        namespaces.push(new(LinuxNamespaceType::Cgroup)?);
    }
    Ok(namespaces)
}

fn resources(wanted: &Resources, facts: &Facts, privileged: bool) -> Result<LinuxResources, RuntimeError> {
    let mut resources = LinuxResourcesBuilder::default().devices(device_rules(privileged)?).build()?;
    let mut cpu = LinuxCpuBuilder::default();
    if let Some(shares) = wanted.cpu_shares {
        cpu = cpu.shares(shares);
    }
    if let Some(quota) = wanted.cpu_quota {
        cpu = cpu.quota(quota);
    }
    if let Some(period) = wanted.cpu_period {
        cpu = cpu.period(period);
    }
    resources.set_cpu(Some(cpu.build()?));
    if let Some(limit) = wanted.memory_limit {
        let mut memory = LinuxMemoryBuilder::default().limit(limit);
        if facts.host.swap_accounting {
            // Memory and swap together: no swap beyond the limit.
            memory = memory.swap(limit);
        }
        resources.set_memory(Some(memory.build()?));
        if facts.host.unified_cgroups {
            // All of the container or nothing: half of a program is no use to anybody.
            resources.set_unified(Some([("memory.oom.group".to_owned(), "1".to_owned())].into()));
        }
    }
    if let Some(limit) = wanted.pids_limit {
        resources.set_pids(Some(LinuxPidsBuilder::default().limit(limit).build()?));
    }
    Ok(resources)
}

/// Nothing is allowed but what runc itself adds for every container: null, zero, full, random, urandom, tty,
/// console, the pseudo-terminals, and making (not opening) device nodes.
fn device_rules(privileged: bool) -> Result<Vec<LinuxDeviceCgroup>, OciSpecError> {
    Ok(vec![LinuxDeviceCgroupBuilder::default().allow(privileged).access("rwm").build()?])
}

impl From<OciSpecError> for RuntimeError {
    fn from(error: OciSpecError) -> Self {
        Self::Config(format!("the container's specification cannot be written: {error}"))
    }
}

#[cfg(test)]
pub(crate) mod tests;
