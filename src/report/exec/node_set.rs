//! A node set is the names of some nodes in few words: `w-[1-40]`, `cp-1,w-[2-3]`.

use std::collections::BTreeMap;

/// A name around its last number.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Family<'a> {
    before: &'a str,
    behind: &'a str,
}

/// Returns names folded at their last numbers, in the order of the first of each family.
pub fn node_set<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let mut order: Vec<Family<'_>> = Vec::new();
    let mut families: BTreeMap<Family<'_>, Vec<&str>> = BTreeMap::new();
    for name in names {
        let (before, number, behind) = parts(name);
        let numbers = families.entry(Family { before, behind }).or_default();
        if numbers.is_empty() {
            order.push(Family { before, behind });
        }
        numbers.push(number);
    }
    let words = order.into_iter().map(|family| {
        let numbers = families.remove(&family).unwrap_or_default();
        let Family { before, behind } = family;
        match numbers.as_slice() {
            [only] => format!("{before}{only}{behind}"),
            _ => format!("{before}[{}]{behind}", ranges(numbers)),
        }
    });
    words.collect::<Vec<String>>().join(",")
}

/// Splits a name around its last number; a name without one is its own family.
fn parts(name: &str) -> (&str, &str, &str) {
    let is_digit = |letter: char| letter.is_ascii_digit();
    let Some(last) = name.rfind(is_digit) else { return (name, "", "") };
    let (head, behind) = name.split_at(last + 1);
    let start = head.rfind(|letter| !is_digit(letter)).map_or(0, |at| at + 1);
    // What stands before may be wider than a byte.
    let start = (start..head.len()).find(|at| head.is_char_boundary(*at)).unwrap_or_default();
    let (before, number) = head.split_at(start);
    (before, number, behind)
}

/// Returns numbers as ranges, ascending: `1-3,5`. Digits stay as they are written.
fn ranges(mut numbers: Vec<&str>) -> String {
    let value = |digits: &str| digits.parse::<u128>().unwrap_or(u128::MAX);
    numbers.sort_by_key(|digits| (value(digits), digits.len()));
    let follows = |earlier: &str, later: &str| {
        let is_padded = earlier.starts_with('0') || later.starts_with('0');
        value(earlier).checked_add(1) == Some(value(later)) && (earlier.len() == later.len() || !is_padded)
    };
    let mut ranges: Vec<(&str, &str)> = Vec::new();
    for number in numbers {
        match ranges.last_mut() {
            Some((_, last)) if follows(last, number) => *last = number,
            _ => ranges.push((number, number)),
        }
    }
    let words = ranges
        .into_iter()
        .map(|(first, last)| if first == last { first.to_owned() } else { format!("{first}-{last}") });
    words.collect::<Vec<String>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_folded_at_their_last_number() {
        for (names, folded) in [
            (vec!["w-1"], "w-1"),
            (vec!["w-1", "w-2", "w-3", "w-10", "w-9", "w-8"], "w-[1-3,8-10]"),
            (vec!["n08", "n09", "n10"], "n[08-10]"),
            (vec!["n9", "n10"], "n[9-10]"),
            (vec!["n1", "n01", "n02"], "n[1,01-02]"),
            (vec!["rack1-a", "rack2-a", "rack2-b"], "rack[1-2]-a,rack2-b"),
            (vec!["10.0.0.1", "10.0.0.2", "10.0.1.1"], "10.0.0.[1-2],10.0.1.1"),
            (vec!["etcd", "cp-1", "api"], "etcd,cp-1,api"),
            (vec!["ü1", "ü2"], "ü[1-2]"),
            (
                vec!["x99999999999999999999999999999999999999999", "x1"],
                "x[1,99999999999999999999999999999999999999999]",
            ),
            (vec![], ""),
        ] {
            assert_eq!(node_set(names), folded);
        }
    }
}
