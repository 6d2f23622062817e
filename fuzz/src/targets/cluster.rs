//! Inventories, probes, journals, plans and Rancher's answers: what becomes facts, plans and reports.

use std::sync::LazyLock;
use std::time::Duration;

use certroll::escape::shown;
use certroll::event::RunState;
use certroll::facts::probe::read;
use certroll::facts::{BastionFiles, Content, Facts, Observation, Thresholds, assess};
use certroll::gather::facts_of;
use certroll::inventory::{Inventory, MaxUnavailable, Parsed};
use certroll::journal::parse_events;
use certroll::plan::{
    self, AfterDirect, CustomCertificates, Direct, KubeletServing, Plan, Policy, Procedure, Renewal, Via,
};
use certroll::report::check::{self, Check};
use certroll::report::review::{self, Review};
use certroll::report::{Style, lines, nodes, runs, shell};
use jiff::{SignedDuration, Timestamp};

use super::{files, files_of, signature};

/// The marker of all probes.
const MARKER: &str = "certroll-fuzz";

/// When the golden clusters were read out, half a year later: something is to be renewed.
static NOW: LazyLock<Timestamp> = LazyLock::new(|| "2027-09-21T20:00:00Z".parse().unwrap());

/// A cluster that rke 0.2.8 built, as it was seen.
static GOLDEN: LazyLock<(Inventory, Facts)> = LazyLock::new(|| {
    let text = files("tests/cases/golden/rke-v0.2.8", &["v0.2.8/cluster.yml"]).remove(0);
    let mut inventory = Inventory::parse(&String::from_utf8(text).unwrap(), "cluster.yml").unwrap().inventory;
    // One node of every role says as much as five, in less than half of the time.
    inventory.nodes.retain(|node| ["n1", "n5"].contains(&node.name.as_str()));
    let look = |node: &certroll::inventory::Node| {
        facts_of(node, Ok(read(&printed(node.name.as_str()), MARKER, *NOW).unwrap()))
    };
    let nodes = inventory.nodes.iter().map(look).collect();
    (inventory, Facts { observed_at: *NOW, nodes })
});

/// Returns what the probe prints on a golden node.
fn printed(node: &str) -> String {
    let folder = format!("tests/cases/golden/rke-v0.2.8/{node}");
    let one = |ending: &str| String::from_utf8(files(&folder, &[ending]).remove(0)).unwrap();
    let mut frames = vec![
        "access sudo\n".to_owned(),
        format!("clock {}\n", NOW.as_second()),
        "directory /etc/kubernetes\n".to_owned(),
    ];
    for (path, content) in files_of(&folder, &["pem"]) {
        let (name, size) = (path.file_name().unwrap().to_string_lossy().into_owned(), content.len());
        frames.push(format!(
            "files\n600 0 0 {size} 1795288400 2026-11-21 19:13:20.25 +0000 /etc/kubernetes/ssl/{name}\n\n\
             {MARKER} content /etc/kubernetes/ssl/{name}\n{}",
            String::from_utf8_lossy(&content)
        ));
    }
    frames.extend([
        format!(
            "files\n644 0 0 2209 1795288400 2026-11-21 19:13:20.25 +0000 /var/lib/kubelet/pki/kubelet.crt\n\n\
             {MARKER} content /var/lib/kubelet/pki/kubelet.crt\n{}",
            one("kubelet.crt")
        ),
        "writable yes\n".to_owned(),
        "space\n1000000 1024 2621440 90000 /etc/kubernetes\n".to_owned(),
        "used\n200\t/etc/kubernetes\n".to_owned(),
        format!("containers\n{}", one("containers.txt")),
        "etcd 0\nhttps://10.0.0.1:2379 is healthy: successfully committed proposal: took = 2ms\n".to_owned(),
        "end\n".to_owned(),
    ]);
    frames.iter().map(|frame| format!("\n{MARKER} {frame}")).collect::<Vec<_>>().concat()
}

pub(super) fn probe_seeds() -> Vec<Vec<u8>> {
    let nodes = ["n1", "n4", "n5"].map(printed);
    let lock = format!(
        "\n{MARKER} lock\n{{\"run\":\"20261121-190502-7f3a\",\"owner\":\"me@bastion\",\"pid\":7,\"since\":\"2026-11-21T19:05:02Z\"}}\n"
    );
    let held = printed("n1")
        .replace(&format!("\n{MARKER} end\n"), &format!("{lock}\n{MARKER} staged /x\n\n{MARKER} end\n"));
    let none = format!("\n{MARKER} none uid 1000; sudo: a password is required; docker: permission denied\n");
    let docker = format!(
        "\n{MARKER} access docker sha256:0123\n\n{MARKER} docker-error\nCannot connect\n\n{MARKER} end\n"
    );
    nodes.into_iter().chain([held, none, docker]).map(String::into_bytes).collect()
}

pub(super) fn container_seeds() -> Vec<Vec<u8>> {
    files("tests/cases/golden", &["containers.txt"])
}

pub(super) fn inventory(input: &[u8]) -> u64 {
    let text = String::from_utf8_lossy(input);
    match Inventory::parse(&text, "cluster.yml") {
        Err(error) => {
            let told = error.to_string();
            is_for_terminals(&told);
            signature(told.lines().next().unwrap_or_default())
        }
        Ok(Parsed { inventory, findings }) => {
            let ways = super::reach::ways(&inventory);
            is_for_terminals(&nodes::text(&inventory, &ways, &findings, Style::PLAIN));
            serde_json::to_string(&nodes::document(&inventory, &ways, &findings)).unwrap();
            // Nobody was seen: what is made of that holds nothing of the file that could hurt.
            let unseen = |node: &certroll::inventory::Node| {
                let unseen = certroll::facts::Unseen::fault(false, "no".to_owned(), None);
                certroll::gather::facts_of(node, Err(unseen))
            };
            let few = inventory.nodes.len() <= 20;
            if few {
                let facts = Facts { observed_at: *NOW, nodes: inventory.nodes.iter().map(unseen).collect() };
                look(&inventory, &facts, input.len());
            }
            signature(&format!(
                "{few} {:?}",
                findings.iter().map(|finding| &finding.code).collect::<Vec<_>>()
            ))
        }
    }
}

pub(super) fn probe(input: &[u8]) -> u64 {
    match read(&String::from_utf8_lossy(input), MARKER, *NOW) {
        Err(error) => signature(&error.to_string()),
        Ok(observation) => seen(observation, input.len()),
    }
}

pub(super) fn containers(input: &[u8]) -> u64 {
    let text = String::from_utf8_lossy(input).replace(MARKER, "");
    let answer = format!(
        "\n{MARKER} access root\n\n{MARKER} clock {}\n\n{MARKER} directory /etc/kubernetes\n\n{MARKER} containers\n{text}\n{MARKER} end\n",
        NOW.as_second()
    );
    let observation = read(&answer, MARKER, *NOW).unwrap();
    assert!(observation.containers.len() <= text.lines().count());
    seen(observation, input.len())
}

/// Puts an observation in the place of the first node's, and does all that is done with facts.
fn seen(observation: Observation, choice: usize) -> u64 {
    let (inventory, golden) = &*GOLDEN;
    let mut facts = golden.clone();
    let words = format!(
        "{:?} {:?} {:?} {}",
        observation.files.iter().map(|file| certificate_of(&file.content)).collect::<Vec<_>>(),
        observation.containers.iter().map(|one| (&one.state, one.started_at.is_some())).collect::<Vec<_>>(),
        observation.docker_error.is_some(),
        observation.lock.is_some()
    );
    facts.nodes.first_mut().unwrap().result = Ok(observation);
    signature(&(words + &look(inventory, &facts, choice)))
}

/// Returns how well a certificate could be read.
fn certificate_of(content: &Content) -> Option<bool> {
    match content {
        Content::Certificate(read) => Some(read.is_ok()),
        Content::Key(_) | Content::Other => None,
    }
}

/// Reports facts and plans from them; returns the kinds of what was found.
fn look(inventory: &Inventory, facts: &Facts, choice: usize) -> String {
    let thresholds = Thresholds { now: *NOW, expiring_within: SignedDuration::from_hours(24 * 30) };
    let findings = assess(inventory, facts, &thresholds);
    let elapsed = Duration::from_secs(1);
    let status = check::check_status(facts, &findings, &thresholds);
    let check = Check { inventory, facts, findings: &findings, thresholds, status, elapsed };
    is_for_terminals(&check::text(&check, Style::PLAIN));
    serde_json::to_string(&check::document(&check)).unwrap();

    let policy = policy(choice);
    let plan = plan::plan(inventory, facts, &policy);
    show(&plan, inventory, facts);
    let codes: Vec<_> = findings.iter().chain(&plan.blockers).map(|finding| &finding.code).collect();
    format!("{codes:?} {}", plan.stages.len())
}

/// Returns a policy of every kind in turn.
fn policy(choice: usize) -> Policy {
    let (procedure, via) = match choice % 4 {
        0 => (Procedure::Rotate, Some(Via::Direct)),
        1 => (Procedure::Rotate, Some(Via::Manual)),
        2 => (Procedure::Repair, None),
        _ => (Procedure::Restart, None),
    };
    let direct = Direct {
        validity: SignedDuration::from_hours(24 * 365),
        kubelet_serving: KubeletServing::Renewed,
        custom: CustomCertificates::Replaced,
        after: AfterDirect::Nothing,
        bastion: BastionFiles::default(),
    };
    Policy {
        procedure,
        via,
        services: Vec::new(),
        renew_within: SignedDuration::from_hours(24 * 90),
        renewal: if choice % 8 < 4 { Renewal::WhereNeeded } else { Renewal::All },
        max_unavailable_worker: MaxUnavailable::Percent(10),
        selected: None,
        rancher: None,
        wait: Duration::from_mins(1),
        health_timeout: Duration::from_mins(1),
        direct: (via == Some(Via::Direct)).then_some(direct),
        rke: None,
        break_lock: None,
        majority: plan::Majority::Needed,
        now: *NOW,
    }
}

/// Shows a plan in every way, and saves it.
fn show(plan: &Plan, inventory: &Inventory, facts: &Facts) {
    let review = Review { plan, facts, next: None };
    is_for_terminals(&review::text(&review, Style::PLAIN));
    is_for_terminals(&review::markdown(&review));
    serde_json::to_string(&review::document(&review)).unwrap();
    let runbook = shell::runbook(plan, inventory, facts, "20261121-190502-7f3a", *NOW);
    is_for_terminals(&runbook.replace('\t', " "));
    plan::check(plan, facts);
    let saved = serde_json::to_vec(plan).unwrap();
    let back: Plan = serde_json::from_slice(&saved).expect("a plan that is saved can be read back");
    assert_eq!(*plan, back, "a plan is read back as it was");
}

pub(super) fn plan_seeds() -> Vec<Vec<u8>> {
    let (inventory, facts) = &*GOLDEN;
    let done = files("fuzz/seeds", &["plan.json"]);
    let plans = (0..8).map(|choice| plan::plan(inventory, facts, &policy(choice)));
    plans.map(|plan| serde_json::to_vec_pretty(&plan).unwrap()).chain(done).collect()
}

pub(super) fn saved_plan(input: &[u8]) -> u64 {
    let (inventory, facts) = &*GOLDEN;
    match serde_json::from_slice::<Plan>(input) {
        Err(error) => signature(&error.to_string()),
        Ok(plan) => {
            show(&plan, inventory, facts);
            plan::moved(&plan.basis, &plan::basis(inventory, facts));
            signature(&format!("{:?} {} {}", plan.via, plan.stages.len(), plan.blockers.len()))
        }
    }
}

pub(super) fn journal(input: &[u8]) -> u64 {
    let events = match parse_events(std::path::Path::new("journal.jsonl"), input) {
        // What is wrong is told by the cause beneath it.
        Err(error) => return signature(&format!("{error:?}")),
        Ok(events) => events,
    };
    for event in &events {
        if let Some(line) = lines::line(event) {
            is_for_terminals(&line);
        }
        let again = serde_json::to_vec(event).unwrap();
        assert_eq!(serde_json::from_slice::<certroll::event::Event>(&again).unwrap(), *event);
    }
    let state = RunState::of(&events);
    let words = format!("{:?} {:?} {}", state.outcome, state.counts(), state.stages.len());
    let run = (state, "folder".to_owned(), runs::Life::Running);
    is_for_terminals(&runs::text_of_one(&run, Style::PLAIN));
    serde_json::to_string(&runs::document_of_one(&run)).unwrap();
    is_for_terminals(&runs::text(std::slice::from_ref(&run), Style::PLAIN));
    signature(&words) ^ events.len() as u64
}

pub(super) fn rancher(input: &[u8]) -> u64 {
    let answers = certroll::rancher::read_in_every_way(&String::from_utf8_lossy(input));
    assert!(
        answers.iter().take(1).all(|complaint| complaint.chars().count() <= 301),
        "a complaint is cut: {answers:?}"
    );
    signature(&answers.concat())
}

pub(super) fn escape(input: &[u8]) -> u64 {
    let text = String::from_utf8_lossy(input);
    let escaped = shown(&text);
    is_for_terminals(&escaped);
    assert!(!escaped.contains('\n'));
    assert_eq!(shown(&escaped), escaped, "what is safe stays as it is");
    signature(&escaped)
}

/// Expects nothing in a text that acts on a terminal, in the words of this driver rather than the program's.
pub(super) fn is_for_terminals(text: &str) {
    let acts = |letter: &char| {
        let code = u32::from(*letter);
        let is_control = code < 0x20 && *letter != '\n' || (0x7f..0xa0).contains(&code);
        let reorders = matches!(code, 0x061c | 0x200e | 0x200f | 0x202a..=0x202e | 0x2066..=0x2069);
        is_control || reorders || matches!(code, 0x2028 | 0x2029)
    };
    if let Some(letter) = text.chars().find(acts) {
        panic!("{letter:?} reaches the terminal: {text:?}");
    }
}
