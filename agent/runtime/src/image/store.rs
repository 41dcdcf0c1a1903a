//! Which images are present: containerd's records and what they lead to.
//!
//! In: references, ids. Out: [`Image`]s that are complete and unpacked. The documents behind a digest never change, so
//! what was read of them is kept.

use std::collections::BTreeMap;
use std::sync::Arc;

use containerd_client::services::v1::{
    CreateImageRequest, DeleteImageRequest, GetImageRequest, Image as Record, ListImagesRequest,
    UpdateImageRequest,
};
use containerd_client::types::Descriptor as Target;
use tonic::Code;

use super::etc::EtcFiles;
use super::manifest::{self, Document, ImageConfig, MAX_CONFIG, MAX_MANIFEST, Manifest};
use super::reference::{Reference, Version, is_digest};
use super::shelf::{Shelf, Weigh};
use crate::error::RuntimeError;
use crate::rpc::{Client, Optional, rpc};
use crate::types::Image;

/// Bytes kept of each kind of what was read.
const CACHE: usize = 12 << 20;
/// What a vector or string takes beside its content.
const HEAD: usize = 32;

/// An image's documents.
#[derive(Clone, Debug)]
pub(crate) struct Documents {
    pub(crate) manifest: Manifest,
    pub(crate) config: Arc<ImageConfig>,
}

/// What was read of immutable blobs.
pub(crate) struct ImageCache {
    /// By digest of the record's target.
    documents: Shelf<Documents>,
    /// By digest of the configuration.
    configs: Shelf<Arc<ImageConfig>>,
    /// By chain id.
    etc: Shelf<Arc<EtcFiles>>,
}

// === impl ImageCache ===

impl Default for ImageCache {
    fn default() -> Self {
        Self { documents: Shelf::new(CACHE), configs: Shelf::new(CACHE), etc: Shelf::new(CACHE) }
    }
}

impl ImageCache {
    pub(crate) fn config(&self, digest: &str) -> Option<Arc<ImageConfig>> {
        self.configs.get(digest)
    }

    pub(crate) fn etc(&self, chain_id: &str) -> Option<Arc<EtcFiles>> {
        self.etc.get(chain_id)
    }

    pub(crate) fn keep_etc(&self, chain_id: &str, files: EtcFiles) -> Arc<EtcFiles> {
        let files = Arc::new(files);
        self.etc.keep(chain_id, Arc::clone(&files));
        files
    }

    pub(crate) fn keep_config(&self, digest: &str, config: &Arc<ImageConfig>) {
        self.configs.keep(digest, Arc::clone(config));
    }
}

impl Weigh for Documents {
    fn weight(&self) -> usize {
        let layer = |layer: &manifest::Descriptor| HEAD * 4 + layer.digest.len() + layer.media_type.len();
        // The configuration lives as long as either shelf holds it.
        self.config.weight() + self.manifest.layers.iter().map(layer).sum::<usize>()
    }
}

impl Weigh for Arc<ImageConfig> {
    fn weight(&self) -> usize {
        let list = |list: &[String]| list.iter().map(|text| HEAD + text.len()).sum::<usize>();
        let lists = [&self.diff_ids, &self.entrypoint, &self.cmd, &self.env];
        let texts =
            self.user.len() + self.working_dir.len() + self.stop_signal.as_ref().map_or(0, String::len);
        HEAD * 8 + texts + lists.into_iter().map(|texts| list(texts)).sum::<usize>()
    }
}

impl Weigh for Arc<EtcFiles> {
    fn weight(&self) -> usize {
        HEAD * 2 + self.passwd.len() + self.group.len()
    }
}

// === impl Client ===

impl Client {
    pub(crate) async fn image_record(&self, name: &str) -> Result<Option<Record>, RuntimeError> {
        let request = GetImageRequest { name: name.to_owned() };
        let found = rpc!(self, self.timeouts.metadata, images.get(request)).await.optional()?;
        Ok(found.and_then(|found| found.image))
    }

    pub(crate) async fn image_records(&self) -> Result<Vec<Record>, RuntimeError> {
        let found = rpc!(self, self.timeouts.metadata, images.list(ListImagesRequest::default())).await?;
        Ok(found.images)
    }

    /// Points a name at an image.
    pub(crate) async fn name_image(&self, name: &str, target: &Target) -> Result<(), RuntimeError> {
        let image = Record { name: name.to_owned(), target: Some(target.clone()), ..Default::default() };
        let request = CreateImageRequest { image: Some(image.clone()), ..Default::default() };
        match rpc!(self, self.timeouts.metadata, images.create(request)).await {
            Err(failed) if failed.code == Code::AlreadyExists => {
                let mask = prost_types::FieldMask { paths: vec!["target".into()] };
                let request =
                    UpdateImageRequest { image: Some(image), update_mask: Some(mask), ..Default::default() };
                rpc!(self, self.timeouts.metadata, images.update(request)).await?;
                Ok(())
            }
            created => Ok(created.map(|_| ())?),
        }
    }

    /// Removes a name. With the last one of an image its blobs and snapshots go too.
    pub(crate) async fn unname_image(&self, name: &str) -> Result<(), RuntimeError> {
        let request = DeleteImageRequest { name: name.to_owned(), sync: true, ..Default::default() };
        rpc!(self, self.timeouts.task, images.delete(request)).await.optional()?;
        Ok(())
    }

    /// The documents behind a record; `None` when one is missing or cannot be used here.
    pub(crate) async fn documents(
        &self,
        cache: &ImageCache,
        target: &str,
    ) -> Result<Option<Documents>, RuntimeError> {
        if let Some(known) = cache.documents.get(target) {
            return Ok(Some(known));
        }
        let Some(bytes) = self.read_blob(target, MAX_MANIFEST).await? else { return Ok(None) };
        let manifest = match manifest::parse(&bytes) {
            Ok(Document::Manifest(manifest)) => manifest,
            Ok(Document::Index(entries)) => {
                let Ok(entry) = manifest::select(&entries, manifest::architecture()) else {
                    return Ok(None);
                };
                let Some(bytes) = self.read_blob(&entry.digest, MAX_MANIFEST).await? else {
                    return Ok(None);
                };
                match manifest::parse(&bytes) {
                    Ok(Document::Manifest(manifest)) => manifest,
                    _ => return Ok(None),
                }
            }
            Err(_) => return Ok(None),
        };
        let Some(config) = self.image_config(cache, &manifest.config.digest).await? else { return Ok(None) };
        let documents = Documents { manifest, config };
        cache.documents.keep(target, documents.clone());
        Ok(Some(documents))
    }

    /// An image configuration by its digest.
    pub(crate) async fn image_config(
        &self,
        cache: &ImageCache,
        digest: &str,
    ) -> Result<Option<Arc<ImageConfig>>, RuntimeError> {
        if let Some(known) = cache.config(digest) {
            return Ok(Some(known));
        }
        let Some(bytes) = self.read_blob(digest, MAX_CONFIG).await? else { return Ok(None) };
        let Ok(config) = ImageConfig::parse(&bytes) else { return Ok(None) };
        let config = Arc::new(config);
        cache.keep_config(digest, &config);
        Ok(Some(config))
    }

    /// All complete, unpacked images, by the digest of their configuration.
    pub(crate) async fn present_images(
        &self,
        cache: &ImageCache,
        snapshotter: &str,
    ) -> Result<BTreeMap<String, Image>, RuntimeError> {
        let mut images: BTreeMap<String, Image> = BTreeMap::new();
        for record in self.image_records().await? {
            let target = record.target.unwrap_or_default().digest;
            let Some(documents) = self.documents(cache, &target).await? else { continue };
            let id = documents.manifest.config.digest.clone();
            if !images.contains_key(&id) {
                if !self.has_snapshot(snapshotter, &documents.config.chain_id()).await? {
                    continue;
                }
                images.insert(id.clone(), describe(&documents, &target));
            }
            if let Some(image) = images.get_mut(&id) {
                add_name(image, &record.name, &target);
            }
        }
        Ok(images)
    }
}

/// An image without its names.
pub(crate) fn describe(documents: &Documents, target: &str) -> Image {
    let Documents { manifest, config } = documents;
    Image {
        id: manifest.config.digest.clone(),
        names: Vec::new(),
        repo_digest: target.to_owned(),
        size: manifest.size(),
        user: config.user.clone(),
        entrypoint: config.entrypoint.clone(),
        cmd: config.cmd.clone(),
        env: config.env.clone(),
        working_dir: config.working_dir.clone(),
        stop_signal: config.stop_signal.clone(),
    }
}

/// Adds a record's name: tags are names, digests make `repo_digest`, the bare id is neither.
pub(crate) fn add_name(image: &mut Image, name: &str, target: &str) {
    // The record under the bare id reads like a name with a tag.
    let reference = (!is_digest(name)).then(|| Reference::parse(name).ok()).flatten();
    let Some(reference) = reference else { return };
    if !image.repo_digest.contains('@') {
        image.repo_digest = format!("{}@{target}", reference.name());
    }
    if matches!(reference.version, Version::Tag(_)) && !image.names.iter().any(|known| known == name) {
        image.names.push(name.to_owned());
    }
}

/// The record name a caller's reference leads to: a full name, or the id of an image.
pub(crate) fn record_name(reference: &str) -> Option<String> {
    if is_digest(reference) {
        return Some(reference.to_owned());
    }
    Reference::parse(reference).ok().map(|reference| reference.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_into_tags_and_digest() {
        let target = format!("sha256:{}", "a".repeat(64));
        let config =
            ImageConfig::parse(br#"{"rootfs":{"diff_ids":[]},"config":{"User":"7","StopSignal":""}}"#)
                .unwrap();
        let document = serde_json::json!({"config": {"digest": target, "size": 3}, "layers": []}).to_string();
        let Ok(Document::Manifest(manifest)) = manifest::parse(document.as_bytes()) else { panic!() };
        let mut image = describe(&Documents { manifest, config: Arc::new(config) }, &target);
        add_name(&mut image, &target, &target);
        add_name(&mut image, &format!("docker.io/library/x@{target}"), &target);
        add_name(&mut image, "docker.io/library/x:1", &target);
        add_name(&mut image, "docker.io/library/x:1", &target);
        assert_eq!(image.names, ["docker.io/library/x:1"]);
        assert_eq!(image.repo_digest, format!("docker.io/library/x@{target}"));
        assert_eq!((image.user.as_str(), image.stop_signal), ("7", None));
    }

    #[test]
    fn ids_and_references_lead_to_records() {
        let id = format!("sha256:{}", "0".repeat(64));
        assert_eq!(record_name(&id).as_deref(), Some(id.as_str()));
        assert_eq!(record_name("nginx").as_deref(), Some("docker.io/library/nginx:latest"));
        assert_eq!(record_name("NGINX"), None);
    }
}
