//! Pulls: registry → content store → snapshots → image record.
//!
//! In: a reference and credentials. Out: an unpacked [`Image`] with its names. Identical pulls run once; layers shared by
//! different pulls are fetched and unpacked once; what an earlier attempt stored is used, and an interrupted download
//! goes on at its last byte.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use containerd_client::types::Descriptor as Target;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use tokio::sync::{Mutex as AsyncMutex, Semaphore};
use tokio_util::task::AbortOnDropHandle;

use super::content::{Labels, WriteError};
use super::lease::{Lease, Leases};
use super::manifest::{
    self, DOCKER_LIST, DOCKER_MANIFEST, Descriptor, Document, ImageConfig, MAX_CONFIG, Manifest, OCI_INDEX,
    OCI_MANIFEST,
};
use super::reference::{Reference, Version};
use super::store::{Documents, ImageCache, add_name, describe};
use super::unpack::Layer;
use crate::config::ContainerdConfig;
use crate::error::{PullError, RuntimeError};
use crate::registry::{FetchError, Registry, Session};
use crate::rpc::Client;
use crate::types::{Image, PullRequest};

/// Layers of one pull that are fetched at once, as containerd does.
const PARALLEL_LAYERS: usize = 3;
/// Failed tries in a row, none of which brought a byte, before a download is given up.
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_millis(500);

type Running = Shared<BoxFuture<'static, Result<Image, Arc<PullError>>>>;

/// Runs pulls.
#[derive(Clone)]
pub(crate) struct Puller {
    client: Client,
    registry: Registry,
    snapshotter: Arc<str>,
    cache: Arc<ImageCache>,
    /// A folder on the disk of the images.
    image_dir: Option<Arc<Path>>,
    /// Pulls under way, by reference and credentials.
    running: Arc<Mutex<HashMap<(Reference, u64), Running>>>,
    leases: Leases,
    /// One writer per blob and one unpacker per chain id.
    locks: Arc<Mutex<HashMap<String, Arc<AsyncMutex<()>>>>>,
}

/// What a reference led to at the registry.
struct Resolved {
    target: Descriptor,
    /// Bytes of the index, when the target is one, and of the manifest.
    documents: Vec<(Descriptor, bytes::Bytes)>,
    manifest: Manifest,
}

/// One pull with its lease.
struct Pull<'a> {
    puller: &'a Puller,
    client: Client,
    session: Arc<Session>,
    reference: &'a Reference,
    lease: &'a Lease,
}

// === impl Puller ===

impl Puller {
    pub(crate) fn new(
        client: Client,
        registry: Registry,
        config: &ContainerdConfig,
        cache: Arc<ImageCache>,
    ) -> Self {
        Self {
            client,
            registry,
            snapshotter: config.snapshotter.as_str().into(),
            cache,
            image_dir: config.image_dir.as_deref().map(Arc::from),
            running: Arc::default(),
            leases: Leases::default(),
            locks: Arc::default(),
        }
    }

    /// Pulls an image, or joins the same pull when it is under way.
    pub(crate) async fn pull(&self, request: &PullRequest) -> Result<Image, PullError> {
        let reference = Reference::parse(&request.image)
            .map_err(|reason| PullError::InvalidName { image: request.image.clone(), reason })?;
        let mut hasher = DefaultHasher::new();
        for auth in &request.auth {
            (&auth.username, &auth.password).hash(&mut hasher);
        }
        let key = (reference, hasher.finish());
        let pull = {
            let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            // Finished ones and those whose callers have all gone.
            running.retain(|_, pull| pull.peek().is_none() && pull.strong_count().is_some_and(|n| n > 1));
            let (puller, request, reference) = (self.clone(), request.clone(), key.0.clone());
            let begin = || {
                let pull = async move { puller.run(&request, &reference).await.map_err(Arc::new) };
                pull.boxed().shared()
            };
            running.entry(key).or_insert_with(begin).clone()
        };
        pull.await.map_err(|error| Arc::try_unwrap(error).unwrap_or_else(|shared| shared.duplicate()))
    }

    async fn run(&self, request: &PullRequest, reference: &Reference) -> Result<Image, PullError> {
        let session = Arc::new(self.registry.session(reference, &request.auth));
        let resolved = resolve(&session, &request.image, reference).await?;
        let name = reference.to_string();
        let target = resolved.target.digest.clone();
        let present = self.client.documents(&self.cache, &target).await?;
        let complete = match &present {
            Some(documents) => {
                let chain_id = documents.config.chain_id();
                chain_id.is_empty() || self.client.has_snapshot(&self.snapshotter, &chain_id).await?
            }
            None => false,
        };
        let named = self.client.image_record(&name).await?.and_then(|record| record.target);
        if let (true, Some(documents), Some(named)) = (complete, &present, named)
            && named.digest == target
        {
            return Ok(with_names(documents, reference, &target));
        }
        let lease = self.leases.hold(self.client.create_lease(&name).await?);
        let client = self.client.with_lease(&lease.id);
        let pull = Pull { puller: self, client, session, reference, lease: &lease };
        let fetched = pull.fetch(&request.image, &resolved).await;
        let kept = fetched.is_err().then(|| lease.id.clone());
        drop(lease);
        let released = self.leases.release(&self.client, &name, kept.as_deref()).await;
        let documents = fetched?;
        released?;
        Ok(with_names(&documents, reference, &target))
    }

    /// Unpacks an image whose blobs are here, but whose snapshots are not.
    pub(crate) async fn unpack_present(&self, name: &str, documents: &Documents) -> Result<(), RuntimeError> {
        let lease = self.leases.hold(self.client.create_lease(name).await?);
        let unpacked = self.unpack_layers(&lease, documents).await;
        drop(lease);
        // Everything is named already: nothing is lost with the lease.
        unpacked.and(self.leases.release(&self.client, name, None).await)
    }

    async fn unpack_layers(&self, lease: &Lease, documents: &Documents) -> Result<(), RuntimeError> {
        let client = self.client.with_lease(&lease.id);
        let chain = manifest::chain_ids(&documents.config.diff_ids);
        for (index, blob) in documents.manifest.layers.iter().enumerate() {
            match self.unpack_layer(&client, &lease.id, documents, &chain, index).await {
                Ok(()) => {}
                Err(WriteError::Runtime(error)) => return Err(error),
                Err(WriteError::Mismatch(reason)) => {
                    return Err(RuntimeError::Config(format!("layer {}: {reason}", blob.digest)));
                }
            }
        }
        Ok(())
    }

    async fn unpack_layer(
        &self,
        client: &Client,
        lease: &str,
        documents: &Documents,
        chain: &[String],
        index: usize,
    ) -> Result<(), WriteError> {
        let layer = Layer {
            blob: &documents.manifest.layers[index],
            diff_id: &documents.config.diff_ids[index],
            parent: index.checked_sub(1).map_or("", |below| &chain[below]),
            chain_id: &chain[index],
        };
        let _turn = self.turn(layer.chain_id).await;
        let present = client.has_snapshot(&self.snapshotter, layer.chain_id).await;
        if present.map_err(WriteError::Runtime)? {
            let kept = client.lease_snapshot(lease, &self.snapshotter, layer.chain_id).await;
            return kept.map_err(WriteError::Runtime);
        }
        client.unpack(&self.snapshotter, &layer).await
    }

    /// Waits until nobody else works on a digest.
    async fn turn(&self, digest: &str) -> tokio::sync::OwnedMutexGuard<()> {
        let lock = {
            let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
            locks.retain(|_, lock| Arc::strong_count(lock) > 1);
            Arc::clone(locks.entry(digest.to_owned()).or_default())
        };
        lock.lock_owned().await
    }
}

fn with_names(documents: &Documents, reference: &Reference, target: &str) -> Image {
    let mut image = describe(documents, target);
    add_name(&mut image, &reference.to_string(), target);
    image
}

/// Asks the registry what a reference means and checks every document on the way.
async fn resolve(session: &Session, image: &str, reference: &Reference) -> Result<Resolved, PullError> {
    let refused = |reason: String| PullError::Registry { image: image.to_owned(), reason };
    let bytes = session.manifest(reference.version()).await.map_err(|e| e.of_pull(image))?;
    let digest = manifest::sha256(&bytes);
    if let Version::Digest(expected) = &reference.version {
        check_digest(image, "manifest", expected, &bytes)?;
    }
    let top = |media_type: &str| Descriptor::new(media_type, &digest, bytes.len() as u64);
    match manifest::parse(&bytes).map_err(refused)? {
        Document::Manifest(manifest) => {
            let target = top(media_type(&bytes, OCI_MANIFEST));
            Ok(Resolved { documents: vec![(target.clone(), bytes)], target, manifest })
        }
        Document::Index(entries) => {
            let target = top(media_type(&bytes, OCI_INDEX));
            let entry = manifest::select(&entries, manifest::architecture()).map_err(refused)?.clone();
            let inner = session.manifest(&entry.digest).await.map_err(|e| e.of_pull(image))?;
            check_digest(image, "manifest", &entry.digest, &inner)?;
            if inner.len() as u64 != entry.size {
                return Err(refused(format!(
                    "the manifest is {} bytes long, not {}",
                    inner.len(),
                    entry.size
                )));
            }
            let Document::Manifest(manifest) = manifest::parse(&inner).map_err(refused)? else {
                return Err(refused("the image index leads to another index".into()));
            };
            Ok(Resolved { documents: vec![(target.clone(), bytes), (entry, inner)], target, manifest })
        }
    }
}

fn check_digest(image: &str, what: &str, digest: &str, bytes: &[u8]) -> Result<(), PullError> {
    if !digest.starts_with("sha256:") {
        let reason = format!("{what} {digest}: only sha256 is supported");
        return Err(PullError::Registry { image: image.to_owned(), reason });
    }
    if manifest::sha256(bytes) == digest {
        return Ok(());
    }
    let (image, what, digest) = (image.to_owned(), what.to_owned(), digest.to_owned());
    Err(PullError::Digest { image, what, digest })
}

/// What a document calls itself.
fn media_type(bytes: &[u8], default: &'static str) -> &'static str {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Typed {
        media_type: Option<String>,
    }
    let named = serde_json::from_slice::<Typed>(bytes).ok().and_then(|typed| typed.media_type);
    [OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST]
        .into_iter()
        .find(|known| named.as_deref() == Some(*known))
        .unwrap_or(default)
}

// === impl Pull ===

impl Pull<'_> {
    /// Brings everything here and names it.
    async fn fetch(&self, image: &str, resolved: &Resolved) -> Result<Documents, PullError> {
        let config = self.fetch_config(image, &resolved.manifest.config).await?;
        if config.diff_ids.len() != resolved.manifest.layers.len() {
            let reason = format!(
                "the configuration names {} layers, the manifest {}",
                config.diff_ids.len(),
                resolved.manifest.layers.len()
            );
            return Err(PullError::Registry { image: image.to_owned(), reason });
        }
        let documents = Documents { manifest: resolved.manifest.clone(), config: Arc::new(config) };
        self.check_room(image, &documents.manifest)?;
        self.fetch_layers(image, &documents).await?;
        // From the leaves to the root: each blob holds its children by labels before it is held itself.
        for (index, (descriptor, bytes)) in resolved.documents.iter().enumerate().rev() {
            let labels = match resolved.documents.get(index + 1) {
                Some((child, _)) => {
                    [("containerd.io/gc.ref.content.m.0".to_owned(), child.digest.clone())].into()
                }
                None => manifest_labels(&resolved.manifest),
            };
            let written =
                self.client.write_blob(&descriptor.digest, bytes.clone(), self.labels(labels)).await;
            written.map_err(|error| error.of_pull(image, "manifest", &descriptor.digest))?;
        }
        let target = Target {
            media_type: resolved.target.media_type.clone(),
            digest: resolved.target.digest.clone(),
            size: i64::try_from(resolved.target.size).unwrap_or(i64::MAX),
            annotations: HashMap::new(),
        };
        for name in [
            format!("{}@{}", self.reference.name(), target.digest),
            documents.manifest.config.digest.clone(),
            self.reference.to_string(),
        ] {
            self.client.name_image(&name, &target).await?;
        }
        self.puller.cache.keep_config(&documents.manifest.config.digest, &documents.config);
        Ok(documents)
    }

    /// An image that cannot fit is refused before it fills the disk.
    fn check_room(&self, image: &str, manifest: &Manifest) -> Result<(), PullError> {
        let Some(dir) = &self.puller.image_dir else { return Ok(()) };
        let Ok(stat) = nix::sys::statvfs::statvfs(&**dir) else { return Ok(()) };
        let free = stat.blocks_available().saturating_mul(stat.fragment_size());
        let size = manifest.size();
        if size <= free {
            return Ok(());
        }
        let reason = format!("its layers have {size} bytes, and {free} are free on the node's disk");
        Err(PullError::Registry { image: image.to_owned(), reason })
    }

    async fn fetch_config(&self, image: &str, blob: &Descriptor) -> Result<ImageConfig, PullError> {
        self.download(image, "configuration", blob).await?;
        let bytes = self.client.read_blob(&blob.digest, MAX_CONFIG).await?;
        let config = ImageConfig::parse(&bytes.unwrap_or_default())
            .map_err(|reason| PullError::Registry { image: image.to_owned(), reason })?;
        let chain_id = config.chain_id();
        if !chain_id.is_empty() {
            let label = format!("containerd.io/gc.ref.snapshot.{}", self.puller.snapshotter);
            self.client.label_blob(&blob.digest, [(label, chain_id)].into()).await?;
        }
        Ok(config)
    }

    /// Fetches the layers, a few at once, and unpacks each as soon as it and those below it are here.
    async fn fetch_layers(&self, image: &str, documents: &Documents) -> Result<(), PullError> {
        let slots = Arc::new(Semaphore::new(PARALLEL_LAYERS));
        let downloads: Vec<_> = documents
            .manifest
            .layers
            .iter()
            .map(|layer| {
                let (slots, task) = (Arc::clone(&slots), self.detached());
                let (image, layer) = (image.to_owned(), layer.clone());
                AbortOnDropHandle::new(tokio::spawn(async move {
                    let _slot = slots.acquire().await;
                    task.download(&image, &layer).await
                }))
            })
            .collect();
        let chain = manifest::chain_ids(&documents.config.diff_ids);
        for (index, download) in downloads.into_iter().enumerate() {
            match download.await {
                Ok(result) => result?,
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            }
            let layer = &documents.manifest.layers[index];
            self.puller
                .unpack_layer(&self.client, &self.lease.id, documents, &chain, index)
                .await
                .map_err(|error| error.of_pull(image, "layer", &layer.digest))?;
        }
        Ok(())
    }

    async fn download(&self, image: &str, what: &str, blob: &Descriptor) -> Result<(), PullError> {
        self.detached().download_named(image, what, blob).await
    }

    fn detached(&self) -> Download {
        Download {
            puller: self.puller.clone(),
            client: self.client.clone(),
            session: Arc::clone(&self.session),
            labels: self.labels(Labels::new()),
        }
    }

    /// Labels of every blob: where it came from, as containerd's own client notes it.
    fn labels(&self, mut labels: Labels) -> Labels {
        let source = format!("containerd.io/distribution.source.{}", self.reference.registry);
        labels.insert(source, self.reference.repository.clone());
        labels
    }
}

/// What a manifest holds.
fn manifest_labels(manifest: &Manifest) -> Labels {
    let config = ("containerd.io/gc.ref.content.config".to_owned(), manifest.config.digest.clone());
    let layers = manifest.layers.iter().enumerate();
    layers
        .map(|(index, layer)| (format!("containerd.io/gc.ref.content.l.{index}"), layer.digest.clone()))
        .chain([config])
        .collect()
}

/// The download of one blob, on a task of its own.
struct Download {
    puller: Puller,
    client: Client,
    session: Arc<Session>,
    labels: Labels,
}

impl Download {
    async fn download(&self, image: &str, layer: &Descriptor) -> Result<(), PullError> {
        self.download_named(image, "layer", layer).await
    }

    async fn download_named(&self, image: &str, what: &str, blob: &Descriptor) -> Result<(), PullError> {
        let _turn = self.puller.turn(&blob.digest).await;
        let mut fruitless = 0;
        loop {
            let opened = self.client.open_writer(&blob.digest, blob.size).await;
            let Some(mut writer) = opened.map_err(|error| error.of_pull(image, what, &blob.digest))? else {
                return Ok(());
            };
            if writer.offset() > blob.size {
                let restarted = writer.restart().await;
                restarted.map_err(|error| error.of_pull(image, what, &blob.digest))?;
            }
            let begin = writer.offset();
            let copied = copy(&self.session, blob, &mut writer).await;
            let progress = writer.offset() > begin;
            match copied {
                Ok(()) => {
                    let committed = writer.commit(&blob.digest, self.labels.clone()).await;
                    return committed.map_err(|error| error.of_pull(image, what, &blob.digest));
                }
                Err(CopyError::Write(error)) => {
                    drop(writer);
                    if matches!(error, WriteError::Mismatch(_)) {
                        self.client.abort_write(&blob.digest).await?;
                    }
                    return Err(error.of_pull(image, what, &blob.digest));
                }
                Err(CopyError::Fetch(error)) => {
                    // What came is kept for the next try, of this pull or another.
                    let kept = writer.flush().await;
                    kept.map_err(|error| error.of_pull(image, what, &blob.digest))?;
                    fruitless = if progress { 0 } else { fruitless + 1 };
                    if !matches!(error, FetchError::Transient(_)) || fruitless >= TRIES {
                        return Err(error.of_pull(image));
                    }
                    tracing::debug!(image, digest = blob.digest, %error, "resuming a download");
                }
            }
            drop(writer);
            tokio::time::sleep(PAUSE).await;
        }
    }
}

enum CopyError {
    Fetch(FetchError),
    Write(WriteError),
}

/// Copies what is missing of a blob. Its length is checked here, its digest at commit.
async fn copy(
    session: &Session,
    blob: &Descriptor,
    writer: &mut super::content::Writer,
) -> Result<(), CopyError> {
    if writer.offset() == blob.size {
        return Ok(());
    }
    let mut stream = session.blob(&blob.digest, writer.offset()).await.map_err(CopyError::Fetch)?;
    while let Some(bytes) = stream.next().await.map_err(CopyError::Fetch)? {
        if writer.offset() + bytes.len() as u64 > blob.size {
            return Err(CopyError::Write(WriteError::Mismatch(format!("longer than {} bytes", blob.size))));
        }
        writer.write(bytes).await.map_err(CopyError::Write)?;
    }
    if writer.offset() < blob.size {
        let reason = format!("{} ended after {} of {} bytes", blob.digest, writer.offset(), blob.size);
        return Err(CopyError::Fetch(FetchError::Transient(reason)));
    }
    Ok(())
}

impl WriteError {
    fn of_pull(self, image: &str, what: &str, digest: &str) -> PullError {
        match self {
            Self::Runtime(error) => error.into(),
            Self::Mismatch(_) => PullError::Digest {
                image: image.to_owned(),
                what: what.to_owned(),
                digest: digest.to_owned(),
            },
        }
    }
}

impl FetchError {
    fn of_pull(self, image: &str) -> PullError {
        let image = image.to_owned();
        match self {
            Self::NotFound => PullError::NotFound { image },
            Self::Unauthorized(reason) => PullError::Unauthorized { image, reason },
            Self::Transient(reason) | Self::Refused(reason) => PullError::Registry { image, reason },
        }
    }
}
