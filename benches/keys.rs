//! Measures keys and certificates of a cluster of 100 nodes against bare key generation, both on all cores, in one run.
//!
//! `cargo bench --bench keys` takes five rounds of each, by turns; `-- N` takes N.
#![expect(clippy::print_stdout, reason = "the numbers are the product")]

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use certroll::inventory::Inventory;
use certroll::pki::{Certificate, KeyAlgorithm, KeyPair, Leaf, Signer, SubjectKey, leaf, new_key};
use rcgen::{BasicConstraints, CertificateParams, IsCa, PKCS_RSA_SHA256, RsaKeySize};
use tokio::task::JoinSet;

const NODES: usize = 100;
const CONTROL_PLANE: usize = 3;
const GOAL: f64 = 1.2;

/// Returns a cluster of three control plane nodes and workers, whose kubelets serve with certificates of the CA.
fn inventory() -> Result<Inventory> {
    let mut text = "services: {kubelet: {generate_serving_certificate: true}}\nnodes:\n".to_owned();
    for number in 1..=NODES {
        let role = if number <= CONTROL_PLANE { "controlplane, etcd" } else { "worker" };
        writeln!(
            text,
            "- {{address: 10.0.0.{number}, hostname_override: n{number}, user: u, role: [{role}]}}"
        )?;
    }
    Ok(Inventory::parse(&text, "cluster.yml")?.inventory)
}

/// Returns every leaf of the cluster.
fn leaves(inventory: &Inventory) -> Vec<Leaf> {
    let shared = [
        "kube-apiserver",
        "kube-apiserver-proxy-client",
        "kube-controller-manager",
        "kube-scheduler",
        "kube-proxy",
        "kube-node",
        "kube-admin",
    ];
    let of_nodes = inventory.nodes.iter().flat_map(|node| {
        ["kube-etcd", "kube-kubelet"].map(|prefix| format!("{prefix}-{}", node.file_name_address()))
    });
    let names = shared.into_iter().map(str::to_owned).chain(of_nodes);
    names.filter_map(|name| leaf(&name, inventory)).collect()
}

/// Makes a CA as RKE's.
fn signer() -> Result<Signer> {
    let key = rcgen::KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048)?;
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    Ok(Signer::new(params.self_signed(&key)?.pem().as_bytes(), &key.serialize_pem())?)
}

/// Does a number of jobs on as many threads as there are cores, and returns how long it took.
fn timed<T: Send + 'static>(
    count: usize,
    job: impl Fn(usize) -> Result<T> + Send + Sync + 'static,
) -> Result<Duration> {
    let cores = std::thread::available_parallelism()?.get();
    let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(cores).build()?;
    let job = Arc::new(job);
    let begun = Instant::now();
    let made = runtime.block_on(async {
        let mut jobs = JoinSet::new();
        for number in 0..count {
            let job = Arc::clone(&job);
            jobs.spawn_blocking(move || job(number));
        }
        jobs.join_all().await.into_iter().collect::<Result<Vec<T>>>()
    })?;
    let taken = begun.elapsed();
    anyhow::ensure!(made.len() == count, "{} of {count} were made", made.len());
    Ok(taken)
}

/// Makes a pair as a run does.
fn pair(signer: &Signer, leaf: &Leaf, number: usize) -> Result<KeyPair> {
    let key_pem = new_key(KeyAlgorithm::Rsa2048)?;
    let end = signer.certificate().not_after;
    let certificate: Certificate =
        signer.issue(leaf, SubjectKey::Pem(&key_pem), u64::try_from(number)? + 1, end)?;
    Ok(KeyPair { certificate, key_pem })
}

fn main() -> Result<()> {
    // cargo adds `--bench`.
    let rounds = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(5);
    let inventory = inventory()?;
    let leaves = Arc::new(leaves(&inventory));
    let signer = Arc::new(signer()?);
    let count = leaves.len();
    println!(
        "{count} pairs of {NODES} nodes, RSA 2048, {} cores, {rounds} rounds",
        std::thread::available_parallelism()?
    );
    let (mut bare, mut whole) = (Duration::ZERO, Duration::ZERO);
    for _ in 0..rounds {
        bare += timed(count, |_| Ok(rcgen::KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048)?))?;
        let (leaves, signer) = (Arc::clone(&leaves), Arc::clone(&signer));
        whole += timed(count, move |number| {
            pair(&signer, leaves.get(number).context("there is no such leaf")?, number)
        })?;
    }
    let ratio = whole.as_secs_f64() / bare.as_secs_f64();
    println!("bare keys               {:8.0} ms a round", bare.as_secs_f64() * 1000.0 / f64::from(rounds));
    println!("keys and certificates   {:8.0} ms a round", whole.as_secs_f64() * 1000.0 / f64::from(rounds));
    let verdict = if ratio <= GOAL { "within" } else { "beyond" };
    println!("ratio                   {ratio:8.2}, {verdict} the goal of {GOAL}");
    Ok(())
}
