//! The mounts of a container: kernel filesystems, then the pod's, parents before children.
//!
//! In: the configuration. Out: the mount list. Pure.

use std::path::{Component, Path};

use oci_spec::runtime::{Mount as OciMount, MountBuilder};

use super::host::HostFacts;
use crate::error::RuntimeError;
use crate::types::{ContainerConfig, Mount, MountPropagation};

const SHARED_MEMORY: &str = "/dev/shm";
/// Size of a `/dev/shm` that the container has for itself.
const SHM: &str = "size=65536k";

pub(super) fn build(config: &ContainerConfig, host: &HostFacts) -> Result<Vec<OciMount>, RuntimeError> {
    let privileged = config.security.privileged;
    let access = if privileged { "rw" } else { "ro" };
    let cgroup = if host.unified_cgroups { "cgroup2" } else { "cgroup" };
    let kernel: [(&str, &str, &str, &[&str]); 7] = [
        ("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        ("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        (
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        ("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        (SHARED_MEMORY, "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", SHM]),
        ("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", access]),
        ("/sys/fs/cgroup", cgroup, "cgroup", &["nosuid", "noexec", "nodev", "relatime", access]),
    ];
    let named = |target: &str| config.mounts.iter().any(|mount| mount.container_path == Path::new(target));
    let shm = config.sandbox.shm.as_deref().filter(|_| !named(SHARED_MEMORY));
    let taken = |target: &str| named(target) || (shm.is_some() && target == SHARED_MEMORY);
    let mut mounts = Vec::with_capacity(kernel.len() + config.mounts.len());
    for (target, typ, source, options) in kernel.into_iter().filter(|(target, ..)| !taken(target)) {
        let options: Vec<String> = options.iter().map(ToString::to_string).collect();
        mounts.push(
            MountBuilder::default().destination(target).typ(typ).source(source).options(options).build()?,
        );
    }
    if let Some(shm) = shm {
        let options = ["rbind", "rprivate", "rw", "nosuid", "noexec", "nodev"].map(str::to_owned);
        let shared = MountBuilder::default().destination(SHARED_MEMORY).typ("bind").source(shm);
        mounts.push(shared.options(options).build()?);
    }
    for mount in &config.mounts {
        mounts.push(bind(mount)?);
    }
    // A mount would hide one that was made below it before. The sort is stable.
    mounts.sort_by_key(|mount| mount.destination().components().count());
    Ok(mounts)
}

fn bind(mount: &Mount) -> Result<OciMount, RuntimeError> {
    let target = &mount.container_path;
    let climbs = target.components().any(|part| part == Component::ParentDir);
    if !target.is_absolute() || climbs {
        return Err(RuntimeError::Config(format!(
            "mount target {target:?}: must be an absolute path without .."
        )));
    }
    if !mount.host_path.is_absolute() {
        return Err(RuntimeError::Config(format!("mount source {:?}: must be absolute", mount.host_path)));
    }
    let propagation = match mount.propagation {
        MountPropagation::Private => "rprivate",
        MountPropagation::HostToContainer => "rslave",
        MountPropagation::Bidirectional => "rshared",
    };
    let access = if mount.read_only { "ro" } else { "rw" };
    let options: Vec<String> = ["rbind", propagation, access].map(str::to_owned).into();
    let bind = MountBuilder::default()
        .destination(target)
        .typ("bind")
        .source(&mount.host_path)
        .options(options)
        .build()?;
    Ok(bind)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::tests::{config, host};

    fn mount(host_path: &str, container_path: &str) -> Mount {
        Mount {
            host_path: host_path.into(),
            container_path: container_path.into(),
            read_only: true,
            propagation: MountPropagation::HostToContainer,
        }
    }

    #[test]
    fn parents_come_before_children() {
        let mut config = config();
        config.mounts = vec![mount("/h/b", "/data/inner"), mount("/h/a", "/data"), mount("/h/s", "/dev/shm")];
        let mounts = build(&config, &host()).unwrap();
        let at =
            |target: &str| mounts.iter().position(|mount| mount.destination() == Path::new(target)).unwrap();
        assert!(at("/data") < at("/data/inner"));
        assert!(at("/dev") < at("/dev/shm"));
        assert!(at("/sys") < at("/sys/fs/cgroup"));
        let shm: Vec<_> = mounts.iter().filter(|m| m.destination() == Path::new("/dev/shm")).collect();
        assert_eq!(shm.len(), 1, "the pod's own replaces the default");
        assert_eq!(shm[0].options().as_ref().unwrap(), &["rbind", "rslave", "ro"]);
    }

    #[test]
    fn the_containers_of_a_pod_share_its_memory() {
        let mut config = config();
        let shm = |config: &ContainerConfig| {
            let mounts = build(config, &host()).unwrap();
            let shm: Vec<_> = mounts.iter().filter(|m| m.destination() == Path::new("/dev/shm")).collect();
            assert_eq!(shm.len(), 1);
            shm[0].source().clone().unwrap()
        };
        assert_eq!(shm(&config), Path::new("shm"), "a container's own");
        config.sandbox.shm = Some("/pods/u/shm".into());
        assert_eq!(shm(&config), Path::new("/pods/u/shm"));
        config.mounts = vec![mount("/h/s", "/dev/shm")];
        assert_eq!(shm(&config), Path::new("/h/s"), "a volume of that place comes first");
    }

    #[test]
    fn kernel_filesystems_are_read_only_unless_privileged() {
        let options = |privileged| {
            let mut config = config();
            config.security.privileged = privileged;
            let mounts = build(&config, &host()).unwrap();
            let sys = mounts.iter().find(|mount| mount.destination() == Path::new("/sys")).unwrap();
            sys.options().clone().unwrap()
        };
        assert!(options(false).contains(&"ro".to_owned()));
        assert!(options(true).contains(&"rw".to_owned()));
    }

    #[test]
    fn targets_that_climb_are_refused() {
        for bad in ["relative", "/a/../../etc", ""] {
            let mut config = config();
            config.mounts = vec![mount("/h", bad)];
            assert!(build(&config, &host()).is_err(), "{bad}");
        }
    }
}
