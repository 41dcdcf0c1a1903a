//! The sink's attach socket: copies of the output for whoever is there.
//!
//! In: bytes as they come from the container. Out: pieces, a head of four bytes (stream, length) and what was read. A
//! client that does not keep up holds the container up for a while, so that it misses nothing, and is then cut off: the
//! container and its log go on.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use super::entry::Stream;

/// Name of the socket in a container's folder.
pub(crate) const ATTACH_SOCKET: &str = "attach.sock";
/// Stream (0: stdout, 1: stderr), then the length in three bytes, the highest first.
pub(crate) const PIECE_HEAD: usize = 4;
/// Longest text of a piece: what is read at once.
pub(crate) const LONGEST_PIECE: usize = super::CHUNK;
/// Clients at a time.
const CLIENTS: usize = 8;
/// What [`Audience::descriptors`] gives at most.
pub(super) const DESCRIPTORS: usize = 1 + CLIENTS;
/// How long a client may hold the container up.
const PATIENCE: Duration = Duration::from_secs(10);

/// Who listens.
pub(super) struct Audience {
    listener: Option<UnixListener>,
    clients: Vec<UnixStream>,
    /// A head and its text, written at once.
    piece: Vec<u8>,
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
        self.listener.iter().map(AsFd::as_fd).chain(self.clients.iter().map(AsFd::as_fd))
    }

    /// Sees to arrivals and departures; `ready` is about the descriptors, in their order.
    pub(super) fn attend(&mut self, ready: &[bool]) {
        let (arrival, clients) = ready.split_at(ready.len().min(usize::from(self.listener.is_some())));
        let mut clients = clients.iter();
        self.clients.retain_mut(|client| !clients.next().is_some_and(|ready| *ready) || is_there(client));
        if arrival == [true] {
            self.admit();
        }
    }

    fn admit(&mut self) {
        let Some(Ok((client, _))) = self.listener.as_ref().map(UnixListener::accept) else { return };
        // Accepted sockets are blocking whatever the listener is.
        if self.clients.len() < CLIENTS && client.set_write_timeout(Some(PATIENCE)).is_ok() {
            self.clients.push(client);
        }
    }

    /// Copies to every client what was read.
    pub(super) fn tell(&mut self, stream: Stream, text: &[u8]) {
        if self.clients.is_empty() {
            return;
        }
        let [_, a, b, c] = u32::try_from(text.len()).unwrap_or_default().to_be_bytes();
        let stream = match stream {
            Stream::Stdout => 0,
            Stream::Stderr => 1,
        };
        self.piece.clear();
        self.piece.extend_from_slice(&[stream, a, b, c]);
        self.piece.extend_from_slice(text);
        let piece = &self.piece;
        self.clients.retain_mut(|client| client.write_all(piece).is_ok());
    }
}

/// Clients send nothing: what can be read is their end.
fn is_there(client: &mut UnixStream) -> bool {
    let _ = client.set_nonblocking(true);
    let read = client.read(&mut [0; 16]);
    let _ = client.set_nonblocking(false);
    match read {
        Ok(length) => length > 0,
        Err(error) => matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
    }
}
