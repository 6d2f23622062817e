//! Nothing secret leaves a node that need not, and nothing secret is written down.

use std::collections::BTreeSet;

use certroll::command::BecomeRoot;
use certroll::facts::probe::{KeyReading, Probe};
use certroll::inventory::Inventory;
use certroll::sim::Layout;

use super::{Rehearsal, name, rancher, rehearse, texts};

/// How many base64 characters of a PKCS#1 RSA key are public: version, modulus, exponent.
const PUBLIC: usize = 364;

/// What stands in the environment of every simulated container, as the keys do that RKE's deployers carry there.
const MARKER: &str = "simulated-secret-of-the-environment";

/// Returns the lines of all private keys of a node beyond their public part.
pub(super) fn private_lines(lab: &Rehearsal, node: &str) -> BTreeSet<String> {
    let files = lab.fleet.node(&name(node)).unwrap().files();
    let keys =
        files.iter().filter(|file| ["-key.pem", ".key"].iter().any(|ending| file.path.ends_with(ending)));
    let mut lines = BTreeSet::new();
    for key in keys {
        let text = String::from_utf8(lab.file(node, &key.path).unwrap()).unwrap();
        let mut passed = 0;
        for line in text.lines().filter(|line| !line.starts_with('-')) {
            if passed >= PUBLIC {
                lines.insert(line.to_owned());
            }
            passed += line.len();
        }
    }
    assert!(lines.len() > 20, "the node has keys");
    lines
}

/// Returns the lines that a text holds, wrapped or not.
pub(super) fn found<'a>(lines: &'a BTreeSet<String>, text: &str) -> Vec<&'a String> {
    let text = text.replace(['\n', '\r'], "").replace("\\n", "");
    // The last line of a key may be a few characters that stand anywhere.
    lines.iter().filter(|line| line.len() >= 32 && text.contains(line.as_str())).collect()
}

#[test]
fn a_look_sends_no_private_part_of_a_key_and_nothing_of_an_environment() {
    rehearse(async {
        let lab = Rehearsal::with_rancher(Layout::LegacyExpired, rancher(&[])).await;
        let yml = std::fs::read_to_string(&lab.fleet.paths().cluster_yml).unwrap();
        let inventory = Inventory::parse(&yml, "fleet").unwrap().inventory;
        for node in ["cp-1", "cp-2"] {
            let look = |keys| Probe {
                node: inventory.node(&name(node)).unwrap(),
                prefix_path: "/",
                keys,
                become_root: BecomeRoot::Auto,
                marker: "a-marker",
            };
            let lines = private_lines(&lab, node);
            let output = lab.shell(node, &look(KeyReading::PublicPrefix).script()).await;
            let text = output.stdout_text().into_owned() + &output.stderr_text();
            assert!(text.contains("kube-ca-key.pem"), "{text}");
            assert_eq!(found(&lines, &text), Vec::<&String>::new(), "{node}");
            assert!(!text.contains(MARKER), "{text}");
            let whole = lab.shell(node, &look(KeyReading::Whole).script()).await;
            assert!(!found(&lines, &whole.stdout_text()).is_empty(), "the comparison would find a key");
        }
        let asked = lab.shell("cp-2", "docker inspect kubelet").await;
        assert!(asked.stdout_text().contains(MARKER), "the comparison would find an environment");
        lab.is_untouched();
    });
}

#[test]
fn no_run_writes_a_key_or_a_token_down() {
    rehearse(async {
        let lab = Rehearsal::with_rancher(Layout::LegacyTmpMissing, rancher(&["w-1"])).await;
        let mut secrets = private_lines(&lab, "cp-1");
        let saved = lab.path("saved.plan");
        let words = ["plan", "--via", "rancher", "--save", saved.to_str().unwrap(), "-v"];
        let planned = lab.with_token(&words).await.expect(0);
        let shell = lab.with_token(&["plan", "--via", "rancher", "-o", "shell"]).await.expect(0);
        let applied =
            lab.with_token(&["apply", "--yes", "-v", "--plan", saved.to_str().unwrap()]).await.expect(0);
        let checked = lab.certroll(&["check", "-o", "json"]).await;
        let shown = lab.certroll(&["runs", "-o", "json"]).await;

        for node in ["cp-1", "etcd-1", "w-1"] {
            secrets.extend(private_lines(&lab, node));
        }
        secrets.insert(lab.fleet.rancher_token().unwrap().to_owned());
        let mut written = texts(&lab.state());
        written.push((saved.clone(), std::fs::read_to_string(&saved).unwrap()));
        for (what, ended) in
            [("plan", planned), ("shell", shell), ("apply", applied), ("check", checked), ("runs", shown)]
        {
            written.push((what.into(), ended.stdout + &ended.stderr));
        }
        assert!(written.len() >= 8, "plan and journal of the run are among them");
        for (path, text) in written {
            assert_eq!(found(&secrets, &text), Vec::<&String>::new(), "{}", path.display());
            assert!(!text.contains("PRIVATE KEY") && !text.contains(MARKER), "{}", path.display());
        }
    });
}
