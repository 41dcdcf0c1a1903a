//! The API as the Python client uses it: types, watches, the dynamic client, leader election.
//!
//! In: `python/client.py`, run by the machine's Python with the client that `XEBEC_PYTHON_CLIENT` names. Out: each of its
//! parts against a control plane of its own, judged by its exit code.

use std::path::{Path, PathBuf};
use std::process::Command;

use xebec_tests::control::Control;
use xebec_tests::skip::skipped;

const TEST: &str = "api_python";
const SCRIPT: &str = "tests/python/client.py";

/// Where the client is imported from.
fn packages() -> Result<PathBuf, &'static str> {
    let folder = std::env::var_os("XEBEC_PYTHON_CLIENT");
    let folder =
        folder.map(PathBuf::from).ok_or("there is no Python client: `cargo xtask test` fetches it")?;
    if folder.join("kubernetes").is_dir() { Ok(folder) } else { Err("XEBEC_PYTHON_CLIENT holds no client") }
}

async fn shows(part: &str) {
    let packages = match packages() {
        Ok(packages) => packages,
        Err(why) => return skipped(TEST, why),
    };
    let Some(control) = Control::start(TEST).await else { return };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join(SCRIPT);
    let output = Command::new("python3")
        .arg(script)
        .arg(part)
        .env("PYTHONPATH", packages)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("KUBECONFIG", control.kubeconfig())
        .output();
    let output = match output {
        Ok(output) => output,
        Err(error) => return skipped(TEST, &format!("python3 cannot be run: {error}")),
    };
    assert_eq!(output.status.code(), Some(0), "{part}: {}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn objects_of_declared_types() {
    shows("typed").await;
}

#[tokio::test]
async fn a_watch_goes_on_where_another_ended() {
    shows("watched").await;
}

#[tokio::test]
async fn the_dynamic_client_applies_and_discovers() {
    shows("applied").await;
}

#[tokio::test]
async fn one_candidate_leads_and_the_next_one_follows() {
    shows("elected").await;
}
