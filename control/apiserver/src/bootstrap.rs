//! Objects that every cluster has: namespaces, priority classes, the `kubernetes` and `kube-dns` services, roles.
//!
//! In: the configuration. Out: these objects in the store, made at start and made again when someone removes or changes
//! what must stay. Events older than an hour go, as upstream lets them expire.

use std::net::IpAddr;
use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};
use tokio::time::{MissedTickBehavior, interval};
use xebec_api::wellknown::names;
use xebec_store::Revision;

use crate::authn::UserInfo;
use crate::kinds::Verb;
use crate::meta;
use crate::options::{DeleteOptions, WriteOptions};
use crate::registry::create::Ownership;
use crate::registry::update::{self, Door, Edit};
use crate::registry::{Cx, Served, create, delete};
use crate::server::ApiServer;
use crate::status::ApiError;
use crate::stored;

/// As whom the server writes for itself.
const AGENT: &str = "xebec-control";
/// How long Events are kept after their last write.
const EVENT_TTL: Duration = Duration::from_secs(3600);
const EVENT_SWEEP: Duration = Duration::from_secs(300);
/// The pause after a failure, so that a broken store is not asked without end.
const RETRY: Duration = Duration::from_secs(1);
const DNS_PORT: u16 = 53;

mod roles;

/// An object that must be there, and the fields that must be as they are here.
struct Wanted {
    group: &'static str,
    plural: &'static str,
    namespace: Option<&'static str>,
    object: Value,
    /// Top-level fields that are put right; none: the object only has to exist.
    kept: &'static [&'static str],
}

impl ApiServer {
    /// Makes what every cluster has, then lets `/readyz` say ok. Idempotent.
    pub async fn bootstrap(&self) -> Result<(), ApiError> {
        for wanted in self.wanted() {
            self.ensure(&wanted).await?;
        }
        if !self.is_ready() {
            self.ensure_roles().await?;
        }
        self.set_ready();
        Ok(())
    }

    /// Keeps these objects right, aggregates roles, cleans up after definitions, tells what is used of quotas and lets Events expire, until dropped.
    pub async fn maintain(&self) {
        tokio::join!(
            self.keep_quota_status(),
            self.guard(),
            self.expire_events(),
            self.keep_aggregated(),
            self.clean_up_definitions()
        );
    }

    async fn guard(&self) {
        loop {
            // Watch first: what changes while we look is seen by the watch.
            let watches: Result<Vec<_>, _> = self
                .guarded_prefixes()
                .iter()
                .map(|prefix| {
                    let store = &self.registry().store;
                    store.watch(prefix.as_bytes(), store.revision())
                })
                .collect();
            let outcome = self.bootstrap().await;
            if let Err(error) = &outcome {
                tracing::warn!(%error, "a bootstrap object could not be put right");
            }
            let (Ok(mut watches), Ok(())) = (watches, outcome) else {
                tokio::time::sleep(RETRY).await;
                continue;
            };
            let changed = watches.iter_mut().map(|watch| Box::pin(watch.next()));
            if let (Err(end), _, _) = futures::future::select_all(changed).await {
                tracing::debug!(%end, "a watch of bootstrap objects ended");
                tokio::time::sleep(RETRY).await;
            }
        }
    }

    fn guarded_prefixes(&self) -> Vec<String> {
        let wanted = self.wanted();
        wanted
            .iter()
            .filter_map(|wanted| {
                let served = self.served(wanted)?;
                Some(stored::key(&served.resource, wanted.namespace, meta::name(&wanted.object)))
            })
            .collect()
    }

    fn served(&self, wanted: &Wanted) -> Option<&Served> {
        self.registry().kinds.get(wanted.group, "v1", wanted.plural)
    }

    fn wanted(&self) -> Vec<Wanted> {
        let config = &self.registry().config;
        let mut wanted: Vec<Wanted> =
            [names::DEFAULT, names::KUBE_SYSTEM, names::KUBE_PUBLIC, names::KUBE_NODE_LEASE]
                .into_iter()
                .map(|name| Wanted {
                    group: "",
                    plural: "namespaces",
                    namespace: None,
                    object: json!({ "metadata": { "name": name } }),
                    kept: &[],
                })
                .collect();
        for (name, value, description) in [
            (
                names::SYSTEM_CLUSTER_CRITICAL,
                2_000_000_000,
                "For pods the cluster cannot work without, on whatever node they run.",
            ),
            (
                names::SYSTEM_NODE_CRITICAL,
                2_000_001_000,
                "For pods a node cannot work without; they are not moved to another node.",
            ),
        ] {
            wanted.push(Wanted {
                group: "scheduling.k8s.io",
                plural: "priorityclasses",
                namespace: None,
                object: json!({
                    "metadata": { "name": name }, "value": value, "description": description,
                }),
                kept: &[],
            });
        }
        let first: Vec<IpAddr> = self
            .registry()
            .allocators
            .lock()
            .addresses
            .iter()
            .map(super::alloc::ip::IpRange::first)
            .collect();
        wanted.push(kubernetes_service(&first));
        // Loopback is another machine to every pod: an API server that listens nowhere else has no endpoint.
        let reachable: Vec<IpAddr> =
            config.advertise_addresses.iter().copied().filter(|address| !address.is_loopback()).collect();
        match reachable.first() {
            Some(first) => wanted.push(kubernetes_slice(&reachable, *first, config.advertise_port)),
            None => tracing::warn!("only loopback addresses are advertised: pods will not reach the API"),
        }
        if !config.dns_addresses.is_empty() {
            wanted.push(dns_service(&config.dns_addresses));
        }
        wanted
    }

    async fn ensure(&self, wanted: &Wanted) -> Result<(), ApiError> {
        let Some(served) = self.served(wanted) else { return Ok(()) };
        let user = UserInfo::authenticated(names::USER_APISERVER, [names::GROUP_MASTERS]);
        let cx = Cx::new(self.registry(), &user, AGENT, "");
        let name = meta::name(&wanted.object).to_owned();
        let mut object = wanted.object.clone();
        meta::set(&mut object, &["kind"], Some((*served.stored.kind).into()));
        meta::set(&mut object, &["apiVersion"], Some(served.stored.api_version().into()));
        create::set_namespace(&mut object, wanted.namespace)?;
        let options = WriteOptions::default();
        if self.registry().find(served, wanted.namespace, &name).is_none() {
            match create::insert(&cx, served, wanted.namespace, object, Ownership::Writer(&options)).await {
                Err(error) if error.code() == StatusCode::CONFLICT => {}
                other => return other.map(drop),
            }
        }
        if wanted.kept.is_empty() {
            return Ok(());
        }
        let edit = Edit {
            served,
            namespace: wanted.namespace,
            name: &name,
            door: Door::Main,
            verb: Verb::Patch,
            options: &options,
            records: false,
        };
        let put_right = |mut current: Value| {
            for field in wanted.kept {
                meta::set(&mut current, &[field], wanted.object.get(field).cloned());
            }
            Ok(current)
        };
        update::update(&cx, edit, put_right).await.map(drop)
    }

    /// Events whose last write is older than the limit are removed.
    async fn expire_events(&self) {
        let mut ticks = interval(EVENT_SWEEP);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The store's revision at each tick, oldest first: an Event at or below the oldest one kept is too old.
        let mut marks: std::collections::VecDeque<Revision> = std::collections::VecDeque::new();
        let keep = usize::try_from(EVENT_TTL.as_secs() / EVENT_SWEEP.as_secs()).unwrap_or(1);
        loop {
            ticks.tick().await;
            marks.push_back(self.registry().store.revision());
            while marks.len() > keep + 1 {
                marks.pop_front();
            }
            if let Some(limit) = marks.front().copied().filter(|_| marks.len() > keep) {
                self.remove_events(limit).await;
            }
        }
    }

    async fn remove_events(&self, limit: Revision) {
        let served = self.registry().kinds.core("events");
        let prefix = stored::prefix(&served.resource, None);
        let user = UserInfo::authenticated(names::USER_APISERVER, [names::GROUP_MASTERS]);
        let cx = Cx::new(self.registry(), &user, AGENT, "");
        let Ok(page) = self.registry().store.list(prefix.as_bytes(), None, 0, None) else { return };
        for kv in page.items.iter().filter(|kv| kv.mod_revision <= limit) {
            let key = String::from_utf8_lossy(&kv.key);
            let Some((namespace, name)) = key[prefix.len()..].split_once('/') else { continue };
            let options = DeleteOptions {
                resource_version: Some(kv.mod_revision.to_string()),
                ..DeleteOptions::default()
            };
            if let Err(error) = delete::delete(&cx, served, Some(namespace), name, &options).await {
                tracing::debug!(%error, "an old Event was not removed");
            }
        }
    }
}

fn kubernetes_service(addresses: &[IpAddr]) -> Wanted {
    let cluster_ip = addresses.first().map(ToString::to_string);
    Wanted {
        group: "",
        plural: "services",
        namespace: Some(names::DEFAULT),
        object: json!({
            "metadata": {
                "name": names::KUBERNETES_SERVICE,
                "labels": { "component": "apiserver", "provider": "kubernetes" },
            },
            "spec": {
                "clusterIP": cluster_ip, "clusterIPs": [cluster_ip], "type": "ClusterIP",
                "ipFamilyPolicy": "SingleStack", "sessionAffinity": "None",
                "ports": [{ "name": "https", "port": 443, "protocol": "TCP", "targetPort": 6443 }],
            },
        }),
        kept: &[],
    }
}

/// The addresses of the family of the first one: a slice holds one family.
fn kubernetes_slice(addresses: &[IpAddr], first: IpAddr, port: u16) -> Wanted {
    let family: Vec<String> =
        addresses.iter().filter(|a| a.is_ipv4() == first.is_ipv4()).map(ToString::to_string).collect();
    let endpoints: Vec<Value> = family
        .iter()
        .map(|address| json!({ "addresses": [address], "conditions": { "ready": true } }))
        .collect();
    Wanted {
        group: "discovery.k8s.io",
        plural: "endpointslices",
        namespace: Some(names::DEFAULT),
        object: json!({
            "metadata": {
                "name": names::KUBERNETES_SERVICE,
                "labels": { "kubernetes.io/service-name": names::KUBERNETES_SERVICE },
            },
            "addressType": if first.is_ipv4() { "IPv4" } else { "IPv6" },
            "endpoints": endpoints,
            "ports": [{ "name": "https", "port": port, "protocol": "TCP" }],
        }),
        kept: &["endpoints", "ports"],
    }
}

/// No selector: the agents, which answer the queries, write its slices.
fn dns_service(addresses: &[IpAddr]) -> Wanted {
    let texts: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    let families: Vec<&str> =
        addresses.iter().map(|address| if address.is_ipv4() { "IPv4" } else { "IPv6" }).collect();
    let policy = if addresses.len() > 1 { "RequireDualStack" } else { "SingleStack" };
    let port = |name: &str, protocol: &str| json!({ "name": name, "port": DNS_PORT, "protocol": protocol, "targetPort": DNS_PORT });
    Wanted {
        group: "",
        plural: "services",
        namespace: Some(names::KUBE_SYSTEM),
        object: json!({
            "metadata": {
                "name": names::KUBE_DNS,
                "labels": { "k8s-app": "kube-dns", "kubernetes.io/name": "CoreDNS" },
            },
            "spec": {
                "clusterIP": texts[0], "clusterIPs": texts, "type": "ClusterIP", "ipFamilies": families,
                "ipFamilyPolicy": policy, "internalTrafficPolicy": "Local", "sessionAffinity": "None",
                "ports": [port("dns", "UDP"), port("dns-tcp", "TCP")],
            },
        }),
        kept: &[],
    }
}
