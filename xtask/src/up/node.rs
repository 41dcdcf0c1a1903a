//! The nodes: namespaces, cgroups, containerd, agent and DNS process of each.
//!
//! In: built programs and fetched tools. Out: registered, ready nodes.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;

use super::control::write_kubeconfig;
use super::{Session, install, network};
use crate::cgroup;
use crate::command::output;
use crate::layout::{CLUSTER_DNS, CLUSTER_DOMAIN, Cluster, NODE_DNS_PORT, REGISTRY_PORT};
use crate::namespace::Place;
use crate::process::{Daemon, Processes};
use crate::progress::Note;
use crate::tools::Tool;

const CONTAINERD_SOCKET: &str = "/run/containerd/containerd.sock";
/// A node's programs. Each has a cgroup of its own, as systemd gives a unit: while one starts and reads lists, the others
/// keep their share of the CPUs.
const PROGRAMS: [&str; 5] = ["holder", "containerd", "agent", "dns", "control"];

/// Namespaces, cgroup and uplink of every node.
pub fn ensure_places(session: &Session, note: &Note) -> Result<()> {
    for (index, node) in session.node_names().iter().enumerate() {
        note.say(node);
        for program in PROGRAMS {
            cgroup::create(&cgroup_path(&session.cluster, node).join(program))?;
        }
        network::ensure_uplink(session, node, &addresses(session, index))?;
        let dir = session.cluster.node_dir(node);
        fs::create_dir_all(dir.join("pod-logs"))?;
        fs::create_dir_all(session.cluster.bin())?;
        let mut args: Vec<OsString> = vec![
            "--cgroup".into(),
            cgroup_path(&session.cluster, node).join("holder").into(),
            "--netns".into(),
            session.cluster.netns(node).into(),
            "--hostname".into(),
            node.into(),
            "--node-dir".into(),
            dir.into(),
            "--bin-dir".into(),
            session.cluster.bin().into(),
        ];
        if index == 0 {
            fs::create_dir_all(session.cluster.control_dir())?;
            args.extend(["--control-dir".into(), session.cluster.control_dir().into()]);
        }
        session.processes.ensure_holder(&format!("{node}.holder"), &args)?;
    }
    Ok(())
}

/// containerd, agent and DNS of every node.
pub fn ensure_agents(
    session: &Session,
    built: &Path,
    containerd: &Tool,
    runc: &Tool,
    note: &Note,
) -> Result<()> {
    let agent = session.cluster.bin().join("xebec-agent");
    let changed = install(&built.join("xebec-agent"), &agent)?;
    for (index, node) in session.node_names().iter().enumerate() {
        note.say(node);
        ensure_credentials(session, node, &addresses(session, index))?;
        ensure_containerd(session, node, containerd, runc)?;
        for daemon in [format!("{node}.agent"), format!("{node}.dns")] {
            if changed {
                session.stop(&daemon)?;
            }
        }
        session.processes.ensure(&agent_daemon(session, node, index, &agent)?)?;
        session.processes.ensure(&dns_daemon(session, node, index, &agent)?)?;
    }
    Ok(())
}

/// Waits until the API shows every node Ready.
pub fn wait_ready(session: &Session, note: &Note) -> Result<()> {
    let names = session.node_names();
    let template =
        r#"{range .items[*]}{.metadata.name}={.status.conditions[?(@.type=="Ready")].status} {end}"#;
    session.wait_for("all nodes are Ready", 60, || {
        for name in &names {
            for program in ["agent", "dns", "containerd"] {
                let daemon = format!("{name}.{program}");
                if session.processes.find(&daemon).is_none() {
                    bail!("{daemon} ended:\n{}", session.processes.log_tail(&daemon));
                }
            }
        }
        let shown = output(&mut session.kubectl(["get", "nodes", "-o", &format!("jsonpath={template}")]))
            .unwrap_or_default();
        note.say(shown.trim());
        Ok(names.iter().all(|name| shown.split_whitespace().any(|n| n == format!("{name}=True"))))
    })
}

/// Where a program of a node lives; one of [`PROGRAMS`].
pub fn place(session: &Session, node: &str, program: &str) -> Result<Place> {
    place_of(&session.cluster, &session.processes, node, program)
}

/// The same, of a cluster that is only looked at.
pub fn place_of(cluster: &Cluster, processes: &Processes, node: &str, program: &str) -> Result<Place> {
    let holder =
        processes.find(&format!("{node}.holder")).with_context(|| format!("{node} has no holder"))?;
    Ok(Place {
        cgroup: cgroup_path(cluster, node).join(program),
        netns: Some(cluster.netns(node)),
        holder: Some(holder.pid),
    })
}

fn cgroup_path(cluster: &Cluster, node: &str) -> PathBuf {
    [cluster.name().as_str(), node, "system"].iter().collect()
}

fn addresses(session: &Session, index: usize) -> [std::net::IpAddr; 2] {
    session.state.subnet.node(u8::try_from(index).unwrap_or(u8::MAX))
}

fn ensure_credentials(session: &Session, node: &str, addresses: &[std::net::IpAddr]) -> Result<()> {
    let dir = session.cluster.node_dir(node);
    let control = session.cluster.bin().join("xebec-control");
    let kubeconfig = dir.join("kubeconfig");
    if !kubeconfig.exists() {
        write_kubeconfig(session, &control, &["--node", node], &kubeconfig)?;
    }
    let pki = dir.join("pki");
    if !pki.exists() {
        let mut command = std::process::Command::new(&control);
        command.args(["node-certs", "--node", node]);
        for address in addresses {
            command.arg("--address").arg(address.to_string());
        }
        command.arg("--data-dir").arg(session.cluster.control_dir()).arg("--out").arg(&pki);
        output(&mut command)?;
    }
    let resolvers: String = session.state.subnet.hub().iter().map(|a| format!("nameserver {a}\n")).collect();
    fs::write(dir.join("resolv.conf"), resolvers)?;
    Ok(())
}

fn ensure_containerd(session: &Session, node: &str, containerd: &Tool, runc: &Tool) -> Result<()> {
    let dir = session.cluster.node_dir(node).join("containerd");
    fs::create_dir_all(&dir)?;
    let config = dir.join("config.toml");
    fs::write(
        &config,
        format!(
            "version = 2\nroot = {:?}\nstate = \"/run/containerd\"\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
             [grpc]\naddress = {CONTAINERD_SOCKET:?}\n",
            dir.join("root").display().to_string()
        ),
    )?;
    // containerd finds its shim, and the shim runc, in PATH.
    let folders =
        [&containerd.path, &runc.path].map(|p| p.parent().map(Path::to_path_buf).unwrap_or_default());
    let path = std::env::join_paths(
        folders.into_iter().chain(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())),
    )?;
    let mut env = vec![(OsString::from("PATH"), path)];
    if let Some(libraries) = containerd.libraries.as_ref().or(runc.libraries.as_ref()) {
        env.push(("LD_LIBRARY_PATH".into(), libraries.into()));
    }
    let name = format!("{node}.containerd");
    session.processes.ensure(&Daemon {
        name,
        place: place(session, node, "containerd")?,
        uid: None,
        program: &containerd.path,
        args: vec!["--config".into(), config.into()],
        env,
    })?;
    Ok(())
}

fn agent_daemon<'a>(session: &Session, node: &'a str, index: usize, agent: &'a Path) -> Result<Daemon<'a>> {
    let dir = session.cluster.node_dir(node);
    let hub = session.state.subnet.hub()[0];
    let pki = dir.join("pki");
    let mut args: Vec<OsString> = vec!["run".into()];
    let mut flag = |name: &str, value: OsString| args.extend([OsString::from(name), value]);
    flag("--node-name", node.into());
    flag("--kubeconfig", dir.join("kubeconfig").into());
    flag("--containerd-socket", CONTAINERD_SOCKET.into());
    flag("--state-dir", dir.join("state").into());
    flag("--run-dir", "/run/xebec".into());
    flag("--log-dir", "/var/log/pods".into());
    flag("--bpffs", "/sys/fs/bpf".into());
    flag("--cgroup-root", format!("/{}/{node}", session.cluster.name()).into());
    flag("--uplink", "eth0".into());
    flag("--node-ip", joined(&addresses(session, index)).into());
    flag("--cluster-dns", CLUSTER_DNS.join(",").into());
    flag("--cluster-domain", CLUSTER_DOMAIN.into());
    flag("--resolv-conf", dir.join("resolv.conf").into());
    flag("--registry-mirror", format!("docker.io=http://{hub}:{REGISTRY_PORT}").into());
    flag("--tls-cert", pki.join("kubelet.crt").into());
    flag("--tls-key", pki.join("kubelet.key").into());
    flag("--client-ca", pki.join("ca.crt").into());
    flag("--dns-port", NODE_DNS_PORT.to_string().into());
    // The disk is the developer's, and shared: a tenth of it says nothing about the little that a test needs.
    flag("--eviction-hard", "nodefs.available<512Mi,nodefs.inodesFree<1%".into());
    Ok(Daemon {
        name: format!("{node}.agent"),
        place: place(session, node, "agent")?,
        uid: None,
        program: agent,
        args,
        env: Vec::new(),
    })
}

fn dns_daemon<'a>(session: &Session, node: &'a str, index: usize, agent: &'a Path) -> Result<Daemon<'a>> {
    let dir = session.cluster.node_dir(node);
    let listen: Vec<String> = addresses(session, index)
        .iter()
        .map(|a| std::net::SocketAddr::new(*a, NODE_DNS_PORT).to_string())
        .collect();
    let args: Vec<OsString> = vec![
        "dns".into(),
        "--kubeconfig".into(),
        dir.join("kubeconfig").into(),
        "--listen".into(),
        listen.join(",").into(),
        "--cluster-domain".into(),
        CLUSTER_DOMAIN.into(),
        "--resolv-conf".into(),
        dir.join("resolv.conf").into(),
    ];
    Ok(Daemon {
        name: format!("{node}.dns"),
        place: place(session, node, "dns")?,
        uid: None,
        program: agent,
        args,
        env: Vec::new(),
    })
}

fn joined(addresses: &[std::net::IpAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

impl Session {
    /// Ends a process with SIGTERM and waits for it; a later step starts it again.
    pub fn stop(&self, name: &str) -> Result<()> {
        self.processes.signal(name, Signal::SIGTERM);
        self.wait_for(&format!("{name} ends"), 20, || Ok(self.processes.find(name).is_none()))
    }
}
