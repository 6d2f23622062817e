//! The hooks of a fleet: a world that stops at a boundary, faults that wait for their line, connections that break half-way.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use certroll::sim::{Boundary, Fault, Layout, RancherFailure, RancherOptions, Side};
use russh::ChannelMsg;

use super::rancher::Api;
use super::{Lab, lab, name, run};

/// A script with three effects.
const SCRIPT: &str = "set -e; echo a >/a; echo b >/b; echo c >/c; echo end";

impl Lab {
    /// Gives a line to `cp-1`, and returns what came back of it: status and output, none where the connection broke.
    async fn attempt(&self, script: &str, stdin: &str) -> (Option<u32>, String) {
        let session = self.login("cp-1").await.unwrap();
        let mut channel = session.channel_open_session().await.unwrap();
        let line = self.as_root(script).await;
        channel.exec(true, line).await.unwrap();
        // The connection may be gone before all is sent: that is the subject.
        let _ = channel.data(stdin.as_bytes()).await;
        let _ = channel.eof().await;
        let (mut status, mut stdout) = (None, Vec::new());
        while let Some(message) = channel.wait().await {
            match message {
                ChannelMsg::Data { data } => stdout.extend_from_slice(&data),
                ChannelMsg::ExitStatus { exit_status } => status = Some(exit_status),
                _ => {}
            }
        }
        (status, String::from_utf8(stdout).unwrap())
    }

    /// Returns the line that runs a script as root, through the docker group.
    async fn as_root(&self, script: &str) -> String {
        let (_, image, _) = self.exec("cp-1", "docker inspect --format '{{.Image}}' kubelet", "").await;
        format!(
            "exec docker run --rm -i --network none --userns host --security-opt label=disable -v /:/host \
             --entrypoint chroot {} /host sh -c '{script}'",
            image.trim()
        )
    }

    /// Stops the world at a side of the second effect, and returns how often it was stopped.
    fn stop_at_second(&self, side: Side) -> Arc<AtomicUsize> {
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&calls);
        let call = move || {
            counted.fetch_add(1, Ordering::SeqCst);
        };
        self.fleet.stop_at(Boundary { effect: 2, side }, call);
        calls
    }

    /// Returns the effects so far, as `create /a`.
    fn told(&self) -> Vec<String> {
        self.fleet.effects().into_iter().map(|effect| effect.description).collect()
    }
}

#[test]
fn before_a_boundary_the_effect_does_not_happen_and_its_script_ends() {
    run(async {
        let lab = lab(Layout::Healthy, |_| {}).await;
        let calls = lab.stop_at_second(Side::Before);
        lab.attempt(SCRIPT, "").await;
        lab.fleet.rest().await;
        assert_eq!((lab.told(), calls.load(Ordering::SeqCst)), (vec!["create /a".to_owned()], 1));
        // It stops once: what comes later has its effects.
        assert_eq!(lab.attempt(SCRIPT, "").await, (Some(0), "end\n".to_owned()));
        assert_eq!(calls.load(Ordering::SeqCst), 1);
        assert!(lab.told().contains(&"create /c".to_owned()), "{:?}", lab.told());
    });
}

#[test]
fn after_a_boundary_the_effect_has_happened_and_its_script_goes_on() {
    run(async {
        let lab = lab(Layout::Healthy, |_| {}).await;
        let calls = lab.stop_at_second(Side::After);
        // Nobody hears what it says any more; what it does goes on.
        lab.attempt(&SCRIPT.replace("; echo end", ""), "").await;
        lab.fleet.rest().await;
        assert_eq!(lab.told(), ["create /a", "create /b", "create /c"]);
        assert_eq!(calls.load(Ordering::SeqCst), 1);
    });
}

#[test]
fn a_fault_that_is_armed_begins_with_the_last_of_its_lines() {
    run(async {
        let lab = lab(Layout::Healthy, |_| {}).await;
        let node = name("w-1");
        assert!(lab.fleet.arm(&node, &["first", "second"], Fault::DiskFull));
        let write = async |text: &str| lab.root("w-1", &format!("echo {text} >/{text}"), "").await.0;
        assert_eq!(write("second").await, 0, "out of order, it waits");
        assert_eq!(write("first").await, 0);
        assert!(lab.fleet.is_pending(&node) && !lab.fleet.is_pending(&name("w-2")));
        assert_ne!(write("second").await, 0, "the line itself finds it in place");
        assert!(!lab.fleet.is_pending(&node));
        lab.fleet.mend(&node);
        assert_eq!(write("second").await, 0);
        lab.fleet.arm(&node, &["third"], Fault::DiskFull);
        lab.fleet.mend(&node);
        assert_eq!(write("third").await, 0, "mended before it began");
    });
}

#[test]
fn connections_break_half_way_and_once() {
    run(async {
        let lab = lab(Layout::Healthy, |_| {}).await;
        let node = name("cp-1");
        let pattern = || "/copy".to_owned();
        let script = "cat >/copy; echo 1234567";
        let whole = (Some(0), "1234567\n".to_owned());

        lab.fleet.inject(&node, Fault::LostAnswer { pattern: pattern() });
        assert_eq!(lab.attempt(script, "whole").await.0, None);
        lab.fleet.rest().await;
        assert_eq!(lab.fleet.node(&node).unwrap().file("/copy").unwrap(), b"whole", "it ran to its end");
        assert_eq!(lab.attempt(script, "again").await, whole);

        lab.fleet.inject(&node, Fault::ShortRead { pattern: pattern() });
        assert_eq!(lab.attempt(script, "again").await, (Some(0), "1234".to_owned()));
        assert_eq!(lab.attempt(script, "again").await, whole);

        lab.fleet.inject(&node, Fault::DropWhileWriting { pattern: pattern() });
        assert_eq!(lab.attempt(script, "12345678").await.0, None);
        lab.fleet.rest().await;
        assert_eq!(lab.fleet.node(&node).unwrap().file("/copy").unwrap(), b"1234", "half of it arrived");
        assert_eq!(lab.attempt(script, "again").await, whole);
    });
}

#[test]
fn a_reboot_ends_scripts_and_starts_containers_anew() {
    run(async {
        let lab = lab(Layout::Healthy, |_| {}).await;
        let node = name("cp-1");
        let started = || {
            let containers = lab.fleet.node(&node).unwrap().containers();
            containers.into_iter().find(|one| one.name == "kubelet").unwrap().started_at
        };
        let before = started();
        let session = lab.login("cp-1").await.unwrap();
        let mut channel = session.channel_open_session().await.unwrap();
        channel.exec(true, lab.as_root("echo a >/a; cat; echo b >/b").await).await.unwrap();
        let there = |path: &str| lab.fleet.node(&node).unwrap().file(path).is_some();
        lab.eventually("the script waits", || async { there("/a") }).await;
        lab.fleet.inject(&node, Fault::Reboot);
        while let Some(message) = channel.wait().await {
            assert!(!matches!(message, ChannelMsg::ExitStatus { .. }), "no status is told");
        }
        lab.eventually("the node is back", || async { lab.login("cp-1").await.is_ok() }).await;
        assert!(started() > before);
        lab.fleet.rest().await;
        assert!(!there("/b"), "the script has ended");
    });
}

#[test]
fn a_call_of_rancher_that_breaks_off_is_heard_or_not_as_was_asked_for() {
    run(async {
        for (failure, is_heard) in [(RancherFailure::CallLost, false), (RancherFailure::AnswerLost, true)] {
            let options = RancherOptions { failure: Some(failure), ..RancherOptions::default() };
            let lab = lab(Layout::Healthy, |fleet| fleet.rancher = Some(options)).await;
            let api = Api::of(&lab.fleet);
            assert_eq!(api.try_to_rotate().await, None, "{failure:?}");
            let flags = lab.told().iter().filter(|effect| effect.starts_with("set the flag")).count();
            assert_eq!(flags, usize::from(is_heard), "{failure:?}");
            assert_eq!(api.try_to_rotate().await, Some(200), "only the first call breaks off");
        }
    });
}
