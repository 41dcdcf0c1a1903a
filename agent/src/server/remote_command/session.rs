//! The two halves joined: a client's streams and those of a process in a container.
//!
//! In: a [`Client`] and the process. Out: bytes both ways until the process ends or the client goes; the status.

use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use xebec_runtime::types::ContainerId;
use xebec_runtime::{Attached, Containerd, Exec, ExecRequest, OutputStream};

use super::{Client, Outcome, Output, TerminalSize, Wanted};
use crate::server::read_ahead::Chunk;

/// Bytes passed on at once.
const CHUNK: usize = 32 << 10;
/// How long output may come after the process ended: a child of it may hold the stream for ever.
const LAST_OUTPUT: Duration = Duration::from_millis(500);

/// How long an attached client may take nothing of what there is for it: no more of its output is kept than what fits
/// in between, and a container waits for nobody.
const UNREAD: Duration = Duration::from_secs(30);

/// Runs a command for a client.
pub async fn exec(
    client: Client,
    runtime: Containerd,
    id: ContainerId,
    command: Vec<String>,
    wanted: Wanted,
) {
    let request = ExecRequest {
        command,
        stdin: wanted.stdin,
        stdout: wanted.stdout,
        stderr: wanted.stderr,
        tty: wanted.tty,
    };
    let outcome = match runtime.open_exec(&id, &request).await {
        Ok(exec) => run(client, exec).await,
        Err(error) => {
            let why = format!("error executing command in container: failed to exec in container: {error}");
            (client.into_ends(), Some(Outcome::Failed(why)))
        }
    };
    // A command's output waits for as long as its client does.
    conclude(outcome).await;
}

/// Shows a client what a container's own process says, and lets it speak.
pub async fn attach(client: Client, runtime: Containerd, id: ContainerId, wanted: Wanted, stdin_once: bool) {
    let outcome = match runtime.attach(&id, wanted.stdin, stdin_once).await {
        Ok(attached) => show(client, attached, wanted).await,
        Err(error) => (client.into_ends(), Some(Outcome::Failed(format!("unable to attach: {error}")))),
    };
    if timeout(UNREAD, conclude(outcome)).await.is_err() {
        tracing::debug!("an attached client did not take what was left for it");
    }
}

/// What is left of a client at the end.
pub struct Ends {
    status: Output,
    closing: super::Closing,
}

impl Client {
    fn into_ends(self) -> Ends {
        Ends { status: self.status, closing: self.closing }
    }
}

/// Tells how it ended, unless nobody is there any more.
async fn conclude((ends, outcome): (Ends, Option<Outcome>)) {
    let Ends { status, closing } = ends;
    if let Some(outcome) = outcome {
        status.send(Bytes::from(outcome.status().to_string())).await;
    }
    status.finish().await;
    closing.finish().await;
}

async fn run(client: Client, mut exec: Exec) -> (Ends, Option<Outcome>) {
    let Client { stdin, resize, stdout, stderr, status, gone, closing } = client;
    let ended = CancellationToken::new();
    let input = exec.stdin.take();
    let outputs = (exec.stdout.take(), exec.stderr.take());
    let working = async {
        let waiting = async {
            let exit = exec.wait().await;
            ended.cancel();
            exit
        };
        let feeding = async {
            tokio::select! {
                () = async { tokio::join!(
                    async { feed(stdin, input).await; exec.close_stdin().await; },
                    follow_sizes(resize, |size| exec.resize(size.width, size.height)),
                ); } => {}
                () = ended.cancelled() => {}
            }
        };
        let (exit, (), (), ()) = tokio::join!(
            waiting,
            feeding,
            pass(outputs.0, &stdout, &ended),
            pass(outputs.1, &stderr, &ended),
        );
        exit
    };
    let exit = tokio::select! {
        exit = working => Some(exit),
        () = gone.cancelled() => None,
    };
    let outcome = match exit {
        Some(Ok(code)) => Some(Outcome::Exited(code)),
        Some(Err(error)) => Some(Outcome::Failed(error.to_string())),
        None => None,
    };
    // The client's end is the command's, and whatever happened, nothing of it stays in the container.
    exec.end().await;
    tokio::join!(stdout.finish(), stderr.finish());
    (Ends { status, closing }, outcome)
}

async fn show(client: Client, attached: Attached, wanted: Wanted) -> (Ends, Option<Outcome>) {
    let Client { stdin, resize, stdout, stderr, status, gone, closing } = client;
    let Attached { stdin: input, mut output, control } = attached;
    let feeding = async {
        tokio::join!(
            async {
                let had_input = input.is_some();
                feed(stdin, input).await;
                if had_input {
                    control.input_ended().await;
                }
                // The end of the client's input is not the end of the container.
                std::future::pending::<()>().await;
            },
            follow_sizes(resize, |size| control.resize(size.width, size.height)),
        );
    };
    let showing = async {
        while let Some(next) = output.recv().await {
            let (stream, data) = match next {
                Ok(piece) => piece,
                Err(error) => return Some(Outcome::Failed(error.to_string())),
            };
            let (to, wanted) = match stream {
                OutputStream::Stdout => (&stdout, wanted.stdout),
                OutputStream::Stderr => (&stderr, wanted.stderr),
            };
            if !wanted {
                continue;
            }
            match timeout(UNREAD, to.send(data)).await {
                Ok(true) => {}
                Ok(false) => return None,
                Err(_) => return Some(Outcome::Failed("attach: output was not read in time".to_owned())),
            }
        }
        Some(Outcome::Exited(0))
    };
    let outcome = tokio::select! {
        outcome = showing => outcome,
        () = feeding => None,
        () = gone.cancelled() => None,
    };
    control.detached().await;
    // Where the client takes nothing the end of its streams waits, too.
    timeout(UNREAD, async { tokio::join!(stdout.finish(), stderr.finish()) }).await.ok();
    (Ends { status, closing }, outcome)
}

/// The client's input into the process.
async fn feed(mut stdin: mpsc::Receiver<Chunk>, input: Option<impl AsyncWrite + Unpin>) {
    let Some(mut input) = input else { return std::future::pending().await };
    while let Some(data) = stdin.recv().await {
        if input.write_all(&data).await.is_err() {
            // The process reads no more.
            return;
        }
    }
}

async fn follow_sizes<F: Future<Output = ()>>(
    mut sizes: mpsc::Receiver<TerminalSize>,
    resize: impl Fn(TerminalSize) -> F,
) {
    while let Some(size) = sizes.recv().await {
        resize(size).await;
    }
    std::future::pending::<()>().await;
}

/// A stream of the process to the client, until its end or until it is quiet after the process has ended.
async fn pass(from: Option<impl AsyncRead + Unpin>, to: &Output, ended: &CancellationToken) {
    let Some(mut from) = from else { return };
    let mut chunk = vec![0; CHUNK];
    loop {
        let quiet = async {
            ended.cancelled().await;
            tokio::time::sleep(LAST_OUTPUT).await;
        };
        let read = tokio::select! {
            biased;
            read = from.read(&mut chunk) => read,
            () = quiet => return,
        };
        match read {
            Ok(length @ 1..) => {
                if !to.send(Bytes::copy_from_slice(&chunk[..length])).await {
                    return;
                }
            }
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn output_ends_when_it_is_quiet_after_the_process() {
        let (messages, mut received) = mpsc::channel(4);
        let output = Output::Channel { index: 1, messages };
        let (mut held, pipe) = tokio::io::duplex(64);
        let ended = CancellationToken::new();
        held.write_all(b"last words").await.unwrap();
        ended.cancel();
        // The other end stays open, as with a child in the background.
        pass(Some(pipe), &output, &ended).await;
        assert_eq!(received.recv().await, Some((1, Bytes::from_static(b"last words"))));
        drop(held);
    }
}
