//! Nodes and pods made of network namespaces around the real datapath.
//!
//! In: a number of nodes, pods to add. Out: a hub (the calling thread's namespace, "outside" to every node) with a bridge,
//! nodes on it with forwarding, routes and an open datapath, pods behind veths with its programs. Processes of pods are
//! threads; none is in a node's cgroup unless it enters, so that services are the packet path's business.
//!
//! ```text
//! hub 172.31.7.254 ── br0 ──┬── up0 node 1 172.31.7.1 ── xeb1 ── eth0 pod 10.99.1.1
//!     fd31:7::fe            └── up0 node 2 fd31:7::2  ── xeb1 ── eth0 pod fd99:2::1
//! ```

mod service;
mod traffic;

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use xebec_datapath::pod::PodEntry;
use xebec_datapath::{Capacity, Datapath, DatapathConfig};

use crate::cgroup::Cgroup;
use crate::netns::{ip, ip_batch};

pub use self::service::Service;
pub use self::traffic::{
    Family, PATIENCE, PORT, Server, TcpClient, UdpClient, is_refused, serve_tcp, serve_udp,
};

/// Size of the maps in tests: small ones are made at once, but a loop of connections leaves many flows behind.
pub const CAPACITY: Capacity =
    Capacity { services: 128, backends: 128, slots: 256, pods: 32, flows: 262_144, affinity: 64 };

/// A network namespace held by a descriptor.
pub struct Netns(File);

/// The hub and its nodes.
pub struct Fabric {
    /// Where clients outside the cluster are.
    pub hub: Netns,
    pub nodes: Vec<FabricNode>,
}

/// A node: a namespace with forwarding and an open datapath.
pub struct FabricNode {
    /// From 1.
    pub number: u8,
    pub netns: Netns,
    pub config: DatapathConfig,
    pub cgroup: Cgroup,
    datapath: Option<Datapath>,
    services: AtomicU32,
}

/// A pod of a node.
pub struct Pod {
    pub node: u8,
    pub number: u8,
    pub netns: Netns,
    /// Host end of its veth.
    pub interface: String,
}

// === impl Netns ===

impl Netns {
    /// A new namespace with its loopback up.
    pub fn create() -> Result<Self> {
        std::thread::scope(|scope| {
            let made = scope.spawn(|| {
                unshare(CloneFlags::CLONE_NEWNET)?;
                ip("link set lo up")?;
                // Lets `ping` do without a raw socket.
                std::fs::write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647")?;
                Self::current()
            });
            joined(made.join())
        })
    }

    /// The calling thread's namespace.
    pub fn current() -> Result<Self> {
        Ok(Self(File::open("/proc/thread-self/ns/net")?))
    }

    /// A path by which other processes can open it while this value lives.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd()))
    }

    /// Runs `work` inside and waits for it.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(&self.0, CloneFlags::CLONE_NEWNET)?;
                work()
            });
            joined(thread.join())
        })
    }

    /// Starts `work` inside.
    pub fn spawn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> JoinHandle<Result<T>> {
        let file = self.0.try_clone();
        std::thread::spawn(move || {
            setns(file?, CloneFlags::CLONE_NEWNET)?;
            work()
        })
    }

    /// Connection tracking entries of the namespace; `None` where the kernel has no connection tracking.
    pub fn tracked_connections(&self) -> Result<Option<u64>> {
        self.run(|| {
            let Ok(text) = std::fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_count") else {
                return Ok(None);
            };
            Ok(Some(text.trim().parse()?))
        })
    }
}

fn joined<T>(result: std::thread::Result<Result<T>>) -> Result<T> {
    match result {
        Ok(result) => result,
        Err(_) => bail!("a thread of the test panicked"),
    }
}

// === impl Fabric ===

impl Fabric {
    /// A hub in the calling thread's namespace, which is the test's own, and nodes beside it. `dir` holds their bpffs.
    pub fn create(dir: &Path, nodes: u8) -> Result<Self> {
        Self::create_with(dir, nodes, |_| {})
    }

    /// The same with other settings.
    pub fn create_with(dir: &Path, nodes: u8, change: fn(&mut DatapathConfig)) -> Result<Self> {
        let hub = Netns::current()?;
        ip_batch(
            "link add br0 type bridge mcast_snooping 0\n\
             link set br0 addrgenmode none\n\
             link set br0 up\n\
             addr add 172.31.7.254/24 dev br0\n\
             addr add fd31:7::fe/64 dev br0 nodad\n",
        )?;
        let nodes = (1..=nodes)
            .map(|number| FabricNode::create(dir, number, nodes, change))
            .collect::<Result<_>>()?;
        Ok(Self { hub, nodes })
    }

    /// Puts a service on every node, as each node's proxy would.
    pub fn serve(&self, service: &Service) -> Result<()> {
        self.nodes.iter().try_for_each(|node| node.serve(service))
    }

    /// Nothing was tracked anywhere.
    pub fn ensure_untracked(&self, pods: &[&Pod]) -> Result<()> {
        let all = self.nodes.iter().map(|node| &node.netns).chain(pods.iter().map(|pod| &pod.netns));
        for netns in all.chain([&self.hub]) {
            if let Some(entries) = netns.tracked_connections()? {
                ensure!(entries == 0, "{entries} connections are tracked");
            }
        }
        Ok(())
    }
}

// === impl FabricNode ===

impl FabricNode {
    fn create(dir: &Path, number: u8, nodes: u8, change: fn(&mut DatapathConfig)) -> Result<Self> {
        let netns = Netns::create()?;
        let path = netns.path();
        ip_batch(&format!(
            "link add n{number} type veth peer name up0 address 02:00:00:02:00:{number:02x} netns {}\n\
             link set n{number} master br0\n\
             link set n{number} addrgenmode none\n\
             link set n{number} up\n",
            path.display()
        ))?;
        let bpffs = dir.join(format!("bpf{number}"));
        std::fs::create_dir_all(&bpffs)?;
        mount(Some("bpf"), &bpffs, Some("bpf"), MsFlags::empty(), Some("mode=0700"))
            .context("mounting a bpffs")?;
        let cgroup = Cgroup::create()?;
        let mut config = node_config(number, &bpffs, cgroup.path());
        change(&mut config);
        let datapath = netns.run(|| {
            forward_packets()?;
            ip_batch(&uplink_lines(number, nodes))?;
            Ok(Datapath::open(&config)?)
        })?;
        Ok(Self { number, netns, config, cgroup, datapath: Some(datapath), services: AtomicU32::new(1) })
    }

    /// Its open datapath.
    ///
    /// # Panics
    /// After [`Self::close`].
    #[must_use]
    pub fn datapath(&self) -> &Datapath {
        self.datapath.as_ref().expect("the datapath is open")
    }

    /// Lets go of the datapath, as an agent that ends.
    pub fn close(&mut self) {
        self.datapath = None;
    }

    /// The node's address.
    #[must_use]
    pub fn address(&self, family: Family) -> IpAddr {
        node_address(self.number, family)
    }

    /// Adds a pod with both addresses.
    pub fn add_pod(&self, number: u8) -> Result<Pod> {
        let node = self.number;
        let pod = Pod { node, number, netns: Netns::create()?, interface: format!("xeb{number}") };
        let (mac, host_mac) = ([2, 0, 0, 1, node, number], [2, 0, 0, 0, node, number]);
        let (inside, outside) = (text(mac), text(host_mac));
        let (v4, v6) = (pod.address(Family::V4), pod.address(Family::V6));
        let (interface, path) = (&pod.interface, pod.netns.path());
        let ifindex = self.netns.run(|| {
            ip_batch(&format!(
                "link add {interface} address {outside} type veth peer name eth0 address {inside} netns {}\n\
                 link set {interface} addrgenmode none\n\
                 link set {interface} up\n\
                 neigh add {v4} lladdr {inside} dev {interface} nud permanent\n\
                 neigh add {v6} lladdr {inside} dev {interface} nud permanent\n\
                 route add {v4}/32 dev {interface}\n\
                 route add {v6}/128 dev {interface}\n",
                path.display()
            ))?;
            self.datapath().attach_pod(interface)?;
            Ok(nix::net::if_::if_nametoindex(interface.as_str())?)
        })?;
        let netns_cookie = pod.netns.run(|| {
            ip_batch(&format!(
                "link set eth0 addrgenmode none\n\
                 link set eth0 up\n\
                 addr add {v4}/32 dev eth0\n\
                 addr add {v6}/128 dev eth0 nodad\n\
                 neigh add 169.254.1.1 lladdr {outside} dev eth0 nud permanent\n\
                 neigh add fe80::1 lladdr {outside} dev eth0 nud permanent\n\
                 route add default via 169.254.1.1 dev eth0 onlink\n\
                 route add ::/0 via fe80::1 dev eth0 onlink\n"
            ))?;
            Ok(xebec_datapath::netns_cookie()?)
        })?;
        self.netns.run(|| await_operational(interface))?;
        for address in [v4, v6] {
            self.datapath().pods().put(&PodEntry { address, ifindex, mac, host_mac, netns_cookie })?;
        }
        Ok(pod)
    }

    /// Puts a service into this node's tables.
    pub fn serve(&self, service: &Service) -> Result<()> {
        let id = self.services.fetch_add(1, Ordering::Relaxed);
        Ok(self.datapath().lb().apply(&service.ops(self.number, id))?)
    }

    /// Packets counted for a reason so far.
    pub fn dropped(&self, reason: &str) -> Result<u64> {
        let drops = self.datapath().drops()?;
        let found = drops.iter().find(|drop| drop.reason == reason);
        Ok(found.with_context(|| format!("no reason is called {reason}"))?.packets)
    }

    /// Nothing was dropped or refused.
    pub fn ensure_no_drops(&self) -> Result<()> {
        let drops: Vec<_> = self.datapath().drops()?.into_iter().filter(|drop| drop.packets > 0).collect();
        ensure!(drops.is_empty(), "node {}: {drops:?}", self.number);
        Ok(())
    }
}

// === impl Pod ===

impl Pod {
    /// The pod's address.
    #[must_use]
    pub fn address(&self, family: Family) -> IpAddr {
        match family {
            Family::V4 => Ipv4Addr::new(10, 99, self.node, self.number).into(),
            Family::V6 => Ipv6Addr::new(0xfd99, self.node.into(), 0, 0, 0, 0, 0, self.number.into()).into(),
        }
    }
}

/// Settings of a node's datapath.
#[must_use]
pub fn node_config(number: u8, bpffs: &Path, cgroup: &Path) -> DatapathConfig {
    let addresses = vec![node_address(number, Family::V4), node_address(number, Family::V6)];
    let mut config = DatapathConfig::new(bpffs.to_path_buf(), cgroup.to_path_buf(), addresses);
    config.uplink = Some("up0".to_owned());
    config.capacity = CAPACITY;
    config
}

/// Waits until the kernel's queue of an interface takes packets, which is a little after its other end came up.
fn await_operational(interface: &str) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !ip(&format!("-o link show dev {interface}"))?.contains("state UP") {
        ensure!(Instant::now() < deadline, "{interface} does not come up");
    }
    Ok(())
}

fn node_address(number: u8, family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(172, 31, 7, number).into(),
        Family::V6 => Ipv6Addr::new(0xfd31, 7, 0, 0, 0, 0, 0, number.into()).into(),
    }
}

/// The link-local address is what a router asks for its IPv6 neighbours with.
fn uplink_lines(number: u8, nodes: u8) -> String {
    let mut lines = format!(
        "link set up0 addrgenmode none\n\
         link set up0 up\n\
         addr add 172.31.7.{number}/24 dev up0\n\
         addr add fd31:7::{number}/64 dev up0 nodad\n\
         addr add fe80::{number}/64 dev up0 nodad\n\
         route add default via 172.31.7.254\n\
         route add ::/0 via fd31:7::fe\n"
    );
    for other in (1..=nodes).filter(|other| *other != number) {
        lines.push_str(&format!("route add 10.99.{other}.0/24 via 172.31.7.{other}\n"));
        lines.push_str(&format!("route add fd99:{other}::/64 via fd31:7::{other}\n"));
    }
    lines
}

/// Makes the calling thread's namespace a router that is not surprised by translated sources.
fn forward_packets() -> Result<()> {
    for (name, value) in [
        ("ipv4/ip_forward", "1"),
        ("ipv4/conf/all/rp_filter", "0"),
        ("ipv4/conf/default/rp_filter", "0"),
        ("ipv6/conf/all/forwarding", "1"),
    ] {
        std::fs::write(format!("/proc/sys/net/{name}"), value).with_context(|| format!("setting {name}"))?;
    }
    Ok(())
}

fn text(mac: [u8; 6]) -> String {
    mac.map(|octet| format!("{octet:02x}")).join(":")
}
