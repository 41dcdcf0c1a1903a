//! A static busybox for test images.
//!
//! In: the images that `XEBEC_IMAGES` holds as an OCI layout, `XEBEC_TOOLS`, or PATH. Out: the program's bytes.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result};
use bytes::Bytes;
use flate2::read::GzDecoder;
use serde_json::Value;

use crate::containerd::find;

/// Path of the program inside its image.
const PROGRAM: &str = "bin/busybox";
const IMAGE: &str = "docker.io/library/busybox:latest";

/// The program; `None` when it is nowhere.
#[must_use]
pub fn bytes() -> Option<Bytes> {
    // An installed one may need libraries.
    let imaged = std::env::var_os("XEBEC_IMAGES").and_then(|layout| of_layout(Path::new(&layout)).ok());
    let installed = || find("busybox").and_then(|path| fs::read(path).ok());
    imaged.or_else(installed).map(Bytes::from)
}

fn of_layout(layout: &Path) -> Result<Vec<u8>> {
    let json = |path: &Path| -> Result<Value> { Ok(serde_json::from_slice(&fs::read(path)?)?) };
    let blob = |digest: &Value| -> Result<_> {
        let (algorithm, hex) =
            digest.as_str().and_then(|digest| digest.split_once(':')).context("a digest")?;
        Ok(layout.join("blobs").join(algorithm).join(hex))
    };
    let index = json(&layout.join("index.json"))?;
    let named = |entry: &&Value| entry["annotations"]["org.opencontainers.image.ref.name"] == IMAGE;
    let manifest = index["manifests"].as_array().and_then(|all| all.iter().find(named)).context(IMAGE)?;
    let manifest = json(&blob(&manifest["digest"])?)?;
    let layer = File::open(blob(&manifest["layers"][0]["digest"])?)?;
    let mut tar = tar::Archive::new(GzDecoder::new(layer));
    for entry in tar.entries()? {
        let mut entry = entry?;
        // Entries may be named `./bin/busybox`.
        if entry.path()?.ends_with(PROGRAM) && entry.size() > 0 {
            let mut program = Vec::new();
            entry.read_to_end(&mut program)?;
            return Ok(program);
        }
    }
    anyhow::bail!("{IMAGE} has no {PROGRAM}")
}
