//! Logs through the sink process that containerd's shim starts.
//!
//! In: containers that write much, long, to both streams, or while things happen. Out: log files without a lost, doubled
//! or torn entry, within their limits.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use xebec_runtime::types::ContainerRuntime;
use xebec_tests::runtime::{Fixture, entries};

const SINK: &str = env!("CARGO_BIN_EXE_log-sink");

#[tokio::test(flavor = "multi_thread")]
async fn a_line_of_ten_megabytes_is_kept_in_parts() -> Result<()> {
    let Some(node) = Fixture::start("a_line_of_ten_megabytes_is_kept_in_parts", SINK).await? else {
        return Ok(());
    };
    let image = node.pull().await?;
    let script = "head -c 10485760 /dev/zero | tr '\\0' x; echo; printf unfinished";
    let mut config = node.config("main", &image, script)?;
    config.log_max_size = 64 << 20;
    node.run(&config).await?;
    node.logged("main", "unfinished").await?;
    let log = fs::read_to_string(node.log_path("main"))?;
    let parts: Vec<(&str, &str)> = log
        .lines()
        .map(|line| {
            line.split_once(" stdout ").and_then(|(_, entry)| entry.split_once(' ')).unwrap_or_default()
        })
        .collect();
    let (unfinished, line) = parts.split_last().context("there are entries")?;
    assert_eq!(*unfinished, ("P", "unfinished"), "a last line without its end is seen all the same");
    assert_eq!(line.len(), (10 << 20) / (16 << 10));
    ensure!(line.iter().all(|(_, text)| text.len() == 16 << 10 && text.bytes().all(|byte| byte == b'x')));
    let (last, rest) = line.split_last().context("there are parts")?;
    ensure!(last.0 == "F" && rest.iter().all(|(tag, _)| *tag == "P"), "only the last part ends the line");
    node.leaves_nothing().await
}

#[tokio::test(flavor = "multi_thread")]
async fn files_rotate_at_the_byte_limit_and_lose_nothing() -> Result<()> {
    let Some(node) = Fixture::start("files_rotate_at_the_byte_limit_and_lose_nothing", SINK).await? else {
        return Ok(());
    };
    let image = node.pull().await?;
    let mut config = node.config("main", &image, "seq 1 20000; echo end")?;
    (config.log_max_size, config.log_max_files) = (300_000, 5);
    node.run(&config).await?;
    node.logged("main", "end").await?;
    let files = log_files(&node, "main")?;
    assert_eq!(files.len(), 4, "{files:?}: 20 000 entries of 41 bytes and their numbers");
    let mut log = Vec::new();
    for file in &files {
        ensure!(fs::metadata(file)?.len() <= 300_000, "{file:?} is too large");
        log.extend(entries(file, "stdout")?);
    }
    let expected: Vec<String> = (1..=20_000).map(|i| i.to_string()).chain(["end".to_owned()]).collect();
    ensure!(log == expected, "lost, doubled or out of order: {} entries", log.len());
    let mut config = node.config("short", &image, "seq 1 20000; echo end")?;
    (config.log_max_size, config.log_max_files) = (100_000, 2);
    node.run(&config).await?;
    node.logged("short", "end").await?;
    assert_eq!(log_files(&node, "short")?.len(), 2, "older ones are removed");
    node.leaves_nothing().await
}

#[tokio::test(flavor = "multi_thread")]
async fn both_streams_keep_their_lines_whole() -> Result<()> {
    let Some(node) = Fixture::start("both_streams_keep_their_lines_whole", SINK).await? else {
        return Ok(());
    };
    let image = node.pull().await?;
    let script = "seq 1 30000 & seq 30001 60000 >&2; wait; echo end";
    node.run(&node.config("main", &image, script)?).await?;
    node.logged("main", "end").await?;
    let expected = |from: u32, to: u32| (from..=to).map(|i| i.to_string()).collect::<Vec<_>>();
    let mut stdout = node.log("main", "stdout")?;
    assert_eq!(stdout.pop().as_deref(), Some("end"));
    ensure!(stdout == expected(1, 30_000), "stdout: {} entries", stdout.len());
    let stderr = node.log("main", "stderr")?;
    ensure!(stderr == expected(30_001, 60_000), "stderr: {} entries", stderr.len());
    node.leaves_nothing().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_belongs_to_its_container_and_not_to_the_agent() -> Result<()> {
    let Some(node) = Fixture::start("a_sink_belongs_to_its_container_and_not_to_the_agent", SINK).await?
    else {
        return Ok(());
    };
    let image = node.pull().await?;
    let script = "i=0; while test $i -lt 60; do echo $i; i=$((i+1)); sleep 0.02; done; echo end";
    let id = node.runtime.create(&node.config("main", &image, script)?).await?;
    node.runtime.start(&id).await?;
    let all = node.containerd.processes();
    let (sink, _) =
        all.iter().find(|(_, line)| line.contains("log-sink 2:shim:")).context("there is a sink")?;
    let mut ancestor = *sink;
    while ancestor > 1 {
        assert_ne!(ancestor, i32::try_from(std::process::id())?, "it would end with its ancestor's group");
        ancestor = parent(ancestor)?;
    }
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        kill(Pid::from_raw(*sink), signal)?;
    }
    node.exited(&id).await?;
    let log = node.logged("main", "end").await?;
    let expected: Vec<String> = (0..60).map(|i| i.to_string()).chain(["end".to_owned()]).collect();
    assert_eq!(log, expected);
    node.leaves_nothing().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_goes_on_when_its_log_folder_is_gone() -> Result<()> {
    let Some(node) = Fixture::start("a_container_goes_on_when_its_log_folder_is_gone", SINK).await? else {
        return Ok(());
    };
    let image = node.pull().await?;
    let script =
        "echo ready; while ! test -e /volume/go; do sleep 0.02; done; seq 1 50000; touch /volume/done";
    let volume = node.containerd.path("volume");
    fs::create_dir(&volume)?;
    let mut config = node.config("main", &image, script)?;
    config.log_max_size = 50_000;
    config.mounts = vec![xebec_runtime::types::Mount {
        host_path: volume.clone(),
        container_path: "/volume".into(),
        read_only: false,
        propagation: xebec_runtime::types::MountPropagation::Private,
    }];
    let id = node.runtime.create(&config).await?;
    node.runtime.start(&id).await?;
    node.logged("main", "ready").await?;
    fs::remove_dir_all(node.log_path("main").parent().context("a log has a folder")?)?;
    fs::write(volume.join("go"), "")?;
    node.exited(&id).await.context("nobody blocks it")?;
    ensure!(volume.join("done").exists(), "it was not stopped by its output");
    node.leaves_nothing().await
}

/// A container's log files, the oldest first.
fn log_files(node: &Fixture, name: &str) -> Result<Vec<PathBuf>> {
    let current = node.log_path(name);
    let folder = current.parent().context("a log has a folder")?;
    let mut files: Vec<PathBuf> =
        fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    files.retain(|file| *file != current);
    files.sort();
    files.push(current);
    Ok(files)
}

fn parent(process: i32) -> Result<i32> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let parent =
        status.lines().find_map(|line| line.strip_prefix("PPid:")).context("a process has a parent")?;
    Ok(parent.trim().parse()?)
}
