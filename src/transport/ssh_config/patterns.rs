//! Patterns are what `Host` and `Match` compare names with: `*`, `?`, and `!` in front of what is not meant.
//!
//! `lookup` asks them; `match.c` of OpenSSH has the rules.

use crate::transport::known_hosts::matches_pattern;

/// Returns whether a name fits the patterns of a `Host` line, and none of its negated ones.
pub(super) fn fits_host_line(patterns: &[String], name: &str) -> bool {
    let matched = |pattern: &str| matches_pattern(pattern.as_bytes(), name.as_bytes());
    let excluded = patterns.iter().filter_map(|pattern| pattern.strip_prefix('!')).any(matched);
    !excluded && patterns.iter().any(|pattern| !pattern.starts_with('!') && matched(pattern))
}

/// Returns whether a name fits a list with commas, as `Match` has them.
pub(super) fn fits_list(list: &str, name: &str) -> bool {
    let mut fits = false;
    for pattern in list.split(',') {
        let (is_negated, pattern) = match pattern.strip_prefix('!') {
            Some(pattern) => (true, pattern),
            None => (false, pattern),
        };
        if matches_pattern(pattern.as_bytes(), name.as_bytes()) {
            if is_negated {
                return false;
            }
            fits = true;
        }
    }
    fits
}

/// Returns whether the name of a host fits a list, in whatever case both are written.
pub(super) fn fits_host_list(list: &str, name: &str) -> bool {
    fits_list(&list.to_ascii_lowercase(), &name.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_line_is_a_list_with_exceptions() {
        for (patterns, name, expected) in [
            ("*", "node-1", true),
            ("node-? gate", "node-1", true),
            ("node-? gate", "node-10", false),
            ("node-* !node-2", "node-2", false),
            ("!node-2 node-*", "node-3", true),
            ("!node-2", "node-3", false),
            ("Node-1", "node-1", false),
            ("10.0.0.*", "10.0.0.7", true),
            ("2001:db8::*", "2001:db8::1", true),
        ] {
            let patterns: Vec<String> = patterns.split(' ').map(str::to_owned).collect();
            assert_eq!(fits_host_line(&patterns, name), expected, "{patterns:?} {name}");
        }
    }

    #[test]
    fn a_match_list_ends_at_what_is_not_meant() {
        for (list, name, expected) in [
            ("*.example.net,gate", "a.example.net", true),
            ("!a.*,*.example.net", "a.example.net", false),
            ("*.example.net,!a.*", "a.example.net", false),
            ("!a.*", "b", false),
            ("GATE", "Gate", true),
            ("", "gate", false),
        ] {
            assert_eq!(fits_host_list(list, name), expected, "{list} {name}");
        }
        assert!(!fits_list("Root", "root"), "names of users have a case");
    }
}
