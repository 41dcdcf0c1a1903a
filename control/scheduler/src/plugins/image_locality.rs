//! Prefers nodes that hold the pod's images already.
//!
//! In: images on nodes, images of the pod. Out: scores. Pure.

use crate::framework::{Cycle, MAX_NODE_SCORE, Plugin};
use crate::node_set::Row;

/// Less than this saved is not worth a preference.
const MIN_THRESHOLD: i64 = 23 * 1024 * 1024;
/// More than this saved for each container counts no further.
const MAX_THRESHOLD: i64 = 1000 * 1024 * 1024;

pub(crate) struct ImageLocality;

impl Plugin for ImageLocality {
    fn name(&self) -> &'static str {
        "ImageLocality"
    }

    fn weight(&self) -> i64 {
        1
    }

    fn pre_score(&self, cycle: Cycle<'_>) -> bool {
        !cycle.table.images.is_empty()
    }

    fn score(&self, cycle: Cycle<'_>, rows: &[Row], scores: &mut [i64]) {
        let nodes = cycle.table.live.len().max(1) as f64;
        let images: Vec<_> =
            cycle.pod.images.iter().filter_map(|name| cycle.table.images.get(&normalized(name))).collect();
        let most = MAX_THRESHOLD * i64::try_from(cycle.pod.containers.max(1)).unwrap_or(1);
        for (row, score) in rows.iter().zip(scores) {
            let held = images.iter().filter(|image| image.nodes.contains(*row));
            // An image many nodes hold counts more: it is no reason to crowd onto the only one that has it.
            let saved: i64 =
                held.map(|image| (image.size as f64 * (image.nodes.len() as f64 / nodes)) as i64).sum();
            *score =
                MAX_NODE_SCORE * (saved.clamp(MIN_THRESHOLD, most) - MIN_THRESHOLD) / (most - MIN_THRESHOLD);
        }
    }
}

/// Adds the tag that an image name without tag or digest stands for.
fn normalized(image: &str) -> String {
    let tagged = image.rfind(':').is_some_and(|colon| image.rfind('/').is_none_or(|slash| slash < colon));
    if tagged { image.to_owned() } else { format!("{image}:latest") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_without_a_tag_stand_for_latest() {
        assert_eq!(normalized("nginx"), "nginx:latest");
        assert_eq!(normalized("host:5000/nginx"), "host:5000/nginx:latest");
        assert_eq!(normalized("host:5000/nginx:1"), "host:5000/nginx:1");
        assert_eq!(normalized("nginx@sha256:ab"), "nginx@sha256:ab");
    }
}
