//! Survival: the built program is killed right before and right after each effect of a run, goes on with `apply --resume`, and
//! must end as if nobody had ever killed it.
//!
//! One undisturbed run counts the effects: changes of files, restarts of containers, writes to the API, the call of Rancher. Then
//! every boundary gets a fleet of its own, of which the effect is the same by number, not by name: nodes work side by side. The
//! smallest clusters that have every stage are the default, and all boundaries of a direct rotation and of one through Rancher are
//! tried. A run without quorum, the resumption itself and a rollback are killed too, at every so many effects, of which
//! `CERTROLL_SURVIVE_EVERY=1` makes all.
//!
//! `CERTROLL_SURVIVE=large` takes clusters with more nodes of each kind; `CERTROLL_SURVIVE_AT=12,13` tries the two sides of these
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

use victim::{Cluster, Course, Trial, Victim};

/// How many fleets live side by side: the program waits for its nodes, and the nodes for the program.
fn side_by_side() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from) * 3
}

/// Returns the effects that are asked for; none where all are.
fn asked_for() -> Vec<usize> {
    std::env::var("CERTROLL_SURVIVE_AT")
        .map(|numbers| numbers.split(',').map(|number| number.parse().unwrap()).collect())
        .unwrap_or_default()
}

/// Returns the two sides of some effects.
fn both_sides(effects: impl Iterator<Item = usize>) -> Vec<Boundary> {
    effects.flat_map(|effect| [Side::Before, Side::After].map(|side| Boundary { effect, side })).collect()
}

/// Carries out the trials and compares what comes of each with the undisturbed course.
async fn survive(cluster: Cluster, what: &str, undisturbed: Course, trials: Vec<Trial>) {
    let (effects, count) = (undisturbed.log.len(), trials.len());
    let undisturbed = Arc::new(undisturbed);
    let mut outcomes = futures::stream::iter(trials)
        .map(|trial| tokio::spawn(survive_one(cluster, trial, Arc::clone(&undisturbed))))
        .buffer_unordered(side_by_side())
        .map(Result::unwrap);
    let (mut tried, mut lost) = (0, Vec::new());
    while let Some(outcome) = outcomes.next().await {
        tried += 1;
        if let Err(loss) = outcome {
            eprintln!("{what}: {loss}\n");
            lost.push(loss);
        }
        if tried % 50 == 0 {
            eprintln!("{what}: {tried} of {count} tried, {} lost", lost.len());
        }
    }
    println!("{what} ({}): survived {} of {count}, {effects} effects", cluster.name(), count - lost.len());
    assert!(lost.is_empty(), "{} of {count} are lost", lost.len());
    assert!(count > 0, "nothing was tried");
}

async fn survive_one(cluster: Cluster, trial: Trial, undisturbed: Arc<Course>) -> Result<(), String> {
    let victim = Victim::start(cluster, Some(undisturbed.pairs.clone())).await;
    let course: Course = victim.tried(trial).await;
    let difference = course.difference(&undisturbed.end);
    difference.map_or(Ok(()), |difference| Err(format!("{trial:?} is lost: {difference}\n{}", course.told())))
}

/// Returns the effects, of those that a test would try, that are asked for, and shows all where some are.
fn chosen(undisturbed: &Course, would: impl Iterator<Item = usize>) -> Vec<usize> {
    let only = asked_for();
    if only.is_empty() {
        return would.collect();
    }
    eprintln!("{}", undisturbed.numbered());
    only
}

/// Kills a run at every boundary.
async fn once(cluster: Cluster, what: &str) {
    let undisturbed = Victim::start(cluster, None).await.run_undisturbed().await;
    let effects = chosen(&undisturbed, 1..=undisturbed.log.len());
    let trials = both_sides(effects.into_iter()).into_iter().map(Trial::Once).collect();
    survive(cluster, what, undisturbed, trials).await;
}

/// Returns every how many effects there is a kill, where not all are tried.
fn every(usual: usize) -> usize {
    std::env::var("CERTROLL_SURVIVE_EVERY").map_or(usual, |number| number.parse().unwrap())
}

/// Every how many effects a run without quorum is killed: three nodes take their time.
const QUORUM_EVERY: usize = 3;

/// Kills a run from the first change of a file that is in use to the last restart of etcd: what is before and after is the same
/// with and without a quorum.
async fn while_etcd_is_switched(cluster: Cluster, what: &str) {
    let undisturbed = Victim::start(cluster, None).await.run_undisturbed().await;
    let log = &undisturbed.log;
    let first = log.iter().position(|line| line.contains(" /etc/kubernetes/ssl/")).unwrap() + 1;
    let last = log.iter().rposition(|line| line.ends_with(": restart container etcd")).unwrap() + 1;
    assert_eq!(log.iter().filter(|line| line.ends_with(": restart container etcd")).count(), 3, "{log:?}");
    let effects = chosen(&undisturbed, (first..=last).step_by(every(QUORUM_EVERY)));
    let trials = both_sides(effects.into_iter()).into_iter().map(Trial::Once).collect();
    survive(cluster, what, undisturbed, trials).await;
}

/// Every how many effects a run is killed that is then killed again.
const TWICE_EVERY: usize = 7;

/// Kills a run at every so many effects, by turns before and after it, and its resumption somewhere in what is left.
async fn twice(cluster: Cluster, what: &str) {
    let undisturbed = Victim::start(cluster, None).await.run_undisturbed().await;
    let all = undisturbed.log.len();
    let trial = |effect: usize| {
        let side = if effect.is_multiple_of(2) { Side::Before } else { Side::After };
        Trial::Twice(Boundary { effect, side }, all)
    };
    let effects = chosen(&undisturbed, (1..all).step_by(every(TWICE_EVERY)));
    let trials = effects.into_iter().map(trial).collect();
    survive(cluster, what, undisturbed, trials).await;
}

/// Every how many effects a rollback is killed: each one needs a whole run before it.
const ROLLBACK_EVERY: usize = 10;

/// Kills the rollback of a finished run before and after every tenth effect, and resumes it.
async fn rolled_back(cluster: Cluster, what: &str) {
    let undisturbed = Victim::start(cluster, None).await.roll_back_undisturbed().await;
    let effects = chosen(&undisturbed, (1..=undisturbed.log.len()).step_by(every(ROLLBACK_EVERY)));
    let trials = both_sides(effects.into_iter()).into_iter().map(Trial::Rollback).collect();
    survive(cluster, what, undisturbed, trials).await;
}

fn test(trials: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .enable_all()
        .build()
        .unwrap()
        .block_on(trials);
}

#[test]
#[ignore = "takes minutes: `cargo test --test it -- --ignored --nocapture --test-threads 1 survive::`"]
fn a_direct_rotation_survives_a_kill_at_every_boundary() {
    test(once(Cluster::direct(), "a kill"));
}

#[test]
#[ignore = "takes minutes: `cargo test --test it -- --ignored --nocapture --test-threads 1 survive::`"]
fn a_rotation_through_rancher_survives_a_kill_at_every_boundary() {
    test(once(Cluster::rancher(), "a kill"));
}

#[test]
#[ignore = "takes minutes: `cargo test --test it -- --ignored --nocapture --test-threads 1 survive::`"]
fn a_rescue_survives_a_kill_while_etcd_has_no_quorum() {
    test(while_etcd_is_switched(Cluster::without_quorum(), "a kill without quorum"));
}

#[test]
#[ignore = "takes minutes: `cargo test --test it -- --ignored --nocapture --test-threads 1 survive::`"]
fn a_resumption_survives_a_kill_too() {
    test(twice(Cluster::direct(), "a second kill"));
}

#[test]
#[ignore = "takes minutes: `cargo test --test it -- --ignored --nocapture --test-threads 1 survive::`"]
fn a_rollback_survives_a_kill() {
    test(rolled_back(Cluster::direct(), "a kill of the rollback"));
}
