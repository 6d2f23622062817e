//! How a runbook reaches nodes: ssh, the bastion host, and what makes a login root there.

use std::fmt::Write as _;

use crate::command::{Access, quote};
use crate::inventory::{Node, SshCredentials};

use super::Runbook;
use super::text::{comment, inside_double_quotes};

/// A word that stands for the script while a line is taken apart. Quoting leaves it alone.
const SCRIPT: &str = "@SCRIPT@";

impl Runbook<'_> {
    /// Returns the functions that know the nodes: `on` and `directory_of`.
    pub(super) fn reach(&self) -> String {
        let mut text = self.bastion();
        text.push_str("\n# Runs a script on a node as root.\non() {\n  case $1 in\n");
        for name in self.nodes() {
            if let (Some(node), Some((_, seen))) = (self.inventory.node(name), self.seen(name)) {
                let access = if seen.access == Access::SudoWithPassword {
                    let advice = format!(
                        "{name}: sudo asks for a password, which a script cannot give: allow NOPASSWD for as long as it runs."
                    );
                    let _ = write!(text, "  {}", comment(&advice));
                    &Access::Sudo
                } else {
                    &seen.access
                };
                let line = access.wrap(SCRIPT, &node.docker_socket);
                let become_root = line.strip_suffix(SCRIPT).unwrap_or(&line);
                text.push_str(&self.entry(node, become_root));
            }
        }
        text.push_str("  *) stop \"$1 was not seen when the plan was made\" ;;\n  esac\n}\n");
        text.push_str(&self.directories());
        text
    }

    /// Returns how one node is reached.
    fn entry(&self, node: &Node, become_root: &str) -> String {
        let mut text = String::new();
        if node.ssh.key.is_some() {
            let advice =
                format!("{}: its key stands in the cluster.yml; load it into an agent first.", node.name);
            let _ = write!(text, "  {}", comment(&advice));
        }
        let bastion = if self.inventory.bastion.is_some() { " -o \"ProxyCommand=$BASTION\"" } else { "" };
        let _ = writeln!(
            text,
            "  {}) as_root {} \"$2\" -p {} -o BatchMode=yes{}{bastion} -- {} ;;",
            quote(node.name.as_str()),
            single_quoted(become_root),
            node.port,
            identity(&node.ssh),
            quote(&format!("{}@{}", node.user, node.address)),
        );
        text
    }

    /// Returns the command that connects through the bastion host, which ssh gives to a shell.
    fn bastion(&self) -> String {
        let Some(bastion) = &self.inventory.bastion else { return String::new() };
        let mut text = "\n# Connects through the bastion host of the cluster.yml.\n".to_owned();
        if bastion.ssh.key.is_some() {
            text.push_str(&comment("Its key stands in the cluster.yml; load it into an agent first."));
        }
        let destination = quote(&format!("{}@{}", bastion.user, bastion.address)).replace('%', "%%");
        let _ = writeln!(
            text,
            "BASTION=\"ssh $SSH_OPTIONS ${{SSH_CONFIG:+-F $(quoted \"$SSH_CONFIG\")}} -p {} -o BatchMode=yes{} -W '[%h]:%p' -- {}\"",
            bastion.port,
            inside_double_quotes(&identity(&bastion.ssh).replace('%', "%%")),
            inside_double_quotes(&destination),
        );
        text
    }

    /// Returns the function that tells where RKE keeps its files on a node.
    fn directories(&self) -> String {
        let mut text =
            "\n# Prints where RKE keeps its files on a node.\ndirectory_of() {\n  case $1 in\n".to_owned();
        for name in self.nodes() {
            if let Some((_, seen)) = self.seen(name) {
                let directory = quote(&seen.kubernetes_directory);
                let _ = writeln!(text, "  {}) printf '%s\\n' {directory} ;;", quote(name.as_str()));
            }
        }
        text.push_str("  *) stop \"$1 was not seen when the plan was made\" ;;\n  esac\n}\n");
        text
    }
}

/// Returns the words that name a key and a certificate, with a space in front of each.
fn identity(ssh: &SshCredentials) -> String {
    let key = ssh.key_path.as_ref().filter(|_| ssh.key.is_none() && !ssh.agent);
    let key = key.map_or_else(String::new, |path| format!(" -i {}", home_path(path)));
    let certificate = ssh.certificate_path.as_ref();
    let certificate =
        certificate.map_or_else(String::new, |path| format!(" -o CertificateFile={}", home_path(path)));
    key + &certificate
}

/// Returns a path as a word, `~/` as the home of whoever runs the script.
fn home_path(path: &str) -> String {
    match path.strip_prefix("~/") {
        Some(rest) => format!("\"$HOME\"/{}", quote(rest)),
        None => quote(path),
    }
}

/// Returns a text in single quotes, even where it needs none.
fn single_quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}
