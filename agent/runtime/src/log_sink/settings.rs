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

/// Where the streams come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// containerd's shim, by its convention for `binary://`.
    Shim,
    /// The agent: FIFOs as stdin and stdout.
    Agent,
    /// The same, for a container that runs: FIFOs that nobody writes have ended.
    Adopted,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(super) source: Source,
    /// Folder for the attach socket; none in settings of an older agent.
    pub(super) folder: Option<PathBuf>,
    pub(crate) path: PathBuf,
    /// No file becomes larger than this.
    pub(crate) max_size: u64,
    /// Files kept, the current one included.
    pub(crate) max_files: u32,
}

// === impl Settings ===

impl Settings {
    pub(crate) fn of(config: &ContainerConfig, folder: &Path) -> Self {
        Self {
            source: Source::Shim,
            folder: Some(folder.to_owned()),
            path: config.log_path.clone(),
            max_size: config.log_max_size.max(SMALLEST),
            max_files: config.log_max_files.max(1),
        }
    }

    /// Reads what [`uri`] wrote, after containerd decoded it. The version leaves room for other forms: a sink may be
    /// older or newer than the agent that starts the next one.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (version, rest) = text.split_once(':')?;
        let (source, folder, rest) = match version {
            "1" => (Source::Shim, None, rest),
            "2" => {
                let mut fields = rest.splitn(3, ':');
                let source = match fields.next()? {
                    "shim" => Source::Shim,
                    "agent" => Source::Agent,
                    "adopted" => Source::Adopted,
                    _ => return None,
                };
                (source, Some(absolute(fields.next()?)?), fields.next()?)
            }
            _ => return None,
        };
        let mut fields = rest.splitn(3, ':');
        let max_size = fields.next()?.parse::<u64>().ok()?.max(SMALLEST);
        let max_files = fields.next()?.parse::<u32>().ok()?.max(1);
        Some(Self { source, folder, path: absolute(fields.next()?)?, max_size, max_files })
    }

    #[cfg(test)]
    pub(super) fn plain(path: PathBuf, max_size: u64, max_files: u32) -> Self {
        Self { source: Source::Shim, folder: None, path, max_size, max_files }
    }

    fn argument(&self) -> String {
        let source = match self.source {
            Source::Shim => "shim",
            Source::Agent => "agent",
            Source::Adopted => "adopted",
        };
        let limits = format!("{}:{}:{}", self.max_size, self.max_files, encode(self.path.as_os_str()));
        match &self.folder {
            Some(folder) => format!("2:{source}:{}:{limits}", encode(folder.as_os_str())),
            None => format!("1:{limits}"),
        }
    }
}

fn absolute(encoded: &str) -> Option<PathBuf> {
    let path = PathBuf::from(std::ffi::OsString::from_vec(decode(encoded)?));
    path.is_absolute().then_some(path)
}

/// The URI that makes containerd's shim start `binary log-sink <settings>`.
pub(crate) fn uri(binary: &Path, settings: &Settings) -> String {
    // The paths are encoded twice: they need not be UTF-8, and what the shim decodes becomes an argument.
    let argument = settings.argument();
    format!("binary://{}?{SUBCOMMAND}={}", encode(binary.as_os_str()), encode(OsStr::new(&argument)))
}

/// The argument for a sink that the agent starts itself, for a container whose record has this URI.
pub(crate) fn own_settings(uri: &str, adopt: bool) -> Option<String> {
    let (_, argument) = uri.split_once(&format!("?{SUBCOMMAND}="))?;
    let mut settings = Settings::parse(std::str::from_utf8(&decode(argument)?).ok()?)?;
    settings.source = if adopt { Source::Adopted } else { Source::Agent };
    Some(settings.argument())
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

    fn settings(path: &str) -> Settings {
        Settings {
            source: Source::Shim,
            folder: Some("/run/x:y/io/1".into()),
            path: path.into(),
            max_size: 10 << 20,
            max_files: 5,
        }
    }

    #[test]
    fn settings_pass_through_the_uri() {
        for path in ["/var/log/pods/ns_pod_uid/c/0.log", "/odd & path/100%:x?y=z#a/é.log"] {
            let settings = settings(path);
            let uri = uri(Path::new("/usr/bin/xebec-agent"), &settings);
            let query = uri.strip_prefix("binary:///usr/bin/xebec-agent?log-sink=").unwrap();
            assert!(!query.contains(['&', '=', ';', '+', '#']), "one query argument: {query}");
            let argument = String::from_utf8(decode(query).unwrap()).unwrap();
            assert_eq!(Settings::parse(&argument), Some(settings));
        }
    }

    #[test]
    fn a_sink_of_the_agent_has_the_settings_of_the_record() {
        let uri = uri(Path::new("/usr/bin/xebec-agent"), &settings("/a.log"));
        let own = Settings::parse(&own_settings(&uri, true).unwrap());
        assert_eq!(own, Some(Settings { source: Source::Adopted, ..settings("/a.log") }));
        assert_eq!(own_settings("fifo:///x", false), None);
    }

    #[test]
    fn settings_of_an_older_agent_are_understood() {
        let old = Settings { folder: None, ..settings("/x y.log") };
        assert_eq!(Settings::parse("1:10485760:5:/x%20y.log"), Some(old.clone()));
        assert_eq!(Settings::parse(&old.argument()), Some(old));
    }

    #[test]
    fn foreign_settings_are_refused() {
        for bad in [
            "",
            "3:1:1:/x",
            "1:1:1",
            "1:a:1:/x",
            "1:1:1:relative",
            "1:1:1:/x%4",
            "2:who:/r:1:1:/x",
            "2:shim:r:1:1:/x",
        ] {
            assert_eq!(Settings::parse(bad), None, "{bad}");
        }
        assert_eq!(Settings::parse("1:0:0:/x").unwrap().max_size, SMALLEST);
    }
}
