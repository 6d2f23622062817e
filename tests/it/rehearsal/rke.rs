//! `--via rke`: a stand-in is called as `rke`, says what the real v0.2.8 says, and the simulated nodes get what the real one gives.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use certroll::sim::{Layout, RkeFiles, RkeRun};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::unix::pipe;

use super::direct::{BRISK, SMALL};
use super::{Ended, KUBERNETES, LIMIT, Rehearsal, name, of_kind, rehearse, texts};

/// The program that is called: it hands its folder and arguments to the test, prints what that gives it, and ends as it says.
const PROGRAM: &str = r#"#!/bin/sh
here=${0%/*}
if [ "$1" = --version ]; then
  echo "rke version $(cat "$here/version")"
  exit 0
fi
printf '%s\n' "$PWD" "$@" . >"$here/asked"
cat "$here/log"
exit "$(cat "$here/status")"
"#;

/// A stand-in for `rke`.
pub(super) struct StandIn {
    folder: tempfile::TempDir,
}

/// What the stand-in does when it is called.
#[derive(Default)]
pub(super) struct Part {
    pub(super) run: RkeRun,
    /// What it says before.
    pub(super) first: &'static str,
    /// What it says at the end.
    pub(super) last: &'static str,
    pub(super) status: u8,
    /// Whether it touches no node.
    pub(super) only_talks: bool,
}

impl StandIn {
    pub(super) fn new(version: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let stand_in = Self { folder };
        std::fs::write(stand_in.path("rke"), PROGRAM).unwrap();
        std::fs::set_permissions(stand_in.path("rke"), std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::write(stand_in.path("version"), version).unwrap();
        for pipe in ["asked", "log"] {
            let made = std::process::Command::new("mkfifo").arg(stand_in.path(pipe)).status().unwrap();
            assert!(made.success());
        }
        stand_in
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(super) fn program(&self) -> String {
        self.path("rke").display().to_string()
    }

    /// Waits until it is called, and plays its part; returns the folder and the arguments that it was called with.
    async fn play(&self, lab: &Rehearsal, part: &Part) -> Vec<String> {
        let words = self.is_called().await;
        self.answer(lab, part).await;
        words
    }

    /// Waits until it is called; returns the folder and the arguments that it was called with.
    pub(super) async fn is_called(&self) -> Vec<String> {
        // Opened for both ends: neither side waits for the other, and a test that is not called ends.
        let asked = pipe::OpenOptions::new().read_write(true).open_receiver(self.path("asked")).unwrap();
        let mut lines = BufReader::new(asked).lines();
        let mut words = Vec::new();
        while let Some(word) = lines.next_line().await.unwrap() {
            if word == "." {
                break;
            }
            words.push(word);
        }
        words
    }

    /// Plays its part when it is called.
    pub(super) async fn answer(&self, lab: &Rehearsal, part: &Part) {
        // The program is about to read: what is written before that would be lost.
        let path = self.path("log");
        let open = move || std::fs::OpenOptions::new().write(true).open(path).unwrap();
        let mut log = tokio::task::spawn_blocking(open).await.unwrap();
        std::fs::write(self.path("status"), part.status.to_string()).unwrap();
        log.write_all(part.first.as_bytes()).unwrap();
        if !part.only_talks {
            lab.fleet
                .rke_rotates(&part.run, |level, text| {
                    writeln!(log, "time=\"2026-11-21T19:05:02Z\" level={level} msg=\"{text}\"").unwrap();
                })
                .await
                .unwrap();
            write_state(lab);
        }
        log.write_all(part.last.as_bytes()).unwrap();
    }

    /// Runs certroll while the stand-in plays its parts, one a call.
    pub(super) async fn run(
        &self,
        lab: &Rehearsal,
        words: &[&str],
        parts: &[Part],
    ) -> (Ended, Vec<Vec<String>>) {
        let words = [words, &["--progress", "lines"]].concat();
        let mut calls = Vec::new();
        let plays = async {
            for part in parts {
                calls.push(self.play(lab, part).await);
            }
            std::future::pending::<()>().await;
        };
        let ended = tokio::select! {
            ended = lab.certroll(&words) => ended,
            () = plays => unreachable!("it waits for ever"),
        };
        (ended, calls)
    }
}

/// Writes what rke writes beside the cluster.yml: the state with the pairs that the nodes have now.
fn write_state(lab: &Rehearsal) {
    let path = lab.fleet.paths().rkestate.clone().unwrap();
    let mut state: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    for half in ["desiredState", "currentState"] {
        let bundle = state[half]["certificatesBundle"].as_object_mut().unwrap();
        for (name, entry) in bundle {
            let read = |file: String| {
                let bytes = lab.file("cp-1", &format!("{KUBERNETES}/ssl/{file}"))?;
                String::from_utf8(bytes).ok()
            };
            if let (Some(certificate), Some(key)) =
                (read(format!("{name}.pem")), read(format!("{name}-key.pem")))
            {
                entry["certificatePEM"] = certificate.into();
                entry["keyPEM"] = key.into();
            }
        }
    }
    std::fs::write(path, serde_json::to_string_pretty(&state).unwrap()).unwrap();
}

/// Starts a cluster that rke 0.2 built, with its files beside the cluster.yml.
pub(super) async fn cluster(layout: Layout) -> Rehearsal {
    Rehearsal::of(SMALL, layout, |options| {
        options.rke_files = RkeFiles::Beside;
        options.pace = BRISK;
    })
    .await
}

/// Returns what the nodes serve and run as the program itself judges it.
pub(super) async fn is_well(lab: &Rehearsal) {
    lab.certroll(&["check"]).await.expect(0);
}

/// What differs from one run to the next, and what stands for it.
const FILTERS: [(&str, &str); 12] = [
    (r"/[^ `]*/(cluster\.rkestate|kube_config_cluster\.yml|cluster\.yml)", "/home/operator/$1"),
    (r"/[^ `']*/rke\b", "/usr/local/bin/rke"),
    (r"cd /[^ `]+", "cd /home/operator"),
    (r"\d{8}-\d{6}-[0-9a-f]{4}", "20261121-190502-7f3a"),
    (r"\b(Plan|Run) [0-9a-f]{4}\b", "$1 7f3a"),
    (r"\d{4}-\d{2}-\d{2}", "2026-11-21"),
    (r"\d{2}:\d{2}:\d{2}", "19:05:02"),
    (r"\[127\.\d+\.\d+\.\d+\]", "[10.0.0.1]"),
    (r"\b(after|in) \d+(\.\d+)? (s|min)\b", "$1 3 s"),
    (r"(.*) (waiting[ :].*|[a-z-]+: waiting for .*|left to happen .*)\n", ""),
    (r"(     ~ .*?) {3,}", "$1   "),
    (r" +\n", "\n"),
];

#[test]
fn rke_renews_an_expired_cluster_and_certroll_proves_it() {
    rehearse(async {
        let lab = cluster(Layout::Expired028).await;
        let rke = StandIn::new("v0.2.8");
        let program = rke.program();
        let options = ["--via", "rke", "--rke-binary", program.as_str()];
        let plan = lab.certroll(&[&["plan"], options.as_slice()].concat()).await.expect(0);
        lab.is_untouched();
        let state = lab.fleet.paths().rkestate.clone().unwrap();
        let before = std::fs::read(&state).unwrap();

        let words = [&["apply"], options.as_slice(), &["--yes", "--parallel", "1"]].concat();
        let (ended, calls) = rke.run(&lab, &words, &[Part::default()]).await;
        let ended = ended.expect(0);

        let folder = state.parent().unwrap().display().to_string();
        assert_eq!(calls, [[folder.as_str(), "cert", "rotate", "--config", "cluster.yml"]]);
        is_well(&lab).await;
        let (run, _) = only_run(&lab).await;
        let kept = state.with_file_name(format!("cluster.rkestate.{run}"));
        assert_eq!(std::fs::read(&kept).unwrap(), before);
        assert_eq!(std::fs::metadata(&kept).unwrap().permissions().mode() & 0o777, 0o600);
        for (path, text) in texts(&lab.state()) {
            assert!(!text.contains("PRIVATE KEY"), "{}", path.display());
        }
        lab.certroll(&[&["apply"], options.as_slice(), &["--yes"]].concat())
            .await
            .expect(0)
            .says("Nothing to do");

        insta::with_settings!({ filters => FILTERS.to_vec() }, {
            insta::assert_snapshot!("rke_plan", plan.stdout);
            insta::assert_snapshot!("rke_run", ended.stderr);
            let (_, summary) = ended.stdout.split_once("\nRun ").unwrap();
            insta::assert_snapshot!("rke_summary", format!("Run {summary}"));
        });
    });
}

/// Returns the name and the outcome of the only run.
pub(super) async fn only_run(lab: &Rehearsal) -> (String, String) {
    let runs = lab.certroll(&["runs", "-o", "json"]).await.expect(0).json();
    let [run] = runs["runs"].as_array().unwrap().as_slice() else { panic!("{runs}") };
    (run["run"].as_str().unwrap().to_owned(), run["outcome"].as_str().unwrap_or_default().to_owned())
}

#[test]
fn a_plan_without_a_usable_rke_is_refused_with_the_way_out() {
    rehearse(async {
        let lab = cluster(Layout::Expired028).await;
        lab.certroll(&["plan", "--via", "rke"]).await.expect(4).shows("there is no `rke` command in PATH");
        let missing = ["plan", "--via", "rke", "--rke-binary", "/nowhere/rke"];
        lab.certroll(&missing).await.expect(4).shows("`/nowhere/rke` is not a program");
        for (version, text) in [
            ("v0.1.17", "cannot rotate certificates"),
            ("v0.1.18", "takes it for newly built"),
            ("dev", "does not say its version"),
        ] {
            let rke = StandIn::new(version);
            lab.certroll(&["plan", "--via", "rke", "--rke-binary", &rke.program()])
                .await
                .expect(4)
                .shows(text);
        }
        let rke = StandIn::new("v0.2.8");
        let agent = ["plan", "--via", "rke", "--rke-binary", &rke.program(), "--ssh-agent"];
        lab.certroll(&agent).await.expect(4).shows("ssh_agent_auth: true");
        lab.certroll(&["plan", "--via", "direct", "--rke-binary", "x"]).await.expect(2).says("--via rke");
        std::fs::remove_file(lab.fleet.paths().rkestate.as_ref().unwrap()).unwrap();
        let late = StandIn::new("v1.4.0");
        let late = ["plan", "--via", "rke", "--rke-binary", &late.program()];
        lab.certroll(&late).await.expect(4).shows("cluster.rkestate is lost");
        let plan = ["plan", "--via", "rke", "--rke-binary", &rke.program()];
        lab.certroll(&plan).await.expect(0).shows("kube-admin.pem");
        std::fs::remove_file(lab.fleet.paths().kube_config.as_ref().unwrap()).unwrap();
        lab.certroll(&plan).await.expect(4).shows("cannot find the old certificates");
        lab.is_untouched();
    });
}

#[test]
fn rke_is_found_in_the_path_and_told_the_services() {
    rehearse(async {
        let lab = cluster(Layout::Healthy).await;
        let rke = StandIn::new("v1.0.16");
        let mut command = lab.program(&[
            "plan",
            "--via",
            "rke",
            "--force",
            "-o",
            "json",
            "--service",
            "kubelet",
            "--service",
            "etcd",
        ]);
        command.env("PATH", format!("{}:/usr/bin:/bin", rke.folder.path().display()));
        let planned = Ended::of(command.output().await.unwrap());
        let plan = planned.json();
        let steps =
            plan["stages"].as_array().unwrap().iter().flat_map(|stage| stage["steps"].as_array().unwrap());
        let action = steps.map(|step| &step["action"]).find(|action| action["kind"] == "rotate_by_rke");
        let action = action.unwrap_or_else(|| panic!("{plan}"));
        let arguments: Vec<&str> =
            action["arguments"].as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect();
        assert_eq!(
            arguments,
            ["cert", "rotate", "--config", "cluster.yml", "--service", "etcd", "--service", "kubelet"]
        );
        assert_eq!(action["program"], rke.program());
    });
}

#[test]
fn what_rke_complains_of_is_told_and_a_resume_has_it_rotate_once_more() {
    rehearse(async {
        let lab = cluster(Layout::Expired028).await;
        let rke = StandIn::new("v0.2.8");
        let program = rke.program();
        let words = ["apply", "--via", "rke", "--rke-binary", &program, "--yes", "-o", "json"];
        let failing = Part {
            first: "\u{1b}[2J\u{1b}]0;owned\u{7}\u{1b}[31mhello\u{1b}[0m\n",
            last: "time=\"x\" level=fatal msg=\"CA Certificate or Key is empty\"\n",
            status: 1,
            only_talks: true,
            ..Part::default()
        };
        let (ended, _) = rke.run(&lab, &words, &[failing]).await;
        let events = ended.expect(1).events();
        let failed = of_kind(&events, "step_finished")
            .into_iter()
            .find(|event| event["outcome"]["outcome"] == "failed")
            .unwrap();
        assert_eq!(failed["outcome"]["error"], "rke ended with status 1: CA Certificate or Key is empty");
        assert!(failed["outcome"]["hint"].as_str().unwrap().contains("certroll apply repair"), "{failed}");
        let told = of_kind(&events, "step_progress").iter().any(|event| event["message"] == "rke: hello");
        assert!(told, "{events:?}");
        for (path, text) in texts(&lab.state()) {
            assert!(!text.contains("owned") && !text.contains("u001b"), "{}", path.display());
        }
        let (ended, calls) = rke.run(&lab, &["apply", "--resume", "--yes"], &[Part::default()]).await;
        ended.expect(0);
        assert_eq!(calls.len(), 1);
        is_well(&lab).await;
    });
}

#[test]
fn a_resume_tells_a_rotation_that_was_made_from_one_that_broke_off() {
    rehearse(async {
        for breaks_off in [false, true] {
            // The components of an expired cluster restart for ever, and take new files by themselves.
            let lab = cluster(Layout::Healthy).await;
            let rke = StandIn::new("v0.2.8");
            let program = rke.program();
            let words = ["apply", "--via", "rke", "--rke-binary", &program, "--yes", "--force"];
            let run = RkeRun { breaks_off, ..RkeRun::default() };
            let part = Part { run, last: "panic\n", status: 2, ..Part::default() };
            let (ended, _) = rke.run(&lab, &words, &[part]).await;
            ended.expect(1).says("rke ended with status 2");
            let (ended, calls) = rke.run(&lab, &["apply", "--resume", "--yes"], &[Part::default()]).await;
            ended.expect(0);
            assert_eq!(calls.len(), usize::from(breaks_off));
            is_well(&lab).await;
        }
    });
}

#[test]
fn nodes_that_rke_leaves_out_are_named() {
    rehearse(async {
        for (node, text) in
            [("cp-1", "left out nodes of etcd or the control plane: cp-1 ("), ("w-1", "left out w-1 (")]
        {
            let lab = cluster(Layout::Expired028).await;
            let rke = StandIn::new("v0.2.8");
            let program = rke.program();
            let words =
                ["apply", "--via", "rke", "--rke-binary", &program, "--yes", "--health-timeout", "2s"];
            let run = RkeRun { skipped: vec![name(node)], ..RkeRun::default() };
            let (ended, _) = rke.run(&lab, &words, &[Part { run, ..Part::default() }]).await;
            let ended = ended.expect(1).says(text);
            if node == "w-1" {
                ended.says("no new certificate yet for").shows("certroll plan --via direct");
            }
        }
    });
}

#[test]
fn an_rke_that_hangs_is_ended() {
    rehearse(async {
        let lab = cluster(Layout::Expired028).await;
        let rke = StandIn::new("v0.2.8");
        let program = rke.program();
        let words = ["apply", "--via", "rke", "--rke-binary", &program, "--yes", "--wait", "1s"];
        // Nobody answers it.
        let asked = pipe::OpenOptions::new().read_write(true).open_receiver(rke.path("asked")).unwrap();
        let ended = tokio::time::timeout(LIMIT, lab.certroll(&words)).await.unwrap();
        drop(asked);
        ended.expect(1).shows("rke did not end within 1 s, and was ended");
        let listed = std::process::Command::new("ps").args(["-eo", "args"]).output().unwrap();
        let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
        assert!(
            !listed.lines().any(|line| line.contains(&*program) && line.contains("cert rotate")),
            "{listed}"
        );
        assert_eq!(lab.locks(KUBERNETES), Vec::<String>::new());
    });
}

#[test]
fn a_rollback_brings_back_the_files_of_the_nodes_and_the_state_of_rke() {
    rehearse(async {
        let lab = cluster(Layout::Healthy).await;
        let rke = StandIn::new("v0.2.8");
        let program = rke.program();
        let state = lab.fleet.paths().rkestate.clone().unwrap();
        let before = std::fs::read(&state).unwrap();
        let nodes = ["cp-1", "w-1"];
        let files = nodes.map(|node| lab.files(node, KUBERNETES));
        let words = ["apply", "--via", "rke", "--rke-binary", &program, "--yes", "--force"];
        let (ended, _) = rke.run(&lab, &words, &[Part::default()]).await;
        ended.expect(0);
        assert_ne!(std::fs::read(&state).unwrap(), before);
        assert_ne!(lab.files("w-1", KUBERNETES), files[1]);

        lab.certroll(&["rollback", "--yes"]).await.expect(0);

        assert_eq!(std::fs::read(&state).unwrap(), before);
        assert_eq!(nodes.map(|node| lab.files(node, KUBERNETES)), files);
        is_well(&lab).await;
    });
}
