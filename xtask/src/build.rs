//! Set-up that building needs, and the build of the two programs.
//!
//! In: the workspace. Out: build inputs (API schema, eBPF object) below `target/build-inputs`, binaries in cargo's
//! target folder.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::command::{inherit, output};
use crate::layout::Workspace;
use crate::progress::Note;
use crate::tools::Tools;
use crate::{ebpf, schema};

/// Makes what the crates' build scripts embed; done once.
///
/// # Errors
/// When the definitions cannot be fetched.
pub fn api_schema(workspace: &Workspace, tools: &Tools) -> Result<()> {
    let path = workspace.build_inputs().join("schema.json.gz");
    let stamp = workspace.build_inputs().join("schema.converter");
    let converter = include_str!("schema.rs");
    if path.exists() && fs::read_to_string(&stamp).is_ok_and(|made_by| made_by == converter) {
        return Ok(());
    }
    fs::create_dir_all(workspace.build_inputs())?;
    let converted =
        schema::convert(&tools.api_definitions()?).context("converting the published API definitions")?;
    let part = path.with_extension("part");
    fs::write(&part, converted)?;
    fs::rename(part, path)?;
    fs::write(stamp, converter)?;
    Ok(())
}

/// Builds the eBPF object.
///
/// # Errors
/// When rust-src or bpf-linker cannot be had, or the programs do not compile.
pub fn ebpf_object(workspace: &Workspace) -> Result<PathBuf> {
    ebpf::build(&workspace.root, &workspace.tools())
}

/// A cargo command with the environment that building the workspace needs.
///
/// # Errors
/// When protoc cannot be had.
pub fn cargo(workspace: &Workspace, tools: &Tools) -> Result<Command> {
    let protoc = tools.protoc()?;
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .current_dir(&workspace.root)
        .env("PROTOC", &protoc.path)
        .env("XEBEC_BUILD_INPUTS", workspace.build_inputs());
    if let Some(libraries) = &protoc.libraries {
        cargo.env("LD_LIBRARY_PATH", libraries);
        // Debian's protoc looks for its own .proto files beside its binary only when installed.
        if let Some(usr) = protoc.path.parent().and_then(std::path::Path::parent) {
            cargo.env("PROTOC_INCLUDE", usr.join("include"));
        }
    }
    Ok(cargo)
}

/// Builds agent and control and names their folder.
///
/// # Errors
/// When the build fails; cargo's messages are on the terminal.
pub fn programs(workspace: &Workspace, tools: &Tools, release: bool, note: &Note) -> Result<PathBuf> {
    let mut build = cargo(workspace, tools)?;
    // One selection for `up` and `test`: cargo would build dependencies twice for two sets of features.
    build.args(["build", "--workspace", "--exclude", "xebec-ebpf", "--bins"]);
    if release {
        build.arg("--release");
    }
    note.suspend(|| inherit(&mut build)).context("building xebec-agent and xebec-control")?;
    Ok(workspace.target().join(if release { "release" } else { "debug" }))
}

/// Builds these programs with optimisation and names their folder. Only these: each is linked for a minute.
///
/// # Errors
/// When the build fails; cargo's messages are on the terminal.
pub fn release(workspace: &Workspace, tools: &Tools, names: &[&str], note: &Note) -> Result<PathBuf> {
    let mut build = cargo(workspace, tools)?;
    build.args(["build", "--release", "--workspace", "--exclude", "xebec-ebpf"]);
    build.args(names.iter().flat_map(|name| ["--bin", name]));
    note.suspend(|| inherit(&mut build)).with_context(|| format!("building {}", names.join(", ")))?;
    Ok(workspace.target().join("release"))
}

/// Short form of the running kernel's version: `(6, 18)`.
///
/// # Errors
/// When `uname` is not to be had.
pub fn kernel() -> Result<(u32, u32)> {
    let release = output(Command::new("uname").arg("-r"))?;
    let mut parts = release.split(['.', '-']).map(str::parse::<u32>);
    match (parts.next(), parts.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => Ok((major, minor)),
        _ => anyhow::bail!("cannot read the kernel's version from {release:?}"),
    }
}
