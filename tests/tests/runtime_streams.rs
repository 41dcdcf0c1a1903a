//! Streams of containers and commands: stdin, terminals, whoever is attached.
//!
//! In: containers with and without stdin and terminals. Out: bytes both ways, ends that are seen, sinks that come back,
//! and nothing left.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use xebec_runtime::types::{ContainerId, ContainerRuntime, ContainerState};
use xebec_runtime::{Attached, ExecRequest};
use xebec_tests::runtime::Fixture;

const SINK: &str = env!("CARGO_BIN_EXE_log-sink");
const PATIENCE: Duration = Duration::from_secs(20);
/// How long clients that do not read may hold a container up, however many they are: a second for those that take nothing;
/// who reads half as fast as is asked for uses that second up in two.
const LONGEST_STALL: Duration = Duration::from_secs(4);

async fn started(node: &Fixture, name: &str, script: &str, stdin: bool, tty: bool) -> Result<ContainerId> {
    let image = node.pull().await?;
    let mut config = node.config(name, &image, script)?;
    (config.stdin, config.tty) = (stdin, tty);
    let id = node.runtime.create(&config).await?;
    node.runtime.start(&id).await?;
    Ok(id)
}

fn command(script: &str) -> ExecRequest {
    let command = vec!["sh".into(), "-c".into(), script.into()];
    ExecRequest { command, stdin: true, stdout: true, stderr: true, tty: false }
}

/// What comes until the text has come.
async fn shown(attached: &mut Attached, text: &str) -> Result<String> {
    let mut all = String::new();
    let mut looked_at = 0;
    // Only what is new is looked at: a reader that grows slower by what it has read would be cut off.
    while !all[looked_at..].contains(text) {
        looked_at = all.len().saturating_sub(text.len());
        let tail = |all: &str| all[all.len().saturating_sub(200)..].to_owned();
        let piece = timeout(PATIENCE, attached.output.recv()).await.with_context(|| tail(&all))?;
        let (_, text) = piece.with_context(|| format!("the end after {}", tail(&all)))??;
        all.push_str(&String::from_utf8_lossy(&text));
    }
    Ok(all)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_has_streams_of_its_own_and_an_exit_code() -> Result<()> {
    let Some(node) = Fixture::start("a_command_has_streams_of_its_own_and_an_exit_code", SINK).await? else {
        return Ok(());
    };
    let id = started(&node, "main", "sleep 600", false, false).await?;
    for round in 0..20 {
        let mut exec = node.runtime.open_exec(&id, &command("cat; echo err >&2; exit 4")).await?;
        let (mut stdin, mut stdout, mut stderr) = (
            exec.stdin.take().context("stdin")?,
            exec.stdout.take().context("stdout")?,
            exec.stderr.take().context("stderr")?,
        );
        let text = format!("round {round}");
        // At once: what is written before the shim reads must not be lost.
        stdin.write_all(text.as_bytes()).await?;
        drop(stdin);
        exec.close_stdin().await;
        let (mut out, mut err) = (String::new(), String::new());
        timeout(PATIENCE, stdout.read_to_string(&mut out)).await??;
        timeout(PATIENCE, stderr.read_to_string(&mut err)).await??;
        assert_eq!((out, err.as_str()), (text, "err\n"));
        assert_eq!(exec.wait().await?, 4);
        exec.end().await;
    }
    let exec = node.runtime.open_exec(&id, &command("sleep 600")).await?;
    exec.end().await;
    let look =
        "for f in /proc/[0-9]*/cmdline; do read -r line < $f; case $line in sleep*) echo left;; esac; done";
    let left = node.runtime.exec(&id, &["sh".into(), "-c".into(), look.into()], PATIENCE).await?;
    let left = String::from_utf8_lossy(&left.output).matches("left").count();
    assert_eq!(left, 1, "only the container's own is left");
    let missing = ExecRequest { command: vec!["no-such".into()], ..ExecRequest::default() };
    let error = node.runtime.open_exec(&id, &missing).await.err().context("no such program")?;
    ensure!(error.to_string().contains("no-such"), "{error}");
    node.leaves_nothing().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_with_stdin_hears_and_is_heard() -> Result<()> {
    let Some(node) = Fixture::start("a_container_with_stdin_hears_and_is_heard", SINK).await? else {
        return Ok(());
    };
    let id = started(&node, "main", "while read w; do echo heard $w; done; echo over", true, false).await?;
    let mut first = node.runtime.attach(&id, true, true).await?;
    let mut second = node.runtime.attach(&id, false, false).await?;
    first.stdin.as_mut().context("stdin")?.write_all(b"one\n").await?;
    shown(&mut first, "heard one\n").await?;
    shown(&mut second, "heard one\n").await?;
    drop(second);
    drop(first.stdin.take());
    first.control.input_ended().await;
    shown(&mut first, "over\n").await?;
    ensure!(timeout(PATIENCE, first.output.recv()).await?.is_none(), "the end of the container is the end");
    let ended = node.exited(&id).await?;
    ensure!(matches!(ended, ContainerState::Exited { code: 0, .. }), "{ended:?}");
    assert_eq!(node.logged("main", "over").await?, ["heard one", "over"]);
    node.leaves_nothing().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_that_was_killed_is_replaced_and_nothing_is_lost() -> Result<()> {
    let Some(node) = Fixture::start("a_sink_that_was_killed_is_replaced_and_nothing_is_lost", SINK).await?
    else {
        return Ok(());
    };
    let id = started(&node, "main", "while read w; do echo heard $w; done", true, false).await?;
    let mut attached = node.runtime.attach(&id, true, false).await?;
    let stdin = attached.stdin.as_mut().context("stdin")?;
    stdin.write_all(b"one\n").await?;
    node.logged("main", "heard one").await?;
    let sinks = sinks_of(&node)?;
    assert_eq!(sinks.len(), 1);
    kill(Pid::from_raw(sinks[0]), Signal::SIGKILL)?;
    stdin.write_all(b"two\n").await?;
    let restarted = node.restarted().await?;
    node.logged("main", "heard two").await?;
    let mut again = restarted.attach(&id, true, false).await?;
    again.stdin.as_mut().context("stdin")?.write_all(b"three\n").await?;
    shown(&mut again, "heard three\n").await?;
    assert_eq!(node.logged("main", "heard three").await?, ["heard one", "heard two", "heard three"]);
    drop((attached, again));
    node.runtime.remove(&id).await?;
    let gone = async {
        while !sinks_of(&node)?.is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok::<_, anyhow::Error>(())
    };
    timeout(PATIENCE, gone).await.context("the sink ends with its container")??;
    node.leaves_nothing().await
}

/// Sinks that were started here, not by containerd's shim, for containers of a node.
fn sinks_of(node: &Fixture) -> Result<Vec<i32>> {
    let folder = node.containerd.path("").display().to_string();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line);
        if line.contains("log-sink")
            && line.contains(folder.trim_end_matches('/'))
            && (line.contains("2:agent:") || line.contains("2:adopted:"))
        {
            found.push(pid);
        }
    }
    Ok(found)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_has_the_size_it_is_told() -> Result<()> {
    let Some(node) = Fixture::start("a_terminal_has_the_size_it_is_told", SINK).await? else { return Ok(()) };
    let id = started(&node, "main", "exec sh", true, true).await?;
    let mut attached = node.runtime.attach(&id, true, false).await?;
    attached.control.resize(91, 31).await;
    attached.stdin.as_mut().context("stdin")?.write_all(b"stty size\n").await?;
    shown(&mut attached, "31 91").await?;
    let tty = ExecRequest { tty: true, ..command("stty size; echo $TERM; read x; stty size") };
    let mut exec = node.runtime.open_exec(&id, &tty).await?;
    let (mut stdin, mut stdout) =
        (exec.stdin.take().context("stdin")?, exec.stdout.take().context("stdout")?);
    exec.resize(77, 22).await;
    stdin.write_all(b"\n").await?;
    let mut out = String::new();
    timeout(PATIENCE, stdout.read_to_string(&mut out)).await??;
    ensure!(out.contains("xterm") && out.contains("22 77"), "{out:?}");
    assert_eq!(exec.wait().await?, 0);
    exec.end().await;
    attached.stdin.as_mut().context("stdin")?.write_all(b"exit\n").await?;
    node.exited(&id).await?;
    node.leaves_nothing().await
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_attached_gets_everything_and_holds_nobody_up() -> Result<()> {
    let Some(node) = Fixture::start("whoever_is_attached_gets_everything_and_holds_nobody_up", SINK).await?
    else {
        return Ok(());
    };
    const LINES: usize = 1_000_000;
    let script = format!("for round in 1 2; do read x; seq 1 {LINES}; echo end; done");
    let id = started(&node, "main", &script, true, false).await?;
    let mut attached = node.runtime.attach(&id, true, true).await?;
    let mut stdin = attached.stdin.take().context("stdin")?;
    let expected: String = (1..=LINES).map(|i| format!("{i}\n")).chain(["end\n".to_owned()]).collect();
    let mut round = async || {
        let began = Instant::now();
        stdin.write_all(b"go\n").await?;
        let all = shown(&mut attached, "end\n").await?;
        ensure!(all == expected, "{} of {} bytes", all.len(), expected.len());
        Ok(began.elapsed())
    };
    let alone = round().await?;
    // Connected and never read, or read by drops: they are cut off.
    let mut idle = Vec::new();
    for _ in 0..6 {
        idle.push(node.runtime.attach(&id, false, false).await?);
    }
    let mut drops = node.runtime.attach(&id, false, false).await?;
    let trickle = tokio::spawn(async move {
        loop {
            match drops.output.recv().await {
                Some(Ok(_)) => tokio::time::sleep(Duration::from_millis(500)).await,
                last => return last,
            }
        }
    });
    let watched = round().await?;
    ensure!(watched < 2 * alone + LONGEST_STALL, "{watched:?} instead of {alone:?}");
    for mut client in idle {
        let mut last = None;
        while let Some(piece) = timeout(PATIENCE, client.output.recv()).await? {
            last = Some(piece);
        }
        let error = last.context("an end")?.err().context("who missed something is told")?;
        ensure!(error.to_string().contains("not read in time"), "{error}");
    }
    ensure!(matches!(timeout(PATIENCE, trickle).await??, Some(Err(_))), "a trickle is too little");
    drop(stdin);
    let last = timeout(PATIENCE, attached.output.recv()).await?;
    ensure!(last.is_none(), "whoever reads is told the end by the end: {last:?}");
    node.exited(&id).await?;
    node.leaves_nothing().await
}
