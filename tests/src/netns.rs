//! Network namespaces for tests: a thread that is a node, and calls made from inside a pod.
//!
//! In: closures. Out: their results, run in namespaces of their own that end with the thread: nothing a test does to
//! links, routes, sysctls or mounts is seen outside.

use std::fs::File;
use std::future::Future;
use std::io::Write;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::socket::{self, AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage};
use nix::sys::time::{TimeVal, TimeValLike};

use crate::skip::skipped;

/// Longest wait for a packet that should arrive at once.
const PATIENCE: Duration = Duration::from_secs(5);

/// A node's namespaces, as its own thread sees them.
pub struct Node {
    /// Folder of this node's own; gone with it.
    pub dir: PathBuf,
    /// Its network namespace, for others to join or to move links into.
    pub netns: PathBuf,
}

/// Why tests that need namespaces cannot run here.
fn missing() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("needs root to make network namespaces".into());
    }
    match Command::new("ip").arg("-V").output() {
        Ok(_) => None,
        Err(error) => Some(format!("needs iproute2's ip: {error}")),
    }
}

/// Tells that the calling test is skipped where namespaces cannot be made.
#[must_use]
pub fn skips() -> bool {
    let Some(why) = missing() else { return false };
    // The test runner names each test's thread after it.
    skipped(std::thread::current().name().unwrap_or("a network test"), &why);
    true
}

/// Runs `test` as a node of its own, with a current-thread runtime; skipped where that is impossible.
///
/// # Panics
/// When the test fails.
pub fn on_node<F>(test: impl FnOnce(Node) -> F + Send + 'static)
where
    F: Future<Output = Result<()>>,
{
    if skips() {
        return;
    }
    let outcome = spawn_node(test).join().expect("the node's thread must not panic");
    outcome.expect("the test on the node must pass");
}

/// Starts a node on a thread of its own, for tests with several.
pub fn spawn_node<T, F>(test: impl FnOnce(Node) -> F + Send + 'static) -> JoinHandle<Result<T>>
where
    T: Send + 'static,
    F: Future<Output = Result<T>>,
{
    std::thread::spawn(move || {
        let dir = tempfile::Builder::new().prefix("xebec-test-").tempdir()?;
        unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWUTS)?;
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
        ip("link set lo up")?;
        // Lets `ping` do without a raw socket in the node as it does in pods.
        std::fs::write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647")?;
        let netns =
            PathBuf::from(format!("/proc/{}/task/{}/ns/net", std::process::id(), nix::unistd::gettid()));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let outcome = runtime.block_on(test(Node { dir: dir.path().to_owned(), netns }));
        drop(runtime);
        unmount_below(dir.path())?;
        dir.close().context("removing the node's folder")?;
        outcome
    })
}

/// Detaches what the test mounted in a folder of its own: pinned namespaces, a bpffs.
fn unmount_below(dir: &Path) -> Result<()> {
    let mounts = std::fs::read_to_string("/proc/thread-self/mountinfo")?;
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
    let mut own: Vec<PathBuf> = points.filter(|point| point.starts_with(dir)).collect();
    // The innermost first.
    own.sort_by_key(|point| std::cmp::Reverse(point.components().count()));
    for point in own {
        umount2(&point, MntFlags::MNT_DETACH).with_context(|| format!("unmounting {}", point.display()))?;
    }
    Ok(())
}

/// Runs `ip` with these arguments in the calling thread's namespace.
pub fn ip(arguments: &str) -> Result<String> {
    let output = Command::new("ip").args(arguments.split_whitespace()).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(text)
}

/// Runs several lines of `ip` at once in the calling thread's namespace; the first that fails ends it.
pub fn ip_batch(lines: &str) -> Result<()> {
    let mut child = Command::new("ip")
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    child.stdin.take().context("ip's input is piped")?.write_all(lines.as_bytes())?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "ip -batch: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

/// Runs `work` on a thread inside a pinned network namespace.
pub fn inside<T: Send + 'static>(
    netns: &Path,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> JoinHandle<Result<T>> {
    let file = File::open(netns);
    std::thread::spawn(move || {
        setns(file.context("opening the namespace")?, CloneFlags::CLONE_NEWNET)?;
        work()
    })
}

/// Waits for a thread and passes on its panic as an error.
pub fn finish<T>(thread: JoinHandle<Result<T>>) -> Result<T> {
    match thread.join() {
        Ok(result) => result,
        Err(_) => bail!("a thread of the test panicked"),
    }
}

/// Sends one echo request from the calling thread's namespace and waits for the reply.
pub fn ping(target: IpAddr) -> Result<()> {
    let (family, protocol, request, reply) = match target {
        IpAddr::V4(_) => (AddressFamily::Inet, SockProtocol::Icmp, 8, 0),
        IpAddr::V6(_) => (AddressFamily::Inet6, SockProtocol::IcmpV6, 128, 129),
    };
    let socket: OwnedFd = socket::socket(family, SockType::Datagram, SockFlag::SOCK_CLOEXEC, protocol)?;
    let patience = TimeVal::seconds(i64::try_from(PATIENCE.as_secs())?);
    socket::setsockopt(&socket, socket::sockopt::ReceiveTimeout, &patience)?;
    let address = SockaddrStorage::from(SocketAddr::new(target, 0));
    let message = [request, 0, 0, 0, 0, 0, 0, 1, b'x'];
    socket::sendto(socket.as_raw_fd(), &message, &address, MsgFlags::empty())
        .with_context(|| format!("pinging {target}"))?;
    let mut answer = [0; 64];
    socket::recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty())
        .with_context(|| format!("no echo reply from {target}"))?;
    ensure!(answer[0] == reply, "{target} answered with ICMP type {}", answer[0]);
    Ok(())
}

/// Listens in the calling thread's namespace at every address of both families.
pub fn listen() -> Result<TcpListener> {
    Ok(TcpListener::bind("[::]:8080")?)
}

/// Connects to the port of [`listen`].
pub fn connect(target: IpAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&SocketAddr::new(target, 8080), PATIENCE)
        .with_context(|| format!("connecting to {target}"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}
