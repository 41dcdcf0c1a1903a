//! Tells when a log folder changes: one inotify instance for all followers (the kernel counts instances per user).

#![expect(unsafe_code, reason = "tokio registers a foreign descriptor only by an unsafe call")]

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

/// How long an ended container's log must be quiet.
pub(super) const AFTER_END: Duration = Duration::from_millis(200);

type Folders = HashMap<WatchDescriptor, (PathBuf, watch::Sender<u64>)>;

/// Shared watcher; made when the first follower comes, gone with the last.
#[derive(Clone, Default)]
pub struct LogWatch {
    instance: Arc<Mutex<Option<Instance>>>,
}

/// Lets tokio wait for it.
struct Queue(Inotify);

impl AsRawFd for Queue {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

struct Instance {
    inotify: Arc<AsyncFd<Queue>>,
    folders: Arc<Mutex<Folders>>,
}

impl LogWatch {
    /// A receiver that changes whenever a file of `dir` is written, made or renamed.
    pub(super) fn watch(&self, dir: &Path) -> io::Result<watch::Receiver<u64>> {
        let mut instance = self.instance.lock().unwrap_or_else(PoisonError::into_inner);
        if instance.is_none() {
            *instance = Some(Instance::start(Arc::clone(&self.instance))?);
        }
        let Some(instance) = instance.as_ref() else { return Err(io::Error::other("no inotify")) };
        let flags = AddWatchFlags::IN_MODIFY
            | AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_DELETE_SELF;
        let mut folders = instance.folders.lock().unwrap_or_else(PoisonError::into_inner);
        let descriptor = instance.inotify.get_ref().0.add_watch(dir, flags)?;
        let entry = folders.entry(descriptor).or_insert_with(|| (dir.to_owned(), watch::channel(0).0));
        Ok(entry.1.subscribe())
    }
}

impl Instance {
    fn start(owner: Arc<Mutex<Option<Instance>>>) -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        // SAFETY: the descriptor is owned by `Queue`, which gives it away to nobody and lives as long as the
        // registration.
        let registered = unsafe { AsyncFd::register_with_interest(Queue(inotify), Interest::READABLE) };
        let inotify = Arc::new(registered.map_err(|error| error.into_parts().1)?);
        let folders = Arc::new(Mutex::new(Folders::new()));
        tokio::spawn(pump(Arc::clone(&inotify), Arc::clone(&folders), owner));
        Ok(Self { inotify, folders })
    }
}

async fn pump(
    inotify: Arc<AsyncFd<Queue>>,
    folders: Arc<Mutex<Folders>>,
    owner: Arc<Mutex<Option<Instance>>>,
) {
    let idle = Duration::from_secs(60);
    loop {
        match tokio::time::timeout(idle, inotify.readable()).await {
            Ok(Ok(mut ready)) => {
                while let Ok(events) = inotify.get_ref().0.read_events() {
                    let folders = folders.lock().unwrap_or_else(PoisonError::into_inner);
                    for event in events {
                        if let Some((_, sender)) = folders.get(&event.wd) {
                            sender.send_modify(|n| *n += 1);
                        }
                    }
                }
                ready.clear_ready();
            }
            Ok(Err(error)) => {
                tracing::warn!(%error, "inotify failed; followers of logs end");
                break;
            }
            Err(_) => {}
        }
        if drop_unused(&inotify, &folders, &owner) {
            return;
        }
    }
    owner.lock().unwrap_or_else(PoisonError::into_inner).take();
}

/// Removes folders nobody follows; true when none is left and the instance was given up.
fn drop_unused(inotify: &AsyncFd<Queue>, folders: &Mutex<Folders>, owner: &Mutex<Option<Instance>>) -> bool {
    let mut owner = owner.lock().unwrap_or_else(PoisonError::into_inner);
    let mut folders = folders.lock().unwrap_or_else(PoisonError::into_inner);
    folders.retain(|descriptor, (dir, sender)| {
        let used = sender.receiver_count() > 0;
        if !used && let Err(errno) = inotify.get_ref().0.rm_watch(*descriptor) {
            tracing::trace!(dir = %dir.display(), %errno, "watch was gone already");
        }
        used
    });
    if folders.is_empty() {
        owner.take();
        return true;
    }
    false
}
