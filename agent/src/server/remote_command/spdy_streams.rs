//! Streams of their own over SPDY, told apart by the header `streamtype`.
//!
//! In: a connection upgraded to SPDY. Out: a [`Client`], once all streams that were asked for are open.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::{Client, Closing, Output, TerminalSize, Wanted};
use crate::server::spdy::{Session, Stream};

/// How long a client may take to open its streams, as upstream.
const CREATION: Duration = Duration::from_secs(30);
/// How long what is left to be sent may take.
const GOODBYE: Duration = Duration::from_secs(5);
const RESIZES: usize = 4;

#[derive(Default)]
struct Opened {
    error: Option<Stream>,
    stdin: Option<Stream>,
    stdout: Option<Stream>,
    stderr: Option<Stream>,
    resize: Option<Stream>,
}

pub async fn connect<S>(io: S, wanted: Wanted) -> Result<Client, String>
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let mut session = Session::start(io).map_err(|error| error.to_string())?;
    let opening = async {
        let mut opened = Opened::default();
        while !opened.is_complete(wanted) {
            let stream = session.accept().await.ok_or("the client left")?;
            opened.take(stream)?;
        }
        Ok::<_, String>(opened)
    };
    let opened = tokio::time::timeout(CREATION, opening)
        .await
        .map_err(|_| "timed out waiting for client to create streams".to_owned())??;

    let gone = CancellationToken::new();
    let done = CancellationToken::new();
    let (told_gone, told_done) = (gone.clone(), done.clone());
    let task = AbortOnDropHandle::new(tokio::spawn(async move {
        let _gone = told_gone.drop_guard();
        loop {
            tokio::select! {
                // Whatever else is opened is closed at once.
                stream = session.accept() => if stream.is_none() { return },
                () = told_done.cancelled() => break,
            }
        }
        tokio::time::timeout(GOODBYE, session.close()).await.ok();
    }));
    Ok(opened.client(gone, Closing { done, task }))
}

// === impl Opened ===

impl Opened {
    fn take(&mut self, stream: Stream) -> Result<(), String> {
        let kind = stream.headers.get("streamtype").unwrap_or_default().to_owned();
        let place = match kind.as_str() {
            "error" => &mut self.error,
            "stdin" => &mut self.stdin,
            "stdout" => &mut self.stdout,
            "stderr" => &mut self.stderr,
            "resize" => &mut self.resize,
            _ => return Err(format!("unexpected stream type {kind:?}")),
        };
        match place.replace(stream) {
            Some(_) => Err(format!("a second stream of type {kind:?}")),
            None => Ok(()),
        }
    }

    fn is_complete(&self, wanted: Wanted) -> bool {
        self.error.is_some()
            && (!wanted.stdin || self.stdin.is_some())
            && (!wanted.stdout || self.stdout.is_some())
            && (!wanted.stderr || self.stderr.is_some())
            && (!wanted.tty || self.resize.is_some())
    }

    fn client(self, gone: CancellationToken, closing: Closing) -> Client {
        let (resize, sizes) = mpsc::channel(RESIZES);
        if let Some(stream) = self.resize {
            tokio::spawn(pass_sizes(stream, resize));
        }
        let stdin = match self.stdin {
            Some(stream) => stream.reader.split().0,
            None => mpsc::channel(1).1,
        };
        let output = |stream: Option<Stream>| stream.map_or(Output::Nowhere, |s| Output::Stream(s.writer));
        Client {
            stdin,
            resize: sizes,
            stdout: output(self.stdout),
            stderr: output(self.stderr),
            status: output(self.error),
            gone,
            closing,
        }
    }
}

/// Each frame is one size.
async fn pass_sizes(stream: Stream, sizes: mpsc::Sender<TerminalSize>) {
    let Stream { mut reader, writer: _open, .. } = stream;
    while let Some(message) = reader.recv().await {
        if let Ok(size) = serde_json::from_slice(&message)
            && sizes.send(size).await.is_err()
        {
            return;
        }
    }
}
