//! A pod's host name and its `/etc/hosts`.
//!
//! Pure. In: Pod, addresses. Out: names and text.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::Pod;

use crate::pod;

const HOSTNAME_MAX: usize = 63;
const KERNEL_HOSTNAME_MAX: usize = 64;

/// `hostname` as the pod sees it, and its fully qualified form when it has a subdomain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostName {
    pub short: String,
    pub fqdn: Option<String>,
    /// What is set in the UTS namespace.
    pub kernel: String,
}

/// Names of a pod; an error when the qualified name is asked for and does not fit the kernel.
pub fn host_name(pod: &Pod, cluster_domain: &str) -> Result<HostName, String> {
    let spec = pod.spec.as_ref();
    if let Some(name) = spec.and_then(|s| s.hostname_override.clone()).filter(|n| !n.is_empty()) {
        return Ok(HostName { short: name.clone(), fqdn: None, kernel: name });
    }
    let short = match spec.and_then(|s| s.hostname.clone()).filter(|h| !h.is_empty()) {
        Some(hostname) => hostname,
        None => {
            let cut: String = pod::name(pod).chars().take(HOSTNAME_MAX).collect();
            cut.trim_end_matches(['-', '.']).to_owned()
        }
    };
    let fqdn = spec
        .and_then(|s| s.subdomain.as_deref())
        .filter(|s| !s.is_empty())
        .map(|sub| format!("{short}.{sub}.{}.svc.{cluster_domain}", pod::namespace(pod)));
    let as_fqdn = spec.and_then(|s| s.set_hostname_as_fqdn).unwrap_or(false);
    let kernel = match &fqdn {
        Some(fqdn) if as_fqdn && fqdn.len() > KERNEL_HOSTNAME_MAX => {
            return Err(format!(
                "failed to construct FQDN from pod hostname and cluster domain, FQDN {fqdn} is too long ({KERNEL_HOSTNAME_MAX} characters is the max, {} characters requested)",
                fqdn.len()
            ));
        }
        Some(fqdn) if as_fqdn => fqdn.clone(),
        _ => short.clone(),
    };
    Ok(HostName { short, fqdn, kernel })
}

/// The managed hosts file of a pod with a network of its own.
pub fn hosts_file(pod: &Pod, name: &HostName, addresses: &[IpAddr]) -> String {
    let mut out = String::from(
        "# Kubernetes-managed hosts file.\n\
         127.0.0.1\tlocalhost\n\
         ::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::0\tip6-localnet\n\
         fe00::0\tip6-mcastprefix\n\
         fe00::1\tip6-allnodes\n\
         fe00::2\tip6-allrouters\n",
    );
    for address in addresses {
        match &name.fqdn {
            Some(fqdn) => out.push_str(&format!("{address}\t{fqdn}\t{}\n", name.short)),
            None => out.push_str(&format!("{address}\t{}\n", name.short)),
        }
    }
    out + &aliases(pod)
}

/// The node's own file with the pod's aliases, for pods on the host's network.
pub fn host_network_hosts_file(pod: &Pod, nodes: &str) -> String {
    format!("# Kubernetes-managed hosts file (host network).\n{nodes}{}", aliases(pod))
}

fn aliases(pod: &Pod) -> String {
    let mut out = String::new();
    let aliases = pod.spec.iter().flat_map(|s| s.host_aliases.iter().flatten());
    for alias in aliases {
        if out.is_empty() {
            out.push_str("\n# Entries added by HostAliases.\n");
        }
        out.push_str(&format!("{}\t{}\n", alias.ip, alias.hostnames.clone().unwrap_or_default().join("\t")));
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(spec: serde_json::Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "web-0", "namespace": "shop"}, "spec": spec}))
            .unwrap()
    }

    #[test]
    fn names_follow_hostname_subdomain_and_fqdn() {
        let name = |spec| host_name(&pod(spec), "cluster.local");
        let plain = name(json!({"containers": []})).unwrap();
        assert_eq!((plain.short.as_str(), plain.fqdn), ("web-0", None));
        let sub = name(json!({"containers": [], "subdomain": "web", "setHostnameAsFQDN": true})).unwrap();
        assert_eq!(sub.kernel, "web-0.web.shop.svc.cluster.local");
        assert!(
            name(json!({"containers": [], "subdomain": "s".repeat(60), "setHostnameAsFQDN": true})).is_err()
        );
        let over = name(json!({"containers": [], "hostname": "a", "hostnameOverride": "x.y.z"})).unwrap();
        assert_eq!(over.kernel, "x.y.z");
    }

    #[test]
    fn the_hosts_file_names_every_address_and_alias() {
        let pod = pod(json!({
            "containers": [],
            "subdomain": "web",
            "hostAliases": [{"ip": "192.0.2.7", "hostnames": ["foo", "bar"]}],
        }));
        let name = host_name(&pod, "cluster.local").unwrap();
        let text = hosts_file(&pod, &name, &["10.1.0.5".parse().unwrap(), "fd00::5".parse().unwrap()]);
        assert!(text.contains("10.1.0.5\tweb-0.web.shop.svc.cluster.local\tweb-0\n"));
        assert!(text.contains("fd00::5\tweb-0.web.shop.svc.cluster.local\tweb-0\n"));
        assert!(text.ends_with("192.0.2.7\tfoo\tbar\n"));
    }
}
