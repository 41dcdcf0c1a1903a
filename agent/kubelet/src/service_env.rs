//! Environment variables that name Services.
//!
//! In: a watch of Services. Out: variables for a pod's namespace. The kubelet reads Services for nothing else.

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use tokio::sync::watch;

use crate::pod;

/// What is kept of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    host: String,
    /// Name, protocol, port.
    ports: Vec<(String, String, i32)>,
}

/// How long a container's start waits for the first list of Services.
const FIRST_LIST: Duration = Duration::from_secs(10);

type Key = (String, String);

/// The Services of the cluster as far as they become variables.
#[derive(Clone, Debug)]
pub struct ServiceEnv {
    entries: Arc<RwLock<BTreeMap<Key, Entry>>>,
    complete: watch::Receiver<bool>,
}

impl ServiceEnv {
    /// Watches until the process ends.
    pub fn spawn(client: Client) -> Self {
        let entries = Arc::new(RwLock::new(BTreeMap::new()));
        let (done, complete) = watch::channel(false);
        let shared = Arc::clone(&entries);
        tokio::spawn(async move {
            let config = watcher::Config::default();
            let stream = watcher(Api::<Service>::all(client), config).default_backoff();
            let mut stream = std::pin::pin!(stream);
            let mut listed = BTreeMap::new();
            loop {
                match stream.next().await {
                    Some(Ok(event)) => apply(&shared, &mut listed, event, &done),
                    Some(Err(error)) => tracing::debug!(%error, "watch of services broke; it is begun again"),
                    None => return,
                }
            }
        });
        Self { entries, complete }
    }

    /// Waits a while for the first list to be complete.
    pub async fn ready_within_limit(&self) -> bool {
        let mut complete = self.complete.clone();
        let ready = complete.wait_for(|done| *done);
        matches!(tokio::time::timeout(FIRST_LIST, ready).await, Ok(Ok(_)))
    }

    /// Variables for a pod: the API's own always, its namespace's unless `enableServiceLinks` is false.
    pub fn variables(&self, pod: &Pod) -> BTreeMap<String, String> {
        let links = pod.spec.as_ref().and_then(|s| s.enable_service_links).unwrap_or(true);
        let namespace = pod::namespace(pod);
        let entries = self.entries.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut out = BTreeMap::new();
        for ((ns, name), entry) in entries.iter() {
            let api = ns == "default" && name == "kubernetes";
            if api || (links && ns == namespace) {
                // A namespace's own Service of that name wins over the API's.
                let variables = variables(name, entry);
                if api && ns != namespace {
                    for (key, value) in variables {
                        out.entry(key).or_insert(value);
                    }
                } else {
                    out.extend(variables);
                }
            }
        }
        out
    }

    #[cfg(test)]
    pub(crate) fn fixed(services: &[Service]) -> Self {
        let entries = services.iter().filter_map(entry).collect();
        let (_, complete) = watch::channel(true);
        Self { entries: Arc::new(RwLock::new(entries)), complete }
    }
}

fn apply(
    shared: &RwLock<BTreeMap<Key, Entry>>,
    listed: &mut BTreeMap<Key, Entry>,
    event: watcher::Event<Service>,
    done: &watch::Sender<bool>,
) {
    let mut entries = shared.write().unwrap_or_else(std::sync::PoisonError::into_inner);
    match event {
        watcher::Event::Init => listed.clear(),
        watcher::Event::InitApply(service) => listed.extend(entry(&service)),
        watcher::Event::InitDone => {
            *entries = std::mem::take(listed);
            done.send_replace(true);
        }
        watcher::Event::Apply(service) => match entry(&service) {
            Some((key, entry)) => {
                entries.insert(key, entry);
            }
            None => {
                entries.remove(&key(&service));
            }
        },
        watcher::Event::Delete(service) => {
            entries.remove(&key(&service));
        }
    }
}

fn key(service: &Service) -> Key {
    (
        service.metadata.namespace.clone().unwrap_or_default(),
        service.metadata.name.clone().unwrap_or_default(),
    )
}

fn entry(service: &Service) -> Option<(Key, Entry)> {
    let spec = service.spec.as_ref()?;
    let host = spec.cluster_ip.clone().filter(|ip| !ip.is_empty() && ip != "None")?;
    let ports = spec.ports.iter().flatten();
    let ports = ports
        .map(|p| {
            let protocol = p.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
            (p.name.clone().unwrap_or_default(), protocol, p.port)
        })
        .collect();
    Some((key(service), Entry { host, ports }))
}

fn env_name(name: &str) -> String {
    name.to_uppercase().replace('-', "_")
}

fn variables(name: &str, entry: &Entry) -> Vec<(String, String)> {
    let prefix = env_name(name);
    let host = &entry.host;
    let mut out = vec![(format!("{prefix}_SERVICE_HOST"), host.clone())];
    let Some((_, _, first)) = entry.ports.first() else { return out };
    out.push((format!("{prefix}_SERVICE_PORT"), first.to_string()));
    let in_url = if host.contains(':') { format!("[{host}]") } else { host.clone() };
    for (i, (port_name, protocol, port)) in entry.ports.iter().enumerate() {
        if !port_name.is_empty() {
            out.push((format!("{prefix}_SERVICE_PORT_{}", env_name(port_name)), port.to_string()));
        }
        let lower = protocol.to_lowercase();
        let url = format!("{lower}://{in_url}:{port}");
        if i == 0 {
            out.push((format!("{prefix}_PORT"), url.clone()));
        }
        let port_prefix = format!("{prefix}_PORT_{port}_{}", protocol.to_uppercase());
        out.push((port_prefix.clone(), url));
        out.push((format!("{port_prefix}_PROTO"), lower));
        out.push((format!("{port_prefix}_PORT"), port.to_string()));
        out.push((format!("{port_prefix}_ADDR"), host.clone()));
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn service(namespace: &str, name: &str, ip: &str) -> Service {
        serde_json::from_value(json!({
            "metadata": {"namespace": namespace, "name": name},
            "spec": {"clusterIP": ip, "ports": [
                {"name": "web-http", "port": 80}, {"name": "dns", "port": 53, "protocol": "UDP"}]},
        }))
        .unwrap()
    }

    #[test]
    fn variables_come_from_the_own_namespace_and_the_api() {
        let env = ServiceEnv::fixed(&[
            service("default", "kubernetes", "10.96.0.1"),
            service("n", "my-db", "fd00::7"),
            service("n", "headless", "None"),
            service("other", "hidden", "10.96.0.9"),
        ]);
        let pod = |links: bool| -> Pod {
            serde_json::from_value(json!({"metadata": {"namespace": "n"},
                "spec": {"containers": [], "enableServiceLinks": links}}))
            .unwrap()
        };
        let all = env.variables(&pod(true));
        assert_eq!(all["KUBERNETES_SERVICE_HOST"], "10.96.0.1");
        assert_eq!(all["MY_DB_SERVICE_PORT_WEB_HTTP"], "80");
        assert_eq!(all["MY_DB_PORT"], "tcp://[fd00::7]:80");
        assert_eq!(all["MY_DB_PORT_53_UDP_ADDR"], "fd00::7");
        assert!(!all.keys().any(|k| k.contains("HIDDEN") || k.contains("HEADLESS")));
        let few = env.variables(&pod(false));
        assert!(few.keys().all(|k| k.starts_with("KUBERNETES_")));
    }
}
