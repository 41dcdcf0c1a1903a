//! ConfigMaps and Secrets that pods of this node refer to: one watch for each object, shared and counted.
//!
//! In: references. Out: snapshots for environment, volumes and pull secrets; a wake-up when one changes.
//! A watch ends when the last pod that refers to its object is gone.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Debug;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use crate::pod;

/// How long a snapshot waits for the first answer of the API.
const FIRST_ANSWER: Duration = Duration::from_secs(10);

/// What is known of one object.
#[derive(Debug)]
enum State<K> {
    Unknown,
    Absent,
    Present(Arc<K>),
    /// The API refuses to show it.
    Refused(String),
}

impl<K> Clone for State<K> {
    fn clone(&self) -> Self {
        match self {
            Self::Unknown => Self::Unknown,
            Self::Absent => Self::Absent,
            Self::Present(object) => Self::Present(Arc::clone(object)),
            Self::Refused(why) => Self::Refused(why.clone()),
        }
    }
}

/// A watch of one object, alive as long as somebody holds it.
#[derive(Debug)]
struct Watched<K> {
    state: watch::Receiver<State<K>>,
    _task: AbortOnDropHandle<()>,
}

type Shared<K> = Arc<Mutex<HashMap<(String, String), Weak<Watched<K>>>>>;

/// All watched objects of one kind.
struct Cache<K> {
    client: Client,
    entries: Shared<K>,
}

impl<K> Cache<K>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + DeserializeOwned
        + Debug
        + Send
        + Sync
        + 'static,
{
    fn new(client: Client) -> Self {
        Self { client, entries: Arc::default() }
    }

    fn get(&self, namespace: &str, name: &str) -> Arc<Watched<K>> {
        let key = (namespace.to_owned(), name.to_owned());
        let mut entries = self.entries.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(watched) = entries.get(&key).and_then(Weak::upgrade) {
            return watched;
        }
        entries.retain(|_, weak| weak.strong_count() > 0);
        let (sender, state) = watch::channel(State::Unknown);
        let api = Api::<K>::namespaced(self.client.clone(), namespace);
        let task = AbortOnDropHandle::new(tokio::spawn(watch_one(api, name.to_owned(), sender)));
        let watched = Arc::new(Watched { state, _task: task });
        entries.insert(key, Arc::downgrade(&watched));
        watched
    }
}

async fn watch_one<K>(api: Api<K>, name: String, state: watch::Sender<State<K>>)
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut stream = std::pin::pin!(watcher(api, config).default_backoff());
    let mut listed = None;
    while let Some(event) = stream.next().await {
        match event {
            Ok(watcher::Event::Init) => listed = None,
            Ok(watcher::Event::InitApply(object)) => listed = Some(object),
            Ok(watcher::Event::InitDone) => {
                state.send_replace(listed.take().map_or(State::Absent, |o| State::Present(Arc::new(o))));
            }
            Ok(watcher::Event::Apply(object)) => {
                state.send_replace(State::Present(Arc::new(object)));
            }
            Ok(watcher::Event::Delete(_)) => {
                state.send_replace(State::Absent);
            }
            Err(error) => {
                // A known object stays known while the API is away; only "not yet seen" turns into the reason.
                state.send_if_modified(|state| {
                    let unseen = matches!(state, State::Unknown | State::Refused(_));
                    if unseen {
                        *state = State::Refused(error.to_string());
                    }
                    unseen
                });
            }
        }
    }
}

/// Watches of ConfigMaps and Secrets.
pub struct ObjectCache {
    config_maps: Cache<ConfigMap>,
    secrets: Cache<Secret>,
}

impl ObjectCache {
    pub fn new(client: Client) -> Self {
        Self { config_maps: Cache::new(client.clone()), secrets: Cache::new(client) }
    }

    /// Begins to watch everything that `pod` refers to; ends when the result is dropped.
    pub fn subscribe(&self, pod: &Pod) -> PodObjects {
        let references = references(pod);
        let namespace = pod::namespace(pod);
        let config_maps = references.config_maps.into_iter();
        let secrets = references.secrets.into_iter();
        PodObjects {
            config_maps: config_maps.map(|n| (n.clone(), self.config_maps.get(namespace, &n))).collect(),
            secrets: secrets.map(|n| (n.clone(), self.secrets.get(namespace, &n))).collect(),
        }
    }
}

/// The objects one pod refers to.
#[derive(Clone, Default)]
pub struct PodObjects {
    config_maps: BTreeMap<String, Arc<Watched<ConfigMap>>>,
    secrets: BTreeMap<String, Arc<Watched<Secret>>>,
}

impl PodObjects {
    /// What is known of all of them, as soon as the API answered for each; after a while without what is missing.
    pub async fn snapshot(&self) -> ObjectSnapshot {
        let deadline = tokio::time::Instant::now() + FIRST_ANSWER;
        let mut snapshot = ObjectSnapshot::default();
        for (name, watched) in &self.config_maps {
            snapshot.config_maps.insert(name.clone(), known(watched, deadline).await);
        }
        for (name, watched) in &self.secrets {
            snapshot.secrets.insert(name.clone(), known(watched, deadline).await);
        }
        snapshot
    }

    /// Returns a future that ends when one of them changes after this call. Pending for ever when there are none.
    pub fn changed(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut config_maps: Vec<_> = self.config_maps.values().map(|w| w.state.clone()).collect();
        let mut secrets: Vec<_> = self.secrets.values().map(|w| w.state.clone()).collect();
        config_maps.iter_mut().for_each(watch::Receiver::mark_unchanged);
        secrets.iter_mut().for_each(watch::Receiver::mark_unchanged);
        let keep = self.clone();
        async move {
            let _keep = keep;
            let maps: FuturesUnordered<_> = config_maps.iter_mut().map(watch::Receiver::changed).collect();
            let secrets: FuturesUnordered<_> = secrets.iter_mut().map(watch::Receiver::changed).collect();
            let mut changes = futures::stream::select(maps, secrets);
            if changes.next().await.is_none() {
                std::future::pending::<()>().await;
            }
        }
    }
}

async fn known<K>(watched: &Watched<K>, deadline: tokio::time::Instant) -> Known<K> {
    let mut state = watched.state.clone();
    let settled = state.wait_for(|s| !matches!(s, State::Unknown));
    match tokio::time::timeout_at(deadline, settled).await {
        Ok(Ok(state)) => match &*state {
            State::Present(object) => Known::Present(Arc::clone(object)),
            State::Absent | State::Unknown => Known::Absent,
            State::Refused(why) => Known::Refused(why.clone()),
        },
        _ => Known::Refused("timed out waiting for the API server".to_owned()),
    }
}

#[derive(Clone, Debug)]
enum Known<K> {
    Present(Arc<K>),
    Absent,
    Refused(String),
}

/// The referenced objects at one moment.
#[derive(Clone, Debug, Default)]
pub struct ObjectSnapshot {
    config_maps: BTreeMap<String, Known<ConfigMap>>,
    secrets: BTreeMap<String, Known<Secret>>,
}

impl ObjectSnapshot {
    /// `Ok(None)` only for optional ones.
    pub fn config_map(&self, name: &str, optional: bool) -> Result<Option<&ConfigMap>, String> {
        find("configmap", self.config_maps.get(name), name, optional)
    }

    pub fn secret(&self, name: &str, optional: bool) -> Result<Option<&Secret>, String> {
        find("secret", self.secrets.get(name), name, optional)
    }

    #[cfg(test)]
    pub(crate) fn of<const A: usize, const B: usize>(
        config_maps: [(&str, Option<serde_json::Value>); A],
        secrets: [(&str, Option<serde_json::Value>); B],
    ) -> Self {
        fn known<K: DeserializeOwned>(value: Option<serde_json::Value>) -> Known<K> {
            value.map_or(Known::Absent, |v| {
                let mut v = v;
                v["metadata"] = serde_json::json!({});
                Known::Present(Arc::new(serde_json::from_value(v).unwrap()))
            })
        }
        Self {
            config_maps: config_maps.into_iter().map(|(n, v)| (n.to_owned(), known(v))).collect(),
            secrets: secrets.into_iter().map(|(n, v)| (n.to_owned(), known(v))).collect(),
        }
    }
}

fn find<'a, K>(
    kind: &str,
    known: Option<&'a Known<K>>,
    name: &str,
    optional: bool,
) -> Result<Option<&'a K>, String> {
    match known {
        Some(Known::Present(object)) => Ok(Some(object)),
        Some(Known::Refused(why)) => Err(format!("failed to get {kind} \"{name}\": {why}")),
        Some(Known::Absent) | None if optional => Ok(None),
        Some(Known::Absent) | None => Err(format!("{kind} \"{name}\" not found")),
    }
}

#[derive(Debug, Default, PartialEq, Eq)]
struct References {
    config_maps: BTreeSet<String>,
    secrets: BTreeSet<String>,
}

/// Every ConfigMap and Secret the pod names: environment, volumes, pull secrets.
fn references(pod: &Pod) -> References {
    let mut out = References::default();
    let Some(spec) = &pod.spec else { return out };
    out.secrets.extend(spec.image_pull_secrets.iter().flatten().map(|s| s.name.clone()));
    let ephemeral = pod::ephemeral(pod);
    for container in pod::with_ephemeral(pod, &ephemeral).map(|c| c.container) {
        for source in container.env_from.iter().flatten() {
            out.config_maps.extend(source.config_map_ref.as_ref().map(|r| r.name.clone()));
            out.secrets.extend(source.secret_ref.as_ref().map(|r| r.name.clone()));
        }
        for source in container.env.iter().flatten().filter_map(|e| e.value_from.as_ref()) {
            out.config_maps.extend(source.config_map_key_ref.as_ref().map(|r| r.name.clone()));
            out.secrets.extend(source.secret_key_ref.as_ref().map(|r| r.name.clone()));
        }
    }
    for volume in spec.volumes.iter().flatten() {
        out.config_maps.extend(volume.config_map.as_ref().map(|v| v.name.clone()));
        out.secrets.extend(volume.secret.as_ref().and_then(|v| v.secret_name.clone()));
        for source in volume.projected.iter().flat_map(|p| p.sources.iter().flatten()) {
            out.config_maps.extend(source.config_map.as_ref().map(|v| v.name.clone()));
            out.secrets.extend(source.secret.as_ref().map(|v| v.name.clone()));
        }
    }
    out.config_maps.remove("");
    out.secrets.remove("");
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn references_are_found_wherever_a_pod_may_name_them() {
        let pod: Pod = serde_json::from_value(json!({"spec": {
            "imagePullSecrets": [{"name": "pull"}],
            "initContainers": [{"name": "i", "envFrom": [{"configMapRef": {"name": "a"}}]}],
            "containers": [{"name": "c", "env": [
                {"name": "X", "valueFrom": {"secretKeyRef": {"name": "b", "key": "k"}}}]}],
            "volumes": [
                {"name": "v", "secret": {"secretName": "c"}},
                {"name": "w", "projected": {"sources": [{"configMap": {"name": "d"}}, {"secret": {"name": "e"}}]}},
            ],
        }}))
        .unwrap();
        let set = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<BTreeSet<_>>();
        let expected = References { config_maps: set(&["a", "d"]), secrets: set(&["b", "c", "e", "pull"]) };
        assert_eq!(references(&pod), expected);
    }
}
