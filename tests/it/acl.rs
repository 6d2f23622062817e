//! ACLs of files: a backup tells them, and what differs in its ACL alone is not as it was. The scripts run here, with a `getfacl` that
//! says what the case wants.
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test that cannot go on panics; it starts processes and writes files itself"
)]

use std::path::Path;
use std::process::{Command, Output};

use certroll::facts::Observation;
use certroll::facts::backup::BackupLook;
use certroll::facts::probe::read;
use certroll::plan::{Action, Gate, Health, Ownership, Restoration, Saved, not_restored};
use jiff::Timestamp;

const RUN: &str = "20261122-010203-abcd";

/// Whether the node has the program.
enum Getfacl {
    There,
    Missing,
}

/// A node's directory in a folder, and beside it a `getfacl` that prints what a file `acl` holds, of whatever file.
struct Site {
    folder: tempfile::TempDir,
    getfacl: Getfacl,
    seen: Observation,
}

impl Site {
    fn new(getfacl: Getfacl) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let directory = folder.path().join("kubernetes");
        std::fs::create_dir_all(directory.join("ssl")).unwrap();
        std::fs::write(directory.join("ssl/a.pem"), "as it was").unwrap();
        let text = format!(
            "Hello!\n\nM access root\n\nM clock 1000\n\nM directory {}\n\nM end\n",
            directory.display()
        );
        let seen = read(&text, "M", Timestamp::from_second(1000).unwrap()).unwrap();
        let site = Self { folder, getfacl, seen };
        site.tell("");
        site
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    /// Has every file have an ACL from now on.
    fn tell(&self, acl: &str) {
        std::fs::write(self.path("acl"), acl).unwrap();
    }

    fn run(&self, command: &certroll::command::Command) -> Output {
        let getfacl = match self.getfacl {
            Getfacl::There => format!("[ \"$1\" = --version ] || cat '{}'", self.path("acl").display()),
            Getfacl::Missing => "return 127".to_owned(),
        };
        let script = format!("getfacl() {{ {getfacl}; }}\nRUN={RUN}\n{}", command.script);
        Command::new("/bin/sh")
            .args(["-c", &script])
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .output()
            .unwrap()
    }

    fn says(&self, command: &certroll::command::Command) -> String {
        let output = self.run(command);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn back_up(&self) {
        self.says(Action::Backup.commands(&self.seen).first().unwrap());
    }

    /// Returns whether the look at the backup compares ACLs, and finds the file as it was saved.
    fn look(&self) -> (bool, bool) {
        let directory = self.seen.kubernetes_directory.as_str();
        let look = BackupLook { directory, run: Some(RUN), marker: "M" };
        let found = look.read(&self.says(&look.command())).unwrap();
        (found.compares_acls, found.is_as_saved("ssl/a.pem"))
    }

    fn wanted(&self) -> Restoration {
        use std::os::unix::fs::MetadataExt as _;
        let file = std::fs::metadata(Path::new(&self.seen.kubernetes_directory).join("ssl/a.pem")).unwrap();
        let owner = Ownership { user_id: file.uid(), group_id: file.gid(), mode: file.mode() & 0o7777 };
        let saved = Saved { path: "ssl/a.pem".to_owned(), owner, certificate: None };
        Restoration { run: RUN.to_owned(), files: vec![saved], ..Restoration::default() }
    }

    fn missing(&self) -> String {
        self.says(&not_restored(&self.seen.kubernetes_directory, &self.wanted()))
    }
}

#[test]
fn a_file_that_differs_in_its_acl_alone_is_not_as_it_was() {
    let site = Site::new(Getfacl::There);
    site.tell("user::rw-\nuser:1000:r--\ngroup::r--\nmask::r--\nother::---\n\n");
    site.back_up();
    assert_eq!((site.look(), site.missing().as_str()), ((true, true), ""));
    site.tell("");
    assert_eq!((site.look(), site.missing().as_str()), ((true, false), "ssl/a.pem\n"));
    let restore = Action::Restore {
        wanted: site.wanted(),
        containers: Vec::new(),
        gate: Gate::Open,
        health: Health::Awaited,
        timeout: std::time::Duration::from_secs(1),
    };
    let output = site.run(restore.commands(&site.seen).first().unwrap());
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && said.contains("ssl/a.pem: its ACL does not come back"), "{said}");
    site.tell("user::rw-\nuser:1000:r--\ngroup::r--\nmask::r--\nother::---\n\n");
    site.says(restore.commands(&site.seen).first().unwrap());
    assert_eq!((site.look(), site.missing().as_str()), ((true, true), ""));
}

#[test]
fn without_getfacl_nothing_is_compared_and_that_is_told() {
    let site = Site::new(Getfacl::Missing);
    site.back_up();
    assert_eq!((site.look(), site.missing().as_str()), ((false, true), ""));
}
