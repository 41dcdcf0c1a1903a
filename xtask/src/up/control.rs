//! The control plane: `xebec-control` in the first node, under an unprivileged uid.
//!
//! In: the built program. Out: a ready API server and the admin kubeconfig.

use std::fs;
use std::os::unix::fs::chown;
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::{Session, install, node};
use crate::command::output;
use crate::layout::{API_PORT, CLUSTER_DNS, CLUSTER_DOMAIN, POD_CIDRS, SERVICE_CIDRS};
use crate::process::Daemon;
use crate::progress::Note;

pub const NAME: &str = "n1.control";
/// Neither root nor anybody's: what `nobody` is for in container images.
pub const UID: u32 = 65532;

pub fn ensure(session: &Session, built: &Path, note: &Note) -> Result<()> {
    let program = session.cluster.bin().join("xebec-control");
    if install(&built.join("xebec-control"), &program)? {
        session.stop(NAME)?;
    }
    let data = session.cluster.control_dir();
    fs::create_dir_all(&data)?;
    chown(&data, Some(UID), Some(UID))?;
    session.processes.ensure(&daemon(session)?)?;
    note.say("waiting for the API");
    let admin =
        |session: &Session| write_kubeconfig(session, &program, &["--admin"], &session.cluster.kubeconfig());
    session.wait_for("the control plane is ready", 60, || {
        if session.processes.find(NAME).is_none() {
            bail!("xebec-control ended:\n{}", session.processes.log_tail(NAME));
        }
        if !session.cluster.kubeconfig().exists()
            && (!data.join("pki/ca.crt").exists() || admin(session).is_err())
        {
            return Ok(false);
        }
        Ok(output(&mut session.kubectl(["get", "--raw", "/readyz", "--request-timeout=2s"])).is_ok())
    })?;
    if session.kubectl.fetched {
        let link = session.cluster.bin().join("kubectl");
        if !link.exists() {
            fs::copy(&session.kubectl.path, &link).context("copying kubectl")?;
        }
    }
    Ok(())
}

/// How `xebec-control` is run in this cluster.
pub fn daemon(session: &Session) -> Result<Daemon<'static>> {
    let addresses = session.state.subnet.node(0).map(|a| a.to_string()).join(",");
    let args = [
        ("--data-dir", "/run/xebec-control".to_owned()),
        ("--advertise-address", addresses),
        ("--secure-port", API_PORT.to_string()),
        ("--service-cidr", SERVICE_CIDRS.to_owned()),
        ("--cluster-cidr", POD_CIDRS.to_owned()),
        ("--cluster-domain", CLUSTER_DOMAIN.to_owned()),
        ("--cluster-dns", CLUSTER_DNS.join(",")),
    ];
    let args = std::iter::once("run".into())
        .chain(args.into_iter().flat_map(|(k, v)| [k.into(), v.into()]))
        .collect();
    Ok(Daemon {
        name: NAME.to_owned(),
        place: node::place(session, "n1", "control")?,
        uid: Some(UID),
        program: Path::new("/run/xebec-bin/xebec-control"),
        args,
        env: Vec::new(),
    })
}

/// Signs a client certificate offline and writes a kubeconfig with it.
pub fn write_kubeconfig(session: &Session, program: &Path, who: &[&str], out: &Path) -> Result<()> {
    let server = format!("https://{}:{API_PORT}", session.state.subnet.node(0)[0]);
    let mut command = std::process::Command::new(program);
    command.arg("kubeconfig").args(who).arg("--server").arg(server);
    command.arg("--data-dir").arg(session.cluster.control_dir()).arg("--out").arg(out);
    output(&mut command).map(drop)
}
