//! A target is one parser with what is done with its value afterwards, and the laws that hold whatever it is given.
//!
//! The driver and the test of known inputs (`tests/it/fuzz.rs`) both use it. A law that is broken is a panic. The signature that
//! a target returns says roughly what happened: the driver keeps inputs that made something new happen.
#![expect(clippy::disallowed_methods, reason = "seeds are files of the repository")]
#![allow(clippy::panic, clippy::unwrap_used, reason = "a broken law and a broken seed end the driver")]

#[path = "targets/cluster.rs"]
mod cluster;
#[path = "targets/reach.rs"]
mod reach;
#[path = "targets/secrets.rs"]
mod secrets;

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher as _};
use std::path::{Path, PathBuf};

/// One parser and its surroundings.
pub(crate) struct Target {
    /// The word that names it on the command line and in `tests/cases/fuzz/`.
    pub(crate) name: &'static str,
    /// Words that its inputs are made of.
    pub(crate) dictionary: &'static [&'static str],
    /// Inputs that are good, or were bad once.
    pub(crate) seeds: fn() -> Vec<Vec<u8>>,
    /// Feeds one input, and returns the signature of what happened.
    pub(crate) run: fn(&[u8]) -> u64,
}

/// All targets.
pub(crate) const ALL: &[Target] = &[
    Target {
        name: "inventory",
        dictionary: &[
            "nodes:",
            "- address: ",
            "role: [",
            "controlplane",
            "etcd",
            "worker",
            "services:",
            "\n  ",
            "&a ",
            "*a",
            "<<: *a",
            "!!binary ",
            "---\n",
            "\u{feff}",
            "? ",
            "|2+\n",
            ">-\n",
            "bastion_host:",
            "extra_args:",
            "2001:db8::1",
            "%",
            "~",
        ],
        seeds: || files("tests/cases/inventory", &["yml"]),
        run: cluster::inventory,
    },
    Target {
        name: "probe",
        dictionary: &[
            "\ncertroll-fuzz ",
            "files\n",
            "content ",
            "/etc/kubernetes/ssl/",
            "/.tmp/",
            "clock ",
            "containers\n",
            "etcd 0\n",
            "lock\n",
            "end\n",
            "directory ",
            "access docker ",
            "space\n",
            "used\n",
            "9223372036854775807",
            "-----BEGIN CERTIFICATE-----\n",
            "\t",
            "kube-ca.pem",
            "-key.pem",
            "\u{1b}]0;x\u{7}",
            "agent-log\n",
            "none ",
            "staged ",
            "9999-12-31T23:59:59Z",
        ],
        seeds: cluster::probe_seeds,
        run: cluster::probe,
    },
    Target {
        name: "containers",
        dictionary: &[
            "\t",
            "\"Status\"",
            "\"StartedAt\"",
            "\"running\"",
            "0001-01-01T00:00:00Z",
            "9999-12-30T22:00:00.999999999Z",
            "\"/etcd\"",
            "argument /kube-apiserver \"--service-account-key-file=",
            "-009999-01-02T01:59:59Z",
            "{\"Status\":\"dead\",\"StartedAt\":\"",
            "18446744073709551615",
            "\\u001b[2J",
            "[[[[[[[[",
        ],
        seeds: cluster::container_seeds,
        run: cluster::containers,
    },
    Target {
        name: "certificate",
        dictionary: &[
            "-----BEGIN CERTIFICATE-----\n",
            "-----END CERTIFICATE-----\n",
            "-----BEGIN X509 CRL-----\n",
            "\r\n",
            "Proc-Type: 4,ENCRYPTED\n",
            "MII",
            "\u{0}",
            "\u{1b}[31m",
            "990101000000Z",
            "99991231235959Z",
        ],
        seeds: || with_der([files("tests/cases/report", &["pem"]), files("fuzz/seeds", &["pem"])].concat()),
        run: secrets::certificate,
    },
    Target {
        name: "key",
        dictionary: &[
            "-----BEGIN RSA PRIVATE KEY-----\n",
            "-----END RSA PRIVATE KEY-----\n",
            "-----BEGIN PRIVATE KEY-----\n",
            "-----BEGIN EC PRIVATE KEY-----\n",
            "-----BEGIN EC PARAMETERS-----\n",
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\n",
            "Proc-Type: 4,ENCRYPTED\n",
            "MIIEpAIBAAKCAQEA",
            "\r\n",
            "AgEA",
        ],
        seeds: || files("fuzz/seeds", &["-key.pem"]),
        run: secrets::key,
    },
    Target {
        name: "journal",
        dictionary: &[
            "\n",
            "{\"version\":1,",
            "\"kind\":\"",
            "\"step_finished\"",
            "\"sequence\":18446744073709551615",
            "\"elapsed_ms\":18446744073709551615",
            "\"at\":\"-009999-01-02T01:59:59Z\"",
            "\"at\":\"9999-12-30T22:00:00Z\"",
            "\"outcome\"",
            "\"exit_status\":",
            "null",
            "\\u001b[2J",
        ],
        seeds: || files("fuzz/seeds", &["jsonl"]),
        run: cluster::journal,
    },
    Target {
        name: "plan",
        dictionary: &[
            "\"version\": 1",
            "\"stages\": []",
            "\"steps\": []",
            "\"secs\": 18446744073709551615",
            "\"nanos\": 4294967295",
            "null",
            "\"kind\": \"",
            "\"timeout\"",
            "\"9999-12-30T22:00:00Z\"",
            "\"max_unavailable\": 0",
            "18446744073709551615",
            "\\u001b[2J",
            "../../..",
        ],
        seeds: cluster::plan_seeds,
        run: cluster::saved_plan,
    },
    Target {
        name: "known_hosts",
        dictionary: &[
            "@revoked ",
            "@cert-authority ",
            "|1|",
            "ssh-ed25519 ",
            "ssh-rsa ",
            "ecdsa-sha2-nistp256 ",
            "*",
            "?",
            "!",
            "[node-1]:2222",
            ",",
            "#",
            "AAAAC3NzaC1lZDI1NTE5AAAA",
            "AAAAB3NzaC1yc2EAAAA",
            "************************a",
        ],
        seeds: || files("fuzz/seeds", &["known_hosts"]),
        run: secrets::known_hosts,
    },
    Target {
        name: "ssh_config",
        dictionary: &[
            "Host ",
            "Match ",
            "Match final\n",
            "host=",
            "!",
            "*",
            ",",
            "HostName %h.",
            "Port=",
            "IdentityFile ~/",
            "%d/%r@%h",
            "${HOME}",
            "CertificateFile ",
            "ProxyJump ",
            "ssh://",
            "none",
            "ProxyCommand ",
            "UserKnownHostsFile ",
            "StrictHostKeyChecking no",
            "IdentityAgent $",
            "ConnectTimeout 1w",
            "ServerAliveCountMax ",
            "Include ",
            "Tag x\nMatch tagged x\n",
            "\"",
            "\\",
            "#",
            "\r\n",
            "\u{c}",
        ],
        // Lines without effect in such a number took time by the square once.
        seeds: || [files("fuzz/seeds", &["ssh_config"]), vec![b"a x\n".repeat(40_000)]].concat(),
        run: reach::ssh_config,
    },
    Target {
        name: "rancher",
        dictionary: &[
            "{\"type\":\"error\",\"status\":\"404\",\"message\":\"",
            "}{",
            "\"data\":[",
            "\"pagination\":{\"next\":\"",
            "\"actions\":{",
            "null",
            "\"transitioning\":\"error\"",
            "\"transitioningMessage\":\"",
            "\"agentCheckInterval\":18446744073709551615",
            "\\u001b[2J",
            "\\ud800",
        ],
        seeds: || {
            [bodies(files("tests/cases/rancher", &["http"])), files("tests/cases/rancher", &["json"])]
                .concat()
        },
        run: cluster::rancher,
    },
    Target {
        name: "rkestate",
        dictionary: &[
            "\"desiredState\":",
            "\"currentState\":",
            "\"certificatesBundle\":{",
            "\"kube-ca\":{",
            "\"certificatePEM\":\"",
            "\"keyPEM\":\"",
            "\"config\":\"",
            "\\n",
            "\\u0000",
            "\\\"",
            "{\"kube-admin\":",
            "1e999",
            "[[[[",
            "\"\"",
        ],
        seeds: || files("tests/cases/golden", &["rkestate", "state.json"]),
        run: secrets::full_state,
    },
    Target {
        name: "kubeconfig",
        dictionary: &[
            "client-certificate-data: ",
            "client-key-data: ",
            "certificate-authority-data: ",
            "users:\n- name: ",
            "current-context: ",
            "\"",
            "'",
            "|\n  ",
            ">\n  ",
            "&a ",
            "*a",
            "\\x41",
            "!!str ",
            "# ",
            "\t",
        ],
        seeds: || named(files_of("tests/cases/golden", &["yml"]), "kube_config"),
        run: secrets::kube_config,
    },
    Target {
        name: "escape",
        dictionary: &[
            "\u{1b}[2J",
            "\u{9b}",
            "\u{202e}",
            "\u{2028}",
            "\r",
            "\u{8}",
            "\u{7f}",
            "\u{ad}",
            "\u{e0001}",
            "\u{fff9}",
            "\u{61c}",
            "\u{180e}",
        ],
        seeds: || vec![b"node-1 is ready".to_vec(), "\u{1b}]0;title\u{7}".as_bytes().to_vec()],
        run: cluster::escape,
    },
];

/// Returns the inputs that were found once, for a target.
pub(crate) fn known(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = root().join("tests/cases/fuzz").join(target);
    if folder.is_dir() { read_all(&folder) } else { Vec::new() }
}

fn root() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.ancestors().find(|folder| folder.join("tests/cases").is_dir()).unwrap().to_owned()
}

/// Returns every file beneath a folder, in the order of their names.
fn read_all(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let read = |path: PathBuf| {
        if path.is_dir() { read_all(&path) } else { vec![(path.clone(), fs::read(&path).unwrap())] }
    };
    paths.into_iter().flat_map(read).collect()
}

fn files_of(folder: &str, endings: &[&str]) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = read_all(&root().join(folder));
    files.retain(|(path, _)| endings.iter().any(|ending| path.to_string_lossy().ends_with(ending)));
    assert!(!files.is_empty(), "no seed in {folder}");
    files
}

fn files(folder: &str, endings: &[&str]) -> Vec<Vec<u8>> {
    files_of(folder, endings).into_iter().map(|(_, content)| content).collect()
}

fn named(files: Vec<(PathBuf, Vec<u8>)>, part: &str) -> Vec<Vec<u8>> {
    files
        .into_iter()
        .filter(|(path, _)| path.to_string_lossy().contains(part))
        .map(|(_, content)| content)
        .collect()
}

/// Adds the DER of certificates in PEM.
fn with_der(pems: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let ders: Vec<Vec<u8>> = pems
        .iter()
        .filter_map(|pem| certroll::pki::Certificate::from_pem(pem).ok())
        .map(|certificate| certificate.der)
        .collect();
    [pems, ders].concat()
}

/// Takes the heads off answers of a server.
fn bodies(answers: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let body = |answer: Vec<u8>| {
        let text = String::from_utf8_lossy(&answer).replace("\r\n", "\n");
        text.split_once("\n\n").map_or(text.clone(), |(_, body)| body.to_owned()).into_bytes()
    };
    answers.into_iter().map(body).collect()
}

/// Returns a signature of something that can be told in words: numbers in it do not matter.
fn signature(words: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    let letters: String = words.chars().filter(|letter| !letter.is_ascii_digit()).take(200).collect();
    letters.hash(&mut hasher);
    hasher.finish()
}
