//! Which representation a client wants.
//!
//! In: the `Accept` header. Out: the first representation in the client's order that is spoken, or 406.

use http::{HeaderMap, header};

use crate::codec::{self, Format};
use crate::openapi;
use crate::status::ApiError;

/// How objects are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Output {
    /// As they are.
    Object(Format),
    /// As rows and columns for people.
    Table,
    /// Only their metadata.
    PartialMetadata,
}

/// How discovery is answered at `/api` and `/apis`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DiscoveryOutput {
    Aggregated { version: &'static str },
    Legacy,
}

/// How the document of OpenAPI v2 is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum SchemaOutput {
    Json,
    Protobuf,
}

/// One element of the header.
#[derive(Clone, Debug, Default)]
struct MediaRange<'a> {
    essence: &'a str,
    target: &'a str,
    group: &'a str,
    version: &'a str,
    quality: f32,
}

// === impl Output ===

impl Output {
    pub(crate) fn negotiate(headers: &HeaderMap) -> Result<Self, ApiError> {
        let text = text(headers);
        if text.trim().is_empty() {
            return Ok(Self::Object(Format::Json));
        }
        let spoken = ranges(&text).into_iter().find_map(|range| {
            let format = range.format()?;
            match (range.target, range.group, range.version) {
                ("", _, _) => Some(Self::Object(format)),
                ("Table", "meta.k8s.io", "v1" | "v1beta1") => Some(Self::Table),
                ("PartialObjectMetadata" | "PartialObjectMetadataList", "meta.k8s.io", "v1" | "v1beta1") => {
                    Some(Self::PartialMetadata)
                }
                _ => None,
            }
        });
        spoken.ok_or_else(|| ApiError::not_acceptable(codec::ACCEPTED))
    }
}

// === impl DiscoveryOutput ===

impl DiscoveryOutput {
    pub(crate) fn negotiate(headers: &HeaderMap) -> Result<Self, ApiError> {
        let text = text(headers);
        if text.trim().is_empty() {
            return Ok(Self::Legacy);
        }
        let spoken = ranges(&text).into_iter().find_map(|range| {
            range.format()?;
            match (range.target, range.group, range.version) {
                ("", _, _) => Some(Self::Legacy),
                ("APIGroupDiscoveryList", "apidiscovery.k8s.io", "v2") => {
                    Some(Self::Aggregated { version: "v2" })
                }
                ("APIGroupDiscoveryList", "apidiscovery.k8s.io", "v2beta1") => {
                    Some(Self::Aggregated { version: "v2beta1" })
                }
                _ => None,
            }
        });
        spoken.ok_or_else(|| ApiError::not_acceptable("application/json"))
    }
}

// === impl SchemaOutput ===

impl SchemaOutput {
    pub(crate) fn negotiate(headers: &HeaderMap) -> Result<Self, ApiError> {
        let text = text(headers);
        if text.trim().is_empty() {
            return Ok(Self::Json);
        }
        let spoken = ranges(&text).into_iter().find_map(|range| match range.essence {
            openapi::V2_PROTOBUF | openapi::V2_PROTOBUF_FORMERLY => Some(Self::Protobuf),
            _ => (range.format()? == Format::Json).then_some(Self::Json),
        });
        spoken.ok_or_else(|| ApiError::not_acceptable("application/json"))
    }
}

// === impl MediaRange ===

impl MediaRange<'_> {
    fn format(&self) -> Option<Format> {
        match self.essence {
            "*/*" | "application/*" | "application/json" => Some(Format::Json),
            "application/yaml" => Some(Format::Yaml),
            _ => None,
        }
    }
}

fn text(headers: &HeaderMap) -> String {
    let values: Vec<&str> =
        headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    values.join(",")
}

/// By falling quality; equals stay in the order they were written.
fn ranges(text: &str) -> Vec<MediaRange<'_>> {
    let mut ranges: Vec<MediaRange<'_>> = text
        .split(',')
        .map(|element| {
            let mut parts = element.split(';').map(str::trim);
            let mut range = MediaRange {
                essence: parts.next().unwrap_or_default(),
                quality: 1.0,
                ..MediaRange::default()
            };
            for (key, value) in parts.filter_map(|part| part.split_once('=')) {
                match key.trim() {
                    "as" => range.target = value.trim(),
                    "g" => range.group = value.trim(),
                    "v" => range.version = value.trim(),
                    "q" => range.quality = value.trim().parse().unwrap_or(0.0),
                    _ => {}
                }
            }
            range
        })
        .filter(|range| range.quality > 0.0)
        .collect();
    ranges.sort_by(|a, b| b.quality.total_cmp(&a.quality));
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(accept: &str) -> Result<Output, u16> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, accept.parse().expect("a header"));
        Output::negotiate(&headers).map_err(|error| error.code().as_u16())
    }

    #[test]
    fn the_first_spoken_representation_wins() {
        let json = Output::Object(Format::Json);
        assert_eq!(Output::negotiate(&HeaderMap::new()).expect("default"), json);
        assert_eq!(output("application/vnd.kubernetes.protobuf,application/json"), Ok(json));
        assert_eq!(
            output("application/json;as=Table;v=v1;g=meta.k8s.io,application/json"),
            Ok(Output::Table)
        );
        assert_eq!(
            output("application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"),
            Ok(Output::PartialMetadata)
        );
        assert_eq!(output("application/yaml"), Ok(Output::Object(Format::Yaml)));
        assert_eq!(output("*/*"), Ok(json));
        assert_eq!(output("application/json;q=0.1,application/yaml;q=0.9"), Ok(Output::Object(Format::Yaml)));
        assert_eq!(output("application/vnd.kubernetes.protobuf"), Err(406));
    }

    #[test]
    fn the_schema_comes_in_protocol_buffers_to_who_asks_for_them() {
        let schema = |accept: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, accept.parse().expect("a header"));
            SchemaOutput::negotiate(&headers).map_err(|error| error.code().as_u16())
        };
        for name in [openapi::V2_PROTOBUF, openapi::V2_PROTOBUF_FORMERLY] {
            assert_eq!(schema(name), Ok(SchemaOutput::Protobuf));
        }
        assert_eq!(schema("*/*"), Ok(SchemaOutput::Json));
        assert_eq!(schema("application/vnd.kubernetes.protobuf"), Err(406));
    }

    #[test]
    fn aggregated_discovery_is_asked_for_by_group_and_version() {
        let mut headers = HeaderMap::new();
        let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
        headers.insert(header::ACCEPT, accept.parse().expect("a header"));
        assert_eq!(
            DiscoveryOutput::negotiate(&headers).expect("spoken"),
            DiscoveryOutput::Aggregated { version: "v2" }
        );
    }
}
