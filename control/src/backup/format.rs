//! What a backup file is.
//!
//! In: a header, the files of the keys, live values. Out: a stream of frames that ends with a digest of all before it, so
//! that a copy which broke off or was altered is never restored.
//!
//! ```text
//! file  = "XEBECBK1" frame* end
//! frame = kind (1) | length (4, little endian) | that many bytes
//! kinds: H header (JSON) · F file: name, NUL, content · R record · E SHA-256 of everything before this frame
//! record = modification revision (8) | creation revision (8) | key length (4) | key | value, all little endian
//! ```

use std::io::{self, Read, Write};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use xebec_store::{KeyValue, Revision};

const MAGIC: &[u8; 8] = b"XEBECBK1";
/// A value is at most 8 MiB.
const MAX_FRAME: u32 = 16 << 20;
const RECORD_HEAD: usize = 8 + 8 + 4;

/// What a backup is of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Revision of the store: the values are those of this moment.
    pub revision: u64,
    /// RFC 3339.
    pub created: String,
    /// Version of the program that wrote it.
    pub version: String,
}

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    Header(Header),
    /// A file of the folder of keys.
    File {
        name: String,
        content: Vec<u8>,
    },
    Record(KeyValue),
}

/// Writes a backup.
pub struct Writer<W> {
    out: W,
    digest: Sha256,
}

/// Reads a backup to its end, which alone says that it is whole.
pub struct Reader<R> {
    input: R,
    digest: Sha256,
    ended: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    #[error("it is no backup of a Xebec control plane")]
    Foreign,
    #[error("it is not whole: it breaks off")]
    Truncated,
    #[error("it is damaged: {0}")]
    Damaged(String),
    #[error(transparent)]
    Io(io::Error),
}

// === impl BackupError ===

impl From<io::Error> for BackupError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Truncated,
            _ => Self::Io(error),
        }
    }
}

// === impl Writer ===

impl<W: Write> Writer<W> {
    pub fn new(out: W, header: &Header) -> io::Result<Self> {
        let mut this = Self { out, digest: Sha256::new() };
        this.bytes(MAGIC)?;
        this.frame(b'H', &[&serde_json::to_vec(header)?])?;
        Ok(this)
    }

    pub fn file(&mut self, name: &str, content: &[u8]) -> io::Result<()> {
        self.frame(b'F', &[name.as_bytes(), b"\0", content])
    }

    pub fn record(&mut self, value: &KeyValue) -> io::Result<()> {
        let key_len = u32::try_from(value.key.len()).map_err(io::Error::other)?;
        let mut head = [0; RECORD_HEAD];
        head[..8].copy_from_slice(&value.mod_revision.0.to_le_bytes());
        head[8..16].copy_from_slice(&value.create_revision.0.to_le_bytes());
        head[16..].copy_from_slice(&key_len.to_le_bytes());
        self.frame(b'R', &[&head, &value.key, &value.value])
    }

    /// Seals the backup.
    pub fn finish(mut self) -> io::Result<()> {
        let digest = self.digest.clone().finalize();
        self.frame(b'E', &[&digest])?;
        self.out.flush()
    }

    fn frame(&mut self, kind: u8, parts: &[&[u8]]) -> io::Result<()> {
        let length = u32::try_from(parts.iter().map(|part| part.len()).sum::<usize>());
        let length = length.ok().filter(|length| *length <= MAX_FRAME);
        let length = length.ok_or_else(|| io::Error::other("a part of the backup is larger than 16 MiB"))?;
        self.bytes(&[kind])?;
        self.bytes(&length.to_le_bytes())?;
        parts.iter().try_for_each(|part| self.bytes(part))
    }

    fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.digest.update(bytes);
        self.out.write_all(bytes)
    }
}

// === impl Reader ===

impl<R: Read> Reader<R> {
    /// Reads up to and with the header.
    pub fn open(input: R) -> Result<(Self, Header), BackupError> {
        let mut this = Self { input, digest: Sha256::new(), ended: false };
        let mut magic = [0; MAGIC.len()];
        match this.bytes(&mut magic) {
            Err(BackupError::Truncated) => return Err(BackupError::Foreign),
            outcome => outcome?,
        }
        if &magic != MAGIC {
            return Err(BackupError::Foreign);
        }
        match this.next_part()? {
            Some(Part::Header(header)) => Ok((this, header)),
            _ => Err(damaged("it does not begin with a header")),
        }
    }

    /// The next part; `None` once the digest at the end was found right.
    pub fn next_part(&mut self) -> Result<Option<Part>, BackupError> {
        if self.ended {
            return Ok(None);
        }
        let expected = self.digest.clone().finalize();
        let mut head = [0; 5];
        self.bytes(&mut head)?;
        let [kind, length @ ..] = head;
        let length = u32::from_le_bytes(length);
        if length > MAX_FRAME {
            return Err(damaged(&format!("a part of {length} bytes")));
        }
        let mut frame = vec![0; length as usize];
        self.bytes(&mut frame)?;
        match kind {
            b'H' => serde_json::from_slice(&frame)
                .map(|header| Some(Part::Header(header)))
                .map_err(|error| damaged(&format!("its header: {error}"))),
            b'F' => file(&frame).map(Some).ok_or_else(|| damaged("a file without a name")),
            b'R' => record(&frame.into()).map(Some).ok_or_else(|| damaged("a record that cannot be read")),
            b'E' if frame[..] == expected[..] => match self.input.read(&mut [0])? {
                0 => {
                    self.ended = true;
                    Ok(None)
                }
                _ => Err(damaged("something follows its end")),
            },
            b'E' => Err(damaged("its digest is not that of its contents")),
            other => Err(damaged(&format!("a part of unknown kind {other}"))),
        }
    }

    fn bytes(&mut self, out: &mut [u8]) -> Result<(), BackupError> {
        self.input.read_exact(out)?;
        self.digest.update(out);
        Ok(())
    }
}

fn file(frame: &[u8]) -> Option<Part> {
    let end = frame.iter().position(|byte| *byte == 0)?;
    let name = std::str::from_utf8(&frame[..end]).ok()?.to_owned();
    Some(Part::File { name, content: frame[end + 1..].to_vec() })
}

fn record(frame: &Bytes) -> Option<Part> {
    let (modified, rest) = frame.split_first_chunk::<8>()?;
    let (created, rest) = rest.split_first_chunk::<8>()?;
    let (key_len, rest) = rest.split_first_chunk::<4>()?;
    let key_end = RECORD_HEAD + u32::from_le_bytes(*key_len) as usize;
    if rest.len() + RECORD_HEAD < key_end {
        return None;
    }
    Some(Part::Record(KeyValue {
        key: frame.slice(RECORD_HEAD..key_end),
        mod_revision: Revision(u64::from_le_bytes(*modified)),
        create_revision: Revision(u64::from_le_bytes(*created)),
        value: frame.slice(key_end..),
    }))
}

fn damaged(what: &str) -> BackupError {
    BackupError::Damaged(what.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> (Vec<u8>, Vec<Part>) {
        let header = Header { revision: 9, created: "2026-01-01T00:00:00Z".into(), version: "0.1.0".into() };
        let value = KeyValue {
            key: Bytes::from_static(b"/a"),
            value: Bytes::from_static(b"value"),
            create_revision: Revision(2),
            mod_revision: Revision(7),
        };
        let mut out = Vec::new();
        let mut writer = Writer::new(&mut out, &header).unwrap();
        writer.file("ca.key", b"secret").unwrap();
        writer.record(&value).unwrap();
        writer.finish().unwrap();
        let file = Part::File { name: "ca.key".into(), content: b"secret".to_vec() };
        (out, vec![Part::Header(header), file, Part::Record(value)])
    }

    fn read(bytes: &[u8]) -> Result<Vec<Part>, BackupError> {
        let (mut reader, header) = Reader::open(bytes)?;
        let mut parts = vec![Part::Header(header)];
        while let Some(part) = reader.next_part()? {
            parts.push(part);
        }
        Ok(parts)
    }

    #[test]
    fn a_backup_reads_as_it_was_written() {
        let (bytes, parts) = sample();
        assert_eq!(read(&bytes).unwrap(), parts);
    }

    #[test]
    fn a_backup_that_breaks_off_anywhere_is_refused() {
        let (bytes, _) = sample();
        for end in 0..bytes.len() {
            assert!(read(&bytes[..end]).is_err(), "{end} of {} bytes", bytes.len());
        }
        let (mut longer, _) = sample();
        longer.push(0);
        assert!(read(&longer).is_err(), "something follows");
        assert_eq!(read(b"no backup").unwrap_err().to_string(), BackupError::Foreign.to_string());
    }

    #[test]
    fn a_backup_with_any_bit_changed_is_refused() {
        let (bytes, _) = sample();
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(read(&changed).is_err(), "bit {bit}");
        }
    }
}
