//! One connection and its streams.
//!
//! In: frames. Out: streams in the order in which they are opened, each with a bounded queue of what came in; a slow
//! stream holds the connection up. The session ends with its connection, when nothing goes over it for too long, or when
//! the client says that it goes and has no stream open.

use std::collections::HashMap;
use std::io;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::frame::{self, Frame, Frames, Reset};
use super::header_block::{self, Headers};
use crate::server::idle::Activity;
use crate::server::read_ahead::{Chunk, ReadAhead};
use crate::server::upgrade::PING;

/// Streams open at a time.
const STREAMS: usize = 1024;
/// Frames of a stream that wait for whoever reads it.
const QUEUE: usize = 64;
/// Frames that wait to be sent.
const OUTGOING: usize = 64;
/// Streams that wait to be taken.
const ARRIVALS: usize = 64;
/// Bytes in one data frame.
const PIECE: usize = 32 << 10;

/// A connection that is read and written in the background, until dropped.
pub struct Session {
    arrivals: mpsc::Receiver<Stream>,
    outgoing: mpsc::Sender<Outgoing>,
    reader: AbortOnDropHandle<()>,
    writer: AbortOnDropHandle<()>,
}

/// A stream that the client opened.
pub struct Stream {
    pub headers: Headers,
    pub reader: StreamReader,
    pub writer: StreamWriter,
}

/// What the client sends on a stream.
pub struct StreamReader {
    incoming: mpsc::Receiver<Chunk>,
    reset: oneshot::Receiver<()>,
}

/// What the client is sent on a stream. Dropped unfinished it closes the stream.
pub struct StreamWriter {
    stream: u32,
    outgoing: mpsc::Sender<Outgoing>,
    finished: bool,
}

enum Outgoing {
    Control(Bytes),
    Data { stream: u32, fin: bool, data: Bytes },
}

/// The reading side's memory.
struct Incoming {
    blocks: header_block::Reader,
    replies: header_block::Writer,
    ahead: ReadAhead,
    activity: Activity,
    streams: HashMap<u32, Open>,
    last_stream: u32,
    arrivals: mpsc::Sender<Stream>,
    outgoing: mpsc::Sender<Outgoing>,
}

/// A stream that somebody reads.
struct Open {
    /// Until the client closes its side.
    queue: Option<mpsc::Sender<Chunk>>,
    /// Closed when the reader is dropped.
    reset: oneshot::Sender<()>,
}

// === impl Session ===

impl Session {
    /// # Errors
    /// Never in practice: only when zlib does not take its dictionary.
    pub fn start(io: impl AsyncRead + AsyncWrite + Send + 'static) -> io::Result<Self> {
        let (from, to) = tokio::io::split(io);
        let (outgoing, queue) = mpsc::channel(OUTGOING);
        let (sender, arrivals) = mpsc::channel(ARRIVALS);
        let activity = Activity::default();
        let incoming = Incoming {
            blocks: header_block::Reader::new(),
            replies: header_block::Writer::new()?,
            ahead: ReadAhead::default(),
            activity: activity.clone(),
            streams: HashMap::new(),
            last_stream: 0,
            arrivals: sender,
            outgoing: outgoing.clone(),
        };
        // While a stream's queue is full nothing is read: that the client is gone is then seen by the writer only.
        let dead = CancellationToken::new();
        let seen_dead = dead.clone();
        let reader = tokio::spawn(async move {
            let watched = incoming.activity.clone();
            tokio::select! {
                outcome = incoming.run(Box::pin(from)) => if let Err(error) = outcome {
                    tracing::debug!(%error, "a SPDY connection ended");
                },
                () = seen_dead.cancelled() => {}
                () = watched.idle() => tracing::debug!("a SPDY connection was idle for too long"),
            }
        });
        let writer = tokio::spawn(async move {
            if let Err(error) = write(queue, Box::pin(to), &activity).await {
                tracing::debug!(%error, "a SPDY connection takes nothing more");
                dead.cancel();
            }
        });
        Ok(Self {
            arrivals,
            outgoing,
            reader: AbortOnDropHandle::new(reader),
            writer: AbortOnDropHandle::new(writer),
        })
    }

    /// The next stream; `None` when no more will come.
    pub async fn accept(&mut self) -> Option<Stream> {
        self.arrivals.recv().await
    }

    /// Sends what is left to be sent of all streams that were finished, and closes the connection.
    pub async fn close(self) {
        let Self { outgoing, reader, writer, arrivals } = self;
        // Nobody is there to hear a failure.
        outgoing.send(Outgoing::Control(frame::go_away(0))).await.ok();
        drop((outgoing, arrivals, reader));
        writer.await.ok();
    }
}

async fn write(
    mut queue: mpsc::Receiver<Outgoing>,
    mut to: impl AsyncWrite + Unpin,
    activity: &Activity,
) -> io::Result<()> {
    // Ours have even numbers; no answer is waited for.
    let mut ping = 0_u32;
    loop {
        let next = match tokio::time::timeout(PING, queue.recv()).await {
            Ok(Some(next)) => next,
            Ok(None) => break,
            Err(_) => {
                ping = ping.wrapping_add(2);
                Outgoing::Control(frame::ping(ping))
            }
        };
        match next {
            Outgoing::Control(bytes) => to.write_all(&bytes).await?,
            Outgoing::Data { stream, fin, data } => {
                activity.note();
                // One write: over a WebSocket each becomes a message.
                let mut whole = Vec::with_capacity(8 + data.len());
                whole.extend_from_slice(&frame::data_head(stream, fin, data.len()));
                whole.extend_from_slice(&data);
                to.write_all(&whole).await?;
            }
        }
        if queue.is_empty() {
            to.flush().await?;
        }
    }
    to.shutdown().await
}

// === impl Incoming ===

impl Incoming {
    async fn run(mut self, from: impl AsyncRead + Unpin) -> io::Result<()> {
        let mut frames = Frames::new(BufReader::with_capacity(PIECE + 8, from));
        while let Some(next) = frames.next().await? {
            match next {
                Frame::SynStream { stream, fin, block } => {
                    let headers = self.blocks.read(&block)?;
                    self.open(stream, fin, headers).await?;
                }
                // Read for its effect on the state of the decompression.
                Frame::Headers { block } => drop(self.blocks.read(&block)?),
                Frame::Data { stream, fin, data } => self.pass(stream, fin, data).await,
                Frame::Reset { stream } => {
                    if let Some(open) = self.streams.remove(&stream) {
                        open.reset.send(()).ok();
                    }
                }
                // Even ones are answers to ours, and we send none.
                Frame::Ping { id } if id % 2 == 1 => self.send(frame::ping(id)).await,
                Frame::GoAway if self.streams.is_empty() => return Ok(()),
                Frame::GoAway | Frame::Ping { .. } | Frame::Other => {}
            }
        }
        Ok(())
    }

    async fn open(&mut self, stream: u32, fin: bool, headers: Headers) -> io::Result<()> {
        if stream.is_multiple_of(2) || stream <= self.last_stream {
            self.send(frame::reset(stream, Reset::Protocol)).await;
            return Ok(());
        }
        self.last_stream = stream;
        self.streams.retain(|_, open| !open.reset.is_closed());
        if self.streams.len() >= STREAMS {
            self.send(frame::reset(stream, Reset::Refused)).await;
            return Ok(());
        }
        let (sender, incoming) = mpsc::channel(QUEUE);
        let (reset, was_reset) = oneshot::channel();
        self.streams.insert(stream, Open { queue: (!fin).then_some(sender), reset });
        let block = self.replies.empty()?;
        self.send(frame::syn_reply(stream, &block)).await;
        let writer = StreamWriter { stream, outgoing: self.outgoing.clone(), finished: false };
        let opened = Stream { headers, reader: StreamReader { incoming, reset: was_reset }, writer };
        // Nobody takes streams any more: the session is about to be dropped.
        self.arrivals.send(opened).await.ok();
        Ok(())
    }

    async fn pass(&mut self, stream: u32, fin: bool, data: Bytes) {
        self.activity.note();
        let Some(open) = self.streams.get_mut(&stream) else { return };
        // Late data of a stream that nobody reads any more goes nowhere.
        if let Some(queue) = &open.queue
            && !data.is_empty()
        {
            queue.send(self.ahead.hold(data).await).await.ok();
        }
        if fin {
            open.queue = None;
        }
    }

    async fn send(&self, bytes: Bytes) {
        // The writer ends only with the connection, which the reader sees, too.
        self.outgoing.send(Outgoing::Control(bytes)).await.ok();
    }
}

// === impl StreamReader ===

impl StreamReader {
    /// What came next; `None` when the client has closed its side.
    pub async fn recv(&mut self) -> Option<Chunk> {
        self.incoming.recv().await
    }

    /// Both parts: what comes, and what resolves when the client cuts the stream or the connection ends.
    pub fn split(self) -> (mpsc::Receiver<Chunk>, oneshot::Receiver<()>) {
        (self.incoming, self.reset)
    }
}

// === impl StreamWriter ===

impl StreamWriter {
    /// False when the connection is gone.
    pub async fn send(&self, mut data: Bytes) -> bool {
        while !data.is_empty() {
            let piece = data.split_to(data.len().min(PIECE));
            let next = Outgoing::Data { stream: self.stream, fin: false, data: piece };
            if self.outgoing.send(next).await.is_err() {
                return false;
            }
        }
        true
    }

    /// Closes this side; the client's stays open.
    pub async fn finish(&mut self) {
        if !std::mem::replace(&mut self.finished, true) {
            let end = Outgoing::Data { stream: self.stream, fin: true, data: Bytes::new() };
            self.outgoing.send(end).await.ok();
        }
    }

    /// Cuts the stream on both sides.
    pub async fn reset(mut self) {
        self.finished = true;
        let cut = Outgoing::Control(frame::reset(self.stream, Reset::Cancel));
        self.outgoing.send(cut).await.ok();
    }
}

impl Drop for StreamWriter {
    fn drop(&mut self) {
        if !self.finished {
            let end = Outgoing::Data { stream: self.stream, fin: true, data: Bytes::new() };
            // With a full queue the stream stays open until its connection ends.
            self.outgoing.try_send(end).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::AsyncReadExt;

    use super::super::frame::tests::syn_stream;
    use super::super::header_block::tests::block;
    use super::*;

    async fn data(client: &mut (impl AsyncRead + Unpin)) -> (u32, bool, Bytes) {
        loop {
            match Frames::new(&mut *client).next().await.unwrap().expect("a frame") {
                Frame::Data { stream, fin, data } => return (stream, fin, data),
                _ => continue,
            }
        }
    }

    #[tokio::test]
    async fn streams_carry_bytes_both_ways_and_close_by_halves() {
        let (mut client, server) = tokio::io::duplex(1 << 20);
        let mut session = Session::start(server).unwrap();
        let mut blocks = header_block::Writer::new().unwrap();
        for (id, kind) in [(1, "error"), (3, "data")] {
            let headers = block(&mut blocks, &[("streamtype", kind), ("port", "80")]);
            client.write_all(&syn_stream(id, &headers)).await.unwrap();
        }
        let error = session.accept().await.unwrap();
        let mut stream = session.accept().await.unwrap();
        assert_eq!(error.headers.get("streamtype"), Some("error"));
        assert_eq!(stream.headers.get("streamtype"), Some("data"));
        client.write_all(&frame::data_head(3, false, 5)).await.unwrap();
        client.write_all(b"hello").await.unwrap();
        client.write_all(&frame::data_head(3, true, 0)).await.unwrap();
        assert_eq!(stream.reader.recv().await.as_deref(), Some(&b"hello"[..]));
        assert!(stream.reader.recv().await.is_none(), "the client closed its half");
        assert!(stream.writer.send(Bytes::from(vec![7; PIECE + 1])).await, "ours is still open");
        stream.writer.finish().await;
        assert_eq!(data(&mut client).await.2.len(), PIECE);
        assert_eq!(data(&mut client).await.2.len(), 1);
        assert_eq!(data(&mut client).await, (3, true, Bytes::new()));
        drop(error);
        assert_eq!(data(&mut client).await, (1, true, Bytes::new()), "a dropped stream is closed");
        drop(stream);
        session.close().await;
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, frame::go_away(0));
    }

    #[tokio::test]
    async fn pings_are_answered_and_reused_stream_ids_refused() {
        let (mut client, server) = tokio::io::duplex(1 << 20);
        let mut session = Session::start(server).unwrap();
        let mut blocks = header_block::Writer::new().unwrap();
        client.write_all(&frame::ping(1)).await.unwrap();
        assert_eq!(Frames::new(&mut client).next().await.unwrap(), Some(Frame::Ping { id: 1 }));
        for _ in 0..2 {
            let headers = block(&mut blocks, &[("streamtype", "data")]);
            client.write_all(&syn_stream(3, &headers)).await.unwrap();
        }
        let first = session.accept().await;
        assert!(first.is_some());
        assert_eq!(
            Frames::new(&mut client).next().await.unwrap(),
            Some(Frame::Other),
            "the reply to the first"
        );
        assert_eq!(Frames::new(&mut client).next().await.unwrap(), Some(Frame::Reset { stream: 3 }));
        drop(client);
        assert!(session.accept().await.is_none(), "the connection is gone");
    }

    #[tokio::test(start_paused = true)]
    async fn streams_that_nobody_reads_take_bounded_memory_and_end_with_their_client() {
        const FRAME: usize = 1 << 20;
        let (mut client, server) = tokio::io::duplex(1 << 10);
        let mut session = Session::start(server).unwrap();
        let mut blocks = header_block::Writer::new().unwrap();
        let mut sent = 0;
        let flood = async {
            for stream in (1..64).step_by(2) {
                let headers = block(&mut blocks, &[("streamtype", "data")]);
                client.write_all(&syn_stream(stream, &headers)).await.unwrap();
                client.write_all(&frame::data_head(stream, false, FRAME)).await.unwrap();
                for _ in 0..FRAME / 1024 {
                    client.write_all(&[0; 1024]).await.unwrap();
                    sent += 1024;
                }
            }
        };
        let flooding = tokio::time::timeout(Duration::from_secs(5), flood).await;
        flooding.expect_err("what nobody reads is not taken for ever");
        assert!(sent < 2 * FRAME, "{sent} bytes were taken");
        drop(client);
        let mut held = Vec::new();
        let ended = async {
            while let Some(stream) = session.accept().await {
                held.push(stream);
            }
        };
        tokio::time::timeout(Duration::from_secs(60), ended).await.expect("the client is gone");
    }
}
