//! Containers: ordinary ones and those that run first.
//!
//! In: the field of a pod spec. Out: what is wrong with its containers, in `Errors`.

use std::collections::HashSet;

use serde_json::Value;
use xebec_api::names;

use super::field::{Errors, Field};
use super::{env, handler, resources, rules, security};

const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];

pub(super) fn containers(spec: &Field<'_>, errors: &mut Errors) {
    let (ordinary, init) = (spec.child("containers"), spec.child("initContainers"));
    let volumes = spec.child("volumes");
    if ordinary.is_empty() {
        errors.required(&ordinary, "");
    }
    let mut seen = HashSet::new();
    for container in ordinary.items() {
        common(&container, &volumes, errors);
        lifecycle(&container, errors);
        name_is_new(&container, &mut seen, errors);
    }
    for container in init.items() {
        common(&container, &volumes, errors);
        name_is_new(&container, &mut seen, errors);
        if container.child("restartPolicy").text() == "Always" {
            lifecycle(&container, errors);
        } else {
            not_for_init(&container, errors);
        }
    }
    for list in [&ordinary, &init] {
        host_ports(list, spec.child("hostNetwork").flag(), errors);
    }
}

/// What the three kinds of containers have in common.
pub(super) fn common(container: &Field<'_>, volumes: &Field<'_>, errors: &mut Errors) {
    rules::required_name(&container.child("name"), names::dns1123_label, errors);
    let image = container.child("image");
    if image.text().is_empty() {
        errors.required(&image, "");
    } else if image.text().trim() != image.text() {
        errors.invalid(&image, "must not have leading or trailing whitespace");
    }
    let policies = ["FallbackToLogsOnError", "File"];
    rules::optional_one_of(&container.child("terminationMessagePolicy"), &policies, errors);
    rules::optional_one_of(&container.child("imagePullPolicy"), &["Always", "IfNotPresent", "Never"], errors);
    rules::optional_one_of(&container.child("restartPolicy"), &["Always", "Never", "OnFailure"], errors);
    ports(&container.child("ports"), errors);
    env::variables(&container.child("env"), errors);
    env::sources(&container.child("envFrom"), errors);
    mounts(container, volumes, errors);
    resources::requirements(&container.child("resources"), errors);
    security::container(&container.child("securityContext"), errors);
}

fn name_is_new(container: &Field<'_>, seen: &mut HashSet<String>, errors: &mut Errors) {
    let name = container.child("name");
    if !seen.insert(name.text().to_owned()) {
        errors.duplicate(&name);
    }
}

fn lifecycle(container: &Field<'_>, errors: &mut Errors) {
    handler::hooks(&container.child("lifecycle"), errors);
    handler::probe(&container.child("livenessProbe"), handler::Purpose::Liveness, errors);
    handler::probe(&container.child("readinessProbe"), handler::Purpose::Readiness, errors);
    handler::probe(&container.child("startupProbe"), handler::Purpose::Startup, errors);
}

/// A container that runs to its end before the others start has nothing to probe.
fn not_for_init(container: &Field<'_>, errors: &mut Errors) {
    for name in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
        let field = container.child(name);
        if field.is_set() {
            errors.forbidden(&field, "may not be set for init containers without restartPolicy=Always");
        }
    }
}

fn ports(ports: &Field<'_>, errors: &mut Errors) {
    let mut seen = HashSet::new();
    for port in ports.items() {
        let name = port.child("name");
        if !name.text().is_empty() {
            let problems = names::port_name(name.text());
            if problems.is_empty() && rules::is_repeated(&mut seen, text_of(&port, "name")) {
                errors.duplicate(&name);
            }
            errors.invalid_all(&name, problems);
        }
        let number = port.child("containerPort");
        match number.int() {
            None | Some(0) => errors.required(&number, ""),
            Some(value) => errors.invalid_all(&number, names::port_number(value)),
        }
        let host = port.child("hostPort");
        if let Some(value) = host.int().filter(|&value| value != 0) {
            errors.invalid_all(&host, names::port_number(value));
        }
        rules::one_of(&port.child("protocol"), PROTOCOLS, errors);
        let address = port.child("hostIP");
        if !address.text().is_empty() {
            rules::ip(&address, errors);
        }
    }
}

/// Ports on the host are there once, and with the host's network they are the container's.
fn host_ports(containers: &Field<'_>, host_network: bool, errors: &mut Errors) {
    let mut taken = HashSet::new();
    for container in containers.items() {
        let ports = container.child("ports");
        for port in ports.items() {
            let host = port.child("hostPort");
            let (number, inside) = (host.int().unwrap_or_default(), port.child("containerPort"));
            if host_network && inside.int().unwrap_or_default() != number {
                errors.invalid(&inside, "must match `hostPort` when `hostNetwork` is true");
            }
            if number == 0 {
                continue;
            }
            let (protocol, address) = (port.child("protocol"), port.child("hostIP"));
            let key = format!("{}/{}/{number}", protocol.text(), address.text());
            if !taken.insert(key.clone()) {
                errors.duplicate(&host.with(&Value::from(key)));
            }
        }
    }
}

/// What the volumes are called; asked once for each mount.
fn names_of<'a>(volumes: &Field<'a>) -> HashSet<&'a str> {
    let all = volumes.value().as_array().map_or(&[][..], Vec::as_slice);
    all.iter().filter_map(|volume| volume.get("name")?.as_str()).collect()
}

fn mounts(container: &Field<'_>, volumes: &Field<'_>, errors: &mut Errors) {
    let mounts = container.child("volumeMounts");
    let known = names_of(volumes);
    let mut paths = HashSet::new();
    for mount in mounts.items() {
        let (name, path) = (mount.child("name"), mount.child("mountPath"));
        if name.text().is_empty() {
            errors.required(&name, "");
        } else if !known.contains(name.text()) {
            errors.not_found(&name);
        }
        if path.text().is_empty() {
            errors.required(&path, "");
        }
        if rules::is_repeated(&mut paths, text_of(&mount, "mountPath")) {
            errors.invalid(&path, "must be unique");
        }
        let (sub, expression) = (mount.child("subPath"), mount.child("subPathExpr"));
        for field in [&sub, &expression] {
            if !field.text().is_empty() {
                local_path(field, errors);
            }
        }
        if !sub.text().is_empty() && !expression.text().is_empty() {
            errors.invalid(&expression, "subPathExpr and subPath are mutually exclusive");
        }
        propagation(container, &mount, errors);
    }
    devices(container, volumes, errors);
}

fn propagation(container: &Field<'_>, mount: &Field<'_>, errors: &mut Errors) {
    let propagation = mount.child("mountPropagation");
    rules::optional_one_of(&propagation, &["Bidirectional", "HostToContainer", "None"], errors);
    let security = container.child("securityContext");
    if propagation.text() == "Bidirectional" && !security.child("privileged").flag() {
        errors.forbidden(
            &propagation,
            "Bidirectional mount propagation is available only to privileged containers",
        );
    }
    let recursive = mount.child("recursiveReadOnly");
    rules::optional_one_of(&recursive, &["Disabled", "Enabled", "IfPossible"], errors);
    if matches!(recursive.text(), "Enabled" | "IfPossible") && !mount.child("readOnly").flag() {
        errors.forbidden(&recursive, "may only be specified when readOnly is true");
    }
}

fn devices(container: &Field<'_>, volumes: &Field<'_>, errors: &mut Errors) {
    let devices = container.child("volumeDevices");
    let known = names_of(volumes);
    let mut paths = HashSet::new();
    for device in devices.items() {
        let (name, path) = (device.child("name"), device.child("devicePath"));
        if name.text().is_empty() {
            errors.required(&name, "");
        } else if !known.contains(name.text()) {
            errors.not_found(&name);
        }
        if path.text().is_empty() {
            errors.required(&path, "");
        } else if path.text().split('/').any(|part| part == "..") {
            errors.invalid(&path, "can not contain backsteps ('..')");
        }
        if rules::is_repeated(&mut paths, text_of(&device, "devicePath")) {
            errors.invalid(&path, "must be unique");
        }
    }
}

/// A path below a directory.
pub(super) fn local_path(path: &Field<'_>, errors: &mut Errors) {
    if path.text().starts_with('/') {
        errors.invalid(path, "must be a relative path");
    }
    if path.text().split('/').any(|part| part == "..") {
        errors.invalid(path, "must not contain '..'");
    }
}

/// The text of a field, borrowed from the object itself.
fn text_of<'a>(object: &Field<'a>, name: &str) -> &'a str {
    object.value().get(name).and_then(Value::as_str).unwrap_or_default()
}
