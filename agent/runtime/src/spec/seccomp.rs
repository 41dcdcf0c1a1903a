//! The seccomp filter of a container.
//!
//! In: the profile wanted, the capabilities granted, this machine's architecture. Out: the filter; `None` = unconfined. Pure.

mod default_profile;
pub(crate) mod local_profile;

use std::collections::HashSet;

use oci_spec::OciSpecError;
use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompArgBuilder, LinuxSeccompBuilder,
    LinuxSeccompOperator, LinuxSyscall, LinuxSyscallBuilder,
};

use self::default_profile::{
    ALLOWED, BY_ARCHITECTURE, BY_CAPABILITY, CLONE_NAMESPACE_FLAGS, PERSONALITIES, SOCKET_FAMILIES,
};
use super::{Facts, capabilities};
use crate::error::RuntimeError;
use crate::types::{ContainerConfig, Seccomp};

const EPERM: u32 = 1;
const ENOSYS: u32 = 38;
/// Only the low half of these arguments counts for the kernel.
const LOW_HALF: u64 = 0xffff_ffff;

pub(super) fn of(config: &ContainerConfig, facts: &Facts) -> Result<Option<LinuxSeccomp>, RuntimeError> {
    if config.security.privileged {
        return Ok(None);
    }
    match &config.security.seccomp {
        Seccomp::Unconfined => Ok(None),
        Seccomp::RuntimeDefault => {
            let granted = capabilities::names(&config.security, facts.host.capabilities);
            Ok(Some(runtime_default(&granted, std::env::consts::ARCH)?))
        }
        Seccomp::Localhost(path) => match &facts.seccomp_profile {
            Some(profile) => Ok(Some(profile.clone())),
            None => Err(RuntimeError::Config(format!("seccomp profile {} was not read", path.display()))),
        },
    }
}

fn runtime_default(granted: &HashSet<&str>, architecture: &str) -> Result<LinuxSeccomp, OciSpecError> {
    let mut rules = vec![allow(ALLOWED, &[])?];
    for family in SOCKET_FAMILIES {
        rules.push(allow(&["socket"], &[masked(LOW_HALF & family.mask, family.value)?])?);
    }
    for personality in PERSONALITIES {
        rules.push(allow(&["personality"], &[masked(LOW_HALF, *personality)?])?);
    }
    for (_, names) in BY_ARCHITECTURE.iter().filter(|(name, _)| *name == architecture) {
        rules.push(allow(names, &[])?);
    }
    for (_, names) in BY_CAPABILITY.iter().filter(|(name, _)| granted.contains(name)) {
        rules.push(allow(names, &[])?);
    }
    if !granted.contains("SYS_ADMIN") {
        rules.push(allow(&["clone"], &[masked(CLONE_NAMESPACE_FLAGS, 0)?])?);
        // Its flags are in memory, where a filter cannot look: callers fall back to clone.
        let clone3 = LinuxSyscallBuilder::default()
            .names(vec!["clone3".to_owned()])
            .action(LinuxSeccompAction::ScmpActErrno)
            .errno_ret(ENOSYS);
        rules.push(clone3.build()?);
    }
    LinuxSeccompBuilder::default()
        .default_action(LinuxSeccompAction::ScmpActErrno)
        .default_errno_ret(EPERM)
        .architectures(architectures(architecture))
        .syscalls(rules)
        .build()
}

fn architectures(native: &str) -> Vec<Arch> {
    match native {
        "x86_64" => vec![Arch::ScmpArchX86_64, Arch::ScmpArchX86, Arch::ScmpArchX32],
        "aarch64" => vec![Arch::ScmpArchAarch64, Arch::ScmpArchArm],
        _ => vec![Arch::ScmpArchNative],
    }
}

fn allow(names: &[&str], arguments: &[LinuxSeccompArg]) -> Result<LinuxSyscall, OciSpecError> {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let rule = LinuxSyscallBuilder::default().names(names).action(LinuxSeccompAction::ScmpActAllow);
    if arguments.is_empty() { rule.build() } else { rule.args(arguments).build() }
}

/// The first argument, masked, has a value.
fn masked(mask: u64, value: u64) -> Result<LinuxSeccompArg, OciSpecError> {
    LinuxSeccompArgBuilder::default()
        .index(0usize)
        .value(mask)
        .value_two(value)
        .op(LinuxSeccompOperator::ScmpCmpMaskedEq)
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(profile: &LinuxSeccomp, name: &str, argument: u64) -> bool {
        profile.syscalls().iter().flatten().any(|rule| {
            rule.action() == LinuxSeccompAction::ScmpActAllow
                && rule.names().iter().any(|known| known == name)
                && rule.args().iter().flatten().all(|arg| argument & arg.value() == arg.value_two().unwrap())
        })
    }

    #[test]
    fn dangerous_calls_are_refused_without_capabilities() {
        let profile = runtime_default(&HashSet::new(), "x86_64").unwrap();
        for name in [
            "mount",
            "umount2",
            "bpf",
            "unshare",
            "setns",
            "reboot",
            "kexec_load",
            "init_module",
            "keyctl",
            "add_key",
            "request_key",
            "perf_event_open",
            "userfaultfd",
            "swapon",
            "open_by_handle_at",
            "acct",
            "settimeofday",
            "iopl",
            "clone3",
            "io_uring_setup",
            "nfsservctl",
            "pivot_root",
            "chroot",
            "quotactl",
            "socketcall",
            "move_pages",
            "vhangup",
            "syslog",
        ] {
            assert!(!allowed(&profile, name, 0), "{name}");
        }
        for name in ["read", "execve", "futex", "arch_prctl", "clone", "getrandom", "ptrace"] {
            assert!(allowed(&profile, name, 0), "{name}");
        }
        assert_eq!(profile.default_errno_ret(), Some(EPERM));
    }

    #[test]
    fn namespaces_cannot_be_made_by_clone() {
        let profile = runtime_default(&HashSet::new(), "x86_64").unwrap();
        assert!(allowed(&profile, "clone", 0x0100_0011));
        for flag in [0x2_0000, 0x0200_0000, 0x0400_0000, 0x0800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000] {
            assert!(!allowed(&profile, "clone", flag), "{flag:x}");
        }
        let admin = runtime_default(&HashSet::from(["SYS_ADMIN"]), "x86_64").unwrap();
        assert!(allowed(&admin, "clone", 0x1000_0000));
        assert!(allowed(&admin, "mount", 0));
    }

    #[test]
    fn sockets_of_the_crypto_and_vsock_families_are_refused() {
        let profile = runtime_default(&HashSet::new(), "x86_64").unwrap();
        for family in 0..46 {
            assert_eq!(allowed(&profile, "socket", family), family != 38 && family != 40, "{family}");
        }
        // The kernel looks at the low half only, so the high half must not hide a family.
        assert!(!allowed(&profile, "socket", 38 | 1 << 32));
        assert!(!allowed(&profile, "socket", 40 | 1 << 40));
    }
}
