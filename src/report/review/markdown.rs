use std::fmt::Write as _;

use super::entry::groups;
use super::totals::{expected, totals};
use super::way_back::way_back;
use super::{
    IF_NEEDED, Review, certificates, commands, count_of, goal, handled_by, is_decided_later, nothing_to_do,
    pace, place, warning,
};
use crate::escape::{shown, shown_lines};
use crate::finding::Finding;
use crate::plan::{LeftOut, NewCertificate, Plan, Stage};
use crate::report::columns::NO_BREAK;
use crate::report::duration::moment;
use crate::report::findings::grouped;
use crate::report::names::folded;
use crate::report::style::{Detail, Style};

/// A ticket has room: nodes and files are all named.
pub(super) const STYLE: Style = Style { detail: Detail::Verbose, ..Style::PLAIN };

/// Returns a review for a ticket, in Markdown.
pub fn markdown(review: &Review<'_>) -> String {
    let plan = review.plan;
    let mut text = format!("# Plan {}: {}, cluster {}\n\n", cell(&plan.id), goal(plan), cell(&plan.cluster));
    text.push_str(&summary(plan));
    text.push_str(&findings_table("Blocked: this forbids carrying the plan out", &plan.blockers));
    if plan.has_work() {
        let _ = writeln!(text, "## For the reviewer\n\n{}", checklist(plan));
        text.push_str(&certificates_table(review));
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
pub(super) fn cell(text: &str) -> String {
    shown(text).replace(NO_BREAK, " ").replace('|', "\\|").replace('<', "&lt;")
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
    if let Some(key) = plan.ca_keys.first() {
        boxes.push(format!("certroll may read the private key of {} on {}.", key.authority.name(), key.node));
    }
    if plan.certificates.iter().any(NewCertificate::keeps_key) {
        boxes.push(
            "The key that signs service account tokens stays; its certificate alone is new.".to_owned(),
        );
    }
    if plan.misses_nodes() {
        let missed = plan.not_handled.iter().filter(|node| node.left_out == LeftOut::ForNow);
        let left_out = count_of(missed.count(), "node");
        boxes.push(format!("Somebody will see to what is left out ({left_out})."));
    }
    boxes.push("The way back by hand, at the end, is understood.".to_owned());
    boxes.iter().fold(String::new(), |text, line| text + "- [ ] " + line + "\n")
}

/// Returns the certificates that a plan makes or copies, and where the CAs' keys are read.
fn certificates_table(review: &Review<'_>) -> String {
    let plan = review.plan;
    if plan.certificates.is_empty() {
        return String::new();
    }
    let headings = certificates::HEADINGS.map(str::to_lowercase);
    let headings: Vec<&str> = headings.iter().map(String::as_str).collect();
    let mut text = format!("## New certificates\n\n{}\n\n", cell(&certificates::sentences(plan).join(" ")));
    text.push_str(&table(&headings, &certificates::table_rows(review, STYLE)));
    for note in certificates::notes(plan) {
        let _ = writeln!(text, "{}\n", cell(&note));
    }
    let names = certificates::alternative_names(review);
    if !names.is_empty() {
        let rows: Vec<Vec<String>> = names.into_iter().map(|(names, sans)| vec![names, sans]).collect();
        text.push_str(&table(&["certificate", "SANs"], &rows));
    }
    text.push_str("The keys of these CAs are read, each from one node and for the time of the run:\n\n");
    text + &table(&["CA", "node", "key", "CA's SHA-256"], &certificates::ca_key_rows(&plan.ca_keys))
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
pub(super) fn code(commands: &[String]) -> String {
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
        .map(|left_out| vec![left_out.node.to_string(), left_out.reason.clone(), handled_by(left_out)])
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
