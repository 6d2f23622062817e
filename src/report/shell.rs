//! A runbook is a plan as a POSIX shell script: what a person can read, change and run from the bastion without certroll.
//!
//! `plan -o shell` prints it. It carries no key and no token; where a step needs a private key of another node, it stops and
//! names the command of certroll that does it.

mod body;
mod direct;
mod reach;
mod text;

use std::fmt::Write as _;

use jiff::Timestamp;

use crate::facts::{Facts, NodeFacts, Observation};
use crate::inventory::{Inventory, NodeName};
use crate::plan::{Action, Plan};

use self::text::{comment, double_quoted, sentences};
use super::lines::elapsed;
use crate::command::quote;
use crate::escape::is_unsafe;

/// Returns the runbook of a plan for a run of a name. `facts` are those that the plan was made from.
pub fn runbook(plan: &Plan, inventory: &Inventory, facts: &Facts, run: &str, generated: Timestamp) -> String {
    let book = Runbook { plan, inventory, facts, run };
    let mut script = book.header(generated);
    if !plan.blockers.is_empty() {
        script.push_str(&book.refusal());
        return script;
    }
    if plan.stages.is_empty() {
        script.push_str("\nprintf '%s\\n' 'There is nothing to do.'\n");
        return script;
    }
    let settings = book.settings();
    let work = [book.reach(), book.body()].concat();
    if work.contains(acts) {
        script.push_str(UNREADABLE);
        return script;
    }
    let functions = functions_for(&work);
    script.extend([settings, functions, work]);
    script
}

/// What stands in the place of a script that nobody could review.
const UNREADABLE: &str = "
printf 'error: %s\\n' 'names in the plan hold characters that act on a terminal: a script with them cannot be reviewed' >&2
printf '  %s\\n' 'certroll check shows them spelt out; certroll apply takes them as they are' >&2
exit 1
";

/// Returns whether a character of a script would act on the terminal that shows it.
fn acts(character: char) -> bool {
    is_unsafe(character) && !matches!(character, '\n' | '\t')
}

/// A plan with all that its runbook is made from.
struct Runbook<'a> {
    plan: &'a Plan,
    inventory: &'a Inventory,
    facts: &'a Facts,
    run: &'a str,
}

impl<'a> Runbook<'a> {
    /// Returns what a reader has to know first.
    fn header(&self, generated: Timestamp) -> String {
        let plan = self.plan;
        let [low, high] = [plan.expected_seconds.0, plan.expected_seconds.1]
            .map(|seconds| elapsed(std::time::Duration::from_secs(seconds)));
        let mut text = format!(
            "#!/bin/sh\n\
             {}\
             #\n\
             {}\
             # Expected: {low} to {high}.\n\
             #\n\
             #   sh runbook.sh          asks before each stage\n\
             #   YES=1 sh runbook.sh    asks nothing\n\
             #\n\
             # SSH_OPTIONS (words for ssh), SSH_CONFIG (a file for ssh -F), RANCHER_TOKEN and RANCHER_CA (a file) are read from the\n\
             # environment. The script stops at the first failure and may be started again: what is done is kept, and a stage can be\n\
             # skipped. It takes the lock of certroll, so that no run meets it.\n\
             #\n\
             # It carries no private key; a step that would have to bring one names the command of certroll that does it. What it\n\
             # cannot see: whether something moved since the plan was made (beyond the CA), what the ports serve, and how healthy a\n\
             # component calls itself, but for etcd. Nodes are handled one after the other. `certroll check` tells more afterwards.\n",
            comment(&format!(
                "Runbook of plan {} for the cluster {}: {}. The plan was made at {}, this script at {}.",
                plan.id, plan.cluster, plan.procedure, plan.created_at, generated
            )),
            sentences(&super::review::effect(plan)),
        );
        if self.needs_staged_files() {
            text.push_str(direct::HEADER);
        }
        for left_out in &plan.not_handled {
            let line = format!("Left out: {} ({}). {}", left_out.node, left_out.reason, left_out.hint);
            text.push_str(&comment(&line));
        }
        text
    }

    /// Returns the rest of a runbook that must not be run.
    fn refusal(&self) -> String {
        let mut text = "\nprintf 'error: %s\\n' \"the plan is blocked:\" >&2\n".to_owned();
        for blocker in &self.plan.blockers {
            let node = blocker.node.as_ref().map_or_else(String::new, |node| format!("{node}: "));
            let line = double_quoted(&format!("{node}{}", blocker.message));
            let _ = writeln!(text, "printf '  %s\\n' {line} >&2");
        }
        text.push_str("exit 1\n");
        text
    }

    /// Returns the variables that every line reads.
    fn settings(&self) -> String {
        format!(
            "\nset -eu\nRUN={}\nSSH_OPTIONS=${{SSH_OPTIONS:-}}\nSSH_CONFIG=${{SSH_CONFIG:-}}\nYES=${{YES:-}}\nLOCKED=\n",
            if self.needs_staged_files() {
                format!("${{RUN:-{}}}", quote(self.run))
            } else {
                quote(self.run)
            }
        )
    }

    /// Returns what was seen of a node.
    fn seen(&self, name: &NodeName) -> Option<(&'a NodeFacts, &'a Observation)> {
        let node = self.facts.node(name)?;
        Some((node, node.observation()?))
    }

    /// Returns the nodes that the script talks to, in the order of the inventory.
    fn nodes(&self) -> Vec<&'a NodeName> {
        let is_named = |name: &NodeName| {
            self.plan.lock_nodes.contains(name)
                || self.plan.steps().any(|step| {
                    step.node.as_ref() == Some(name)
                        || matches!(&step.action, Action::BringFiles { from, .. } if from == name)
                })
        };
        self.inventory.nodes.iter().map(|node| &node.name).filter(|name| is_named(name)).collect()
    }
}

/// The functions that a runbook may need, in order, with an empty line between.
const FUNCTIONS: &str = include_str!("shell/functions.sh");

/// Returns the functions that a script calls, and those that they call.
fn functions_for(script: &str) -> String {
    let functions: Vec<(&str, &str)> = FUNCTIONS
        .split("\n\n")
        .filter_map(|function| {
            let head = function.lines().find(|line| !line.starts_with('#'))?;
            Some((head.split_once("() ")?.0, function.trim_end()))
        })
        .collect();
    let mut needed: Vec<&str> = Vec::new();
    let mut texts = vec![script];
    while let Some(text) = texts.pop() {
        for (name, function) in &functions {
            if !needed.contains(name) && calls(text, name) {
                needed.push(name);
                texts.push(function);
            }
        }
    }
    let kept = functions.iter().filter(|(name, _)| needed.contains(name));
    kept.fold(String::new(), |mut text, (_, function)| {
        let _ = write!(text, "\n{function}\n");
        text
    })
}

/// Returns whether a name stands as a word of its own in a script.
fn calls(script: &str, name: &str) -> bool {
    let is_part = |character: char| character.is_ascii_alphanumeric() || "_-.".contains(character);
    script.match_indices(name).any(|(start, _)| {
        let (before, after) = (script.get(..start), script.get(start + name.len()..));
        !before.is_some_and(|before| before.ends_with(is_part))
            && !after.is_some_and(|after| after.starts_with(is_part))
    })
}

#[cfg(test)]
mod tests;
