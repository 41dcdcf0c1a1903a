//! The hub namespace: bridge, host link, registry and DNS forwarder.
//!
//! In: the cluster's subnet. Out: a network namespace with a bridge, one veth to the host, the hub process. The host
//! gets one link and the route that its address implies, and nothing else.

use std::net::IpAddr;

use anyhow::{Result, bail};

use super::Session;
use crate::cgroup;
use crate::command::{output, own_program};
use crate::layout::{Cluster, Subnet, with_prefix_len};
use crate::namespace::{Place, create_netns};
use crate::process::Daemon;
use crate::tools::Tool;

/// A subnet the host has no route of its own to. A wider one, as of a VPN, yields to it while the cluster is up.
pub fn free_subnet(cluster: &Cluster, ip: &Tool) -> Result<Subnet> {
    let routes = output(ip.command().args(["-4", "route", "show", "table", "all"]))?;
    for attempt in 0..64 {
        let subnet = cluster.preferred_subnet(attempt);
        if !routes.contains(&subnet.v4_prefix()) {
            return Ok(subnet);
        }
    }
    bail!("the host has routes to all of 10.128.0.0–10.191.255.255: no subnet is left for a cluster")
}

pub fn ensure(session: &Session) -> Result<()> {
    let hub = session.cluster.netns("hub");
    create_netns(&hub)?;
    cgroup::create(&cgroup_path(session))?;
    if !session.ip_ok(&["-n", &hub, "link", "show", "br0"]) {
        session.ip(&["-n", &hub, "link", "add", "br0", "type", "bridge"])?;
    }
    session.ip(&["-n", &hub, "link", "set", "lo", "up"])?;
    session.ip(&["-n", &hub, "link", "set", "br0", "up"])?;
    session.address(Some(&hub), "br0", &session.state.subnet.hub())?;
    let host = session.cluster.host_link();
    if !session.ip_ok(&["link", "show", &host]) {
        session.ip(&["link", "add", &host, "type", "veth", "peer", "name", "host", "netns", &hub])?;
    }
    session.ip(&["-n", &hub, "link", "set", "host", "master", "br0", "up"])?;
    session.ip(&["link", "set", &host, "up"])?;
    session.address(None, &host, &session.state.subnet.host())?;
    hub_process(session)
}

/// The veth from a node's `eth0` to the bridge.
pub fn ensure_uplink(session: &Session, node: &str, addresses: &[IpAddr]) -> Result<()> {
    let (hub, netns) = (session.cluster.netns("hub"), session.cluster.netns(node));
    create_netns(&netns)?;
    if !session.ip_ok(&["-n", &netns, "link", "show", "eth0"]) {
        session.ip(&[
            "-n", &netns, "link", "add", "eth0", "type", "veth", "peer", "name", node, "netns", &hub,
        ])?;
    }
    session.ip(&["-n", &hub, "link", "set", node, "master", "br0", "up"])?;
    session.ip(&["-n", &netns, "link", "set", "lo", "up"])?;
    session.ip(&["-n", &netns, "link", "set", "eth0", "up"])?;
    session.address(Some(&netns), "eth0", addresses)?;
    let [via4, via6] = session.state.subnet.hub().map(|a| a.to_string());
    session.ip(&["-n", &netns, "-4", "route", "replace", "default", "via", &via4])?;
    session.ip(&["-n", &netns, "-6", "route", "replace", "default", "via", &via6])
}

fn hub_process(session: &Session) -> Result<()> {
    let dir = session.cluster.dir.as_os_str().to_owned();
    let xtask = own_program()?;
    session.processes.ensure(&Daemon {
        name: "hub.hub".to_owned(),
        place: Place { cgroup: cgroup_path(session), netns: None, holder: None },
        uid: None,
        program: &xtask,
        args: vec!["hub".into(), "--dir".into(), dir],
        env: Vec::new(),
    })?;
    Ok(())
}

fn cgroup_path(session: &Session) -> std::path::PathBuf {
    [session.cluster.name().as_str(), "hub"].iter().collect()
}

impl Session {
    pub fn ip(&self, args: &[&str]) -> Result<()> {
        output(self.ip.command().args(args)).map(drop)
    }

    fn ip_ok(&self, args: &[&str]) -> bool {
        output(self.ip.command().args(args)).is_ok()
    }

    fn address(&self, netns: Option<&str>, link: &str, addresses: &[IpAddr]) -> Result<()> {
        for address in addresses {
            let with_len = with_prefix_len(*address);
            let mut args = netns.map(|n| vec!["-n", n]).unwrap_or_default();
            args.extend(["address", "replace", &with_len, "dev", link]);
            if address.is_ipv6() {
                // Duplicate address detection would leave it unusable for a second.
                args.push("nodad");
            }
            self.ip(&args)?;
        }
        Ok(())
    }
}
