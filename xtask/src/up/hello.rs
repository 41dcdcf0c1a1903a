//! The proof that `up` ends with: a Deployment and a Service, requested from the host.
//!
//! In: a cluster with Ready nodes. Out: an HTTP answer of nginx through a NodePort, over IPv4 and IPv6.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::Session;
use crate::command::output;
use crate::progress::Note;

const NAMESPACE: &str = "xebec-hello";
const MANIFEST: &str = include_str!("hello.yaml");
const TIMEOUT: Duration = Duration::from_secs(2);

pub fn serve(session: &Session, note: &Note) -> Result<()> {
    let port_of = || -> Option<u16> {
        let args = ["get", "service", "hello", "-n", NAMESPACE, "-o", "jsonpath={.spec.ports[0].nodePort}"];
        output(&mut session.kubectl(args)).ok()?.trim().parse().ok()
    };
    let port = match port_of() {
        Some(port) => port,
        None => {
            note.say("applying a Deployment and a Service");
            apply(session)?;
            port_of().context("the Service hello has no node port")?
        }
    };
    note.say("waiting for the answer");
    for address in session.state.subnet.node(0) {
        let mut last = None;
        let asked = session.wait_for("a served request", 90, || {
            last = Some(get(address, port));
            Ok(last.as_ref().is_some_and(Result::is_ok))
        });
        if let Err(error) = asked {
            let pods = output(&mut session.kubectl(["get", "pods", "-n", NAMESPACE, "-o", "wide"]))
                .unwrap_or_default();
            let reason = last.and_then(Result::err).map(|e| format!("{e:#}")).unwrap_or_default();
            return Err(error.context(format!("http://{}: {reason}\n{pods}", SocketAddr::new(address, port))));
        }
        eprintln!("  http://{} answers", SocketAddr::new(address, port));
    }
    Ok(())
}

fn apply(session: &Session) -> Result<()> {
    let mut kubectl = session.kubectl(["apply", "-f", "-"]);
    let mut child = kubectl.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    child.stdin.take().context("kubectl's input is piped")?.write_all(MANIFEST.as_bytes())?;
    let done = child.wait_with_output()?;
    if !done.status.success() {
        bail!("kubectl apply: {}", String::from_utf8_lossy(&done.stderr).trim());
    }
    Ok(())
}

/// One HTTP/1.0 request for nginx's page.
fn get(address: IpAddr, port: u16) -> Result<()> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::new(address, port), TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.write_all(b"GET / HTTP/1.0\r\nHost: hello\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    if !answer.contains("200 OK") || !answer.contains("Welcome to nginx!") {
        bail!("unexpected answer: {}", answer.lines().next().unwrap_or_default());
    }
    Ok(())
}
