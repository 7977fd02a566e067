//! Collectors, and what befalls processes.

use std::time::Duration;

use super::scene::Scene;
use crate::gc::{Collection, FollowLists};
use crate::upload::SweepParts;
use crate::worker::Worker as _;

/// Collects again and again, until the run ends.
pub(super) async fn collect(scene: &Scene) {
    while scene.goes_on() {
        let time = scene.world.between(Duration::from_mins(10), Duration::from_hours(24 * 3));
        scene.world.pass(time).await;
        let node = scene.any();
        let came = scene.ask(&node, node.hub.collect()).await;
        let number = node.process.number();
        match came {
            Ok(Collection::Waiting { epoch, .. }) => {
                scene.world.note(&format!("p{number} epoch {epoch} waits"));
            }
            Ok(came) => scene.world.note(&format!("p{number} collected: {came:?}")),
            // A log that is behind stops it; it goes on later.
            Err(error) => scene.allow(&error, None, "collecting"),
        }
    }
}

/// Kills processes, lets them sleep, and sets their clocks wrong, until the run ends.
pub(super) async fn befall(scene: &Scene) {
    while scene.goes_on() {
        let time = scene.world.between(Duration::from_mins(10), Duration::from_hours(24 * 4));
        scene.world.pass(time).await;
        let nodes = scene.nodes();
        let place = usize::try_from(scene.world.below(nodes.len() as u64)).expect("few");
        let node = &nodes[place];
        match scene.world.below(10) {
            0..3 => scene.replace(place).await,
            3..5 => {
                let longest = Duration::from_hours(24 * 6);
                node.process.sleep_for(scene.world.between(Duration::from_mins(1), longest));
            }
            5..7 => node.process.set_skew_ms(scene.skew_ms()),
            7 => {
                let swept = SweepParts.work(&node.hub);
                tokio::select! {
                    biased;
                    () = swept => {}
                    () = node.process.died() => {}
                }
            }
            _ => {
                let read = FollowLists.work(&node.hub);
                tokio::select! {
                    biased;
                    () = read => {}
                    () = node.process.died() => {}
                }
            }
        }
    }
}
