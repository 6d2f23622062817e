//! The fault matrix: everything that can go wrong on a node, in every stage of a rotation.
//!
//! Each cell has a fleet of its own, in which one fault begins when the first script of one stage arrives at one node. What is
//! asked of each: a right exit status (0 where a retry overcomes the fault or it does not matter there), a message that names
//! node, step and way out, backups that are whole, pairs that are whole, and a cluster that `check` explains while the fault is
//! still there. The table is printed: `done`, `retried`, `failed` (with the stage, where it is a later one) or `refused`.
//! `CERTROLL_MATRIX=direct/etcd/reboot` tries the cells alone whose name holds the text, and shows what their runs said.
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::format_push_string,
    clippy::enum_variant_names,
    reason = "a test that cannot go on panics; it reads files itself, and prints its table"
)]

mod cell;
mod fault;

use std::collections::BTreeMap;

use futures::StreamExt as _;

use crate::survive::victim::{Cluster, Victim};
use cell::{Cell, Method, Outcome};
use fault::Wrong;

/// How many cells live side by side: most of their time passes with waiting for what does not come.
const SIDE_BY_SIDE: usize = 16;

async fn matrix(method: Method) {
    let cluster = match method {
        Method::Direct => Cluster::direct(),
        Method::Rancher => Cluster::rancher(),
    };
    let pairs = Victim::start(cluster, None).await.fleet.pairs();
    let only = std::env::var("CERTROLL_MATRIX").unwrap_or_default();
    let cells = Wrong::ALL
        .into_iter()
        .flat_map(|wrong| method.stages().iter().map(move |stage| Cell { method, wrong, stage }));
    let outcomes: Vec<(Cell, Outcome)> = futures::stream::iter(cells)
        .filter(|cell| std::future::ready(cell.name().contains(&only)))
        .map(|cell| {
            let pairs = pairs.clone();
            tokio::spawn(async move { (cell, cell.try_it(cluster, pairs).await) })
        })
        .buffer_unordered(SIDE_BY_SIDE)
        .map(Result::unwrap)
        .collect()
        .await;
    if !only.is_empty() {
        for (_, outcome) in &outcomes {
            println!("{}", outcome.told);
        }
    }
    println!("{}", table(method, &outcomes));
    let count = outcomes.len();
    let wrong: Vec<String> = outcomes.into_iter().filter_map(|(_, outcome)| outcome.complaint).collect();
    assert!(wrong.is_empty(), "{} of {count} cells:\n{}", wrong.len(), wrong.join("\n\n"));
}

/// Returns the outcomes as a table: a line a fault, a column a stage.
fn table(method: Method, outcomes: &[(Cell, Outcome)]) -> String {
    let words: BTreeMap<(usize, &str), &str> = outcomes
        .iter()
        .map(|(cell, outcome)| ((cell.wrong as usize, cell.stage.name), outcome.word.as_str()))
        .collect();
    let mut text = format!("\n{:<26}", format!("{method:?}"));
    for stage in method.stages() {
        text.push_str(&format!("{:<25}", stage.name));
    }
    for wrong in Wrong::ALL {
        text.push_str(&format!("\n{:<26}", wrong.name()));
        for stage in method.stages() {
            text.push_str(&format!(
                "{:<25}",
                words.get(&(wrong as usize, stage.name)).copied().unwrap_or("")
            ));
        }
    }
    text
}

fn test(method: Method) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap();
    runtime.block_on(matrix(method));
}

#[test]
#[ignore = "takes some minutes: `cargo test --locked --test it -- --ignored --nocapture --test-threads 1 matrix::`"]
fn every_fault_in_every_stage_of_a_direct_rotation() {
    test(Method::Direct);
}

#[test]
#[ignore = "takes some minutes: `cargo test --locked --test it -- --ignored --nocapture --test-threads 1 matrix::`"]
fn every_fault_in_every_stage_of_a_rotation_through_rancher() {
    test(Method::Rancher);
}
