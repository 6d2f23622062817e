//! The script that saves a node's files before the first change, with an index of owners, modes and ACLs.

use std::time::Duration;

use crate::command::{Command, quote, settle};

/// How long a backup may take.
const BACKUP_TIMEOUT: Duration = Duration::from_mins(5);

/// Saves the directory and compares file by file: an archive that cannot be read back is no backup. Beside it an index tells owner
/// and mode of each file in a form that does not depend on the node's tar, and another one its ACL where the node can tell it.
///
/// What an earlier try has left half-made goes first, and none of the keys that are unpacked to be compared stays behind. The
/// archive gets its name when it has reached the disk; one that is there already is kept if it still is what was saved.
pub(super) fn backup(directory: &str) -> Command {
    let directory = quote(directory);
    Command::new(format!(
        "set -eu\n\
         umask 077\n\
         cd {directory}\n\
         mkdir -p .certroll\n\
         chmod 700 .certroll\n\
         mkdir -p \".certroll/$RUN\"\n\
         cd \".certroll/$RUN\"\n\
         trap 'rm -rf verify backup.tar.new' EXIT\n\
         trap 'exit 1' HUP INT TERM\n\
         rm -rf verify backup.tar.new\n\
         if [ ! -e backup.tar ]; then\n  \
         acls=$(tar --acls --version >/dev/null 2>&1 && echo --acls || true)\n  \
         tar $acls -C {directory} --exclude=./.certroll -cf backup.tar.new .\n  \
         mkdir verify\n  \
         tar -C verify -xpf backup.tar.new\n  \
         (cd verify && find . -type f) | while IFS= read -r file; do cmp \"verify/$file\" {directory}/\"$file\"; done\n  \
         (cd verify && find . -type d -exec stat -c 'd %a %u %g %n' {{}} +) >backup.index\n  \
         (cd verify && find . -type f -exec stat -c 'f %a %u %g %n' {{}} +) >>backup.index\n  \
         {}\
         cksum <backup.tar.new >backup.sum\n  \
         {settle}\n  \
         mv backup.tar.new backup.tar\n\
         elif [ -e backup.sum ] && [ \"$(cksum <backup.tar)\" != \"$(cat backup.sum)\" ]; then\n  \
         echo \"{directory}/.certroll/$RUN/backup.tar is not what was saved: nothing can be put back from it\" >&2\n  \
         exit 1\n\
         fi\n\
         {settle}",
        save_acls(&directory),
        settle = settle(".")
    ))
    .with_timeout(BACKUP_TIMEOUT)
}

/// Returns the lines of a backup that write each file's ACL beside the archive, where the node has `getfacl`: nothing but the path
/// follows an empty one, which is that of most.
fn save_acls(directory: &str) -> String {
    format!(
        "rm -f backup.acls\n  \
         if getfacl --version >/dev/null 2>&1; then\n    \
         (cd {directory} && find . -path ./.certroll -prune -o -type f -print | while IFS= read -r file; do echo \"$(getfacl -cnps \"$file\" | tr '\\n' ,) $file\"; done) >backup.acls\n  \
         fi\n  "
    )
}

/// Returns the function of a script that tells whether a file has the ACL that a run has saved, of itself or of the file that is
/// named behind it; where nobody can tell, it has.
pub(super) fn as_saved_acl(run: &str) -> String {
    format!(
        "saved_acls=.certroll/{}/backup.acls\n\
         as_acl() {{ [ ! -f \"$saved_acls\" ] || ! getfacl --version >/dev/null 2>&1 || grep -qxF -e \"$(getfacl -cnps \"$1\" | tr '\\n' ,) ./${{2:-$1}}\" \"$saved_acls\"; }}\n",
        quote(run)
    )
}
