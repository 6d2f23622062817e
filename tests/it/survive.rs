//! Survival: the built program is killed right before and right after each effect of a run, goes on with `apply --resume`, and
//! must end as if nobody had ever killed it.
//!
//! One undisturbed run counts the effects: changes of files, restarts of containers, writes to the API, the call of Rancher. Then
//! every boundary gets a fleet of its own, of which the effect is the same by number, not by name: nodes work side by side. The
//! smallest clusters that have every stage are the default, and all of their boundaries are tried. `CERTROLL_SURVIVE=large` takes
//! clusters with more nodes of each kind, which takes some half an hour; `CERTROLL_SURVIVE_AT=12,13` tries the two sides of these
//! effects alone and shows all effects, which is how a boundary that was lost is looked at again.
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::indexing_slicing,
    clippy::single_match_else,
    reason = "a test that cannot go on panics; it starts processes and reads files itself, and prints its figure"
)]

pub(crate) mod end;
pub(crate) mod victim;

use std::sync::Arc;

use certroll::sim::{Boundary, Side};
use futures::StreamExt as _;

use victim::{Cluster, Course, Victim};

/// How many fleets live side by side: the program mostly waits for its nodes, and the nodes for the program.
fn side_by_side() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from) + 1
}

/// Kills a run at every boundary and compares what comes of it with the undisturbed run.
async fn survive(cluster: Cluster) {
    let undisturbed = Victim::start(cluster, None).await.run_undisturbed().await;
    let undisturbed = Arc::new(undisturbed);
    let effects = undisturbed.effects;
    let only: Vec<usize> = std::env::var("CERTROLL_SURVIVE_AT")
        .map(|numbers| numbers.split(',').map(|number| number.parse().unwrap()).collect())
        .unwrap_or_default();
    if !only.is_empty() {
        eprintln!("{}", undisturbed.numbered());
    }
    let boundaries = (1..=effects)
        .filter(|effect| only.is_empty() || only.contains(effect))
        .flat_map(|effect| [Side::Before, Side::After].map(|side| Boundary { effect, side }))
        .collect::<Vec<_>>();
    let count = boundaries.len();
    let outcomes = futures::stream::iter(boundaries)
        .map(|boundary| tokio::spawn(survive_at(cluster, boundary, Arc::clone(&undisturbed))))
        .buffer_unordered(side_by_side())
        .map(Result::unwrap)
        .collect::<Vec<Result<(), String>>>()
        .await;
    let lost: Vec<String> = outcomes.into_iter().filter_map(Result::err).collect();
    println!("{}: survived {} of {count}, {effects} effects", cluster.name(), count - lost.len());
    assert!(lost.is_empty(), "{} of {count} are lost:\n{}", lost.len(), lost.join("\n\n"));
}

async fn survive_at(cluster: Cluster, boundary: Boundary, undisturbed: Arc<Course>) -> Result<(), String> {
    let course: Course =
        Victim::start(cluster, Some(undisturbed.pairs.clone())).await.run_killed_at(boundary).await;
    let Boundary { effect, side } = boundary;
    let difference = course.difference(&undisturbed.end);
    difference.map_or(Ok(()), |difference| {
        Err(format!("killed {side:?} effect {effect}: {difference}\n{}", course.told()))
    })
}

fn test(cluster: Cluster) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap();
    runtime.block_on(survive(cluster));
}

#[test]
#[ignore = "takes many minutes: `cargo test --test it -- --ignored --nocapture survive:: matrix::`"]
fn a_direct_rotation_survives_a_kill_at_every_boundary() {
    test(Cluster::direct());
}

#[test]
#[ignore = "takes many minutes: `cargo test --test it -- --ignored --nocapture survive:: matrix::`"]
fn a_rotation_through_rancher_survives_a_kill_at_every_boundary() {
    test(Cluster::rancher());
}
