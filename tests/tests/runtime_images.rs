//! Pulls from a registry that behaves, and from one that does not.
//!
//! In: a small image and faults. Out: an image that runs, or an error that says what is wrong; never a half image.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use xebec_runtime::error::PullError;
use xebec_runtime::types::{ContainerRuntime, Image, PullRequest, RegistryAuth};
use xebec_tests::image::{Packing, Recipe, TestImage};
use xebec_tests::registry::{Access, Fault};
use xebec_tests::runtime::{Fixture, request};

const SINK: &str = env!("CARGO_BIN_EXE_log-sink");

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_pulled_named_and_removed() -> Result<()> {
    let recipe = Recipe {
        user: "www:adm".into(),
        env: vec!["A=b".into()],
        entrypoint: vec!["/bin/sh".into(), "-c".into()],
        cmd: vec!["id; pwd; echo $A".into()],
        working_dir: "/data/new".into(),
        ..Recipe::default()
    };
    let Some(node) = Fixture::with_image("an_image_is_pulled_named_and_removed", SINK, &recipe).await? else {
        return Ok(());
    };
    assert_eq!(node.runtime.image("busybox").await?, None);
    let image = node.pull().await?;
    assert_eq!(image.id, node.image.config);
    assert_eq!(image.names, ["docker.io/library/busybox:latest"]);
    assert_eq!(image.repo_digest, format!("docker.io/library/busybox@{}", node.image.target));
    assert_eq!((image.user.as_str(), image.working_dir.as_str()), ("www:adm", "/data/new"));
    for name in ["busybox", "docker.io/library/busybox:latest", &image.id, &image.repo_digest] {
        let found = node.runtime.image(name).await?.with_context(|| name.to_owned())?;
        assert_eq!(found.id, image.id, "{name}");
        assert_eq!(found.repo_digest, image.repo_digest, "{name}");
    }
    assert_eq!(node.runtime.images().await?, std::slice::from_ref(&image));
    let mut config = node.config("main", &image, "")?;
    config.command.clear();
    node.run(&config).await?;
    node.logged("main", "b").await?;
    assert_eq!(node.log("main", "stdout")?, ["uid=33(www) gid=4(adm) groups=4(adm)", "/data/new", "b"]);
    node.leaves_nothing().await?;
    node.runtime.remove_image(&image.id).await?;
    assert_eq!(node.runtime.images().await?, Vec::<Image>::new());
    ensure!(node.ctr(&["content", "ls", "-q"])?.is_empty(), "blobs stay");
    ensure!(node.ctr(&["leases", "ls", "-q"])?.is_empty(), "leases stay");
    assert_eq!(node.ctr(&["snapshots", "ls"])?.lines().count(), 1, "snapshots stay");
    node.runtime.remove_image(&image.id).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unchanged_image_costs_one_request() -> Result<()> {
    let Some(node) = Fixture::start("an_unchanged_image_costs_one_request", SINK).await? else {
        return Ok(());
    };
    node.pull().await?;
    assert_eq!(node.registry.requests().len(), 5, "index, manifest, configuration, layers and no more");
    let again = node.pull().await?;
    assert_eq!(again.id, node.image.config);
    assert_eq!(node.registry.requests().len(), 2, "index and manifest");
    let changed = TestImage::build(
        &node.containerd.tools.busybox,
        &Recipe { env: vec!["NEW=1".into()], ..Recipe::default() },
    )?;
    node.registry.put("library/busybox", "latest", &changed);
    let moved = node.pull().await?;
    assert_eq!(moved.id, changed.config, "the tag was moved");
    assert_eq!(node.registry.requests().len(), 3, "the layers were here");
    let old = node.runtime.image(&format!("busybox@{}", node.image.target)).await?;
    ensure!(old.is_some_and(|old| old.id == node.image.config), "the old one keeps its digest");
    let pinned = node.runtime.pull(&request(&format!("busybox:none@{}", node.image.target))).await?;
    assert_eq!(pinned.id, node.image.config);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn identical_pulls_are_one() -> Result<()> {
    let recipe = Recipe { ballast: 4 << 20, index: false, ..Recipe::default() };
    let Some(node) = Fixture::with_image("identical_pulls_are_one", SINK, &recipe).await? else {
        return Ok(());
    };
    let other =
        TestImage::build(&node.containerd.tools.busybox, &Recipe { user: "7".into(), ..recipe.clone() })?;
    node.registry.put("team/other", "1", &other);
    let mut pulls = Vec::new();
    for name in ["busybox", "busybox:latest", "docker.io/library/busybox", "team/other:1"] {
        let runtime = node.runtime.clone();
        pulls.push(tokio::spawn(async move { runtime.pull(&request(name)).await }));
    }
    for pull in pulls {
        pull.await??;
    }
    let requests = node.registry.requests();
    for layer in &node.image.layers {
        let fetched = requests.iter().filter(|path| path.contains(layer.as_str())).count();
        assert_eq!(fetched, 1, "{layer}: {requests:?}");
    }
    assert_eq!(requests.iter().filter(|path| path.ends_with("busybox/manifests/latest")).count(), 1);
    assert_eq!(node.runtime.images().await?.len(), 2);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_match_its_digest_is_refused() -> Result<()> {
    let Some(node) = Fixture::start("what_does_not_match_its_digest_is_refused", SINK).await? else {
        return Ok(());
    };
    let blobs = [&node.image.config, &node.image.layers[0], &node.image.layers[1], &node.image.manifest];
    for blob in blobs {
        for fault in [Fault::Corrupt, Fault::Longer] {
            // Manifests that come longer are no JSON; all others are found by their digest.
            let longer_document = blob == &node.image.manifest && fault == Fault::Longer;
            node.registry.fault(blob, fault.clone(), 1);
            let refused = node.runtime.pull(&request("busybox")).await;
            ensure!(
                matches!(&refused, Err(PullError::Digest { digest, .. }) if digest == blob)
                    || longer_document,
                "{fault:?} of {blob}: {refused:?}"
            );
            ensure!(refused.is_err());
            ensure!(node.runtime.images().await?.is_empty(), "nothing of it counts");
            // What was right of it would not be fetched again.
            for lease in node.ctr(&["leases", "ls", "-q"])?.split_whitespace() {
                node.ctr(&["leases", "rm", "--sync", lease])?;
            }
        }
    }
    let wrong = format!("sha256:{}", "0".repeat(64));
    let absent = node.runtime.pull(&request(&format!("busybox@{wrong}"))).await;
    ensure!(matches!(absent, Err(PullError::NotFound { .. })), "{absent:?}");
    node.pull().await.context("and then it is right")?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_download_goes_on_where_it_ended() -> Result<()> {
    let recipe = Recipe { ballast: 6 << 20, packing: Packing::Plain, ..Recipe::default() };
    let Some(node) = Fixture::with_image("a_cut_download_goes_on_where_it_ended", SINK, &recipe).await?
    else {
        return Ok(());
    };
    let ballast = node.image.layers[2].clone();
    node.registry.fault(&ballast, Fault::CutAfter(4 << 20), 1);
    node.pull().await?;
    let resumed = |requests: Vec<String>| {
        let ranges = requests.into_iter().filter(|path| path.contains(&ballast) && path.contains(" bytes="));
        ranges.collect::<Vec<_>>()
    };
    let ranges = resumed(node.registry.requests());
    assert_eq!(ranges.len(), 1, "{ranges:?}");
    node.runtime.remove_image("busybox").await?;
    node.registry.fault(&ballast, Fault::CutAfter(1 << 20), 100);
    let begin = Instant::now();
    let cut = node.pull().await;
    ensure!(cut.is_ok(), "each try brings a part: {cut:?} after {:?}", begin.elapsed());
    node.runtime.remove_image("busybox").await?;
    node.registry.fault(&ballast, Fault::HangAfter(2 << 20), 1);
    node.pull().await.context("a registry that hangs is left and asked again")?;
    node.runtime.remove_image("busybox").await?;
    node.registry.fault(&ballast, Fault::CutAfter(0), 100);
    let never = node.runtime.pull(&request("busybox")).await;
    ensure!(matches!(never, Err(PullError::Registry { .. })), "{never:?}");
    ensure!(node.runtime.images().await?.is_empty());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abandoned_pull_is_taken_up_again() -> Result<()> {
    let recipe = Recipe { ballast: 6 << 20, packing: Packing::Plain, ..Recipe::default() };
    let Some(node) = Fixture::with_image("an_abandoned_pull_is_taken_up_again", SINK, &recipe).await? else {
        return Ok(());
    };
    let ballast = node.image.layers[2].clone();
    node.registry.fault(&ballast, Fault::HangAfter(4 << 20), 100);
    let request = request("busybox");
    let abandoned = tokio::time::timeout(Duration::from_millis(700), node.runtime.pull(&request)).await;
    ensure!(abandoned.is_err(), "it hangs: {abandoned:?}");
    node.registry.fault(&ballast, Fault::Corrupt, 0);
    let restarted = node.restarted().await?;
    let image = restarted.pull(&request).await?;
    assert_eq!(image.id, node.image.config);
    let ranges = node.registry.requests().iter().filter(|path| path.contains(" bytes=")).count();
    assert_eq!(ranges, 1, "the rest was fetched, not all of it");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_told_apart() -> Result<()> {
    let Some(node) = Fixture::start("refusals_are_told_apart", SINK).await? else { return Ok(()) };
    let pull = async |image: &str| node.runtime.pull(&request(image)).await;
    ensure!(matches!(pull("Busy Box").await, Err(PullError::InvalidName { .. })));
    let absent = pull("nothing:1").await.expect_err("there is none");
    ensure!(matches!(absent, PullError::NotFound { .. }), "{absent}");
    assert_eq!(absent.to_string(), r#"failed to pull image "nothing:1": not found"#);
    for (status, word) in [(500, "500"), (429, "429"), (418, "418")] {
        node.registry.fault(&node.image.target, Fault::Status(status), 1);
        let refused = pull("busybox").await.expect_err("it was told to fail");
        ensure!(matches!(&refused, PullError::Registry { reason, .. } if reason.contains(word)), "{refused}");
    }
    node.registry.fault(&node.image.target, Fault::Status(403), 1);
    let refused = pull("busybox").await.expect_err("it was told to fail");
    ensure!(matches!(&refused, PullError::Unauthorized { .. }), "{refused}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_are_tried_in_order() -> Result<()> {
    let Some(node) = Fixture::start("credentials_are_tried_in_order", SINK).await? else { return Ok(()) };
    let auth = |password: &str| RegistryAuth { username: "me".into(), password: password.into() };
    // By the registry's own name: a mirror is never given credentials.
    let image = format!("{}/library/busybox", node.registry.address);
    for access in [Access::Basic("me".into(), "right".into()), Access::Bearer("me".into(), "right".into())] {
        node.registry.require(access);
        for (auth, allowed) in
            [(vec![], false), (vec![auth("wrong")], false), (vec![auth("wrong"), auth("right")], true)]
        {
            let pulled = node.runtime.pull(&PullRequest { image: image.clone(), auth: auth.clone() }).await;
            if allowed {
                assert_eq!(pulled?.id, node.image.config);
            } else {
                ensure!(matches!(pulled, Err(PullError::Unauthorized { .. })), "{auth:?}: {pulled:?}");
            }
        }
        let mirrored = PullRequest { image: "busybox".into(), auth: vec![auth("right")] };
        let mirrored = node.runtime.pull(&mirrored).await;
        ensure!(matches!(mirrored, Err(PullError::Unauthorized { .. })), "a mirror gets no password");
        node.runtime.remove_image(&image).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_snapshot_is_unpacked_again() -> Result<()> {
    let Some(node) = Fixture::start("a_lost_snapshot_is_unpacked_again", SINK).await? else { return Ok(()) };
    let image = node.pull().await?;
    let snapshots = node.ctr(&["snapshots", "ls"])?;
    let keys: Vec<&str> =
        snapshots.lines().skip(1).filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(keys.len(), 2, "{snapshots}");
    // The child first: a parent cannot go before it, and may be collected as soon as it has none.
    for key in keys.iter().chain(&keys) {
        node.ctr(&["snapshots", "rm", key]).ok();
    }
    assert_eq!(node.ctr(&["snapshots", "ls"])?.lines().count(), 1);
    assert_eq!(node.runtime.image("busybox").await?, None, "not unpacked is not present");
    node.run(&node.config("main", &image, "echo again")?).await?;
    node.logged("main", "again").await?;
    node.leaves_nothing().await
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_are_unpacked_whatever_their_packing() -> Result<()> {
    for packing in [Packing::Plain, Packing::Gzip, Packing::Zstd] {
        let recipe = Recipe { packing, whiteouts: true, ..Recipe::default() };
        let node = Fixture::with_image("layers_are_unpacked_whatever_their_packing", SINK, &recipe).await?;
        let Some(node) = node else { return Ok(()) };
        let image = node.pull().await.with_context(|| format!("{packing:?}"))?;
        let script = "ls /data; ls -A /opaque; echo end";
        node.run(&node.config("main", &image, script)?).await?;
        node.logged("main", "end").await?;
        assert_eq!(node.log("main", "stdout")?, ["kept", "new", "end"], "{packing:?}: whiteouts hide");
        node.leaves_nothing().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_unpacks_to_something_else_is_refused() -> Result<()> {
    let test = "a_layer_that_unpacks_to_something_else_is_refused";
    let recipe = Recipe { wrong_diff_id: true, ..Recipe::default() };
    let Some(node) = Fixture::with_image(test, SINK, &recipe).await? else { return Ok(()) };
    let refused = node.runtime.pull(&request("busybox")).await;
    let layer = &node.image.layers[1];
    ensure!(matches!(&refused, Err(PullError::Digest { digest, .. }) if digest == layer), "{refused:?}");
    ensure!(node.runtime.images().await?.is_empty());
    let snapshots = node.ctr(&["snapshots", "ls"])?;
    ensure!(!snapshots.contains("Active"), "what was unpacked is thrown away: {snapshots}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_for_other_machines_is_refused() -> Result<()> {
    let recipe = Recipe { architecture: "riscv64".into(), ..Recipe::default() };
    let Some(node) = Fixture::with_image("an_image_for_other_machines_is_refused", SINK, &recipe).await?
    else {
        return Ok(());
    };
    let refused = node.runtime.pull(&request("busybox")).await.expect_err("not for this machine");
    ensure!(refused.to_string().contains("no match for platform in manifest"), "{refused}");
    assert_eq!(node.registry.requests().len(), 1, "nothing but the index was fetched");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_pulls_keep_one_lease_and_success_none() -> Result<()> {
    let Some(node) = Fixture::start("failed_pulls_keep_one_lease_and_success_none", SINK).await? else {
        return Ok(());
    };
    let upper = &node.image.layers[1];
    for _ in 0..3 {
        node.registry.fault(upper, Fault::Status(404), 1);
        let failed = node.runtime.pull(&request("busybox")).await;
        ensure!(matches!(failed, Err(PullError::NotFound { .. })), "{failed:?}");
    }
    let leases = node.ctr(&["leases", "ls"])?;
    assert_eq!(leases.lines().filter(|line| line.contains("xebec-pull-")).count(), 1, "{leases}");
    ensure!(leases.contains("containerd.io/gc.expire="), "the collector takes it in the end: {leases}");
    let _ = node.registry.requests();
    node.pull().await?;
    let requests = node.registry.requests();
    ensure!(
        !requests.iter().any(|path| path.contains(&node.image.layers[0])),
        "what came before the failure was kept: {requests:?}"
    );
    ensure!(node.ctr(&["leases", "ls", "-q"])?.is_empty(), "leases stay");
    Ok(())
}
