//! Building the eBPF object.
//!
//! In: the workspace, the host's Rust toolchain. Out: `xebec-ebpf.o` among the build inputs, where `datapath` embeds it.
//! Nothing of the system is changed but a `rust-src` component that rustup may add to the toolchain in use; where rustup
//! cannot reach its server, Debian's package of exactly that Rust version is unpacked below the tools folder.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::command::output;

/// The last bpf-linker that links with the LLVM rustc itself carries; later ones want one of the system.
const BPF_LINKER: &str = "0.10.3";
const TARGET: &str = "bpfel-unknown-none";
const OBJECT: &str = "xebec-ebpf.o";
/// Where the packages of recent Rust versions are, newest first.
const DEBIAN_SUITES: &str = "trixie-backports forky sid";
/// Longest wait for rustup, in seconds: a server that cannot be reached must not hold the build up.
const RUSTUP_TIMEOUT: &str = "120";

/// What matters of `rustc -vV`.
struct Rustc {
    release: String,
    host: String,
    sysroot: PathBuf,
}

/// Builds the object and returns its place; does nothing when it is current.
///
/// # Errors
/// When the standard library's source or bpf-linker cannot be had, or the programs do not compile.
pub fn build(root: &Path, tools: &Path) -> Result<PathBuf> {
    let rustc = Rustc::read(root)?;
    let library = library_source(&rustc, root, tools).context("the source of Rust's core library")?;
    let linker = bpf_linker(tools).context("bpf-linker")?;
    let target_dir = root.join("target/ebpf");
    compile(root, &target_dir, &library, &linker)?;

    let built = target_dir.join(TARGET).join("release/xebec-ebpf");
    let inputs = std::env::var_os("XEBEC_BUILD_INPUTS")
        .map_or_else(|| root.join("target/build-inputs"), PathBuf::from);
    fs::create_dir_all(&inputs)?;
    let object = inputs.join(OBJECT);
    install(&rustc, &built, &object)?;
    Ok(object)
}

impl Rustc {
    fn read(root: &Path) -> Result<Self> {
        let version = output(Command::new("rustc").arg("-vV").current_dir(root))?;
        let field = |name: &str| {
            let line = version.lines().find_map(|line| line.strip_prefix(name));
            line.map(|value| value.trim().to_owned()).with_context(|| format!("rustc -vV has no `{name}`"))
        };
        let sysroot = output(Command::new("rustc").args(["--print", "sysroot"]).current_dir(root))?;
        Ok(Self { release: field("release:")?, host: field("host:")?, sysroot: sysroot.trim().into() })
    }
}

/// The folder `library` of Rust's source, of exactly the version of the compiler.
fn library_source(rustc: &Rustc, root: &Path, tools: &Path) -> Result<PathBuf> {
    let component = rustc.sysroot.join("lib/rustlib/src/rust/library");
    let unpacked = tools.join(format!("rust-src-{}", rustc.release));
    let package = unpacked.join("library");
    for candidate in [&component, &package] {
        if candidate.join("core/Cargo.toml").is_file() {
            return Ok(candidate.clone());
        }
    }
    // A toolchain that rustup does not manage, or no network: the package below serves.
    let rustup = output(
        Command::new("timeout")
            .args([RUSTUP_TIMEOUT, "rustup", "component", "add", "rust-src"])
            .current_dir(root),
    );
    if component.join("core/Cargo.toml").is_file() {
        return Ok(component);
    }
    let no_rustup = rustup.err().map_or_else(|| "it added none".to_owned(), |error| error.to_string());
    unpack_debian(&rustc.release, &unpacked, tools).with_context(|| {
        format!("`rustup component add rust-src` did not serve either ({})", no_rustup.replace('\n', " "))
    })?;
    Ok(package)
}

/// Unpacks `library` of Debian's rust-src into `to`.
fn unpack_debian(release: &str, to: &Path, tools: &Path) -> Result<()> {
    let state = tools.join("apt-rust-src");
    for folder in ["lists/partial", "archives/partial"] {
        fs::create_dir_all(state.join(folder))?;
    }
    fs::write(
        state.join("debian.sources"),
        format!(
            "Types: deb\nURIs: http://deb.debian.org/debian\nSuites: {DEBIAN_SUITES}\nComponents: main\n\
             Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n"
        ),
    )?;
    fs::write(state.join("status"), "")?;
    output(private_apt("apt-get", &state).args(["-qq", "update"]))
        .context("fetching Debian's package lists")?;
    let known = output(private_apt("apt-cache", &state).args(["madison", "rust-src"]))?;
    let version = package_version(&known, release).with_context(|| {
        format!("Debian ({DEBIAN_SUITES}) has no rust-src {release}: use a Rust version it has")
    })?;
    output(
        private_apt("apt-get", &state)
            .args(["-qq", "download", &format!("rust-src={version}")])
            .current_dir(state.join("archives")),
    )
    .context("fetching Debian's rust-src")?;
    let deb = fs::read_dir(state.join("archives"))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|e| e == "deb"))
        .context("apt fetched no package")?;
    extract_library(&deb, to).with_context(|| format!("unpacking {}", deb.display()))?;
    fs::remove_dir_all(&state)?;
    Ok(())
}

/// A Debian version `release+…` out of what `apt-cache madison` prints.
fn package_version(madison: &str, release: &str) -> Option<String> {
    madison
        .lines()
        .filter_map(|line| line.split('|').nth(1))
        .map(str::trim)
        .find(|version| version.split(['+', '-']).next() == Some(release))
        .map(str::to_owned)
}

fn extract_library(deb: &Path, to: &Path) -> Result<()> {
    let part = to.with_extension("part");
    if part.exists() {
        fs::remove_dir_all(&part)?;
    }
    let mut dpkg = Command::new("dpkg-deb").arg("--fsys-tarfile").arg(deb).stdout(Stdio::piped()).spawn()?;
    let tar = dpkg.stdout.take().context("dpkg-deb's output is piped")?;
    let mut archive = tar::Archive::new(tar);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        // ./usr/src/rustc-<version>/library/…
        let mut inside = path.iter().skip_while(|part| !part.to_string_lossy().starts_with("rustc-")).skip(1);
        if inside.next().is_none_or(|top| top != "library") {
            continue;
        }
        let target = part.join("library").join(inside.collect::<PathBuf>());
        if let Some(folder) = target.parent() {
            fs::create_dir_all(folder)?;
        }
        entry.unpack(&target)?;
    }
    if !dpkg.wait()?.success() {
        bail!("dpkg-deb failed");
    }
    // In one step, so that a folder with this name is always whole.
    fs::rename(&part, to)?;
    Ok(())
}

/// apt with lists, state and archives of its own.
fn private_apt(program: &str, state: &Path) -> Command {
    let mut apt = Command::new(program);
    apt.env("LC_ALL", "C");
    for (key, value) in [
        ("Dir::Etc::sourcelist", state.join("debian.sources").into_os_string()),
        ("Dir::Etc::sourceparts", "/dev/null".into()),
        ("Dir::State::lists", state.join("lists").into_os_string()),
        ("Dir::State::status", state.join("status").into_os_string()),
        ("Dir::Cache", state.as_os_str().to_owned()),
        // The lists are root's: the unprivileged download user could not read them.
        ("APT::Sandbox::User", "root".into()),
        ("Acquire::Retries", "3".into()),
        ("Acquire::http::Timeout", "30".into()),
    ] {
        let mut option = OsString::from(format!("{key}="));
        option.push(value);
        apt.arg("-o").arg(option);
    }
    apt
}

/// The linker in the tools folder, built once.
fn bpf_linker(tools: &Path) -> Result<PathBuf> {
    let linker = tools.join("bin/bpf-linker");
    let current = output(Command::new(&linker).arg("--version"))
        .is_ok_and(|version| version.split_whitespace().any(|word| word == BPF_LINKER));
    if !current {
        let mut install = cargo();
        install
            .args(["install", "--quiet", "--locked", "--force", "--version", BPF_LINKER, "--root"])
            .arg(tools)
            .arg("bpf-linker")
            // Its own temporary folder: nothing of it is wanted in the workspace's.
            .env_remove("CARGO_TARGET_DIR");
        output(&mut install)?;
    }
    Ok(linker)
}

fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // Set by the cargo that runs this program, and not meant for another build.
    for name in ["RUSTC", "RUSTC_WORKSPACE_WRAPPER", "RUSTFLAGS"] {
        cargo.env_remove(name);
    }
    cargo
}

/// Stable Rust with the one unstable feature that targets without a shipped core library need.
fn compile(root: &Path, target_dir: &Path, library: &Path, linker: &Path) -> Result<()> {
    let flags = [
        format!("--cfg=bpf_target_arch=\"{}\"", std::env::consts::ARCH),
        "-Cdebuginfo=2".to_owned(),
        "-Clink-arg=--btf".to_owned(),
        // Folders of the machine that builds it have no business in the object.
        format!("--remap-path-prefix={}=xebec", root.display()),
        format!("-Clinker={}", linker.display()),
    ];
    let mut build = cargo();
    build
        .current_dir(root)
        .args(["build", "--release", "--package", "xebec-ebpf", "-Z", "build-std=core", "--target", TARGET])
        .arg("--target-dir")
        .arg(target_dir)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("__CARGO_TESTS_ONLY_SRC_ROOT", library)
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"));
    output(&mut build).map(drop).context("compiling the eBPF programs")
}

/// Copies the object without its DWARF, which is three quarters of it; type information and line numbers for the verifier
/// are in sections of their own. A current copy is left alone, so that nothing is built again for it.
fn install(rustc: &Rustc, built: &Path, object: &Path) -> Result<()> {
    let stripped = built.with_extension("stripped");
    let objcopy = rustc.sysroot.join("lib/rustlib").join(&rustc.host).join("bin/rust-objcopy");
    let done = output(
        Command::new(&objcopy)
            .arg("--strip-debug")
            .arg(built)
            .arg(&stripped)
            .env("LD_LIBRARY_PATH", rustc.sysroot.join("lib")),
    );
    let from = if done.is_ok() { stripped.as_path() } else { built };
    let bytes = fs::read(from)?;
    if fs::read(object).is_ok_and(|current| current == bytes) {
        return Ok(());
    }
    let part = object.with_extension("part");
    fs::write(&part, bytes)?;
    fs::rename(part, object)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::package_version;

    #[test]
    fn only_a_package_of_exactly_the_compilers_version_is_taken() {
        let madison = " rust-src | 1.96.1+dfsg1-2~bpo13+1 | http://deb.debian.org/debian trixie-backports/main\n \
                       rust-src | 1.95.0+dfsg1-2~bpo13+1 | http://deb.debian.org/debian trixie-backports/main\n";
        assert_eq!(package_version(madison, "1.95.0").as_deref(), Some("1.95.0+dfsg1-2~bpo13+1"));
        assert_eq!(package_version(madison, "1.9"), None);
        assert_eq!(package_version(madison, "1.97.0"), None);
    }
}
