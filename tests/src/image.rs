//! Images for tests: busybox in one layer, a few files in another.
//!
//! In: a static busybox. Out: the blobs and documents that a registry serves, all in memory.

use std::collections::BTreeMap;
use std::io::Write;

use anyhow::Result;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// Names under which busybox is found in the image.
const APPLETS: [&str; 26] = [
    "sh", "sleep", "cat", "echo", "id", "dd", "seq", "yes", "true", "false", "kill", "ls", "mkdir", "head",
    "tail", "printf", "hostname", "env", "grep", "awk", "stat", "sync", "tr", "wc", "touch", "mount",
];

/// An image as a registry holds it.
#[derive(Clone, Debug)]
pub struct TestImage {
    /// Everything that is fetched by digest, the manifest included.
    pub blobs: BTreeMap<String, Bytes>,
    /// Digests of the layers, lowest first.
    pub layers: Vec<String>,
    pub config: String,
    pub manifest: String,
    /// What the tag leads to: the index, or the manifest of an image without one.
    pub target: String,
}

/// How a layer is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    Plain,
    Gzip,
    Zstd,
}

/// What is special about an image.
#[derive(Clone, Debug)]
pub struct Recipe {
    pub user: String,
    pub env: Vec<String>,
    pub entrypoint: Vec<String>,
    pub cmd: Vec<String>,
    pub working_dir: String,
    /// Put an index with other platforms in front.
    pub index: bool,
    pub packing: Packing,
    /// Bytes that do not compress, in a layer of their own.
    pub ballast: usize,
    /// Two layers, the upper of which removes `/data/gone` and all that the lower has in `/opaque`.
    pub whiteouts: bool,
    /// The configuration names another digest for the unpacked last layer.
    pub wrong_diff_id: bool,
    /// Architecture in the index and the configuration.
    pub architecture: String,
}

impl Default for Recipe {
    fn default() -> Self {
        Self {
            user: String::new(),
            env: Vec::new(),
            entrypoint: Vec::new(),
            cmd: vec!["sh".into()],
            working_dir: String::new(),
            index: true,
            packing: Packing::Gzip,
            ballast: 0,
            whiteouts: false,
            wrong_diff_id: false,
            architecture: "amd64".into(),
        }
    }
}

/// `sha256:…` of some bytes.
#[must_use]
pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

impl TestImage {
    /// Builds an image around a static busybox.
    ///
    /// # Errors
    /// Never in practice: everything is in memory.
    pub fn build(busybox: &[u8], recipe: &Recipe) -> Result<Self> {
        let mut image = Self {
            blobs: BTreeMap::new(),
            layers: Vec::new(),
            config: String::new(),
            manifest: String::new(),
            target: String::new(),
        };
        let mut tars = vec![base_layer(busybox)?, etc_layer()?];
        if recipe.ballast > 0 {
            tars.push(ballast_layer(recipe.ballast)?);
        }
        if recipe.whiteouts {
            tars.extend(whiteout_layers()?);
        }
        let mut descriptors = Vec::new();
        for tar in &tars {
            let (bytes, media_type) = match recipe.packing {
                Packing::Plain => (tar.clone(), LAYER.to_owned()),
                Packing::Gzip => (gzip(tar)?, format!("{LAYER}+gzip")),
                Packing::Zstd => (zstd(tar)?, format!("{LAYER}+zstd")),
            };
            let size = bytes.len();
            let layer = image.put(bytes);
            descriptors.push(json!({"mediaType": media_type, "digest": layer, "size": size}));
            image.layers.push(layer);
        }
        let mut diff_ids: Vec<String> = tars.iter().map(|tar| digest(tar)).collect();
        if let Some(last) = diff_ids.last_mut().filter(|_| recipe.wrong_diff_id) {
            *last = digest(b"something else");
        }
        let config = json!({
            "architecture": recipe.architecture, "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
            "config": {
                "User": recipe.user, "Env": recipe.env, "Entrypoint": recipe.entrypoint, "Cmd": recipe.cmd,
                "WorkingDir": recipe.working_dir,
                // A runtime that copied labels to its records would start a program of the image's choice.
                "Labels": {"containerd.io/restart.logpath": "binary:///bin/false"},
            },
        });
        let config = config.to_string().into_bytes();
        let config_size = config.len();
        image.config = image.put(config);
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": {"mediaType": CONFIG, "digest": image.config, "size": config_size},
            "layers": descriptors,
        });
        let manifest = manifest.to_string().into_bytes();
        let manifest_size = manifest.len();
        image.manifest = image.put(manifest);
        image.target = image.manifest.clone();
        if recipe.index {
            let index = index(&image.manifest, manifest_size, &recipe.architecture);
            image.target = image.put(index.to_string().into_bytes());
        }
        Ok(image)
    }

    fn put(&mut self, bytes: Vec<u8>) -> String {
        let digest = digest(&bytes);
        self.blobs.insert(digest.clone(), bytes.into());
        digest
    }
}

/// The media type that a document names.
#[must_use]
pub fn media_type(document: &[u8]) -> Option<String> {
    let document: Value = serde_json::from_slice(document).ok()?;
    Some(document["mediaType"].as_str()?.to_owned())
}

fn index(manifest: &str, size: usize, own: &str) -> Value {
    let entry = |digest: &str, size: usize, os: &str, architecture: &str| {
        json!({"mediaType": MANIFEST, "digest": digest, "size": size,
            "platform": {"os": os, "architecture": architecture}})
    };
    let absent = digest(b"absent");
    json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [
        entry(&absent, 7, "unknown", "unknown"),
        entry(&absent, 7, "linux", "s390x"),
        entry(manifest, size, "linux", own),
    ]})
}

fn base_layer(busybox: &[u8]) -> Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    for folder in ["bin/", "tmp/", "data/", "proc/", "sys/", "dev/"] {
        entry(&mut tar, folder, tar::EntryType::Directory, 0o755, b"")?;
    }
    entry(&mut tar, "bin/busybox", tar::EntryType::Regular, 0o755, busybox)?;
    for applet in APPLETS {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        header.set_mode(0o777);
        tar.append_link(&mut header, format!("bin/{applet}"), "busybox")?;
    }
    Ok(tar.into_inner()?)
}

fn etc_layer() -> Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    entry(&mut tar, "etc/", tar::EntryType::Directory, 0o755, b"")?;
    let passwd = b"root:x:0:0:root:/root:/bin/sh\nwww:x:33:44::/:/bin/false\n";
    entry(&mut tar, "etc/passwd", tar::EntryType::Regular, 0o644, passwd)?;
    let group = b"root:x:0:\nadm:x:4:www\nweb:x:44:\n";
    entry(&mut tar, "etc/group", tar::EntryType::Regular, 0o644, group)?;
    Ok(tar.into_inner()?)
}

fn ballast_layer(size: usize) -> Result<Vec<u8>> {
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    })
    .take(size)
    .collect();
    let mut tar = tar::Builder::new(Vec::new());
    entry(&mut tar, "ballast", tar::EntryType::Regular, 0o644, &noise)?;
    Ok(tar.into_inner()?)
}

fn whiteout_layers() -> Result<[Vec<u8>; 2]> {
    let layer = |files: &[&str]| {
        let mut tar = tar::Builder::new(Vec::new());
        entry(&mut tar, "data/", tar::EntryType::Directory, 0o755, b"")?;
        entry(&mut tar, "opaque/", tar::EntryType::Directory, 0o755, b"")?;
        for file in files {
            entry(&mut tar, file, tar::EntryType::Regular, 0o644, b"")?;
        }
        anyhow::Ok(tar.into_inner()?)
    };
    Ok([
        layer(&["data/gone", "data/kept", "opaque/old"])?,
        layer(&["data/.wh.gone", "opaque/.wh..wh..opq", "opaque/new"])?,
    ])
}

fn entry(
    tar: &mut tar::Builder<Vec<u8>>,
    path: &str,
    kind: tar::EntryType,
    mode: u32,
    content: &[u8],
) -> Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(content.len() as u64);
    header.set_mtime(1_700_000_000);
    tar.append_data(&mut header, path, content)?;
    Ok(())
}

fn gzip(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes)?;
    Ok(encoder.finish()?)
}

/// A zstd frame of raw blocks: well-formed, though nothing is compressed.
fn zstd(bytes: &[u8]) -> Result<Vec<u8>> {
    const BLOCK: usize = 128 << 10;
    // Magic number; one segment, its length in four bytes.
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0xa0];
    frame.extend(u32::try_from(bytes.len())?.to_le_bytes());
    let blocks = bytes.len().div_ceil(BLOCK);
    for (index, block) in bytes.chunks(BLOCK).enumerate() {
        let last = u32::from(index + 1 == blocks);
        let header = u32::try_from(block.len())? << 3 | last;
        frame.extend(&header.to_le_bytes()[..3]);
        frame.extend(block);
    }
    Ok(frame)
}
