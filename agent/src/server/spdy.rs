//! SPDY/3.1 as Kubernetes clients use it: many byte streams over one connection, opened by the client.
//!
//! In: a connection that was upgraded, or a WebSocket that carries one. Out: [`Stream`]s with the headers they were
//! opened with. Absent: requests, push, priorities, flow control windows: no Kubernetes client has them, a slow stream
//! is held up by the connection.

mod frame;
mod header_block;
mod session;

pub use session::{Session, Stream, StreamWriter};
