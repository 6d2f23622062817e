//! How `exec` ended: a line for each node that is not well when that is known, and at the end how many ended how, and which.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Ending, node_set};
use crate::escape::shown;
use crate::report::duration::took;
use crate::report::style::{Style, Tone};

/// The most different ways out that are shown.
const HINTS: usize = 3;

/// The words of endings, in the order in which they are told.
const WORDS: [&str; 7] = ["done", "failed", "timed out", "unreachable", "left alone", "cut off", "not run"];

/// Returns the line of a node on which the command did not end well; nothing where it did.
pub fn line_of(node: &str, ending: &Ending, style: Style) -> Option<String> {
    if ending.is_done() {
        return None;
    }
    let what =
        ending.error().unwrap_or_else(|| format!("exit status {}", ending.status().unwrap_or_default()));
    Some(format!("{} {node}: {}", style.paint(tone(ending), ending.word()), shown(&what)))
}

/// Returns how many nodes ended how, and the names of those that did not end well.
pub fn summary(endings: &[(&str, &Ending)], elapsed: Duration, style: Style) -> String {
    let counts = WORDS.iter().filter_map(|word| {
        let count = endings.iter().filter(|(_, ending)| ending.word() == *word).count();
        (count > 0).then(|| format!("{count} {word}"))
    });
    let nodes = if endings.len() == 1 { "1 node".to_owned() } else { format!("{} nodes", endings.len()) };
    let counts = counts.collect::<Vec<String>>().join(", ");
    let mut lines = vec![format!("{nodes} in {}: {counts}", took(elapsed))];
    lines.extend(rows(endings, style));
    let mut hints: Vec<&str> = Vec::new();
    for hint in endings.iter().filter_map(|(_, ending)| ending.hint()) {
        if hints.len() < HINTS && !hints.contains(&hint) {
            hints.push(hint);
        }
    }
    lines.extend(hints.into_iter().map(|hint| format!("hint: {}", shown(hint))));
    lines.join("\n")
}

/// Returns a row for each way in which the command did not end well: its word, what is the same for its nodes, and their names.
fn rows(endings: &[(&str, &Ending)], style: Style) -> Vec<String> {
    let mut groups: BTreeMap<(usize, String), (Tone, Vec<&str>)> = BTreeMap::new();
    for (node, ending) in endings.iter().filter(|(_, ending)| !ending.is_done()) {
        let order = WORDS.iter().position(|word| *word == ending.word()).unwrap_or_default();
        groups.entry((order, detail(ending))).or_insert((tone(ending), vec![])).1.push(node);
    }
    let width = groups.keys().map(|(_, detail)| detail.len()).max().unwrap_or_default();
    let row = |((order, detail), (tone, nodes)): ((usize, String), (Tone, Vec<&str>))| {
        let word = WORDS.get(order).copied().unwrap_or_default();
        let gap = if width == 0 { "" } else { "  " };
        let word = style.paint(tone, &format!("{word:<11}"));
        format!("{word}  {detail:<width$}{gap}{}", node_set(nodes))
    };
    groups.into_iter().map(row).collect()
}

fn tone(ending: &Ending) -> Tone {
    if ending.is_well() { Tone::Faint } else { Tone::Bad }
}

/// Returns what is the same for nodes of one row.
fn detail(ending: &Ending) -> String {
    match ending {
        Ending::Exited(status) => format!("status {status}"),
        Ending::Killed(Some(signal)) => format!("signal {}", shown(signal)),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Cause;
    use super::*;

    #[test]
    fn every_way_to_end_is_counted_and_named() {
        let cause = |error: &str, hint: &str| Cause { error: error.to_owned(), hint: Some(hint.to_owned()) };
        let unreachable =
            Ending::Unreachable(cause("10.0.0.5:22 refused the connection", "is sshd running there?"));
        let late =
            Ending::TimedOut(cause("a command on 10.0.0.6:22 did not end within 60s", "give it more time"));
        let killed = Ending::Killed(Some("KILL\u{1b}".to_owned()));
        let windows = Ending::LeftAlone("its label `kubernetes.io/os` says so".to_owned());
        let lost = Ending::Failed(Cause { error: "the connection was lost".to_owned(), hint: None });
        let endings = [
            ("w-1", &Ending::Exited(0)),
            ("w-2", &Ending::Exited(3)),
            ("w-3", &Ending::Exited(3)),
            ("w-4", &Ending::Exited(127)),
            ("w-5", &unreachable),
            ("w-6", &late),
            ("w-7", &killed),
            ("w-8", &unreachable),
            ("w-9", &lost),
            ("w-10", &Ending::Cut),
            ("w-11", &Ending::NotRun),
            ("w-12", &Ending::NotRun),
            ("w-13", &windows),
        ];
        let lines = endings.iter().filter_map(|(node, ending)| line_of(node, ending, Style::PLAIN));
        let lines = lines.collect::<Vec<String>>().join("\n");
        let summary = summary(&endings, Duration::from_millis(1234), Style::PLAIN);
        insta::assert_snapshot!(format!("{lines}\n\n{summary}"));
    }

    #[test]
    fn a_good_end_is_one_line() {
        let endings = [("w-1", &Ending::Exited(0))];
        assert_eq!(summary(&endings, Duration::from_millis(200), Style::PLAIN), "1 node in 0.2 s: 1 done");
    }
}
