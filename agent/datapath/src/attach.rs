//! Links: where programs are attached, pinned so that they outlive the agent.
//!
//! In: programs, targets. Out: pinned links. A link that exists gets the new program in one step; no packet and no call
//! goes without one. A link of another ABI version is taken over the same way and its pin moved.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::net::if_::if_nametoindex;

use crate::error::{Error, Result};
use crate::loader::{Pins, Programs};
use crate::sys;

/// Values of `enum bpf_attach_type`.
mod attach_type {
    pub(super) const INET4_CONNECT: u32 = 10;
    pub(super) const INET6_CONNECT: u32 = 11;
    pub(super) const UDP4_SENDMSG: u32 = 14;
    pub(super) const UDP6_SENDMSG: u32 = 15;
    pub(super) const UDP4_RECVMSG: u32 = 19;
    pub(super) const UDP6_RECVMSG: u32 = 20;
    pub(super) const INET4_GETPEERNAME: u32 = 29;
    pub(super) const INET6_GETPEERNAME: u32 = 30;
    pub(super) const TCX_INGRESS: u32 = 46;
    pub(super) const TCX_EGRESS: u32 = 47;
}

/// Side of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Ingress,
    Egress,
}

/// Kind of a tcx link, from `enum bpf_link_type`.
const LINK_TCX: u32 = 11;

/// Attaches the socket programs to the node's cgroup.
pub(crate) fn attach_cgroup(pins: &Pins, programs: &Programs, cgroup: &Path) -> Result<()> {
    let folder = File::open(cgroup).map_err(|source| {
        Error::Config(format!(
            "cgroup folder {}: {source}; it must be a folder of the cgroup2 tree",
            cgroup.display()
        ))
    })?;
    let id = cgroup_id(cgroup)?;
    for name in xebec_ebpf_common::names::CGROUP_PROGRAMS {
        let program = get(programs, name)?;
        let same = |info: &sys::LinkInfo| u64::from(info.target) | (u64::from(info.target_high) << 32) == id;
        if adopt(pins, name, program, same)? {
            continue;
        }
        let link = sys::link_create(program, folder.as_raw_fd() as u32, cgroup_attach_type(name)?)
            .map_err(|source| syscall("BPF_LINK_CREATE", name, source))?;
        pin(pins, name, &link)?;
    }
    Ok(())
}

/// Attaches a program to a side of an interface. The pin bears `name`; attaching the same again replaces the program.
pub(crate) fn attach_interface(
    pins: &Pins,
    program: BorrowedFd<'_>,
    name: &str,
    interface: &str,
    side: Side,
) -> Result<()> {
    let index = interface_index(interface)?;
    if adopt(pins, name, program, |info| info.kind == LINK_TCX && info.target == index)? {
        return Ok(());
    }
    let kind = match side {
        Side::Ingress => attach_type::TCX_INGRESS,
        Side::Egress => attach_type::TCX_EGRESS,
    };
    let link =
        sys::link_create(program, index, kind).map_err(|source| syscall("BPF_LINK_CREATE", name, source))?;
    pin(pins, name, &link)
}

/// Removes a pin; the last descriptor gone, the kernel detaches the program. Nothing to remove is fine.
pub(crate) fn detach(pins: &Pins, name: &str) -> Result<()> {
    remove(&pins.links.join(name))
}

/// Index of an interface of the calling thread's namespace.
pub(crate) fn interface_index(name: &str) -> Result<u32> {
    if_nametoindex(name).map_err(|errno| Error::Interface { name: name.to_owned(), source: errno.into() })
}

/// Removes pins of links whose interface is gone.
pub(crate) fn collect(pins: &Pins) -> Result<()> {
    let folder = |source| Error::PinFolder { path: pins.links.clone(), source };
    for entry in fs::read_dir(&pins.links).map_err(folder)? {
        let path = entry.map_err(folder)?.path();
        let Ok(link) = sys::obj_get(&path) else { continue };
        if sys::link_info(link.as_fd()).is_ok_and(|info| info.kind == LINK_TCX && info.target == 0) {
            remove(&path)?;
        }
    }
    Ok(())
}

/// Removes pins of other ABI versions once their links were taken over.
pub(crate) fn discard_other_versions(pins: &Pins) {
    for version in other_versions(pins) {
        if let Err(error) = fs::remove_dir_all(&version) {
            tracing::warn!(path = %version.display(), %error, "pins of another version cannot be removed");
        }
    }
}

/// The program with this name.
pub(crate) fn get<'a>(programs: &'a Programs, name: &str) -> Result<BorrowedFd<'a>> {
    programs.get(name).map(AsFd::as_fd).ok_or_else(|| Error::Missing(format!("program {name}")))
}

/// Gives a pinned link of this or another version the new program, if it is attached where it should be.
fn adopt(
    pins: &Pins,
    name: &str,
    program: BorrowedFd<'_>,
    same: impl Fn(&sys::LinkInfo) -> bool,
) -> Result<bool> {
    let own = pins.links.join(name);
    let others = other_versions(pins).into_iter().map(|version| version.join("links").join(name));
    for path in std::iter::once(own.clone()).chain(others) {
        let link = match sys::obj_get(&path) {
            Ok(link) => link,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "a pin is no link, removing it");
                remove(&path)?;
                continue;
            }
        };
        let usable = sys::link_info(link.as_fd()).is_ok_and(|info| same(&info))
            && sys::link_update(link.as_fd(), program).is_ok();
        if usable && path == own {
            return Ok(true);
        }
        remove(&path)?;
        if usable {
            pin(pins, name, &link)?;
            return Ok(true);
        }
    }
    Ok(false)
}

fn pin(pins: &Pins, name: &str, link: &OwnedFd) -> Result<()> {
    sys::obj_pin(link.as_fd(), &pins.links.join(name)).map_err(|source| syscall("BPF_OBJ_PIN", name, source))
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(Error::PinFolder { path: path.to_path_buf(), source })
        }
        _ => Ok(()),
    }
}

fn other_versions(pins: &Pins) -> Vec<PathBuf> {
    let own = pins.links.parent();
    let Ok(entries) = fs::read_dir(&pins.root) else { return Vec::new() };
    entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| Some(path.as_path()) != own).collect()
}

fn syscall(call: &'static str, name: &str, source: io::Error) -> Error {
    Error::Syscall { call, object: format!("link {name}"), source }
}

fn cgroup_attach_type(name: &str) -> Result<u32> {
    Ok(match name {
        "connect4" => attach_type::INET4_CONNECT,
        "connect6" => attach_type::INET6_CONNECT,
        "sendmsg4" => attach_type::UDP4_SENDMSG,
        "sendmsg6" => attach_type::UDP6_SENDMSG,
        "recvmsg4" => attach_type::UDP4_RECVMSG,
        "recvmsg6" => attach_type::UDP6_RECVMSG,
        "getpeername4" => attach_type::INET4_GETPEERNAME,
        "getpeername6" => attach_type::INET6_GETPEERNAME,
        _ => return Err(Error::Missing(format!("attach type of {name}"))),
    })
}

/// A cgroup's id is the inode of its folder.
fn cgroup_id(path: &Path) -> Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let metadata =
        fs::metadata(path).map_err(|source| syscall("stat", &path.display().to_string(), source))?;
    Ok(metadata.ino())
}
