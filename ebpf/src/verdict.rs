//! What is to become of a packet.

use xebec_ebpf_common::Reason;

/// Decision about one packet. The kernel side turns it into a helper call and a return code.
///
/// Two plain words rather than an enum with payloads: where a payload is absent the compiler leaves a register unwritten,
/// which the verifier does not accept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Verdict {
    pub action: Action,
    /// Reason of a drop, interface of a redirect, else 0.
    pub argument: u32,
}

/// The kinds of [`Verdict`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Action {
    /// Let the kernel's stack go on with it.
    Pass = 0,
    /// Drop it; counted when the program returns.
    Drop = 1,
    /// Hand it to the pod behind this host end of a veth, past the node's stack.
    Peer = 2,
    /// Send it out of this interface; the kernel resolves the neighbour.
    Neighbour = 3,
    /// Send it out of this interface as it is.
    Out = 4,
    /// Receive it on this interface as it is.
    In = 5,
}

impl Verdict {
    /// Let the kernel's stack go on with it.
    pub const PASS: Self = Self { action: Action::Pass, argument: 0 };

    /// Drop it for a reason.
    #[inline(always)]
    pub const fn drop(reason: Reason) -> Self {
        Self { action: Action::Drop, argument: reason as u32 }
    }

    /// Redirect it.
    #[inline(always)]
    pub const fn redirect(action: Action, ifindex: u32) -> Self {
        Self { action, argument: ifindex }
    }
}
