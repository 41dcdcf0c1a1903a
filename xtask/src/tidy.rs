//! `cargo xtask tidy`: the invariants of the tree that a compiler does not check.
//!
//! In: cargo's metadata and the files git tracks. Out: one line per violation, or nothing. The checks are pure functions
//! over [`Tree`], so that their tests can plant a violation.

mod edges;
mod sources;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::command::output;
use crate::layout::Workspace;

/// What the checks look at.
#[derive(Debug, Default)]
pub struct Tree {
    /// Direct dependencies of each workspace package, dev-dependencies aside.
    pub dependencies: BTreeMap<String, Vec<String>>,
    /// Text files by path relative to the root.
    pub files: BTreeMap<PathBuf, String>,
}

/// Runs every check.
///
/// # Errors
/// When the tree breaks a rule; the message lists all breaches.
pub fn tidy(workspace: &Workspace) -> Result<()> {
    let tree = read(workspace)?;
    let mut breaches = edges::check(&tree);
    breaches.extend(sources::check(&tree));
    if breaches.is_empty() {
        return Ok(());
    }
    bail!(
        "{} breaches of the tree's rules (see ARCHITECTURE.md):\n  {}",
        breaches.len(),
        breaches.join("\n  ")
    )
}

fn read(workspace: &Workspace) -> Result<Tree> {
    let mut metadata = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    metadata.current_dir(&workspace.root).args(["metadata", "--format-version=1", "--no-deps", "--locked"]);
    let metadata: Value = serde_json::from_str(&output(&mut metadata)?)?;
    let mut tree = Tree::default();
    for package in metadata["packages"].as_array().context("cargo metadata lists packages")? {
        let name = package["name"].as_str().unwrap_or_default().to_owned();
        let dependencies = package["dependencies"].as_array().into_iter().flatten();
        let direct =
            dependencies.filter(|d| d["kind"] != "dev").filter_map(|d| d["name"].as_str()).map(str::to_owned);
        tree.dependencies.insert(name, direct.collect());
    }
    let mut list = Command::new("git");
    list.current_dir(&workspace.root).args(["ls-files", "--cached", "--others", "--exclude-standard"]);
    for path in output(&mut list)?.lines().map(PathBuf::from) {
        // Files deleted but not yet committed, and binary files, have no text to check.
        if let Ok(text) = fs::read_to_string(workspace.root.join(&path)) {
            tree.files.insert(path, text);
        }
    }
    Ok(tree)
}
