//! An import writes a cluster.yml for a cluster that has none, from what Rancher, rke or the cluster itself knows of it.
//!
//! The sources are in the modules beneath; what they found is completed, proved to load, and written here.

mod kubeconfig;
mod rancher;
mod rkestate;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::arguments::{Common, ImportArguments, ImportOutput, ImportSource};
use super::failure::{FAILED, Failure, REFUSED, USAGE};
use super::settings::Settings;
use super::terminal::Terminal;
use crate::escape::shown;
use crate::inventory::{Draft, DraftMachine, Inventory, Parsed, Role};
use crate::report::duration::count;
use crate::workstation::{WorkstationError, replace_file, write_key};

/// Imports a cluster.
pub(super) async fn run(
    settings: &Settings,
    terminal: &Terminal,
    arguments: &ImportArguments,
) -> Result<u8, Failure> {
    if terminal.is_json() {
        return Err(Failure::usage("`certroll import` writes a cluster.yml; it has no other form")
            .hint("`certroll nodes -c cluster.yml -o json` shows it as JSON afterwards".to_owned()));
    }
    if settings.common.nodes.is_some() {
        return Err(Failure::usage("`certroll import` takes a cluster as a whole: `-n` cannot split it")
            .hint("give `-n` to the commands that use the cluster.yml".to_owned()));
    }
    let output = match &arguments.source {
        ImportSource::Rancher(source) => &source.output,
        ImportSource::Rkestate(source) => &source.output,
        ImportSource::Kubeconfig(source) => &source.output,
    };
    // Before anything is asked of anybody: it must not end at a file that is in the way.
    output.refuse_existing()?;
    let imported = match &arguments.source {
        ImportSource::Rancher(source) => rancher::read(source, terminal).await?,
        ImportSource::Rkestate(source) => rkestate::read(&source.file)?,
        ImportSource::Kubeconfig(source) => kubeconfig::read(source).await?,
    };
    finish(settings, terminal, output, imported)
}

/// What a source knows of a cluster.
struct Imported {
    draft: Draft,
    /// Where it comes from, for the head of the file.
    origin: String,
    /// What the operator should know.
    notes: Vec<String>,
    /// Private keys to be kept, by the file that the draft names for each.
    keys: Vec<(PathBuf, Zeroizing<String>)>,
    /// The machines whose keys there are, and could not be had.
    unfetched: Vec<String>,
}

impl ImportOutput {
    /// Refuses to write over a file, unless that is wanted.
    fn refuse_existing(&self) -> Result<(), Failure> {
        match &self.save {
            Some(path) if path.symlink_metadata().is_ok() && !self.force => {
                let path = path.display();
                Err(Failure::message(REFUSED, format!("`{path}` is there already; nothing was written"))
                    .hint(
                        "give another name, or --force to replace it; the old one is then kept beside it"
                            .to_owned(),
                    ))
            }
            _ => Ok(()),
        }
    }
}

/// Completes what was found, proves that it loads, and writes it.
fn finish(
    settings: &Settings,
    terminal: &Terminal,
    output: &ImportOutput,
    mut imported: Imported,
) -> Result<u8, Failure> {
    leave_out(&mut imported);
    let missing = complete(&mut imported, &settings.common);
    for note in &imported.notes {
        terminal.mention(&format!("note: {}", shown(note)));
    }
    if imported.draft.nodes.is_empty() {
        return Err(Failure::message(
            REFUSED,
            "no machine is known that has an address and a role; nothing was written",
        )
        .hint("import again once one is set up".to_owned()));
    }
    if imported.draft.nodes.iter().any(|node| node.user.is_none()) {
        return Err(incomplete(&missing));
    }
    let head = [
        format!("Written by `certroll import` from {}.", imported.origin),
        "It holds what certroll needs, without keys and passwords: it is not the whole configuration, and not meant for `rke up`.".to_owned(),
    ];
    let yaml = imported.draft.to_yaml(&head).map_err(|error| Failure::new(FAILED, error))?;
    let Parsed { inventory, findings } =
        Inventory::parse(&yaml, "the imported cluster.yml").map_err(|error| {
            Failure::message(USAGE, format!("what was found does not make a cluster.yml\n{error}"))
        })?;
    for missing in &missing {
        terminal.mention(&format!("note: {}", shown(&missing.sentence())));
    }
    for finding in findings {
        terminal.mention(&format!("{}: {}", finding.severity, shown(&finding.message)));
    }
    for (path, key) in &imported.keys {
        write_key(path, key).map_err(unwritten)?;
    }
    if let Some(folder) = imported.keys.first().and_then(|(path, _)| path.parent()) {
        terminal.mention(&format!(
            "note: the private keys of machines that Rancher made ({}) are in `{}`: keep that folder to yourself",
            imported.keys.len(),
            folder.display()
        ));
    }
    match &output.save {
        Some(path) => save(settings, terminal, output, (path, &yaml))?,
        None => terminal.print(&yaml),
    }
    terminal.mention(&summary(&inventory, output.save.as_deref()));
    if imported.unfetched.is_empty() { Ok(0) } else { Err(unfetched(&imported.unfetched)) }
}

/// Returns the failure of an import that is written, and lacks keys.
fn unfetched(machines: &[String]) -> Failure {
    let machines = machines.join(", ");
    let machines = shown(&machines);
    let message =
        format!("no key could be had from Rancher of {machines}; the cluster.yml was written without");
    Failure::message(FAILED, message).hint(
        "import again when Rancher gives them (--force replaces the file), or name keys in the file (`ssh_key_path`)"
            .to_owned(),
    )
}

/// Returns what a machine lacks to be looked at at all.
fn lack(machine: &DraftMachine) -> Option<&'static str> {
    match (&machine.address, machine.role.is_empty()) {
        (None, _) => Some("no address"),
        (Some(_), true) => Some("no role"),
        (Some(_), false) => None,
    }
}

/// Leaves out machines that lack too much: the others can be looked at all the same.
fn leave_out(imported: &mut Imported) {
    let Imported { draft, notes, .. } = imported;
    draft.nodes.retain(|machine| {
        let Some(lack) = lack(machine) else { return true };
        let name = if machine.name().is_empty() { "a machine without a name" } else { machine.name() };
        notes.push(format!("{name} has {lack}: left out"));
        false
    });
}

fn save(
    settings: &Settings,
    terminal: &Terminal,
    output: &ImportOutput,
    (path, yaml): (&Path, &str),
) -> Result<(), Failure> {
    // Somebody may have made it since.
    output.refuse_existing()?;
    let suffix = settings.clock.now().strftime("before-import-%Y%m%d-%H%M%S").to_string();
    let kept = replace_file(path, yaml, &suffix).map_err(unwritten)?;
    if let Some(kept) = kept {
        terminal.mention(&format!("note: the file that was there is `{}` now", kept.as_path().display()));
    }
    Ok(())
}

fn unwritten(error: WorkstationError) -> Failure {
    let hint = error.hint().to_owned();
    let status = if matches!(error, WorkstationError::OpenFolder { .. }) { REFUSED } else { FAILED };
    Failure::new(status, error).hint(hint)
}

/// Returns what was imported in one sentence, and what to do next.
fn summary(inventory: &Inventory, saved: Option<&Path>) -> String {
    let number = |number: usize, noun: &str| count(i64::try_from(number).unwrap_or(i64::MAX), noun);
    let roles = Role::ALL.map(|role| format!("{} {role}", inventory.with_role(role).count())).join(", ");
    let nodes = number(inventory.nodes.len(), "node");
    let mut text = format!("{}: {nodes} ({roles})", shown(&inventory.cluster_name));
    match saved {
        Some(path) => {
            let path = path.display();
            let _ = write!(text, " in `{path}`\nhint: `certroll nodes -c {path}` shows them, `certroll check -c {path}` looks at them");
        }
        None => text.push_str("\nhint: keep it with --save cluster.yml, or send it to a file; `certroll check -c FILE` looks at the nodes"),
    }
    text
}

/// What a machine lacks to be reached.
#[derive(Debug, PartialEq, Eq)]
struct Missing {
    machine: String,
    options: Vec<&'static str>,
    /// The key that is tried there all the same.
    tried: String,
}

impl Missing {
    fn sentence(&self) -> String {
        let Self { machine, options, tried } = self;
        let consequence = if options.contains(&"--ssh-user") {
            "nobody knows who logs in there".to_owned()
        } else {
            format!("{tried} is tried there")
        };
        format!("{machine}: {} missing; {consequence}", options.join(" and "))
    }
}

/// Fills in from the command line what the source does not know, notes what was given in vain, and returns what is still missing.
fn complete(imported: &mut Imported, common: &Common) -> Vec<Missing> {
    let Imported { draft, notes, .. } = imported;
    let key = common.ssh_key.as_ref().map(|path| path.display().to_string());
    draft.ssh_agent_auth |= common.ssh_agent;
    let has_agent = draft.ssh_agent_auth;
    let of_cluster = draft.ssh_key_path.clone();
    let tried = match &of_cluster {
        Some(path) => format!("the cluster's `{path}`"),
        None => "RKE's default ~/.ssh/id_rsa".to_owned(),
    };
    let (mut takes_user, mut takes_key) = (false, false);
    let mut missing = Vec::new();
    for machine in draft.nodes.iter_mut().chain(draft.bastion_host.as_mut()) {
        let mut options = Vec::new();
        if machine.user.is_none() {
            takes_user = true;
            machine.user.clone_from(&common.ssh_user);
            options.extend(machine.user.is_none().then_some("--ssh-user"));
        }
        // Whoever had a key of its own is not known to take the cluster's.
        let has_way = has_agent || (of_cluster.is_some() && !machine.had_inline_key);
        if machine.ssh_key_path.is_none() && !has_way {
            takes_key = true;
            machine.ssh_key_path.clone_from(&key);
            options.extend(machine.ssh_key_path.is_none().then_some("--ssh-key"));
        }
        if !options.is_empty() {
            missing.push(Missing { machine: named(machine), options, tried: tried.clone() });
        }
    }
    if common.ssh_user.is_some() && !takes_user {
        notes.push(
            "--ssh-user was not used: every machine has a user already (`user` in the file)".to_owned(),
        );
    }
    if key.is_some() && !takes_key {
        notes.push(
            "--ssh-key was not used: every machine has a key or the agent already (`ssh_key_path` and `ssh_agent_auth` in the file)"
                .to_owned(),
        );
    }
    missing
}

/// Returns a machine as people know it.
fn named(machine: &DraftMachine) -> String {
    match machine.address.as_deref() {
        Some(address) if address != machine.name() => format!("{} ({address})", machine.name()),
        _ => machine.name().to_owned(),
    }
}

/// Returns the failure of an import that cannot say who logs in.
fn incomplete(missing: &[Missing]) -> Failure {
    let lines = missing.iter().fold(String::new(), |mut text, Missing { machine, options, .. }| {
        let _ = write!(text, "\n  {}: {}", shown(machine), options.join(", "));
        text
    });
    let message = format!("it is not known how these machines are logged in to; nothing was written{lines}");
    Failure::message(REFUSED, message).hint(
        "give --ssh-user USER and --ssh-key FILE (or --ssh-agent); they fill in what is not known, and the file can be edited afterwards"
            .to_owned(),
    )
}
