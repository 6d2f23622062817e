//! Names of nodes in one line: all of them while they are few, else the first and how many more.
//!
//! Findings, stages and rows of text reports name nodes with it.

use super::style::Style;
use crate::inventory::NodeName;

/// That many names are written out before the rest is counted.
const NAMED: usize = 3;

/// Returns the names, folded where there are many: `w-1 w-2 w-3 and 97 more`. `population` is the number of nodes that there are.
pub fn folded(names: &[&NodeName], population: usize, style: Style) -> String {
    let words = |names: &[&NodeName]| names.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(" ");
    if names.len() == population && population > NAMED {
        return format!("all {population} nodes");
    }
    match names.split_at_checked(NAMED) {
        Some((first, rest)) if rest.len() > 1 && !style.is_verbose() => {
            format!("{} and {} more", words(first), rest.len())
        }
        _ => words(names),
    }
}
