//! Forwarding by pairs of SPDY streams: one for errors, one for data, with the same request id.
//!
//! In: a connection that speaks SPDY. Out: one connection into the pod for each pair.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::{Destination, dial};
use crate::server::read_ahead::Chunk;
use crate::server::spdy::{Session, Stream, StreamWriter};

/// Bytes passed on at once.
const CHUNK: usize = 32 << 10;
/// Halves of pairs that wait for the other half.
const HALVES: usize = 256;
/// How long what is left to be sent may take.
const GOODBYE: Duration = Duration::from_secs(5);

pub async fn serve<S>(io: S, destination: Destination)
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let Ok(mut session) = Session::start(io) else { return };
    let destination = Arc::new(destination);
    let mut halves: HashMap<String, Stream> = HashMap::new();
    while let Some(stream) = session.accept().await {
        let id = stream.headers.get("requestid").unwrap_or_default().to_owned();
        let Some(half) = halves.remove(&id) else {
            if halves.len() < HALVES {
                halves.insert(id, stream);
            } else {
                tracing::warn!(
                    pod = destination.pod,
                    "a client opens too many streams without their partners"
                );
                stream.writer.reset().await;
            }
            continue;
        };
        let kind = |stream: &Stream| stream.headers.get("streamtype").map(str::to_owned);
        let pair = match (kind(&half).as_deref(), kind(&stream).as_deref()) {
            (Some("error"), Some("data")) => Some((half, stream)),
            (Some("data"), Some("error")) => Some((stream, half)),
            _ => None,
        };
        if let Some((error, data)) = pair {
            tokio::spawn(forward(error, data, Arc::clone(&destination)));
        }
    }
    tokio::time::timeout(GOODBYE, session.close()).await.ok();
}

async fn forward(error: Stream, data: Stream, destination: Arc<Destination>) {
    let outcome = match data.headers.get("port").map(str::parse::<u16>) {
        Some(Ok(port)) if port > 0 => dial::connect(&destination, port).await,
        _ => Err(format!("{:?} is not a port", data.headers.get("port").unwrap_or_default())),
    };
    let mut errors = error.writer;
    match outcome {
        Ok(connection) => {
            let (from_client, reset) = data.reader.split();
            tokio::select! {
                () = join(connection, from_client, data.writer) => {}
                // The client's own connection is gone: nobody wants what the pod still says.
                _ = reset => {}
            }
        }
        Err(why) => {
            tracing::debug!(why, "a port is not forwarded");
            errors.send(Bytes::from(why)).await;
        }
    }
    errors.finish().await;
}

/// Passes bytes both ways until both are done; each half closes by itself.
async fn join(connection: TcpStream, mut from_client: mpsc::Receiver<Chunk>, mut to_client: StreamWriter) {
    let (mut from_pod, mut to_pod) = connection.into_split();
    let inward = async {
        while let Some(bytes) = from_client.recv().await {
            if to_pod.write_all(&bytes).await.is_err() {
                // The pod reads no more; what it says is still passed on.
                break;
            }
        }
        to_pod.shutdown().await.ok();
    };
    let outward = async {
        let mut chunk = vec![0; CHUNK];
        while let Ok(length @ 1..) = from_pod.read(&mut chunk).await {
            if !to_client.send(Bytes::copy_from_slice(&chunk[..length])).await {
                return;
            }
        }
        to_client.finish().await;
    };
    // A pod that closed its side is done: a client that keeps its own side open must not keep the pair.
    tokio::pin!(inward, outward);
    tokio::select! {
        () = &mut inward => outward.await,
        () = &mut outward => {}
    }
}
