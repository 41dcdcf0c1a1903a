//! A container's last words: `terminationMessagePath`, or the end of its log.
//!
//! In: the file mounted into the run, its log. Out: at most 4 KiB.

use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use k8s_openapi::api::core::v1::Container;

const MAX_MESSAGE: u64 = 4096;
const MAX_LOG: u64 = 2048;
const MAX_LOG_LINES: usize = 80;
/// As much of the log's end as may hold 2 KiB of content.
const LOG_WINDOW: u64 = 16 * 1024;

/// The message of a run that ended with `code`.
pub(crate) fn read(container: &Container, code: i32, message_file: &Path, log: &Path) -> String {
    let message = read_end(message_file, MAX_MESSAGE).unwrap_or_default();
    let fallback = container.termination_message_policy.as_deref() == Some("FallbackToLogsOnError");
    if !message.is_empty() || !fallback || code == 0 {
        return message;
    }
    last_lines(&read_end(log, LOG_WINDOW).unwrap_or_default())
}

/// The end of a regular file. The file was made by the kubelet, its folder is not the container's; a link is refused
/// all the same.
fn read_end(path: &Path, limit: u64) -> std::io::Result<String> {
    let flags = nix::fcntl::OFlag::O_NOFOLLOW | nix::fcntl::OFlag::O_NONBLOCK;
    let mut file = fs::OpenOptions::new().read(true).custom_flags(flags.bits()).open(path)?;
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(std::io::Error::other("not a regular file"));
    }
    file.seek(SeekFrom::Start(meta.len().saturating_sub(limit)))?;
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Content of the last CRI log lines: `time stream tag content`.
fn last_lines(cri: &str) -> String {
    let mut lines: Vec<&str> = Vec::new();
    let mut size = 0;
    for line in cri.lines().rev().take(MAX_LOG_LINES) {
        let Some(content) = line.splitn(4, ' ').nth(3) else { continue };
        size += content.len() as u64 + 1;
        if size > MAX_LOG {
            break;
        }
        lines.push(content);
    }
    lines.reverse();
    let mut out = lines.join("\n");
    if !out.is_empty() {
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_stands_in_only_when_asked_and_only_after_an_error() {
        let tmp = tempfile::tempdir().unwrap();
        let (file, log) = (tmp.path().join("m"), tmp.path().join("l"));
        fs::write(&file, "").unwrap();
        fs::write(&log, "2026-01-01T00:00:00Z stdout F one\n2026-01-01T00:00:01Z stderr F two words\n")
            .unwrap();
        let container = |policy: &str| Container {
            termination_message_policy: Some(policy.to_owned()),
            ..Container::default()
        };
        assert_eq!(read(&container("File"), 1, &file, &log), "");
        assert_eq!(read(&container("FallbackToLogsOnError"), 0, &file, &log), "");
        assert_eq!(read(&container("FallbackToLogsOnError"), 1, &file, &log), "one\ntwo words\n");
        fs::write(&file, "x".repeat(5000)).unwrap();
        assert_eq!(read(&container("File"), 1, &file, &log).len(), 4096);
    }

    #[test]
    fn links_are_not_read() {
        let tmp = tempfile::tempdir().unwrap();
        let secret = tmp.path().join("secret");
        fs::write(&secret, "s").unwrap();
        std::os::unix::fs::symlink(&secret, tmp.path().join("m")).unwrap();
        let container = Container::default();
        assert_eq!(read(&container, 1, &tmp.path().join("m"), &tmp.path().join("l")), "");
    }
}
