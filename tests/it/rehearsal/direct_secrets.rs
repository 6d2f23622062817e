//! What a rotation with the cluster's own CA knows and does not write down: the CA's key, and those that it makes.

use std::collections::BTreeSet;

use super::secrets::{found, private_lines};
use super::{Ended, KUBERNETES, Rehearsal, texts};

/// The private keys of a cluster from before a run.
pub(super) struct Watch(BTreeSet<String>);

impl Watch {
    pub(super) fn begin(lab: &Rehearsal) -> Self {
        Self(all_private_lines(lab))
    }

    /// Expects no line of a private key, old or new, in anything that a run has written down, said or put into an argument
    /// list, and none in a file of a node but where keys belong.
    pub(super) fn nothing_leaked(self, lab: &Rehearsal, said: &[(&str, &Ended)]) {
        let mut lines = self.0;
        let old = lines.len();
        lines.extend(all_private_lines(lab));
        assert!(lines.len() > old + 40, "the run has made keys");
        let mut written: Vec<(String, String)> =
            texts(&lab.state()).into_iter().map(|(path, text)| (path.display().to_string(), text)).collect();
        assert!(written.len() >= 2, "plan and journal of the run are among them");
        let plans = std::fs::read_dir(lab.folder.path()).unwrap().map(|entry| entry.unwrap().path());
        for plan in plans.filter(|path| path.extension().is_some_and(|ending| ending == "plan")) {
            written.push((plan.display().to_string(), std::fs::read_to_string(&plan).unwrap()));
        }
        written.extend(
            said.iter().map(|(what, ended)| ((*what).to_owned(), ended.stdout.clone() + &ended.stderr)),
        );
        for (what, text) in &written {
            assert!(!text.contains("PRIVATE KEY"), "{what}: {text}");
        }
        let arguments = lab.fleet.command_lines();
        assert!(
            arguments.iter().any(|(_, line)| line.contains("staged")),
            "the lines of the run are among them"
        );
        written.extend(arguments.into_iter().map(|(node, line)| (format!("argument list on {node}"), line)));
        for (what, text) in &written {
            assert_eq!(found(&lines, text), Vec::<&String>::new(), "{what}");
        }
        keys_lie_where_they_belong(lab);
    }
}

/// Returns the private lines of all keys on all nodes.
fn all_private_lines(lab: &Rehearsal) -> BTreeSet<String> {
    lab.inventory.nodes.iter().flat_map(|node| private_lines(lab, node.name.as_str())).collect()
}

/// Expects keys in the two folders of RKE and the kubelet's own, in what it retired, and in backups that root alone reads.
fn keys_lie_where_they_belong(lab: &Rehearsal) {
    for node in &lab.inventory.nodes {
        for file in lab.fleet.node(&node.name).unwrap().files() {
            let text = lab.file(node.name.as_str(), &file.path).unwrap();
            if !String::from_utf8_lossy(&text).contains("PRIVATE KEY") {
                continue;
            }
            let place = format!("{}: {} {:o}", node.name, file.path, file.mode);
            assert_eq!(file.mode & 0o077, 0, "{place}");
            let Some(below) = file.path.strip_prefix(&format!("{KUBERNETES}/.certroll/")) else {
                let folders = [
                    format!("{KUBERNETES}/ssl/"),
                    format!("{KUBERNETES}/.tmp/"),
                    "/var/lib/kubelet/pki/".to_owned(),
                ];
                assert!(folders.iter().any(|folder| file.path.starts_with(folder)), "{place}");
                continue;
            };
            let (_, name) = below.split_once('/').unwrap();
            // What rke keeps in the API holds keys, and is saved before it is replaced.
            let is_backup = name == "backup.tar"
                || name == "full-cluster-state.json"
                || name.starts_with("retired/")
                || name.starts_with("secret-kube-");
            assert!(is_backup, "{place}");
        }
    }
}
