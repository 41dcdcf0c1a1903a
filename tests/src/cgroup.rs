//! Cgroups for tests: a thread that is a node's process.
//!
//! In: nothing. Out: folders in the cgroup2 tree that single threads can enter, removed when dropped.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};

/// Folders in use; the process leaves its own when the last one goes.
static USERS: Mutex<usize> = Mutex::new(0);
static NEXT: AtomicU32 = AtomicU32::new(0);

/// A cgroup2 folder of a test. Threads enter it one by one; their children inherit it.
pub struct Cgroup {
    path: PathBuf,
    domain: PathBuf,
    home: PathBuf,
}

impl Cgroup {
    /// Makes the folder.
    ///
    /// # Errors
    /// Where there is no cgroup2 tree or it cannot be written to.
    pub fn create() -> Result<Self> {
        let root = root()?;
        let mut users = USERS.lock().unwrap_or_else(PoisonError::into_inner);
        let own = own()?;
        // Single threads can be moved only below the folder their process lives in.
        let name = format!("xebec-test-{}", std::process::id());
        let home = root.join(own.trim_start_matches('/'));
        let domain = if own.ends_with(&name) { home.clone() } else { home.join(&name) };
        let home = domain.parent().context("the test's cgroup has a parent")?.to_path_buf();
        fs::create_dir_all(&domain).with_context(|| format!("making the cgroup {}", domain.display()))?;
        let path = domain.join(format!("node{}", NEXT.fetch_add(1, Ordering::Relaxed)));
        fs::create_dir(&path)?;
        // Only the first: it moves every thread, also those that are in a folder of their own already.
        if *users == 0 {
            fs::write(domain.join("cgroup.procs"), "0").context("entering the test's cgroup")?;
        }
        fs::write(path.join("cgroup.type"), "threaded").context("making the cgroup threaded")?;
        *users += 1;
        Ok(Self { path, domain, home })
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Moves the calling thread into the folder.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn enter(&self) -> Result<()> {
        enter(&self.path)
    }
}

/// Moves the calling thread into a test's cgroup.
///
/// # Errors
/// When the kernel refuses.
pub fn enter(path: &Path) -> Result<()> {
    fs::write(path.join("cgroup.threads"), "0").with_context(|| format!("entering {}", path.display()))
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let mut users = USERS.lock().unwrap_or_else(PoisonError::into_inner);
        // Threads that still run in it go back to where the process is.
        for thread in fs::read_to_string(self.path.join("cgroup.threads")).unwrap_or_default().lines() {
            fs::write(self.domain.join("cgroup.threads"), thread).ok();
        }
        fs::remove_dir(&self.path).ok();
        *users -= 1;
        if *users == 0 {
            fs::write(self.home.join("cgroup.procs"), "0").ok();
            fs::remove_dir(&self.domain).ok();
        }
    }
}

/// Where the cgroup2 tree is mounted: `/sys/fs/cgroup`, or `unified` below it on hybrid hosts.
fn root() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    mounts
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>())
        .find(|fields| fields.get(2) == Some(&"cgroup2"))
        .map(|fields| PathBuf::from(fields[1]))
        .context("this host has no cgroup2 tree mounted")
}

/// The cgroup2 folder of this process, from the root of the tree.
fn own() -> Result<String> {
    let text = fs::read_to_string("/proc/self/cgroup")?;
    text.lines().find_map(|line| line.strip_prefix("0::")).map(str::to_owned).context("no cgroup2 membership")
}
