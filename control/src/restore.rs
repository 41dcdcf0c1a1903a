//! `xebec-control restore`: a data folder out of a backup.
//!
//! In: a backup, a folder without a store. Out: the same keys and objects. Revisions go on far beyond those of the backup:
//! whoever watched or listed the lost store is told 410 and lists again, and no revision is ever given out twice.

use std::fs::{self, File};
use std::io::BufReader;
use std::path::{Component, Path};

use anyhow::{Context, Result, anyhow, bail};
use xebec_store::{EngineConfig, KeyValue, Revision, StoreError, import};

use crate::backup::format::{BackupError, Header, Part, Reader};
use crate::cli::RestoreArgs;
use crate::data_dir::DataDir;
use crate::files::{self, Access};

/// Further than any store gets between a backup and its loss; what etcd's operators are told to use.
const REVISION_GAP: u64 = 1_000_000_000;

/// What may go wrong between a backup and a store.
#[derive(Debug, thiserror::Error)]
enum RestoreError {
    #[error(transparent)]
    Backup(#[from] BackupError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{0:#}")]
    Keys(anyhow::Error),
}

pub fn restore(arguments: &RestoreArgs) -> Result<()> {
    let backup = &arguments.backup;
    let said = || format!("cannot restore from {}", backup.display());
    // Read to its end before anything is made of it.
    let header = walk(backup, |_| Ok(())).with_context(said)?;
    let data = DataDir::open(&arguments.data_dir)?;
    if data.store().exists() {
        bail!(
            "{} holds a store already; move the folder away, or give another",
            arguments.data_dir.display()
        );
    }
    let draft = data.store().with_extension("restoring");
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot remove {}", draft.display()));
        }
        _ => {}
    }
    walk(backup, |part| match part {
        Part::File { name, content } => {
            let access = if name.ends_with(".key") { Access::Owner } else { Access::All };
            files::write(&data.pki().join(plain(&name)?), &content, access).map_err(RestoreError::Keys)
        }
        _ => Ok(()),
    })
    .with_context(said)?;
    let revision = Revision(header.revision + REVISION_GAP);
    let config = EngineConfig::Embedded { path: draft.clone() };
    let count = import(config, revision, Records::of(backup)?).with_context(said)?;
    // The folder becomes that of a control plane only now.
    fs::rename(&draft, data.store()).with_context(|| format!("cannot make {}", data.store().display()))?;
    files::sync_folder_of(&data.store())?;
    println!(
        "{}: {count} objects as of {}, revision {}; it goes on at {revision}",
        arguments.data_dir.display(),
        header.created,
        header.revision
    );
    Ok(())
}

fn walk(
    backup: &Path,
    mut visit: impl FnMut(Part) -> Result<(), RestoreError>,
) -> Result<Header, RestoreError> {
    let (mut reader, header) = open(backup)?;
    while let Some(part) = reader.next_part()? {
        visit(part)?;
    }
    Ok(header)
}

fn open(backup: &Path) -> Result<(Reader<BufReader<File>>, Header), BackupError> {
    Reader::open(BufReader::new(File::open(backup).map_err(BackupError::Io)?))
}

/// A name that stays in the folder it is written to.
fn plain(name: &str) -> Result<&str, RestoreError> {
    let mut components = Path::new(name).components();
    match (components.next(), components.next()) {
        (Some(Component::Normal(_)), None) => Ok(name),
        _ => Err(RestoreError::Keys(anyhow!("it names a file {name:?}, which is no plain name"))),
    }
}

/// The records of a backup, one by one.
struct Records(Reader<BufReader<File>>);

// === impl Records ===

impl Records {
    fn of(backup: &Path) -> Result<Self, BackupError> {
        Ok(Self(open(backup)?.0))
    }
}

impl Iterator for Records {
    type Item = Result<KeyValue, RestoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.0.next_part() {
                Ok(Some(Part::Record(record))) => return Some(Ok(record)),
                Ok(Some(_)) => {}
                Ok(None) => return None,
                Err(error) => return Some(Err(error.into())),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::plain;

    #[test]
    fn files_of_keys_stay_in_their_folder() {
        assert_eq!(plain("ca.key").unwrap(), "ca.key");
        for bad in ["", ".", "..", "../ca.key", "/etc/passwd", "a/b"] {
            assert!(plain(bad).is_err(), "{bad}");
        }
    }
}
