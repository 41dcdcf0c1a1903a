//! Security contexts of pods and containers, and sharing with the host.
//!
//! In: the field of a pod spec, of a container's security context. Out: what is wrong with it, in `Errors`.

use std::collections::HashSet;

use serde_json::Value;
use xebec_api::names;

use super::field::{Errors, Field};
use super::rules;

pub(super) fn pod(spec: &Field<'_>, errors: &mut Errors) {
    let context = spec.child("securityContext");
    ids(&context, errors);
    let groups = context.child("supplementalGroups");
    for group in groups.items() {
        errors.invalid_all(&group, names::group_id(group.int().unwrap_or_default()));
    }
    let group = context.child("fsGroup");
    if let Some(id) = group.int() {
        errors.invalid_all(&group, names::group_id(id));
    }
    rules::optional_one_of(&context.child("fsGroupChangePolicy"), &["Always", "OnRootMismatch"], errors);
    rules::optional_one_of(&context.child("supplementalGroupsPolicy"), &["Merge", "Strict"], errors);
    rules::optional_one_of(&context.child("seLinuxChangePolicy"), &["MountOption", "Recursive"], errors);
    sysctls(&context.child("sysctls"), errors);
    profiles(&context, errors);
    let shared = spec.child("shareProcessNamespace");
    if shared.flag() && spec.child("hostPID").flag() {
        errors.invalid(&shared, "ShareProcessNamespace and HostPID cannot both be enabled");
    }
    if spec.child("hostUsers").value() == &Value::Bool(false) {
        for name in ["hostNetwork", "hostPID", "hostIPC"] {
            let field = spec.child(name);
            if field.flag() {
                errors.forbidden(&field, "when `hostUsers` is false");
            }
        }
    }
}

pub(super) fn container(context: &Field<'_>, errors: &mut Errors) {
    ids(context, errors);
    profiles(context, errors);
    rules::optional_one_of(&context.child("procMount"), &["Default", "Unmasked"], errors);
    let escalation = context.child("allowPrivilegeEscalation");
    if escalation.value() != &Value::Bool(false) {
        return;
    }
    if context.child("privileged").flag() {
        errors.invalid(context, "cannot set `allowPrivilegeEscalation` to false and `privileged` to true");
    }
    let capabilities = context.child("capabilities");
    if capabilities
        .child("add")
        .items()
        .any(|capability| matches!(capability.text(), "CAP_SYS_ADMIN" | "SYS_ADMIN"))
    {
        let detail = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
        errors.invalid(context, detail);
    }
}

fn ids(context: &Field<'_>, errors: &mut Errors) {
    let (user, group) = (context.child("runAsUser"), context.child("runAsGroup"));
    if let Some(id) = user.int() {
        errors.invalid_all(&user, names::user_id(id));
    }
    if let Some(id) = group.int() {
        errors.invalid_all(&group, names::group_id(id));
    }
}

fn profiles(context: &Field<'_>, errors: &mut Errors) {
    for (name, word) in [("seccompProfile", "seccomp"), ("appArmorProfile", "AppArmor")] {
        let profile = context.child(name);
        if !profile.is_set() {
            continue;
        }
        let kind = profile.child("type");
        if kind.text().is_empty() {
            errors.required(&kind, &format!("type is required when {name} is set"));
        } else {
            rules::optional_one_of(&kind, &["Localhost", "RuntimeDefault", "Unconfined"], errors);
        }
        let file = profile.child("localhostProfile");
        match (kind.text() == "Localhost", file.is_set()) {
            (true, false) => errors.required(&file, &format!("must be set when {word} type is Localhost")),
            (false, true) => errors.invalid(&file, format!("can only be set when {word} type is Localhost")),
            (true, true) if word == "seccomp" => super::container::local_path(&file, errors),
            _ => {}
        }
    }
}

fn sysctls(sysctls: &Field<'_>, errors: &mut Errors) {
    let mut seen: HashSet<String> = HashSet::new();
    for sysctl in sysctls.items() {
        let name = sysctl.child("name");
        let plain = name.text().replace('/', ".");
        if plain.is_empty() {
            errors.required(&name, "");
        } else if plain.len() > 253 || !is_sysctl(&plain) {
            let detail = "must have at most 253 characters and match regex \
                          ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9][-_a-z0-9]*[a-z0-9]?$";
            errors.invalid(&name, detail);
        } else if seen.contains(&plain) {
            errors.duplicate(&name);
        }
        seen.insert(plain);
    }
}

fn is_sysctl(name: &str) -> bool {
    let outer = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    name.split('.').all(|part| {
        part.starts_with(outer)
            && part.ends_with(outer)
            && part.chars().all(|c| outer(c) || matches!(c, '-' | '_'))
    })
}
