//! Embeds the published API schema.
//!
//! In: `schema.json.gz` among the build inputs, which xtask fetches and converts. Out: the same file in `OUT_DIR`, or
//! an empty one with a warning, so that the crate builds without it and says so when the schema is asked for.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-env-changed=XEBEC_BUILD_INPUTS");
    let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    let inputs = env::var_os("XEBEC_BUILD_INPUTS")
        .map_or_else(|| manifest.join("../../target/build-inputs"), PathBuf::from);
    let source = inputs.join("schema.json.gz");
    println!("cargo::rerun-if-changed={}", source.display());
    let target = Path::new(&env::var_os("OUT_DIR").unwrap_or_default()).join("schema.json.gz");
    match fs::read(&source) {
        Ok(bytes) => fs::write(target, bytes),
        Err(error) => {
            println!("cargo::warning=no API schema at {} ({error}): run `cargo xtask up`", source.display());
            fs::write(target, [])
        }
    }
}
