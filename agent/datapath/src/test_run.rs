//! Packet programs run on bytes instead of on traffic.
//!
//! In: a hook, an interface, a packet. Out: what the loaded program made of it. What the tables then hold is real.

use xebec_ebpf_common::names;

use crate::attach::get;
use crate::error::{Error, Result};
use crate::loader::Programs;
use crate::sys;

/// Places where packets are seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hook {
    /// A pod sends.
    PodIngress,
    /// The node's stack sends to a pod.
    PodEgress,
    /// Another machine sends.
    UplinkIngress,
    /// The node sends to other machines.
    UplinkEgress,
}

/// What becomes of the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The kernel's stack goes on with it.
    Pass,
    /// It is dropped.
    Drop,
    /// It leaves by or enters at an interface that the program chose.
    Redirect,
    /// A code no program of ours returns.
    Other(i32),
}

/// Result of [`crate::Datapath::test_run`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestRun {
    pub action: Action,
    /// The packet as the program left it.
    pub packet: Vec<u8>,
    /// Time of one run, averaged.
    pub nanoseconds: u32,
}

/// Offset and size of `struct __sk_buff`'s fields, of which the kernel takes only some from a test.
const SK_BUFF_IFINDEX: usize = 40;
const SK_BUFF_SIZE: usize = 192;

impl Hook {
    fn program(self) -> &'static str {
        match self {
            Self::PodIngress => names::POD_INGRESS,
            Self::PodEgress => names::POD_EGRESS,
            Self::UplinkIngress => names::UPLINK_INGRESS,
            Self::UplinkEgress => names::UPLINK_EGRESS,
        }
    }
}

impl From<i32> for Action {
    fn from(code: i32) -> Self {
        match code {
            -1 => Self::Pass,
            2 => Self::Drop,
            7 => Self::Redirect,
            other => Self::Other(other),
        }
    }
}

pub(crate) fn run(
    programs: &Programs,
    hook: Hook,
    interface: u32,
    packet: &[u8],
    repeat: u32,
) -> Result<TestRun> {
    let name = hook.program();
    let mut context = [0; SK_BUFF_SIZE];
    context[SK_BUFF_IFINDEX..SK_BUFF_IFINDEX + 4].copy_from_slice(&interface.to_ne_bytes());
    let output = sys::test_run(get(programs, name)?, packet, &context, repeat).map_err(|source| {
        Error::Syscall { call: "BPF_PROG_TEST_RUN", object: format!("program {name}"), source }
    })?;
    Ok(TestRun {
        action: output.return_value.cast_signed().into(),
        packet: output.data,
        nanoseconds: output.nanoseconds,
    })
}
