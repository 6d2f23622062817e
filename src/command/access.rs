//! An access is how a login becomes root on a node, and the line for its shell that runs a script so.
//!
//! A [`Search`](super::Search) finds it; `transport` runs every later command with it.

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::quote;

/// How a login becomes root on a node; found out once a node by the probe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Access {
    /// The login is root.
    Root,
    /// `sudo -n` works.
    Sudo,
    /// `sudo` works with the login's password, which comes on stdin as [`with_password`] puts it there.
    SudoWithPassword,
    /// The login may talk to docker: a container of an image that is on the node already changes its root into the host's.
    Docker {
        /// The image's id (`sha256:...`), so that nothing is ever pulled.
        image: String,
    },
}

impl Access {
    /// Returns the word that people and JSON see.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Sudo | Self::SudoWithPassword => "sudo",
            Self::Docker { .. } => "docker",
        }
    }

    /// Returns the access that a frame of a search names.
    pub(super) fn from_frame(argument: &str) -> Option<Self> {
        Some(match argument.split_once(' ').unwrap_or((argument, "")) {
            ("root", _) => Self::Root,
            ("sudo", "password") => Self::SudoWithPassword,
            ("sudo", _) => Self::Sudo,
            ("docker", image) => Self::Docker { image: image.to_owned() },
            _ => return None,
        })
    }

    /// Returns the line for the login's shell that runs a script as root.
    ///
    /// `docker_socket` is exported, so that `docker` in the script talks to the socket of the inventory.
    pub fn wrap(&self, script: &str, docker_socket: &str) -> String {
        let environment = docker_environment(docker_socket);
        match self {
            Self::Root => format!("exec {environment}/bin/sh -c {}", quote(script)),
            Self::Sudo => format!("exec sudo -n {environment}/bin/sh -c {}", quote(script)),
            Self::SudoWithPassword => format!(
                "{READ_PASSWORD}{} >/dev/null || exit 1\nexec {SUDO_WITH_PASSWORD} {environment}/bin/sh -c {}",
                try_password("true"),
                quote(&format!("{PASS_OVER}{script}"))
            ),
            Self::Docker { image } => {
                let root = docker_root(&quote(image));
                format!("exec {environment}{root} {environment}/bin/sh -c {}", quote(script))
            }
        }
    }
}

/// Reads the password into a variable of the shell that no child inherits, whatever a profile has set; nothing is traced.
pub(super) const READ_PASSWORD: &str = "{ set +ax; } 2>/dev/null\nIFS= read -r password\n";

/// A `sudo` that reads the password from its stdin, byte by byte, so that what follows is the command's.
///
/// `-k` has it asked for though it was given a moment ago: else nobody could tell whether the line is read or left to the command.
pub(super) const SUDO_WITH_PASSWORD: &str = "sudo -k -S -p ''";

/// Ends the lines that are not the data of a command.
const BEGIN: &str = "certroll-data-begins";

/// Reads up to where the data begins: a `sudo` that does not ask has left the password to the command.
pub(super) const PASS_OVER: &str =
    "while IFS= read -r password; do [ \"$password\" != certroll-data-begins ] || break; done; password=\n";

/// Returns the command that tries the password on something harmless.
///
/// A wrong one is tried once so, and never eats the data that follows. sudo itself then asks again and reads the end of its stdin: a
/// `pam_faillock` counts two failures.
pub(super) fn try_password(command: &str) -> String {
    format!("printf '%s\\n' \"$password\" | LC_ALL=C {SUDO_WITH_PASSWORD} {command}")
}

/// Returns what a script with a password reads: the password to be tried, the same for the `sudo` that runs the command, and the data.
pub fn with_password(password: &str, data: &[u8]) -> Zeroizing<Vec<u8>> {
    let parts: [&[u8]; 7] =
        [password.as_bytes(), b"\n", password.as_bytes(), b"\n", BEGIN.as_bytes(), b"\n", data];
    // All at once: a vector that grows would leave copies behind.
    let mut stdin = Zeroizing::new(Vec::with_capacity(parts.iter().map(|part| part.len()).sum()));
    for part in parts {
        stdin.extend_from_slice(part);
    }
    stdin
}

/// The socket that docker uses without being told.
pub const DEFAULT_DOCKER_SOCKET: &str = "/var/run/docker.sock";

/// Returns `env DOCKER_HOST=... ` for a socket that is not the default one, else nothing.
fn docker_environment(docker_socket: &str) -> String {
    if docker_socket == DEFAULT_DOCKER_SOCKET {
        String::new()
    } else {
        format!("env DOCKER_HOST={} ", quote(&format!("unix://{docker_socket}")))
    }
}

/// Returns the `docker run` that gives a root shell on the host, for a shell word that names an image.
///
/// The whole host lies under `/host` and becomes the root, so a script sees the same paths as root itself. No network is needed:
/// docker's socket is a file. Scripts are run with `/bin/sh`, by its path: a busybox would prefer its own applets to the host's tools.
/// `label=disable` because SELinux would forbid the mount, `--userns host` because a remapped root is none.
pub(super) fn docker_root(image_word: &str) -> String {
    format!(
        "docker run --rm -i --network none --userns host --security-opt label=disable -v /:/host \
         --entrypoint chroot {image_word} /host"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrapped_script_is_one_word() {
        assert_eq!(Access::Root.wrap("id -u; id", DEFAULT_DOCKER_SOCKET), "exec /bin/sh -c 'id -u; id'");
        assert_eq!(
            Access::Sudo.wrap("id", "/run/d.sock"),
            "exec sudo -n env DOCKER_HOST=unix:///run/d.sock /bin/sh -c id"
        );
        assert_eq!(
            Access::Root.wrap("id", "/run/d.sock"),
            "exec env DOCKER_HOST=unix:///run/d.sock /bin/sh -c id"
        );
    }

    #[test]
    fn no_line_holds_a_password_and_the_data_begins_where_both_say() {
        assert_eq!(with_password("p w", b"data").as_slice(), b"p w\np w\ncertroll-data-begins\ndata");
        assert!(PASS_OVER.contains(BEGIN));
        let line = Access::SudoWithPassword.wrap("id", DEFAULT_DOCKER_SOCKET);
        assert!(line.contains("sudo -k -S") && !line.contains("sudo -n"), "{line}");
    }
}
