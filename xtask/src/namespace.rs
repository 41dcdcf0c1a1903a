//! Namespaces of a development cluster: pinned network namespaces, and a node's mount and UTS namespaces.
//!
//! In: names and folders. Out: files below `/run/netns` (where `ip` looks for them) and a holder process per node that
//! keeps its mount and UTS namespaces alive. Everything here needs root.

use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

use crate::cgroup;

pub const NETNS_DIR: &str = "/run/netns";

const NONE: Option<&str> = None;

/// What [`hold`] sets up and [`enter`] joins.
#[derive(Clone, Debug)]
pub struct Place {
    /// cgroup relative to the hierarchy roots.
    pub cgroup: PathBuf,
    /// Name of the network namespace; `None` stays in the host's.
    pub netns: Option<String>,
    /// A process whose mount and UTS namespaces to join.
    pub holder: Option<i32>,
}

/// Makes a network namespace and pins it, unless that was done before.
///
/// # Errors
/// When not root, or `/run` is read-only.
pub fn create_netns(name: &str) -> Result<()> {
    let path = netns_path(name);
    if is_pinned(&path) {
        return Ok(());
    }
    fs::create_dir_all(NETNS_DIR).context("making /run/netns: are you root?")?;
    fs::write(&path, "")?;
    let target = path.clone();
    // A thread of its own: unshare changes the calling thread for good.
    std::thread::spawn(move || -> Result<()> {
        unshare(CloneFlags::CLONE_NEWNET).context("making a network namespace: are you root?")?;
        mount(Some("/proc/thread-self/ns/net"), &target, NONE, MsFlags::MS_BIND, NONE)
            .with_context(|| format!("pinning {}", target.display()))
    })
    .join()
    .map_err(|_| anyhow!("the thread that makes network namespaces panicked"))?
}

/// Unpins a network namespace; it ends with its last process.
pub fn remove_netns(name: &str) -> Result<()> {
    let path = netns_path(name);
    if path.exists() {
        umount2(&path, MntFlags::MNT_DETACH).ok();
        fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))?;
    }
    Ok(())
}

/// Names of the pinned network namespaces that begin with `prefix`.
pub fn pinned_netns(prefix: &str) -> Vec<String> {
    fs::read_dir(NETNS_DIR)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.starts_with(prefix))
        .collect()
}

pub fn netns_path(name: &str) -> PathBuf {
    Path::new(NETNS_DIR).join(name)
}

/// A file on nsfs: a namespace is mounted over it.
fn is_pinned(path: &Path) -> bool {
    let device = |p: &Path| fs::metadata(p).map(|m| m.dev());
    matches!((device(path), device(Path::new("/proc/self/ns/net"))), (Ok(a), Ok(b)) if a == b)
}

/// Runs `work` on a thread inside a network namespace: sockets it makes stay there.
pub fn in_netns<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let file = fs::File::open(netns_path(name)).with_context(|| format!("network namespace {name}"))?;
    std::thread::spawn(move || {
        setns(file, CloneFlags::CLONE_NEWNET).context("entering a network namespace")?;
        work()
    })
    .join()
    .map_err(|_| anyhow!("a thread in network namespace {name} panicked"))?
}

/// Joins a place; the caller then execs the program that is to live there. Call before any thread is made.
///
/// # Errors
/// When the holder is gone or the cgroup does not exist.
pub fn enter(place: &Place) -> Result<()> {
    // First of all: entering the mount namespace may hide the cgroup tree.
    cgroup::join(&place.cgroup)?;
    let holder = place
        .holder
        .map(|pid| -> Result<_> {
            let open = |kind: &str| {
                fs::File::open(format!("/proc/{pid}/ns/{kind}"))
                    .with_context(|| format!("{kind} namespace of {pid}"))
            };
            Ok((open("mnt")?, open("uts")?))
        })
        .transpose()?;
    if let Some(name) = &place.netns {
        setns(fs::File::open(netns_path(name))?, CloneFlags::CLONE_NEWNET)?;
    }
    if let Some((mnt, uts)) = holder {
        setns(uts, CloneFlags::CLONE_NEWUTS)?;
        setns(mnt, CloneFlags::CLONE_NEWNS)?;
    }
    Ok(())
}

/// Becomes the holder of a node's namespaces: private `/run`, `/var/log` and bpffs; says `ready` and sleeps for ever.
///
/// # Errors
/// When a mount fails.
pub fn hold(
    place: &Place,
    hostname: &str,
    node_dir: &Path,
    control_dir: Option<&Path>,
    bin: &Path,
) -> Result<()> {
    enter(place)?;
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS)?;
    nix::unistd::sethostname(hostname)?;
    // Nothing of ours reaches the host; inside, mounts are shared so that pods can ask for propagation.
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE).context("making / private")?;
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_SHARED, NONE)
        .context("making / shared in the node")?;
    tmpfs("/run", "mode=755")?;
    tmpfs("/var/log", "mode=755")?;
    mount(Some("bpf"), "/sys/fs/bpf", Some("bpf"), MsFlags::empty(), NONE).context("mounting bpffs")?;
    bind(&node_dir.join("pod-logs"), Path::new("/var/log/pods"))?;
    // Reachable for an unprivileged uid even when the cluster folder is below a private home.
    bind(bin, Path::new("/run/xebec-bin"))?;
    if let Some(control_dir) = control_dir {
        bind(control_dir, Path::new("/run/xebec-control"))?;
    }
    let mut out = std::io::stdout();
    writeln!(out, "ready")?;
    out.flush()?;
    loop {
        nix::unistd::pause();
    }
}

fn tmpfs(at: &str, options: &str) -> Result<()> {
    mount(Some("tmpfs"), at, Some("tmpfs"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some(options))
        .with_context(|| format!("mounting a private {at}"))
}

fn bind(from: &Path, at: &Path) -> Result<()> {
    fs::create_dir_all(from)?;
    fs::create_dir_all(at)?;
    mount(Some(from), at, NONE, MsFlags::MS_BIND, NONE)
        .with_context(|| format!("binding {} to {}", from.display(), at.display()))
}
