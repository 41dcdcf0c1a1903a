//! Removing images that no container uses when their disk fills up: the longest unused first.
//!
//! In: the runtime's images and containers, how full the disk is. Out: removals, from the high mark down to the low one.
//! The choice is pure; the loop around it asks every few minutes.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior};
use xebec_runtime::types::{ContainerRuntime, Image};

use crate::node::Node;
use crate::pod_network::PodNetworking;

const PERIOD: Duration = Duration::from_secs(300);
/// Per cent of the disk at which removing begins, and at which it ends.
const HIGH: u64 = 85;
const LOW: u64 = 80;
/// A fresh image may have been pulled for a container that is about to be made.
const MIN_AGE: Duration = Duration::from_secs(120);

/// Bytes of the disk that holds the images.
#[derive(Clone, Copy, Debug)]
struct Disk {
    capacity: u64,
    available: u64,
}

#[derive(Debug)]
struct Seen {
    first: Instant,
    last_used: Instant,
    size: u64,
}

/// What is remembered of images between two looks.
#[derive(Debug, Default)]
struct Memory {
    images: HashMap<String, Seen>,
}

impl Memory {
    fn observe(&mut self, images: &[Image], used: &BTreeSet<String>, now: Instant) {
        let present: BTreeSet<&str> = images.iter().map(|image| image.id.as_str()).collect();
        self.images.retain(|id, _| present.contains(id.as_str()));
        for image in images {
            let seen = self.images.entry(image.id.clone()).or_insert_with(|| Seen {
                first: now,
                last_used: now,
                size: 0,
            });
            seen.size = image.size;
            if used.contains(&image.id) {
                seen.last_used = now;
            }
        }
    }

    /// Ids of the images to remove, in order.
    fn plan(&self, used: &BTreeSet<String>, disk: Disk, now: Instant) -> Vec<String> {
        let filled = disk.capacity.saturating_sub(disk.available);
        if disk.capacity == 0 || filled * 100 < disk.capacity * HIGH {
            return Vec::new();
        }
        let mut free = (filled * 100).saturating_sub(disk.capacity * LOW) / 100;
        let mut unused: Vec<_> = self
            .images
            .iter()
            .filter(|(id, seen)| !used.contains(*id) && now.duration_since(seen.first) >= MIN_AGE)
            .collect();
        unused.sort_by_key(|(id, seen)| (seen.last_used, seen.first, (*id).clone()));
        let mut out = Vec::new();
        for (id, seen) in unused {
            if free == 0 {
                break;
            }
            free = free.saturating_sub(seen.size);
            out.push(id.clone());
        }
        out
    }
}

/// Runs until it is dropped.
pub(crate) async fn run<R: ContainerRuntime, N: PodNetworking>(node: Arc<Node<R, N>>) {
    let mut memory = Memory::default();
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Err(reason) = collect(&node, &mut memory).await {
            tracing::warn!(reason, "unused images not looked for");
        }
    }
}

async fn collect<R: ContainerRuntime, N: PodNetworking>(
    node: &Node<R, N>,
    memory: &mut Memory,
) -> Result<(), String> {
    // Containers after images: an image that a container was made from meanwhile is seen as used.
    let images = node.runtime.images().await.map_err(|e| e.to_string())?;
    let containers = node.containers().await.ok_or("containers cannot be listed")?;
    let used: BTreeSet<String> = containers.iter().map(|c| c.image_id.clone()).collect();
    let now = Instant::now();
    memory.observe(&images, &used, now);
    for id in memory.plan(&used, disk(node)?, now) {
        // By its id, with all of its names: one that was pulled by its digest has no other.
        match node.runtime.remove_image(&id).await {
            Ok(()) => tracing::info!(image = id, "unused image removed: its disk fills up"),
            Err(error) => tracing::warn!(image = id, %error, "unused image not removed"),
        }
    }
    Ok(())
}

fn disk<R: ContainerRuntime, N: PodNetworking>(node: &Node<R, N>) -> Result<Disk, String> {
    let path = &node.config.image_dir;
    let stat = nix::sys::statvfs::statvfs(path).map_err(|errno| format!("{}: {errno}", path.display()))?;
    let bytes = |blocks: u64| blocks.saturating_mul(stat.fragment_size());
    Ok(Disk { capacity: bytes(stat.blocks()), available: bytes(stat.blocks_available()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(id: &str, size: u64) -> Image {
        Image {
            id: id.to_owned(),
            names: vec![format!("name-of-{id}")],
            repo_digest: String::new(),
            size,
            user: String::new(),
            entrypoint: vec![],
            cmd: vec![],
            env: vec![],
            working_dir: String::new(),
            stop_signal: None,
        }
    }

    fn set(ids: &[&str]) -> BTreeSet<String> {
        ids.iter().map(|id| (*id).to_owned()).collect()
    }

    #[test]
    fn the_longest_unused_go_first_and_only_as_many_as_needed() {
        let images = [image("a", 4), image("b", 4), image("c", 4), image("d", 4)];
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let mut memory = Memory::default();
        memory.observe(&images[..3], &set(&["a", "b", "c"]), start);
        memory.observe(&images[..3], &set(&["a", "c"]), at(100));
        memory.observe(&images[..3], &set(&["c"]), at(200));
        memory.observe(&images, &set(&["c"]), at(1000));
        let plan =
            |available: u64, now: Instant| memory.plan(&set(&["c"]), Disk { capacity: 100, available }, now);
        assert!(plan(16, at(1000)).is_empty(), "84 % is not full");
        assert_eq!(plan(15, at(1000)), ["b", "a"], "5 of 100 are to go, b was used last before a");
        assert_eq!(plan(0, at(1000)), ["b", "a"], "the used one and the fresh one stay");
        assert_eq!(plan(0, at(1200)), ["b", "a", "d"]);
    }

    #[test]
    fn an_image_that_is_gone_is_forgotten() {
        let mut memory = Memory::default();
        let now = Instant::now();
        memory.observe(&[image("a", 1)], &set(&[]), now);
        memory.observe(&[], &set(&[]), now);
        assert!(memory.images.is_empty());
    }
}
