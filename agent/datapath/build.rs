//! Embeds the eBPF object that `cargo xtask ebpf` built.
//!
//! In: `xebec-ebpf.o` in `$XEBEC_BUILD_INPUTS`, by default `target/build-inputs` of the workspace. Out: a copy in
//! `OUT_DIR`, empty with a warning where there is none, so that everything that does not load it can be built without it.

use std::path::PathBuf;
use std::{env, fs};

const OBJECT: &str = "xebec-ebpf.o";

fn main() {
    println!("cargo::rerun-if-env-changed=XEBEC_BUILD_INPUTS");
    let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let inputs = env::var_os("XEBEC_BUILD_INPUTS")
        .map_or_else(|| manifest.join("../../target/build-inputs"), PathBuf::from);
    let object = inputs.join(OBJECT);
    println!("cargo::rerun-if-changed={}", object.display());

    let bytes = fs::read(&object).unwrap_or_else(|error| {
        println!("cargo::warning={}: {error}; the datapath of this build cannot be opened", object.display());
        Vec::new()
    });
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it")).join(OBJECT);
    fs::write(&out, bytes).expect("cargo's output folder can be written to");
}
