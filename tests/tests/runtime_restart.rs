//! Restarts, of the agent and of containerd, at bad moments.
//!
//! In: containers in every state. Out: nothing is lost, nothing runs twice.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use xebec_runtime::error::RuntimeError;
use xebec_runtime::types::{ContainerRuntime, ContainerState, RuntimeEvent};
use xebec_tests::runtime::{Fixture, next_event};

const SINK: &str = env!("CARGO_BIN_EXE_log-sink");

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_agent_finds_everything() -> Result<()> {
    let Some(node) = Fixture::start("a_restarted_agent_finds_everything", SINK).await? else { return Ok(()) };
    let image = node.pull().await?;
    let created = node.runtime.create(&node.config("created", &image, "echo ran; exec sleep 100")?).await?;
    let running = node.runtime.create(&node.config("running", &image, "exec sleep 100")?).await?;
    node.runtime.start(&running).await?;
    let (ended, _) = node.run(&node.config("ended", &image, "exit 4")?).await?;
    let before = node.runtime.containers().await?;
    let agent = node.restarted().await?;
    assert_eq!(agent.containers().await?, before);
    let state = |id| {
        let found = before.iter().find(|container| container.id == id);
        found.map(|container| container.state.clone())
    };
    assert_eq!(state(created.clone()), Some(ContainerState::Created));
    ensure!(matches!(state(running.clone()), Some(ContainerState::Running { .. })));
    ensure!(matches!(state(ended), Some(ContainerState::Exited { code: 4, .. })));
    let again = agent.create(&node.config("running", &image, "exec sleep 100")?).await?;
    assert_eq!(again, running);
    agent.start(&running).await.context("it was started")?;
    assert_eq!(agent.container(&running).await?.map(|container| container.state), state(running));
    agent.start(&created).await?;
    node.logged("created", "ran").await?;
    node.leaves_nothing().await
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_outlive_containerd() -> Result<()> {
    let Some(mut node) = Fixture::start("containers_outlive_containerd", SINK).await? else { return Ok(()) };
    let image = node.pull().await?;
    let mut events = node.runtime.events();
    let script = "i=0; while :; do echo $i; i=$((i+1)); sleep 0.05; done";
    let running = node.runtime.create(&node.config("running", &image, script)?).await?;
    node.runtime.start(&running).await?;
    let (ended, _) = node.run(&node.config("ended", &image, "exit 4")?).await?;
    let before = node.runtime.container(&running).await?.context("it is there")?.state;
    next_event(&mut events, |event| *event == RuntimeEvent::Gap).await?;
    for _ in 0..3 {
        node.containerd.kill()?;
        let waiting = {
            let (runtime, id) = (node.runtime.clone(), running.clone());
            tokio::spawn(async move { runtime.container(&id).await })
        };
        tokio::time::sleep(Duration::from_millis(50)).await;
        node.containerd.run()?;
        let found = waiting.await?.context("the call waits for containerd")?;
        assert_eq!(found.context("it is there")?.state, before, "the same process since the same time");
        next_event(&mut events, |event| *event == RuntimeEvent::Gap).await?;
    }
    let state = node.runtime.container(&ended).await?.context("it is there")?.state;
    ensure!(matches!(state, ContainerState::Exited { code: 4, .. }), "{state:?}");
    let written = node.log("running", "stdout")?.len();
    node.logged("running", &(written + 5).to_string()).await.context("the log goes on")?;
    node.runtime.signal(&running, libc::SIGKILL).await?;
    next_event(&mut events, |event| *event == RuntimeEvent::Exited { id: running.clone() }).await?;
    let log: Vec<String> = node.log("running", "stdout")?;
    assert_eq!(log, (0..log.len()).map(|i| i.to_string()).collect::<Vec<_>>(), "no line lost or doubled");
    node.leaves_nothing().await
}

#[tokio::test(flavor = "multi_thread")]
async fn creation_can_be_cut_off_anywhere() -> Result<()> {
    let Some(mut node) = Fixture::start("creation_can_be_cut_off_anywhere", SINK).await? else {
        return Ok(());
    };
    let image = node.pull().await?;
    let config = node.config("main", &image, "echo ran; exec sleep 100")?;
    for pause in [0, 1, 2, 3, 5, 8, 12, 18, 25, 35, 50] {
        let pause = Duration::from_millis(pause);
        // The agent dies: its call is dropped where it stands.
        let cut = tokio::time::timeout(pause, node.runtime.create(&config)).await;
        let agent = node.restarted().await?;
        let id = agent.create(&config).await.with_context(|| format!("after {pause:?}, {cut:?}"))?;
        agent.start(&id).await.with_context(|| format!("after {pause:?}, {cut:?}"))?;
        assert_eq!(agent.containers().await?.len(), 1);
        agent.remove(&id).await?;
    }
    for pause in [0, 2, 5, 10, 20, 30, 45] {
        let pause = Duration::from_millis(pause);
        let creating = {
            let (runtime, config) = (node.runtime.clone(), config.clone());
            tokio::spawn(async move { runtime.create(&config).await })
        };
        tokio::time::sleep(pause).await;
        node.containerd.kill()?;
        node.containerd.run()?;
        let first = creating.await?;
        let id = node.runtime.create(&config).await.with_context(|| format!("after {pause:?}, {first:?}"))?;
        node.runtime.start(&id).await.with_context(|| format!("after {pause:?}, {first:?}"))?;
        let state = node.runtime.container(&id).await?.context("it is there")?.state;
        ensure!(matches!(state, ContainerState::Running { .. }), "after {pause:?}: {state:?}, {first:?}");
        node.runtime.remove(&id).await.with_context(|| format!("after {pause:?}, {first:?}"))?;
    }
    node.leaves_nothing().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_absent_containerd_is_an_error_in_time() -> Result<()> {
    let Some(mut node) = Fixture::start("an_absent_containerd_is_an_error_in_time", SINK).await? else {
        return Ok(());
    };
    node.containerd.kill()?;
    let begin = std::time::Instant::now();
    let refused = node.runtime.containers().await;
    ensure!(matches!(refused, Err(RuntimeError::Unreachable { .. })), "{refused:?}");
    ensure!(begin.elapsed() < Duration::from_secs(8), "{:?}", begin.elapsed());
    node.containerd.run()?;
    node.runtime.containers().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hung_containerd_is_an_error_in_time() -> Result<()> {
    let Some(node) = Fixture::start("a_hung_containerd_is_an_error_in_time", SINK).await? else {
        return Ok(());
    };
    node.containerd.freeze(true)?;
    let refused = node.runtime.containers().await;
    node.containerd.freeze(false)?;
    ensure!(matches!(refused, Err(RuntimeError::Timeout { .. })), "{refused:?}");
    node.runtime.containers().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_shim_ends_its_container() -> Result<()> {
    let Some(node) = Fixture::start("a_killed_shim_ends_its_container", SINK).await? else { return Ok(()) };
    let image = node.pull().await?;
    let mut events = node.runtime.events();
    let id = node.runtime.create(&node.config("main", &image, "exec sleep 100")?).await?;
    node.runtime.start(&id).await?;
    let shims = node.containerd.processes();
    let shim =
        shims.iter().find(|(_, line)| line.contains("containerd-shim-runc-v2") && line.contains(&id.0));
    let (shim, _) = shim.with_context(|| format!("{shims:?}"))?;
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(*shim), nix::sys::signal::Signal::SIGKILL)?;
    next_event(&mut events, |event| *event == RuntimeEvent::Exited { id: id.clone() }).await?;
    let state = node.runtime.container(&id).await?.context("it is there")?.state;
    ensure!(matches!(state, ContainerState::Exited { code: 137, .. }), "{state:?}");
    node.leaves_nothing().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ends_while_nobody_looks_is_found() -> Result<()> {
    let Some(mut node) = Fixture::start("what_ends_while_nobody_looks_is_found", SINK).await? else {
        return Ok(());
    };
    let image = node.pull().await?;
    let mut events = node.runtime.events();
    next_event(&mut events, |event| *event == RuntimeEvent::Gap).await?;
    let mut killed = Vec::new();
    for name in ["first", "second"] {
        let id = node.runtime.create(&node.config(name, &image, "exec sleep 100")?).await?;
        node.runtime.start(&id).await?;
        let state = node.runtime.container(&id).await?.context("it is there")?.state;
        let ContainerState::Running { pid, .. } = state else { anyhow::bail!("{state:?}") };
        killed.push((id, nix::unistd::Pid::from_raw(i32::try_from(pid)?)));
    }
    node.containerd.kill()?;
    let before = std::time::SystemTime::now();
    for (_, process) in &killed {
        nix::sys::signal::kill(*process, nix::sys::signal::Signal::SIGKILL)?;
    }
    node.containerd.run()?;
    next_event(&mut events, |event| *event == RuntimeEvent::Gap).await?;
    let after_gap = node.runtime.containers().await?;
    let fresh = node.restarted().await?.containers().await?;
    for found in [after_gap, fresh] {
        assert_eq!(found.len(), 2);
        for container in found {
            let ContainerState::Exited { code: 137, finished_at, .. } = container.state else {
                anyhow::bail!("{:?}", container.state)
            };
            ensure!(finished_at >= before, "{finished_at:?} is not when it was killed, after {before:?}");
        }
    }
    node.leaves_nothing().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_starts_is_never_taken_for_lost() -> Result<()> {
    let test = "a_container_that_starts_is_never_taken_for_lost";
    let Some(node) = Fixture::start(test, SINK).await? else { return Ok(()) };
    let image = node.pull().await?;
    let watching = {
        let runtime = node.runtime.clone();
        tokio::spawn(async move {
            loop {
                for container in runtime.containers().await? {
                    ensure!(container.state != ContainerState::Unknown, "{container:?}");
                    if container.key.container == "last" {
                        return Ok(());
                    }
                }
            }
        })
    };
    for round in 0..12 {
        let name = if round == 11 { "last".to_owned() } else { format!("c{round}") };
        let id = node.runtime.create(&node.config(&name, &image, "exec sleep 100")?).await?;
        node.runtime.start(&id).await?;
    }
    tokio::time::timeout(Duration::from_secs(20), watching).await???;
    node.leaves_nothing().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_containerd_left_behind_is_no_obstacle() -> Result<()> {
    let test = "a_folder_that_containerd_left_behind_is_no_obstacle";
    let Some(node) = Fixture::start(test, SINK).await? else { return Ok(()) };
    let image = node.pull().await?;
    // What a kill between two steps of making a snapshot leaves: the numbers of the next ones are taken.
    let folder = node.containerd.path("root/io.containerd.snapshotter.v1.overlayfs/snapshots");
    let taken = std::fs::read_dir(&folder)?.flatten();
    let last = taken.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()).max();
    let last = last.context("layers are unpacked")?;
    for number in last + 1..last + 4 {
        std::fs::create_dir_all(folder.join(number.to_string()).join("fs"))?;
    }
    node.run(&node.config("main", &image, "echo ran")?).await?;
    node.logged("main", "ran").await?;
    node.leaves_nothing().await
}
