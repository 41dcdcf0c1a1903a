//! The process of a container: arguments, environment, user, limits.
//!
//! In: the configuration, the image's defaults, the resolved user. Out: the process part of the specification. Pure.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::{Component, Path, PathBuf};

use oci_spec::runtime::{Process, ProcessBuilder, UserBuilder};

use super::{Facts, capabilities};
use crate::error::RuntimeError;
use crate::types::{ContainerConfig, Image};

/// Of the image and the pod together: the kernel gives a new program no more for arguments and environment, by default.
const MAX_ENVIRONMENT: usize = 2 << 20;
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

pub(super) fn build(config: &ContainerConfig, facts: &Facts) -> Result<Process, RuntimeError> {
    let user = UserBuilder::default()
        .uid(facts.user.uid)
        .gid(facts.user.gid)
        .additional_gids(facts.user.groups.clone())
        .build()?;
    let mut process = ProcessBuilder::default()
        .terminal(config.tty)
        .user(user)
        .args(arguments(&config.command, &config.args, &config.image).map_err(RuntimeError::Config)?)
        .env(environment(&config.image.env, &config.env, config.tty).map_err(RuntimeError::Config)?)
        .cwd(working_dir(&config.working_dir, &config.image.working_dir).map_err(RuntimeError::Config)?)
        .capabilities(capabilities::build(&config.security, facts.host.capabilities)?)
        .no_new_privileges(config.security.no_new_privileges)
        .build()?;
    // As containerd's CRI does: the limits are those of containerd itself.
    process.set_rlimits(None);
    process.set_oom_score_adj(clamp(config.resources.oom_score_adj, facts.host.lowest_oom_score_adj));
    Ok(process)
}

/// `command` replaces the entrypoint and silences the image's cmd; `args` replaces the cmd.
pub(super) fn arguments(command: &[String], args: &[String], image: &Image) -> Result<Vec<String>, String> {
    let all = match (command.is_empty(), args.is_empty()) {
        (true, true) => [image.entrypoint.as_slice(), &image.cmd].concat(),
        (true, false) => [&image.entrypoint, args].concat(),
        (false, _) => [command, args].concat(),
    };
    if all.is_empty() {
        return Err("no command specified: neither the pod nor the image names one".into());
    }
    Ok(all)
}

/// The image's environment, then the pod's: a later entry of the same name replaces the earlier in its place.
pub(super) fn environment(
    image: &[String],
    pod: &[(String, String)],
    tty: bool,
) -> Result<Vec<String>, String> {
    let own = [("PATH", DEFAULT_PATH), ("TERM", "xterm")];
    let own = own.into_iter().take(if tty { 2 } else { 1 });
    let image = image.iter().map(|entry| entry.split_once('=').unwrap_or((entry, "")));
    let pod = pod.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let mut merged: Vec<(&str, &str)> = Vec::new();
    let mut places: HashMap<&str, usize> = HashMap::new();
    let mut size = 0;
    for (name, value) in own.chain(image).chain(pod) {
        size += name.len() + value.len() + 2;
        if size > MAX_ENVIRONMENT {
            return Err(format!("the environment is larger than {MAX_ENVIRONMENT} bytes"));
        }
        match places.entry(name) {
            Entry::Occupied(place) => merged[*place.get()].1 = value,
            Entry::Vacant(place) => {
                place.insert(merged.len());
                merged.push((name, value));
            }
        }
    }
    Ok(merged.into_iter().map(|(name, value)| format!("{name}={value}")).collect())
}

/// A working directory below `/proc` can be a leaked file descriptor (CVE-2024-21626).
fn working_dir(pod: &str, image: &str) -> Result<PathBuf, String> {
    let chosen = [pod, image].into_iter().find(|dir| !dir.is_empty()).unwrap_or("/");
    let mut clean = PathBuf::from("/");
    for component in Path::new(chosen).components() {
        match component {
            Component::Normal(part) => clean.push(part),
            Component::ParentDir => {
                clean.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    if clean.starts_with("/proc") {
        return Err(format!("working directory {chosen:?}: must not be below /proc"));
    }
    Ok(clean)
}

fn clamp(wanted: Option<i32>, lowest: Option<i32>) -> Option<i32> {
    wanted.map(|wanted| lowest.map_or(wanted, |lowest| wanted.max(lowest)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::tests::config;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn command_and_args_combine_with_the_image() {
        let mut image = config().image;
        (image.entrypoint, image.cmd) = (words("ent"), words("c1 c2"));
        for (command, args, all) in
            [("", "", "ent c1 c2"), ("", "a", "ent a"), ("cmd", "", "cmd"), ("cmd x", "a b", "cmd x a b")]
        {
            assert_eq!(arguments(&words(command), &words(args), &image), Ok(words(all)));
        }
        (image.entrypoint, image.cmd) = (Vec::new(), Vec::new());
        assert!(arguments(&[], &[], &image).is_err());
    }

    #[test]
    fn later_entries_of_the_environment_win() {
        let image = ["PATH=/bin".to_owned(), "A=1".into(), "B=x=y".into(), "BARE".into()];
        let pod = [("A".to_owned(), "2".to_owned()), ("C".into(), "3".into()), ("C".into(), "4".into())];
        let merged = environment(&image, &pod, false).unwrap();
        assert_eq!(merged, ["PATH=/bin", "A=2", "B=x=y", "BARE=", "C=4"]);
        let merged = environment(&[], &[], true).unwrap();
        assert_eq!(merged, [&format!("PATH={DEFAULT_PATH}"), "TERM=xterm"]);
    }

    #[test]
    fn a_hostile_images_environment_is_refused_at_once() {
        let image: Vec<String> = (0..150_000).map(|i| format!("N{i}=")).collect();
        let began = std::time::Instant::now();
        assert_eq!(environment(&image, &[], false).unwrap().len(), 150_001);
        // Comparing each name with all before it takes minutes.
        assert!(began.elapsed().as_secs() < 20, "{:?}", began.elapsed());
        let large = vec!["N=".to_owned() + &"x".repeat(MAX_ENVIRONMENT)];
        let why = environment(&large, &[], false).unwrap_err();
        assert!(why.contains("environment is larger"), "{why}");
    }

    #[test]
    fn the_working_directory_is_cleaned_and_never_below_proc() {
        assert_eq!(working_dir("", ""), Ok("/".into()));
        assert_eq!(working_dir("", "/srv"), Ok("/srv".into()));
        assert_eq!(working_dir("data/./x", "/srv"), Ok("/data/x".into()));
        assert_eq!(working_dir("/../../a", ""), Ok("/a".into()));
        for bad in ["/proc/self/fd/8", "/a/../proc/1/cwd", "//proc/self", "proc"] {
            assert!(working_dir(bad, "").is_err(), "{bad}");
        }
        assert_eq!(working_dir("/process", ""), Ok("/process".into()));
    }

    #[test]
    fn oom_score_is_raised_to_what_can_be_set() {
        assert_eq!(clamp(Some(-997), Some(0)), Some(0));
        assert_eq!(clamp(Some(-997), None), Some(-997));
        assert_eq!(clamp(Some(1000), Some(0)), Some(1000));
        assert_eq!(clamp(None, Some(0)), None);
    }
}
