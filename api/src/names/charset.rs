//! Character classes and the one shape most names share: outer characters at both ends, inner ones between.
//!
//! In: bytes. Out: yes or no.

/// Whether `value` is not empty, starts and ends with `outer` and has only `inner` in between.
pub(super) fn bounded(value: &str, outer: fn(u8) -> bool, inner: fn(u8) -> bool) -> bool {
    let bytes = value.as_bytes();
    let (Some(&first), Some(&last)) = (bytes.first(), bytes.last()) else { return false };
    outer(first) && outer(last) && bytes.iter().all(|&byte| outer(byte) || inner(byte))
}

pub(super) const fn lower_or_digit(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

pub(super) const fn alphanumeric(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
}

pub(super) const fn dash(byte: u8) -> bool {
    byte == b'-'
}

pub(super) const fn dash_dot_underscore(byte: u8) -> bool {
    matches!(byte, b'-' | b'_' | b'.')
}
