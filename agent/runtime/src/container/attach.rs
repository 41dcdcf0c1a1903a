//! A client at a container's own process: `kubectl attach`.
//!
//! In: a running container. Out: what it says from now on, through the socket of its log sink; its stdin, if it has
//! one; its terminal's size. The container waits for clients that read, and only for a moment for those that do not.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use containerd_client::services::v1::{CloseIoRequest, WaitRequest};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::exec_session::open_writer;
use super::io::{Inputs, IoFolder};
use crate::containerd::Containerd;
use crate::error::RuntimeError;
use crate::log_sink::{ATTACH_SOCKET, END, LONGEST_PIECE, PIECE_HEAD};
use crate::rpc::{Optional, rpc};
use crate::types::ContainerId;

/// Pieces read ahead of a slow client.
const QUEUE: usize = 16;
/// How long output may come after the process ended: containerd 1.6 keeps the streams open.
const LAST_OUTPUT: Duration = Duration::from_millis(500);
/// How long a piece may take that has begun.
const PIECE: Duration = Duration::from_secs(30);
/// One wait of many for a container without an end in sight.
const WAIT: Duration = Duration::from_secs(600);

/// Which of a container's outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputStream {
    /// Also a terminal's.
    Stdout,
    Stderr,
}

/// A container's streams.
pub struct Attached {
    pub stdin: Option<pipe::Sender>,
    /// Ends with the container; an error is the last item of a client that was cut off.
    pub output: mpsc::Receiver<io::Result<(OutputStream, Bytes)>>,
    pub control: AttachControl,
}

/// What else can be done to the container from here.
pub struct AttachControl {
    runtime: Containerd,
    id: ContainerId,
    /// Its stdin ends with that of the first client (`stdinOnce`).
    stdin_once: bool,
}

// === impl Containerd ===

impl Containerd {
    /// Attaches to a running container.
    ///
    /// # Errors
    /// When it is not there or has no sink.
    pub async fn attach(
        &self,
        id: &ContainerId,
        stdin: bool,
        stdin_once: bool,
    ) -> Result<Attached, RuntimeError> {
        let Some((_, identity)) = self.client.record(&id.0).await? else {
            return Err(RuntimeError::Call {
                call: "attach",
                message: format!("container {}: not found", id.0),
            });
        };
        let folder = self.io_folder(&id.0);
        let io = |source| RuntimeError::Io { path: folder.path().display().to_string(), source };
        let socket = connect(&folder).await.map_err(io)?;
        let stdin_once = stdin && stdin_once && identity.stdin;
        let stdin = if stdin && identity.stdin { Some(open_writer(&folder.stdin()).await?) } else { None };
        let (sender, output) = mpsc::channel(QUEUE);
        let (runtime, container) = (self.clone(), id.clone());
        let sink_tells = Inputs { stdin: identity.stdin, tty: identity.tty }.has_own_sink();
        tokio::spawn(async move {
            let ended = async {
                if sink_tells {
                    // Its streams end with the container, and it with them.
                    std::future::pending::<()>().await;
                }
                runtime.task_end(&container).await;
            };
            let end = match pass(socket, &sender, ended).await {
                // Whatever the container did since: this client has missed what it said.
                Ok(End::Silent) => Err(cut_off()),
                Ok(End::Told | End::Left) => Ok(()),
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(cut_off()),
                Err(error) => Err(error),
            };
            if let Err(error) = end {
                tracing::debug!(container = container.0, %error, "an attached client is cut off");
                // Nobody hears it when the client left.
                sender.send(Err(error)).await.ok();
            }
        });
        let control = AttachControl { runtime: self.clone(), id: id.clone(), stdin_once };
        Ok(Attached { stdin, output, control })
    }

    /// Resolves when the container's process has ended, or nobody can tell.
    async fn task_end(&self, id: &ContainerId) {
        let request = WaitRequest { container_id: id.0.clone(), ..Default::default() };
        loop {
            match rpc!(self.client, WAIT, tasks.wait(request.clone())).await.optional() {
                Err(RuntimeError::Timeout { .. }) => {}
                _ => return,
            }
        }
    }
}

/// The sink's socket, by a way that is short however long the folder's path is.
pub(super) async fn connect(folder: &IoFolder) -> io::Result<UnixStream> {
    let dir = File::open(folder.path())?;
    UnixStream::connect(format!("/proc/self/fd/{}/{ATTACH_SOCKET}", dir.as_raw_fd())).await
}

fn cut_off() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "attach: output was not read in time")
}

/// How a connection to a sink ended.
enum End {
    /// The container will say nothing more.
    Told,
    /// Without a word.
    Silent,
    /// The client left.
    Left,
}

async fn pass(
    socket: UnixStream,
    to: &mpsc::Sender<io::Result<(OutputStream, Bytes)>>,
    ended: impl Future<Output = ()>,
) -> io::Result<End> {
    let mut socket = BufReader::with_capacity(LONGEST_PIECE + PIECE_HEAD, socket);
    tokio::pin!(ended);
    let mut has_ended = false;
    loop {
        // Waits without taking anything: a wait that is given up loses nothing.
        let is_end = tokio::select! {
            biased;
            filled = socket.fill_buf() => filled?.is_empty(),
            () = &mut ended, if !has_ended => {
                has_ended = true;
                continue;
            }
            () = tokio::time::sleep(LAST_OUTPUT), if has_ended => return Ok(End::Told),
        };
        if is_end {
            return Ok(if has_ended { End::Told } else { End::Silent });
        }
        let Some(piece) = timeout(PIECE, read_piece(&mut socket)).await?? else { return Ok(End::Told) };
        if to.send(Ok(piece)).await.is_err() {
            return Ok(End::Left);
        }
    }
}

/// The next piece; `None` is the one that tells the end.
async fn read_piece(socket: &mut BufReader<UnixStream>) -> io::Result<Option<(OutputStream, Bytes)>> {
    let mut head = [0; PIECE_HEAD];
    socket.read_exact(&mut head).await?;
    let [stream, a, b, c] = head;
    let length = u32::from_be_bytes([0, a, b, c]) as usize;
    if length > LONGEST_PIECE {
        return Err(io::Error::other("a piece that is too long"));
    }
    let stream = match stream {
        END => return Ok(None),
        0 => OutputStream::Stdout,
        _ => OutputStream::Stderr,
    };
    let mut data = BytesMut::zeroed(length);
    socket.read_exact(&mut data).await?;
    Ok(Some((stream, data.freeze())))
}

// === impl AttachControl ===

impl AttachControl {
    /// Tells the container's terminal its size.
    pub async fn resize(&self, width: u16, height: u16) {
        self.runtime.resize_terminal(&self.id, "", width, height).await;
    }

    /// The client's stdin has ended; the writing end must have been dropped.
    pub async fn input_ended(&self) {
        if self.stdin_once {
            let request =
                CloseIoRequest { container_id: self.id.0.clone(), exec_id: String::new(), stdin: true };
            self.runtime.close_io(request).await;
        }
    }

    /// The client is gone.
    pub async fn detached(&self) {
        self.input_ended().await;
    }
}
