//! The remarks are what a person is told of the ssh_config before nodes are connected to.

use indexmap::IndexMap;

use super::terminal::Terminal;
use crate::inventory::{Bastion, Node};
use crate::transport::{self, Remark};

/// How many nodes are named where a remark holds for more.
const NAMED: usize = 3;

/// Tells what the ssh_config says and is not done: what matters always, the rest at `-v`; each line of it once.
pub(super) fn tell(
    settings: &transport::Settings,
    bastion: Option<&Bastion>,
    nodes: &[&Node],
    terminal: &Terminal,
) {
    let (mut warnings, mut unused) = (Told::default(), Told::default());
    for node in nodes {
        let remarks = transport::remarks(settings, bastion, node);
        warnings.add(remarks.warnings, node);
        unused.add(remarks.unused, node);
    }
    for (remark, names) in &warnings.remarks {
        terminal.tell(&format!("warning: {}: {} ({})", remark.place, remark.text, named(names)));
    }
    if terminal.style().is_verbose() {
        for remark in unused.remarks.keys() {
            terminal.tell(&format!("{}: not used here: {}", remark.place, remark.text));
        }
    }
}

/// Tells who decided on what, a line a node (`-vv`); a node to which no way is found says so when it is connected to.
pub(super) fn tell_decisions(
    settings: &transport::Settings,
    bastion: Option<&Bastion>,
    nodes: &[&Node],
    terminal: &Terminal,
) {
    for node in nodes {
        if let Ok(reach) = transport::reach(settings, bastion, node) {
            terminal.tell(&format!("{}: {}", node.name, reach.decisions.join(", ")));
        }
    }
}

/// Remarks in the order in which they came up, each with the nodes that it is about.
#[derive(Default)]
struct Told<'a> {
    remarks: IndexMap<Remark, Vec<&'a Node>>,
}

impl<'a> Told<'a> {
    fn add(&mut self, remarks: Vec<Remark>, node: &'a Node) {
        for remark in remarks {
            let nodes = self.remarks.entry(remark).or_default();
            // A jump host may be told of the same.
            if nodes.last().is_none_or(|last| last.name != node.name) {
                nodes.push(node);
            }
        }
    }
}

fn named(nodes: &[&Node]) -> String {
    let mut names: Vec<String> = nodes.iter().take(NAMED).map(|node| node.name.to_string()).collect();
    if let Some(more) = nodes.len().checked_sub(NAMED).filter(|more| *more > 0) {
        names.push(format!("and {more} more"));
    }
    names.join(" ")
}
