//! Log entries out of a stream of bytes.
//!
//! In: bytes as they are read. Out: entries in CRI format. A line of more than 16 KiB is cut into partial entries (`P`)
//! and its last (`F`), as containerd's CRI cuts it. One buffer per stream, as large as the longest entry's text.

use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

/// Bytes of a line in one entry.
pub(super) const LONGEST_TEXT: usize = 16 << 10;
/// `2006-01-02T15:04:05.999999999Z stdout F ` and the newline.
pub(super) const OVERHEAD: usize = 30 + " stdout F ".len() + 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stream {
    Stdout,
    Stderr,
}

/// Where entries go: each is taken whole.
pub(super) trait Entries {
    /// Room for the text of one entry.
    fn longest_text(&self) -> usize;
    fn append(&mut self, header: &[u8], text: &[u8]);
}

/// A stream's unfinished line.
pub(super) struct Lines {
    stream: Stream,
    pending: Vec<u8>,
}

// === impl Lines ===

impl Lines {
    pub(super) fn new(stream: Stream) -> Self {
        Self { stream, pending: Vec::with_capacity(LONGEST_TEXT) }
    }

    pub(super) fn stream(&self) -> Stream {
        self.stream
    }

    pub(super) fn push(&mut self, mut bytes: &[u8], now: SystemTime, entries: &mut impl Entries) {
        let stamp = Stamp::new(now);
        while !bytes.is_empty() {
            let (line, rest, ended) = match bytes.iter().position(|byte| *byte == b'\n') {
                Some(end) => (&bytes[..end], &bytes[end + 1..], true),
                None => (bytes, &bytes[bytes.len()..], false),
            };
            self.extend(line, &stamp, entries);
            if ended {
                self.emit(b'F', &stamp, entries);
            }
            bytes = rest;
        }
    }

    pub(super) fn is_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// More of an unfinished line may come, but not now: what is there becomes a partial entry.
    pub(super) fn interrupt(&mut self, now: SystemTime, entries: &mut impl Entries) {
        if self.is_pending() {
            self.emit(b'P', &Stamp::new(now), entries);
        }
    }

    /// The stream has ended: a line without its newline is an entry all the same.
    pub(super) fn end(&mut self, now: SystemTime, entries: &mut impl Entries) {
        if !self.pending.is_empty() {
            self.emit(b'F', &Stamp::new(now), entries);
        }
    }

    /// Adds text without a newline. A full buffer becomes a partial entry only when more of its line has come.
    fn extend(&mut self, mut text: &[u8], stamp: &Stamp, entries: &mut impl Entries) {
        let longest = LONGEST_TEXT.min(entries.longest_text());
        while !text.is_empty() {
            if self.pending.len() >= longest {
                self.emit(b'P', stamp, entries);
            }
            let (fits, rest) = text.split_at(text.len().min(longest - self.pending.len()));
            self.pending.extend_from_slice(fits);
            text = rest;
        }
    }

    fn emit(&mut self, tag: u8, stamp: &Stamp, entries: &mut impl Entries) {
        let mut header = [0; OVERHEAD];
        let name: &[u8] = match self.stream {
            Stream::Stdout => b" stdout ",
            Stream::Stderr => b" stderr ",
        };
        header[..30].copy_from_slice(&stamp.0);
        header[30..38].copy_from_slice(name);
        header[38] = tag;
        header[39] = b' ';
        entries.append(&header[..40], &self.pending);
        self.pending.clear();
    }
}

/// A time as RFC 3339 with nanoseconds, in UTC.
pub(super) struct Stamp([u8; 30]);

impl Stamp {
    pub(super) fn new(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
        let (year, month, day) = civil(days);
        let mut text = *b"0000-00-00T00:00:00.000000000Z";
        // The format is as wide as the buffer for every year below 10 000.
        let _ = write!(
            &mut text[..],
            "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:09}Z",
            second / 3600,
            second / 60 % 60,
            second % 60,
            since.subsec_nanos()
        );
        Self(text)
    }

    pub(super) fn text(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

/// Year, month and day of a day since 1970, in the Gregorian calendar (years are counted from March, so that the leap
/// day is a year's last).
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    struct Kept(Vec<String>, usize);

    impl Entries for Kept {
        fn longest_text(&self) -> usize {
            self.1
        }

        fn append(&mut self, header: &[u8], text: &[u8]) {
            let header = std::str::from_utf8(header).unwrap();
            let length = if text.len() > 20 {
                format!("<{}>", text.len())
            } else {
                String::from_utf8_lossy(text).into()
            };
            self.0.push(format!("{}{length}", &header[31..]));
        }
    }

    fn entries(chunks: &[&[u8]]) -> Vec<String> {
        let mut kept = Kept(Vec::new(), usize::MAX);
        let mut lines = Lines::new(Stream::Stdout);
        for chunk in chunks {
            lines.push(chunk, UNIX_EPOCH, &mut kept);
        }
        lines.end(UNIX_EPOCH, &mut kept);
        kept.0
    }

    #[test]
    fn lines_are_entries_however_they_arrive() {
        assert_eq!(entries(&[b"a\nb\n"]), ["stdout F a", "stdout F b"]);
        assert_eq!(entries(&[b"a", b"b", b"\n\nc"]), ["stdout F ab", "stdout F ", "stdout F c"]);
        assert_eq!(entries(&[]), [""; 0]);
        assert_eq!(entries(&[b"\n"]), ["stdout F "]);
        assert_eq!(entries(&[b"\xff\r\n"]), ["stdout F \u{fffd}\r"]);
    }

    #[test]
    fn a_long_line_is_cut_at_16_kib() {
        let line = vec![b'x'; 40_000];
        let cut = ["stdout P <16384>", "stdout P <16384>", "stdout F <7232>"];
        assert_eq!(entries(&[&line]), cut);
        assert_eq!(entries(&[&line[..1], &line[1..], b"\n"]), cut);
        assert_eq!(
            entries(&[&line[..LONGEST_TEXT], b"\n"]),
            ["stdout F <16384>"],
            "exactly full is one entry"
        );
    }

    #[test]
    fn an_unfinished_line_goes_on_after_an_interruption() {
        let mut kept = Kept(Vec::new(), usize::MAX);
        let mut lines = Lines::new(Stream::Stderr);
        lines.interrupt(UNIX_EPOCH, &mut kept);
        lines.push(b"login: ", UNIX_EPOCH, &mut kept);
        lines.interrupt(UNIX_EPOCH, &mut kept);
        lines.interrupt(UNIX_EPOCH, &mut kept);
        lines.push(b"me\n", UNIX_EPOCH, &mut kept);
        lines.interrupt(UNIX_EPOCH, &mut kept);
        assert_eq!(kept.0, ["stderr P login: ", "stderr F me"]);
    }

    #[test]
    fn stamps_are_rfc_3339() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.000000007Z"),
            (951_782_400, "2000-02-29T00:00:00.000000007Z"),
            (1_709_251_199, "2024-02-29T23:59:59.000000007Z"),
            (1_795_217_696, "2026-11-20T23:34:56.000000007Z"),
            (4_102_444_800, "2100-01-01T00:00:00.000000007Z"),
        ] {
            let time = UNIX_EPOCH + Duration::new(seconds, 7);
            assert_eq!(Stamp::new(time).text(), text);
        }
    }
}
