//! Inputs that broke a parser once, and the seeds of the fuzzing driver: each is fed to its target, as the driver does.

#[path = "../../fuzz/src/targets.rs"]
mod targets;

use targets::{ALL, Target, known};

fn target(name: &str) -> &'static Target {
    ALL.iter().find(|target| target.name == name).expect(name)
}

#[test]
fn every_known_input_belongs_to_a_target_and_breaks_nothing() {
    let mut fed = 0;
    for target in ALL {
        for (path, input) in known(target.name) {
            let done = std::panic::catch_unwind(|| (target.run)(&input));
            assert!(done.is_ok(), "{} breaks {}", path.display(), target.name);
            fed += 1;
        }
    }
    let all = targets::known("");
    assert_eq!(all.len(), fed, "every folder is named after a target: {all:?}");
    assert!(fed > 0, "there are some");
}

#[test]
fn good_inputs_are_good() {
    for name in ["certificate", "journal", "plan", "known_hosts", "ssh_config", "rkestate", "kubeconfig"] {
        let seeds = (target(name).seeds)();
        assert!(!seeds.is_empty() && !target(name).dictionary.is_empty(), "{name}");
        let outcomes: std::collections::BTreeSet<u64> =
            seeds.iter().map(|seed| (target(name).run)(seed)).collect();
        // A seed that its parser refuses at once is a bad place to begin from.
        let refused = (target(name).run)(b"\0");
        assert!(outcomes.iter().any(|outcome| *outcome != refused), "{name}");
    }
}
