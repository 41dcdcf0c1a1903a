//! What this node's network must remember over restarts: who holds which addresses, interface and namespaces.
//!
//! In: records. Out: one JSON file, replaced atomically. It lives beside the pinned namespaces, in a folder that a
//! reboot empties, so it is not synced to disk: after a reboot nothing that it tells of exists any more.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, ErrorKind};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Layout of the file; another one is refused.
const VERSION: u32 = 1;

/// One pod's share of the network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// No network namespace, no interface, the node's addresses.
    pub(crate) host_network: bool,
    pub(crate) host_ipc: bool,
    /// Host end of the veth.
    pub(crate) interface: String,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) mac: [u8; 6],
    pub(crate) host_mac: [u8; 6],
    /// Cookie of the pod's network namespace; 0 until it exists.
    pub(crate) netns_cookie: u64,
    /// Everything was built. A record that is not ready is a half-made or half-removed pod.
    pub(crate) ready: bool,
}

/// Everything remembered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Checkpoint {
    version: u32,
    /// Where address searches go on, per range.
    pub(crate) cursors: Vec<u32>,
    pub(crate) pods: BTreeMap<String, Record>,
}

/// What was found on disk.
#[derive(Debug)]
pub(crate) enum Loaded {
    Found(Checkpoint),
    Missing,
    Unreadable(String),
}

/// Reads the file. An error is one of the disk; bad content is [`Loaded::Unreadable`].
pub(crate) fn load(path: &Path) -> Result<Loaded> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Loaded::Missing),
        Err(error) => return Err(Error::file("reading", path, error)),
    };
    Ok(match serde_json::from_slice::<Checkpoint>(&text) {
        Ok(checkpoint) if checkpoint.version == VERSION => Loaded::Found(checkpoint),
        Ok(checkpoint) => Loaded::Unreadable(format!("layout {}, not {VERSION}", checkpoint.version)),
        Err(error) => Loaded::Unreadable(error.to_string()),
    })
}

/// Replaces the file.
pub(crate) fn save(path: &Path, cursors: &[u32], pods: &BTreeMap<String, Record>) -> Result<()> {
    #[derive(Serialize)]
    struct View<'a> {
        version: u32,
        cursors: &'a [u32],
        pods: &'a BTreeMap<String, Record>,
    }
    let text = serde_json::to_vec(&View { version: VERSION, cursors, pods })
        .map_err(|error| Error::file("encoding", path, io::Error::other(error)))?;
    let temporary: PathBuf = path.with_extension("new");
    fs::write(&temporary, text).map_err(|error| Error::file("writing", &temporary, error))?;
    fs::rename(&temporary, path).map_err(|error| Error::file("replacing", path, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record {
            namespace: "default".into(),
            name: "web".into(),
            host_network: false,
            host_ipc: false,
            interface: "xeb0123456789ab".into(),
            addresses: vec!["10.244.0.2".parse().unwrap(), "fd00::2".parse().unwrap()],
            mac: [2, 0, 0, 0, 0, 1],
            host_mac: [2, 0, 0, 0, 0, 2],
            netns_cookie: 7,
            ready: true,
        }
    }

    #[test]
    fn saved_checkpoint_is_loaded_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("network.json");
        assert!(matches!(load(&path).unwrap(), Loaded::Missing));
        let pods = BTreeMap::from([("uid".to_owned(), record())]);
        save(&path, &[3, 4], &pods).unwrap();
        let Loaded::Found(found) = load(&path).unwrap() else { panic!("not found") };
        assert_eq!((found.cursors, found.pods), (vec![3, 4], pods));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "the temporary file is gone");
    }

    #[test]
    fn torn_or_foreign_file_is_unreadable_not_an_empty_network() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("network.json");
        for bad in ["", "{", "[]", r#"{"version":2,"cursors":[],"pods":{}}"#] {
            fs::write(&path, bad).unwrap();
            assert!(matches!(load(&path).unwrap(), Loaded::Unreadable(_)), "{bad:?}");
        }
    }
}
