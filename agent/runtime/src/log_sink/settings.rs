//! What a log sink must know, as the one query argument of its URI.
//!
//! In: a container's log path and limits. Out: `binary:///…?log-sink=…`, and the way back.

use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::SUBCOMMAND;
use crate::types::ContainerConfig;

/// Smallest byte limit that is kept: an entry needs room.
const SMALLEST: u64 = 4096;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) path: PathBuf,
    /// No file becomes larger than this.
    pub(crate) max_size: u64,
    /// Files kept, the current one included.
    pub(crate) max_files: u32,
}

// === impl Settings ===

impl Settings {
    pub(crate) fn of(config: &ContainerConfig) -> Self {
        Self {
            path: config.log_path.clone(),
            max_size: config.log_max_size.max(SMALLEST),
            max_files: config.log_max_files.max(1),
        }
    }

    /// Reads what [`uri`] wrote, after containerd decoded it. The version leaves room for other forms: a sink may be
    /// older or newer than the agent that starts the next one.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut fields = text.splitn(4, ':');
        if fields.next() != Some("1") {
            return None;
        }
        let max_size = fields.next()?.parse::<u64>().ok()?.max(SMALLEST);
        let max_files = fields.next()?.parse::<u32>().ok()?.max(1);
        let path = PathBuf::from(std::ffi::OsString::from_vec(decode(fields.next()?)?));
        path.is_absolute().then_some(Self { path, max_size, max_files })
    }
}

/// The URI that makes containerd's shim start `binary log-sink <settings>`.
pub(crate) fn uri(binary: &Path, settings: &Settings) -> String {
    // The path is encoded twice: it need not be UTF-8, and what the shim decodes becomes an argument.
    let argument =
        format!("1:{}:{}:{}", settings.max_size, settings.max_files, encode(settings.path.as_os_str()));
    format!("binary://{}?{SUBCOMMAND}={}", encode(binary.as_os_str()), encode(OsStr::new(&argument)))
}

/// Percent-encoding of everything but letters, digits and `-_.~/`.
fn encode(text: &OsStr) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.as_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' => {
                encoded.push(char::from(*byte));
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

fn decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digits = [rest.next()?, rest.next()?];
        bytes.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_pass_through_the_uri() {
        for path in ["/var/log/pods/ns_pod_uid/c/0.log", "/odd & path/100%:x?y=z#a/é.log"] {
            let settings = Settings { path: path.into(), max_size: 10 << 20, max_files: 5 };
            let uri = uri(Path::new("/usr/bin/xebec-agent"), &settings);
            let query = uri.strip_prefix("binary:///usr/bin/xebec-agent?log-sink=").unwrap();
            assert!(!query.contains(['&', '=', ';', '+', '#']), "one query argument: {query}");
            let argument = String::from_utf8(decode(query).unwrap()).unwrap();
            assert_eq!(Settings::parse(&argument), Some(settings));
        }
    }

    #[test]
    fn foreign_settings_are_refused() {
        for bad in ["", "2:1:1:/x", "1:1:1", "1:a:1:/x", "1:1:1:relative", "1:1:1:/x%4"] {
            assert_eq!(Settings::parse(bad), None, "{bad}");
        }
        assert_eq!(Settings::parse("1:0:0:/x").unwrap().max_size, SMALLEST);
    }
}
