//! Links to containers' logs under the names that log collectors look for:
//! `<pod>_<namespace>_<container>-<container id>.log`.
//!
//! In: a folder (none: no links), a run and its log. Out: links; those whose log is gone are removed.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;

use k8s_openapi::api::core::v1::Pod;
use xebec_runtime::types::ContainerId;

use crate::pod;

const MAX_NAME: usize = 255;

/// Links one run's log. Idempotent.
pub(crate) fn link(
    dir: Option<&Path>,
    pod: &Pod,
    container: &str,
    id: &ContainerId,
    log: &Path,
) -> io::Result<()> {
    let Some(dir) = dir else { return Ok(()) };
    fs::create_dir_all(dir)?;
    let link = dir.join(name(pod, container, id));
    match symlink(log, &link) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

fn name(pod: &Pod, container: &str, id: &ContainerId) -> String {
    // An id must not lead into another folder.
    let suffix = format!("_{container}-{}.log", id.0.replace('/', "-"));
    let whole = format!("{}_{}", pod::name(pod), pod::namespace(pod));
    let head: String = whole.chars().take(MAX_NAME.saturating_sub(suffix.len())).collect();
    head + &suffix
}

/// Removes links whose log is no more. What is not a link is not ours.
pub(crate) fn clean(dir: Option<&Path>) {
    for entry in dir.into_iter().flat_map(|dir| fs::read_dir(dir).into_iter().flatten().flatten()) {
        let path = entry.path();
        let dangling = entry.file_type().is_ok_and(|t| t.is_symlink()) && !path.exists();
        if dangling && let Err(error) = fs::remove_file(&path) {
            tracing::debug!(path = %path.display(), %error, "link to an old log not removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn links_carry_upstreams_names_and_go_with_their_logs() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = tmp.path().join("links");
        let log = tmp.path().join("0.log");
        fs::write(&log, "").unwrap();
        let meta = json!({"name": "web", "namespace": "shop"});
        let pod: Pod = serde_json::from_value(json!({"metadata": meta, "spec": {"containers": []}})).unwrap();
        let id = ContainerId("abc".into());
        for _ in 0..2 {
            link(Some(&dir), &pod, "main", &id, &log).unwrap();
        }
        let expected = dir.join("web_shop_main-abc.log");
        assert_eq!(fs::read_link(&expected).unwrap(), log);
        fs::write(dir.join("mine"), "").unwrap();
        clean(Some(&dir));
        assert!(expected.exists());
        fs::remove_file(&log).unwrap();
        clean(Some(&dir));
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1, "a file that is no link stays");
        link(None, &pod, "main", &id, &log).unwrap();
    }

    #[test]
    fn long_names_are_cut_to_what_a_folder_takes() {
        let meta = json!({"name": "p".repeat(253), "namespace": "n".repeat(63)});
        let pod: Pod = serde_json::from_value(json!({"metadata": meta, "spec": {"containers": []}})).unwrap();
        let name = name(&pod, "main", &ContainerId("i".repeat(64)));
        assert_eq!(name.len(), MAX_NAME);
        assert!(name.ends_with(&format!("_main-{}.log", "i".repeat(64))));
    }
}
