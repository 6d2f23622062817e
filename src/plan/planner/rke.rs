//! The rotation by the `rke` command of the bastion: what is run, what forbids it, and what that version does wrong.
//!
//! Facts are from the sources of rancher/rke (`cmd/cert.go`, `cmd/common.go`, `cluster/certificates.go`, `cluster/hosts.go`), and were
//! seen with the real v0.2.8.

use super::{Draft, backup, stage};
use crate::facts::{NodeFacts, Observation, RkeProgram, RkeRotation, RkeVersion};
use crate::finding::Finding;
use crate::pki::Service;
use crate::plan::policy::{Rke, RkeAgent, RotationOffer};
use crate::plan::repair::{has_any_bundle, is_legacy_layout};
use crate::plan::{Action, RkeState, Stage, StageName};

impl<'a> Draft<'a> {
    /// Returns whether whoever rotates may read the legacy bundles. rke reads none where its state file is there.
    pub(super) fn wants_bundles(&self) -> bool {
        let is_there = is_legacy_layout(self.facts) || has_any_bundle(self.facts);
        let Some(rke) = &self.policy.rke else { return is_there };
        match (&rke.program, &rke.bastion.state) {
            (RkeProgram::Found { version, .. }, None) => {
                is_there || version.rotation() == RkeRotation::Nested && version.reads_bundles()
            }
            (RkeProgram::Found { version, .. }, Some(_)) => version.rotation() == RkeRotation::Flat,
            (RkeProgram::Unusable { .. }, _) => false,
        }
    }

    /// Returns the stage of backups, with those of the bastion's files where rke is about to write to them.
    pub(super) fn backup_before_rotation(&self, nodes: &[(&'a NodeFacts, &'a Observation)]) -> Stage {
        let nodes = backup(nodes);
        let Some(rke) = &self.policy.rke else { return nodes };
        let mut steps: Vec<_> =
            nodes.steps.into_iter().map(|step| (step.node, step.action, step.reason)).collect();
        let keep = Action::KeepBastionFiles { paths: paths_of(rke) };
        steps.push((None, keep, "rke writes to them".to_owned()));
        stage(StageName::Backup, &nodes.title, usize::MAX, steps)
    }

    /// Adds the stage in which rke rotates.
    pub(super) fn add_rke_rotation(&mut self) {
        let Some(rke) = &self.policy.rke else { return };
        self.refuse_rke_selection();
        self.refuse_rke_on_rancher_cluster(rke);
        let (path, version) = match &rke.program {
            RkeProgram::Found { path, version } => (path, version),
            RkeProgram::Unusable { cause, hint } => {
                self.blockers.push(Finding::error("rke-missing", cause.clone()).hint(hint.clone()));
                return;
            }
        };
        self.refuse_rke_version(version);
        self.refuse_rke_login(rke, version);
        let Some(config) = &rke.config else {
            let message = "rke reads its cluster.yml from a file and keeps its state beside it: standard input has no such place";
            self.blockers.push(Finding::error("rke-without-file", message).hint("give the file with -c"));
            return;
        };
        self.refuse_rke_state(rke, version);
        self.name_what_rke_does_wrong(version);
        let (Some(folder), Some(file)) = (config.parent(), config.file_name()) else { return };
        let mut arguments: Vec<String> = match version.rotation() {
            RkeRotation::None => return,
            RkeRotation::Flat => vec!["cert-rotate".to_owned()],
            RkeRotation::Nested => vec!["cert".to_owned(), "rotate".to_owned()],
        };
        arguments.extend(["--config".to_owned(), file.to_string_lossy().into_owned()]);
        if rke.agent == RkeAgent::Asked && version.takes_agent_option() {
            arguments.push("--ssh-agent-auth".to_owned());
        }
        if self.inventory.ignore_docker_version && version.forgets_docker_version() {
            arguments.push("--ignore-docker-version".to_owned());
        }
        // One run for all of them: each restarts the whole control plane and every kubelet.
        let services = self.policy.services.iter();
        arguments.extend(services.flat_map(|service| ["--service".to_owned(), service.to_string()]));
        let action = Action::RotateByRke {
            program: path.display().to_string(),
            version: version.to_string(),
            arguments,
            folder: folder.display().to_string(),
            files: paths_of(rke),
            state: match (version.rotation(), &rke.bastion.state) {
                (RkeRotation::Nested, Some(_)) => RkeState::Present,
                (RkeRotation::Nested, None) => RkeState::Absent,
                (RkeRotation::None | RkeRotation::Flat, _) => RkeState::Unread,
            },
            timeout: self.policy.wait,
        };
        let reason = "certificates are due; rke makes new ones from the cluster's CA".to_owned();
        let title = format!("rke {version} rotates the certificates");
        self.add_stage(StageName::Rotate, &title, 1, vec![(None, action, reason)]);
    }

    /// A version that does not rotate, or not clusters of this kind, would do nothing or harm.
    fn refuse_rke_version(&mut self, version: &RkeVersion) {
        match version.rotation() {
            RkeRotation::None => self.blockers.push(
                Finding::error("rke-too-old", format!("rke {version} cannot rotate certificates: v0.1.18 and v0.2.0 are the first"))
                    .hint("take v0.2.8 to v1.0.16 for a cluster of rke 0.1, and the version that built it for a later one (--rke-binary FILE); `--via direct` needs none"),
            ),
            RkeRotation::Flat => {
                if !is_legacy_layout(self.facts) {
                    let message = format!(
                        "the cluster was laid out by rke 0.2 or later: rke {version} takes it for newly built, does nothing, and ends with status 0"
                    );
                    self.blockers.push(
                        Finding::error("rke-of-another-generation", message)
                            .hint("take the rke that built the cluster (--rke-binary FILE)"),
                    );
                }
                if !self.policy.services.is_empty() {
                    let message = format!("rke {version} rotates all services, and takes no `--service`");
                    self.blockers.push(
                        Finding::error("rke-all-services-only", message)
                            .hint("leave `--service` out, or use `--via direct`"),
                    );
                }
            }
            RkeRotation::Nested => {}
        }
    }

    /// Rancher's agents are on clusters that it launched, and on those of rke's that it was only shown: rke's own files tell them apart.
    fn refuse_rke_on_rancher_cluster(&mut self, rke: &Rke) {
        if !self.is_rancher_launched {
            return;
        }
        let own = self.facts.kube_ca().map(|authority| &authority.sha256);
        let state = rke.bastion.state.as_ref().and_then(|state| state.authority.as_ref());
        let kube_config = rke.bastion.kube_config.as_ref().and_then(|file| file.authority.as_ref());
        let is_of_rke = own.is_some() && (state == own || kube_config == own);
        let is_offered =
            self.policy.rancher.as_ref().is_some_and(|rancher| rancher.rotation == RotationOffer::Offered);
        if is_of_rke && !is_offered {
            let message = "Rancher's agents are on this cluster, which rke's own files beside the cluster.yml are of: it is taken for one \
                           that rke built and Rancher imported";
            self.findings.push(Finding::warning("rke-on-rancher-cluster", message).hint(
                "where Rancher launched it, `--via rancher` has Rancher rotate: it would write old certificates back over rke's",
            ));
            return;
        }
        let message = "Rancher launched this cluster and keeps its own copy of the certificates: it would write the old ones back over rke's";
        self.blockers.push(Finding::error("rke-on-rancher-cluster", message).hint(
            "`--via rancher` has Rancher rotate; where rke built the cluster and Rancher only imported it, put its cluster.rkestate or \
             kube_config_<file> beside the cluster.yml",
        ));
    }

    /// What a selection leaves out has no backup, and rke knows of no selection.
    fn refuse_rke_selection(&mut self) {
        let left_out = self.facts.nodes.iter().filter(|node| !self.is_selected(&node.name));
        let left_out: Vec<&str> = left_out.map(|node| node.name.as_str()).collect();
        if !left_out.is_empty() {
            let message = format!(
                "rke writes to every node of the cluster.yml, those too that `-n` leaves out and that would have no backup: {}",
                left_out.join(", ")
            );
            self.blockers.push(
                Finding::error("rke-rotates-every-node", message)
                    .hint("drop `-n`; `--via direct` leaves workers out that `-n` leaves out"),
            );
        }
    }

    /// rke logs in by itself, from the cluster.yml alone.
    fn refuse_rke_login(&mut self, rke: &Rke, version: &RkeVersion) {
        if rke.agent == RkeAgent::Asked && !version.takes_agent_option() {
            let message = format!(
                "rke {version} cannot be told to use the agent: its rotation has no --ssh-agent-auth (rancher/rke#1479)"
            );
            self.blockers.push(
                Finding::error("rke-without-agent", message).hint(
                    "set `ssh_agent_auth: true` at the top of the cluster.yml, and leave --ssh-agent out",
                ),
            );
        }
        if !rke.own_login.is_empty() {
            let message = format!(
                "rke does not hear of {}: it logs in as the cluster.yml says, and verifies no host keys",
                rke.own_login.join(", ")
            );
            self.findings.push(
                Finding::warning("rke-logs-in-by-itself", message)
                    .hint("write users, keys and bastion_host into the cluster.yml"),
            );
        }
    }

    /// Without the state that it believes in rke fails late, or makes a cluster of another CA.
    fn refuse_rke_state(&mut self, rke: &Rke, version: &RkeVersion) {
        if version.rotation() != RkeRotation::Nested {
            return;
        }
        let Some(state) = &rke.bastion.state else {
            self.refuse_lost_rke_state(rke, version);
            return;
        };
        let path = state.path.display();
        let own = self.facts.kube_ca().map(|authority| &authority.sha256);
        match &state.authority {
            None => self.blockers.push(
                Finding::error("rke-state-empty", format!("`{path}` holds no kube-ca: an earlier run of rke failed and left it"))
                    .hint("put the real one there from a backup, or move it away and plan again"),
            ),
            Some(found) if Some(found) != own => self.blockers.push(
                Finding::error("rke-state-of-another-ca", format!("`{path}` is of another CA than the nodes: rke would give them certificates of a foreign CA"))
                    .hint("put the state of this cluster there; `certroll check` shows the CA of the nodes"),
            ),
            Some(_) => {}
        }
    }

    /// rke rebuilds a state that is lost: from the API, else from `.tmp` on the nodes, and only where a kubeconfig lies beside.
    fn refuse_lost_rke_state(&mut self, rke: &Rke, version: &RkeVersion) {
        if rke.bastion.kube_config.is_none() {
            let message = format!(
                "there is neither a cluster.rkestate nor a kube_config_<file> beside the cluster.yml: rke {version} cannot find the old certificates"
            );
            self.blockers.push(
                Finding::error("rke-state-lost", message)
                    .hint("bring either back from a backup (an expired kube_config will do), or use `--via direct`, which needs neither"),
            );
            return;
        }
        let has_api = self.facts.seen().any(|(_, seen)| {
            seen.health_of(Service::KubeApiserver).is_some_and(|health| health.healthy == Some(true))
        });
        // rke 0.1 kept every pair in a secret; later ones do not.
        let reads_secrets = has_api && is_legacy_layout(self.facts);
        if !version.reads_bundles() && !reads_secrets {
            let message = format!(
                "cluster.rkestate is lost, and rke {version} cannot read keys from `.tmp` on the nodes: v1.1.0 and later look for them in the wrong files"
            );
            self.blockers.push(
                Finding::error("rke-state-lost", message)
                    .hint("bring cluster.rkestate back from a backup, take an rke before v1.1.0 (--rke-binary FILE), or use `--via direct`"),
            );
            return;
        }
        let message =
            "cluster.rkestate is lost: rke rebuilds it from what the API or `.tmp` on the nodes holds";
        self.findings.push(
            Finding::warning("rke-state-lost", message)
                .hint("a copy of the lost file is the safer way; `--via direct` needs none"),
        );
    }

    /// Names what this version of rke does to a cluster that a careful operator would not.
    fn name_what_rke_does_wrong(&mut self, version: &RkeVersion) {
        let services = &self.policy.services;
        let etcd = version.rotation() == RkeRotation::Nested
            && (services.is_empty() || services.contains(&Service::Etcd));
        let members = if etcd { "every member of etcd at once, then " } else { "" };
        let message = format!(
            "rke {version} restarts {members}every API server at once, then every kubelet, and asks none of them whether it is well: \
             the API is away for half a minute or more"
        );
        self.findings.push(
            Finding::warning("rke-restarts-all-at-once", message)
                .hint("use a maintenance window; `--via direct` restarts one at a time, and nobody notices"),
        );
        if version.rotation() == RkeRotation::Flat {
            let message = format!(
                "rke {version} leaves etcd running: it reads its new certificates at the next handshake"
            );
            self.findings.push(Finding::info("rke-leaves-etcd", message));
            return;
        }
        let message = format!(
            "rke {version} leaves out nodes that it cannot reach, forgets them in its state, and ends with status 0 all the same: certroll \
             looks at every node afterwards"
        );
        self.findings.push(Finding::warning("rke-skips-nodes", message));
        if !version.is_at_least((1, 0, 0)) {
            let message = format!(
                "rke {version} leaves the old certificates in kube-system/full-cluster-state (rancher/rke#1755): only cluster.rkestate has the new ones"
            );
            self.findings.push(
                Finding::info("rke-leaves-api-state", message)
                    .hint("keep a copy of cluster.rkestate afterwards"),
            );
        }
    }
}

/// Returns the paths of the files that rke writes beside a cluster.yml.
fn paths_of(rke: &Rke) -> Vec<String> {
    rke.files.iter().map(|path| path.display().to_string()).collect()
}
