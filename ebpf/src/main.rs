//! Entry points of the kernel programs; everything they decide is decided in the library.
//!
//! In: a socket address or a packet. Out: the hook's return code. On any other target than BPF this is an empty program, so
//! that the package can be checked and tested with the rest of the workspace.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![cfg_attr(
    target_arch = "bpf",
    expect(
        unsafe_code,
        unreachable_pub,
        reason = "the kernel's interface is pointers, and its symbols are exported"
    )
)]

#[cfg(target_arch = "bpf")]
mod kernel;

#[cfg(not(target_arch = "bpf"))]
fn main() {}

/// Never reached: the verifier refuses a program that could.
#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
