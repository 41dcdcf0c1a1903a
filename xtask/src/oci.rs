//! Writing container images as one OCI image layout.
//!
//! In: root file systems on disk and image configurations. Out: blobs named by digest and an `index.json` whose
//! entries carry full references. Same input, same bytes: times are zero and names sorted.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// Annotation that names an image of the layout: its full reference.
pub const REFERENCE: &str = "org.opencontainers.image.ref.name";

/// A layout folder being written.
pub struct Layout {
    dir: PathBuf,
    manifests: Vec<Value>,
}

/// A layer in the layout.
#[derive(Clone, Debug)]
pub struct Layer {
    digest: String,
    diff_id: String,
    size: u64,
}

/// How containers of an image start.
#[derive(Clone, Debug, Default)]
pub struct ImageConfig {
    pub entrypoint: Vec<String>,
    pub cmd: Vec<String>,
    pub env: Vec<String>,
    pub working_dir: String,
    pub stop_signal: Option<&'static str>,
}

// === impl Layout ===

impl Layout {
    pub fn create(dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir.join("blobs/sha256"))?;
        fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
        Ok(Self { dir: dir.to_path_buf(), manifests: Vec::new() })
    }

    /// Packs a folder into a gzip layer.
    pub fn layer(&self, root: &Path) -> Result<Layer> {
        let tar = tar_of(root)?;
        let diff_id = digest(&tar);
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(&tar)?;
        let blob = gzip.finish()?;
        Ok(Layer { digest: self.blob(&blob)?, diff_id, size: blob.len() as u64 })
    }

    /// Adds an image under each of its references.
    pub fn image(&mut self, references: &[&str], layers: &[Layer], config: &ImageConfig) -> Result<()> {
        let mut run = json!({ "Env": config.env, "WorkingDir": config.working_dir });
        if !config.entrypoint.is_empty() {
            run["Entrypoint"] = json!(config.entrypoint);
        }
        if !config.cmd.is_empty() {
            run["Cmd"] = json!(config.cmd);
        }
        if let Some(signal) = config.stop_signal {
            run["StopSignal"] = json!(signal);
        }
        let config = serde_json::to_vec(&json!({
            "architecture": architecture(),
            "os": "linux",
            "config": run,
            "rootfs": { "type": "layers", "diff_ids": layers.iter().map(|l| &l.diff_id).collect::<Vec<_>>() },
        }))?;
        let manifest = serde_json::to_vec(&json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": { "mediaType": CONFIG, "digest": self.blob(&config)?, "size": config.len() },
            "layers": layers.iter()
                .map(|l| json!({ "mediaType": LAYER, "digest": l.digest, "size": l.size }))
                .collect::<Vec<_>>(),
        }))?;
        let digest = self.blob(&manifest)?;
        for reference in references {
            self.manifests.push(json!({
                "mediaType": MANIFEST,
                "digest": digest,
                "size": manifest.len(),
                "platform": { "architecture": architecture(), "os": "linux" },
                "annotations": { REFERENCE: reference },
            }));
        }
        Ok(())
    }

    /// Writes the index: only now the layout is whole.
    pub fn finish(self) -> Result<()> {
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": self.manifests });
        let part = self.dir.join("index.json.part");
        fs::write(&part, serde_json::to_vec_pretty(&index)?)?;
        fs::rename(part, self.dir.join("index.json"))?;
        Ok(())
    }

    fn blob(&self, content: &[u8]) -> Result<String> {
        let digest = digest(content);
        let path = self.dir.join("blobs/sha256").join(digest.trim_start_matches("sha256:"));
        if !path.exists() {
            let part = path.with_extension("part");
            fs::write(&part, content)?;
            fs::rename(part, path)?;
        }
        Ok(digest)
    }
}

/// `amd64`, `arm64`: Go's names, which OCI uses.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn digest(content: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(content)))
}

fn tar_of(root: &Path) -> Result<Vec<u8>> {
    let mut paths = Vec::new();
    collect(root, &mut paths)?;
    paths.sort();
    let mut builder = tar::Builder::new(Vec::new());
    builder.follow_symlinks(false);
    for path in paths {
        let name = path.strip_prefix(root)?.to_path_buf();
        append(&mut builder, &path, &name).with_context(|| format!("packing {}", path.display()))?;
    }
    Ok(builder.into_inner()?)
}

fn append(builder: &mut tar::Builder<Vec<u8>>, path: &Path, name: &Path) -> Result<()> {
    let metadata = path.symlink_metadata()?;
    let mut header = tar::Header::new_gnu();
    header.set_metadata(&metadata);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    if metadata.is_symlink() {
        header.set_size(0);
        builder.append_link(&mut header, name, fs::read_link(path)?)?;
    } else if metadata.is_dir() {
        header.set_size(0);
        builder.append_data(&mut header, name, std::io::empty())?;
    } else if metadata.is_file() {
        builder.append_data(&mut header, name, fs::File::open(path)?)?;
    }
    Ok(())
}

fn collect(dir: &Path, paths: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.symlink_metadata()?.is_dir() {
            collect(&path, paths)?;
        }
        paths.push(path);
    }
    Ok(())
}
