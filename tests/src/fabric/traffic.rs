//! Servers that say who they see, and clients that ask.
//!
//! In: namespaces. Out: what each end of a connection takes the other one for.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, SockaddrStorage, setsockopt, sockopt};

use super::Netns;

/// Longest wait for what should come at once.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// Port of every server.
pub const PORT: u16 = 8080;
/// How often a server looks whether it shall end.
const TICK: Duration = Duration::from_millis(50);

/// Address family of a test's round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

/// A running server; ends when dropped.
pub struct Server {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<()>>>,
}

/// A connection to a [`serve_tcp`] server.
pub struct TcpClient {
    pub stream: TcpStream,
    /// The source the server sees.
    pub seen: SocketAddr,
    /// The server's own address.
    pub served_by: SocketAddr,
}

/// A socket that speaks to a [`serve_udp`] server.
pub struct UdpClient {
    pub socket: UdpSocket,
    to: SocketAddr,
}

impl Family {
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    /// An address of the cluster's service range.
    #[must_use]
    pub fn vip(self, last: u8, port: u16) -> SocketAddr {
        let ip: IpAddr = match self {
            Self::V4 => [10, 96, 0, last].into(),
            Self::V6 => [0xfd96, 0, 0, 0, 0, 0, 0, u16::from(last)].into(),
        };
        SocketAddr::new(ip, port)
    }

    fn unspecified(self) -> SocketAddr {
        match self {
            Self::V4 => ([0, 0, 0, 0], 0).into(),
            Self::V6 => ([0_u16; 8], 0).into(),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take()
            && let Ok(Err(error)) = thread.join()
        {
            eprintln!("a server ended early: {error:#}");
        }
    }
}

/// Accepts connections at [`PORT`] of every address; tells each its source and itself in one line, then echoes.
pub fn serve_tcp(netns: &Netns) -> Result<Server> {
    serve(netns, |stop, ready| {
        let listener = TcpListener::bind(("::", PORT))?;
        setsockopt(&listener, sockopt::ReceiveTimeout, &tick())?;
        ready();
        let mut connections = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            match listener.accept() {
                Ok((stream, from)) => {
                    let stop = stop.clone();
                    connections.push(std::thread::spawn(move || echo(stream, from, &stop)));
                }
                Err(error) if is_timeout(&error) => {}
                Err(error) => return Err(error.into()),
            }
        }
        for connection in connections {
            // A client that left early is its own test's business.
            connection.join().ok();
        }
        Ok(())
    })
}

/// Answers each datagram at [`PORT`] with its source and itself.
pub fn serve_udp(netns: &Netns) -> Result<Server> {
    serve(netns, |stop, ready| {
        let socket = UdpSocket::bind(("::", PORT))?;
        socket.set_read_timeout(Some(TICK))?;
        ready();
        let mut buffer = [0; 2048];
        while !stop.load(Ordering::Relaxed) {
            match socket.recv_from(&mut buffer) {
                Ok((len, from)) => {
                    let mut answer = format!("{}\n", canonical(from)).into_bytes();
                    answer.extend_from_slice(&buffer[..len]);
                    socket.send_to(&answer, from)?;
                }
                Err(error) if is_timeout(&error) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    })
}

fn serve(
    netns: &Netns,
    work: impl FnOnce(Arc<AtomicBool>, &dyn Fn()) -> Result<()> + Send + 'static,
) -> Result<Server> {
    let stop = Arc::new(AtomicBool::new(false));
    let (sender, ready) = mpsc::channel();
    let flag = stop.clone();
    // Whoever waits no longer has given up on the server.
    let thread = netns.spawn(move || work(flag, &|| sender.send(()).unwrap_or_default()));
    ready.recv_timeout(PATIENCE).context("the server does not start")?;
    Ok(Server { stop, thread: Some(thread) })
}

fn echo(mut stream: TcpStream, from: SocketAddr, stop: &AtomicBool) -> Result<()> {
    stream.set_read_timeout(Some(TICK))?;
    stream.set_nodelay(true)?;
    writeln!(stream, "{} {}", canonical(from), canonical(stream.local_addr()?))?;
    let mut buffer = [0; 65_536];
    while !stop.load(Ordering::Relaxed) {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(len) => stream.write_all(&buffer[..len])?,
            Err(error) if is_timeout(&error) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

impl TcpClient {
    /// Connects from the calling thread's namespace and reads who the server sees.
    pub fn connect(to: SocketAddr) -> Result<Self> {
        let stream =
            TcpStream::connect_timeout(&to, PATIENCE).with_context(|| format!("connecting to {to}"))?;
        Self::greet(stream, to)
    }

    /// The same from a given source port.
    pub fn connect_from(port: u16, to: SocketAddr) -> Result<Self> {
        let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let socket = socket::socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
        setsockopt(&socket, sockopt::ReuseAddr, &true)?;
        let mut from = if to.is_ipv4() { Family::V4.unspecified() } else { Family::V6.unspecified() };
        from.set_port(port);
        use std::os::fd::AsRawFd;
        socket::bind(socket.as_raw_fd(), &SockaddrStorage::from(from))?;
        setsockopt(&socket, sockopt::SendTimeout, &nix::sys::time::TimeVal::new(5, 0))?;
        socket::connect(socket.as_raw_fd(), &SockaddrStorage::from(to))
            .with_context(|| format!("connecting from port {port} to {to}"))?;
        Self::greet(socket.into(), to)
    }

    fn greet(mut stream: TcpStream, to: SocketAddr) -> Result<Self> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        let mut line = Vec::new();
        let mut byte = [0];
        loop {
            stream.read_exact(&mut byte).with_context(|| format!("{to} says nothing"))?;
            if byte[0] == b'\n' {
                break;
            }
            line.push(byte[0]);
        }
        let line = String::from_utf8(line)?;
        let (seen, served_by) = line.split_once(' ').context("a server's greeting has two addresses")?;
        Ok(Self { stream, seen: seen.parse()?, served_by: served_by.parse()? })
    }

    /// Sends bytes and checks that they come back.
    pub fn echo(&mut self, bytes: &[u8]) -> Result<()> {
        let mut writer = self.stream.try_clone()?;
        let mut back = vec![0; bytes.len()];
        std::thread::scope(|scope| {
            let sent = scope.spawn(move || writer.write_all(bytes));
            self.stream.read_exact(&mut back).context("the echo does not come back")?;
            sent.join().expect("the writer does not panic").context("sending")
        })?;
        ensure!(back == bytes, "the echo differs");
        Ok(())
    }
}

impl UdpClient {
    /// A socket of the calling thread's namespace; not connected, so that answers from elsewhere would be seen.
    pub fn open(to: SocketAddr) -> Result<Self> {
        let local = if to.is_ipv4() { Family::V4.unspecified() } else { Family::V6.unspecified() };
        let socket = UdpSocket::bind(local)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { socket, to })
    }

    /// Sends a datagram; out: the source the server sees.
    pub fn ask(&self, word: &str) -> Result<SocketAddr> {
        self.socket.send_to(word.as_bytes(), self.to)?;
        let mut buffer = [0; 2048];
        let (len, from) =
            self.socket.recv_from(&mut buffer).with_context(|| format!("no answer from {}", self.to))?;
        ensure!(from == self.to, "{from} answers instead of {}", self.to);
        let answer = std::str::from_utf8(&buffer[..len])?;
        let (seen, echoed) =
            answer.split_once('\n').with_context(|| format!("{from} answers {answer:?} to {word:?}"))?;
        ensure!(echoed == word, "{echoed} comes back instead of {word}");
        Ok(seen.parse()?)
    }
}

/// Whether a call was answered with RST or "port unreachable".
#[must_use]
pub fn is_refused(error: &io::Error) -> bool {
    error.kind() == ErrorKind::ConnectionRefused
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

fn tick() -> nix::sys::time::TimeVal {
    nix::sys::time::TimeVal::new(0, TICK.subsec_micros().into())
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
