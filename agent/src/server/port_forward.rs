//! Port forwarding: a client's streams joined with connections into a pod.
//!
//! In: an upgraded connection, the pod. Out: bytes both ways. Three ways to carry them: SPDY, SPDY
//! inside of a WebSocket (kubectl's), numbered channels of a WebSocket (other clients').

mod channels;
mod destination;
mod dial;
mod streams;
mod tunnel;

use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;

use super::upgrade::Upgrade;

pub use destination::{Destination, Loopback};

const SPDY_PROTOCOL: &str = "portforward.k8s.io";
const TUNNELLED: &str = "SPDY/3.1+portforward.k8s.io";
const CHANNELS: &str = "v4.channel.k8s.io";

pub const WEB_SOCKET: &[&str] = &[TUNNELLED, CHANNELS];
pub const SPDY: &[&str] = &[SPDY_PROTOCOL];

/// Serves a client until it leaves. `ports` are those of the query: only numbered channels need them.
pub async fn serve(upgraded: Upgraded, upgrade: &Upgrade, destination: Destination, ports: Vec<u16>) {
    let io = TokioIo::new(upgraded);
    match upgrade {
        Upgrade::WebSocket { protocol, .. } if *protocol == CHANNELS => {
            channels::serve(io, destination, ports).await;
        }
        Upgrade::WebSocket { .. } => streams::serve(tunnel::open(io).await, destination).await,
        Upgrade::Spdy { .. } => streams::serve(io, destination).await,
    }
}
