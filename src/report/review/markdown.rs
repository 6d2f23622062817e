use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::entry::groups;
use super::totals::{expected, totals};
use super::{
    IF_NEEDED, Review, commands, count_of, goal, is_decided_later, nothing_to_do, pace, place, warning,
};
use crate::command::quote;
use crate::finding::Finding;
use crate::inventory::NodeName;
use crate::plan::{Action, Plan, RUN_VARIABLE, Stage, StageName, TmpFolder, kube_admin_paths};
use crate::report::duration::moment;
use crate::report::escape::{shown, shown_lines};
use crate::report::findings::grouped;
use crate::report::names::folded;
use crate::report::style::{Detail, Style};

/// A ticket has room: nodes and files are all named.
const STYLE: Style = Style { detail: Detail::Verbose, ..Style::PLAIN };

/// Returns a review for a ticket, in Markdown.
pub fn markdown(review: &Review<'_>) -> String {
    let plan = review.plan;
    let mut text = format!("# Plan {}: {}, cluster {}\n\n", cell(&plan.id), goal(plan), cell(&plan.cluster));
    text.push_str(&summary(plan));
    text.push_str(&findings_table("Blocked: this forbids carrying the plan out", &plan.blockers));
    if plan.has_work() {
        let _ = writeln!(text, "## For the reviewer\n\n{}", checklist(plan));
        text.push_str(&stages_table(plan));
        for stage in &plan.stages {
            text.push_str(&changes(review, stage));
        }
    } else {
        let _ = writeln!(text, "{}\n", cell(&nothing_to_do(review)));
    }
    text.push_str(&not_handled(plan));
    text.push_str(&findings_table("Findings", &plan.findings));
    if plan.has_work() {
        text.push_str(&way_back(review));
    }
    if let (Some(next), true) = (review.next, plan.has_work() && plan.blockers.is_empty()) {
        let _ = writeln!(text, "Next: {}", shown(next));
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

/// Returns a text for a cell of a table, where bars and tags would mean something.
fn cell(text: &str) -> String {
    shown(text).replace('|', "\\|").replace('<', "&lt;")
}

/// Returns the rows of a table below its headings.
fn table(headings: &[&str], rows: &[Vec<String>]) -> String {
    let mut text = format!("| {} |\n|{}\n", headings.join(" | "), " --- |".repeat(headings.len()));
    for row in rows {
        let cells: Vec<String> = row.iter().map(|text| cell(text)).collect();
        let _ = writeln!(text, "| {} |", cells.join(" | "));
    }
    text.push('\n');
    text
}

fn summary(plan: &Plan) -> String {
    let mut rows = vec![
        vec!["made".to_owned(), moment(plan.created_at)],
        vec!["from what was seen at".to_owned(), moment(plan.observed_at)],
        vec!["fingerprint".to_owned(), format!("`{}`", plan.fingerprint)],
    ];
    rows.extend(plan.kube_ca.as_ref().map(|ca| vec!["kube-ca (SHA-256)".to_owned(), format!("`{ca}`")]));
    if plan.has_work() {
        rows.push(vec!["expected".to_owned(), expected(plan.expected_seconds)]);
        rows.push(vec!["amounts to".to_owned(), totals(plan)]);
    }
    table(&["", ""], &rows)
}

/// Returns what a reviewer confirms, one box each.
fn checklist(plan: &Plan) -> String {
    let mut boxes = vec![warning(plan)];
    if !plan.findings.is_empty() {
        boxes.push("The findings are understood.".to_owned());
    }
    if plan.findings.iter().any(|finding| finding.code == "gains-ca-key") {
        boxes.push("The nodes that gain the private key of kube-ca may hold it.".to_owned());
    }
    if !plan.not_handled.is_empty() {
        let left_out = count_of(plan.not_handled.len(), "node");
        boxes.push(format!("Somebody will see to what is left out ({left_out})."));
    }
    boxes.push("The way back by hand, at the end, is understood.".to_owned());
    boxes.iter().fold(String::new(), |text, line| text + "- [ ] " + line + "\n")
}

fn stages_table(plan: &Plan) -> String {
    let rows: Vec<Vec<String>> = plan
        .stages
        .iter()
        .zip(1..)
        .map(|(stage, number)| {
            vec![number.to_string(), stage.name.to_string(), place(stage), pace(stage), stage.title.clone()]
        })
        .collect();
    format!("## Stages\n\n{}", table(&["", "stage", "where", "how", "what"], &rows))
}

/// Returns what a stage changes, with its commands.
fn changes(review: &Review<'_>, stage: &Stage) -> String {
    let population = review.facts.nodes.len();
    let mut rows = Vec::new();
    for group in groups(review.plan, stage, STYLE) {
        let names =
            if group.nodes.is_empty() { place(stage) } else { folded(&group.nodes, population, STYLE) };
        rows.extend(
            group.entries.into_iter().map(|entry| {
                vec![names.clone(), format!("{} {}", entry.sign.as_str(), entry.what), entry.why]
            }),
        );
    }
    let commands = commands::by_nodes(stage, review.facts);
    if rows.is_empty() && commands.is_empty() {
        return String::new();
    }
    let mut text = format!("### {}\n\n", stage.name);
    if !rows.is_empty() {
        text.push_str(&table(&["nodes", "change", "why"], &rows));
    }
    if stage.steps.iter().any(|step| is_decided_later(&step.action)) {
        let _ = writeln!(text, "{IF_NEEDED}\n");
    }
    for (nodes, commands) in commands {
        let names = if nodes.is_empty() { place(stage) } else { folded(&nodes, population, STYLE) };
        let _ = writeln!(text, "<details><summary>commands: {}</summary>\n", cell(&names));
        text.push_str(&code(&commands));
        text.push_str("</details>\n\n");
    }
    text
}

/// Returns commands in a block of code.
fn code(commands: &[String]) -> String {
    let mut text = "```sh\n".to_owned();
    for line in commands.iter().flat_map(|command| shown_lines(command)) {
        let _ = writeln!(text, "{line}");
    }
    text + "```\n\n"
}

fn not_handled(plan: &Plan) -> String {
    if plan.not_handled.is_empty() {
        return String::new();
    }
    let rows: Vec<Vec<String>> = plan
        .not_handled
        .iter()
        .map(|left_out| {
            vec![left_out.node.to_string(), left_out.reason.clone(), format!("`{}`", left_out.hint)]
        })
        .collect();
    format!("## Not handled\n\n{}", table(&["node", "why", "handled later by"], &rows))
}

fn findings_table(heading: &str, findings: &[Finding]) -> String {
    if findings.is_empty() {
        return String::new();
    }
    let rows: Vec<Vec<String>> = grouped(findings)
        .into_iter()
        .map(|group| {
            let names: Vec<&str> = group.nodes.iter().map(|node| node.as_str()).collect();
            let hint = group.finding.hint.clone().unwrap_or_default();
            vec![group.finding.severity.to_string(), names.join(" "), group.finding.message.clone(), hint]
        })
        .collect();
    format!("## {heading}\n\n{}", table(&["severity", "nodes", "what", "what to do"], &rows))
}

/// Returns how to take the plan back without certroll: the backup over the folder, what was added away, restarts.
fn way_back(review: &Review<'_>) -> String {
    let plan = review.plan;
    let mut text = "## How to take it back by hand\n\n".to_owned();
    let removals = removals(review);
    let backups = plan.stage(StageName::Backup).map(Stage::nodes).unwrap_or_default();
    if backups.is_empty() {
        text.push_str(
            "No file is changed: containers were restarted, and there is nothing to take back.\n\n",
        );
        return text;
    }
    let _ = writeln!(text, "As root, with the run's name in `{RUN_VARIABLE}` (`certroll runs` lists it).\n");
    if plan.stage(StageName::Rotate).is_some() {
        text.push_str(
            "Who made the new certificates keeps them: Rancher or rke put them back at the next update of the cluster, \
             so this way is for a rotation that broke the cluster. Go node by node, and wait until etcd is healthy before the next.\n\n",
        );
    }
    let mut groups: Vec<(Vec<&NodeName>, Vec<String>)> = Vec::new();
    for node in backups {
        let Some(observation) = review.facts.node(node).and_then(|node| node.observation()) else { continue };
        let directory = quote(&observation.kubernetes_directory);
        let mut commands =
            vec![format!("tar -C {directory} -xpf {directory}/.certroll/\"${RUN_VARIABLE}\"/backup.tar")];
        commands.extend(removals.get(node).cloned());
        if plan.stage(StageName::Rotate).is_some() {
            let names = observation.containers.iter().map(|container| container.name.as_str());
            let mut names: Vec<&str> =
                names.filter(|name| name.parse::<crate::pki::Service>().is_ok()).collect();
            names.sort_unstable();
            commands.push(format!("docker restart {}", names.join(" ")));
        }
        match groups.iter_mut().find(|(_, known)| *known == commands) {
            Some((nodes, _)) => nodes.push(node),
            None => groups.push((vec![node], commands)),
        }
    }
    for (nodes, commands) in groups {
        let _ = writeln!(text, "On {}:\n", cell(&folded(&nodes, review.facts.nodes.len(), STYLE)));
        text.push_str(&code(&commands));
    }
    text
}

/// Returns the command that takes away what a plan adds on each node: single files, or the folder where it makes that.
fn removals(review: &Review<'_>) -> BTreeMap<NodeName, String> {
    let mut removals: BTreeMap<NodeName, String> = BTreeMap::new();
    for step in review.plan.steps() {
        let Some(node) = &step.node else { continue };
        let Some(seen) = review.facts.node(node).and_then(|node| node.observation()) else { continue };
        let (folder, paths) = match &step.action {
            Action::CopyFiles { folder, copies } | Action::BringFiles { folder, copies, .. } => {
                (folder, copies.iter().map(|copy| copy.destination.clone()).collect())
            }
            Action::AddKubeAdmin { folder, .. } => {
                (folder, kube_admin_paths(&seen.kubernetes_directory).to_vec())
            }
            _ => continue,
        };
        match folder {
            TmpFolder::Made => {
                removals.insert(node.clone(), format!("rm -rf {}", quote(&seen.tmp_directory())));
            }
            TmpFolder::Present => {
                let command = removals.entry(node.clone()).or_insert_with(|| "rm -f".to_owned());
                for path in &paths {
                    let _ = write!(command, " {}", quote(path));
                }
            }
        }
    }
    removals
}
