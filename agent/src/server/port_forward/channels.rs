//! Forwarding by numbered channels of one WebSocket: for the n-th port of the query channel 2n carries data, 2n + 1 errors.
//!
//! In: a connection whose WebSocket handshake is done, the ports. Out: one connection into the pod per port. Each channel
//! begins with its port, two bytes, the lower first.

use bytes::{BufMut, Bytes, BytesMut};
use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Message, Role};

use super::{Destination, dial};
use crate::server::idle::Activity;
use crate::server::read_ahead::{Chunk, ReadAhead};
use crate::server::upgrade::{PING, web_socket_config};

const CHUNK: usize = 32 << 10;
const QUEUE: usize = 16;

type ToClient = mpsc::Sender<(u8, Bytes)>;

pub async fn serve<S>(io: S, destination: Destination, ports: Vec<u16>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let socket = WebSocketStream::from_raw_socket(io, Role::Server, Some(web_socket_config())).await;
    let (mut to, mut from) = socket.split();
    let (messages, mut queue) = mpsc::channel::<(u8, Bytes)>(QUEUE);
    let mut inputs = Vec::new();
    let mut forwarding = JoinSet::new();
    // A byte numbers the channels: the query was checked for it.
    for (index, port) in (0_u8..).step_by(2).zip(ports) {
        let (input, from_client) = mpsc::channel(QUEUE);
        inputs.push(input);
        forwarding.spawn(forward(index, port, destination.clone(), from_client, messages.clone()));
    }
    drop(messages);
    let (ahead, activity) = (ReadAhead::default(), Activity::default());
    let reading = async {
        while let Some(Ok(message)) = from.next().await {
            let Message::Binary(mut data) = message else { continue };
            if data.is_empty() {
                continue;
            }
            let channel = data.split_to(1)[0];
            if let Some(input) = inputs.get(usize::from(channel / 2)).filter(|_| channel % 2 == 0) {
                activity.note();
                // A closed connection takes no more.
                input.send(ahead.hold(data).await).await.ok();
            }
        }
    };
    let writing = async {
        loop {
            // Where the pod takes nothing, only what is sent shows that nobody is there.
            let Ok(next) = tokio::time::timeout(PING, queue.recv()).await else {
                if to.send(Message::Ping(Bytes::new())).await.is_err() {
                    return;
                }
                continue;
            };
            let Some((channel, data)) = next else { break };
            activity.note();
            let mut message = BytesMut::with_capacity(1 + data.len());
            message.put_u8(channel);
            message.put(data);
            if to.send(Message::Binary(message.freeze())).await.is_err() {
                return;
            }
        }
        to.close().await.ok();
    };
    tokio::select! {
        () = reading => {}
        () = writing => {}
        () = activity.idle() => tracing::debug!("forwarded ports were idle for too long"),
    }
    forwarding.shutdown().await;
}

async fn forward(
    channel: u8,
    port: u16,
    destination: Destination,
    mut from_client: mpsc::Receiver<Chunk>,
    to_client: ToClient,
) {
    for greeted in [channel, channel + 1] {
        if to_client.send((greeted, Bytes::copy_from_slice(&port.to_le_bytes()))).await.is_err() {
            return;
        }
    }
    let connection = match dial::connect(&destination, port).await {
        Ok(connection) => connection,
        Err(why) => {
            to_client.send((channel + 1, Bytes::from(why))).await.ok();
            return;
        }
    };
    let (mut from_pod, mut to_pod) = connection.into_split();
    let inward = async {
        while let Some(bytes) = from_client.recv().await {
            if to_pod.write_all(&bytes).await.is_err() {
                break;
            }
        }
        // Channels do not close by halves.
        std::future::pending::<()>().await;
    };
    let outward = async {
        let mut chunk = vec![0; CHUNK];
        while let Ok(length @ 1..) = from_pod.read(&mut chunk).await {
            if to_client.send((channel, Bytes::copy_from_slice(&chunk[..length]))).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = inward => {}
        () = outward => {}
    }
}
