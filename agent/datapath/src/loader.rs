//! From the embedded object to programs in the kernel and pinned maps.
//!
//! In: settings, what is pinned. Out: loaded programs that use the pinned maps. Maps that are pinned under this ABI version
//! are adopted as they are, after a check of their shape; others are made.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use aya::programs::{CgroupSockAddr, Program, SchedClassifier};
use aya::{Ebpf, EbpfLoader};
use xebec_ebpf_common::{ABI_VERSION, names};

use crate::config::{Capacity, DatapathConfig};
use crate::error::{Error, Result};
use crate::shape::Shape;
use crate::{object, sys};

/// Folders of pins of one ABI version.
#[derive(Clone, Debug)]
pub(crate) struct Pins {
    /// Parent of the folders of all versions.
    pub(crate) root: PathBuf,
    pub(crate) maps: PathBuf,
    pub(crate) links: PathBuf,
}

/// Programs by name, held by their descriptors until they are attached.
pub(crate) type Programs = BTreeMap<String, OwnedFd>;

impl Pins {
    /// Where the pins are, whether or not there are any.
    pub(crate) fn at(bpffs: &Path) -> Self {
        let root = bpffs.join("xebec");
        let version = root.join(format!("v{ABI_VERSION}"));
        Self { maps: version.join("maps"), links: version.join("links"), root }
    }

    /// Makes the folders; only root may look inside.
    pub(crate) fn create(bpffs: &Path) -> Result<Self> {
        let pins = Self::at(bpffs);
        for folder in [&pins.maps, &pins.links] {
            create_private(folder).map_err(|source| Error::PinFolder { path: folder.clone(), source })?;
        }
        Ok(pins)
    }
}

fn create_private(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// Loads all programs over the pinned maps.
pub(crate) fn load(config: &DatapathConfig, pins: &Pins) -> Result<Programs> {
    let bytes = object::bytes();
    if bytes.is_empty() {
        return Err(Error::NoObject);
    }
    let mut loader = EbpfLoader::new();
    for name in names::MAPS {
        let path = pins.maps.join(name);
        discard_foreign(name, &path);
        if let Some(entries) = entries(name, &config.capacity) {
            loader.map_max_entries(name, entries);
        }
        loader.map_pin_path(name, path);
    }
    let mut ebpf = loader.load(bytes)?;
    let mut programs = Programs::new();
    for name in names::CGROUP_PROGRAMS {
        programs.insert((*name).to_owned(), load_cgroup(&mut ebpf, name)?);
    }
    for name in [names::POD_INGRESS, names::POD_EGRESS, names::UPLINK_INGRESS, names::UPLINK_EGRESS] {
        programs.insert(name.to_owned(), load_classifier(&mut ebpf, name)?);
    }
    Ok(programs)
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Program> {
    ebpf.program_mut(name).ok_or_else(|| Error::Missing(format!("program {name}")))
}

fn load_cgroup(ebpf: &mut Ebpf, name: &str) -> Result<OwnedFd> {
    let refused = |source| Error::Program { program: name.to_owned(), source };
    let program: &mut CgroupSockAddr = program(ebpf, name)?.try_into().map_err(refused)?;
    program.load().map_err(refused)?;
    owned(program.fd().map_err(refused)?.as_fd().try_clone_to_owned(), name)
}

fn load_classifier(ebpf: &mut Ebpf, name: &str) -> Result<OwnedFd> {
    let refused = |source| Error::Program { program: name.to_owned(), source };
    let program: &mut SchedClassifier = program(ebpf, name)?.try_into().map_err(refused)?;
    program.load().map_err(refused)?;
    owned(program.fd().map_err(refused)?.as_fd().try_clone_to_owned(), name)
}

fn owned(result: io::Result<OwnedFd>, name: &str) -> Result<OwnedFd> {
    result.map_err(|source| Error::Syscall { call: "dup", object: format!("program {name}"), source })
}

/// Entries of a map by the node's capacity; `None` where the object says it.
fn entries(name: &str, capacity: &Capacity) -> Option<u32> {
    Some(match name {
        names::SERVICES4 | names::SERVICES6 => capacity.services,
        names::SLOTS => capacity.slots,
        names::BACKENDS4 | names::BACKENDS6 => capacity.backends,
        names::PODS4 | names::PODS6 | names::NETNS | names::POD_FLOWS => capacity.pods,
        names::FLOWS4 | names::FLOWS6 => capacity.flows,
        names::AFFINITY4 | names::AFFINITY6 => capacity.affinity,
        _ => return None,
    })
}

/// Removes a pin that is not the map it should be: opening it as one would read and write beside its values.
fn discard_foreign(name: &str, path: &Path) {
    let shape = match sys::obj_get(path) {
        Ok(fd) => sys::map_info(fd.as_fd()).ok().map(Shape::from),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return,
        Err(_) => None,
    };
    if shape == Some(crate::shape::of(name)) {
        return;
    }
    tracing::warn!(map = name, ?shape, "a pin of another shape is in the way, making the map anew");
    if let Err(error) = fs::remove_file(path) {
        tracing::warn!(map = name, %error, "the pin cannot be removed");
    }
}
