//! SPDY inside of a WebSocket: the bytes of the one are the binary messages of the other.
//!
//! In: a connection whose WebSocket handshake is done. Out: a connection that speaks SPDY.

use std::io;

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Message, Role};
use tokio_util::io::{CopyToBytes, SinkWriter, StreamReader};

use crate::server::upgrade::web_socket_config;

pub async fn open<S>(io: S) -> impl AsyncRead + AsyncWrite + Send + 'static
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let socket = WebSocketStream::from_raw_socket(io, Role::Server, Some(web_socket_config())).await;
    let (to, from) = socket.split();
    let payloads = from.filter_map(|message| {
        std::future::ready(match message {
            Ok(Message::Binary(bytes)) => Some(Ok(bytes)),
            // The stream ends after it.
            Ok(_) => None,
            Err(error) => Some(Err(io::Error::other(error))),
        })
    });
    let messages = to
        .with(|bytes: Bytes| std::future::ready(Ok(Message::Binary(bytes))))
        .sink_map_err(|error: tokio_tungstenite::tungstenite::Error| io::Error::other(error));
    tokio::io::join(StreamReader::new(payloads), SinkWriter::new(CopyToBytes::new(messages)))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn messages_are_a_stream_of_bytes_until_the_goodbye() {
        let (io, server) = tokio::io::duplex(1 << 16);
        let mut client = WebSocketStream::from_raw_socket(io, Role::Client, None).await;
        let mut tunnel = Box::pin(open(server).await);
        for message in [Message::Binary(Bytes::from_static(b"ab")), Message::Ping(Bytes::new())] {
            client.send(message).await.unwrap();
        }
        client.send(Message::Binary(Bytes::from_static(b"cd"))).await.unwrap();
        let mut got = [0; 4];
        tunnel.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"abcd");
        tunnel.write_all(b"answer").await.unwrap();
        tunnel.flush().await.unwrap();
        let answer = loop {
            match client.next().await.unwrap().unwrap() {
                Message::Binary(bytes) => break bytes,
                _ => continue,
            }
        };
        assert_eq!(&answer[..], b"answer");
        client.close(None).await.unwrap();
        assert_eq!(tunnel.read(&mut got).await.unwrap(), 0);
    }
}
