//! Frames on the wire.
//!
//! In: bytes. Out: [`Frame`]s of bounded size; heads of the frames that are sent. Header blocks stay compressed here.

use std::io;

use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

const VERSION: u16 = 3;
const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;
const FIN: u8 = 1;
const CONTROL: u32 = 1 << 31;
const STREAM_ID: u32 = CONTROL - 1;
/// A longer data frame is read as several.
const PIECE: usize = 64 << 10;
const LARGEST_CONTROL: usize = 64 << 10;

/// Why a stream is refused or cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reset {
    Protocol = 1,
    Refused = 3,
    Cancel = 5,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Frame {
    SynStream {
        stream: u32,
        fin: bool,
        block: Bytes,
    },
    Headers {
        block: Bytes,
    },
    Reset {
        stream: u32,
    },
    Ping {
        id: u32,
    },
    GoAway,
    Data {
        stream: u32,
        fin: bool,
        data: Bytes,
    },
    /// One without meaning here: settings, windows.
    Other,
}

/// Reads frames. A data frame that has begun takes no more memory than a piece of it.
pub struct Frames<R> {
    from: R,
    rest: Option<Rest>,
}

/// What is still to come of a data frame.
struct Rest {
    stream: u32,
    fin: bool,
    length: usize,
}

// === impl Frames ===

impl<R: AsyncRead + Unpin> Frames<R> {
    pub fn new(from: R) -> Self {
        Self { from, rest: None }
    }

    /// The next frame or piece of one; `None` at the connection's end.
    pub async fn next(&mut self) -> io::Result<Option<Frame>> {
        if let Some(rest) = self.rest.take() {
            return self.piece(rest).await.map(Some);
        }
        let mut head = [0; 8];
        let first = self.from.read(&mut head[..1]).await?;
        if first == 0 {
            return Ok(None);
        }
        self.from.read_exact(&mut head[1..]).await?;
        let [a, b, c, d, flags, e, f, g] = head;
        let word = u32::from_be_bytes([a, b, c, d]);
        let length = u32::from_be_bytes([0, e, f, g]) as usize;
        if word & CONTROL == 0 {
            let rest = Rest { stream: word & STREAM_ID, fin: flags & FIN != 0, length };
            return self.piece(rest).await.map(Some);
        }
        if u16::from_be_bytes([a & 0x7f, b]) != VERSION {
            return Err(bad("another version"));
        }
        if length > LARGEST_CONTROL {
            return Err(bad("a frame that is too large"));
        }
        let body = self.take(length).await?;
        control_frame(u16::from_be_bytes([c, d]), flags & FIN != 0, &body).map(Some)
    }

    async fn piece(&mut self, rest: Rest) -> io::Result<Frame> {
        let Rest { stream, fin, length } = rest;
        let data = self.take(length.min(PIECE)).await?;
        let length = length - data.len();
        if length > 0 {
            self.rest = Some(Rest { stream, fin, length });
        }
        Ok(Frame::Data { stream, fin: fin && length == 0, data })
    }

    async fn take(&mut self, length: usize) -> io::Result<Bytes> {
        let mut body = BytesMut::zeroed(length);
        self.from.read_exact(&mut body).await?;
        Ok(body.freeze())
    }
}

fn control_frame(kind: u16, fin: bool, body: &Bytes) -> io::Result<Frame> {
    let number = |at: usize| {
        let bytes = body.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        bytes.map(u32::from_be_bytes).ok_or_else(|| bad("a control frame that is too short"))
    };
    let block = |from: usize| {
        if body.len() < from { Err(bad("a control frame that is too short")) } else { Ok(body.slice(from..)) }
    };
    Ok(match kind {
        // After the two stream ids come priority and slot.
        SYN_STREAM => Frame::SynStream { stream: number(0)? & STREAM_ID, fin, block: block(10)? },
        HEADERS => Frame::Headers { block: block(4)? },
        RST_STREAM => Frame::Reset { stream: number(0)? & STREAM_ID },
        PING => Frame::Ping { id: number(0)? },
        GOAWAY => Frame::GoAway,
        _ => Frame::Other,
    })
}

fn control(kind: u16, flags: u8, body: &[&[u8]]) -> Bytes {
    let length: usize = body.iter().map(|part| part.len()).sum();
    let mut out = BytesMut::with_capacity(8 + length);
    out.put_u32(CONTROL | u32::from(VERSION) << 16 | u32::from(kind));
    out.put_u8(flags);
    out.put_uint(length as u64, 3);
    for part in body {
        out.put_slice(part);
    }
    out.freeze()
}

pub fn syn_reply(stream: u32, block: &[u8]) -> Bytes {
    control(SYN_REPLY, 0, &[&stream.to_be_bytes(), block])
}

pub fn reset(stream: u32, why: Reset) -> Bytes {
    control(RST_STREAM, 0, &[&stream.to_be_bytes(), &(why as u32).to_be_bytes()])
}

pub fn ping(id: u32) -> Bytes {
    control(PING, 0, &[&id.to_be_bytes()])
}

pub fn go_away(last_stream: u32) -> Bytes {
    control(GOAWAY, 0, &[&last_stream.to_be_bytes(), &[0; 4]])
}

/// The head of a data frame of so many bytes.
pub fn data_head(stream: u32, fin: bool, length: usize) -> [u8; 8] {
    let [a, b, c, d] = (stream & STREAM_ID).to_be_bytes();
    // Larger pieces are never sent.
    let [_, e, f, g] = (length as u32).to_be_bytes();
    [a, b, c, d, if fin { FIN } else { 0 }, e, f, g]
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("SPDY: {what}"))
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// As a client opens a stream.
    pub fn syn_stream(stream: u32, block: &[u8]) -> Bytes {
        control(SYN_STREAM, 0, &[&stream.to_be_bytes(), &[0; 6], block])
    }

    #[tokio::test]
    async fn frames_are_read_as_they_are_written() {
        let mut wire = BytesMut::new();
        wire.put(syn_stream(1, b"block"));
        wire.put(ping(3));
        wire.put(reset(1, Reset::Cancel));
        wire.put(&data_head(5, true, 3)[..]);
        wire.put(&b"abc"[..]);
        wire.put(control(4, 0, &[&[0; 4]]));
        wire.put(go_away(0));
        let mut from = Frames::new(&wire[..]);
        let mut frames = Vec::new();
        while let Some(frame) = from.next().await.unwrap() {
            frames.push(frame);
        }
        let expected = [
            Frame::SynStream { stream: 1, fin: false, block: Bytes::from_static(b"block") },
            Frame::Ping { id: 3 },
            Frame::Reset { stream: 1 },
            Frame::Data { stream: 5, fin: true, data: Bytes::from_static(b"abc") },
            Frame::Other,
            Frame::GoAway,
        ];
        assert_eq!(frames, expected);
    }

    #[tokio::test]
    async fn bad_frames_are_refused() {
        for bad in [
            &[0, 0, 0, 1, 0, 0xff, 0xff, 0xff][..],
            &[0x80, 2, 0, 1, 0, 0, 0, 0][..],
            &[0x80, 3, 0, 1, 0, 0, 0, 4, 0, 0, 0, 1][..],
            &[0x80, 3, 0, 6, 0, 0, 0, 0][..],
            &[0, 0, 0, 1, 0, 0][..],
        ] {
            assert!(Frames::new(bad).next().await.is_err(), "{bad:?}");
        }
    }

    #[tokio::test]
    async fn a_large_data_frame_comes_in_pieces() {
        let mut wire = BytesMut::new();
        wire.put(&data_head(7, true, PIECE + 1)[..]);
        wire.put(&vec![1; PIECE + 1][..]);
        wire.put(ping(9));
        let mut from = Frames::new(&wire[..]);
        let piece =
            |length: usize, fin| Some(Frame::Data { stream: 7, fin, data: Bytes::from(vec![1; length]) });
        assert_eq!(from.next().await.unwrap(), piece(PIECE, false));
        assert_eq!(from.next().await.unwrap(), piece(1, true));
        assert_eq!(from.next().await.unwrap(), Some(Frame::Ping { id: 9 }));
    }
}
