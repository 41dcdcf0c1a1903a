//! A pod's `/etc/resolv.conf`.
//!
//! Pure but for reading the node's file. In: dnsPolicy, dnsConfig, cluster settings, the node's resolver file. Out: text.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Pod, PodDNSConfig};

use crate::pod;

/// What the cluster says about names.
#[derive(Clone, Debug, Default)]
pub struct ClusterDns {
    pub servers: Vec<IpAddr>,
    pub domain: String,
}

/// The three parts of a resolver configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResolvConf {
    pub nameservers: Vec<String>,
    pub searches: Vec<String>,
    pub options: Vec<String>,
}

const MAX_NAMESERVERS: usize = 3;
const MAX_SEARCHES: usize = 32;
const MAX_SEARCH_CHARS: usize = 2048;

impl ResolvConf {
    pub fn parse(text: &str) -> Self {
        let mut conf = Self::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => conf.nameservers.extend(words.next().map(str::to_owned)),
                Some("search" | "domain") => {
                    conf.searches = words.map(|w| w.strip_suffix('.').unwrap_or(w).to_owned()).collect();
                }
                Some("options") => conf.options = words.map(str::to_owned).collect(),
                _ => {}
            }
        }
        conf
    }

    pub fn render(&self) -> String {
        let mut out = String::new();
        if !self.searches.is_empty() {
            out.push_str(&format!("search {}\n", self.searches.join(" ")));
        }
        for server in &self.nameservers {
            out.push_str(&format!("nameserver {server}\n"));
        }
        if !self.options.is_empty() {
            out.push_str(&format!("options {}\n", self.options.join(" ")));
        }
        out
    }

    fn limit(&mut self) {
        self.nameservers.truncate(MAX_NAMESERVERS);
        self.searches.truncate(MAX_SEARCHES);
        while self.searches.iter().map(|s| s.len() + 1).sum::<usize>() > MAX_SEARCH_CHARS {
            self.searches.pop();
        }
    }
}

/// The resolver configuration of `pod` on a node whose own is `node`.
pub fn resolv_conf(pod: &Pod, cluster: &ClusterDns, node: &ResolvConf) -> ResolvConf {
    let spec = pod.spec.as_ref();
    let policy = spec.and_then(|s| s.dns_policy.as_deref()).unwrap_or("ClusterFirst");
    let mut conf = match policy {
        "None" => ResolvConf::default(),
        "Default" => node.clone(),
        "ClusterFirst" if pod::is_host_network(pod) => node.clone(),
        _ if cluster.servers.is_empty() => node.clone(),
        _ => cluster_first(pod, cluster, node),
    };
    if let Some(config) = spec.and_then(|s| s.dns_config.as_ref()) {
        add(&mut conf, config);
    }
    conf.limit();
    conf
}

fn cluster_first(pod: &Pod, cluster: &ClusterDns, node: &ResolvConf) -> ResolvConf {
    let domain = &cluster.domain;
    let mut searches =
        vec![format!("{}.svc.{domain}", pod::namespace(pod)), format!("svc.{domain}"), domain.clone()];
    searches.extend(node.searches.iter().filter(|s| !searches.contains(s)).cloned().collect::<Vec<_>>());
    ResolvConf {
        nameservers: cluster.servers.iter().map(ToString::to_string).collect(),
        searches,
        options: vec!["ndots:5".to_owned()],
    }
}

fn add(conf: &mut ResolvConf, config: &PodDNSConfig) {
    for server in config.nameservers.iter().flatten() {
        if !conf.nameservers.contains(server) {
            conf.nameservers.push(server.clone());
        }
    }
    for search in config.searches.iter().flatten() {
        if !conf.searches.contains(search) {
            conf.searches.push(search.clone());
        }
    }
    for option in config.options.iter().flatten() {
        let Some(name) = &option.name else { continue };
        conf.options.retain(|o| o.split(':').next() != Some(name));
        conf.options.push(match &option.value {
            Some(value) if !value.is_empty() => format!("{name}:{value}"),
            _ => name.clone(),
        });
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn render(spec: serde_json::Value) -> String {
        let pod: Pod =
            serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "shop"}, "spec": spec}))
                .unwrap();
        let cluster =
            ClusterDns { servers: vec!["10.96.0.10".parse().unwrap()], domain: "cluster.local".into() };
        let node =
            ResolvConf::parse("# own\nnameserver 192.0.2.1\nsearch example.org.\noptions edns0 timeout:2\n");
        resolv_conf(&pod, &cluster, &node).render()
    }

    #[test]
    fn policies_choose_between_cluster_and_node() {
        let cluster = "search shop.svc.cluster.local svc.cluster.local cluster.local example.org\n\
                       nameserver 10.96.0.10\noptions ndots:5\n";
        let node = "search example.org\nnameserver 192.0.2.1\noptions edns0 timeout:2\n";
        let cases = [
            (json!({"containers": []}), cluster),
            (json!({"containers": [], "dnsPolicy": "ClusterFirst", "hostNetwork": true}), node),
            (json!({"containers": [], "dnsPolicy": "ClusterFirstWithHostNet", "hostNetwork": true}), cluster),
            (json!({"containers": [], "dnsPolicy": "Default"}), node),
            (json!({"containers": [], "dnsPolicy": "None"}), ""),
        ];
        for (spec, expected) in cases {
            assert_eq!(render(spec.clone()), expected, "{spec}");
        }
    }

    #[test]
    fn dns_config_adds_and_overrides() {
        let text = render(json!({"containers": [], "dnsConfig": {
            "nameservers": ["198.51.100.1", "10.96.0.10"],
            "searches": ["my.dns"],
            "options": [{"name": "ndots", "value": "2"}, {"name": "rotate"}],
        }}));
        assert!(text.contains("nameserver 10.96.0.10\nnameserver 198.51.100.1\n"));
        assert!(text.contains("example.org my.dns\n"));
        assert!(text.contains("options ndots:2 rotate\n"));
    }
}
