//! Namespaces of pods, pinned as files so that containers join them by path and they outlive the agent.
//!
//! In: uid, hostname, which namespaces. Out: files `RUN_DIR/{netns,ipcns,utsns}/UID`, the network namespace's cookie
//! and a netlink connection that stays bound to it. Namespaces are a thread's property: each is made or entered by a
//! thread of its own that ends afterwards, never by one of the runtime's.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::statfs::{FsType, statfs};
use nix::unistd::sethostname;
use tokio::runtime::Handle;

use crate::error::{Error, Result};
use crate::netlink::{Netlink, Unstarted};
use crate::sysctl;

/// Making namespaces takes about a millisecond; the kernel's teardown of others can hold it up.
const PATIENCE: Duration = Duration::from_secs(20);

/// How often one file may be mounted over before giving up on it.
const MAX_MOUNTS: usize = 16;

/// `NSFS_MAGIC` of linux/magic.h: what a pinned namespace file is.
const NSFS: FsType = FsType(0x6e73_6673);

/// A kind of namespace that this crate pins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Net,
    Ipc,
    Uts,
}

/// The folder of pins.
#[derive(Clone, Debug)]
pub(crate) struct Pins {
    run_dir: PathBuf,
}

/// A network namespace that can be configured from outside.
pub(crate) struct PodNetns {
    pub(crate) netlink: Netlink,
    /// Held open while links are moved in.
    pub(crate) file: File,
    pub(crate) cookie: u64,
}

/// What a namespace thread brings back.
struct Entered {
    netlink: Unstarted,
    cookie: u64,
}

impl Kind {
    pub(crate) const ALL: [Self; 3] = [Self::Net, Self::Ipc, Self::Uts];

    fn folder(self) -> &'static str {
        match self {
            Self::Net => "netns",
            Self::Ipc => "ipcns",
            Self::Uts => "utsns",
        }
    }

    /// The calling thread's namespace of this kind.
    fn source(self) -> &'static str {
        match self {
            Self::Net => "/proc/thread-self/ns/net",
            Self::Ipc => "/proc/thread-self/ns/ipc",
            Self::Uts => "/proc/thread-self/ns/uts",
        }
    }

    fn flag(self) -> CloneFlags {
        match self {
            Self::Net => CloneFlags::CLONE_NEWNET,
            Self::Ipc => CloneFlags::CLONE_NEWIPC,
            Self::Uts => CloneFlags::CLONE_NEWUTS,
        }
    }
}

impl Pins {
    pub(crate) fn open(run_dir: &Path) -> Result<Self> {
        let pins = Self { run_dir: run_dir.to_owned() };
        for kind in Kind::ALL {
            let folder = run_dir.join(kind.folder());
            fs::create_dir_all(&folder).map_err(|error| Error::file("creating", folder, error))?;
        }
        Ok(pins)
    }

    pub(crate) fn path(&self, kind: Kind, uid: &str) -> PathBuf {
        self.run_dir.join(kind.folder()).join(uid)
    }

    /// A namespace is pinned there (and not just a file left where one was before a reboot).
    pub(crate) fn is_live(&self, kind: Kind, uid: &str) -> bool {
        is_pinned(&self.path(kind, uid))
    }

    /// Uids that have a file of any kind, live or not.
    pub(crate) fn uids(&self) -> Result<Vec<String>> {
        let mut uids = Vec::new();
        for kind in Kind::ALL {
            let folder = self.run_dir.join(kind.folder());
            let entries = fs::read_dir(&folder).map_err(|error| Error::file("listing", &folder, error))?;
            uids.extend(entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()));
        }
        uids.sort_unstable();
        uids.dedup();
        Ok(uids)
    }

    /// Makes and pins new namespaces of these kinds. Whatever was pinned under the uid is let go first.
    pub(crate) async fn make(&self, uid: &str, hostname: &str, kinds: Vec<Kind>) -> Result<Option<PodNetns>> {
        let targets: Vec<_> = kinds.iter().map(|kind| (*kind, self.path(*kind, uid))).collect();
        let net = kinds.contains(&Kind::Net).then(|| self.path(Kind::Net, uid));
        let hostname = hostname.to_owned();
        let runtime = Handle::current();
        let entered = on_thread(move || make(&targets, &hostname, &runtime)).await?;
        match (net, entered) {
            (Some(path), Some(entered)) => PodNetns::start(&path, entered).map(Some),
            _ => Ok(None),
        }
    }

    /// Opens the pinned network namespace of a pod.
    pub(crate) async fn enter(&self, uid: &str) -> Result<PodNetns> {
        let path = self.path(Kind::Net, uid);
        let target = path.clone();
        let runtime = Handle::current();
        let entered = on_thread(move || {
            let file = File::open(&target).map_err(|error| Error::file("opening", &target, error))?;
            setns(&file, CloneFlags::CLONE_NEWNET).map_err(|e| failed("entering a network namespace", e))?;
            enter_here(&runtime)
        })
        .await?;
        PodNetns::start(&path, entered)
    }

    /// Lets go of one pinned namespace; it ends with the last process in it. Nothing there is fine.
    pub(crate) fn release(&self, kind: Kind, uid: &str) -> Result<()> {
        release(&self.path(kind, uid))
    }
}

impl PodNetns {
    fn start(path: &Path, entered: Entered) -> Result<Self> {
        let file = File::open(path).map_err(|error| Error::file("opening", path, error))?;
        Ok(Self { netlink: entered.netlink.start(), file, cookie: entered.cookie })
    }
}

/// Runs in a thread of its own: its namespaces are changed and the thread is thrown away.
fn make(targets: &[(Kind, PathBuf)], hostname: &str, runtime: &Handle) -> Result<Option<Entered>> {
    let flags = targets.iter().fold(CloneFlags::empty(), |flags, (kind, _)| flags | kind.flag());
    unshare(flags).map_err(|e| failed("making namespaces", e))?;
    for (kind, target) in targets {
        release(target)?;
        if *kind == Kind::Uts {
            sethostname(hostname).map_err(|e| failed("setting the hostname", e))?;
        }
        File::create_new(target).map_err(|error| Error::file("creating", target, error))?;
        mount(Some(kind.source()), target, None::<&str>, MsFlags::MS_BIND, None::<&str>)
            .map_err(|e| failed("pinning a namespace", e))?;
    }
    if !flags.contains(CloneFlags::CLONE_NEWNET) {
        return Ok(None);
    }
    prepare_netns()?;
    enter_here(runtime).map(Some)
}

/// Settings that the pod's interface inherits when it appears.
fn prepare_netns() -> Result<()> {
    if sysctl::has_ipv6() {
        for conf in ["all", "default"] {
            sysctl::set(&format!("ipv6/conf/{conf}/disable_ipv6"), "0")?;
            // Addresses come from the agent alone and are unique by construction.
            sysctl::set(&format!("ipv6/conf/{conf}/accept_ra"), "0")?;
            sysctl::set(&format!("ipv6/conf/{conf}/accept_dad"), "0")?;
        }
        sysctl::set("ipv6/conf/lo/disable_ipv6", "0")?;
    }
    for conf in ["all", "default"] {
        sysctl::set(&format!("ipv4/conf/{conf}/rp_filter"), "0")?;
    }
    // The namespace is the pod's own: low ports and ping need no capability in it (as containerd 2 has it).
    sysctl::set("ipv4/ip_unprivileged_port_start", "0")?;
    sysctl::set("ipv4/ping_group_range", "0\t2147483647")
}

fn enter_here(runtime: &Handle) -> Result<Entered> {
    let cookie = xebec_datapath::netns_cookie().map_err(|source| Error::Datapath {
        action: "reading a network namespace's cookie".to_owned(),
        source: source.into(),
    })?;
    Ok(Entered { netlink: Netlink::open(runtime)?, cookie })
}

fn is_pinned(path: &Path) -> bool {
    statfs(path).is_ok_and(|stat| stat.filesystem_type() == NSFS)
}

fn release(path: &Path) -> Result<()> {
    let mut tries = 0..MAX_MOUNTS;
    loop {
        unmount(path)?;
        match fs::remove_file(path) {
            // The thread of an attach that was cut off mounted it a moment ago; it mounts each only once.
            Err(error) if error.kind() == ErrorKind::ResourceBusy && tries.next().is_some() => {}
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(Error::file("removing", path, error));
            }
            _ => return Ok(()),
        }
    }
}

fn unmount(path: &Path) -> Result<()> {
    for _ in 0..MAX_MOUNTS {
        match umount2(path, MntFlags::MNT_DETACH) {
            Ok(()) => {}
            // Nothing is mounted there (any more).
            Err(Errno::EINVAL | Errno::ENOENT) => break,
            Err(e) => return Err(Error::file("unmounting", path, e.into())),
        }
    }
    Ok(())
}

async fn on_thread<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let (done, outcome) = tokio::sync::oneshot::channel();
    std::thread::Builder::new()
        .name("netns".into())
        .spawn(move || {
            // The receiver may have gone; a half-made pod is repaired by its next attach.
            let _ = done.send(work());
        })
        .map_err(|source| Error::Namespace { action: "starting a thread", source })?;
    match tokio::time::timeout(PATIENCE, outcome).await {
        Ok(Ok(result)) => result,
        Ok(Err(_)) => {
            Err(Error::Namespace { action: "running a thread", source: io::Error::other("it panicked") })
        }
        Err(_) => Err(Error::Timeout { action: "making or entering namespaces".into(), after: PATIENCE }),
    }
}

fn failed(action: &'static str, errno: Errno) -> Error {
    Error::Namespace { action, source: errno.into() }
}
