//! Streams as numbered channels of one WebSocket, by the first byte of every message.
//!
//! In: a connection whose WebSocket handshake is done. Out: a [`Client`]. Version 5 can close a channel, which is how
//! the end of stdin is told; with version 4 stdin ends with the connection.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, Role};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::{Client, Closing, Output, TerminalSize};
use crate::server::idle::Activity;
use crate::server::read_ahead::{Chunk, ReadAhead};
use crate::server::upgrade::{PING, web_socket_config};

pub const V4: &str = "v4.channel.k8s.io";
pub const V5: &str = "v5.channel.k8s.io";

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
const CLOSE: u8 = 255;
/// Messages that wait for the process or the client.
const QUEUE: usize = 16;
/// Sizes a terminal may have had before the process hears of it.
const RESIZES: usize = 4;
/// How long a client may take to answer our goodbye.
const GOODBYE: Duration = Duration::from_secs(5);

/// What comes in, sorted.
struct Incoming {
    ahead: ReadAhead,
    activity: Activity,
    stdin: Option<mpsc::Sender<Chunk>>,
    resize: mpsc::Sender<TerminalSize>,
    can_close: bool,
}

pub async fn connect<S>(io: S, protocol: &str) -> Client
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let socket = WebSocketStream::from_raw_socket(io, Role::Server, Some(web_socket_config())).await;
    let (to, from) = socket.split();
    let (stdin, stdin_queue) = mpsc::channel(QUEUE);
    let (resize, resize_queue) = mpsc::channel(RESIZES);
    let (messages, message_queue) = mpsc::channel(QUEUE);
    let gone = CancellationToken::new();
    let (ahead, activity) = (ReadAhead::default(), Activity::default());
    let incoming =
        Incoming { ahead, activity: activity.clone(), stdin: Some(stdin), resize, can_close: protocol == V5 };
    // Aborted when the writer fails, too: a client that is gone is often seen only by sending it something.
    let reader = AbortOnDropHandle::new(tokio::spawn(read(from, incoming, gone.clone())));
    let task = AbortOnDropHandle::new(tokio::spawn(async move {
        if write(to, message_queue, &activity).await.is_ok() {
            // The client's own goodbye.
            tokio::time::timeout(GOODBYE, reader).await.ok();
        }
    }));
    let output = |index| Output::Channel { index, messages: messages.clone() };
    Client {
        stdin: stdin_queue,
        resize: resize_queue,
        stdout: output(STDOUT),
        stderr: output(STDERR),
        status: output(ERROR),
        gone,
        closing: Closing { done: CancellationToken::new(), task },
    }
}

async fn read<S>(mut from: SplitStream<WebSocketStream<S>>, mut incoming: Incoming, gone: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let _gone = gone.drop_guard();
    let activity = incoming.activity.clone();
    let reading = async {
        while let Some(Ok(message)) = from.next().await {
            match message {
                Message::Binary(data) => incoming.take(data).await,
                Message::Close(_) => return,
                // Pings are answered by the library.
                _ => {}
            }
        }
    };
    tokio::select! {
        () = reading => {}
        () = activity.idle() => tracing::debug!("a client's streams were idle for too long"),
    }
}

async fn write<S>(
    mut to: SplitSink<WebSocketStream<S>, Message>,
    mut messages: mpsc::Receiver<(u8, Bytes)>,
    activity: &Activity,
) -> Result<(), tokio_tungstenite::tungstenite::Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    loop {
        // While stdin is full nothing is read, and only what is sent shows that nobody is there.
        let Ok(next) = tokio::time::timeout(PING, messages.recv()).await else {
            to.send(Message::Ping(Bytes::new())).await?;
            continue;
        };
        let Some((channel, data)) = next else { break };
        activity.note();
        let mut message = BytesMut::with_capacity(1 + data.len());
        message.put_u8(channel);
        message.put(data);
        to.send(Message::Binary(message.freeze())).await?;
    }
    to.send(Message::Close(Some(CloseFrame { code: CloseCode::Normal, reason: "".into() }))).await
}

// === impl Incoming ===

impl Incoming {
    async fn take(&mut self, mut message: Bytes) {
        if message.is_empty() {
            return;
        }
        self.activity.note();
        let channel = message.split_to(1)[0];
        match channel {
            STDIN if !message.is_empty() => {
                if let Some(stdin) = &self.stdin
                    && stdin.send(self.ahead.hold(message).await).await.is_err()
                {
                    // The process reads no more.
                    self.stdin = None;
                }
            }
            RESIZE => {
                if let Ok(size) = serde_json::from_slice(&message) {
                    // A newer size follows one that finds no room.
                    self.resize.try_send(size).ok();
                }
            }
            CLOSE if self.can_close && message.first() == Some(&STDIN) => self.stdin = None,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn channels_are_sorted_and_stdin_is_closed_by_half() {
        let (io, server) = tokio::io::duplex(1 << 16);
        let mut client = WebSocketStream::from_raw_socket(io, Role::Client, None).await;
        let mut served = connect(server, V5).await;
        for message in [&[0, b'h', b'i'][..], br#"x{"Width":80,"Height":24}"#, &[255, 0]] {
            let mut message = message.to_vec();
            if message[0] == b'x' {
                message[0] = RESIZE;
            }
            client.send(Message::Binary(message.into())).await.unwrap();
        }
        assert_eq!(served.stdin.recv().await.as_deref(), Some(&b"hi"[..]));
        assert!(served.stdin.recv().await.is_none(), "closed by the client");
        assert_eq!(served.resize.recv().await, Some(TerminalSize { width: 80, height: 24 }));
        assert!(!served.gone.is_cancelled());
        assert!(served.stdout.send(Bytes::from_static(b"out")).await);
        assert!(served.status.send(Bytes::from_static(b"{}")).await);
        let Client { stdout, stderr, status, closing, gone, .. } = served;
        drop((stdout, stderr, status));
        assert_eq!(client.next().await.unwrap().unwrap(), Message::Binary(vec![1, b'o', b'u', b't'].into()));
        assert_eq!(client.next().await.unwrap().unwrap(), Message::Binary(vec![3, b'{', b'}'].into()));
        let Message::Close(Some(close)) = client.next().await.unwrap().unwrap() else { panic!("a goodbye") };
        assert_eq!(close.code, CloseCode::Normal);
        drop(client);
        closing.finish().await;
        assert!(gone.is_cancelled());
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_leaves_is_missed_though_its_stdin_is_full() {
        let (io, server) = tokio::io::duplex(1 << 10);
        let mut client = WebSocketStream::from_raw_socket(io, Role::Client, None).await;
        let served = connect(server, V5).await;
        let fill = async {
            loop {
                client.send(Message::Binary(vec![0; 1 << 16].into())).await.unwrap();
            }
        };
        tokio::time::timeout(Duration::from_secs(5), fill).await.expect_err("nobody reads stdin");
        drop(client);
        tokio::time::timeout(Duration::from_secs(60), served.gone.cancelled()).await.expect("it is gone");
    }

    #[tokio::test]
    async fn a_client_of_version_4_cannot_close_stdin() {
        let (io, server) = tokio::io::duplex(1 << 16);
        let mut client = WebSocketStream::from_raw_socket(io, Role::Client, None).await;
        let mut served = connect(server, V4).await;
        for message in [vec![255, 0], vec![0, b'x'], vec![]] {
            client.send(Message::Binary(message.into())).await.unwrap();
        }
        assert_eq!(served.stdin.recv().await.as_deref(), Some(&b"x"[..]));
        drop(client);
        served.gone.cancelled().await;
        assert!(served.stdin.recv().await.is_none());
    }
}
