//! What can go wrong between the agent and the kernel.

use std::io;
use std::path::PathBuf;

/// Error of this crate. Each says what was attempted on which object.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The agent was built without its eBPF object.
    #[error(
        "this build carries no eBPF object: build it with `cargo xtask ebpf` (it writes xebec-ebpf.o into the build \
         inputs), then build the agent again"
    )]
    NoObject,
    /// The pin folder cannot be used.
    #[error("pin folder {path}: {source}; it must be on a bpffs that root can write to (mount -t bpf bpf {path})", path = path.display())]
    PinFolder {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The object could not be loaded.
    #[error("loading the eBPF object failed: {0}")]
    Load(#[from] aya::EbpfError),
    /// A program was refused; its source tells the verifier's last words.
    #[error("the kernel refused the eBPF program {program}: {source}")]
    Program {
        program: String,
        #[source]
        source: aya::programs::ProgramError,
    },
    /// The object lacks a program or map it must have.
    #[error("the eBPF object has no {0}: it was built from another version of the source")]
    Missing(String),
    /// A system call on a BPF object failed.
    #[error("{call} on {object}: {source}")]
    Syscall {
        call: &'static str,
        object: String,
        #[source]
        source: io::Error,
    },
    /// A map has no room for another entry.
    #[error("BPF map {map} is full: it holds at most {capacity} entries")]
    MapFull { map: &'static str, capacity: u32 },
    /// An index lies beyond its array.
    #[error("index {index} is beyond BPF map {map}, which holds {capacity} entries")]
    OutOfRange { map: &'static str, index: u32, capacity: u32 },
    /// An interface does not exist in the node's network namespace.
    #[error("network interface {name}: {source}")]
    Interface {
        name: String,
        #[source]
        source: io::Error,
    },
    /// A setting makes no sense.
    #[error("datapath configuration: {0}")]
    Config(String),
}

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;
