//! Ends processes together with all that they have started, by their ids alone.

use std::fs;

use rustix::process::{Pid, Signal, kill_process};

/// How often it is looked for processes that were started while others ended.
const LOOKS: usize = 100;

/// Ends a process and its descendants, of which each may have a process group of its own.
pub(super) fn end_with_descendants(id: u32) {
    // Whoever is stopped starts no others, and does not reap those that ended, so that their ids are not given away.
    signal(id, Signal::STOP);
    for _ in 0..LOOKS {
        let descendants = descendants(id);
        if descendants.is_empty() {
            break;
        }
        for descendant in descendants {
            signal(descendant, Signal::KILL);
        }
    }
    signal(id, Signal::KILL);
}

fn signal(id: u32, signal: Signal) {
    let id = i32::try_from(id).ok().and_then(Pid::from_raw);
    // It may have ended by itself.
    let _ = kill_process(id.unwrap(), signal);
}

/// Returns the processes beneath one that still run.
fn descendants(id: u32) -> Vec<u32> {
    let parents = parents();
    let mut found = vec![id];
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        found.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(child, _)| *child));
        next += 1;
    }
    found.split_off(1)
}

/// Returns every process that runs, with its parent.
fn parents() -> Vec<(u32, u32)> {
    let entries = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    entries
        .filter_map(|entry| {
            let id = entry.file_name().to_str()?.parse().ok()?;
            let status = fs::read_to_string(entry.path().join("stat")).ok()?;
            // The name is in parentheses and may hold anything; behind it come the state and the parent.
            let mut fields = status.rsplit_once(") ")?.1.split(' ');
            (fields.next()? != "Z").then_some(())?;
            Some((id, fields.next()?.parse().ok()?))
        })
        .collect()
}
