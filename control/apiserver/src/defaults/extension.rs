//! Defaults of what extends the API: CustomResourceDefinition and APIService.
//!
//! In: the fields of an object. Out: the same, filled.

use super::fill::{Fields, empty, ensure, object, text, unset};

pub(super) fn custom_resource_definition(definition: &mut Fields) {
    let Some(spec) = ensure(definition, "spec") else { return };
    if let Some(names) = ensure(spec, "names") {
        let kind = text(names, "kind").to_owned();
        if !kind.is_empty() {
            empty(names, "singular", kind.to_lowercase());
            empty(names, "listKind", format!("{kind}List"));
        }
    }
    if let Some(conversion) = ensure(spec, "conversion") {
        empty(conversion, "strategy", "None");
        let client = object(conversion, "webhook").and_then(|webhook| object(webhook, "clientConfig"));
        if let Some(client) = client {
            service_port(client);
        }
    }
}

pub(super) fn api_service(service: &mut Fields) {
    if let Some(spec) = ensure(service, "spec") {
        service_port(spec);
    }
}

/// The port of the Service a client configuration names.
pub(super) fn service_port(client: &mut Fields) {
    if let Some(service) = object(client, "service") {
        unset(service, "port", 443);
    }
}
