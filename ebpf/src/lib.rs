//! The kernel side as plain Rust: what happens to a socket address or a packet, as a function of the tables.
//!
//! In: [`lookup::Lookup`] (the maps), [`packet::Packet`] (one packet) or [`socket::Socket`] (one socket). Out: a
//! [`verdict::Verdict`] and the bytes changed. The binary of this crate supplies the kernel's maps and packets; host tests
//! supply [`fake`]. Absent: `std`, allocation, panics that the compiler cannot remove, unsafe code.
#![cfg_attr(not(test), no_std)]

#[cfg(not(any(test, target_arch = "bpf")))]
extern crate std;

pub mod checksum;
pub mod deliver;
#[cfg(not(target_arch = "bpf"))]
pub mod fake;
pub mod flow;
pub mod lookup;
pub mod packet;
pub mod pod;
pub mod reject;
pub mod rewrite;
pub mod select;
pub mod socket;
pub mod uplink;
pub mod verdict;
