use std::io::Write as _;
use std::process::Stdio;

use super::*;
use crate::finding::Finding;
use crate::inventory::Secret;
use crate::plan::Stage;
use crate::report::sample::{RUN, at, direct_facts, direct_plan, facts, inventory, plan};

fn sample() -> String {
    runbook(&plan(), &inventory(), &facts(), RUN, at(0))
}

fn manual() -> String {
    let mut plan = plan();
    for step in plan.stages.iter_mut().flat_map(|stage: &mut Stage| &mut stage.steps) {
        if let Action::RotateByRancher { timeout, .. } = step.action {
            let instructions = vec!["Rancher's menu (⋮): `Rotate`, \"all\", $HOME".to_owned()];
            step.action = Action::RotateByOperator { instructions, timeout, before: Vec::new() };
        }
    }
    let mut inventory = inventory();
    inventory.bastion = None;
    runbook(&plan, &inventory, &facts(), RUN, at(0))
}

fn direct() -> String {
    runbook(&direct_plan(), &inventory(), &direct_facts(), RUN, at(0))
}

fn blocked() -> String {
    let mut plan = plan();
    plan.blockers.push(Finding::error("locked", "run `x` holds the lock\nsince $(date)"));
    runbook(&plan, &inventory(), &facts(), RUN, at(0))
}

fn empty() -> String {
    let mut plan = plan();
    plan.stages.clear();
    runbook(&plan, &inventory(), &facts(), RUN, at(0))
}

#[test]
fn the_runbook_of_a_whole_plan() {
    insta::assert_snapshot!(sample());
}

#[test]
fn the_runbook_of_a_rotation_with_the_own_ca() {
    let script = direct();
    let (_, body) = script.split_once("take_lock cp-2\n").unwrap();
    let (head, _) = script.split_once("# Says something.").unwrap();
    insta::assert_snapshot!(format!("{head}[...]\n{body}"));
}

#[test]
fn a_blocked_plan_is_not_carried_out() {
    let script = blocked();
    assert!(script.ends_with("exit 1\n") && !script.contains("ssh $SSH_OPTIONS"), "{script}");
}

#[test]
fn no_key_is_carried_or_fetched() {
    let mut inventory = inventory();
    for node in &mut inventory.nodes {
        node.ssh.key = Some(Secret::new("-----BEGIN RSA PRIVATE KEY-----\nMIIE\n".to_owned()));
    }
    let script = runbook(&plan(), &inventory, &facts(), RUN, at(0));
    for script in [script, sample(), manual(), direct()] {
        assert!(!script.contains("PRIVATE KEY") && !script.contains("MIIE"), "{script}");
        // The commands that a key would come in with.
        assert!(
            !script.contains("add kube-ca-key.pem") && !script.contains("add kube-admin-key.pem"),
            "{script}"
        );
    }
}

/// Gives a script to a program that reads it from stdin; `None` where there is no such program.
#[expect(clippy::disallowed_methods, reason = "the shells and the checker of this machine judge the script")]
fn judge(program: &str, arguments: &[&str], script: &str) -> Option<Result<(), String>> {
    let child = std::process::Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.ok()?;
    child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    Some(if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&said).into_owned()) })
}

#[test]
fn every_runbook_is_a_sound_script() {
    for (program, arguments) in [
        ("shellcheck", &["-s", "sh", "-"][..]),
        ("dash", &["-n"]),
        ("busybox", &["sh", "-n"]),
        ("bash", &["-n"]),
    ] {
        for script in [sample(), manual(), direct(), blocked(), empty()] {
            match judge(program, arguments, &script) {
                Some(verdict) => assert_eq!(verdict, Ok(()), "{program}"),
                None => eprintln!("SKIPPED: there is no `{program}` here, so it did not judge the runbooks"),
            }
        }
    }
}

#[test]
fn a_here_document_ends_where_it_should() {
    let (end, document) = text::document("a\nEND\nEND_\nb", "END");
    assert_eq!(end, "END__");
    assert_eq!(document, text::Line::Document("a\nEND\nEND_\nb\nEND__".to_owned()));
}

#[test]
fn only_functions_that_are_called_are_there() {
    let script = manual();
    assert!(script.contains("press_enter() {") && !script.contains("rotate_by_rancher() {"), "{script}");
}

/// A cluster of folders: `ssh` runs its script here, `docker` knows one answer, `sleep` does not.
struct Rehearsal {
    folder: tempfile::TempDir,
    facts: Facts,
    plan: Plan,
}

#[expect(
    clippy::disallowed_methods,
    reason = "the rehearsal makes its nodes out of files and runs the script for real"
)]
impl Rehearsal {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let stubs = [
            ("ssh", "for last; do :; done\nexec sh -c \"$last\""),
            ("sudo", "shift\nexec \"$@\""),
            ("sleep", "exit 0"),
            (
                "docker",
                "here=$(dirname \"$0\")\ncase $1 in\ninspect)\n  \
                 if grep -qs \" $4\\$\" \"$here/restarted\"; then echo 'true 2999-01-01T00:00:00.5Z'; \
                 else echo 'true 2001-01-01T00:00:00.5Z'; fi ;;\n\
                 restart) echo \"$*\" >>\"$here/restarted\" ;;\nesac",
            ),
        ];
        std::fs::create_dir(path("bin")).unwrap();
        for (name, text) in stubs {
            let stub = path(&format!("bin/{name}"));
            std::fs::write(&stub, format!("#!/bin/sh\n{text}\n")).unwrap();
            std::fs::set_permissions(&stub, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        }
        let mut facts = facts();
        for node in &mut facts.nodes {
            let directory = path(&format!("{}/etc/kubernetes", node.name));
            std::fs::create_dir_all(format!("{directory}/ssl")).unwrap();
            let pem = "-----BEGIN CERTIFICATE-----\na3ViZS1jYQ==\n-----END CERTIFICATE-----\n";
            for name in ["kube-ca", "kube-apiserver", "kube-node", "kube-proxy"] {
                std::fs::write(format!("{directory}/ssl/{name}.pem"), pem).unwrap();
            }
            let observation = node.result.as_mut().unwrap();
            observation.kubernetes_directory = directory;
            observation.access = crate::command::Access::Sudo;
        }
        let mut plan = plan();
        for action in plan.stages.iter_mut().flat_map(|stage| &mut stage.steps).map(|step| &mut step.action) {
            if let Action::Restart { guard: crate::plan::Guard::IfNeeded { patience, .. }, .. } = action {
                *patience = std::time::Duration::ZERO;
            }
            let (Action::CopyFiles { copies, .. } | Action::BringFiles { copies, .. }) = action else {
                continue;
            };
            for copy in copies {
                copy.source = copy.source.replace("/etc/", &path("cp-1/etc/"));
                let node = if copy.destination.contains("requestheader") { "cp-1" } else { "cp-2" };
                copy.destination = copy.destination.replace("/etc/", &path(&format!("{node}/etc/")));
            }
        }
        Self { folder, facts, plan }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    /// Leaves the stages that need neither Rancher nor a private key.
    fn without_secrets(mut self) -> Self {
        for stage in &mut self.plan.stages {
            stage.steps.retain(|step| match &step.action {
                Action::AddKubeAdmin { .. } | Action::RotateByRancher { .. } | Action::CopyFiles { .. } => {
                    false
                }
                Action::BringFiles { copies, .. } => copies[0].source.ends_with("kube-ca.pem"),
                _ => true,
            });
        }
        self.plan.stages.retain(|stage| !stage.steps.is_empty());
        self
    }

    /// Runs the runbook; returns whether it succeeded, and what it said.
    fn run(&self) -> (bool, String) {
        let script = self.path("runbook.sh");
        std::fs::write(&script, runbook(&self.plan, &inventory(), &self.facts, RUN, at(0))).unwrap();
        let output = std::process::Command::new("sh")
            .arg(script)
            .env_clear()
            .env("PATH", format!("{}:/usr/local/bin:/usr/bin:/bin", self.path("bin").display()))
            .env("HOME", self.folder.path())
            .env("YES", "1")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        (output.status.success(), said)
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }
}

const LOCK: &str = "cp-2/etc/kubernetes/.certroll/lock";

#[test]
fn a_runbook_does_what_its_plan_says_and_may_be_run_again() {
    let rehearsal = Rehearsal::new().without_secrets();
    let (succeeded, said) = rehearsal.run();
    assert!(succeeded, "{said}");
    let archive = format!("cp-1/etc/kubernetes/.certroll/{RUN}/backup.tar");
    assert!(rehearsal.path(&archive).is_file(), "{said}");
    assert_eq!(
        rehearsal.read("cp-2/etc/kubernetes/.tmp/kube-ca.pem"),
        rehearsal.read("cp-1/etc/kubernetes/ssl/kube-ca.pem")
    );
    let restarted = rehearsal.read("bin/restarted");
    assert!(restarted.starts_with("restart -t 5 kubelet\nrestart -t 5 kube-proxy\n"), "{restarted}");
    assert!(!rehearsal.path(LOCK).exists(), "{said}");

    let (succeeded, said) = rehearsal.run();
    assert!(succeeded && said.contains("w-1: kubelet needs no restart"), "{said}");
}

#[test]
fn a_lock_of_somebody_else_stops_the_runbook_and_stays() {
    let rehearsal = Rehearsal::new().without_secrets();
    let _ = rehearsal.run();
    rehearsal.write(LOCK, "{\"run\":\"other\"}\n");
    let (succeeded, said) = rehearsal.run();
    assert!(!succeeded && said.contains("is held: {\"run\":\"other\"}"), "{said}");
    assert_eq!(rehearsal.read(LOCK), "{\"run\":\"other\"}\n");
    assert!(!rehearsal.path("cp-1/etc/kubernetes/.certroll/lock").exists(), "{said}");
}

#[test]
fn the_lock_is_one_that_certroll_can_read() {
    let rehearsal = Rehearsal::new().without_secrets();
    let seen = rehearsal.path("seen");
    let docker = format!("#!/bin/sh\ncp {} {}\nexit 1\n", rehearsal.path(LOCK).display(), seen.display());
    rehearsal.write("bin/docker", &docker);
    let (succeeded, said) = rehearsal.run();
    assert!(!succeeded && said.contains("docker does not answer"), "{said}");
    let holder: crate::facts::LockHolder = serde_json::from_str(&rehearsal.read("seen")).unwrap();
    assert_eq!(holder.run, RUN);
    assert!(holder.owner.contains('@') && holder.pid > 0, "{holder:?}");
    holder.since.parse::<Timestamp>().unwrap();
    assert!(!rehearsal.path(LOCK).exists(), "{said}");
}

#[test]
fn a_step_that_needs_a_key_stops_and_names_the_command() {
    let rehearsal = Rehearsal::new();
    std::fs::create_dir_all(rehearsal.path("cp-1/etc/kubernetes/.tmp")).unwrap();
    for name in ["kube-ca.pem", "kube-ca-key.pem"] {
        rehearsal.write(&format!("cp-1/etc/kubernetes/.tmp/{name}"), "x");
    }
    let (succeeded, said) = rehearsal.run();
    assert!(!succeeded && said.contains("certroll apply repair -c cluster.yml -n cp-1;"), "{said}");
    assert!(!rehearsal.path(LOCK).exists() && !said.contains("4/7"), "{said}");

    for name in ["kube-admin.pem", "kube-admin-key.pem"] {
        rehearsal.write(&format!("cp-1/etc/kubernetes/.tmp/{name}"), "x");
    }
    let (_, said) = rehearsal.run();
    assert!(said.contains("cp-1: the files are there already"), "{said}");
    assert!(said.contains("certroll apply repair -c cluster.yml -n cp-2;"), "{said}");
}

#[test]
fn a_certificate_that_has_not_changed_stops_the_runbook() {
    let mut rehearsal = Rehearsal::new().without_secrets();
    for action in
        rehearsal.plan.stages.iter_mut().flat_map(|stage| &mut stage.steps).map(|step| &mut step.action)
    {
        if let Action::Confirm { before, timeout } = action {
            *timeout = std::time::Duration::ZERO;
            before[0].sha256 = crate::pki::Fingerprint::of(b"kube-ca");
        }
    }
    let (succeeded, said) = rehearsal.run();
    assert!(!succeeded && said.contains("cp-1: kube-apiserver is still the old certificate"), "{said}");
}
