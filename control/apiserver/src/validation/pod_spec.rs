//! Pod specs, in pods and in templates.
//!
//! In: the field of a pod spec. Out: what is wrong with it, in `Errors`.

use std::collections::HashSet;

use serde_json::Value;
use xebec_api::names;

use super::field::{Errors, Field};
use super::{container, meta, resources, rules, scheduling, security, volume};

const MAX_SECONDS: i64 = i32::MAX as i64;

/// A template of pods: its metadata and its spec.
pub(super) fn template(template: &Field<'_>, errors: &mut Errors) {
    let metadata = template.child("metadata");
    // The paths are upstream's, which leave `metadata` out here.
    meta::labels(&template.child("labels").with(metadata.child("labels").value()), errors);
    meta::annotations(&template.child("annotations").with(metadata.child("annotations").value()), errors);
    let spec = template.child("spec");
    pod_spec(&spec, errors);
    let ephemeral = spec.child("ephemeralContainers");
    if !ephemeral.is_empty() {
        errors.forbidden(&ephemeral, "ephemeral containers not allowed in pod template");
    }
}

pub(super) fn pod_spec(spec: &Field<'_>, errors: &mut Errors) {
    let volumes = spec.child("volumes");
    volume::volumes(&volumes, errors);
    container::containers(spec, errors);
    rules::one_of(&spec.child("restartPolicy"), &["Always", "OnFailure", "Never"], errors);
    let policies = ["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"];
    rules::one_of(&spec.child("dnsPolicy"), &policies, errors);
    meta::labels(&spec.child("nodeSelector"), errors);
    security::pod(spec, errors);
    for secret in spec.child("imagePullSecrets").items() {
        let name = secret.child("name");
        if name.text().is_empty() {
            errors.required(&name, "");
        }
    }
    scheduling::affinity(&spec.child("affinity"), errors);
    dns_config(spec, errors);
    names_of(spec, errors);
    let deadline = spec.child("activeDeadlineSeconds");
    if let Some(seconds) = deadline.int() {
        errors.invalid_all(&deadline, names::in_range(seconds, 1, MAX_SECONDS));
    }
    scheduling::tolerations(&spec.child("tolerations"), errors);
    host_aliases(&spec.child("hostAliases"), errors);
    scheduling::spread(&spec.child("topologySpreadConstraints"), errors);
    let gates = spec.child("readinessGates");
    for gate in gates.items() {
        let kind = gate.child("conditionType");
        errors.invalid_all(&kind, names::qualified_name(kind.text()));
    }
    let preemption = spec.child("preemptionPolicy");
    rules::optional_one_of(&preemption, &["PreemptLowerPriority", "Never"], errors);
    resources::amounts(&spec.child("overhead"), errors);
    if spec.child("resources").is_set() {
        resources::pod_requirements(&spec.child("resources"), errors);
    }
    let os = spec.child("os");
    if os.is_set() {
        rules::one_of(&os.child("name"), &["linux", "windows"], errors);
    }
    resource_claims(&spec.child("resourceClaims"), errors);
}

/// Names of other objects, and the pod's own in the network.
fn names_of(spec: &Field<'_>, errors: &mut Errors) {
    for (name, rule) in [
        ("serviceAccountName", names::dns1123_subdomain as fn(&str) -> Vec<String>),
        ("nodeName", names::dns1123_subdomain),
        ("hostname", names::dns1123_label),
        ("subdomain", names::dns1123_label),
        ("priorityClassName", names::dns1123_subdomain),
        ("runtimeClassName", names::dns1123_subdomain),
    ] {
        rules::optional_name(&spec.child(name), rule, errors);
    }
    let hostname = spec.child("hostnameOverride");
    rules::optional_name(&hostname, names::dns1123_subdomain, errors);
    if hostname.text().len() > 64 {
        errors.too_long(&hostname, 64);
    }
    let scheduling = spec.child("schedulingGates");
    let mut seen = HashSet::new();
    for gate in scheduling.items() {
        let name = gate.child("name");
        errors.invalid_all(&name, names::qualified_name(name.text()));
        if rules::is_repeated(&mut seen, gate.value().get("name").and_then(Value::as_str).unwrap_or_default())
        {
            errors.duplicate(&name);
        }
    }
}

fn dns_config(spec: &Field<'_>, errors: &mut Errors) {
    let config = spec.child("dnsConfig");
    let servers = config.child("nameservers");
    if spec.child("dnsPolicy").text() == "None" {
        if !config.is_set() {
            errors.required(&config, "must provide `dnsConfig` when `dnsPolicy` is None");
        } else if servers.is_empty() {
            errors.required(&servers, "must provide at least one DNS nameserver when `dnsPolicy` is None");
        }
    }
    if servers.len() > 3 {
        errors.invalid(&servers, "must not have more than 3 nameservers");
    }
    for server in servers.items() {
        rules::ip(&server, errors);
    }
    let searches = config.child("searches");
    if searches.len() > 32 {
        errors.invalid(&searches, "must not have more than 32 search paths");
    }
    let total: usize = searches.items().map(|search| search.text().len() + 1).sum();
    if total > 2049 {
        errors.invalid(
            &searches,
            "must not have more than 2048 characters (including spaces) in the search list",
        );
    }
    for search in searches.items() {
        if search.text() != "." {
            let plain = search.text().trim_end_matches('.').replace('_', "-");
            errors.invalid_all(&search, names::dns1123_subdomain(plain.trim_start_matches('-')));
        }
    }
    for option in config.child("options").items() {
        let name = option.child("name");
        if name.text().is_empty() {
            errors.required(&name, "must not be empty");
        }
    }
}

fn host_aliases(aliases: &Field<'_>, errors: &mut Errors) {
    for alias in aliases.items() {
        rules::ip(&alias.child("ip"), errors);
        let hostnames = alias.child("hostnames");
        for hostname in hostnames.items() {
            errors.invalid_all(&hostnames.with(hostname.value()), names::dns1123_subdomain(hostname.text()));
        }
    }
}

fn resource_claims(claims: &Field<'_>, errors: &mut Errors) {
    let mut seen = HashSet::new();
    for claim in claims.items() {
        let name = claim.child("name");
        rules::required_name(&name, names::dns1123_label, errors);
        if rules::is_repeated(
            &mut seen,
            claim.value().get("name").and_then(Value::as_str).unwrap_or_default(),
        ) {
            errors.duplicate(&name);
        }
        let (direct, template) = (claim.child("resourceClaimName"), claim.child("resourceClaimTemplateName"));
        match (direct.is_set(), template.is_set()) {
            (true, true) => errors.invalid(
                &claim,
                "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified",
            ),
            (false, false) => errors
                .invalid(&claim, "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`"),
            _ => {}
        }
        rules::optional_name(&direct, names::dns1123_subdomain, errors);
        rules::optional_name(&template, names::dns1123_subdomain, errors);
    }
}
