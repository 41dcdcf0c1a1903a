//! Debian packages by the ordinary client, without installing any: lists, archives and state stay in one folder.
//!
//! In: package names. Out: `.deb` files, or trees unpacked from them. Nothing of the system's own apt state changes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};

use crate::command;

/// Package lists older than this are fetched again.
const LISTS_AGE: Duration = Duration::from_secs(24 * 3600);

/// Which dependencies to fetch along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dependencies {
    /// Those the host lacks: for programs that run on the host.
    Missing,
    /// All of them, down to the C library: for root file systems.
    All,
}

/// Unpacks one package. Not `dpkg-deb -x`: it would replace a root's `lib -> usr/lib` by a folder.
fn extract(deb: &Path, root: &Path) -> Result<()> {
    let mut dpkg = Command::new("dpkg-deb").arg("--fsys-tarfile").arg(deb).stdout(Stdio::piped()).spawn()?;
    let tar = dpkg.stdout.take().context("dpkg-deb's output is piped")?;
    let mut archive = tar::Archive::new(tar);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let inside = merged(root, &entry.path()?);
        let to = root.join(&inside);
        if entry.header().entry_type().is_hard_link() {
            let target = merged(root, &entry.link_name()?.context("a hard link names a file")?);
            fs::hard_link(root.join(target), &to)?;
            continue;
        }
        if let Some(folder) = to.parent() {
            fs::create_dir_all(folder)?;
        }
        entry.set_preserve_permissions(true);
        entry.unpack(&to)?;
    }
    if !dpkg.wait()?.success() {
        bail!("dpkg-deb failed");
    }
    Ok(())
}

/// Where a packaged path goes in a root whose `/bin`, `/lib` … are links into `/usr`.
fn merged(root: &Path, packaged: &Path) -> PathBuf {
    let path = packaged.strip_prefix(".").unwrap_or(packaged);
    match path.iter().next() {
        Some(first) if root.join(first).is_symlink() => Path::new("usr").join(path),
        _ => path.to_path_buf(),
    }
}

/// A private apt: reads the system's sources, writes only below `dir`.
pub struct Apt {
    dir: PathBuf,
}

// === impl Apt ===

impl Apt {
    pub fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// Fetches packages with their dependencies and unpacks them into `root` (made if absent).
    ///
    /// # Errors
    /// When the host has no apt, no network, or a package does not exist.
    pub fn unpack(&self, packages: &[&str], dependencies: Dependencies, root: &Path) -> Result<()> {
        let debs = self.fetch(packages, dependencies)?;
        fs::create_dir_all(root)?;
        for deb in debs {
            extract(&deb, root).with_context(|| format!("unpacking {}", deb.display()))?;
        }
        Ok(())
    }

    /// Fetches packages with their dependencies into a folder of their own and names the files.
    ///
    /// # Errors
    /// As [`Self::unpack`].
    pub fn fetch(&self, packages: &[&str], dependencies: Dependencies) -> Result<Vec<PathBuf>> {
        self.update()?;
        let archives = self.dir.join("archives").join(packages.join("+"));
        fs::create_dir_all(archives.join("partial"))?;
        let mut apt = self.apt_get();
        apt.arg("-o").arg(format!("Dir::Cache::archives={}", archives.display()));
        if dependencies == Dependencies::All {
            // An empty status file: nothing counts as installed.
            let status = self.dir.join("empty-status");
            fs::write(&status, "")?;
            apt.arg("-o").arg(format!("Dir::State::status={}", status.display()));
        }
        apt.args(["--yes", "--reinstall", "--no-install-recommends", "--download-only", "install"])
            .args(packages);
        command::output(&mut apt)
            .with_context(|| format!("fetching Debian packages {}", packages.join(", ")))?;
        let mut debs: Vec<PathBuf> = fs::read_dir(&archives)?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.extension().is_some_and(|e| e == "deb"))
            .collect();
        debs.sort();
        if debs.is_empty() {
            bail!("apt fetched no package for {}", packages.join(", "));
        }
        Ok(debs)
    }

    fn update(&self) -> Result<()> {
        let stamp = self.dir.join("lists-updated");
        let fresh = fs::metadata(&stamp)
            .and_then(|m| m.modified())
            .is_ok_and(|at| SystemTime::now().duration_since(at).is_ok_and(|age| age < LISTS_AGE));
        if fresh {
            return Ok(());
        }
        fs::create_dir_all(self.dir.join("lists/partial"))?;
        fs::create_dir_all(self.dir.join("archives/partial"))?;
        let mut apt = self.apt_get();
        apt.arg("update");
        command::output(&mut apt).context(
            "fetching Debian's package lists: this host needs apt and a reachable Debian mirror, \
             or the tools themselves (containerd, runc, protoc, kubectl) in PATH",
        )?;
        fs::write(stamp, "")?;
        Ok(())
    }

    fn apt_get(&self) -> Command {
        let mut apt = Command::new("apt-get");
        apt.env("LC_ALL", "C").env("DEBIAN_FRONTEND", "noninteractive").arg("-qq");
        for (key, value) in [
            ("Dir::State::lists", self.dir.join("lists").display().to_string()),
            ("Dir::State::extended_states", self.dir.join("extended_states").display().to_string()),
            ("Dir::Cache::archives", self.dir.join("archives").display().to_string()),
            ("Dir::Cache::pkgcache", String::new()),
            ("Dir::Cache::srcpkgcache", String::new()),
            ("Dir::Log", self.dir.join("log").display().to_string()),
            // The lists are ours and root-owned: the unprivileged download user could not read them.
            ("APT::Sandbox::User", "root".to_owned()),
            ("Debug::NoLocking", "1".to_owned()),
            ("Acquire::Retries", "3".to_owned()),
            ("Acquire::http::Timeout", "30".to_owned()),
            ("Acquire::https::Timeout", "30".to_owned()),
        ] {
            apt.arg("-o").arg(format!("{key}={value}"));
        }
        apt
    }
}
