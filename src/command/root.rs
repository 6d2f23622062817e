//! The ways to root are tried on a node one after another, by a script that runs another as soon as one works.
//!
//! Whoever knows nothing of a node yet runs what it wants so, in one round trip: the probe, and a command as root. What comes back
//! begins with a frame that tells the [`Access`]; frames are lines that begin with a marker that nothing holds by accident.

use serde::Deserialize;

use super::access::{PASS_OVER, READ_PASSWORD, SUDO_WITH_PASSWORD, docker_root, try_password};
use super::{Access, quote};

/// Which ways to root may be tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BecomeRoot {
    /// Root, then `sudo -n`, then the docker group, then `sudo` with a password.
    #[default]
    Auto,
    /// The login must be root.
    Root,
    /// `sudo` alone.
    Sudo,
    /// A container alone.
    Docker,
}

/// Ends a `csh`, which would go on with the next line after every one that it does not understand: there `$?guard` is `0`, for no such
/// variable is set. A `fish` reads nothing of a script that has a fault.
const POSIX_ALONE: &str = ":; test \"$?guard\" = 0guard || exit 97\n";

/// Whether a password for `sudo` comes on stdin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Password {
    /// None does; stdin is the body's alone.
    #[default]
    Absent,
    /// Stdin begins with it, as [`with_password`](super::with_password) puts it there.
    OnStdin,
}

/// What is run as root.
#[derive(Debug, Clone, Copy)]
pub enum Body<'a> {
    /// A script that reads nothing and changes nothing, and whose status nobody asks for: it may be begun in several images.
    Look(&'a str),
    /// A script that is begun once, reads stdin, and whose status is the answer.
    Command(&'a str),
}

/// The ways to root of one node.
#[derive(Debug, Clone, Copy)]
pub struct WaysToRoot<'a> {
    /// Which may be tried.
    pub become_root: BecomeRoot,
    /// The socket of docker; it is exported, too.
    pub docker_socket: &'a str,
    /// A word that nothing on the node holds by accident.
    pub marker: &'a str,
    /// Whether a password comes on stdin.
    pub password: Password,
}

impl WaysToRoot<'_> {
    /// Returns the script for the login's shell that runs a body in the first way that works.
    ///
    /// Before the body begins, the frame `access <kind>` tells the way; `none <reasons>` tells that there is none.
    pub fn script(&self, body: Body<'_>) -> String {
        let (Body::Look(text) | Body::Command(text)) = body;
        let (before, refused) = (self.preface(text), self.refused());
        let (root, sudo, docker) = (self.root(), self.sudo(), self.docker(body));
        let password = match self.password {
            Password::Absent => String::new(),
            Password::OnStdin => self.sudo_with_password(),
        };
        let ways = match self.become_root {
            BecomeRoot::Auto => [root, sudo, docker, password].concat(),
            BecomeRoot::Root => root,
            BecomeRoot::Sudo => [sudo, password].concat(),
            BecomeRoot::Docker => docker,
        };
        format!("{before}{ways}{refused}")
    }

    /// Returns what all ways need: the body in a variable, so that it is sent once, and the password where one comes.
    fn preface(&self, body: &str) -> String {
        let (read, pass_over) = match self.password {
            Password::Absent => ("", ":"),
            Password::OnStdin => (READ_PASSWORD, PASS_OVER.trim_end()),
        };
        format!(
            "{POSIX_ALONE}{read}body={}\nsaid='not tried' tried=\ndata() {{ {pass_over}; }}\n\
             frame() {{ printf '\\n%s %s\\n' {} \"$*\"; }}\n",
            quote(body),
            quote(self.marker)
        )
    }

    fn docker_host(&self) -> String {
        format!("DOCKER_HOST={}", quote(&format!("unix://{}", self.docker_socket)))
    }

    fn root(&self) -> String {
        format!(
            "if [ \"$(id -u)\" = 0 ]; then frame access root; data; {} exec /bin/sh -c \"$body\"; fi\n",
            self.docker_host()
        )
    }

    fn sudo(&self) -> String {
        format!(
            "if said=$(LC_ALL=C sudo -n true </dev/null 2>&1); then frame access sudo; data; \
             exec sudo -n env {} /bin/sh -c \"$body\"; fi\n",
            self.docker_host()
        )
    }

    /// Returns the way through a password; where `printf` is a program, its arguments would show it to everybody.
    fn sudo_with_password(&self) -> String {
        format!(
            "case $(command -v printf) in\n\
             /*) tried='the shell there has no printf of its own' ;;\n\
             *)\n  \
             if tried=$({} 2>&1 >/dev/null); then\n    \
             frame access sudo password\n    \
             exec {SUDO_WITH_PASSWORD} env {} /bin/sh -c {}\"$body\"\n  \
             fi ;;\n\
             esac\n",
            try_password("true"),
            self.docker_host(),
            quote(PASS_OVER)
        )
    }

    fn docker(&self, body: Body<'_>) -> String {
        let docker_host = self.docker_host();
        let run = format!("{} env {docker_host} /bin/sh -c", docker_root("\"$1\""));
        let attempt = match body {
            // docker itself ends with these where an image has no `chroot`.
            Body::Look(_) => format!(
                "frame access docker \"$1\"\n  {run} \"$body\" </dev/null\n  case $? in 125|126|127) ;; *) exit 0 ;; esac"
            ),
            Body::Command(_) => format!(
                "{run} : </dev/null >/dev/null 2>&1 || return 0\n  frame access docker \"$1\"\n  data\n  exec {run} \"$body\""
            ),
        };
        format!(
            "export {docker_host}\n\
             try() {{\n  {attempt}\n}}\n\
             for name in kubelet kube-proxy kube-apiserver service-sidekick nginx-proxy share-mnt; do\n  \
             image=$(docker inspect --format '{{{{.Image}}}}' \"$name\" 2>/dev/null) && try \"$image\"\ndone\n\
             for image in $(docker images -q --no-trunc 2>/dev/null | head -n 5); do try \"$image\"; done\n"
        )
    }

    /// Returns what tells why no way works, in a line for people and, beneath it, in sudo's own words.
    fn refused(&self) -> String {
        let with_password = match self.password {
            Password::Absent => "",
            Password::OnStdin => "; with the password: $(printf '%s\\n' \"$tried\" | tail -n 1)",
        };
        format!(
            "frame none \"uid $(id -u); sudo: $(printf '%s\\n' \"$said\" | head -n 1); \
         docker: $(docker ps -q 2>&1 >/dev/null | head -n 1){with_password}\"\nprintf '%s\\n' \"$said\" \"$tried\"\n"
        )
    }
}

/// How a search for a way to root has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Search {
    /// A way was found, and the body begun.
    Found(Access),
    /// None works.
    Refused(Refused),
    /// The script did not run: the answer holds no frame of it.
    Silent,
}

/// Why no way to root works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// What each way said, in a line.
    pub reasons: String,
    /// What `sudo` misses, where it would work with it.
    pub missing: Option<Missing>,
}

/// What `sudo` misses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// A password.
    Password,
    /// Another password than the one that was tried.
    RightPassword,
    /// A terminal (`Defaults requiretty`).
    Terminal,
}

impl Search {
    /// Reads how a search ended from what came back, of which the beginning is enough.
    pub fn read(output: &str, marker: &str) -> Self {
        let separator = format!("\n{marker} ");
        let heads = || output.split(separator.as_str()).skip(1);
        if let Some(refusal) = heads().find_map(|part| part.strip_prefix("none ")) {
            let (reasons, said) = refusal.split_once('\n').unwrap_or((refusal, ""));
            return Self::Refused(Refused { reasons: reasons.to_owned(), missing: Missing::of(said) });
        }
        // A look may have been begun in several images: the last one counts.
        let lines = heads().filter_map(|part| part.strip_prefix("access ")?.lines().next());
        lines.filter_map(Access::from_frame).last().map_or(Self::Silent, Self::Found)
    }
}

impl Missing {
    /// Reads what sudo misses from its words in the C locale (sudo 1.7 to 1.9, sudo-rs).
    fn of(said: &str) -> Option<Self> {
        let says = |words: &[&str]| words.iter().any(|words| said.contains(words));
        if says(&["incorrect password attempt", "incorrect authentication attempt"]) {
            return Some(Self::RightPassword);
        }
        if says(&["must have a tty to run sudo"]) {
            return Some(Self::Terminal);
        }
        says(&["password is required", "interactive authentication is required"]).then_some(Self::Password)
    }
}
