//! The scripts that lay new files aside on a node, and that put them into place.

use std::fmt::Write as _;
use std::time::Duration;

use super::certificate::NewFile;
use crate::command::{Command, quote, settle, settle_around};

/// How long files may take to be written.
const WRITE_TIMEOUT: Duration = Duration::from_mins(2);

/// Returns the folder below a node's Kubernetes directory that holds what is laid aside, in the words of a script.
fn staging(directory: &str) -> String {
    format!("{}/.certroll/\"$RUN\"/staged", quote(directory))
}

/// Takes a tar archive from stdin, whose members are named after their paths below the Kubernetes directory, and prints them
/// back as they lie on the disk: what was staged is compared with what was sent. Keys that a run left half-placed when its node
/// lost power go.
pub(super) fn lay_aside(directory: &str) -> Command {
    let staging = staging(directory);
    Command::new(format!(
        "set -eu\n\
         umask 077\n\
         mkdir -p {0}/.certroll\n\
         chmod 700 {0}/.certroll\n\
         rm -rf {0}/.certroll/*/staged\n\
         rm -f {0}/ssl/*.certroll {0}/.tmp/*.certroll\n\
         mkdir -p {staging}\n\
         tar -C {staging} -xf -\n\
         {1}\n\
         tar -C {staging} -cf - .",
        quote(directory),
        settle(&staging)
    ))
    .with_timeout(WRITE_TIMEOUT)
}

/// Puts staged files into place: each new file is made complete beside the old one, with its owner, mode and ACL, and all are
/// renamed at the end, certificate and key one right after the other. Files that are there already are left alone, so that
/// it can be run again.
pub(super) fn switch(directory: &str, files: &[NewFile], retired: &[String]) -> Command {
    // What this run writes down of them lies in the folder itself.
    let settled = settle_around(files.iter().map(|file| file.path.as_str()).chain(["./written"]));
    let mut script = format!("set -eu\numask 077\ncd {}\nstaged=.certroll/$RUN/staged\n", quote(directory));
    if !files.is_empty() {
        script.push_str(
            "trap 'rm -f ssl/*.certroll .tmp/*.certroll' EXIT\n\
             trap 'exit 1' HUP INT TERM\n\
             rm -f ssl/*.certroll .tmp/*.certroll\n\
             prepare() {\n  \
             rm -f \"$1.certroll\"\n  \
             if [ -e \"$1\" ] && cmp -s \"$staged/$1\" \"$1\"; then echo \"kept $1\"; return 0; fi\n  \
             if [ -e \"$1\" ]; then\n    \
             cp -p \"$1\" \"$1.certroll\"\n    \
             cat \"$staged/$1\" >\"$1.certroll\"\n  \
             else\n    \
             cp \"$staged/$1\" \"$1.certroll\"\n    \
             chown \"$2\" \"$1.certroll\"\n    \
             chmod \"$3\" \"$1.certroll\"\n  \
             fi\n  \
             cmp \"$staged/$1\" \"$1.certroll\"\n  \
             echo \"$(cksum <\"$1.certroll\") $1\" >>\".certroll/$RUN/written\"\n\
             }\n\
             place() {\n  \
             if [ -e \"$1.certroll\" ]; then mv -f \"$1.certroll\" \"$1\"; echo \"switched $1\" || :; fi\n\
             }\n",
        );
    }
    for file in files {
        let owner = file.otherwise;
        let _ = writeln!(
            script,
            "prepare {} {}:{} {:o}",
            quote(&file.path),
            owner.user_id,
            owner.group_id,
            owner.mode
        );
    }
    if !files.is_empty() {
        // A renamed file must not be empty when the power goes. From here on it goes to its end: between two halves of a pair
        // is no place to stop.
        let _ = writeln!(script, "{settled}\ntrap '' HUP INT TERM PIPE");
    }
    for file in files {
        let _ = writeln!(script, "place {}", quote(&file.path));
    }
    // Somebody else may write here too: nothing is restarted onto another file than the one that was staged.
    for file in files {
        let _ = writeln!(script, "cmp \"$staged\"/{0} {0}", quote(&file.path));
    }
    script.push_str(&retire(retired));
    script.push_str(&settled);
    Command::new(script).with_timeout(WRITE_TIMEOUT)
}

/// Moves files away into the run's folder, so that their owner makes new ones at its next start. All are kept before the first
/// goes: half a pair is of no use to a rollback. What its owner has made anew since is left alone.
fn retire(paths: &[String]) -> String {
    let mut script = String::new();
    if paths.is_empty() {
        return script;
    }
    script.push_str("mkdir -p .certroll/\"$RUN\"/retired\n");
    let kept = |path: &str| {
        let name = path.rsplit('/').next().unwrap_or(path);
        format!(".certroll/\"$RUN\"/retired/{}", quote(name))
    };
    for path in paths {
        let _ = write!(
            script,
            "if [ -e {0} ] && [ ! -e {1} ]; then\n  \
             cp -p {0} {1}.new\n  \
             cmp {0} {1}.new\n  \
             mv {1}.new {1}\n\
             fi\n",
            quote(path),
            kept(path)
        );
    }
    let _ = writeln!(script, "{}", settle("."));
    for path in paths {
        let _ = writeln!(
            script,
            "if [ -e {0} ] && cmp -s {0} {1}; then rm -f {0}; echo retired {0}; fi",
            quote(path),
            kept(path)
        );
    }
    script
}

/// Removes what this run and earlier ones that failed have laid aside: it holds private keys, and has served its purpose.
pub(super) fn clear_staging(directory: &str) -> Command {
    Command::new(format!("rm -rf {}/.certroll/*/staged", quote(directory)))
}

/// Removes what one run has laid aside.
pub(super) fn clear_staging_of(directory: &str, run: &str) -> Command {
    let directory = quote(directory);
    Command::new(format!(
        "set -eu\nrm -rf {directory}/.certroll/{}/staged\n{}",
        quote(run),
        settle(&directory)
    ))
}
