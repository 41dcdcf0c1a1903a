//! Lists: whole, in pages from one snapshot, at a revision, or by selectors.
//!
//! In: list options. Out: the stored objects, the revision they are of and the token that continues them.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use xebec_store::{Revision, Store, StoreError};

use crate::facts::Filter;
use crate::kinds::Resource;
use crate::options::{ListOptions, VersionMatch};
use crate::status::{self, ApiError};
use crate::stored::{self, Stored};

/// Keys read at a time when a selector leaves out some of them.
const SCAN: usize = 500;

/// A list, or a page of one.
#[derive(Clone, Debug)]
pub(crate) struct Listing {
    pub(crate) items: Vec<Stored>,
    pub(crate) revision: Revision,
    pub(crate) continue_token: Option<String>,
    pub(crate) remaining: Option<u64>,
}

/// Where a page begins.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Start {
    /// `None`: now. Set in tokens that survive compaction.
    at: Option<Revision>,
    /// The last key of the page before, without the prefix.
    after: Option<String>,
}

/// Answers a list request.
pub(crate) fn list(
    store: &Store,
    resource: &Resource,
    namespace: Option<&str>,
    options: &ListOptions,
    filter: &Filter,
) -> Result<Listing, ApiError> {
    let start = if options.continue_token.is_empty() {
        Start { at: exact_revision(store, options)?, after: None }
    } else {
        Start::from_token(&options.continue_token)?
    };
    let prefix = stored::prefix(resource, namespace);
    if let Some(listing) = single(store, resource, namespace, &start, filter) {
        return Ok(listing);
    }
    page(store, &prefix, &start, options.limit, filter).map_err(|error| match error {
        StoreError::Compacted { .. } if start.after.is_some() => {
            let fresh = Start { at: None, after: start.after.clone() };
            ApiError::continue_expired(fresh.to_token())
        }
        StoreError::Compacted { oldest } => {
            ApiError::too_old(start.at.map_or(0, |revision| revision.0), oldest.0)
        }
        StoreError::Future { current } => {
            ApiError::too_large_resource_version(start.at.map_or(0, |revision| revision.0), current.0)
        }
        other => status::from_store(&other),
    })
}

/// The revision the list must be of, `None` for now. Now is never older than what any client has seen.
fn exact_revision(store: &Store, options: &ListOptions) -> Result<Option<Revision>, ApiError> {
    let Some(asked) = options.revision()?.filter(|revision| *revision > 0) else { return Ok(None) };
    let current = store.revision();
    if asked > current.0 {
        return Err(ApiError::too_large_resource_version(asked, current.0));
    }
    // Upstream: a limit without a match means a page of exactly that revision.
    let exact = match options.version_match {
        Some(version_match) => version_match == VersionMatch::Exact,
        None => options.limit > 0,
    };
    Ok(exact.then_some(Revision(asked)))
}

/// A selector that asks for one name is a lookup.
fn single(
    store: &Store,
    resource: &Resource,
    namespace: Option<&str>,
    start: &Start,
    filter: &Filter,
) -> Option<Listing> {
    let name = filter.exact_name()?;
    if (resource.namespaced && namespace.is_none()) || *start != (Start { at: None, after: None }) {
        return None;
    }
    // Read before the object: a watch from here on misses nothing.
    let revision = store.revision();
    let found = store.get(stored::key(resource, namespace, name).as_bytes()).map(Stored::from);
    let items = found.into_iter().filter(|stored| filter.matches(&filter.read(stored))).collect();
    Some(Listing { items, revision, continue_token: None, remaining: None })
}

fn page(
    store: &Store,
    prefix: &str,
    start: &Start,
    limit: usize,
    filter: &Filter,
) -> Result<Listing, StoreError> {
    let everything = filter.is_everything();
    let scan = match (everything, limit) {
        (true, limit) => limit,
        (false, 0) => 0,
        (false, limit) => limit.max(SCAN),
    };
    let mut after = start.after.as_ref().map(|relative| format!("{prefix}{relative}").into_bytes());
    let mut at = start.at;
    let mut items = Vec::new();
    loop {
        let page = store.list(prefix.as_bytes(), after.as_deref(), scan, at)?;
        // The further pages are of the same snapshot.
        at = Some(page.revision);
        let count = page.items.len();
        let mut last = None;
        for (index, kv) in page.items.iter().enumerate() {
            last = Some((index, &kv.key));
            let stored = Stored::from(kv);
            if everything || filter.matches(&filter.read(&stored)) {
                items.push(stored);
            }
            if limit > 0 && items.len() == limit {
                break;
            }
        }
        let full = limit > 0 && items.len() == limit;
        let Some((index, key)) = last else {
            return Ok(Listing { items, revision: page.revision, continue_token: None, remaining: None });
        };
        let more = page.more || index + 1 < count;
        if full && more {
            let relative = String::from_utf8_lossy(&key[prefix.len()..]).into_owned();
            let token = Start { at: Some(page.revision), after: Some(relative) }.to_token();
            // Upstream counts only where nothing is left out.
            let remaining = match everything {
                true => store.count(prefix.as_bytes(), Some(key), Some(page.revision)).ok(),
                false => None,
            };
            return Ok(Listing { items, revision: page.revision, continue_token: Some(token), remaining });
        }
        if !more {
            return Ok(Listing { items, revision: page.revision, continue_token: None, remaining: None });
        }
        after = Some(key.to_vec());
    }
}

// === impl Start ===

impl Start {
    fn to_token(&self) -> String {
        // -1: not of a snapshot, as upstream writes it.
        let revision = self.at.map_or(-1, |revision| i64::try_from(revision.0).unwrap_or(i64::MAX));
        let token = json!({ "v": "meta.k8s.io/v1", "rv": revision, "start": self.after });
        URL_SAFE_NO_PAD.encode(token.to_string())
    }

    fn from_token(token: &str) -> Result<Self, ApiError> {
        let refuse = || ApiError::bad_request("continue key is not valid: it was not made by this server");
        let bytes = URL_SAFE_NO_PAD.decode(token.trim_end_matches('=')).map_err(|_| refuse())?;
        let value: Value = serde_json::from_slice(&bytes).map_err(|_| refuse())?;
        if value["v"] != "meta.k8s.io/v1" {
            return Err(refuse());
        }
        let revision = value["rv"].as_i64().filter(|rv| *rv != 0).ok_or_else(refuse)?;
        let after = value["start"].as_str().filter(|key| !key.is_empty()).ok_or_else(refuse)?;
        Ok(Self { at: u64::try_from(revision).ok().map(Revision), after: Some(after.to_owned()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_round_trip_and_foreign_ones_are_refused() {
        for at in [Some(Revision(7)), None] {
            let start = Start { at, after: Some("default/a".into()) };
            assert_eq!(Start::from_token(&start.to_token()).expect("ours"), start);
        }
        for token in ["", "x", "e30", "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MCwic3RhcnQiOiJhIn0"] {
            assert_eq!(Start::from_token(token).expect_err(token).code(), 400);
        }
    }
}
