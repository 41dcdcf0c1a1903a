//! containerd's content store: blobs by digest.
//!
//! In: bytes, from memory or as they arrive. Out: blobs that exist only when their digest and size are right:
//! containerd hashes what it stores and refuses to commit anything else. A write that was cut off goes on where it ended.

use std::collections::HashMap;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use containerd_client::services::v1::{
    AbortRequest, Info, ReadContentRequest, UpdateRequest, WriteAction, WriteContentRequest,
    WriteContentResponse,
};
use prost_types::FieldMask;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use crate::error::RuntimeError;
use crate::rpc::{CallError, Client, Optional, is_transport, rpc};

/// Bytes per message to containerd: large enough to make the round trip small.
const FRAME: usize = 1 << 20;
/// A writer that was dropped holds its lock until containerd notices.
const LOCK_TRIES: u32 = 20;
const LOCK_PAUSE: Duration = Duration::from_millis(100);

pub(crate) type Labels = HashMap<String, String>;

/// An open write. Dropped without a commit it can be resumed.
pub(crate) struct Writer {
    client: Client,
    reference: String,
    requests: mpsc::Sender<WriteContentRequest>,
    answers: Streaming<WriteContentResponse>,
    offset: u64,
    buffer: BytesMut,
}

/// Why a write did not end in a blob.
#[derive(Debug)]
pub(crate) enum WriteError {
    /// What arrived has another digest or size than it should.
    Mismatch(String),
    Runtime(RuntimeError),
}

/// Name of the unfinished write of a blob.
fn reference_of(digest: &str) -> String {
    format!("xebec-{digest}")
}

// === impl Client ===

impl Client {
    /// A small blob; `None` when it is absent.
    pub(crate) async fn read_blob(&self, digest: &str, max: u64) -> Result<Option<Bytes>, RuntimeError> {
        const CALL: &str = "content.read";
        let request = ReadContentRequest { digest: digest.to_owned(), ..Default::default() };
        let Some(mut stream) = rpc!(self, self.timeouts.metadata, content.read(request)).await.optional()?
        else {
            return Ok(None);
        };
        let mut body = BytesMut::new();
        loop {
            let next = tokio::time::timeout(self.timeouts.metadata, stream.message()).await;
            match next.map_err(|_| CallError::timeout(CALL, self.timeouts.metadata))? {
                Ok(Some(part)) if (body.len() + part.data.len()) as u64 > max => {
                    let message = format!("{digest} is longer than {max} bytes");
                    return Err(RuntimeError::Call { call: CALL, message });
                }
                Ok(Some(part)) => body.extend_from_slice(&part.data),
                Ok(None) => return Ok(Some(body.freeze())),
                Err(status) if status.code() == Code::NotFound => return Ok(None),
                Err(status) => return Err(self.failed(CALL, &status).into()),
            }
        }
    }

    /// Stores bytes that are at hand.
    pub(crate) async fn write_blob(
        &self,
        digest: &str,
        bytes: Bytes,
        labels: Labels,
    ) -> Result<(), WriteError> {
        let Some(mut writer) = self.open_writer(digest, bytes.len() as u64).await? else {
            return self.label_blob(digest, labels).await.map_err(WriteError::Runtime);
        };
        if writer.offset() > 0 {
            writer.restart().await?;
        }
        writer.write(bytes).await?;
        writer.commit(digest, labels).await
    }

    /// Adds labels to a blob that exists.
    pub(crate) async fn label_blob(&self, digest: &str, labels: Labels) -> Result<(), RuntimeError> {
        if labels.is_empty() {
            return Ok(());
        }
        let mask = FieldMask { paths: labels.keys().map(|key| format!("labels.{key}")).collect() };
        let request = UpdateRequest {
            info: Some(Info { digest: digest.to_owned(), labels, ..Default::default() }),
            update_mask: Some(mask),
        };
        rpc!(self, self.timeouts.metadata, content.update(request)).await?;
        Ok(())
    }

    /// Begins or resumes the write of a blob; `None` when the blob is there (it then belongs to the lease too).
    pub(crate) async fn open_writer(&self, digest: &str, size: u64) -> Result<Option<Writer>, WriteError> {
        let mut tries = 0;
        loop {
            match self.try_open_writer(digest, size).await {
                Err(failed) if failed.code == Code::AlreadyExists => return Ok(None),
                Err(failed) if failed.code == Code::Unavailable && tries < LOCK_TRIES => {
                    tries += 1;
                    tokio::time::sleep(LOCK_PAUSE).await;
                }
                Err(failed) => return Err(WriteError::Runtime(failed.error)),
                Ok(writer) => return Ok(Some(writer)),
            }
        }
    }

    async fn try_open_writer(&self, digest: &str, size: u64) -> Result<Writer, CallError> {
        const CALL: &str = "content.write";
        let (requests, stream) = mpsc::channel(2);
        let reference = reference_of(digest);
        let first = WriteContentRequest {
            action: WriteAction::Stat.into(),
            r#ref: reference.clone(),
            total: i64::try_from(size).unwrap_or(i64::MAX),
            expected: digest.to_owned(),
            ..Default::default()
        };
        // The channel has room for it: nothing was sent before.
        let _ = requests.try_send(first);
        let mut content = self.content();
        let opened = async {
            let mut answers = content.write(ReceiverStream::new(stream)).await?.into_inner();
            let first = answers.message().await?;
            let first = first.ok_or_else(|| Status::unknown("the stream ended before its first answer"))?;
            Ok::<_, Status>((answers, first))
        };
        let opened = tokio::time::timeout(self.timeouts.metadata, opened).await;
        match opened.map_err(|_| CallError::timeout(CALL, self.timeouts.metadata))? {
            Err(status) => Err(self.failed(CALL, &status)),
            Ok((answers, first)) => Ok(Writer {
                client: self.clone(),
                reference,
                requests,
                answers,
                offset: first.offset.try_into().unwrap_or(0),
                buffer: BytesMut::new(),
            }),
        }
    }

    /// Forgets an unfinished write. Its stream may just have been dropped: until containerd has closed its end, it puts
    /// files where it removes them, and the removal fails.
    pub(crate) async fn abort_write(&self, digest: &str) -> Result<(), RuntimeError> {
        let request = AbortRequest { r#ref: reference_of(digest) };
        let mut tries = 0;
        loop {
            match rpc!(self, self.timeouts.metadata, content.abort(request.clone())).await {
                Err(failed) if failed.is_refusal() && failed.code != Code::NotFound && tries < LOCK_TRIES => {
                    tries += 1;
                    tokio::time::sleep(LOCK_PAUSE).await;
                }
                answered => return answered.optional().map(|_| ()),
            }
        }
    }
}

// === impl Writer ===

impl Writer {
    /// Bytes that containerd and the buffer hold.
    pub(crate) fn offset(&self) -> u64 {
        self.offset + self.buffer.len() as u64
    }

    /// Discards what was written before.
    pub(crate) async fn restart(&mut self) -> Result<(), WriteError> {
        self.buffer.clear();
        self.offset = 0;
        let request = WriteContentRequest { action: WriteAction::Write.into(), ..Default::default() };
        self.exchange(request).await.map(|_| ())
    }

    pub(crate) async fn write(&mut self, bytes: Bytes) -> Result<(), WriteError> {
        self.buffer.extend_from_slice(&bytes);
        while self.buffer.len() >= FRAME {
            let frame = self.buffer.split_to(FRAME);
            self.send(frame.freeze()).await?;
        }
        Ok(())
    }

    /// Keeps what is buffered, so that the write can be resumed here.
    pub(crate) async fn flush(&mut self) -> Result<(), WriteError> {
        let rest = self.buffer.split();
        if rest.is_empty() { Ok(()) } else { self.send(rest.freeze()).await }
    }

    /// Makes the blob exist, if its digest is right.
    pub(crate) async fn commit(mut self, digest: &str, labels: Labels) -> Result<(), WriteError> {
        self.flush().await?;
        let request = WriteContentRequest {
            action: WriteAction::Commit.into(),
            offset: i64::try_from(self.offset).unwrap_or(i64::MAX),
            expected: digest.to_owned(),
            labels,
            ..Default::default()
        };
        match self.exchange(request).await {
            Ok(_) => Ok(()),
            Err(error) => {
                if matches!(error, WriteError::Mismatch(_)) {
                    let client = self.client.clone();
                    drop(self);
                    // Nothing of it can be used: the next try begins at the first byte.
                    client.abort_write(digest).await.map_err(WriteError::Runtime)?;
                }
                Err(error)
            }
        }
    }

    async fn send(&mut self, data: Bytes) -> Result<(), WriteError> {
        let length = data.len() as u64;
        let request = WriteContentRequest {
            action: WriteAction::Write.into(),
            offset: i64::try_from(self.offset).unwrap_or(i64::MAX),
            data: data.to_vec(),
            ..Default::default()
        };
        self.exchange(request).await?;
        self.offset += length;
        Ok(())
    }

    /// One message and its answer. `AlreadyExists` is success: another writer was faster with the same blob.
    async fn exchange(&mut self, mut request: WriteContentRequest) -> Result<(), WriteError> {
        const CALL: &str = "content.write";
        request.r#ref = self.reference.clone();
        let limit = self.client.timeouts.task;
        let answer = async {
            // A closed channel means that the stream ended: the reason comes as its last answer.
            let _ = self.requests.send(request).await;
            self.answers.message().await
        };
        let answer = tokio::time::timeout(limit, answer)
            .await
            .map_err(|_| WriteError::Runtime(RuntimeError::Timeout { call: CALL, after: limit }))?;
        match answer {
            Ok(Some(_)) => Ok(()),
            Ok(None) => Err(WriteError::Runtime(RuntimeError::Call {
                call: CALL,
                message: "the stream ended early".into(),
            })),
            Err(status) if status.code() == Code::AlreadyExists => Ok(()),
            Err(status) if status.code() == Code::FailedPrecondition && !is_transport(&status) => {
                Err(WriteError::Mismatch(status.message().to_owned()))
            }
            Err(status) => Err(WriteError::Runtime(self.client.failed(CALL, &status).error)),
        }
    }
}

impl From<CallError> for WriteError {
    fn from(failed: CallError) -> Self {
        Self::Runtime(failed.error)
    }
}
