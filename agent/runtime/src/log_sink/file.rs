//! The log file and its rotation.
//!
//! In: entries. Out: files of at most the byte limit, the newest under the plain name, the older ones with the time of their
//! rotation after it, no more than were asked for. An entry is never divided between files or writes.
//!
//! A container must not stop because its log cannot be written: entries that a full disk does not take are dropped, a
//! file that cannot be opened is tried again.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::SystemTime;

use nix::libc::{O_CLOEXEC, O_NOFOLLOW};

use super::entry::{Entries, OVERHEAD, Stamp};
use super::settings::Settings;

/// Entries are gathered up to here, to write many with one call.
const BUFFER: usize = 128 << 10;
/// Mode of log files, as upstream's.
const MODE: u32 = 0o640;

pub(super) struct LogFile {
    settings: Settings,
    file: Option<File>,
    /// Bytes in the file; those in the buffer come on top.
    written: u64,
    buffer: Vec<u8>,
}

// === impl LogFile ===

impl LogFile {
    /// Opens the file, to go on where an earlier sink ended.
    pub(super) fn open(settings: Settings) -> Self {
        let mut log = Self { settings, file: None, written: 0, buffer: Vec::with_capacity(BUFFER) };
        log.reopen();
        log
    }

    /// Writes what was gathered.
    pub(super) fn flush(&mut self) {
        if self.buffer.is_empty() {
            return;
        }
        if self.file.is_none() {
            self.reopen();
        }
        if let Some(file) = &mut self.file {
            match file.write_all(&self.buffer) {
                Ok(()) => self.written += self.buffer.len() as u64,
                // Some of it may be there.
                Err(_) => self.written = file.metadata().map_or(self.written, |file| file.len()),
            }
        }
        self.buffer.clear();
    }

    fn reopen(&mut self) {
        let opened = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(MODE)
            .custom_flags(O_NOFOLLOW | O_CLOEXEC)
            .open(&self.settings.path);
        self.file = opened.ok().filter(|file| file.metadata().is_ok_and(|file| file.is_file()));
        self.written = self.file.as_ref().and_then(|file| file.metadata().ok()).map_or(0, |file| file.len());
    }

    fn rotate(&mut self) {
        self.flush();
        let path = &self.settings.path;
        let moved = if self.settings.max_files > 1 {
            fs::rename(path, rotated_name(path, SystemTime::now()))
        } else {
            fs::remove_file(path)
        };
        if moved.is_err() {
            // The folder was removed with its pod: nobody reads this file any more, it must only not grow.
            let emptied = self.file.as_ref().map(|file| file.set_len(0));
            if let Some(Ok(())) = emptied {
                self.written = 0;
            }
            return;
        }
        self.reopen();
        self.prune();
    }

    /// Removes the oldest files that are too many. Their names sort by age.
    fn prune(&self) {
        let path = &self.settings.path;
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { return };
        let Ok(entries) = fs::read_dir(folder) else { return };
        let mut prefix = name.to_owned();
        prefix.push(".");
        let mut rotated: Vec<OsString> = entries
            .flatten()
            .map(|entry| entry.file_name())
            .filter(|name| name.as_encoded_bytes().starts_with(prefix.as_encoded_bytes()))
            .collect();
        rotated.sort_unstable();
        let kept = self.settings.max_files as usize - 1;
        for name in &rotated[..rotated.len().saturating_sub(kept)] {
            let _ = fs::remove_file(folder.join(name));
        }
    }
}

impl Entries for LogFile {
    fn longest_text(&self) -> usize {
        usize::try_from(self.settings.max_size).unwrap_or(usize::MAX).saturating_sub(OVERHEAD)
    }

    fn append(&mut self, header: &[u8], text: &[u8]) {
        let length = header.len() + text.len() + 1;
        if self.buffer.len() + length > BUFFER {
            self.flush();
        }
        let size = self.written + self.buffer.len() as u64;
        if size > 0 && size + length as u64 > self.settings.max_size {
            self.rotate();
        }
        self.buffer.extend_from_slice(header);
        self.buffer.extend_from_slice(text);
        self.buffer.push(b'\n');
    }
}

/// `0.log` → `0.log.20061102-150405.123456789`: as the kubelet names them, with a fraction because a busy container
/// fills more than one file in a second.
fn rotated_name(path: &Path, now: SystemTime) -> OsString {
    let stamp = Stamp::new(now);
    let compact: String = stamp
        .text()
        .chars()
        .filter(|c| !matches!(c, '-' | ':' | 'Z'))
        .map(|c| if c == 'T' { '-' } else { c })
        .collect();
    let mut name = path.as_os_str().to_owned();
    name.push(OsStr::new("."));
    name.push(compact);
    name
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("xebec-log-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn files(&self) -> Vec<(String, u64)> {
            let mut files: Vec<_> = fs::read_dir(&self.0)
                .unwrap()
                .flatten()
                .map(|entry| (entry.file_name().into_string().unwrap(), entry.metadata().unwrap().len()))
                .collect();
            files.sort();
            files
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn files_end_exactly_at_the_limit() {
        let scratch = Scratch::new("limit");
        let settings = Settings::plain(scratch.0.join("0.log"), 5000, 3);
        let mut log = LogFile::open(settings);
        for _ in 0..250 {
            log.append(b"header ", &[b'x'; 92]);
        }
        log.flush();
        let files = scratch.files();
        assert_eq!(files.len(), 3, "{files:?}");
        assert!(files.iter().all(|(_, size)| *size == 5000), "{files:?}");
        log.append(b"header ", b"next");
        log.flush();
        let newest = scratch.files();
        assert_eq!(newest[0], ("0.log".into(), 12), "a full file is left when the next entry comes");
        assert_eq!(newest.len(), 3);
    }

    #[test]
    fn a_sink_goes_on_with_the_file_it_finds() {
        let scratch = Scratch::new("resume");
        let settings = Settings::plain(scratch.0.join("0.log"), 5000, 2);
        fs::write(&settings.path, vec![b'y'; 4990]).unwrap();
        let mut log = LogFile::open(settings);
        log.append(b"h ", b"123456789");
        log.flush();
        assert_eq!(scratch.files().len(), 2);
    }

    #[test]
    fn a_link_is_not_followed() {
        let scratch = Scratch::new("link");
        let outside = scratch.0.join("outside");
        fs::write(&outside, "").unwrap();
        let path = scratch.0.join("0.log");
        std::os::unix::fs::symlink(&outside, &path).unwrap();
        let mut log = LogFile::open(Settings::plain(path, 5000, 2));
        log.append(b"h ", b"secret");
        log.flush();
        assert_eq!(fs::read(&outside).unwrap(), b"");
    }

    #[test]
    fn a_removed_folder_does_not_hold_growing_data() {
        let scratch = Scratch::new("removed");
        let folder = scratch.0.join("c");
        fs::create_dir(&folder).unwrap();
        let mut log = LogFile::open(Settings::plain(folder.join("0.log"), 5000, 2));
        log.append(b"h ", b"x");
        log.flush();
        fs::remove_dir_all(&folder).unwrap();
        for _ in 0..200 {
            log.append(b"h ", &[b'x'; 100]);
            log.flush();
            assert!(log.file.as_ref().unwrap().metadata().unwrap().len() <= 5000);
        }
    }

    #[test]
    fn rotated_names_sort_by_age() {
        let name = |nanos| rotated_name(Path::new("/l/0.log"), UNIX_EPOCH + Duration::from_nanos(nanos));
        assert_eq!(name(1_000_000_007), "/l/0.log.19700101-000001.000000007");
        assert!(name(999) < name(1000));
    }
}
