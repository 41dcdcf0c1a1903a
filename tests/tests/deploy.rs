//! What is in `deploy/`: manifests that a server takes, permissions that suffice, units that systemd would take.
//!
//! In: the files, the built programs, kubectl. Out: nothing that names a flag, a variable or a permission that is not there.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use xebec_tests::control::Control;
use xebec_tests::kubectl::Kubectl;
use xebec_tests::skip::skipped;

const TEST: &str = "deploy";
const AGENT: &str = "--as=system:serviceaccount:xebec-system:xebec-agent";

/// What the agent asks the API for: verbs, resource.
const NEEDS: &[(&[&str], &str)] = &[
    (&["create", "get", "list", "watch", "patch"], "nodes"),
    (&["patch"], "nodes/status"),
    (&["get", "list", "watch", "delete"], "pods"),
    (&["patch"], "pods/status"),
    (&["get", "list", "watch"], "configmaps"),
    (&["get", "list", "watch"], "secrets"),
    (&["get"], "serviceaccounts"),
    (&["create"], "serviceaccounts/token"),
    (&["list", "watch"], "namespaces"),
    (&["get", "list", "watch"], "services"),
    (&["create", "patch"], "events"),
    (&["create", "get", "list", "watch", "patch", "delete"], "endpointslices.discovery.k8s.io"),
    (&["create", "get", "list", "watch", "patch"], "leases.coordination.k8s.io"),
    (&["get", "list", "watch"], "runtimeclasses.node.k8s.io"),
    (&["create"], "tokenreviews.authentication.k8s.io"),
    (&["create"], "subjectaccessreviews.authorization.k8s.io"),
];

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").join("deploy")
}

fn program(name: &str) -> Option<PathBuf> {
    let folder = match std::env::var_os("XEBEC_BIN_DIR") {
        Some(folder) => PathBuf::from(folder),
        None => std::env::current_exe().ok()?.parent()?.parent()?.to_path_buf(),
    };
    Some(folder.join(name)).filter(|program| program.exists())
}

#[tokio::test]
async fn the_daemon_set_is_taken_and_its_permissions_suffice() {
    let Some(control) = Control::start(TEST).await else { return };
    let Some(kubectl) = Kubectl::find(&control.kubeconfig(), control.folder()) else {
        return skipped(TEST, "there is no kubectl: XEBEC_KUBECTL names none and PATH holds none");
    };
    let file = deploy().join("daemonset.yaml");
    let file = file.to_str().expect("text");
    // A dry run makes no namespace for what comes after it.
    kubectl.ok(&["create", "namespace", "xebec-system"]);
    let said = kubectl.ok(&["apply", "--dry-run=server", "--validate=strict", "-f", file]);
    assert_eq!(said.lines().filter(|line| line.ends_with("(server dry run)")).count(), 6, "{said}");
    kubectl.ok(&["apply", "-f", file]);
    for (verbs, resource) in NEEDS {
        for verb in *verbs {
            // `can-i` splits at a dot: the sub-resource is a flag of its own.
            let (resource, sub) = resource.split_once('/').unwrap_or((resource, ""));
            let sub = format!("--subresource={sub}");
            let may = kubectl.run(&["auth", "can-i", verb, resource, &sub, "--all-namespaces", AGENT]);
            assert_eq!(may.out, "yes", "{verb} {resource} {sub}: {may:?}");
        }
    }
    // And not what nobody needs.
    for (verb, resource) in
        [("delete", "nodes"), ("update", "secrets"), ("create", "pods"), ("delete", "services")]
    {
        let may = kubectl.run(&["auth", "can-i", verb, resource, "--all-namespaces", AGENT]);
        assert_eq!(may.out, "no", "{verb} {resource}");
    }
    let pod = kubectl.json(&["get", "daemonset", "xebec-agent", "-n", "xebec-system"]);
    let spec = &pod["spec"]["template"]["spec"];
    assert!(spec["hostNetwork"] == true && spec["hostPID"] == true, "{spec}");
    assert_eq!(spec["containers"][0]["securityContext"]["privileged"], true);
}

#[test]
fn every_variable_and_flag_is_the_programs() {
    let (Some(agent), Some(control)) = (program("xebec-agent"), program("xebec-control")) else {
        return skipped(TEST, "the programs are not built");
    };
    let help = |program: &Path, task: &str| {
        let out =
            Command::new(program).args([task, "--help"]).stdin(Stdio::null()).output().expect("it starts");
        String::from_utf8_lossy(&out.stdout).into_owned()
    };
    let (agent, control) = (help(&agent, "run"), help(&control, "run"));
    let text = std::fs::read_to_string(deploy().join("daemonset.yaml")).expect("a manifest");
    let words = text.split(|c: char| !(c.is_ascii_uppercase() || c == '_'));
    for variable in words.filter(|word| word.starts_with("XEBEC_")) {
        assert!(agent.contains(&format!("[env: {variable}=")), "{variable}");
    }
    assert!(agent.contains("--run-dir <DIR>") && control.contains("--data-dir <DIR>"));
    let readme = std::fs::read_to_string(deploy().with_file_name("README.md")).expect("a README");
    for variable in ["XEBEC_TOKEN", "XEBEC_REGISTRY_MIRROR"] {
        assert!(readme.contains(variable) && agent.contains(&format!("[env: {variable}")), "{variable}");
    }
}

#[test]
fn units_are_whole_and_keep_pods_alive() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut units = Vec::new();
    for entry in std::fs::read_dir(deploy().join("systemd")).expect("units").flatten() {
        let text = std::fs::read_to_string(entry.path()).expect("a unit");
        let name = entry.file_name().to_string_lossy().into_owned();
        let mut section = "";
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            if let Some(head) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
                section = head;
                continue;
            }
            let (key, value) = line.split_once('=').unwrap_or_else(|| panic!("{name}: {line}"));
            assert!(["Unit", "Service", "Install"].contains(&section), "{name}: {line}");
            assert!(!key.is_empty() && !value.is_empty(), "{name}: {line}");
        }
        for needed in
            ["[Unit]", "[Service]", "[Install]", "\nExecStart=/usr/local/bin/xebec-", "\nRestart=always\n"]
        {
            assert!(text.contains(needed), "{name} lacks {needed}");
        }
        // What systemd says about programs it does not find is not about the unit.
        let here = text
            .replace("/usr/local/bin/xebec-agent", "/bin/true")
            .replace("/usr/local/bin/xebec-control", "/bin/true");
        std::fs::write(folder.path().join(&name), here).expect("written");
        units.push((name, text));
    }
    units.sort();
    let names: Vec<&str> = units.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["xebec-agent.service", "xebec-control.service", "xebec-dns.service"]);
    assert!(units[0].1.contains("\nKillMode=process\n") && units[0].1.contains("\nDelegate=yes\n"));
    let paths = names.iter().map(|name| folder.path().join(name));
    match Command::new("systemd-analyze").args(["verify", "--man=no"]).args(paths).output() {
        Ok(out) => {
            let said = String::from_utf8_lossy(&out.stderr).into_owned();
            // It also tells of units of the machine itself.
            let ours: Vec<&str> = said.lines().filter(|line| line.contains("xebec-")).collect();
            assert!(ours.is_empty(), "{ours:?}");
        }
        Err(_) => skipped(TEST, "there is no systemd-analyze: units are only read"),
    }
}
