//! `/version` and the version this server counts as.
//!
//! Out: the `version.Info` object.

use serde_json::{Value, json};

/// The version of Kubernetes whose API is served.
pub const GIT_VERSION: &str = "v1.37.0+xebec";
pub(crate) const MAJOR: &str = "1";
pub(crate) const MINOR: &str = "37";

pub(crate) fn info() -> Value {
    json!({
        "major": MAJOR, "minor": MINOR, "emulationMajor": MAJOR, "emulationMinor": MINOR,
        "minCompatibilityMajor": MAJOR, "minCompatibilityMinor": "36",
        "gitVersion": GIT_VERSION, "gitCommit": "", "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "", "compiler": "rustc", "platform": "linux/amd64",
    })
}
