//! Volumes of pods.
//!
//! In: the field `volumes` of a pod spec. Out: what is wrong with it, in `Errors`.

use std::collections::HashSet;

use serde_json::Value;
use xebec_api::names;

use super::field::{Errors, Field};
use super::{container, env, resources, rules, storage};

const HOST_PATH_TYPES: &[&str] =
    &["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];

pub(super) fn volumes(volumes: &Field<'_>, errors: &mut Errors) {
    let mut seen = HashSet::new();
    for volume in volumes.items() {
        let name = volume.child("name");
        rules::required_name(&name, names::dns1123_label, errors);
        let text = volume.value().get("name").and_then(Value::as_str).unwrap_or_default();
        if !text.is_empty() && rules::is_repeated(&mut seen, text) {
            errors.duplicate(&name);
        }
        let mut sources = volume.fields().filter(|(name, _)| *name != "name");
        match (sources.next(), sources.next()) {
            (None, _) => errors.required(&volume, "must specify a volume type"),
            (Some((kind, source)), second) => {
                self::source(kind, &source, errors);
                if let Some((_, second)) = second {
                    errors.forbidden(&second, "may not specify more than 1 volume type");
                }
            }
        }
    }
}

fn source(kind: &str, source: &Field<'_>, errors: &mut Errors) {
    match kind {
        "emptyDir" => {
            let limit = source.child("sizeLimit");
            if resources::parsed(&limit).is_some_and(xebec_api::Quantity::is_negative) {
                errors.forbidden(&limit, "SizeLimit field must be a valid resource quantity");
            }
        }
        "hostPath" => host_path(source, errors),
        "secret" => {
            required(source, &["secretName"], errors);
            files(source, errors);
        }
        "configMap" => {
            required(source, &["name"], errors);
            files(source, errors);
        }
        "downwardAPI" => {
            mode(&source.child("defaultMode"), errors);
            downward(&source.child("items"), errors);
        }
        "projected" => projected(source, errors),
        "persistentVolumeClaim" => required(source, &["claimName"], errors),
        "ephemeral" => {
            let template = source.child("volumeClaimTemplate");
            if template.is_set() {
                storage::claim_spec(&template.child("spec"), errors);
            } else {
                errors.required(&template, "");
            }
        }
        "nfs" => {
            required(source, &["server", "path"], errors);
            let path = source.child("path");
            if !path.text().is_empty() && !path.text().starts_with('/') {
                errors.invalid(&path, "must be an absolute path");
            }
        }
        "csi" => required(source, &["driver"], errors),
        "image" => {
            required(source, &["reference"], errors);
            let policies = ["Always", "IfNotPresent", "Never"];
            rules::optional_one_of(&source.child("pullPolicy"), &policies, errors);
        }
        "iscsi" => required(source, &["targetPortal", "iqn"], errors),
        "glusterfs" => required(source, &["endpoints", "path"], errors),
        "rbd" => required(source, &["image"], errors),
        "flexVolume" => required(source, &["driver"], errors),
        "azureFile" => required(source, &["secretName", "shareName"], errors),
        "azureDisk" => required(source, &["diskName", "diskURI"], errors),
        "gcePersistentDisk" => required(source, &["pdName"], errors),
        "awsElasticBlockStore" | "cinder" => required(source, &["volumeID"], errors),
        "vsphereVolume" => required(source, &["volumePath"], errors),
        "portworxVolume" => required(source, &["volumeID"], errors),
        _ => {}
    }
}

fn required(source: &Field<'_>, fields: &[&str], errors: &mut Errors) {
    for name in fields {
        let field = source.child(name);
        if field.text().is_empty() {
            errors.required(&field, "");
        }
    }
}

pub(super) fn host_path(source: &Field<'_>, errors: &mut Errors) {
    let path = source.child("path");
    if path.text().is_empty() {
        errors.required(&path, "");
    } else if path.text().split('/').any(|part| part == "..") {
        errors.invalid(&path, "must not contain '..'");
    }
    rules::optional_one_of(&source.child("type"), HOST_PATH_TYPES, errors);
}

/// Keys of a ConfigMap or Secret as files.
fn files(source: &Field<'_>, errors: &mut Errors) {
    mode(&source.child("defaultMode"), errors);
    items(&source.child("items"), errors);
}

fn items(items: &Field<'_>, errors: &mut Errors) {
    for item in items.items() {
        required(&item, &["key"], errors);
        file(&item, errors);
    }
}

/// A file's path and mode.
fn file(item: &Field<'_>, errors: &mut Errors) {
    let path = item.child("path");
    if path.text().is_empty() {
        errors.required(&path, "");
    }
    container::local_path(&path, errors);
    if path.text().starts_with("..") && path.text().split('/').all(|part| part != "..") {
        errors.invalid(&path, "must not start with '..'");
    }
    mode(&item.child("mode"), errors);
}

fn mode(mode: &Field<'_>, errors: &mut Errors) {
    if mode.int().is_some_and(|bits| !(0..=0o777).contains(&bits)) {
        errors.invalid(mode, "must be a number between 0 and 0777 (octal), both inclusive");
    }
}

fn downward(items: &Field<'_>, errors: &mut Errors) {
    for item in items.items() {
        file(&item, errors);
        let (field, resource) = (item.child("fieldRef"), item.child("resourceFieldRef"));
        if field.is_set() {
            env::field_reference(&field, env::VOLUME_FIELDS, true, errors);
            if resource.is_set() {
                errors.invalid(&item, "fieldRef and resourceFieldRef can not be specified simultaneously");
            }
        } else if resource.is_set() {
            env::resource_reference(&resource, true, errors);
        } else {
            errors.required(&item, "one of fieldRef and resourceFieldRef is required");
        }
    }
}

fn projected(volume: &Field<'_>, errors: &mut Errors) {
    mode(&volume.child("defaultMode"), errors);
    let sources = volume.child("sources");
    let mut paths: HashSet<String> = HashSet::new();
    for source in sources.items() {
        let kinds = [
            "secret",
            "configMap",
            "downwardAPI",
            "serviceAccountToken",
            "clusterTrustBundle",
            "podCertificate",
        ];
        let mut set = kinds.iter().filter(|kind| source.child(kind).is_set());
        set.next();
        if let Some(second) = set.next() {
            errors.forbidden(&source.child(second), "may not specify more than 1 volume type per source");
        }
        for name in ["secret", "configMap"] {
            let keys = source.child(name);
            if keys.is_set() {
                required(&keys, &["name"], errors);
                items(&keys.child("items"), errors);
                paths_are_new(&keys.child("items"), &mut paths, errors);
            }
        }
        let downward_api = source.child("downwardAPI");
        downward(&downward_api.child("items"), errors);
        paths_are_new(&downward_api.child("items"), &mut paths, errors);
        let token = source.child("serviceAccountToken");
        if token.is_set() {
            token_projection(&token, errors);
        }
        let bundle = source.child("clusterTrustBundle");
        if bundle.is_set() {
            required(&bundle, &["path"], errors);
        }
    }
}

fn paths_are_new(items: &Field<'_>, paths: &mut HashSet<String>, errors: &mut Errors) {
    for item in items.items() {
        let path = item.child("path");
        if path.text().is_empty() {
            continue;
        }
        if !paths.insert(path.text().to_owned()) {
            errors.invalid(&path, "conflicting duplicate paths");
        }
    }
}

fn token_projection(token: &Field<'_>, errors: &mut Errors) {
    let (seconds, path) = (token.child("expirationSeconds"), token.child("path"));
    if seconds.int().is_some_and(|seconds| seconds < 600) {
        errors.invalid(&seconds, "may not specify a duration less than 10 minutes");
    }
    if seconds.int().is_some_and(|seconds| seconds > 1 << 32) {
        errors.invalid(&seconds, "may not specify a duration larger than 2^32 seconds");
    }
    if path.text().is_empty() {
        errors.required(&path, "");
    } else {
        container::local_path(&path, errors);
    }
}
