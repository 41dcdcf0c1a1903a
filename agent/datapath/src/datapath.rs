//! The handle through which the agent holds its node's datapath.

use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use xebec_ebpf_common::{ConfigValue, V4, V6, names};

use crate::address::Either;
use crate::attach::{self, Side};
use crate::config::DatapathConfig;
use crate::counters::{Counters, Drops};
use crate::error::{Error, Result};
use crate::expiry::{self, Swept, Walk};
use crate::lb::{self, LbOp, LbSnapshot};
use crate::loader::{self, Pins, Programs};
use crate::maps::Maps;
use crate::pod::{self, PodEntry};
use crate::sys;
use crate::test_run::{self, Hook, TestRun};

/// Between two looks at the flow tables.
const SWEEP_INTERVAL: Duration = Duration::from_secs(10);

/// Index of the one entry of `CONFIG`.
const CONFIG_INDEX: u32 = 0;

/// The datapath of one node. Clones are handles of the same. Dropping the last one leaves everything attached: traffic does
/// not notice that an agent ends.
#[derive(Clone, Debug)]
pub struct Datapath(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    maps: Maps,
    pins: Pins,
    programs: Programs,
    /// One writer at a time; the order of operations is theirs.
    lb: Mutex<()>,
    pods: Mutex<()>,
    config: Mutex<ConfigValue>,
    walk: Mutex<Walk>,
}

/// Writes and reads load-balancing entries.
#[derive(Clone, Copy, Debug)]
pub struct Lb<'a>(&'a Inner);

/// Writes and reads the entries of local pods.
#[derive(Clone, Copy, Debug)]
pub struct Pods<'a>(&'a Inner);

impl Datapath {
    /// Loads the programs and attaches them to the node's cgroup and, if one is named, its uplink. What an earlier agent of
    /// the same ABI left pinned is adopted with all its entries; programs are replaced in place. Interfaces are those of
    /// the calling thread's network namespace.
    pub fn open(config: &DatapathConfig) -> Result<Self> {
        config.validate()?;
        let pins = Pins::create(&config.bpffs)?;
        let programs = loader::load(config, &pins)?;
        let maps = Maps::open(&pins.maps)?;
        let value = config_value(config)?;
        // Before the first program runs: a socket hook without it would not know its own node.
        maps.config.put(&CONFIG_INDEX, &value)?;
        let inner = Inner {
            maps,
            pins,
            programs,
            lb: Mutex::default(),
            pods: Mutex::default(),
            config: Mutex::new(value),
            walk: Mutex::default(),
        };
        let datapath = Self(Arc::new(inner));
        attach::attach_cgroup(&datapath.0.pins, &datapath.0.programs, &config.cgroup)?;
        if let Some(uplink) = &config.uplink {
            datapath.attach_uplink(uplink)?;
        }
        attach::collect(&datapath.0.pins)?;
        Ok(datapath)
    }

    /// Load-balancing entries.
    pub fn lb(&self) -> Lb<'_> {
        Lb(&self.0)
    }

    /// Backend ids there are: as many as the pinned maps hold, whatever a new one would.
    pub fn backends(&self) -> u32 {
        self.0.maps.backends4.capacity().min(self.0.maps.backends6.capacity())
    }

    /// Slots there are.
    pub fn slots(&self) -> u32 {
        self.0.maps.slots.capacity()
    }

    /// Entries of local pods.
    pub fn pods(&self) -> Pods<'_> {
        Pods(&self.0)
    }

    /// Attaches the pod programs to the host end of a pod's veth. Again for the same interface: replaces them in place.
    pub fn attach_pod(&self, interface: &str) -> Result<()> {
        let [ingress, egress] = pod_links(interface);
        self.attach(names::POD_INGRESS, &ingress, interface, Side::Ingress)?;
        self.attach(names::POD_EGRESS, &egress, interface, Side::Egress)
    }

    /// Forgets the links of a pod's veth, whether or not the interface still exists.
    pub fn detach_pod(&self, interface: &str) -> Result<()> {
        let [ingress, egress] = pod_links(interface);
        attach::detach(&self.0.pins, &ingress)?;
        attach::detach(&self.0.pins, &egress)
    }

    /// Attaches the uplink programs and makes the interface the one towards the other nodes.
    pub fn attach_uplink(&self, interface: &str) -> Result<()> {
        let index = attach::interface_index(interface)?;
        self.update_config(|config| config.uplink = index)?;
        self.attach(names::UPLINK_INGRESS, names::UPLINK_INGRESS, interface, Side::Ingress)?;
        self.attach(names::UPLINK_EGRESS, names::UPLINK_EGRESS, interface, Side::Egress)
    }

    /// Changes the addresses that new masqueraded flows bear; flows that exist keep theirs.
    pub fn set_node_addresses(&self, addresses: &[IpAddr]) -> Result<()> {
        let (v4, v6) = primary(addresses);
        self.update_config(|config| (config.v4, config.v6) = (v4, v6))
    }

    /// What the datapath pinned on this bpffs refused, by reason; for programs that do not own it.
    pub fn pinned_drops(bpffs: &Path) -> Result<Vec<Drops>> {
        Counters::open(&Pins::at(bpffs).maps)?.read()
    }

    /// What was refused since the maps were made, by reason.
    pub fn drops(&self) -> Result<Vec<Drops>> {
        self.0.maps.counters.read()
    }

    /// Runs the program of a hook on one packet, from the Ethernet header on, as if `interface` had it; nothing is sent.
    /// The packet's destination MAC must be the interface's own.
    pub fn test_run(&self, hook: Hook, interface: u32, packet: &[u8], repeat: u32) -> Result<TestRun> {
        test_run::run(&self.0.programs, hook, interface, packet, repeat)
    }

    /// Removes what an agent of another ABI version pinned. Only once every pod is attached again: a link that was not taken
    /// over ends with its pin.
    pub fn discard_other_versions(&self) {
        attach::discard_other_versions(&self.0.pins);
    }

    /// Ends flows and affinities that were idle for too long. One call does a bounded piece of the work; [`Self::run`]
    /// calls it forever.
    pub fn sweep(&self) -> Result<Swept> {
        expiry::sweep(&self.0.maps, &mut lock(&self.0.walk))
    }

    /// Sweeps until dropped; after the first interval, in which the agent adopts its pods, pins of other versions go.
    pub async fn run(&self) {
        let mut interval = tokio::time::interval(SWEEP_INTERVAL);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        interval.tick().await;
        interval.tick().await;
        self.discard_other_versions();
        loop {
            interval.tick().await;
            match self.sweep() {
                Ok(swept) if swept.flows + swept.affinities > 0 => {
                    tracing::debug!(?swept, "idle flows ended");
                }
                Ok(_) => {}
                Err(error) => tracing::warn!(%error, "sweeping the flow tables failed"),
            }
        }
    }

    fn attach(&self, program: &str, link: &str, interface: &str, side: Side) -> Result<()> {
        let program = attach::get(&self.0.programs, program)?;
        attach::attach_interface(&self.0.pins, program, link, interface, side)
    }

    fn update_config(&self, change: impl FnOnce(&mut ConfigValue)) -> Result<()> {
        let mut config = lock(&self.0.config);
        let mut next = *config;
        change(&mut next);
        self.0.maps.config.put(&CONFIG_INDEX, &next)?;
        *config = next;
        Ok(())
    }
}

impl Lb<'_> {
    /// Everything the maps hold.
    pub fn snapshot(&self) -> Result<LbSnapshot> {
        let _writer = lock(&self.0.lb);
        lb::writer::snapshot(&self.0.maps)
    }

    /// Applies operations in order. After an error those before it are applied; a snapshot tells how far it came.
    pub fn apply(&self, ops: &[LbOp]) -> Result<()> {
        let _writer = lock(&self.0.lb);
        lb::writer::apply(&self.0.maps, ops)
    }
}

impl Pods<'_> {
    /// Adds or replaces the entry of one address of a pod.
    pub fn put(&self, entry: &PodEntry) -> Result<()> {
        let _writer = lock(&self.0.pods);
        pod::writer::put(&self.0.maps, entry)
    }

    /// Removes the entry of an address; nothing to remove is fine.
    pub fn remove(&self, address: IpAddr) -> Result<()> {
        let _writer = lock(&self.0.pods);
        pod::writer::remove(&self.0.maps, address)
    }

    /// All entries.
    pub fn list(&self) -> Result<Vec<PodEntry>> {
        let _writer = lock(&self.0.pods);
        pod::writer::list(&self.0.maps)
    }
}

/// What the guarded values hold stays right whatever a panicking holder was doing: they are written last.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn pod_links(interface: &str) -> [String; 2] {
    [format!("pod_ingress-{interface}"), format!("pod_egress-{interface}")]
}

fn primary(addresses: &[IpAddr]) -> (V4, V6) {
    let (mut v4, mut v6) = (None, None);
    for address in addresses {
        match (*address).into() {
            Either::V4(addr) => v4 = v4.or(Some(addr)),
            Either::V6(addr) => v6 = v6.or(Some(addr)),
        }
    }
    (v4.unwrap_or(V4(0)), v6.unwrap_or(V6([0; 4])))
}

/// Cookie of the calling thread's network namespace, by which the socket programs tell pods apart.
pub fn netns_cookie() -> Result<u64> {
    sys::netns_cookie().map_err(|source| Error::Syscall {
        call: "getsockopt(SO_NETNS_COOKIE)",
        object: "the network namespace".to_owned(),
        source,
    })
}

fn config_value(config: &DatapathConfig) -> Result<ConfigValue> {
    let netns_cookie = match config.netns_cookie {
        Some(cookie) => cookie,
        None => netns_cookie()?,
    };
    let (v4, v6) = primary(&config.node_addresses);
    Ok(ConfigValue {
        netns_cookie,
        v4,
        v6,
        uplink: 0,
        masquerade_first: *config.masquerade_ports.start(),
        masquerade_last: *config.masquerade_ports.end(),
        node_port_first: *config.node_ports.start(),
        node_port_last: *config.node_ports.end(),
        csum_v6_flag: csum_v6_flag(),
        pad: 0,
    })
}

/// `BPF_F_IPV6`: from 6.16 on, the kernel keeps the hardware's sum right when an IPv6 address changes, if told so.
fn csum_v6_flag() -> u32 {
    const BPF_F_IPV6: u32 = 1 << 7;
    match aya::util::KernelVersion::current() {
        Ok(version) if version >= aya::util::KernelVersion::new(6, 16, 0) => BPF_F_IPV6,
        _ => 0,
    }
}
