//! bpf(2) and the clock of its programs, for what aya does not offer: batches, link creation and update by interface index, typed maps by pin.
//!
//! In: descriptors and byte slices. Out: byte slices and `io::Result`. The only file that makes this system call.
#![expect(unsafe_code, reason = "the system call takes a union of pointers")]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Commands, from `enum bpf_cmd`.
mod cmd {
    pub(super) const MAP_LOOKUP_ELEM: i32 = 1;
    pub(super) const MAP_UPDATE_ELEM: i32 = 2;
    pub(super) const MAP_DELETE_ELEM: i32 = 3;
    pub(super) const OBJ_PIN: i32 = 6;
    pub(super) const OBJ_GET: i32 = 7;
    pub(super) const PROG_TEST_RUN: i32 = 10;
    pub(super) const OBJ_GET_INFO_BY_FD: i32 = 15;
    pub(super) const MAP_LOOKUP_BATCH: i32 = 24;
    pub(super) const MAP_UPDATE_BATCH: i32 = 26;
    pub(super) const MAP_DELETE_BATCH: i32 = 27;
    pub(super) const LINK_CREATE: i32 = 28;
    pub(super) const LINK_UPDATE: i32 = 29;
}

#[derive(Default)]
#[repr(C)]
struct Elem {
    map_fd: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[derive(Default)]
#[repr(C)]
struct Object {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

#[derive(Default)]
#[repr(C)]
struct Info {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}

#[derive(Default)]
#[repr(C)]
struct Batch {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

#[derive(Default)]
#[repr(C)]
struct LinkCreate {
    prog_fd: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
    relative: u32,
    pad: u32,
    expected_revision: u64,
}

#[derive(Default)]
#[repr(C)]
struct LinkUpdate {
    link_fd: u32,
    new_prog_fd: u32,
    flags: u32,
    old_prog_fd: u32,
}

#[derive(Default)]
#[repr(C)]
struct TestRun {
    prog_fd: u32,
    retval: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    ctx_size_in: u32,
    ctx_size_out: u32,
    ctx_in: u64,
    ctx_out: u64,
    flags: u32,
    cpu: u32,
    batch_size: u32,
    pad: u32,
}

/// What the kernel tells about a map.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct MapInfo {
    pub(crate) kind: u32,
    pub(crate) id: u32,
    pub(crate) key_size: u32,
    pub(crate) value_size: u32,
    pub(crate) max_entries: u32,
    pub(crate) flags: u32,
}

/// What the kernel tells about a link. The last two words mean, by kind: interface and attach type (tcx), or the cgroup's
/// id (cgroup).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct LinkInfo {
    pub(crate) kind: u32,
    pub(crate) id: u32,
    pub(crate) prog_id: u32,
    pad: u32,
    pub(crate) target: u32,
    pub(crate) target_high: u32,
}

/// Result of running a program on bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TestRunOutput {
    pub(crate) return_value: u32,
    pub(crate) data: Vec<u8>,
    pub(crate) nanoseconds: u32,
}

/// How far a batched lookup came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fetched {
    pub(crate) count: u32,
    pub(crate) last: bool,
}

fn bpf<T>(command: i32, attr: &mut T) -> io::Result<i32> {
    let size = size_of::<T>();
    // SAFETY: `attr` is a repr(C) prefix of `union bpf_attr` of the stated size; pointers in it are valid for the call by
    // the functions below, which take them from slices they borrow.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}

fn fd_of(result: i32) -> OwnedFd {
    // SAFETY: the commands that call this return a new descriptor that nobody else owns.
    unsafe { OwnedFd::from_raw_fd(result) }
}

fn number(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd() as u32
}

fn address(bytes: &[u8]) -> u64 {
    bytes.as_ptr() as u64
}

fn address_mut(bytes: &mut [u8]) -> u64 {
    bytes.as_mut_ptr() as u64
}

fn path_of(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))
}

/// Opens a pinned object.
pub(crate) fn obj_get(path: &Path) -> io::Result<OwnedFd> {
    let path = path_of(path)?;
    let mut attr = Object { pathname: path.as_ptr() as u64, ..Object::default() };
    bpf(cmd::OBJ_GET, &mut attr).map(fd_of)
}

/// Pins an object; the path must not exist.
pub(crate) fn obj_pin(fd: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = path_of(path)?;
    let mut attr = Object { pathname: path.as_ptr() as u64, bpf_fd: number(fd), file_flags: 0 };
    bpf(cmd::OBJ_PIN, &mut attr).map(drop)
}

fn info<T>(fd: BorrowedFd<'_>, out: &mut T) -> io::Result<()> {
    let mut attr =
        Info { bpf_fd: number(fd), info_len: size_of::<T>() as u32, info: std::ptr::from_mut(out) as u64 };
    bpf(cmd::OBJ_GET_INFO_BY_FD, &mut attr).map(drop)
}

pub(crate) fn map_info(fd: BorrowedFd<'_>) -> io::Result<MapInfo> {
    let mut out = MapInfo::default();
    info(fd, &mut out).map(|()| out)
}

pub(crate) fn link_info(fd: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    let mut out = LinkInfo::default();
    info(fd, &mut out).map(|()| out)
}

/// Attaches a program to a cgroup (descriptor) or an interface (index).
pub(crate) fn link_create(prog: BorrowedFd<'_>, target: u32, attach_type: u32) -> io::Result<OwnedFd> {
    let mut attr = LinkCreate { prog_fd: number(prog), target, attach_type, ..LinkCreate::default() };
    bpf(cmd::LINK_CREATE, &mut attr).map(fd_of)
}

/// Replaces the program of a link; no packet or call goes without one.
pub(crate) fn link_update(link: BorrowedFd<'_>, prog: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = LinkUpdate { link_fd: number(link), new_prog_fd: number(prog), ..LinkUpdate::default() };
    bpf(cmd::LINK_UPDATE, &mut attr).map(drop)
}

/// Reads one entry; `Ok(false)`: there is none.
pub(crate) fn lookup(map: BorrowedFd<'_>, key: &[u8], value: &mut [u8]) -> io::Result<bool> {
    let mut attr =
        Elem { map_fd: number(map), key: address(key), value: address_mut(value), ..Elem::default() };
    match bpf(cmd::MAP_LOOKUP_ELEM, &mut attr) {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Writes one entry.
pub(crate) fn update(map: BorrowedFd<'_>, key: &[u8], value: &[u8]) -> io::Result<()> {
    let mut attr = Elem { map_fd: number(map), key: address(key), value: address(value), ..Elem::default() };
    bpf(cmd::MAP_UPDATE_ELEM, &mut attr).map(drop)
}

/// Deletes one entry; `Ok(false)`: there was none.
pub(crate) fn delete(map: BorrowedFd<'_>, key: &[u8]) -> io::Result<bool> {
    let mut attr = Elem { map_fd: number(map), key: address(key), ..Elem::default() };
    match bpf(cmd::MAP_DELETE_ELEM, &mut attr) {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Writes `count` entries; says how many were written before an error.
pub(crate) fn update_batch(
    map: BorrowedFd<'_>,
    keys: &[u8],
    values: &[u8],
    count: u32,
) -> Result<(), (u32, io::Error)> {
    let mut attr = Batch {
        keys: address(keys),
        values: address(values),
        count,
        map_fd: number(map),
        ..Batch::default()
    };
    bpf(cmd::MAP_UPDATE_BATCH, &mut attr).map(drop).map_err(|error| (attr.count, error))
}

/// Deletes `count` entries; says how many were deleted before an error.
pub(crate) fn delete_batch(map: BorrowedFd<'_>, keys: &[u8], count: u32) -> Result<(), (u32, io::Error)> {
    let mut attr = Batch { keys: address(keys), count, map_fd: number(map), ..Batch::default() };
    bpf(cmd::MAP_DELETE_BATCH, &mut attr).map(drop).map_err(|error| (attr.count, error))
}

/// Reads up to `count` entries from where `cursor` stands; `None` begins. The cursor is the kernel's.
pub(crate) fn lookup_batch(
    map: BorrowedFd<'_>,
    cursor: &mut Option<u64>,
    keys: &mut [u8],
    values: &mut [u8],
    count: u32,
) -> io::Result<Fetched> {
    // Hash maps keep a bucket number here, arrays an index: four bytes, with room to spare.
    let mut next = 0_u64;
    let mut attr = Batch {
        in_batch: cursor.as_ref().map_or(0, |cursor| std::ptr::from_ref(cursor) as u64),
        out_batch: std::ptr::from_mut(&mut next) as u64,
        keys: address_mut(keys),
        values: address_mut(values),
        count,
        map_fd: number(map),
        ..Batch::default()
    };
    let result = bpf(cmd::MAP_LOOKUP_BATCH, &mut attr);
    let last = match result {
        Ok(_) => false,
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
        Err(error) => return Err(error),
    };
    *cursor = Some(next);
    Ok(Fetched { count: attr.count, last })
}

/// Runs a packet program on bytes, as the kernel would on a packet of an interface of this namespace. `context` is a
/// `struct __sk_buff`, from which the kernel takes, among others, the interface.
pub(crate) fn test_run(
    prog: BorrowedFd<'_>,
    packet: &[u8],
    context: &[u8],
    repeat: u32,
) -> io::Result<TestRunOutput> {
    let mut data = vec![0; packet.len() + 256];
    let mut context_out = context.to_vec();
    let mut attr = TestRun {
        prog_fd: number(prog),
        data_size_in: packet.len() as u32,
        data_size_out: data.len() as u32,
        data_in: address(packet),
        data_out: address_mut(&mut data),
        repeat,
        ctx_size_in: context.len() as u32,
        ctx_size_out: context_out.len() as u32,
        ctx_in: address(context),
        ctx_out: address_mut(&mut context_out),
        ..TestRun::default()
    };
    bpf(cmd::PROG_TEST_RUN, &mut attr)?;
    data.truncate(attr.data_size_out as usize);
    Ok(TestRunOutput { return_value: attr.retval, data, nanoseconds: attr.duration })
}

/// The cookie of the calling thread's network namespace.
pub(crate) fn netns_cookie() -> io::Result<u64> {
    const SO_NETNS_COOKIE: i32 = 71;
    // SAFETY: plain numbers; the descriptor is owned from here on.
    let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if socket < 0 {
        return Err(io::Error::last_os_error());
    }
    let socket = fd_of(socket);
    let mut cookie = 0_u64;
    let mut len = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the option is a u64, and `len` says so.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            std::ptr::from_mut(&mut cookie).cast(),
            &raw mut len,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(cookie) }
}

/// `CLOCK_MONOTONIC_COARSE` in nanoseconds: what `bpf_ktime_get_coarse_ns` reads.
pub(crate) fn monotonic_coarse() -> io::Result<u64> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a timespec on the stack.
    if unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_COARSE, &raw mut time) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}
