//! What a registry's documents say: index, manifest, configuration.
//!
//! In: bytes whose digest was checked. Out: the manifest for this machine, its blobs, the chain of snapshots they make.
//! Pure. Only the fields that are used are read, so that odd documents of old builders still work.

use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::reference::is_digest;

/// containerd itself refuses larger manifests.
pub(crate) const MAX_MANIFEST: u64 = 4 << 20;
pub(crate) const MAX_CONFIG: u64 = 8 << 20;
/// overlayfs takes no more.
const MAX_LAYERS: usize = 500;

pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// Name, type and size of a blob.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(default)]
    pub(crate) media_type: String,
    pub(crate) digest: String,
    pub(crate) size: u64,
    #[serde(default)]
    platform: Option<Platform>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
struct Platform {
    architecture: String,
    os: String,
    #[serde(default)]
    variant: Option<String>,
}

/// A document that a reference can lead to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Document {
    Index(Vec<Descriptor>),
    Manifest(Manifest),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub(crate) config: Descriptor,
    pub(crate) layers: Vec<Descriptor>,
}

/// The parts of an image configuration that decide how it is unpacked and run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ImageConfig {
    /// Digest of each layer, uncompressed.
    pub(crate) diff_ids: Vec<String>,
    pub(crate) user: String,
    pub(crate) entrypoint: Vec<String>,
    pub(crate) cmd: Vec<String>,
    pub(crate) env: Vec<String>,
    pub(crate) working_dir: String,
    pub(crate) stop_signal: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDocument {
    #[serde(default)]
    schema_version: Option<u64>,
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    manifests: Option<Vec<Descriptor>>,
    #[serde(default)]
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Option<Vec<Descriptor>>,
}

#[derive(Deserialize)]
struct RawConfig {
    rootfs: RawRootfs,
    #[serde(default)]
    config: Option<RawRun>,
}

#[derive(Deserialize)]
struct RawRootfs {
    #[serde(default)]
    diff_ids: Option<Vec<String>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct RawRun {
    user: Option<String>,
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    env: Option<Vec<String>>,
    working_dir: Option<String>,
    stop_signal: Option<String>,
}

/// `sha256:…` of some bytes.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// Reads an index or a manifest.
pub(crate) fn parse(bytes: &[u8]) -> Result<Document, String> {
    let raw: RawDocument = serde_json::from_slice(bytes).map_err(|e| format!("bad manifest: {e}"))?;
    if raw.schema_version.is_some_and(|version| version != 2) {
        return Err("manifest schema 1 is not supported".into());
    }
    let index = matches!(raw.media_type.as_deref(), Some(OCI_INDEX | DOCKER_LIST));
    match (raw.manifests, raw.config, raw.layers) {
        (Some(manifests), None, None) => Ok(Document::Index(manifests)),
        // Both readings at once is the confusion of CVE-2021-41190: refused.
        (None, Some(config), Some(layers)) if !index => Manifest::new(config, layers).map(Document::Manifest),
        _ => Err("bad manifest: neither an image index nor an image manifest".into()),
    }
}

/// The manifest of an index for a machine.
pub(crate) fn select<'a>(manifests: &'a [Descriptor], architecture: &str) -> Result<&'a Descriptor, String> {
    let fits = |descriptor: &&Descriptor| match &descriptor.platform {
        Some(platform) => {
            platform.os == "linux"
                && platform.architecture == architecture
                && (architecture != "arm64" || matches!(platform.variant.as_deref(), None | Some("" | "v8")))
        }
        None => manifests.len() == 1,
    };
    let chosen = manifests.iter().find(fits).ok_or_else(|| {
        format!("no match for platform in manifest: the image does not offer linux/{architecture}")
    })?;
    check(chosen, MAX_MANIFEST)?;
    Ok(chosen)
}

/// This machine's architecture in the words of image indexes.
pub(crate) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        other => other,
    }
}

/// Names of the snapshots that layers make, one after the other.
pub(crate) fn chain_ids(diff_ids: &[String]) -> Vec<String> {
    let mut chain: Vec<String> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        let id = match chain.last() {
            Some(parent) => sha256(format!("{parent} {diff_id}").as_bytes()),
            None => diff_id.clone(),
        };
        chain.push(id);
    }
    chain
}

fn check(descriptor: &Descriptor, max: u64) -> Result<(), String> {
    if !is_digest(&descriptor.digest) {
        return Err(format!("bad manifest: {:?} is not a digest", descriptor.digest));
    }
    if descriptor.size > max {
        return Err(format!(
            "{} is {} bytes long, more than the limit of {max}",
            descriptor.digest, descriptor.size
        ));
    }
    Ok(())
}

fn is_layer(media_type: &str) -> bool {
    let Some(rest) = media_type
        .strip_prefix("application/vnd.oci.image.layer.")
        .or_else(|| media_type.strip_prefix("application/vnd.docker.image.rootfs."))
    else {
        return false;
    };
    matches!(
        rest,
        "v1.tar"
            | "v1.tar+gzip"
            | "v1.tar+zstd"
            | "nondistributable.v1.tar"
            | "nondistributable.v1.tar+gzip"
            | "nondistributable.v1.tar+zstd"
            | "diff.tar"
            | "diff.tar.gzip"
            | "diff.tar.zstd"
            | "foreign.diff.tar.gzip"
    )
}

// === impl Descriptor ===

impl Descriptor {
    pub(crate) fn new(media_type: &str, digest: &str, size: u64) -> Self {
        Self { media_type: media_type.to_owned(), digest: digest.to_owned(), size, platform: None }
    }
}

// === impl Manifest ===

impl Manifest {
    fn new(config: Descriptor, layers: Vec<Descriptor>) -> Result<Self, String> {
        check(&config, MAX_CONFIG)?;
        if layers.len() > MAX_LAYERS {
            return Err(format!(
                "the image has {} layers, more than the limit of {MAX_LAYERS}",
                layers.len()
            ));
        }
        for layer in &layers {
            check(layer, i64::MAX as u64)?;
            if !is_layer(&layer.media_type) {
                return Err(format!("layer of unsupported media type {:?}", layer.media_type));
            }
        }
        Ok(Self { config, layers })
    }

    /// Bytes that a pull transfers.
    pub(crate) fn size(&self) -> u64 {
        self.layers.iter().map(|layer| layer.size).fold(self.config.size, u64::saturating_add)
    }
}

// === impl ImageConfig ===

impl ImageConfig {
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let raw: RawConfig =
            serde_json::from_slice(bytes).map_err(|e| format!("bad image configuration: {e}"))?;
        let diff_ids = raw.rootfs.diff_ids.unwrap_or_default();
        if let Some(bad) = diff_ids.iter().find(|id| !is_digest(id)) {
            return Err(format!("bad image configuration: {bad:?} is not a digest"));
        }
        let run = raw.config.unwrap_or_default();
        Ok(Self {
            diff_ids,
            user: run.user.unwrap_or_default(),
            entrypoint: run.entrypoint.unwrap_or_default(),
            cmd: run.cmd.unwrap_or_default(),
            env: run.env.unwrap_or_default(),
            working_dir: run.working_dir.unwrap_or_default(),
            stop_signal: run.stop_signal.filter(|signal| !signal.is_empty()),
        })
    }

    /// The snapshot that holds the whole image; empty for an image without layers.
    pub(crate) fn chain_id(&self) -> String {
        chain_ids(&self.diff_ids).pop().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(fill: char) -> String {
        format!("sha256:{}", fill.to_string().repeat(64))
    }

    fn manifest(layer_type: &str) -> String {
        serde_json::json!({
            "schemaVersion": 2,
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest('c'), "size": 7},
            "layers": [{"mediaType": layer_type, "digest": digest('a'), "size": 10}],
        })
        .to_string()
    }

    #[test]
    fn a_manifest_names_its_blobs() {
        let Ok(Document::Manifest(found)) =
            parse(manifest("application/vnd.oci.image.layer.v1.tar+gzip").as_bytes())
        else {
            panic!("no manifest");
        };
        assert_eq!(found.config.digest, digest('c'));
        assert_eq!(found.size(), 17);
        assert!(parse(manifest("application/vnd.oci.image.layer.v1.tar+encrypted").as_bytes()).is_err());
    }

    #[test]
    fn the_index_entry_for_this_machine_is_chosen() {
        let entry = |os: &str, architecture: &str, fill| {
            serde_json::json!({"digest": digest(fill), "size": 1, "mediaType": OCI_MANIFEST,
                "platform": {"os": os, "architecture": architecture}})
        };
        let index = serde_json::json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [
            entry("unknown", "unknown", '0'), entry("windows", "amd64", '1'), entry("linux", "arm64", '2'),
            entry("linux", "amd64", '3')]});
        let Ok(Document::Index(manifests)) = parse(index.to_string().as_bytes()) else { panic!("no index") };
        assert_eq!(select(&manifests, "amd64").unwrap().digest, digest('3'));
        assert_eq!(select(&manifests, "arm64").unwrap().digest, digest('2'));
        let refusal = select(&manifests, "s390x").unwrap_err();
        assert!(refusal.starts_with("no match for platform in manifest"), "{refusal}");
    }

    #[test]
    fn documents_that_could_be_read_two_ways_are_refused() {
        let mut both: serde_json::Value =
            serde_json::from_str(&manifest("application/vnd.oci.image.layer.v1.tar")).unwrap();
        both["manifests"] = serde_json::json!([]);
        assert!(parse(both.to_string().as_bytes()).is_err());
        assert!(parse(b"{\"schemaVersion\":1,\"fsLayers\":[]}").is_err());
        assert!(parse(b"{}").is_err());
        assert!(parse(b"not json").is_err());
    }

    #[test]
    fn chain_ids_hash_the_parent_with_the_layer() {
        let chain = chain_ids(&[digest('a'), digest('b')]);
        assert_eq!(chain[0], digest('a'));
        assert_eq!(chain[1], sha256(format!("{} {}", digest('a'), digest('b')).as_bytes()));
    }

    #[test]
    fn a_configuration_with_nulls_is_read() {
        let config = ImageConfig::parse(
            format!(
                r#"{{"rootfs":{{"diff_ids":["{}"]}},"config":{{"Cmd":null,"User":"www","Env":["A=b"]}}}}"#,
                digest('a')
            )
            .as_bytes(),
        )
        .unwrap();
        assert_eq!((config.user.as_str(), config.env.len(), config.cmd.len()), ("www", 1, 0));
        assert_eq!(config.chain_id(), digest('a'));
        assert!(ImageConfig::parse(br#"{"rootfs":{"diff_ids":["../x"]}}"#).is_err());
    }
}
