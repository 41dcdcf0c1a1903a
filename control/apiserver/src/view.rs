//! Objects as one client sees them: in its version of the kind, as JSON, YAML, table rows or bare metadata.
//!
//! In: stored objects. Out: bytes of single objects, lists and watch events. Plain JSON in the stored version is spliced
//! from the stored bytes; everything else is decoded first.

use bytes::Bytes;
use futures::stream;
use http::{HeaderValue, Response, StatusCode, header};
use serde_json::{Map, Value, json};
use xebec_store::Revision;

use crate::body::{self, Body};
use crate::codec::{self, Format};
use crate::convert;
use crate::kinds::Gvk;
use crate::list::Listing;
use crate::meta;
use crate::negotiate::Output;
use crate::options::Query;
use crate::registry::Served;
use crate::status::ApiError;
use crate::stored::Stored;
use crate::table::Include;

/// Lists go out in pieces of about this size.
const PIECE: usize = 64 * 1024;
/// Marks the bookmark that ends the initial events of a watch.
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

/// What a watch says about an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Added,
    Modified,
    Deleted,
}

/// How to show the objects of one resource to one client.
#[derive(Clone)]
pub(crate) struct View {
    served: Served,
    output: Output,
    include: Include,
}

// === impl View ===

impl View {
    pub(crate) fn new(served: &Served, output: Output, query: &Query) -> Result<Self, ApiError> {
        let include = match query.get("includeObject").unwrap_or_default() {
            "None" => Include::None,
            "Object" => Include::Object,
            "" | "Metadata" => Include::Metadata,
            other => {
                return Err(ApiError::bad_request(format!("unrecognized includeObject value: {other:?}")));
            }
        };
        Ok(Self { served: served.clone(), output, include })
    }

    fn gvk(&self) -> &Gvk {
        &self.served.resource.gvk
    }

    /// The stored bytes with the revision are the answer.
    fn is_verbatim(&self) -> bool {
        self.output == Output::Object(Format::Json)
            && self.served.resource.stored_as.is_none()
            && self.served.custom.is_none()
    }

    fn decode(&self, stored: &Stored) -> Result<Value, ApiError> {
        let mut object = stored.decode()?;
        self.served.fill_read(&mut object);
        // What was stored by another version says so until it is written again.
        if self.served.custom.is_some() {
            meta::set(&mut object, &["apiVersion"], Some(self.gvk().api_version().into()));
        }
        Ok(convert::from_stored(&self.served.resource, object))
    }

    /// One object.
    pub(crate) fn object(&self, stored: &Stored) -> Result<Bytes, ApiError> {
        if self.is_verbatim() {
            return Ok(self.served.layout.json(stored));
        }
        self.shown(self.decode(stored)?)
    }

    /// One object that is a tree already.
    fn shown(&self, object: Value) -> Result<Bytes, ApiError> {
        Ok(match self.output {
            Output::Object(Format::Json) => object.to_string().into(),
            Output::Object(Format::Yaml) => codec::to_yaml(&object)?.into(),
            Output::Table => {
                let version = meta::resource_version(&object).to_owned();
                let mut table = self.served.table(&[object], self.include);
                meta::set(&mut table, &["metadata", "resourceVersion"], Some(version.into()));
                table.to_string().into()
            }
            Output::PartialMetadata => partial("PartialObjectMetadata", &object).to_string().into(),
        })
    }

    pub(crate) fn respond(&self, code: StatusCode, stored: &Stored) -> Result<Response<Body>, ApiError> {
        Ok(self.response(code, body::full(self.object(stored)?)))
    }

    fn response(&self, code: StatusCode, body: Body) -> Response<Body> {
        let mut response = Response::new(body);
        *response.status_mut() = code;
        let content_type = match self.output {
            Output::Object(Format::Yaml) => "application/yaml",
            _ => "application/json",
        };
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        response
    }

    /// A list: in pieces where its items need no decoding.
    pub(crate) fn list(&self, listing: Listing) -> Result<Response<Body>, ApiError> {
        if self.is_verbatim() {
            return Ok(self.response(StatusCode::OK, self.spliced_list(listing)));
        }
        let mut metadata = Map::new();
        metadata.insert("resourceVersion".into(), listing.revision.to_string().into());
        if let Some(token) = listing.continue_token {
            metadata.insert("continue".into(), token.into());
        }
        if let Some(remaining) = listing.remaining {
            metadata.insert("remainingItemCount".into(), remaining.into());
        }
        let mut items = listing.items.iter().map(|item| self.decode(item)).collect::<Result<Vec<_>, _>>()?;
        let list = match self.output {
            Output::Object(_) => {
                for item in items.iter_mut().filter_map(Value::as_object_mut) {
                    item.remove("kind");
                    item.remove("apiVersion");
                }
                json!({
                    "kind": format!("{}List", self.gvk().kind), "apiVersion": self.gvk().api_version(),
                    "metadata": metadata, "items": items,
                })
            }
            Output::Table => {
                let mut table = self.served.table(&items, self.include);
                meta::set(&mut table, &["metadata"], Some(metadata.into()));
                table
            }
            Output::PartialMetadata => {
                let items: Vec<Value> =
                    items.iter().map(|item| partial("PartialObjectMetadata", item)).collect();
                json!({
                    "kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1",
                    "metadata": metadata, "items": items,
                })
            }
        };
        let bytes: Bytes = match self.output {
            Output::Object(Format::Yaml) => codec::to_yaml(&list)?.into(),
            _ => list.to_string().into(),
        };
        Ok(self.response(StatusCode::OK, body::full(bytes)))
    }

    fn spliced_list(&self, listing: Listing) -> Body {
        let mut head = format!(
            "{{\"kind\":\"{}List\",\"apiVersion\":\"{}\",\"metadata\":{{\"resourceVersion\":\"{}\"",
            self.gvk().kind,
            self.gvk().api_version(),
            listing.revision
        )
        .into_bytes();
        if let Some(token) = &listing.continue_token {
            // A token is base64: nothing in it needs escaping.
            head.extend_from_slice(format!(",\"continue\":\"{token}\"").as_bytes());
        }
        if let Some(remaining) = listing.remaining {
            head.extend_from_slice(format!(",\"remainingItemCount\":{remaining}").as_bytes());
        }
        head.extend_from_slice(b"},\"items\":[");
        let layout = self.served.layout.clone();
        let mut items = listing.items.into_iter().enumerate();
        let mut next = Some(head);
        let mut pieces = std::iter::from_fn(move || {
            let mut piece = next.take()?;
            loop {
                let Some((index, item)) = items.next() else {
                    piece.extend_from_slice(b"]}");
                    return Some(Bytes::from(piece));
                };
                if index > 0 {
                    piece.push(b',');
                }
                layout.splice(&item, false, &mut piece);
                if piece.len() >= PIECE {
                    next = Some(Vec::with_capacity(PIECE + PIECE / 4));
                    return Some(Bytes::from(piece));
                }
            }
        });
        // What fits one piece goes out with a length.
        match (pieces.next(), pieces.next()) {
            (Some(only), None) => body::full(only),
            (first, second) => {
                body::stream(stream::iter(first.into_iter().chain(second).chain(pieces).map(Ok)))
            }
        }
    }

    /// Appends a watch event.
    pub(crate) fn event(&self, change: Change, stored: &Stored, out: &mut Vec<u8>) -> Result<(), ApiError> {
        out.extend_from_slice(match change {
            Change::Added => b"{\"type\":\"ADDED\",\"object\":",
            Change::Modified => b"{\"type\":\"MODIFIED\",\"object\":",
            Change::Deleted => b"{\"type\":\"DELETED\",\"object\":",
        });
        if self.is_verbatim() {
            self.served.layout.splice(stored, true, out);
        } else {
            out.extend_from_slice(&self.in_watch().object(stored)?);
        }
        out.extend_from_slice(b"}\n");
        Ok(())
    }

    /// Appends a bookmark: all events up to the revision were sent.
    pub(crate) fn bookmark(&self, revision: Revision, ends_initial: bool, out: &mut Vec<u8>) {
        let (kind, api_version) = match self.output {
            Output::PartialMetadata => ("PartialObjectMetadata".into(), "meta.k8s.io/v1".into()),
            _ => (self.gvk().kind.to_string(), self.gvk().api_version()),
        };
        let mut object = json!({
            "kind": kind, "apiVersion": api_version,
            "metadata": { "resourceVersion": revision.to_string(), "creationTimestamp": null },
        });
        if ends_initial {
            object["metadata"]["annotations"] = json!({ INITIAL_EVENTS_END: "true" });
        }
        out.extend_from_slice(json!({ "type": "BOOKMARK", "object": object }).to_string().as_bytes());
        out.push(b'\n');
    }

    /// Events are framed in JSON whatever the client takes.
    fn in_watch(&self) -> Self {
        let output = match self.output {
            Output::Object(_) => Output::Object(Format::Json),
            other => other,
        };
        Self { output, ..self.clone() }
    }
}

fn partial(kind: &str, object: &Value) -> Value {
    json!({
        "kind": kind, "apiVersion": "meta.k8s.io/v1",
        "metadata": object.get("metadata").cloned().unwrap_or_default(),
    })
}

/// Appends the ERROR event that ends a watch.
pub(crate) fn error_event(error: &ApiError, out: &mut Vec<u8>) {
    out.extend_from_slice(json!({ "type": "ERROR", "object": error.to_status() }).to_string().as_bytes());
    out.push(b'\n');
}
