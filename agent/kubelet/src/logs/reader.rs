//! Reads the files of one run in order, from where the options say.
//!
//! In: the files, options. Out: chunks of text. Blocking reads of the page cache, a chunk at a time.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;

use bytes::Bytes;

use super::LogOptions;
use super::files::LogFiles;
use super::line;

const CHUNK: usize = 64 * 1024;
/// A line longer than this is passed on in parts; the sink writes none.
const MAX_LINE: usize = 1024 * 1024;

/// What one read gave.
#[derive(Debug)]
pub(super) struct Chunk {
    pub(super) bytes: Bytes,
    /// Nothing more is there now.
    pub(super) at_end: bool,
    pub(super) limit_reached: bool,
}

pub(super) struct Reader {
    files: LogFiles,
    options: LogOptions,
    /// Older files still to be read, then the current one.
    queue: Option<VecDeque<File>>,
    file: Option<File>,
    /// Inode of `file`; another one of the current file means that it was rotated.
    inode: u64,
    rest: Vec<u8>,
    sent: u64,
    /// The text of the last line goes on in the next.
    in_line: bool,
}

impl Reader {
    pub(super) fn new(files: LogFiles, options: LogOptions) -> Self {
        Self { files, options, queue: None, file: None, inode: 0, rest: Vec::new(), sent: 0, in_line: false }
    }

    pub(super) fn next_chunk(&mut self) -> io::Result<Chunk> {
        if self.options.tail_lines == Some(0) && !self.options.follow {
            return Ok(Chunk { bytes: Bytes::new(), at_end: true, limit_reached: true });
        }
        if self.queue.is_none() {
            let mut files = self.files.all()?;
            if let Some(lines) = self.options.tail_lines {
                seek_to_tail(&mut files, lines)?;
            }
            self.queue = Some(files.into());
        }
        let mut buffer = vec![0; CHUNK];
        loop {
            let Some(file) = &mut self.file else {
                if !self.next_file()? {
                    return Ok(Chunk { bytes: Bytes::new(), at_end: true, limit_reached: false });
                }
                continue;
            };
            let read = file.read(&mut buffer)?;
            if read > 0 {
                let bytes = self.take(&buffer[..read]);
                let limit_reached = self.options.limit_bytes.is_some_and(|limit| self.sent >= limit);
                return Ok(Chunk { bytes, at_end: false, limit_reached });
            }
            if self.queue.as_ref().is_some_and(|q| !q.is_empty()) || self.was_rotated() {
                self.file = None;
                continue;
            }
            return Ok(Chunk { bytes: Bytes::new(), at_end: true, limit_reached: false });
        }
    }

    /// Goes on with the next file; false when there is none (yet).
    fn next_file(&mut self) -> io::Result<bool> {
        let next = match self.queue.as_mut().and_then(VecDeque::pop_front) {
            Some(file) => Some(file),
            None => self.files.current()?,
        };
        let Some(file) = next else { return Ok(false) };
        self.inode = file.metadata()?.ino();
        self.file = Some(file);
        Ok(true)
    }

    fn was_rotated(&self) -> bool {
        self.files.inode().is_some_and(|inode| inode != self.inode)
    }

    /// Takes whole lines out of what was read; the beginning of a line is kept for the next read.
    fn take(&mut self, read: &[u8]) -> Bytes {
        self.rest.extend_from_slice(read);
        let rest = std::mem::take(&mut self.rest);
        let mut out = Vec::with_capacity(rest.len());
        let mut from = 0;
        while let Some(length) = rest[from..].iter().position(|b| *b == b'\n') {
            self.render(&rest[from..from + length], &mut out);
            from += length + 1;
        }
        self.rest = rest[from..].to_vec();
        if self.rest.len() > MAX_LINE {
            out.append(&mut self.rest);
        }
        if let Some(limit) = self.options.limit_bytes {
            let left = usize::try_from(limit.saturating_sub(self.sent)).unwrap_or(usize::MAX);
            out.truncate(left);
        }
        self.sent += out.len() as u64;
        Bytes::from(out)
    }

    fn render(&mut self, raw: &[u8], out: &mut Vec<u8>) {
        let Some(line) = line::parse(raw) else { return };
        if self.options.stream.is_some_and(|wanted| wanted != line.stream) {
            return;
        }
        if let Some(since) = self.options.since
            && line.timestamp().is_some_and(|time| time < since)
        {
            return;
        }
        if self.options.timestamps && !self.in_line {
            out.extend_from_slice(line.time);
            out.push(b' ');
        }
        out.extend_from_slice(line.text);
        if !line.partial {
            out.push(b'\n');
        }
        self.in_line = line.partial;
    }
}

/// Drops and seeks files so that `lines` lines are left to be read.
fn seek_to_tail(files: &mut Vec<File>, lines: u64) -> io::Result<()> {
    let mut wanted = lines;
    for index in (0..files.len()).rev() {
        let file = &mut files[index];
        let length = file.metadata()?.len();
        let (offset, found) = tail_offset(file, length, wanted)?;
        file.seek(SeekFrom::Start(offset))?;
        wanted -= found;
        if wanted == 0 {
            files.drain(..index);
            return Ok(());
        }
    }
    Ok(())
}

/// Where the last `lines` lines begin, and how many there are from there on.
fn tail_offset(file: &mut File, length: u64, lines: u64) -> io::Result<(u64, u64)> {
    if lines == 0 {
        return Ok((length, 0));
    }
    let mut end = length;
    let mut found = 0;
    let mut buffer = vec![0; CHUNK];
    while end > 0 {
        let start = end.saturating_sub(CHUNK as u64);
        let size = usize::try_from(end - start).unwrap_or(CHUNK);
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(&mut buffer[..size])?;
        for (at, byte) in buffer[..size].iter().enumerate().rev() {
            let position = start + at as u64;
            if *byte != b'\n' || position + 1 == length {
                continue;
            }
            found += 1;
            if found == lines {
                return Ok((position + 1, found));
            }
        }
        end = start;
    }
    // The first line has no newline before it.
    Ok((0, if length > 0 { found + 1 } else { 0 }))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::super::LogStream;
    use super::*;

    fn log(dir: &Path, name: &str, from: usize, to: usize) {
        let text: String =
            (from..to).map(|i| format!("2026-01-01T00:00:{i:02}Z stdout F line {i}\n")).collect();
        fs::write(dir.join(name), text).unwrap();
    }

    fn files(path: &Path) -> LogFiles {
        LogFiles::new(path.parent().unwrap().to_owned(), path.to_owned())
    }

    fn read(path: &Path, options: LogOptions) -> String {
        let mut reader = Reader::new(files(path), options);
        drain(&mut reader)
    }

    fn drain(reader: &mut Reader) -> String {
        let mut out = Vec::new();
        loop {
            let chunk = reader.next_chunk().unwrap();
            out.extend_from_slice(&chunk.bytes);
            if chunk.at_end || chunk.limit_reached {
                return String::from_utf8(out).unwrap();
            }
        }
    }

    fn lines(from: usize, to: usize) -> String {
        (from..to).map(|i| format!("line {i}\n")).collect()
    }

    #[test]
    fn options_choose_lines_over_rotated_files() {
        let tmp = tempfile::tempdir().unwrap();
        log(tmp.path(), "0.log.20260101-000001", 0, 3);
        log(tmp.path(), "0.log.20260101-000002", 3, 6);
        log(tmp.path(), "0.log", 6, 10);
        log(tmp.path(), "10.log", 50, 51);
        let path = tmp.path().join("0.log");
        assert_eq!(read(&path, LogOptions::default()), lines(0, 10));
        for tail in 0..12 {
            let options = LogOptions { tail_lines: Some(tail), ..LogOptions::default() };
            let from = 10_usize.saturating_sub(usize::try_from(tail).unwrap());
            assert_eq!(read(&path, options), lines(from, 10), "{tail}");
        }
        let since = LogOptions { since: "2026-01-01T00:00:08Z".parse().ok(), ..LogOptions::default() };
        assert_eq!(read(&path, since), lines(8, 10));
        let limit = LogOptions { limit_bytes: Some(10), ..LogOptions::default() };
        assert_eq!(read(&path, limit), "line 0\nlin");
        let stamps = LogOptions { tail_lines: Some(1), timestamps: true, ..LogOptions::default() };
        assert_eq!(read(&path, stamps), "2026-01-01T00:00:09Z line 9\n");
    }

    #[test]
    fn partial_lines_are_joined_and_garbage_is_left_out() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("0.log");
        fs::write(
            &path,
            "2026-01-01T00:00:00Z stdout P abc\n2026-01-01T00:00:01Z stdout F def\n\0\0\0\nx\n\
             2026-01-01T00:00:02Z stderr F ghi\n",
        )
        .unwrap();
        let stamps = LogOptions { timestamps: true, ..LogOptions::default() };
        assert_eq!(read(&path, LogOptions::default()), "abcdef\nghi\n");
        let of = |stream| LogOptions { stream: Some(stream), ..LogOptions::default() };
        assert_eq!(read(&path, of(LogStream::Stdout)), "abcdef\n");
        assert_eq!(read(&path, of(LogStream::Stderr)), "ghi\n");
        assert_eq!(read(&path, stamps), "2026-01-01T00:00:00Z abcdef\n2026-01-01T00:00:02Z ghi\n");
    }

    #[test]
    fn a_rotation_while_following_loses_and_repeats_nothing() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("0.log");
        let follow = LogOptions { follow: true, ..LogOptions::default() };
        let mut reader = Reader::new(files(&path), follow);
        assert_eq!(drain(&mut reader), "");
        log(tmp.path(), "0.log", 0, 2);
        assert_eq!(drain(&mut reader), lines(0, 2));
        fs::rename(&path, tmp.path().join("0.log.20260101-000001")).unwrap();
        log(tmp.path(), "0.log", 2, 4);
        assert_eq!(drain(&mut reader), lines(2, 4));
        assert_eq!(drain(&mut reader), "");
    }
}
