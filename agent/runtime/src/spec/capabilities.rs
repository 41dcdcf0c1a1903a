//! Capabilities of a container.
//!
//! In: `add`, `drop`, privileged, and what this host has. Out: the set for bounding, effective and permitted. Pure.
//! Inheritable and ambient stay empty, as in CVE-2022-24769's fix.

use std::collections::HashSet;

use oci_spec::runtime::{Capability, LinuxCapabilities, LinuxCapabilitiesBuilder};

use crate::error::RuntimeError;
use crate::types::Security;

/// What a container has that asks for nothing.
const DEFAULT: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// All of the kernel's, in the order of their bits.
const BY_BIT: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// Names without `CAP_`. `ALL` comes first, in `add` and in `drop`; then single names. Unknown names are passed over,
/// as runc does.
pub(crate) fn names(security: &Security, host: u64) -> HashSet<&'static str> {
    let all = || (0..).zip(BY_BIT).filter(|(bit, _)| host & (1 << bit) != 0).map(|(_, name)| name);
    if security.privileged {
        return all().collect();
    }
    let has_all = |list: &[String]| list.iter().any(|name| name.eq_ignore_ascii_case("ALL"));
    let mut set: HashSet<&'static str> = DEFAULT.into();
    if has_all(&security.add_capabilities) {
        set.extend(all());
    }
    if has_all(&security.drop_capabilities) {
        set.clear();
    }
    set.extend(security.add_capabilities.iter().filter_map(|name| known(name)));
    for name in &security.drop_capabilities {
        if let Some(name) = known(name) {
            set.remove(name);
        }
    }
    set
}

pub(crate) fn build(security: &Security, host: u64) -> Result<LinuxCapabilities, RuntimeError> {
    let set: HashSet<Capability> =
        names(security, host).into_iter().filter_map(|name| name.parse().ok()).collect();
    let mut capabilities = LinuxCapabilitiesBuilder::default()
        .bounding(set.clone())
        .effective(set.clone())
        .permitted(set)
        .build()?;
    capabilities.set_inheritable(None);
    capabilities.set_ambient(None);
    Ok(capabilities)
}

fn known(name: &str) -> Option<&'static str> {
    let upper = name.to_ascii_uppercase();
    let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
    BY_BIT.into_iter().find(|known| *known == bare)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: u64 = (1 << 41) - 1;

    fn of(add: &[&str], drop: &[&str]) -> Vec<&'static str> {
        let list = |names: &[&str]| names.iter().map(ToString::to_string).collect();
        let security =
            Security { add_capabilities: list(add), drop_capabilities: list(drop), ..Default::default() };
        let mut names: Vec<_> = names(&security, HOST).into_iter().collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn every_name_is_known_to_the_specification() {
        for name in BY_BIT {
            assert!(name.parse::<Capability>().is_ok(), "{name}");
        }
        assert_eq!(BY_BIT[24], "SYS_RESOURCE");
        assert_eq!(BY_BIT[39], "BPF");
    }

    #[test]
    fn add_and_drop_change_the_default_set() {
        assert_eq!(of(&[], &[]).len(), 14);
        assert_eq!(of(&["NET_ADMIN"], &[]).len(), 15);
        assert!(!of(&[], &["NET_RAW"]).contains(&"NET_RAW"));
        assert_eq!(of(&["net_bind_service"], &["all"]), ["NET_BIND_SERVICE"]);
        assert_eq!(of(&["CAP_KILL"], &["ALL"]), ["KILL"]);
        assert_eq!(of(&["ALL"], &[]).len(), 41);
        assert_eq!(of(&["ALL"], &["SYS_ADMIN"]).len(), 40);
        assert_eq!(of(&["MAKE_COFFEE"], &[]).len(), 14);
    }

    #[test]
    fn all_is_what_the_host_has() {
        let security = Security { privileged: true, ..Default::default() };
        let names = names(&security, HOST & !(1 << 24));
        assert_eq!(names.len(), 40);
        assert!(!names.contains("SYS_RESOURCE"));
    }
}
