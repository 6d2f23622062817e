//! The lock of a cluster and the lease on it: one run at a time, and no dead one in the way of the next.

use std::sync::Arc;
use std::time::Duration;

use certroll::clock::Clock;
use certroll::command::BecomeRoot;
use certroll::event::{Event, EventKind, Outcome, RunOutcome, RunState};
use certroll::execute::{Claim, LeaseTimes, LockError, Operator, Run, execute, release_lock, take_lock};
use certroll::facts::probe::KeyReading;
use certroll::facts::{Facts, LockHolder};
use certroll::gather::{self, Gatherer};
use certroll::inventory::Inventory;
use certroll::journal::{Journal, load_plan};
use certroll::plan::Plan;
use certroll::sim::{Fault, Layout};
use certroll::transport::{HostKeyPolicy, Settings, Transport};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Child;
use tokio::sync::mpsc;

use super::faults::signal;
use super::{Ended, KUBERNETES, LIMIT, Nobody, Rehearsal, name, rehearse};

const LOCK: &str =
    r#"{"run":"20261120-101010-beef","owner":"eve@elsewhere","pid":4711,"since":"2026-11-20T10:10:10Z"}"#;

const PATH: &str = "/etc/kubernetes/.certroll/lock";

/// Puts the lock of another run on a node, renewed just now.
async fn lock(lab: &Rehearsal, node: &str) {
    let folder = format!("{KUBERNETES}/.certroll");
    lab.root(node, &format!("mkdir -p {folder} && printf '%s\\n' '{LOCK}' > {PATH}")).await;
}

/// Makes the lock on a node look as if nobody had renewed it for ten minutes.
pub(super) async fn end_lease(lab: &Rehearsal, node: &str) {
    lab.root(node, &format!("touch -d @$(($(date +%s) - 600)) {PATH}")).await;
}

#[test]
fn a_live_lock_is_respected_and_a_stale_one_is_broken_by_name() {
    rehearse(async {
        let lab = Rehearsal::start(Layout::LegacyExpired).await;
        lock(&lab, "cp-1").await;
        let effects = lab.effects();
        lab.certroll(&["apply", "repair", "--yes"])
            .await
            .expect(4)
            .shows("run 20261120-101010-beef of eve@elsewhere (process 4711) holds the lock")
            .shows("alive")
            .shows("a live lease cannot be broken");
        let breaks = ["apply", "repair", "--yes", "--break-lock", "20261120-101010-beef"];
        lab.certroll(&breaks).await.expect(4).shows("a live lease cannot be broken");
        lab.certroll(&["check"]).await.expect(3).shows("holds the lock").shows("alive");
        assert_eq!(lab.effects(), effects);

        end_lease(&lab, "cp-1").await;
        let effects = lab.effects();
        lab.certroll(&["check"]).await.expect(3).shows("renewed 10 min ago: stale").shows("--break-lock");
        lab.certroll(&["apply", "repair", "--yes"])
            .await
            .expect(4)
            .shows("--break-lock 20261120-101010-beef");
        lab.certroll(&["apply", "repair", "--yes", "--break-lock", "20261120-101010-dead"]).await.expect(4);
        assert_eq!(lab.effects(), effects);
        lab.certroll(&breaks).await.expect(0);
        assert_eq!(lab.locks(KUBERNETES), Vec::<String>::new());
    });
}

/// Starts an apply that would wait for the operator, with a cluster.yml of its own.
fn apply(lab: &Rehearsal, config: &str) -> Child {
    let words = ["apply", "--via", "manual", "--yes", "-o", "json", "--progress", "none"];
    let mut command = lab.program(&words);
    if !config.is_empty() {
        command.arg("--config").arg(config);
    }
    command.spawn().unwrap()
}

/// Waits until an apply asks the operator to rotate, which says that it has the lock, or has ended.
async fn has_won(child: &mut Child) -> bool {
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    while let Some(line) = lines.next_line().await.unwrap() {
        if line.contains("waiting_for_operator") {
            // Nobody reads on: what it writes until it is stopped fits the pipe.
            std::mem::forget(lines);
            return true;
        }
    }
    false
}

#[test]
fn of_two_runs_that_begin_at_once_exactly_one_wins() {
    rehearse(async {
        let lab = Rehearsal::start(Layout::LegacyExpired).await;
        for _ in 0..3 {
            let (mut left, mut right) = (apply(&lab, ""), apply(&lab, ""));
            let both = async { tokio::join!(has_won(&mut left), has_won(&mut right)) };
            let (left_won, right_won) = tokio::time::timeout(LIMIT, both).await.unwrap();
            assert!(left_won != right_won, "exactly one: {left_won} {right_won}");
            let (winner, loser) = if left_won { (left, right) } else { (right, left) };
            assert_eq!(lab.locks(KUBERNETES), ["cp-1", "cp-2"]);
            let refused = loser.wait_with_output().await.unwrap();
            // The one that came late sees the lock while it plans already.
            Ended::of(refused).expect(4).says("holds the lock since");
            signal(&winner, "INT").await;
            Ended::of(winner.wait_with_output().await.unwrap()).expect(130);
            assert_eq!(lab.locks(KUBERNETES), Vec::<String>::new());
        }
    });
}

/// A run that is carried out in this process, so that its lease can be short.
struct Site {
    lab: Rehearsal,
    gatherer: Gatherer,
    facts: Facts,
    plan: Plan,
}

impl Site {
    async fn new() -> Self {
        let lab = Rehearsal::start(Layout::LegacyExpired).await;
        let path = lab.path("manual.plan");
        lab.certroll(&["plan", "--via", "manual", "--save", path.to_str().unwrap()]).await.expect(0);
        let plan = load_plan(&path).unwrap();
        let yml = std::fs::read_to_string(&lab.fleet.paths().cluster_yml).unwrap();
        let inventory = Arc::new(Inventory::parse(&yml, "fleet").unwrap().inventory);
        let mut settings = Settings::new(lab.folder.path(), Arc::new(Nobody));
        settings.host_keys = HostKeyPolicy::Strict;
        settings.known_hosts = vec![lab.fleet.paths().known_hosts.clone()];
        settings.connect_timeout = Duration::from_secs(5);
        let transport = Arc::new(Transport::new(settings, None).unwrap());
        let looks = gather::Settings {
            parallel: 8,
            keys: KeyReading::PublicPrefix,
            become_root: BecomeRoot::Auto,
            clock: Clock::System,
        };
        let gatherer = Gatherer::new(Arc::clone(&inventory), transport, looks);
        let nodes: Vec<_> = inventory.nodes.iter().collect();
        let facts = gatherer.gather(&nodes, |_| {}).await;
        Self { lab, gatherer, facts, plan }
    }

    async fn take(&self, holder: &LockHolder, claim: Claim<'_>) -> Result<(), LockError> {
        take_lock(&self.gatherer, &self.facts, &self.plan, holder, claim).await
    }

    async fn release(&self, holder: &LockHolder) {
        let kept = release_lock(&self.gatherer, &self.facts, &self.plan.lock_nodes, holder).await;
        assert_eq!(kept, []);
    }

    /// Carries the plan out with a lease that lasts for seconds; `disturb` is done once it waits for the operator.
    async fn run(&self, disturb: impl Future<Output = ()>) -> (Vec<Event>, RunState) {
        let holder = holder("20261122-000000-aaaa", 1);
        self.take(&holder, Claim::Fresh).await.unwrap();
        let journal = Journal::create(&self.lab.path("run"), &self.plan).unwrap();
        let run = Run {
            holder,
            plan: self.plan.clone(),
            facts: self.facts.clone(),
            gatherer: self.gatherer.clone(),
            rancher: None,
            clock: Clock::System,
            parallel: 8,
            operator: Arc::new(Operator::default()),
            lease: LeaseTimes {
                renewed_every: Duration::from_millis(100),
                // On a busy machine a renewal takes long.
                lasts: Duration::from_secs(6),
            },
        };
        let (sender, mut receiver) = mpsc::unbounded_channel();
        let mut listen = |event: &Event| sender.send(event.clone()).unwrap();
        let mut events = Vec::new();
        let state = {
            let running = execute(&run, journal, &mut listen);
            let hearing = async {
                while let Some(event) = receiver.recv().await {
                    let waits = matches!(event.kind, EventKind::WaitingForOperator { .. });
                    events.push(event);
                    if waits {
                        break;
                    }
                }
                disturb.await;
            };
            let both = async { tokio::join!(running, hearing) };
            tokio::time::timeout(LIMIT, both).await.unwrap().0.unwrap()
        };
        while let Ok(event) = receiver.try_recv() {
            events.push(event);
        }
        (events, state)
    }
}

fn holder(run: &str, pid: u32) -> LockHolder {
    LockHolder {
        run: run.to_owned(),
        owner: "operator@bastion".to_owned(),
        pid,
        since: "2026-11-22T00:00:00Z".to_owned(),
    }
}

/// Expects that a run lost its lock, ended with status 1, and says so of every step that it did not run; returns why.
#[track_caller]
fn lost(events: &[Event], state: &RunState) -> String {
    let reasons: Vec<&String> = events
        .iter()
        .filter_map(|event| match &event.kind {
            EventKind::LockLost { reason } => Some(reason),
            _ => None,
        })
        .collect();
    let [reason] = reasons.as_slice() else { panic!("{reasons:?} in {events:#?}") };
    assert_eq!((state.outcome, state.exit_status), (Some(RunOutcome::Failed), Some(1)));
    let not_run: Vec<&String> = state
        .steps
        .iter()
        .filter_map(|step| match &step.outcome {
            Some(Outcome::NotRun { reason }) => Some(reason),
            _ => None,
        })
        .collect();
    assert!(!not_run.is_empty());
    assert!(not_run.iter().all(|said| **said == format!("the lock was lost: {reason}")), "{not_run:?}");
    (*reason).clone()
}

#[test]
fn a_run_that_finds_another_ones_lock_begins_nothing_more() {
    rehearse(async {
        let site = Site::new().await;
        let disturb = async {
            lock(&site.lab, "cp-2").await;
        };
        let (events, state) = Box::pin(site.run(disturb)).await;
        let reason = lost(&events, &state);
        assert!(
            reason.starts_with("on cp-2, run 20261120-101010-beef of eve@elsewhere (process 4711)"),
            "{reason}"
        );
        assert_eq!(site.lab.locks(KUBERNETES), ["cp-2"], "the other run's lock stays");
    });
}

#[test]
fn a_run_that_cannot_renew_its_lease_begins_nothing_more() {
    rehearse(async {
        let site = Site::new().await;
        let disturb = async {
            for node in ["cp-1", "cp-2"] {
                site.lab.fleet.inject(&name(node), Fault::Unreachable);
            }
        };
        let (events, state) = Box::pin(site.run(disturb)).await;
        let reason = lost(&events, &state);
        assert!(reason.starts_with("the lease could not be renewed on cp-1, cp-2 for "), "{reason}");
        assert_eq!(state.locked, [name("cp-1"), name("cp-2")], "it could not be given back");
        for node in ["cp-1", "cp-2"] {
            site.lab.fleet.mend(&name(node));
        }
    });
}

#[test]
fn a_lease_that_is_renewed_on_one_of_two_nodes_holds_and_a_lock_that_was_removed_comes_back() {
    rehearse(async {
        let site = Site::new().await;
        let disturb = async {
            site.lab.fleet.inject(&name("cp-2"), Fault::Unreachable);
            site.lab.root("cp-1", &format!("rm {PATH}")).await;
            // It is there again with the next renewal.
            while site.lab.locks(KUBERNETES) != ["cp-1", "cp-2"] {
                tokio::task::yield_now().await;
            }
            site.lab.fleet.mend(&name("cp-2"));
            site.lab.fleet.operator_rotates().await.unwrap();
        };
        let (events, state) = Box::pin(site.run(disturb)).await;
        assert!(!events.iter().any(|event| matches!(event.kind, EventKind::LockLost { .. })));
        assert_eq!(state.outcome, Some(RunOutcome::Done));
        assert_eq!(site.lab.locks(KUBERNETES), Vec::<String>::new());
    });
}

#[test]
fn a_resume_adopts_the_lock_of_its_own_run_and_no_other() {
    rehearse(async {
        let site = Site::new().await;
        let (first, second) = (holder("20261122-000000-aaaa", 1), holder("20261122-000000-aaaa", 2));
        site.take(&first, Claim::Fresh).await.unwrap();
        assert!(matches!(site.take(&second, Claim::Fresh).await, Err(LockError::Held { .. })));
        site.take(&second, Claim::Adopts(None)).await.unwrap();
        site.release(&first).await;
        assert_eq!(site.lab.locks(KUBERNETES), ["cp-1", "cp-2"], "it is the second attempt's now");

        let other = holder("20261122-000000-bbbb", 3);
        let error = site.take(&other, Claim::Adopts(None)).await.unwrap_err();
        let LockError::Held { node, lock } = &error else { panic!("{error}") };
        assert_eq!((node.as_str(), &lock.holder), ("cp-1", &second));
        for claim in [Claim::Breaks(&first.run), Claim::Breaks("another")] {
            assert!(matches!(site.take(&other, claim).await, Err(LockError::Held { .. })), "it is alive");
        }
        end_lease(&site.lab, "cp-1").await;
        let half_stale = site.take(&other, Claim::Breaks(&first.run)).await;
        assert!(matches!(half_stale, Err(LockError::Held { .. })), "cp-2 knows better");
        assert_eq!(site.lab.locks(KUBERNETES), ["cp-2"], "what it took on cp-1 is given back");
        end_lease(&site.lab, "cp-2").await;
        site.take(&other, Claim::Breaks(&first.run)).await.unwrap();
        // Of a run that stopped one node has its own lock, the next one that of another.
        let line = serde_json::to_string(&second).unwrap();
        site.lab.root("cp-1", &format!("printf '%s\\n' '{line}' >{PATH}")).await;
        end_lease(&site.lab, "cp-2").await;
        site.take(&first, Claim::Adopts(Some(&other.run))).await.unwrap();
        site.release(&other).await;
        assert_eq!(site.lab.locks(KUBERNETES), ["cp-1", "cp-2"], "both are the first one's");
        site.release(&first).await;
        assert_eq!(site.lab.locks(KUBERNETES), Vec::<String>::new());
        let left: Vec<_> = site.lab.fleet.node(&name("cp-1")).unwrap().files();
        assert!(!left.iter().any(|file| file.path.contains(".certroll/lock")), "nothing is left behind");
    });
}
