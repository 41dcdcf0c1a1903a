//! The sink's attach socket: copies of the output for whoever is there.
//!
//! In: bytes as they come from the container. Out: pieces, a head of four bytes (stream, length) and what was read; at
//! the end a piece that says so. A client that reads misses nothing, because the container waits for it. One that takes
//! nothing for a second, or less than [`SLOWEST`] for longer, is cut off: the container and its log go on. All clients
//! are waited for at once.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::entry::Stream;

/// Name of the socket in a container's folder.
pub(crate) const ATTACH_SOCKET: &str = "attach.sock";
/// Stream (0: stdout, 1: stderr, 2: the end), then the length in three bytes, the highest first.
pub(crate) const PIECE_HEAD: usize = 4;
/// Longest text of a piece: what is read at once.
pub(crate) const LONGEST_PIECE: usize = super::CHUNK;
/// In place of a stream: the container will say nothing more. A connection that ends without it was cut off.
pub(crate) const END: u8 = 2;
/// Clients at a time.
const CLIENTS: usize = 8;
/// What [`Audience::descriptors`] gives at most.
pub(super) const DESCRIPTORS: usize = 1 + CLIENTS;
/// How long a client may hold the container up without having taken anything.
const PATIENCE: Duration = Duration::from_secs(1);
/// Bytes a second for which a client earns as much patience as it uses.
const SLOWEST: u32 = 256 << 10;

/// Who listens.
pub(super) struct Audience {
    listener: Option<UnixListener>,
    clients: Vec<Client>,
    /// A head and its text.
    piece: Vec<u8>,
}

struct Client {
    socket: UnixStream,
    /// Bytes of the present piece that it has.
    taken: usize,
    /// How long it may be waited for.
    patience: Duration,
}

// === impl Audience ===

impl Audience {
    /// Opens the socket in the folder, which becomes the working folder. Without one the log is written all the same.
    pub(super) fn open(folder: Option<&Path>) -> Self {
        let listener = folder.and_then(|folder| {
            // Relative: the path of a socket may have 107 bytes.
            std::env::set_current_dir(folder).ok()?;
            fs::remove_file(ATTACH_SOCKET).ok();
            let listener = UnixListener::bind(ATTACH_SOCKET).ok()?;
            listener.set_nonblocking(true).ok()?;
            Some(listener)
        });
        Self { listener, clients: Vec::with_capacity(CLIENTS), piece: Vec::new() }
    }

    /// The listener, then the clients.
    pub(super) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.listener.iter().map(AsFd::as_fd).chain(self.clients.iter().map(|client| client.socket.as_fd()))
    }

    /// Sees to arrivals and departures; `ready` is about the descriptors, in their order.
    pub(super) fn attend(&mut self, ready: &[bool]) {
        let (arrival, clients) = ready.split_at(ready.len().min(usize::from(self.listener.is_some())));
        let mut clients = clients.iter();
        self.clients.retain_mut(|client| !clients.next().is_some_and(|ready| *ready) || client.is_there());
        if arrival == [true] {
            let Some(Ok((socket, _))) = self.listener.as_ref().map(UnixListener::accept) else { return };
            self.admit(socket);
        }
    }

    fn admit(&mut self, socket: UnixStream) {
        // Accepted sockets are blocking whatever the listener is.
        if self.clients.len() < CLIENTS && socket.set_nonblocking(true).is_ok() {
            self.clients.push(Client { socket, taken: 0, patience: PATIENCE });
        }
    }

    /// Copies to every client what was read.
    pub(super) fn tell(&mut self, stream: Stream, text: &[u8]) {
        if self.clients.is_empty() {
            return;
        }
        let stream = match stream {
            Stream::Stdout => 0,
            Stream::Stderr => 1,
        };
        self.compose(stream, text);
        self.pass_on();
    }

    /// Tells every client that nothing more will come.
    pub(super) fn end(&mut self) {
        self.compose(END, &[]);
        self.pass_on();
    }

    fn compose(&mut self, stream: u8, text: &[u8]) {
        let [_, a, b, c] = u32::try_from(text.len()).unwrap_or_default().to_be_bytes();
        self.piece.clear();
        self.piece.extend_from_slice(&[stream, a, b, c]);
        self.piece.extend_from_slice(text);
    }

    /// Until every client has the piece or is cut off.
    fn pass_on(&mut self) {
        let began = Instant::now();
        let piece = &self.piece;
        self.clients.retain_mut(|client| {
            client.taken = 0;
            client.take(piece, began)
        });
        loop {
            let waited = began.elapsed();
            let rest = |client: &Client| client.taken < piece.len();
            self.clients.retain(|client| !rest(client) || waited < client.patience);
            let waiting = self.clients.iter().filter(|client| rest(client));
            let Some(limit) = waiting.clone().map(|client| client.patience - waited).min() else { return };
            let mut fds: Vec<PollFd<'_>> =
                waiting.map(|client| PollFd::new(client.socket.as_fd(), PollFlags::POLLOUT)).collect();
            // Rounded up: a wait of nothing would be repeated until the clock has moved on.
            let limit = u16::try_from(limit.as_millis() + 1).unwrap_or(u16::MAX);
            // An interrupted wait is as good as one that came to its end.
            let _ = poll(&mut fds, PollTimeout::from(limit));
            self.clients.retain_mut(|client| !rest(client) || client.take(piece, began));
        }
    }
}

// === impl Client ===

impl Client {
    /// Passes on as much of the rest of a piece as there is room for; false when the client is gone.
    fn take(&mut self, piece: &[u8], began: Instant) -> bool {
        while self.taken < piece.len() {
            match self.socket.write(&piece[self.taken..]) {
                Ok(0) => return false,
                Ok(length) => self.taken += length,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return error.kind() == ErrorKind::WouldBlock,
            }
        }
        let earned = Duration::from_secs(piece.len() as u64) / SLOWEST;
        self.patience = PATIENCE.min(self.patience.saturating_sub(began.elapsed()) + earned);
        true
    }

    /// Clients send nothing: what can be read is their end.
    fn is_there(&mut self) -> bool {
        match self.socket.read(&mut [0; 16]) {
            Ok(length) => length > 0,
            Err(error) => matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn audience(clients: usize) -> (Audience, Vec<UnixStream>) {
        let mut audience = Audience { listener: None, clients: Vec::new(), piece: Vec::new() };
        let ends = (0..clients).map(|_| {
            let (ours, theirs) = UnixStream::pair().unwrap();
            audience.admit(ours);
            theirs
        });
        let ends = ends.collect();
        (audience, ends)
    }

    fn read_all(mut end: UnixStream) -> thread::JoinHandle<Vec<u8>> {
        thread::spawn(move || {
            let mut all = Vec::new();
            end.read_to_end(&mut all).unwrap();
            all
        })
    }

    #[expect(clippy::disallowed_methods, reason = "a slow reader is one that does nothing for a while")]
    fn pause(millis: u64) {
        thread::sleep(Duration::from_millis(millis));
    }

    /// Eight MiB, more than any socket holds.
    fn flood(audience: &mut Audience) -> Duration {
        let began = Instant::now();
        for _ in 0..128 {
            audience.tell(Stream::Stdout, &[b'x'; LONGEST_PIECE]);
        }
        audience.end();
        began.elapsed()
    }

    #[test]
    fn clients_that_take_nothing_are_cut_off_together() {
        let (mut audience, mut ends) = audience(CLIENTS);
        let reader = read_all(ends.pop().unwrap());
        let took = flood(&mut audience);
        assert!(took >= PATIENCE && took < 2 * PATIENCE, "{took:?}");
        assert_eq!(audience.clients.len(), 1);
        drop(audience);
        let all = reader.join().unwrap();
        assert_eq!(all.len(), 128 * (LONGEST_PIECE + PIECE_HEAD) + PIECE_HEAD, "whoever reads gets all");
        assert_eq!(all[all.len() - PIECE_HEAD..], [END, 0, 0, 0]);
        assert!(!read_all(ends.pop().unwrap()).join().unwrap().ends_with(&[END, 0, 0, 0]));
    }

    #[test]
    fn a_client_that_takes_a_little_now_and_then_is_cut_off() {
        let (mut audience, mut ends) = audience(1);
        let mut end = ends.pop().unwrap();
        let trickle = thread::spawn(move || {
            let mut some = [0; 4096];
            while end.read(&mut some).unwrap() > 0 {
                pause(100);
            }
        });
        let took = flood(&mut audience);
        assert!(took < 3 * PATIENCE, "{took:?}");
        assert!(audience.clients.is_empty());
        trickle.join().unwrap();
    }

    #[test]
    fn a_reader_slower_than_the_container_misses_nothing() {
        let (mut audience, mut ends) = audience(1);
        let mut end = ends.pop().unwrap();
        let reader = thread::spawn(move || {
            let (mut some, mut got) = (vec![0; LONGEST_PIECE], 0);
            loop {
                match end.read(&mut some).unwrap() {
                    0 => return got,
                    length => got += length,
                }
                pause(20);
            }
        });
        let took = flood(&mut audience);
        assert!(took > 2 * PATIENCE, "it was waited for: {took:?}");
        drop(audience);
        assert_eq!(reader.join().unwrap(), 128 * (LONGEST_PIECE + PIECE_HEAD) + PIECE_HEAD);
    }
}
