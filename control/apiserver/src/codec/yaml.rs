//! YAML bodies, as upstream reads them: one document of YAML 1.1, which is also what JSON is.
//!
//! In: bytes. Out: what the visitor makes of them, or one sentence. Anchors and merge keys may make a document larger
//! than it was sent, but not by much.

use std::cell::RefCell;

use serde::de::DeserializeSeed;
use serde_saphyr::options::DuplicateKeyPolicy;
use serde_saphyr::{Error, Options};

use super::{Decoded, Tree};

/// Levels of nesting.
const MAX_DEPTH: usize = 128;
/// The parser needs some ten KiB for each of them, more than threads have by default.
const STACK: usize = 16 << 20;
/// Events that aliases may replay, over all.
const MAX_REPLAYED: usize = 20_000;
/// Scalars, lists and maps of a document, with what aliases repeat.
const MAX_NODES: usize = 100_000;
/// Bytes of text in a document, with what aliases repeat.
const MAX_TEXT: usize = 2 * crate::body::MAX_BODY;

pub(super) fn parse(body: &[u8]) -> Result<Decoded, String> {
    let refuse = |why: &dyn std::fmt::Display| format!("error converting YAML to JSON: {why}");
    let text = std::str::from_utf8(body).map_err(|error| refuse(&error))?;
    let read = std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("yaml".into()).stack_size(STACK);
        let thread = thread.spawn_scoped(scope, || read(text)).map_err(|error| refuse(&error))?;
        thread.join().map_err(|_| refuse(&"the parser failed"))
    });
    read?.map_err(|error| match error {
        Error::MultipleDocuments { location, .. } => {
            let line = location.line();
            refuse(&format_args!("a second document begins at line {line}; send one at a time"))
        }
        other => refuse(&other),
    })
}

fn read(text: &str) -> Result<Decoded, Error> {
    let seen = RefCell::default();
    let seed = Tree { depth: 0, path: None, duplicates: &seen };
    let value = serde_saphyr::with_deserializer_from_str_with_options(text, options(), |yaml| {
        seed.deserialize(yaml)
    })?;
    Ok(Decoded { value, duplicates: seen.into_inner() })
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
