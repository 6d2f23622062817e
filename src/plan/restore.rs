//! The scripts that put files of a backup back, and that write down what a run leaves.

use std::fmt::Write as _;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::backup::as_saved_acl;
use super::certificate::Ownership;
use crate::command::{Command, quote, settle, settle_around};
use crate::pki::Fingerprint;

/// How long files may take to be put back.
const RESTORE_TIMEOUT: Duration = Duration::from_mins(5);

/// What comes back on a node, and what goes. Paths are relative to its Kubernetes directory.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Restoration {
    /// The run whose backup it is.
    pub run: String,
    /// The folders that are made where they are missing.
    pub folders: Vec<Saved>,
    /// The files that come back as they were.
    pub files: Vec<Saved>,
    /// The files that the run has added: they go.
    pub removed: Vec<String>,
    /// The folders that the run has made: they go when they are empty.
    pub emptied: Vec<String>,
    /// Full paths of files that the run had moved away: they come back.
    pub retired: Vec<String>,
}

/// A file or folder of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    /// Its path.
    pub path: String,
    /// Who owned it, and its mode.
    pub owner: Ownership,
    /// The certificate that it held, where it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<Fingerprint>,
}

impl Saved {
    /// Returns owner and mode as `stat -c '%a %u %g'` prints them.
    fn attributes(&self) -> String {
        format!("'{:o} {} {}'", self.owner.mode, self.owner.user_id, self.owner.group_id)
    }
}

impl Restoration {
    /// Returns whether nothing comes back or goes.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty() && self.removed.is_empty() && self.retired.is_empty()
    }

    /// Returns how many files come back or go.
    pub fn count(&self) -> usize {
        self.files.len() + self.removed.len() + self.retired.len()
    }
}

/// Names each file that is not yet as it was, a line each; changes nothing.
pub fn not_restored(directory: &str, wanted: &Restoration) -> Command {
    let mut script = format!(
        "set -eu\n\
         cd {}\n\
         backup=.certroll/{}/backup.tar\n\
         {}\
         back() {{\n  \
         [ -f \"$1\" ] && [ \"$(stat -c '%a %u %g' \"$1\")\" = \"$2\" ] && tar -xOf \"$backup\" \"./$1\" | cmp -s - \"$1\" && as_acl \"$1\" || echo \"$1\"\n\
         }}\n\
         gone() {{ [ ! -e \"$1\" ] || echo \"$1\"; }}\n",
        quote(directory),
        quote(&wanted.run),
        as_saved_acl(&wanted.run)
    );
    for file in &wanted.files {
        let _ = writeln!(script, "back {} {}", quote(&file.path), file.attributes());
    }
    for path in &wanted.removed {
        let _ = writeln!(script, "gone {}", quote(path));
    }
    for path in &wanted.retired {
        let _ = writeln!(script, "cmp -s {0} {1} || echo {1}", retired_copy(&wanted.run, path), quote(path));
    }
    Command::new(script).with_timeout(RESTORE_TIMEOUT)
}

/// Puts files back: each is taken out of the archive with its owner, mode and ACL, compared, and renamed into place with the
/// present time, so that whoever loads it is known to be stale. All renames come at the end, certificate and key one right
/// after the other. Files that are as they were already are left alone, so that it can be run again.
pub(super) fn restore(directory: &str, wanted: &Restoration) -> Command {
    let places: Vec<&str> = wanted
        .files
        .iter()
        .map(|file| file.path.as_str())
        .chain(wanted.retired.iter().map(String::as_str))
        .collect();
    let settled = settle_around(places.iter().copied().chain(["./written"]));
    let mut script = format!(
        "set -eu\n\
         umask 077\n\
         cd {}\n\
         backup=.certroll/{}/backup.tar\n\
         out=.certroll/$RUN/restored\n\
         {}\
         mkdir -p \".certroll/$RUN\"\n\
         clean() {{ rm -rf \"$out\" ssl/*.certroll .tmp/*.certroll{}; }}\n\
         trap clean EXIT\n\
         trap 'exit 1' HUP INT TERM\n\
         clean\n\
         mkdir -p \"$out\"\n",
        quote(directory),
        quote(&wanted.run),
        as_saved_acl(&wanted.run),
        places.iter().fold(String::new(), |mut words, path| {
            let _ = write!(words, " {}", quote(&format!("{path}.certroll")));
            words
        })
    );
    script.push_str(&folders(&wanted.folders));
    script.push_str(&extract(&wanted.files));
    for path in &wanted.retired {
        let _ = writeln!(script, "bring {} {}", retired_copy(&wanted.run, path), quote(path));
    }
    // A renamed file must not be empty when the power goes. From here on it goes to its end: between two halves of a pair is no
    // place to stop.
    let _ = writeln!(script, "{settled}\ntrap '' HUP INT TERM PIPE");
    for path in places {
        let _ = writeln!(script, "place {}", quote(path));
    }
    for path in &wanted.removed {
        let _ = writeln!(script, "take {}", quote(path));
    }
    // Somebody else may write here too: nothing is restarted onto another file than the one that was saved.
    for Saved { path, .. } in &wanted.files {
        let member = quote(&format!("./{path}"));
        let _ = writeln!(script, "tar -xOf \"$backup\" {member} | cmp - {}", quote(path));
    }
    for path in &wanted.emptied {
        let _ = writeln!(script, "[ ! -d {0} ] || rmdir {0} 2>/dev/null || true", quote(path));
    }
    script.push_str(&settled);
    Command::new(script).with_timeout(RESTORE_TIMEOUT)
}

/// Makes the folders that are missing, as they were.
fn folders(folders: &[Saved]) -> String {
    let mut script = String::new();
    for Saved { path, owner, .. } in folders {
        let _ = writeln!(
            script,
            "[ -d {0} ] || {{ mkdir {0}; chown {1}:{2} {0}; chmod {3:o} {0}; }}",
            quote(path),
            owner.user_id,
            owner.group_id,
            owner.mode
        );
    }
    script
}

/// Takes files out of the archive and lays them beside their place.
fn extract(files: &[Saved]) -> String {
    let mut script = String::from(
        "same() { cmp -s \"$1\" \"$2\" && [ \"$(stat -c '%a %u %g' \"$1\")\" = \"$(stat -c '%a %u %g' \"$2\")\" ]; }\n\
         note() { echo \"$(cksum <\"$1\") $2\" >>\".certroll/$RUN/written\"; }\n\
         prepare() {\n  \
         if [ -f \"$1\" ] && same \"$out/$1\" \"$1\" && as_acl \"$1\"; then echo \"kept $1\"; return 0; fi\n  \
         mv \"$out/$1\" \"$1.certroll\"\n  \
         if ! as_acl \"$1.certroll\" \"$1\"; then\n    \
         echo \"$1: its ACL does not come back with this node's tar; one that knows --acls brings it\" >&2\n    \
         exit 1\n  \
         fi\n  \
         touch \"$1.certroll\"\n  \
         note \"$1.certroll\" \"$1\"\n\
         }\n\
         bring() {\n  \
         name=${2##*/}\n  \
         if cmp -s \"$1\" \"$2\"; then echo \"kept $2\"; return 0; fi\n  \
         cp -p \"$1\" \"$2.certroll\"\n  \
         touch \"$2.certroll\"\n  \
         cmp \"$1\" \"$2.certroll\"\n  \
         mkdir -p \".certroll/$RUN/retired\"\n  \
         if [ -e \"$2\" ] && [ ! -e \".certroll/$RUN/retired/$name\" ]; then\n    \
         cp -p \"$2\" \".certroll/$RUN/retired/$name\"\n    \
         cmp \"$2\" \".certroll/$RUN/retired/$name\"\n  \
         fi\n\
         }\n\
         place() {\n  \
         if [ -e \"$1.certroll\" ]; then mv -f \"$1.certroll\" \"$1\"; echo \"restored $1\" || :; fi\n\
         }\n\
         take() {\n  \
         if [ -e \"$1\" ]; then echo \"- - $1\" >>\".certroll/$RUN/written\"; rm -f \"$1\"; echo \"removed $1\" || :; fi\n\
         }\n",
    );
    if files.is_empty() {
        return script;
    }
    script.push_str("acls=$(tar --acls --version >/dev/null 2>&1 && echo --acls || true)\n");
    let members: Vec<String> = files.iter().map(|file| quote(&format!("./{}", file.path))).collect();
    let _ = writeln!(script, "tar $acls -C \"$out\" -xpf \"$backup\" {}", members.join(" "));
    for file in files {
        let _ = writeln!(script, "prepare {}", quote(&file.path));
    }
    script
}

/// Returns where a file lies that a run has moved away, as a word of a script.
fn retired_copy(run: &str, path: &str) -> String {
    let name = path.rsplit('/').next().unwrap_or(path);
    quote(&format!(".certroll/{run}/retired/{name}"))
}

/// Writes down what every file holds when a run has come to its end on a node, where it has a folder: from then on others can be
/// told by what they change.
pub(super) fn record(directory: &str) -> Command {
    Command::new(format!(
        "set -eu\n\
         umask 077\n\
         cd {}\n\
         [ -d \".certroll/$RUN\" ] || exit 0\n\
         find . -path ./.certroll -prune -o -type f -exec cksum {{}} + >>\".certroll/$RUN/written\"\n\
         {}",
        quote(directory),
        settle(".")
    ))
    .with_timeout(RESTORE_TIMEOUT)
}

/// Removes what was laid aside and never switched, and writes down what every file holds.
pub(super) fn record_and_clear(directory: &str) -> Command {
    let Command { script, .. } = record(directory);
    Command::new(format!("rm -rf {}/.certroll/*/staged\n{script}", quote(directory)))
        .with_timeout(RESTORE_TIMEOUT)
}
