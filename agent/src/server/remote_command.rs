//! exec and attach: a client's streams joined with those of a process.
//!
//! In: an upgraded connection, what the client wants of stdin, stdout, stderr and a terminal. Out: a [`Client`] with one
//! channel per stream, whatever protocol carries them; at the end a `metav1.Status` on its error stream.

mod channels;
mod session;
mod spdy_streams;

use bytes::Bytes;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::read_ahead::Chunk;
use super::spdy::StreamWriter;
use super::upgrade::Upgrade;

pub use session::{attach, exec};

/// Sub-protocols over WebSocket, with which the version 5 has a half-close of stdin.
pub const WEB_SOCKET: &[&str] = &[channels::V5, channels::V4];
/// Sub-protocols over SPDY.
pub const SPDY: &[&str] = &[channels::V5, channels::V4];

/// Which streams a client asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub tty: bool,
}

/// A terminal's size as clients send it.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "PascalCase")]
pub struct TerminalSize {
    pub width: u16,
    pub height: u16,
}

/// The other side of an exec or attach.
pub struct Client {
    /// Ends when the client closes its stdin.
    pub stdin: mpsc::Receiver<Chunk>,
    pub resize: mpsc::Receiver<TerminalSize>,
    pub stdout: Output,
    pub stderr: Output,
    pub status: Output,
    /// The connection is gone.
    pub gone: CancellationToken,
    pub closing: Closing,
}

/// The end of a connection.
pub struct Closing {
    done: CancellationToken,
    task: AbortOnDropHandle<()>,
}

/// One stream to the client.
pub enum Output {
    Channel {
        index: u8,
        messages: mpsc::Sender<(u8, Bytes)>,
    },
    Stream(StreamWriter),
    /// One that was not asked for.
    Nowhere,
}

/// How a command ended.
#[derive(Debug)]
pub enum Outcome {
    Exited(i32),
    Failed(String),
}

/// Takes over an upgraded connection.
///
/// # Errors
/// One sentence, when the client does not open the streams it asked for.
pub async fn connect(upgraded: Upgraded, upgrade: &Upgrade, wanted: Wanted) -> Result<Client, String> {
    let io = TokioIo::new(upgraded);
    match upgrade {
        Upgrade::WebSocket { protocol, .. } => Ok(channels::connect(io, protocol).await),
        Upgrade::Spdy { .. } => spdy_streams::connect(io, wanted).await,
    }
}

// === impl Wanted ===

impl Wanted {
    /// # Errors
    /// When nothing is asked for.
    pub fn check(self) -> Result<Self, &'static str> {
        if !(self.stdin || self.stdout || self.stderr) {
            return Err("you must specify at least 1 of stdin, stdout, stderr");
        }
        // A terminal has one output.
        Ok(Self { stderr: self.stderr && !self.tty, ..self })
    }
}

// === impl Output ===

impl Output {
    /// False when the client is gone.
    pub async fn send(&self, data: Bytes) -> bool {
        match self {
            Self::Channel { index, messages } => messages.send((*index, data)).await.is_ok(),
            Self::Stream(stream) => stream.send(data).await,
            Self::Nowhere => true,
        }
    }

    /// Closes the stream, where the protocol has a word for it.
    pub async fn finish(mut self) {
        if let Self::Stream(stream) = &mut self {
            stream.finish().await;
        }
    }
}

// === impl Closing ===

impl Closing {
    /// Sends what is left and closes the connection. All outputs must have been dropped. Given up it cuts the connection.
    pub async fn finish(self) {
        self.done.cancel();
        if let Err(error) = self.task.await {
            tracing::debug!(%error, "a connection was not closed in order");
        }
    }
}

// === impl Outcome ===

impl Outcome {
    /// The `Status` clients read the exit code from.
    pub fn status(&self) -> Value {
        match self {
            Self::Exited(0) => json!({ "metadata": {}, "status": "Success" }),
            Self::Exited(code) => json!({
                "metadata": {},
                "status": "Failure",
                "message": format!("command terminated with non-zero exit code: exit status {code}"),
                "reason": "NonZeroExitCode",
                "details": { "causes": [{ "reason": "ExitCode", "message": code.to_string() }] },
            }),
            Self::Failed(why) => json!({
                "metadata": {},
                "status": "Failure",
                "message": format!("Internal error occurred: {why}"),
                "reason": "InternalError",
                "details": { "causes": [{ "message": why }] },
                "code": 500,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_stand_where_clients_look_for_them() {
        assert_eq!(Outcome::Exited(0).status()["status"], "Success");
        let failed = Outcome::Exited(3).status();
        assert_eq!((&failed["reason"], &failed["status"]), (&json!("NonZeroExitCode"), &json!("Failure")));
        assert_eq!(failed["details"]["causes"][0], json!({ "reason": "ExitCode", "message": "3" }));
        assert_eq!(Outcome::Failed("no".into()).status()["reason"], "InternalError");
    }

    #[test]
    fn a_terminal_has_no_stderr_and_nothing_is_not_a_wish() {
        let all = Wanted { stdin: true, stdout: true, stderr: true, tty: true };
        assert_eq!(all.check(), Ok(Wanted { stderr: false, ..all }));
        assert!(Wanted { tty: true, ..Wanted::default() }.check().is_err());
    }
}
