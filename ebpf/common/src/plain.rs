//! The promise that a type is nothing but its bytes.
//!
//! In: a type of this crate. Out: its bytes, or a value from bytes of the right length. No I/O.
#![expect(
    unsafe_code,
    reason = "views a padding-free repr(C) value as bytes and back; the trait is the proof obligation"
)]

/// A type without padding for which every bit pattern is a value.
///
/// # Safety
/// The type is `repr(C)` or `repr(transparent)`, `Copy`, has no padding byte, and no bit pattern is invalid.
pub unsafe trait Plain: Copy + 'static {
    /// The value with every byte zero.
    fn zeroed() -> Self {
        // SAFETY: every bit pattern is a value, the one of zeroes too.
        unsafe { core::mem::zeroed() }
    }

    /// The bytes of the value, as the kernel stores them.
    fn as_bytes(&self) -> &[u8] {
        // SAFETY: no padding, so all `size_of::<Self>()` bytes are initialised; the borrow outlives the slice.
        unsafe { core::slice::from_raw_parts(core::ptr::from_ref(self).cast(), size_of::<Self>()) }
    }

    /// The bytes of the value, writable.
    fn as_bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `as_bytes`; whatever is written is a value again.
        unsafe { core::slice::from_raw_parts_mut(core::ptr::from_mut(self).cast(), size_of::<Self>()) }
    }

    /// A value from exactly its bytes; `None` when the length differs.
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != size_of::<Self>() {
            return None;
        }
        // SAFETY: the length was checked, the read is unaligned, every bit pattern is a value.
        Some(unsafe { core::ptr::read_unaligned(bytes.as_ptr().cast()) })
    }
}

/// Declares types plain and proves their size: a padding byte would make the sum of the fields differ.
macro_rules! plain {
    ($($type:ty = $size:expr),+ $(,)?) => {$(
        const _: () = assert!(size_of::<$type>() == $size, concat!("size of ", stringify!($type)));
        // SAFETY: repr(C) of integers; the assertion above, whose size is the sum of the fields, excludes padding.
        unsafe impl $crate::Plain for $type {}
    )+};
}
pub(crate) use plain;

// SAFETY: integers have no padding and no invalid value.
unsafe impl Plain for u32 {}
// SAFETY: as above.
unsafe impl Plain for u64 {}
