//! Containers on a real containerd: run, look, signal, execute, remove.
//!
//! In: an image of busybox. Out: what the trait promises, checked from outside where that is possible.

use std::fs;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use xebec_runtime::error::RuntimeError;
use xebec_runtime::types::{
    ContainerKey, ContainerRuntime, ContainerState, Mount, MountPropagation, Resources, RuntimeEvent,
};
use xebec_tests::runtime::{Fixture, next_event};

const SINK: &str = env!("CARGO_BIN_EXE_log-sink");
const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread")]
async fn a_container_runs_to_its_end() -> Result<()> {
    let Some(node) = Fixture::start("a_container_runs_to_its_end", SINK).await? else { return Ok(()) };
    let image = node.pull().await?;
    let mut config = node.config("main", &image, "echo out; echo err >&2; echo $GREETING; exit 3")?;
    config.env = vec![("GREETING".into(), "hello".into())];
    let before = SystemTime::now();
    let (id, state) = node.run(&config).await?;
    let ContainerState::Exited { code, started_at, finished_at, oom_killed, .. } = state else {
        anyhow::bail!("{state:?}")
    };
    assert_eq!((code, oom_killed), (3, false));
    let started_at = started_at.context("the start is known")?;
    assert!(before <= started_at && started_at <= finished_at, "{before:?} {started_at:?} {finished_at:?}");
    assert_eq!(node.logged("main", "hello").await?.len(), 3);
    assert_eq!(node.log("main", "stdout")?, ["out", "hello"]);
    assert_eq!(node.log("main", "stderr")?, ["err"]);
    let found = node.runtime.container(&id).await?.context("it is there")?;
    assert_eq!(found.key, config.key);
    assert_eq!(found.labels, config.labels);
    assert_eq!(found.image_name, "docker.io/library/busybox:latest");
    assert_eq!(found.image_id, image.id);
    ensure!(node.runtime.version().await?.starts_with("containerd://"));
    node.leaves_nothing().await?;
    assert_eq!(node.runtime.container(&id).await?, None);
    node.runtime.remove(&id).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn signals_reach_the_process() -> Result<()> {
    let Some(node) = Fixture::start("signals_reach_the_process", SINK).await? else { return Ok(()) };
    let image = node.pull().await?;
    let script = "trap 'echo got; exit 7' TERM; echo ready; while :; do sleep 0.1; done";
    let id = node.runtime.create(&node.config("polite", &image, script)?).await?;
    assert_eq!(node.runtime.container(&id).await?.context("made")?.state, ContainerState::Created);
    node.runtime.start(&id).await?;
    node.logged("polite", "ready").await?;
    node.runtime.signal(&id, libc::SIGTERM).await?;
    let ContainerState::Exited { code, .. } = node.exited(&id).await? else { unreachable!() };
    assert_eq!(code, 7);
    node.runtime.signal(&id, libc::SIGTERM).await.context("nothing is left to signal")?;
    let stubborn = node.config("stubborn", &image, "trap '' TERM; echo ready; while :; do sleep 1; done")?;
    let id = node.runtime.create(&stubborn).await?;
    node.runtime.start(&id).await?;
    node.logged("stubborn", "ready").await?;
    node.runtime.signal(&id, libc::SIGTERM).await?;
    let state = node.runtime.container(&id).await?.context("it is there")?.state;
    ensure!(matches!(state, ContainerState::Running { .. }), "{state:?}");
    node.runtime.signal(&id, libc::SIGKILL).await?;
    let ContainerState::Exited { code, .. } = node.exited(&id).await? else { unreachable!() };
    assert_eq!(code, 137);
    node.leaves_nothing().await
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_are_executed_inside() -> Result<()> {
    let Some(node) = Fixture::start("commands_are_executed_inside", SINK).await? else { return Ok(()) };
    let image = node.pull().await?;
    let mut config = node.config("main", &image, "echo here > /tmp/mark; exec sleep 100")?;
    config.security.run_as_user = Some(33);
    config.security.no_new_privileges = true;
    let id = node.runtime.create(&config).await?;
    node.runtime.start(&id).await?;
    let exec = |script: &str, limit| {
        let command = ["sh".to_owned(), "-c".into(), script.to_owned()];
        let (runtime, id) = (node.runtime.clone(), id.clone());
        async move { runtime.exec(&id, &command, limit).await }
    };
    let answer = exec("echo $0 out; echo err >&2; id -u; exit 5", 10 * SECOND).await?;
    assert_eq!(answer.exit_code, 5);
    let mut lines: Vec<&[u8]> = answer.output.split_inclusive(|byte| *byte == b'\n').collect();
    // The streams are two pipes: between them there is no order.
    lines.sort_unstable();
    assert_eq!(lines, [&b"33\n"[..], b"err\n", b"sh out\n"]);
    let large = exec("yes | head -c 1000000; exit 0", 10 * SECOND).await?;
    assert_eq!((large.exit_code, large.output.len()), (0, 16 << 10));
    let begin = std::time::Instant::now();
    let late = exec("sleep 60", SECOND / 2).await;
    ensure!(matches!(late, Err(RuntimeError::Timeout { call: "exec", .. })), "{late:?}");
    ensure!(begin.elapsed() < 5 * SECOND, "{:?}", begin.elapsed());
    let left = exec("for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline; echo; done", 10 * SECOND).await?;
    let left = String::from_utf8_lossy(&left.output).into_owned();
    ensure!(left.lines().any(|line| line == "sleep 100 "), "{left}");
    ensure!(!left.contains("sleep 60"), "the late command was killed: {left}");
    let background = exec("sleep 5 & echo started", 10 * SECOND).await?;
    assert_eq!(background.output, b"started\n", "a child that keeps the stream holds nobody up");
    let missing = node.runtime.exec(&id, &["/no/such".into()], SECOND).await;
    ensure!(missing.as_ref().is_err_and(|error| error.to_string().contains("no such file")), "{missing:?}");
    ensure!(fs::read_dir(node.containerd.path("run/exec"))?.next().is_none(), "folders of commands stay");
    node.leaves_nothing().await
}

#[tokio::test(flavor = "multi_thread")]
async fn events_tell_what_happens() -> Result<()> {
    let Some(node) = Fixture::start("events_tell_what_happens", SINK).await? else { return Ok(()) };
    let image = node.pull().await?;
    let mut events = node.runtime.events();
    let first = tokio::time::timeout(20 * SECOND, events.recv()).await?;
    assert_eq!(first, Some(RuntimeEvent::Gap), "a stream begins with a gap");
    let config = node.config("main", &image, "sleep 0.2")?;
    let id = node.runtime.create(&config).await?;
    node.runtime.start(&id).await?;
    next_event(&mut events, |event| *event == RuntimeEvent::Started { id: id.clone() }).await?;
    node.runtime.exec(&id, &["true".into()], SECOND).await?;
    let exited = next_event(&mut events, |event| matches!(event, RuntimeEvent::Exited { .. })).await?;
    assert_eq!(exited, RuntimeEvent::Exited { id: id.clone() }, "not the exit of the command");
    let state = node.runtime.container(&id).await?.context("it is there")?.state;
    ensure!(matches!(state, ContainerState::Exited { code: 0, .. }), "known as soon as told: {state:?}");
    node.leaves_nothing().await
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_beyond_the_limit_kills() -> Result<()> {
    let Some(node) = Fixture::start("memory_beyond_the_limit_kills", SINK).await? else { return Ok(()) };
    let image = node.pull().await?;
    let mut config = node.config("hungry", &image, "exec tail /dev/zero")?;
    config.resources = Resources {
        memory_limit: Some(32 << 20),
        cpu_shares: Some(256),
        cpu_quota: Some(100_000),
        cpu_period: Some(100_000),
        oom_score_adj: Some(-998),
        pids_limit: Some(50),
    };
    let (id, state) = node.run(&config).await?;
    let ContainerState::Exited { code, oom_killed, .. } = state else { anyhow::bail!("{state:?}") };
    assert_eq!((code, oom_killed), (137, true));
    let after = node.restarted().await?.container(&id).await?.context("it is there")?.state;
    ensure!(matches!(after, ContainerState::Exited { code: 137, oom_killed: true, .. }), "{after:?}");
    node.leaves_nothing().await
}

#[tokio::test(flavor = "multi_thread")]
async fn defaults_confine() -> Result<()> {
    let Some(node) = Fixture::start("defaults_confine", SINK).await? else { return Ok(()) };
    let image = node.pull().await?;
    let folder = node.containerd.path("volume");
    fs::create_dir(&folder)?;
    let script = "grep -E 'CapEff|CapInh|NoNewPrivs|Seccomp:' /proc/self/status; id; \
        mount -t tmpfs x /tmp 2>&1; echo kcore $(cat /proc/kcore | wc -c); echo fds $(ls /proc/self/fd); \
        (echo x > /proc/sys/kernel/hostname) 2>&1; (echo lost > /bin/new) 2>&1; \
        (echo lost > /sys/kernel/profiling) 2>&1; echo kept > /volume/file; cat /volume/file";
    let mut config = node.config("main", &image, script)?;
    config.security.no_new_privileges = true;
    config.security.read_only_root_filesystem = true;
    config.security.supplemental_groups = vec![77];
    config.security.drop_capabilities = vec!["NET_RAW".into()];
    config.mounts = vec![Mount {
        host_path: folder.clone(),
        container_path: "/volume".into(),
        read_only: false,
        propagation: MountPropagation::Private,
    }];
    node.run(&config).await?;
    let log = node.logged("main", "kept").await?.join("\n");
    for expected in [
        "CapInh:\t0000000000000000",
        "CapEff:\t00000000a80405fb",
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
        "uid=0(root) gid=0(root) groups=0(root),77",
        "mount: permission denied",
        "kcore 0",
        "fds 0 1 2 3",
        "/proc/sys/kernel/hostname: Read-only file system",
        "/bin/new: Read-only file system",
        "/sys/kernel/profiling: Read-only file system",
    ] {
        ensure!(log.contains(expected), "{expected:?} is not in:\n{log}");
    }
    assert_eq!(fs::read_to_string(folder.join("file"))?, "kept\n");
    let mut privileged =
        node.config("privileged", &image, "mount -t tmpfs x /tmp && echo mounted; ls /dev | wc -l")?;
    privileged.security.privileged = true;
    node.run(&privileged).await?;
    node.logged("privileged", "mounted").await?;
    node.leaves_nothing().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_runc_refuses_ends_as_128() -> Result<()> {
    let Some(node) = Fixture::start("what_runc_refuses_ends_as_128", SINK).await? else { return Ok(()) };
    let image = node.pull().await?;
    let mut config = node.config("main", &image, "")?;
    config.command = vec!["/no/such/program".into()];
    let id = node.runtime.create(&config).await?;
    let refusal = node.runtime.start(&id).await.expect_err("there is no such program").to_string();
    ensure!(refusal.contains("failed to create containerd task"), "{refusal}");
    ensure!(refusal.contains("no such file or directory"), "{refusal}");
    let state = node.restarted().await?.container(&id).await?.context("it is there")?.state;
    ensure!(matches!(state, ContainerState::Exited { code: 128, started_at: None, .. }), "{state:?}");
    ensure!(node.runtime.start(&id).await.is_err(), "again");
    let mut root = node.config("root", &image, "true")?;
    root.security.run_as_non_root = true;
    let refused = node.runtime.create(&root).await;
    ensure!(
        matches!(&refused, Err(RuntimeError::Config(reason)) if reason.contains("image will run as root")),
        "{refused:?}"
    );
    node.leaves_nothing().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_combines_the_streams() -> Result<()> {
    let Some(node) = Fixture::start("a_terminal_combines_the_streams", SINK).await? else { return Ok(()) };
    let image = node.pull().await?;
    let mut config = node.config("main", &image, "test -t 1 && echo tty; echo err >&2; echo $TERM")?;
    config.tty = true;
    node.run(&config).await?;
    node.logged("main", "xterm\r").await?;
    assert_eq!(node.log("main", "stdout")?, ["tty\r", "err\r", "xterm\r"]);
    assert_eq!(node.log("main", "stderr")?.len(), 0);
    node.leaves_nothing().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pid_namespace_can_be_joined() -> Result<()> {
    let Some(node) = Fixture::start("a_pid_namespace_can_be_joined", SINK).await? else { return Ok(()) };
    let image = node.pull().await?;
    let first = node.runtime.create(&node.config("first", &image, "exec sleep 1234")?).await?;
    node.runtime.start(&first).await?;
    let mut second = node.config("second", &image, "tr '\\0' ' ' < /proc/1/cmdline; echo")?;
    second.sandbox.pid_of = Some(first);
    node.run(&second).await?;
    node.logged("second", "sleep 1234 ").await?;
    node.leaves_nothing().await
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_containers_at_once() -> Result<()> {
    let Some(node) = Fixture::start("twenty_containers_at_once", SINK).await? else { return Ok(()) };
    let image = node.pull().await?;
    let mut running = Vec::new();
    for attempt in 0..20 {
        let mut config = node.config("main", &image, "exec sleep 100")?;
        config.key = ContainerKey { attempt, ..config.key };
        let runtime = node.runtime.clone();
        running.push(tokio::spawn(async move {
            let id = runtime.create(&config).await?;
            runtime.start(&id).await?;
            anyhow::Ok(id)
        }));
    }
    for container in running {
        container.await??;
    }
    let found = node.runtime.containers().await?;
    assert_eq!(found.len(), 20);
    ensure!(found.iter().all(|c| matches!(c.state, ContainerState::Running { .. })), "{found:?}");
    let mut attempts: Vec<u32> = found.iter().map(|container| container.key.attempt).collect();
    attempts.sort_unstable();
    assert_eq!(attempts, (0..20).collect::<Vec<_>>());
    node.leaves_nothing().await
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_are_in_the_containers_cgroup() -> Result<()> {
    let Some(node) = Fixture::start("limits_are_in_the_containers_cgroup", SINK).await? else {
        return Ok(());
    };
    let image = node.pull().await?;
    let mut config = node.config("main", &image, "exec sleep 100")?;
    config.resources = Resources {
        memory_limit: Some(64 << 20),
        cpu_shares: Some(512),
        cpu_quota: Some(50_000),
        cpu_period: Some(100_000),
        oom_score_adj: None,
        pids_limit: Some(33),
    };
    let id = node.runtime.create(&config).await?;
    node.runtime.start(&id).await?;
    let cgroup = format!("{}/pod1/{}", node.containerd.cgroup.trim_start_matches('/'), id.0);
    let root = std::path::Path::new("/sys/fs/cgroup");
    // Version 1 has a hierarchy per controller, version 2 one for all; shares become a weight there.
    for (v1, v2, old, new) in [
        ("memory", "memory.max", ("memory.limit_in_bytes", "67108864"), "67108864"),
        ("cpu", "cpu.max", ("cpu.cfs_quota_us", "50000"), "50000 100000"),
        ("cpu", "cpu.weight", ("cpu.shares", "512"), "20"),
        ("pids", "pids.max", ("pids.max", "33"), "33"),
    ] {
        let unified = root.join(&cgroup).join(v2);
        let (file, expected) =
            if unified.exists() { (unified, new) } else { (root.join(v1).join(&cgroup).join(old.0), old.1) };
        let found = fs::read_to_string(&file).with_context(|| format!("{}", file.display()))?;
        assert_eq!(found.trim(), expected, "{}", file.display());
    }
    node.leaves_nothing().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_ignores_signals_is_removed() -> Result<()> {
    let Some(node) = Fixture::start("a_container_that_ignores_signals_is_removed", SINK).await? else {
        return Ok(());
    };
    let image = node.pull().await?;
    let script = "trap '' TERM INT HUP; (trap '' TERM; sleep 1000) & echo ready; while :; do sleep 1; done";
    let id = node.runtime.create(&node.config("main", &image, script)?).await?;
    node.runtime.start(&id).await?;
    node.logged("main", "ready").await?;
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
        node.runtime.signal(&id, signal).await?;
    }
    let late = node.runtime.exec(&id, &["true".into()], 10 * SECOND).await?;
    assert_eq!(late.exit_code, 0, "it is still there");
    node.runtime.remove(&id).await?;
    assert_eq!(node.runtime.container(&id).await?, None);
    let refused = node.runtime.exec(&id, &["true".into()], SECOND).await;
    ensure!(refused.as_ref().is_err_and(|error| error.to_string().contains("not found")), "{refused:?}");
    node.leaves_nothing().await
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_run_side_by_side() -> Result<()> {
    let Some(node) = Fixture::start("commands_run_side_by_side", SINK).await? else { return Ok(()) };
    let image = node.pull().await?;
    let id = node.runtime.create(&node.config("main", &image, "exec sleep 100")?).await?;
    node.runtime.start(&id).await?;
    let mut running = Vec::new();
    for number in 0..10 {
        let (runtime, id) = (node.runtime.clone(), id.clone());
        running.push(tokio::spawn(async move {
            let command = ["sh".to_owned(), "-c".into(), format!("sleep 0.1; echo {number}; exit {number}")];
            runtime.exec(&id, &command, 20 * SECOND).await
        }));
    }
    for (number, command) in (0..).zip(running) {
        let answer = command.await??;
        assert_eq!((answer.exit_code, answer.output), (number, format!("{number}\n").into_bytes()));
    }
    node.leaves_nothing().await
}
