//! The command line.
//!
//! In: arguments and `XEBEC_*` variables. Out: checked settings of each subcommand.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use k8s_openapi::api::core::v1::Taint;

use crate::join::JoinArgs;
use crate::log::LogFormat;
use crate::node::Thresholds;
use crate::place::Told;

/// Kubelet and service proxy of a node
#[derive(Debug, Parser)]
#[command(name = "xebec-agent", version)]
pub struct Cli {
    /// Form of log lines
    #[arg(long, value_enum, default_value_t = LogFormat::Text, global = true)]
    pub log_format: LogFormat,
    #[command(subcommand)]
    pub task: Task,
}

#[derive(Debug, Subcommand)]
pub enum Task {
    /// Be this node's kubelet and service proxy
    Run(Box<RunArgs>),
    /// Answer this node's DNS queries
    Dns(DnsArgs),
    /// Show what the datapath dropped, and why
    Drops(DropsArgs),
}

#[derive(Debug, Args)]
pub struct RunArgs {
    #[command(flatten)]
    pub place: PlaceArgs,
    #[command(flatten)]
    pub join: JoinArgs,
    #[arg(
        long,
        env = "XEBEC_CONTAINERD_SOCKET",
        value_name = "FILE",
        default_value = "/run/containerd/containerd.sock"
    )]
    pub containerd_socket: PathBuf,
    /// Namespace in containerd. Two kubelets of one machine need two
    #[arg(long, env = "XEBEC_CONTAINERD_NAMESPACE", value_name = "NAME", default_value = "k8s.io")]
    pub containerd_namespace: String,
    /// Pinned namespaces and what must not survive a boot
    #[arg(long, value_name = "DIR", default_value = "/run/xebec")]
    pub run_dir: PathBuf,
    /// Container logs
    #[arg(long, value_name = "DIR", default_value = "/var/log/pods")]
    pub log_dir: PathBuf,
    /// Links to container logs under the names that collectors look for, usually in /var/log/containers
    #[arg(long, value_name = "DIR")]
    pub log_links_dir: Option<PathBuf>,
    /// Folder on a bpffs for maps and links
    #[arg(long, value_name = "DIR", default_value = "/sys/fs/bpf")]
    pub bpffs: PathBuf,
    /// cgroup, relative to the hierarchies' roots, that holds all processes of this node
    #[arg(long, env = "XEBEC_CGROUP_ROOT", value_name = "PATH", default_value = "/")]
    pub cgroup_root: String,
    /// Addresses of the cluster's DNS Service
    #[arg(
        long,
        env = "XEBEC_CLUSTER_DNS",
        value_name = "IP[,IP]",
        value_delimiter = ',',
        default_value = "10.96.0.10"
    )]
    pub cluster_dns: Vec<IpAddr>,
    #[arg(long, value_name = "DOMAIN", default_value = "cluster.local")]
    pub cluster_domain: String,
    /// The node's own resolver configuration
    #[arg(long, value_name = "FILE", default_value = "/etc/resolv.conf")]
    pub resolv_conf: PathBuf,
    /// Mirror to ask before a registry; may be repeated
    #[arg(
        long,
        env = "XEBEC_REGISTRY_MIRROR",
        value_name = "REGISTRY=URL[,…]",
        value_delimiter = ',',
        value_parser = registry_mirror
    )]
    pub registry_mirror: Vec<(String, String)>,
    /// Port of this node's `xebec-agent dns`
    #[arg(long, value_name = "PORT", default_value_t = 10053)]
    pub dns_port: u16,
    /// Port of the kubelet API
    #[arg(long, env = "XEBEC_KUBELET_PORT", value_name = "PORT", default_value_t = 10250)]
    pub kubelet_port: u16,
    /// Address of the health port, which asks for no credentials
    #[arg(long, value_name = "IP", default_value = "127.0.0.1")]
    pub healthz_bind_address: IpAddr,
    /// The health port; 0 for none
    #[arg(long, env = "XEBEC_HEALTHZ_PORT", value_name = "PORT", default_value_t = 10248)]
    pub healthz_port: u16,
    /// Certificate that the kubelet API shows [default: one that the cluster signs and that is renewed]
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// CA whose clients may use the kubelet API [default: the cluster's, as the kubeconfig names it]
    #[arg(long, value_name = "FILE")]
    pub client_ca: Option<PathBuf>,
    /// Taints the Node object is made with
    #[arg(
        long,
        env = "XEBEC_REGISTER_WITH_TAINTS",
        value_name = "KEY=VALUE:EFFECT[,…]",
        value_delimiter = ',',
        value_parser = taint
    )]
    pub register_with_taints: Vec<Taint>,
    /// Pods this node takes
    #[arg(long, value_name = "N", default_value_t = 110)]
    pub max_pods: u32,
    /// What has to be left of memory, disk and process ids; defaults to the kubelet's
    #[arg(long, env = "XEBEC_EVICTION_HARD", value_name = "SIGNAL<AMOUNT[,…]", default_value = "")]
    pub eviction_hard: Thresholds,
}

/// What `run` and `dns` are told alike.
#[derive(Debug, Args)]
pub struct PlaceArgs {
    /// Name of the Node object [default: the host's name]
    #[arg(long, env = "XEBEC_NODE_NAME", value_name = "NAME")]
    pub node_name: Option<String>,
    /// Credentials for the API server; kept up to date when they are this node's certificate
    /// [default: <state-dir>/kubeconfig]
    #[arg(long, env = "XEBEC_KUBECONFIG", value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Addresses of the node, at most one per family, the primary family first [default: those it speaks from]
    #[arg(long, env = "XEBEC_NODE_IP", value_name = "IP[,IP]", value_delimiter = ',')]
    pub node_ip: Vec<IpAddr>,
    /// Interface towards the other nodes [default: the one that leads to the API server]
    #[arg(long, env = "XEBEC_UPLINK", value_name = "INTERFACE")]
    pub uplink: Option<String>,
    /// Pods' volumes and what must survive a boot
    #[arg(long, env = "XEBEC_STATE_DIR", value_name = "DIR", default_value = "/var/lib/xebec")]
    pub state_dir: PathBuf,
}

#[derive(Debug, Args)]
pub struct DnsArgs {
    #[command(flatten)]
    pub place: PlaceArgs,
    /// Addresses to answer at, UDP and TCP [default: the node's, port 10053]
    #[arg(long, env = "XEBEC_DNS_LISTEN", value_name = "IP:PORT[,…]", value_delimiter = ',')]
    pub listen: Vec<SocketAddr>,
    #[arg(long, value_name = "DOMAIN", default_value = "cluster.local")]
    pub cluster_domain: String,
    /// Resolvers for all other names
    #[arg(long, value_name = "FILE", default_value = "/etc/resolv.conf")]
    pub resolv_conf: PathBuf,
}

#[derive(Debug, Args)]
pub struct DropsArgs {
    /// Folder on a bpffs for maps and links
    #[arg(long, value_name = "DIR", default_value = "/sys/fs/bpf")]
    pub bpffs: PathBuf,
}

// === impl PlaceArgs ===

impl PlaceArgs {
    pub fn kubeconfig(&self) -> PathBuf {
        self.kubeconfig.clone().unwrap_or_else(|| self.state_dir.join("kubeconfig"))
    }

    pub fn told(&self) -> Told {
        Told {
            node_name: self.node_name.clone(),
            addresses: self.node_ip.clone(),
            uplink: self.uplink.clone(),
        }
    }
}

/// `key=value:effect` or `key:effect`, as kubectl writes taints.
fn taint(text: &str) -> Result<Taint, String> {
    let wrong = || {
        format!("{text:?}: write KEY=VALUE:EFFECT, with NoSchedule, PreferNoSchedule or NoExecute as effect")
    };
    let (rest, effect) = text.rsplit_once(':').ok_or_else(wrong)?;
    let (key, value) = rest.split_once('=').unwrap_or((rest, ""));
    if key.is_empty() || !["NoSchedule", "PreferNoSchedule", "NoExecute"].contains(&effect) {
        return Err(wrong());
    }
    Ok(Taint {
        key: key.to_owned(),
        value: (!value.is_empty()).then(|| value.to_owned()),
        effect: effect.to_owned(),
        time_added: None,
    })
}

fn registry_mirror(text: &str) -> Result<(String, String), String> {
    let (registry, url) =
        text.split_once('=').ok_or("write REGISTRY=URL, such as docker.io=http://192.0.2.1:5000")?;
    if registry.is_empty() || !(url.starts_with("http://") || url.starts_with("https://")) {
        return Err(format!("{text:?}: a registry's name, then a URL that begins with http:// or https://"));
    }
    Ok((registry.to_owned(), url.trim_end_matches('/').to_owned()))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_join_line_needs_nothing_else() {
        let line =
            "xebec-agent run --server https://192.0.2.1:6443 --token abcdef.0123456789abcdef --ca-cert-hash";
        let hash = format!("sha256:{}", "0a".repeat(32));
        let parse = |more: &[&str]| Cli::try_parse_from(line.split(' ').chain(more.iter().copied()));
        let Task::Run(args) = parse(&[&hash]).unwrap().task else { panic!("run") };
        assert_eq!(args.place.kubeconfig(), PathBuf::from("/var/lib/xebec/kubeconfig"));
        assert!(args.join.is_given() && args.join.check().is_ok());
        assert!(parse(&["sha256:short"]).is_err());
        let lone = ["xebec-agent", "run", "--token", "abcdef.0123456789abcdef"];
        assert!(Cli::try_parse_from(lone).is_err(), "a token without a server");
        assert!(
            Cli::try_parse_from(["xebec-agent", "run", "--server", "http://192.0.2.1", "--token", "a"])
                .is_err()
        );
    }

    #[test]
    fn taints_are_written_as_kubectl_writes_them() {
        let found = taint("xebec.io/agent=:NoSchedule").unwrap();
        assert_eq!(
            (found.key.as_str(), found.value, found.effect.as_str()),
            ("xebec.io/agent", None, "NoSchedule")
        );
        assert_eq!(taint("a=b:NoExecute").unwrap().value.as_deref(), Some("b"));
        for bad in ["a", "a=b", ":NoSchedule", "a:Never"] {
            assert!(taint(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn mirrors_are_a_registry_and_a_url() {
        assert_eq!(registry_mirror("docker.io=http://a:1/"), Ok(("docker.io".into(), "http://a:1".into())));
        assert!(registry_mirror("docker.io").is_err());
        assert!(registry_mirror("docker.io=ftp://a").is_err());
    }
}
