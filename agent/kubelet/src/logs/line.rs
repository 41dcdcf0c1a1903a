//! One line of a CRI log: `2026-01-02T15:04:05.123456789Z stdout F text`. Pure.

use jiff::Timestamp;

use super::LogStream;

/// A line taken apart; parts of the file's own bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Line<'a> {
    pub(super) time: &'a [u8],
    pub(super) stream: LogStream,
    /// `P`: the text goes on in the next line.
    pub(super) partial: bool,
    pub(super) text: &'a [u8],
}

/// `None`: not a line of that format.
pub(super) fn parse(line: &[u8]) -> Option<Line<'_>> {
    let mut parts = line.splitn(4, |b| *b == b' ');
    let (time, stream, tag, text) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let stream = match stream {
        b"stdout" => LogStream::Stdout,
        b"stderr" => LogStream::Stderr,
        _ => return None,
    };
    // Further tags may follow the first, parted by colons.
    let partial = tag.first() == Some(&b'P');
    Some(Line { time, stream, partial, text })
}

impl Line<'_> {
    pub(super) fn timestamp(&self) -> Option<Timestamp> {
        std::str::from_utf8(self.time).ok()?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_taken_apart() {
        let line = parse(b"2026-01-02T15:04:05.5Z stderr P a b  c").unwrap();
        assert_eq!((line.stream, line.partial, line.text), (LogStream::Stderr, true, &b"a b  c"[..]));
        assert_eq!(line.timestamp().unwrap().subsec_millisecond(), 500);
        assert_eq!(parse(b"2026-01-02T15:04:05Z stdout F ").unwrap().text, b"");
        assert_eq!(parse(b"garbage"), None);
        assert_eq!(parse(b"t nowhere F x"), None);
    }
}
