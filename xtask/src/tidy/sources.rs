//! Rules about files: sizes, headers, safety notes, words that must not stay.
//!
//! In: the tracked text files. Out: one line per breach with its place.

use std::path::Path;

use sha2::{Digest, Sha256};

use super::Tree;

/// Where the agent starts itself: the log sink of a container whose streams containerd's shim cannot hand to one.
const OWN_PROGRAM: &[&str] = &["agent/runtime/src/container/io.rs"];
/// Production lines (up to a trailing `#[cfg(test)]` module) a file may have.
const MAX_LINES: usize = 600;
/// Names that are drawers rather than concepts. `ebpf/common` is the ABI crate.
const DRAWERS: &[&str] = &["utils", "util", "helpers", "helper", "common", "misc"];
/// The hash of the ABI crate's sources, beside the version it belongs to.
const ABI_LOCK: &str = "ebpf/common/abi.lock";
/// What the product never names: programs it must not run.
const PRODUCT: &[&str] = &["api/", "ebpf/", "agent/", "control/"];

pub fn check(tree: &Tree) -> Vec<String> {
    let mut breaches = Vec::new();
    for (path, text) in &tree.files {
        if path.extension().is_some_and(|e| e == "rs") {
            check_rust(path, text, &mut breaches);
        }
    }
    check_abi(tree, &mut breaches);
    check_documents(tree, &mut breaches);
    breaches
}

fn check_rust(path: &Path, text: &str, breaches: &mut Vec<String>) {
    let shown = path.display();
    let production = production_part(path, text);
    let lines = production.lines().count();
    if lines > MAX_LINES {
        breaches.push(format!("{shown}: {lines} lines, {MAX_LINES} at most: split it by concept"));
    }
    if !text.trim_start().starts_with("//!") {
        breaches
            .push(format!("{shown}: begins without `//!` (what it is for, what comes in, what goes out)"));
    }
    let stem = path.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
    if DRAWERS.contains(&stem.as_str()) {
        breaches.push(format!("{shown}: a drawer, not a concept: name what is in it"));
    }
    if stem == "mod" {
        breaches.push(format!("{shown}: modules are `name.rs` beside `name/`"));
    }
    for (number, line) in text.lines().enumerate() {
        let at = format!("{shown}:{}", number + 1);
        if line.contains(concat!("#[ig", "nore")) {
            breaches.push(format!("{at}: an ignored test proves nothing: let it print `skipped: why`"));
        }
        if line.contains(concat!("to", "do!(")) || line.contains(concat!("unimple", "mented!(")) {
            breaches.push(format!("{at}: left unwritten"));
        }
    }
    check_production(path, production, breaches);
}

fn check_production(path: &Path, production: &str, breaches: &mut Vec<String>) {
    let shown = path.display();
    let of_product =
        PRODUCT.iter().any(|top| path.starts_with(top)) && path.iter().all(|part| part != "tests");
    let lines: Vec<&str> = production.lines().collect();
    for (index, line) in lines.iter().enumerate() {
        let code = line.split("//").next().unwrap_or_default();
        let opens_unsafe = code.contains(concat!("unsafe", " {"))
            || code.trim_start().starts_with(concat!("unsafe", " impl"));
        if opens_unsafe && !lines[index.saturating_sub(6)..index].iter().any(|l| l.contains("SAFETY:")) {
            breaches.push(format!("{shown}:{}: unsafe without its SAFETY line", index + 1));
        }
        // `build.rs` runs on the builder's machine, not on a node.
        if of_product
            && code.contains("Command::new(")
            && path.file_name().is_some_and(|n| n != "build.rs")
            && !code.contains("clap")
            && !OWN_PROGRAM.iter().any(|own| path == Path::new(own))
        {
            breaches.push(format!("{shown}:{}: the product executes no program", index + 1));
        }
    }
}

/// The text up to a trailing test module; whole files below `tests` are tests.
fn production_part<'a>(path: &Path, text: &'a str) -> &'a str {
    if path.iter().any(|part| part == "tests") || path.file_stem().is_some_and(|s| s == "tests") {
        return "";
    }
    text.split("\n#[cfg(test)]\nmod ").next().unwrap_or(text)
}

/// The ABI may not change without its version.
fn check_abi(tree: &Tree, breaches: &mut Vec<String>) {
    let sources: Vec<_> = tree.files.iter().filter(|(p, _)| p.starts_with("ebpf/common/src")).collect();
    let Some(version) = sources.iter().find_map(|(_, text)| abi_version(text)) else { return };
    let hash = abi_hash(sources.iter().map(|(p, t)| (p.as_path(), t.as_str())));
    let wanted = format!("{version} {hash}");
    let kept = tree.files.get(Path::new(ABI_LOCK)).map(|l| l.trim().to_owned()).unwrap_or_default();
    if kept != wanted {
        let kept_version = kept.split(' ').next().unwrap_or_default();
        let advice =
            if kept_version == version { "raise ABI_VERSION if a layout changed, then " } else { "" };
        breaches.push(format!("{ABI_LOCK}: {advice}write `{wanted}` into it"));
    }
}

fn abi_version(text: &str) -> Option<String> {
    let (_, rest) = text.split_once("ABI_VERSION: u32 = ")?;
    Some(rest.split(';').next()?.trim().to_owned())
}

/// Of the code alone: comments and blank lines may change freely.
fn abi_hash<'a>(sources: impl Iterator<Item = (&'a Path, &'a str)>) -> String {
    let mut hash = Sha256::new();
    for (path, text) in sources {
        hash.update(path.to_string_lossy().as_bytes());
        for line in text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with("//")) {
            hash.update(line.as_bytes());
        }
    }
    hex::encode(&hash.finalize()[..8])
}

/// Every package has its line in the maps that a newcomer reads.
fn check_documents(tree: &Tree, breaches: &mut Vec<String>) {
    for document in ["README.md", "ARCHITECTURE.md"] {
        let Some(text) = tree.files.get(Path::new(document)) else {
            breaches.push(format!("{document} is missing"));
            continue;
        };
        for manifest in tree.files.keys().filter(|p| p.file_name().is_some_and(|n| n == "Cargo.toml")) {
            let Some(folder) = manifest.parent().filter(|p| !p.as_os_str().is_empty()) else { continue };
            let name = folder.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            if !text.contains(&format!("{name}/")) {
                breaches.push(format!("{document} does not mention {}/", folder.display()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn breaches(path: &str, text: &str) -> Vec<String> {
        let mut found = Vec::new();
        check_rust(Path::new(path), text, &mut found);
        found
    }

    #[test]
    fn a_good_file_passes() {
        assert!(breaches("agent/src/a.rs", "//! What it is for.\nfn a() {}\n").is_empty());
    }

    #[test]
    fn planted_breaches_are_found() {
        assert_eq!(breaches("agent/src/a.rs", "fn a() {}\n").len(), 1, "no header");
        assert_eq!(breaches("agent/src/utils.rs", "//! x\n").len(), 1, "a drawer");
        assert_eq!(breaches("agent/src/a/mod.rs", "//! x\n").len(), 1, "mod.rs");
        assert_eq!(breaches("agent/src/a.rs", "//! x\nlet a = unsafe { f() };\n").len(), 1, "no SAFETY");
        assert_eq!(breaches("agent/src/a.rs", "//! x\nCommand::new(\"ip\");\n").len(), 1, "executes");
        assert_eq!(
            breaches("agent/src/a.rs", &format!("//! x\n{}", "a();\n".repeat(MAX_LINES))).len(),
            1,
            "too long"
        );
        assert_eq!(breaches("agent/src/a.rs", concat!("//! x\n#[ig", "nore]\n")).len(), 1, "ignored test");
    }

    #[test]
    fn an_abi_change_without_its_lock_is_found() {
        let source = "//! x\npub const ABI_VERSION: u32 = 3;\npub struct Key(u32);\n";
        let mut tree = Tree::default();
        tree.files.insert(PathBuf::from("ebpf/common/src/lib.rs"), source.to_owned());
        let mut found = Vec::new();
        check_abi(&tree, &mut found);
        let lock = found[0].split('`').nth(1).unwrap().to_owned();
        tree.files.insert(PathBuf::from(ABI_LOCK), lock);
        found.clear();
        check_abi(&tree, &mut found);
        assert!(found.is_empty());
        tree.files.insert(PathBuf::from("ebpf/common/src/lib.rs"), source.replace("u32)", "u64)"));
        check_abi(&tree, &mut found);
        assert_eq!(found.len(), 1);
    }
}
