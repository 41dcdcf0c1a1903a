//! The command line.
//!
//! In: arguments. Out: typed, checked settings. No I/O.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use ipnet::IpNet;
use xebec_apiserver::RequestLimits;

#[derive(Debug, Parser)]
#[command(name = "xebec-control", version, about = "The Xebec control plane")]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the API server, the scheduler and the controllers
    Run(RunArgs),
    /// Write a kubeconfig with a client certificate signed by the cluster's CA
    Kubeconfig(KubeconfigArgs),
    /// Write a node's serving certificate, signed by the cluster's CA
    NodeCerts(NodeCertsArgs),
    /// Write a copy of the store and the keys, also while the control plane runs. It holds every Secret
    Backup(BackupArgs),
    /// Make a data folder out of a backup
    Restore(RestoreArgs),
    /// Show when the cluster's certificates end
    Certs(CertsArgs),
    /// Bootstrap tokens, with which machines join
    Token {
        #[command(subcommand)]
        command: TokenCommand,
    },
}

#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Make a token and print the line that joins a machine with it
    Create(TokenCreateArgs),
}

#[derive(Clone, Debug, Args)]
pub struct RunArgs {
    /// Folder of the store and the keys; made when absent
    #[arg(long, value_name = "DIR")]
    pub data_dir: PathBuf,
    /// Addresses under which nodes and pods reach this API server: IPv4, IPv6, or one of each
    #[arg(long, value_name = "IP[,IP]", value_delimiter = ',', required = true)]
    pub advertise_address: Vec<IpAddr>,
    /// Address to listen on [default: every address of both families]
    #[arg(long, value_name = "IP", value_parser = bracketed_address)]
    pub bind_address: Option<IpAddr>,
    /// Port to listen on
    #[arg(long, value_name = "PORT", default_value_t = 6443)]
    pub secure_port: u16,
    /// Ranges of Service addresses: IPv4, IPv6, or one of each; the first is the default family
    #[arg(long, value_name = "CIDR[,CIDR]", value_delimiter = ',', default_value = "10.96.0.0/16")]
    pub service_cidr: Vec<IpNet>,
    /// Ranges of pod addresses: IPv4, IPv6, or one of each
    #[arg(long, value_name = "CIDR[,CIDR]", value_delimiter = ',', default_value = "10.244.0.0/16")]
    pub cluster_cidr: Vec<IpNet>,
    /// Prefix lengths of a node's pod range, IPv4 then IPv6
    #[arg(long, value_name = "LEN[,LEN]", value_delimiter = ',', default_value = "24,64")]
    pub node_cidr_mask_size: Vec<u8>,
    /// Domain of Service names
    #[arg(long, value_name = "DOMAIN", default_value = "cluster.local")]
    pub cluster_domain: String,
    /// Addresses of the cluster's DNS Service [default: the tenth of each Service range]
    #[arg(long, value_name = "IP[,IP]", value_delimiter = ',')]
    pub cluster_dns: Vec<IpAddr>,
    /// Requests that read, at work at once; 0 is no limit. More are told 429
    #[arg(long, value_name = "N", default_value_t = 400)]
    pub max_requests_inflight: usize,
    /// Requests that write, at work at once; 0 is no limit. More are told 429
    #[arg(long, value_name = "N", default_value_t = 200)]
    pub max_mutating_requests_inflight: usize,
    /// Time until an answer begins, such as 1m0s; watches and other streams go on after it
    #[arg(long, value_name = "TIME", default_value = "1m0s", value_parser = duration)]
    pub request_timeout: Duration,
    /// Seconds after which a watch ends at the earliest when its client names no time
    #[arg(long, value_name = "SECONDS", default_value_t = 1800)]
    pub min_request_timeout: u64,
    /// How long certificates live: those that are asked for at most, and the API server's own
    #[arg(
        long,
        env = "XEBEC_CLUSTER_SIGNING_DURATION",
        value_name = "DURATION",
        default_value = "8760h",
        value_parser = signing_duration
    )]
    pub cluster_signing_duration: Duration,
    /// Admission that is not done: DenyServiceExternalIPs refuses Services that name external addresses, by which
    /// whoever may write Services takes over any address
    #[arg(long, value_enum, value_name = "PLUGIN[,PLUGIN]", value_delimiter = ',')]
    pub disable_admission_plugins: Vec<AdmissionPlugin>,
    /// Form of log lines
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

/// Admission that can be switched off, by upstream's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AdmissionPlugin {
    #[value(name = "DenyServiceExternalIPs")]
    DenyServiceExternalIPs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Args)]
pub struct KubeconfigArgs {
    #[command(flatten)]
    pub who: Who,
    /// Group of the user; may be repeated
    #[arg(long, value_name = "GROUP", requires = "user", conflicts_with_all = ["admin", "node"])]
    pub group: Vec<String>,
    /// URL of the API server, such as https://192.0.2.1:6443
    #[arg(long, value_name = "URL", value_parser = server_url)]
    pub server: String,
    /// Data folder of the control plane
    #[arg(long, value_name = "DIR")]
    pub data_dir: PathBuf,
    /// File to write
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
}

/// Whom a kubeconfig is for.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct Who {
    /// For a cluster administrator
    #[arg(long)]
    pub admin: bool,
    /// For a node's agent
    #[arg(long, value_name = "NAME")]
    pub node: Option<String>,
    /// For any user
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
}

#[derive(Debug, Args)]
pub struct NodeCertsArgs {
    /// Name of the node
    #[arg(long, value_name = "NAME")]
    pub node: String,
    /// Address of the node; may be repeated
    #[arg(long, value_name = "IP", required = true, value_delimiter = ',')]
    pub address: Vec<IpAddr>,
    /// Data folder of the control plane
    #[arg(long, value_name = "DIR")]
    pub data_dir: PathBuf,
    /// Folder to write kubelet.crt, kubelet.key and ca.crt into
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
}

#[derive(Debug, Args)]
pub struct BackupArgs {
    /// Data folder of the control plane
    #[arg(long, value_name = "DIR")]
    pub data_dir: PathBuf,
    /// File to write, readable by its owner only
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
}

#[derive(Debug, Args)]
pub struct RestoreArgs {
    /// Data folder to make; it must not hold a store
    #[arg(long, value_name = "DIR")]
    pub data_dir: PathBuf,
    /// File that `xebec-control backup` wrote
    #[arg(long = "from", value_name = "FILE")]
    pub backup: PathBuf,
}

#[derive(Debug, Args)]
pub struct CertsArgs {
    /// Data folder of the control plane
    #[arg(long, value_name = "DIR")]
    pub data_dir: PathBuf,
}

#[derive(Debug, Args)]
pub struct TokenCreateArgs {
    /// Credentials of an administrator
    #[arg(long, env = "KUBECONFIG", value_name = "FILE")]
    pub kubeconfig: PathBuf,
    /// How long the token is good; 0 for ever
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = duration)]
    pub ttl: Duration,
}

/// How many addresses of a Service range lie before the DNS Service's, as everywhere.
const DNS_OFFSET: u128 = 10;
/// Below it a certificate would be renewed without pause.
const SHORTEST_SIGNING: Duration = Duration::from_secs(10);

// === impl RunArgs ===

impl RunArgs {
    pub fn disables(&self, plugin: AdmissionPlugin) -> bool {
        self.disable_admission_plugins.contains(&plugin)
    }

    /// Says what cannot work together.
    pub fn check(&self) -> Result<(), String> {
        one_per_family("--advertise-address", self.advertise_address.iter().map(IpAddr::is_ipv4))?;
        one_per_family("--service-cidr", self.service_cidr.iter().map(|cidr| cidr.addr().is_ipv4()))?;
        one_per_family("--cluster-cidr", self.cluster_cidr.iter().map(|cidr| cidr.addr().is_ipv4()))?;
        one_per_family("--cluster-dns", self.cluster_dns.iter().map(IpAddr::is_ipv4))?;
        if let Some(bad) = self.advertise_address.iter().find(|ip| ip.is_unspecified() || ip.is_multicast()) {
            return Err(format!("--advertise-address {bad} is no address that a node could connect to"));
        }
        for service in &self.service_cidr {
            if service.max_prefix_len() - service.prefix_len() < 4 {
                return Err(format!("--service-cidr {service} is too small; give at least 16 addresses"));
            }
            if let Some(pods) = self.cluster_cidr.iter().find(|pods| overlap(pods, service)) {
                return Err(format!("--service-cidr {service} and --cluster-cidr {pods} overlap"));
            }
        }
        if let Some(dns) = self.cluster_dns.iter().find(|dns| !self.in_service_range(**dns)) {
            return Err(format!("--cluster-dns {dns} lies in no --service-cidr"));
        }
        if self.request_timeout.is_zero() || self.min_request_timeout == 0 {
            return Err("--request-timeout and --min-request-timeout are longer than nothing".into());
        }
        if self.node_cidr_mask_size.is_empty() || self.node_cidr_mask_size.len() > 2 {
            return Err("--node-cidr-mask-size takes one or two lengths: IPv4, then IPv6".into());
        }
        Ok(())
    }

    /// Addresses of the DNS Service, in the order of the Service ranges.
    pub fn dns_addresses(&self) -> Vec<IpAddr> {
        if self.cluster_dns.is_empty() {
            return self.service_cidr.iter().map(|cidr| nth(cidr, DNS_OFFSET)).collect();
        }
        self.cluster_dns.clone()
    }

    /// Addresses of the `kubernetes` Service: the first of each range.
    pub fn kubernetes_addresses(&self) -> Vec<IpAddr> {
        self.service_cidr.iter().map(|cidr| nth(cidr, 1)).collect()
    }

    /// Prefix lengths of a node's pod ranges: IPv4, IPv6.
    pub fn node_masks(&self) -> (u8, u8) {
        match self.node_cidr_mask_size[..] {
            [ipv4, ipv6, ..] => (ipv4, ipv6),
            [only] if self.cluster_cidr.iter().all(|cidr| cidr.addr().is_ipv6()) => (24, only),
            [only] => (only, 64),
            [] => (24, 64),
        }
    }

    pub fn request_limits(&self) -> RequestLimits {
        RequestLimits {
            reading: self.max_requests_inflight,
            writing: self.max_mutating_requests_inflight,
            timeout: self.request_timeout,
            watch: Duration::from_secs(self.min_request_timeout),
        }
    }

    fn in_service_range(&self, address: IpAddr) -> bool {
        self.service_cidr.iter().any(|cidr| cidr.contains(&address))
    }
}

fn one_per_family(flag: &str, families: impl Iterator<Item = bool>) -> Result<(), String> {
    let (ipv4, ipv6): (Vec<_>, Vec<_>) = families.partition(|is_ipv4| *is_ipv4);
    if ipv4.len() > 1 || ipv6.len() > 1 {
        return Err(format!("{flag} takes at most one value of each family"));
    }
    Ok(())
}

fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(&b.network()) || b.contains(&a.network())
}

fn nth(cidr: &IpNet, offset: u128) -> IpAddr {
    match cidr.network() {
        IpAddr::V4(network) => {
            let offset = u32::try_from(offset).unwrap_or(u32::MAX);
            IpAddr::V4(network.to_bits().saturating_add(offset).into())
        }
        IpAddr::V6(network) => IpAddr::V6(network.to_bits().saturating_add(offset).into()),
    }
}

/// An address, also in the brackets that go with a port.
fn bracketed_address(text: &str) -> Result<IpAddr, String> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    bare.parse().map_err(|_| format!("{text:?} is no IP address"))
}

/// A length of time as Go writes it, such as 8760h or 1h30m.
fn duration(text: &str) -> Result<Duration, String> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let parsed: Result<jiff::SignedDuration, _> = text.parse();
    let length = parsed.ok().and_then(|length| Duration::try_from(length).ok());
    length.ok_or_else(|| format!("{text:?} is no length of time; write it like 24h or 1h30m"))
}

fn signing_duration(text: &str) -> Result<Duration, String> {
    let length = duration(text)?;
    if length < SHORTEST_SIGNING {
        return Err(format!(
            "{text:?} is too short: certificates have to live for {SHORTEST_SIGNING:?} at least"
        ));
    }
    Ok(length)
}

fn server_url(text: &str) -> Result<String, String> {
    let url: http::Uri = text.parse().map_err(|_| format!("{text:?} is no URL"))?;
    if url.scheme_str() != Some("https") || url.host().is_none_or(str::is_empty) {
        return Err(format!("{text:?} does not begin with https:// and a host"));
    }
    Ok(text.trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(arguments: &[&str]) -> Result<RunArgs, String> {
        let base = ["xebec-control", "run", "--data-dir", "d", "--advertise-address", "192.0.2.1"];
        let all = base.iter().chain(arguments);
        match Cli::try_parse_from(all).map_err(|error| error.to_string())?.command {
            Command::Run(arguments) => arguments.check().map(|()| arguments),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn dual_stack_is_understood() {
        let arguments = run(&[
            "--service-cidr=10.96.0.0/16,fd00:96::/112",
            "--cluster-cidr=10.244.0.0/16,fd00:244::/56",
            "--bind-address=[::]",
        ])
        .unwrap();
        let text = |addresses: Vec<IpAddr>| addresses.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(text(arguments.dns_addresses()), ["10.96.0.10", "fd00:96::a"]);
        assert_eq!(text(arguments.kubernetes_addresses()), ["10.96.0.1", "fd00:96::1"]);
        assert_eq!(arguments.node_masks(), (24, 64));
        assert_eq!(run(&["--node-cidr-mask-size=26"]).unwrap().node_masks(), (26, 64));
    }

    #[test]
    fn what_cannot_work_is_named() {
        for (arguments, complaint) in [
            (&["--service-cidr=10.0.0.0/16,10.1.0.0/16"][..], "at most one value of each family"),
            (&["--service-cidr=10.244.1.0/24"], "overlap"),
            (&["--service-cidr=10.96.0.0/30"], "too small"),
            (&["--cluster-dns=10.1.1.1"], "lies in no --service-cidr"),
            (&["--node-cidr-mask-size=24,64,80"], "one or two lengths"),
            (&["--bind-address=everywhere"], "is no IP address"),
            (&["--service-cidr=10.96.0.0/99"], "invalid"),
        ] {
            let refusal = run(arguments).unwrap_err();
            assert!(refusal.contains(complaint), "{arguments:?}: {refusal}");
        }
    }

    #[test]
    fn kubeconfig_is_for_exactly_one() {
        let parse = |who: &[&str]| {
            let rest = ["--server", "https://192.0.2.1:6443/", "--data-dir", "d", "--out", "f"];
            Cli::try_parse_from(["xebec-control", "kubeconfig"].iter().chain(who).chain(&rest)).map(drop)
        };
        assert!(parse(&["--admin"]).is_ok());
        assert!(parse(&["--user", "jane", "--group", "a", "--group", "b"]).is_ok());
        assert!(parse(&["--admin", "--node", "n1"]).is_err());
        assert!(parse(&["--node", "n1", "--group", "a"]).is_err());
        assert!(parse(&[]).is_err());
    }

    #[test]
    fn times_are_written_as_upstream_writes_them() {
        assert_eq!(duration("1m0s"), Ok(Duration::from_secs(60)));
        assert_eq!(duration("1h2m3s4ms"), Ok(Duration::from_millis(3_723_004)));
        for bad in ["", "1", "s", "1x", "-1s", "1m-1s", "99999999999999999999s", "18446744073709551615h"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
        assert_eq!(run(&[]).unwrap().request_limits(), RequestLimits::default());
        assert!(run(&["--request-timeout=0s"]).unwrap_err().contains("longer than nothing"));
    }

    #[test]
    fn lengths_of_time_are_written_as_everywhere() {
        for (text, seconds) in
            [("24h", 86_400), ("1h30m", 5_400), ("90s", 90), ("0", 0), ("8760h0m0s", 31_536_000)]
        {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for bad in ["", "1", "-1h", "soon"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
        assert!(signing_duration("9s").unwrap_err().contains("too short"));
        assert_eq!(run(&["--cluster-signing-duration=1h"]).unwrap().cluster_signing_duration.as_secs(), 3600);
    }

    #[test]
    fn server_has_to_be_https() {
        assert_eq!(server_url("https://[fd00::1]:6443/"), Ok("https://[fd00::1]:6443".into()));
        for bad in ["http://192.0.2.1", "192.0.2.1:6443", "https://", "nonsense url"] {
            assert!(server_url(bad).is_err(), "{bad}");
        }
    }
}
