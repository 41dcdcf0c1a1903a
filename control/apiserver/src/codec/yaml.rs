//! YAML bodies, as upstream reads them: one document of YAML 1.1, which is also what JSON is.
//!
//! In: bytes. Out: what the visitor makes of them, or one sentence. Anchors and merge keys may make a document larger
//! than it was sent, but not by much.

use serde::de::DeserializeSeed;
use serde_json::Value;
use serde_saphyr::options::DuplicateKeyPolicy;
use serde_saphyr::{Error, Options};

use super::Tree;

/// Levels of nesting: its parser needs more stack for each than that of JSON does.
const MAX_DEPTH: usize = 64;

/// Events that aliases may replay, over all.
const MAX_REPLAYED: usize = 20_000;
/// Scalars, lists and maps of a document, with what aliases repeat.
const MAX_NODES: usize = 100_000;
/// Bytes of text in a document, with what aliases repeat.
const MAX_TEXT: usize = 2 * crate::body::MAX_BODY;

pub(super) fn parse(seed: Tree<'_>, body: &[u8]) -> Result<Value, String> {
    let refuse = |why: &dyn std::fmt::Display| format!("error converting YAML to JSON: {why}");
    let text = std::str::from_utf8(body).map_err(|error| refuse(&error))?;
    serde_saphyr::with_deserializer_from_str_with_options(text, options(), |yaml| seed.deserialize(yaml))
        .map_err(|error| match error {
            Error::MultipleDocuments { location, .. } => {
                let line = location.line();
                refuse(&format_args!("a second document begins at line {line}; send one at a time"))
            }
            other => refuse(&other),
        })
}

fn options() -> Options {
    let budget = serde_saphyr::budget! {
        max_depth: MAX_DEPTH,
        flow_nesting_limit: MAX_DEPTH,
        max_nodes: MAX_NODES,
        max_events: 2 * MAX_NODES,
        max_total_scalar_bytes: MAX_TEXT,
        max_recorded_anchor_bytes: MAX_TEXT,
    };
    serde_saphyr::options! {
        budget: budget,
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: MAX_REPLAYED },
        // `Tree` notes them.
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        // As in `defaultMode: 0400`.
        legacy_octal_numbers: true,
        with_snippet: false,
    }
}
