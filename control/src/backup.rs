//! Backups: the store's live values of one moment, and the keys without which they are of no use.
//!
//! In: a data folder. Out: one file (see [`format`]). A running control plane writes it itself, asked through a socket in its
//! data folder, so that reads and writes go on meanwhile; a stopped one is read from its folder.

pub mod format;

use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio_util::sync::CancellationToken;
use xebec_store::{EngineConfig, Store};

use crate::cli::BackupArgs;
use crate::compaction::Hold;
use crate::data_dir::{self, DataDir};
use crate::files;
use format::{Header, Part, Reader, Writer};

const SOCKET: &str = "backup.sock";
/// A peer that takes nothing for this long is given up.
const STALL: Duration = Duration::from_secs(30);
/// Values read from the store at a time.
const PAGE: usize = 500;

/// What a backup holds, to tell.
struct Contents {
    header: Header,
    records: u64,
}

/// Where a running control plane gives its backups.
pub struct Door {
    listener: std::os::unix::net::UnixListener,
    pki: PathBuf,
}

pub fn write(arguments: &BackupArgs) -> Result<()> {
    let draft = draft(&arguments.out);
    let outcome = fill(arguments, &draft).and_then(|contents| {
        fs::rename(&draft, &arguments.out)
            .with_context(|| format!("cannot write {}", arguments.out.display()))?;
        files::sync_folder_of(&arguments.out)
            .with_context(|| format!("cannot write {}", arguments.out.display()))?;
        Ok(contents)
    });
    if outcome.is_err() {
        // Nothing that looks like a backup may stay; it may not be there at all.
        fs::remove_file(&draft).ok();
    }
    let Contents { header, records } = outcome?;
    println!("{}: {records} objects at revision {}", arguments.out.display(), header.revision);
    Ok(())
}

fn fill(arguments: &BackupArgs, draft: &Path) -> Result<Contents> {
    let dir = &arguments.data_dir;
    if !data_dir::store(dir).exists() {
        bail!("{} is no data folder of a control plane: it holds no store", dir.display());
    }
    let complaint = || format!("cannot write {}", draft.display());
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(draft)
        .with_context(complaint)?;
    match connect(dir) {
        Ok(mut stream) => {
            stream.set_read_timeout(Some(STALL))?;
            std::io::copy(&mut stream, &mut file).context("the running control plane does not go on")?;
        }
        // Nobody listens, so it does not run; if it does not answer for another reason, its lock says so.
        Err(_) => {
            let data = DataDir::open(dir)?;
            let store = Store::open(EngineConfig::Embedded { path: data.store() })?;
            give(&store, &data.pki(), &mut file)?;
        }
    }
    file.sync_all().with_context(complaint)?;
    check(File::open(draft)?).with_context(|| "the backup just written cannot be used")
}

/// Reads a backup to its end.
fn check(input: impl Read) -> Result<Contents> {
    let (mut reader, header) = Reader::open(std::io::BufReader::new(input))?;
    let mut records = 0;
    while let Some(part) = reader.next_part()? {
        records += u64::from(matches!(part, Part::Record(_)));
    }
    Ok(Contents { header, records })
}

/// Writes the backup of this moment.
fn give(store: &Store, pki: &Path, out: impl Write) -> Result<()> {
    let revision = store.revision();
    let header = Header {
        revision: revision.0,
        created: jiff::Timestamp::now().to_string(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let mut writer = Writer::new(BufWriter::with_capacity(256 << 10, out), &header)?;
    let mut names: Vec<_> = fs::read_dir(pki)?.collect::<Result<_, _>>()?;
    names.sort_by_key(fs::DirEntry::file_name);
    for entry in names {
        let name = entry.file_name();
        let name = name.to_str().context("a file of the keys has no readable name")?;
        if entry.file_type()?.is_file() {
            writer.file(name, &fs::read(entry.path())?)?;
        }
    }
    let mut after = None;
    loop {
        let page = store.list(b"", after.as_deref(), PAGE, Some(revision))?;
        for value in &page.items {
            writer.record(value)?;
        }
        after = page.items.last().map(|value| value.key.clone());
        if !page.more {
            break;
        }
    }
    Ok(writer.finish()?)
}

// === impl Door ===

impl Door {
    /// Listens in the data folder, which nobody else can enter.
    pub fn open(data: &DataDir) -> Result<Self> {
        let path = data.path().join(SOCKET);
        let complaint = || format!("cannot listen on {}", path.display());
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(complaint);
            }
            _ => {}
        }
        let folder = File::open(data.path()).with_context(complaint)?;
        let listener = std::os::unix::net::UnixListener::bind(short(&folder)).with_context(complaint)?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener, pki: data.pki() })
    }

    /// Answers every connection with a backup, one at a time, until told to stop.
    pub async fn serve(self, store: Store, hold: Hold, stop: CancellationToken) -> Result<()> {
        let listener = tokio::net::UnixListener::from_std(self.listener)?;
        loop {
            let stream = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                accepted = listener.accept() => accepted.context("listening for backups")?.0,
            };
            let (store, pki) = (store.clone(), self.pki.clone());
            // It is all of one revision, however long it takes to be read.
            let held = hold.hold();
            let given = tokio::task::spawn_blocking(move || {
                let _held = held;
                let stream = stream.into_std()?;
                stream.set_nonblocking(false)?;
                stream.set_write_timeout(Some(STALL))?;
                give(&store, &pki, stream)
            });
            match given.await? {
                Ok(()) => tracing::info!("backup given"),
                Err(error) => tracing::warn!("backup not given: {error:#}"),
            }
        }
    }
}

fn connect(data_dir: &Path) -> std::io::Result<UnixStream> {
    let folder = File::open(data_dir)?;
    UnixStream::connect(short(&folder))
}

/// A socket's path may have 107 bytes only; data folders' may be longer.
fn short(folder: &File) -> PathBuf {
    format!("/proc/self/fd/{}/{SOCKET}", folder.as_raw_fd()).into()
}

fn draft(path: &Path) -> PathBuf {
    let mut draft = path.as_os_str().to_owned();
    draft.push(".new");
    draft.into()
}
