//! The query of a request and the options it spells.
//!
//! In: the query string, a `DeleteOptions` body. Out: typed options, or upstream's 400 and 422.

use std::time::Duration;

use serde_json::Value;

use crate::field_error::FieldError;
use crate::status::ApiError;

/// Upstream's names for the options, which its statuses repeat.
const LIST: &str = "ListOptions";
const DELETE: &str = "DeleteOptions";
/// The longest name of a field manager.
const MAX_MANAGER: usize = 128;

/// Decoded pairs in the order they came.
#[derive(Clone, Debug, Default)]
pub struct Query {
    pairs: Vec<(String, String)>,
}

/// What `fieldValidation` asks for where a body has fields that nobody knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum FieldValidation {
    Ignore,
    #[default]
    Warn,
    Strict,
}

/// Options of create, update and patch.
#[derive(Clone, Debug, Default)]
pub(crate) struct WriteOptions {
    pub(crate) dry_run: bool,
    pub(crate) field_validation: FieldValidation,
    /// Who writes, when the client says so itself.
    pub(crate) manager: String,
    /// An application takes what others own.
    pub(crate) force: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum VersionMatch {
    Exact,
    NotOlderThan,
}

/// Options of list, watch and deletecollection.
#[derive(Clone, Debug, Default)]
pub(crate) struct ListOptions {
    pub(crate) label_selector: String,
    pub(crate) field_selector: String,
    /// As sent; empty when not sent.
    pub(crate) resource_version: String,
    pub(crate) version_match: Option<VersionMatch>,
    pub(crate) limit: usize,
    pub(crate) continue_token: String,
    pub(crate) timeout: Option<Duration>,
    pub(crate) bookmarks: bool,
    pub(crate) send_initial_events: Option<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Propagation {
    Orphan,
    Background,
    Foreground,
}

/// `DeleteOptions`, from the body and the query.
#[derive(Clone, Debug, Default)]
pub(crate) struct DeleteOptions {
    pub(crate) dry_run: bool,
    pub(crate) grace_period_seconds: Option<i64>,
    pub(crate) propagation: Option<Propagation>,
    pub(crate) uid: Option<String>,
    pub(crate) resource_version: Option<String>,
}

// === impl Query ===

impl Query {
    pub fn parse(query: Option<&str>) -> Self {
        let pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
        Self { pairs: pairs.into_owned().collect() }
    }

    pub fn get(&self, key: &str) -> Option<&str> {
        self.pairs.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// Every value of a key, in the order they came.
    pub(crate) fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.pairs.iter().filter(move |(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    fn text(&self, key: &str) -> String {
        self.get(key).unwrap_or_default().to_owned()
    }

    /// As upstream: present and neither `false` nor `0`.
    pub fn flag(&self, key: &str) -> bool {
        self.get(key).is_some_and(|value| !matches!(value, "false" | "0"))
    }

    pub(crate) fn integer(&self, key: &str) -> Result<Option<i64>, ApiError> {
        match self.get(key) {
            None | Some("") => Ok(None),
            Some(text) => text.parse().map(Some).map_err(|_| {
                ApiError::bad_request(format!("strconv.ParseInt: parsing {text:?}: invalid syntax"))
            }),
        }
    }

    fn dry_run(&self, kind: &str) -> Result<bool, ApiError> {
        let mut values =
            self.pairs.iter().filter(|(key, _)| key == "dryRun").map(|(_, value)| value.as_str());
        values.try_fold(false, |_, value| check_dry_run(kind, value))
    }
}

fn check_dry_run(kind: &str, value: &str) -> Result<bool, ApiError> {
    match value {
        "All" => Ok(true),
        "" => Ok(false),
        other => Err(not_supported(kind, "dryRun", other, &["All"])),
    }
}

fn not_supported(kind: &str, field: &str, value: &str, supported: &[&str]) -> ApiError {
    ApiError::invalid_options(kind, FieldError::not_supported_in_order(field, &value.into(), supported))
}

// === impl WriteOptions ===

impl WriteOptions {
    /// `kind` is what upstream calls the options of the verb, such as `CreateOptions`.
    pub(crate) fn parse(query: &Query, kind: &str) -> Result<Self, ApiError> {
        let field_validation = match query.get("fieldValidation").unwrap_or_default() {
            "Strict" => FieldValidation::Strict,
            "Ignore" => FieldValidation::Ignore,
            "" | "Warn" => FieldValidation::Warn,
            other => {
                return Err(not_supported(kind, "fieldValidation", other, &["Ignore", "Strict", "Warn"]));
            }
        };
        let manager = query.text("fieldManager");
        if manager.len() > MAX_MANAGER {
            return Err(ApiError::invalid_options(kind, FieldError::too_long("fieldManager", MAX_MANAGER)));
        }
        if manager.chars().any(char::is_control) {
            let error = FieldError::invalid(
                "fieldManager",
                &manager.into(),
                "should only contain printable characters",
            );
            return Err(ApiError::invalid_options(kind, error));
        }
        Ok(Self { dry_run: query.dry_run(kind)?, field_validation, manager, force: query.flag("force") })
    }
}

// === impl ListOptions ===

impl ListOptions {
    pub(crate) fn parse(query: &Query) -> Result<Self, ApiError> {
        let version_match = match query.get("resourceVersionMatch").unwrap_or_default() {
            "" => None,
            "Exact" => Some(VersionMatch::Exact),
            "NotOlderThan" => Some(VersionMatch::NotOlderThan),
            other => {
                return Err(not_supported(
                    LIST,
                    "resourceVersionMatch",
                    other,
                    &["Exact", "NotOlderThan", ""],
                ));
            }
        };
        let seconds = query.integer("timeoutSeconds")?.and_then(|s| u64::try_from(s).ok());
        let options = Self {
            label_selector: query.text("labelSelector"),
            field_selector: query.text("fieldSelector"),
            resource_version: query.text("resourceVersion"),
            version_match,
            limit: query.integer("limit")?.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(0),
            continue_token: query.text("continue"),
            timeout: seconds.filter(|s| *s > 0).map(Duration::from_secs),
            bookmarks: query.flag("allowWatchBookmarks"),
            send_initial_events: query.get("sendInitialEvents").map(|_| query.flag("sendInitialEvents")),
        };
        options.check(query.flag("watch"))?;
        Ok(options)
    }

    /// The combinations upstream refuses.
    fn check(&self, watch: bool) -> Result<(), ApiError> {
        let refuse = |why: &str| {
            Err(ApiError::invalid_options(LIST, FieldError::forbidden("resourceVersionMatch", why)))
        };
        if self.revision()? == Some(0) && self.version_match == Some(VersionMatch::Exact) {
            return refuse("resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"");
        }
        if watch {
            return match (self.send_initial_events, self.version_match) {
                (None, Some(_)) => refuse(
                    "resourceVersionMatch is forbidden for watch unless \
                     sendInitialEvents is provided",
                ),
                (Some(_), version_match) if version_match != Some(VersionMatch::NotOlderThan) => refuse(
                    "sendInitialEvents requires setting resourceVersionMatch to \
                     NotOlderThan",
                ),
                _ => Ok(()),
            };
        }
        if self.send_initial_events.is_some() {
            let why = "sendInitialEvents is forbidden for list";
            return Err(ApiError::invalid_options(LIST, FieldError::forbidden("sendInitialEvents", why)));
        }
        match (self.version_match, self.continue_token.is_empty(), self.resource_version.as_str()) {
            (Some(_), true, "") => {
                refuse("resourceVersionMatch is forbidden unless resourceVersion is provided")
            }
            (Some(_), false, _) => refuse("resourceVersionMatch is forbidden when continue is provided"),
            (None, false, version) if !matches!(version, "" | "0") => {
                Err(ApiError::bad_request("specifying resource version is not allowed when using continue"))
            }
            _ => Ok(()),
        }
    }

    /// The resource version as a number; `None` when not sent.
    pub(crate) fn revision(&self) -> Result<Option<u64>, ApiError> {
        match self.resource_version.as_str() {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|_| {
                ApiError::bad_request(format!("Invalid value: {text:?}: a resource version is a number"))
            }),
        }
    }
}

// === impl DeleteOptions ===

impl DeleteOptions {
    /// The body wins; where there is none the query speaks, as upstream has it.
    pub(crate) fn parse(query: &Query, body: Option<&Value>) -> Result<Self, ApiError> {
        match body {
            None => Ok(Self {
                dry_run: query.dry_run(DELETE)?,
                grace_period_seconds: query.integer("gracePeriodSeconds")?,
                propagation: propagation(
                    query.get("propagationPolicy"),
                    query.get("orphanDependents").map(|_| query.flag("orphanDependents")),
                )?,
                uid: None,
                resource_version: None,
            }),
            Some(body) => Self::from_body(body, query.dry_run(DELETE)?),
        }
    }

    fn from_body(body: &Value, dry_run: bool) -> Result<Self, ApiError> {
        let named = |field: &str, expected: &str| body.get(field).is_none_or(|name| name == expected);
        if !body.is_object() || !named("kind", DELETE) {
            return Err(ApiError::bad_request("decoded object cannot be converted to DeleteOptions"));
        }
        let text = |path: &str| body.pointer(path).and_then(Value::as_str).map(ToOwned::to_owned);
        let mut dry_run = dry_run;
        for value in body.get("dryRun").and_then(Value::as_array).into_iter().flatten() {
            dry_run |= check_dry_run(DELETE, value.as_str().unwrap_or_default())?;
        }
        let grace_period_seconds = match body.get("gracePeriodSeconds") {
            None | Some(Value::Null) => None,
            Some(value) => Some(value.as_i64().ok_or_else(|| {
                ApiError::bad_request("unable to decode DeleteOptions: gracePeriodSeconds must be an integer")
            })?),
        };
        Ok(Self {
            dry_run,
            grace_period_seconds,
            propagation: propagation(
                text("/propagationPolicy").as_deref(),
                body.get("orphanDependents").and_then(Value::as_bool),
            )?,
            uid: text("/preconditions/uid"),
            resource_version: text("/preconditions/resourceVersion"),
        })
    }
}

fn propagation(policy: Option<&str>, orphan: Option<bool>) -> Result<Option<Propagation>, ApiError> {
    match (policy, orphan) {
        (Some(policy), Some(_)) => {
            let why = "orphanDependents and deletionPropagation cannot be both set";
            let error = FieldError::invalid("propagationPolicy", &policy.into(), why);
            Err(ApiError::invalid_options(DELETE, error))
        }
        (None, None) => Ok(None),
        (None, Some(true)) | (Some("Orphan"), None) => Ok(Some(Propagation::Orphan)),
        (None, Some(false)) | (Some("Background"), None) => Ok(Some(Propagation::Background)),
        (Some("Foreground"), None) => Ok(Some(Propagation::Foreground)),
        (Some(other), None) => {
            let supported = ["Foreground", "Background", "Orphan", "nil"];
            Err(not_supported(DELETE, "propagationPolicy", other, &supported))
        }
    }
}
