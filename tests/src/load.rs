//! Load that notices everything that is late or lost.
//!
//! In: connections and names to ask for. Out: [`Report`]s. The program `load-client` runs it from where a pod stands;
//! [`LoadClient`] starts that program.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sched::{CloneFlags, setns};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

/// Time between two requests of one connection.
const PACE: Duration = Duration::from_millis(50);
/// What is not answered by then is lost.
const LOST: Duration = Duration::from_secs(5);
/// An answer later than this is a stall.
const STALL: Duration = Duration::from_millis(200);

/// What a load saw.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    pub requests: u64,
    /// Answers later than 200 ms.
    pub stalls: u64,
    pub slowest_ms: u64,
    pub queries: u64,
    /// DNS answers later than 200 ms.
    pub slow_queries: u64,
    pub slowest_query_ms: u64,
    /// What broke, was lost or was answered wrongly; the first few.
    pub errors: Vec<String>,
    pub failed: u64,
}

/// What to ask for, and how often a second.
#[derive(Clone, Debug)]
pub struct Dns {
    pub server: SocketAddr,
    pub name: String,
    pub rate: u32,
}

/// A running `load-client`. Killed when dropped.
pub struct LoadClient {
    child: Child,
    output: BufReader<std::process::ChildStdout>,
}

// === impl Report ===

impl Report {
    /// Takes in another's findings.
    pub fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.stalls += other.stalls;
        self.slowest_ms = self.slowest_ms.max(other.slowest_ms);
        self.queries += other.queries;
        self.slow_queries += other.slow_queries;
        self.slowest_query_ms = self.slowest_query_ms.max(other.slowest_query_ms);
        self.failed += other.failed;
        self.errors.extend(other.errors.iter().take(5 - self.errors.len().min(5)).cloned());
    }

    fn fail(&mut self, error: String) {
        self.failed += 1;
        if self.errors.len() < 5 {
            self.errors.push(error);
        }
    }
}

/// Enters the network namespace and the cgroup of a process, whole.
///
/// # Errors
/// When the process is gone or this one is not root.
pub fn join(pid: i32) -> Result<()> {
    let cgroups = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    let own = cgroups.lines().find_map(|line| line.strip_prefix("0::")).context("no cgroup2 membership")?;
    let procs = cgroup_root()?.join(own.trim_start_matches('/')).join("cgroup.procs");
    fs::write(&procs, "0").with_context(|| format!("entering {}", procs.display()))?;
    let netns = File::open(format!("/proc/{pid}/ns/net"))?;
    setns(netns, CloneFlags::CLONE_NEWNET).context("entering the network namespace")
}

fn cgroup_root() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let found = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let root = found.into_iter().find(|fields| fields.get(2) == Some(&"cgroup2"));
    root.map(|fields| PathBuf::from(fields[1])).context("this host has no cgroup2 tree mounted")
}

/// Sends back what comes, until it is aborted.
pub async fn echo(listener: TcpListener) {
    while let Ok((mut stream, _)) = listener.accept().await {
        tokio::spawn(async move {
            stream.set_nodelay(true).ok();
            let mut buffer = [0; 512];
            while let Ok(length @ 1..) = stream.read(&mut buffer).await {
                if stream.write_all(&buffer[..length]).await.is_err() {
                    return;
                }
            }
        });
    }
}

/// Says something, waits to hear it, again and again on one connection.
pub async fn talk(mut stream: TcpStream, target: SocketAddr, mut stop: watch::Receiver<bool>) -> Report {
    let mut report = Report::default();
    stream.set_nodelay(true).ok();
    let mut pace = interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = stop.changed() => return report,
            _ = pace.tick() => {}
        }
        let said = report.requests.to_be_bytes();
        let began = Instant::now();
        let heard = timeout(LOST, async {
            stream.write_all(&said).await?;
            let mut heard = [0; 8];
            stream.read_exact(&mut heard).await.map(|_| heard)
        });
        match heard.await {
            Ok(Ok(heard)) if heard == said => {}
            Ok(Ok(_)) => report.fail(format!("{target}: heard something else")),
            Ok(Err(error)) => report.fail(format!("{target}: {error}")),
            Err(_) => report.fail(format!("{target}: nothing for {LOST:?}")),
        }
        if report.failed > 0 {
            return report;
        }
        let took = began.elapsed();
        report.requests += 1;
        report.stalls += u64::from(took > STALL);
        report.slowest_ms = report.slowest_ms.max(millis(took));
    }
}

/// Asks for a name's addresses at a steady rate, each query from a socket of its own, as resolvers do.
pub async fn query_at_rate(dns: Dns, mut stop: watch::Receiver<bool>) -> Report {
    let mut report = Report::default();
    let mut pace = interval(Duration::from_secs(1) / dns.rate.max(1));
    pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut asked = tokio::task::JoinSet::new();
    let mut id = 0_u16;
    loop {
        tokio::select! {
            _ = stop.changed() => break,
            Some(answer) = asked.join_next() => note(&mut report, answer),
            _ = pace.tick() => {
                id = id.wrapping_add(1);
                asked.spawn(query(dns.server, question(id, &dns.name)));
            }
        }
    }
    while let Some(answer) = asked.join_next().await {
        note(&mut report, answer);
    }
    report
}

fn note(report: &mut Report, answer: Result<Result<Duration>, tokio::task::JoinError>) {
    report.queries += 1;
    match answer.map_err(anyhow::Error::from).and_then(|answer| answer) {
        Ok(took) => {
            report.slow_queries += u64::from(took > STALL);
            report.slowest_query_ms = report.slowest_query_ms.max(millis(took));
        }
        Err(error) => report.fail(format!("{error:#}")),
    }
}

async fn query(server: SocketAddr, question: Vec<u8>) -> Result<Duration> {
    let began = Instant::now();
    let any: SocketAddr = if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }.parse()?;
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    socket.send(&question).await.with_context(|| format!("asking {server}"))?;
    let mut answer = [0; 512];
    let length = timeout(LOST, socket.recv(&mut answer))
        .await
        .with_context(|| format!("{server} does not answer"))?
        .with_context(|| format!("asking {server}"))?;
    ensure!(length > 12 && answer[..2] == question[..2], "{server} answers another question");
    // The low bits of the second flag byte are the response code; bytes 6 and 7 count the answers.
    let (code, answers) = (answer[3] & 0x0f, u16::from_be_bytes([answer[6], answer[7]]));
    ensure!(code == 0 && answers > 0, "{server}: response code {code}, {answers} answers");
    Ok(began.elapsed())
}

/// A query for IPv4 addresses (RFC 1035, section 4).
fn question(id: u16, name: &str) -> Vec<u8> {
    let mut bytes = id.to_be_bytes().to_vec();
    bytes.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.trim_end_matches('.').split('.') {
        bytes.push(label.len() as u8);
        bytes.extend(label.as_bytes());
    }
    bytes.extend([0, 0, 1, 0, 1]);
    bytes
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

// === impl LoadClient ===

impl LoadClient {
    /// Starts it and waits until it says that all stands.
    ///
    /// # Errors
    /// When it cannot start, with what it said.
    pub fn start(arguments: &[String]) -> Result<Self> {
        let programs = std::env::var_os("XEBEC_BIN_DIR").context("XEBEC_BIN_DIR names the built programs")?;
        // Ahead of other programs: what is measured is who answers, not who else computes on this machine.
        let mut child = Command::new("nice")
            .args(["-n", "-15"])
            .arg(PathBuf::from(programs).join("load-client"))
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting load-client")?;
        let output = BufReader::new(child.stdout.take().context("piped")?);
        let mut this = Self { child, output };
        let mut line = String::new();
        this.output.read_line(&mut line)?;
        ensure!(line == "ready\n", "load-client {} did not come up", arguments.join(" "));
        Ok(this)
    }

    /// Ends it and takes what it saw.
    ///
    /// # Errors
    /// When it ended by itself.
    pub fn report(mut self) -> Result<Report> {
        self.child.stdin.take().context("piped")?.flush()?;
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        serde_json::from_str(&line).with_context(|| format!("load-client's report: {line:?}"))
    }
}

impl Drop for LoadClient {
    fn drop(&mut self) {
        // It may have ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_as_resolvers_send_them() {
        let bytes = question(0x1234, "web.default.");
        assert_eq!(bytes[..4], [0x12, 0x34, 1, 0]);
        assert_eq!(bytes[12..], *b"\x03web\x07default\0\0\x01\0\x01");
    }

    #[test]
    fn reports_add_up() {
        let mut sum = Report { requests: 1, slowest_ms: 3, ..Report::default() };
        let mut other = Report { requests: 2, slowest_ms: 2, ..Report::default() };
        (0..9).for_each(|n| other.fail(n.to_string()));
        sum.add(&other);
        assert_eq!((sum.requests, sum.slowest_ms, sum.failed, sum.errors.len()), (3, 3, 9, 5));
    }
}
