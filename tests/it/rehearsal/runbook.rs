//! The runbook, run by the real shell and the real ssh, leaves what `certroll apply` leaves.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use certroll::sim::Layout;

use super::rotate::{GROUP, has_repaired};
use super::{Ended, KUBERNETES, LIMIT, Rehearsal, rehearse};

/// Returns a program of this machine; says that a test is skipped where there is none.
#[expect(clippy::print_stderr, reason = "whoever reads the tests' output must see what was not tested")]
fn program(name: &str) -> Option<PathBuf> {
    let found = ["/usr/bin", "/bin", "/usr/local/bin"].map(|folder| Path::new(folder).join(name));
    let found = found.into_iter().find(|path| path.exists());
    if found.is_none() {
        eprintln!("SKIPPED: there is no `{name}` on this machine");
    }
    found
}

/// Makes a runbook, has shellcheck read it, and runs it with the real shell.
async fn run(lab: &Rehearsal, procedure: &str) -> Option<Ended> {
    program("ssh")?;
    let script = lab.path(&format!("{procedure}.sh"));
    let planned = lab.certroll(&["plan", procedure, "-o", "shell"]).await.expect(0);
    std::fs::write(&script, planned.stdout).unwrap();
    if let Some(shellcheck) = program("shellcheck") {
        let mut command = tokio::process::Command::new(shellcheck);
        let checked = command.args(["--shell", "sh", "--norc"]).arg(&script).output().await.unwrap();
        Ended::of(checked).expect(0);
    }
    let options = format!(
        "-F none -o UserKnownHostsFile={} -o GlobalKnownHostsFile=none -o IdentitiesOnly=yes",
        lab.fleet.paths().known_hosts.display()
    );
    let mut command = tokio::process::Command::new("/bin/sh");
    command.arg(&script).env_clear().env("PATH", "/usr/bin:/bin").env("HOME", lab.folder.path());
    command.env("YES", "1").env("SSH_OPTIONS", options).current_dir(lab.folder.path());
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(LIMIT, command.output()).await.unwrap().unwrap();
    Some(Ended::of(output))
}

#[test]
fn a_runbook_repairs_as_certroll_does() {
    rehearse(async {
        let lab = Rehearsal::start(Layout::LegacyExpired).await;
        let before: BTreeMap<_, _> = GROUP.map(|node| (node, lab.files(node, KUBERNETES))).into();
        let Some(ended) = run(&lab, "repair").await else { return };
        ended.expect(0).shows("The runbook has ended.");
        has_repaired(&lab, &before);
        assert_eq!(lab.locks(KUBERNETES), Vec::<String>::new());
        for node in ["w-1", "w-2", "w-3"] {
            let effects = lab.effects().into_iter().filter(|effect| effect.starts_with(node));
            assert_eq!(effects.collect::<Vec<_>>(), Vec::<String>::new());
        }
        lab.certroll(&["plan", "repair", "--detailed-exitcode"]).await.expect(0);

        let effects = lab.effects();
        let again = run(&lab, "repair").await.unwrap().expect(0);
        assert!(again.stdout.contains("nothing to do"), "{}", again.stdout);
        assert_eq!(lab.effects(), effects);
    });
}

#[test]
fn a_runbook_restarts_as_certroll_does() {
    rehearse(async {
        let lab = Rehearsal::start(Layout::Healthy).await;
        let renew = "cd /etc/kubernetes/ssl && for name in kube-node kube-proxy; do cat $name.pem > x && cat x > $name.pem; done && rm x";
        lab.root("w-1", renew).await;
        let before = lab.effects().len();
        let Some(ended) = run(&lab, "restart").await else { return };
        ended.expect(0).shows("The runbook has ended.");
        let restarts =
            lab.effects().split_off(before).into_iter().filter(|effect| effect.contains("container"));
        assert_eq!(
            restarts.collect::<Vec<_>>(),
            ["w-1: restart container kubelet", "w-1: restart container kube-proxy"]
        );
        assert_eq!(lab.locks(KUBERNETES), Vec::<String>::new());
        lab.certroll(&["plan", "restart", "--detailed-exitcode"]).await.expect(0);
    });
}
