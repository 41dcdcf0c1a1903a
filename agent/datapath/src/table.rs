//! Typed views of BPF maps.
//!
//! In: keys and values of the ABI. Out: the same. One batch is one system call and at most [`BATCH`] entries.

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use xebec_ebpf_common::Plain;

use crate::error::{Error, Result};
use crate::sys;

/// Entries of one batch: large enough to hide the system call, small enough for a few hundred kilobytes.
pub(crate) const BATCH: usize = 4096;

/// A map by its pin: a hash map, or an array when the key is `u32`.
#[derive(Debug)]
pub(crate) struct Table<K, V> {
    name: &'static str,
    fd: OwnedFd,
    capacity: u32,
    types: PhantomData<fn(K) -> V>,
}

impl<K: Plain, V: Plain> Table<K, V> {
    /// Opens the map `name` pinned in `folder`.
    pub(crate) fn open(folder: &Path, name: &'static str) -> Result<Self> {
        let failed = |call| move |source| Error::Syscall { call, object: format!("map {name}"), source };
        let fd = sys::obj_get(&folder.join(name)).map_err(failed("BPF_OBJ_GET"))?;
        let info = sys::map_info(fd.as_fd()).map_err(failed("BPF_OBJ_GET_INFO_BY_FD"))?;
        Ok(Self { name, fd, capacity: info.max_entries, types: PhantomData })
    }

    /// Entries the map can hold.
    pub(crate) fn capacity(&self) -> u32 {
        self.capacity
    }

    /// The entry under `key`.
    pub(crate) fn get(&self, key: &K) -> Result<Option<V>> {
        let mut value = V::zeroed();
        let found = sys::lookup(self.fd.as_fd(), key.as_bytes(), value.as_bytes_mut());
        Ok(found.map_err(|source| self.error("BPF_MAP_LOOKUP_ELEM", source))?.then_some(value))
    }

    /// Writes one entry.
    pub(crate) fn put(&self, key: &K, value: &V) -> Result<()> {
        sys::update(self.fd.as_fd(), key.as_bytes(), value.as_bytes())
            .map_err(|source| self.error("BPF_MAP_UPDATE_ELEM", source))
    }

    /// Deletes one entry; says whether there was one.
    pub(crate) fn remove(&self, key: &K) -> Result<bool> {
        sys::delete(self.fd.as_fd(), key.as_bytes())
            .map_err(|source| self.error("BPF_MAP_DELETE_ELEM", source))
    }

    /// Writes entries in order.
    pub(crate) fn put_all(&self, entries: &[(K, V)]) -> Result<()> {
        for chunk in entries.chunks(BATCH) {
            let keys: Vec<u8> = chunk.iter().flat_map(|(key, _)| key.as_bytes().iter().copied()).collect();
            let values: Vec<u8> =
                chunk.iter().flat_map(|(_, value)| value.as_bytes().iter().copied()).collect();
            sys::update_batch(self.fd.as_fd(), &keys, &values, chunk.len() as u32)
                .map_err(|(_, source)| self.error("BPF_MAP_UPDATE_BATCH", source))?;
        }
        Ok(())
    }

    /// Deletes entries; those that are not there are skipped.
    pub(crate) fn remove_all(&self, keys: &[K]) -> Result<()> {
        let mut rest = keys;
        while !rest.is_empty() {
            let chunk = &rest[..rest.len().min(BATCH)];
            let bytes: Vec<u8> = chunk.iter().flat_map(|key| key.as_bytes().iter().copied()).collect();
            let done = match sys::delete_batch(self.fd.as_fd(), &bytes, chunk.len() as u32) {
                Ok(()) => chunk.len(),
                // The batch stops at a key that is not there.
                Err((done, error)) if error.raw_os_error() == Some(libc::ENOENT) => done as usize + 1,
                Err((_, source)) => return Err(self.error("BPF_MAP_DELETE_BATCH", source)),
            };
            rest = &rest[done.min(rest.len())..];
        }
        Ok(())
    }

    /// Reads the next batch from where `cursor` stands. `None` once the end was passed.
    pub(crate) fn next_batch(&self, cursor: &mut Cursor) -> Result<Option<Vec<(K, V)>>> {
        if cursor.done {
            return Ok(None);
        }
        let (key, value) = (size_of::<K>(), size_of::<V>());
        let mut size = cursor.size.max(BATCH);
        loop {
            let mut keys = vec![0_u8; key * size];
            let mut values = vec![0_u8; value * size];
            match sys::lookup_batch(self.fd.as_fd(), &mut cursor.at, &mut keys, &mut values, size as u32) {
                Ok(fetched) => {
                    cursor.done = fetched.last;
                    cursor.size = size;
                    let count = fetched.count as usize;
                    let pairs = keys.chunks_exact(key).zip(values.chunks_exact(value)).take(count);
                    return Ok(Some(
                        pairs.filter_map(|(k, v)| Some((K::from_bytes(k)?, V::from_bytes(v)?))).collect(),
                    ));
                }
                // One bucket holds more than the whole batch; bounded by the map's capacity.
                Err(error) if error.raw_os_error() == Some(libc::ENOSPC) && size < self.capacity as usize => {
                    size *= 2;
                }
                Err(source) => return Err(self.error("BPF_MAP_LOOKUP_BATCH", source)),
            }
        }
    }

    /// All entries.
    pub(crate) fn all(&self) -> Result<Vec<(K, V)>> {
        let mut cursor = Cursor::default();
        let mut entries = Vec::new();
        while let Some(batch) = self.next_batch(&mut cursor)? {
            entries.extend(batch);
        }
        Ok(entries)
    }

    fn error(&self, call: &'static str, source: io::Error) -> Error {
        match source.raw_os_error() {
            Some(libc::E2BIG | libc::ENOSPC) => Error::MapFull { map: self.name, capacity: self.capacity },
            _ => Error::Syscall { call, object: format!("map {}", self.name), source },
        }
    }
}

impl<V: Plain> Table<u32, V> {
    /// Refuses an index that the array does not have.
    pub(crate) fn check(&self, index: u32) -> Result<()> {
        if index < self.capacity {
            return Ok(());
        }
        Err(Error::OutOfRange { map: self.name, index, capacity: self.capacity })
    }
}

/// Where a walk over a map stands.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cursor {
    at: Option<u64>,
    size: usize,
    done: bool,
}
