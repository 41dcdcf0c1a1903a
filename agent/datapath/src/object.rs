//! The eBPF object this build carries.

/// Gives embedded bytes the alignment that ELF parsing wants.
#[repr(C, align(64))]
struct Aligned<T: ?Sized>(T);

static OBJECT: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/xebec-ebpf.o")));

/// The object's bytes; empty where the agent was built without it.
pub(crate) fn bytes() -> &'static [u8] {
    &OBJECT.0
}
