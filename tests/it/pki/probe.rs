//! What the probe tells of PKI files that are not RKE's own and of a docker that hangs, run by this machine's own `/bin/sh` in a folder of its own.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use certroll::command::BecomeRoot;
use certroll::facts::probe::{KeyReading, Probe, read};
use certroll::facts::{Content, Observation};
use certroll::inventory::Inventory;
use certroll::pki::{Certificate, CertificateError, KeyAlgorithm, KeyKind, Location, PublicPrefix, new_key};

use super::authority::{Pair, authority};

const MARKER: &str = "certroll-test";

/// Looks at a folder as if it were a node's root; returns what was seen, and all that left the node.
fn look(files: &[(&str, &[u8])], keys: KeyReading) -> (Observation, Vec<u8>) {
    look_beside(files, keys, &[("docker", "exit 1")])
}

/// Looks at a folder, beside programs that are shell scripts; what docker does not answer is waited for one second.
fn look_beside(
    files: &[(&str, &[u8])],
    keys: KeyReading,
    programs: &[(&str, &str)],
) -> (Observation, Vec<u8>) {
    look_in(&["/bin/sh"], files, keys, programs)
}

/// Looks so in one of the shells that nodes have.
fn look_in(
    shell: &[&str],
    files: &[(&str, &[u8])],
    keys: KeyReading,
    programs: &[(&str, &str)],
) -> (Observation, Vec<u8>) {
    let folder = tempfile::tempdir().unwrap();
    let ssl = folder.path().join("etc/kubernetes/ssl");
    fs::create_dir_all(&ssl).unwrap();
    for (name, content) in files {
        fs::write(ssl.join(name), content).unwrap();
    }
    // The script runs as whoever tests.
    program(folder.path(), "id", "#!/bin/sh\necho 0\n");
    for (name, text) in programs {
        program(folder.path(), name, &format!("#!/bin/sh\n{text}\n"));
    }
    let text = "nodes:\n- {address: 10.0.0.1, user: u, role: [controlplane, etcd]}\n";
    let inventory = Inventory::parse(text, "cluster.yml").unwrap().inventory;
    let prefix = folder.path().to_str().unwrap();
    let node = &inventory.nodes[0];
    let probe = Probe { node, prefix_path: prefix, keys, become_root: BecomeRoot::Root, marker: MARKER };
    let script = probe.script().replace(" T=12\n", " T=1\n");
    let path = format!("{prefix}:/usr/bin:/bin");
    // The script has `/bin/sh` run what looks, as on a node: here it is the shell in question.
    let script = script.replace("/bin/sh", &shell.join(" "));
    let output = Command::new(shell[0])
        .args(&shell[1..])
        .args(["-c", &script])
        .env("PATH", path)
        .output()
        .unwrap()
        .stdout;
    let observation = read(&String::from_utf8_lossy(&output), MARKER, jiff::Timestamp::UNIX_EPOCH).unwrap();
    (observation, output)
}

fn program(folder: &Path, name: &str, text: &str) {
    let path = folder.join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

fn armoured(label: &str, head: &str, body: &str) -> String {
    format!("-----BEGIN {label}-----\n{head}{body}\n-----END {label}-----\n")
}

/// Returns the base64 text of a key.
fn body_of(pem: &str) -> String {
    pem.lines().filter(|line| !line.starts_with("-----")).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_key_that_a_passphrase_protects_is_told() {
    let rsa = new_key(KeyAlgorithm::Rsa2048).unwrap();
    let body = body_of(&rsa);
    let head = "Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00112233445566778899AABBCCDDEEFF\n\n";
    let der = STANDARD.decode(body.replace('\n', "")).unwrap();
    let cases = [
        ("plain-key.pem", rsa.to_string(), None),
        ("old-key.pem", armoured("RSA PRIVATE KEY", head, &body), Some(KeyKind::Encrypted)),
        ("ec-key.pem", armoured("EC PRIVATE KEY", head, &body), Some(KeyKind::Encrypted)),
        ("new-key.pem", armoured("ENCRYPTED PRIVATE KEY", "", &body), Some(KeyKind::Encrypted)),
        ("pkcs8-key.pem", armoured("PRIVATE KEY", "", &body), Some(KeyKind::Pkcs8)),
        ("sec1-key.pem", armoured("EC PRIVATE KEY", "", &body), Some(KeyKind::Sec1)),
        (
            "line-key.pem",
            format!("-----BEGIN RSA PRIVATE KEY-----{body}").replace('\n', ""),
            Some(KeyKind::NotAKey),
        ),
        ("bare-key.pem", body.clone(), Some(KeyKind::NotAKey)),
        ("empty-key.pem", String::new(), Some(KeyKind::NotAKey)),
    ];
    let mut files: Vec<(&str, &[u8])> =
        cases.iter().map(|(name, content, _)| (*name, content.as_bytes())).collect();
    files.push(("der-key.pem", &der));
    let (seen, output) = look(&files, KeyReading::PublicPrefix);
    for (name, _, kind) in &cases {
        let Content::Key(prefix) = &seen.file(Location::Ssl, name).unwrap().content else { panic!("{name}") };
        match kind {
            None => assert!(matches!(prefix, PublicPrefix::Rsa { .. }), "{name}"),
            Some(kind) => assert_eq!(prefix, &PublicPrefix::Unknown { kind: *kind }, "{name}"),
        }
    }
    // What lies behind the exponent is private, in whichever form it comes.
    let private = &body.replace('\n', "")[364..];
    let said = String::from_utf8_lossy(&output);
    for part in [&private[..40], &private[400..440], "0011223344"] {
        assert!(!said.replace('\n', "").contains(part), "{said}");
    }
    for part in [&der[20..40], &der[500..520]] {
        assert!(!output.windows(part.len()).any(|window| window == part), "{said}");
    }
}

#[test]
fn a_whole_key_that_is_encrypted_is_told_too() {
    let key = armoured("ENCRYPTED PRIVATE KEY", "", "MAA=");
    let (seen, _) = look(&[("kube-ca-key.pem", key.as_bytes())], KeyReading::Whole);
    let content = &seen.file(Location::Ssl, "kube-ca-key.pem").unwrap().content;
    assert_eq!(content, &Content::Key(PublicPrefix::Unknown { kind: KeyKind::Encrypted }));
}

#[test]
fn a_key_beside_a_certificate_stays_on_the_node_even_where_that_is_cut_off() {
    let Pair { certificate, .. } = authority(&rcgen::PKCS_ECDSA_P256_SHA256);
    let key = new_key(KeyAlgorithm::EcdsaP256).unwrap();
    let cut = &certificate[..certificate.len() / 2];
    let (whole, cut) = (format!("{certificate}{}", *key), format!("{cut}\n{}", *key));
    let files = [("whole.pem", whole.as_bytes()), ("cut.pem", cut.as_bytes())];
    let (seen, output) = look(&files, KeyReading::PublicPrefix);
    let content = |name| &seen.file(Location::Ssl, name).unwrap().content;
    assert!(matches!(content("whole.pem"), Content::Certificate(Ok(_))));
    assert!(matches!(content("cut.pem"), Content::Certificate(Err(CertificateError::Damaged))));
    let said = String::from_utf8_lossy(&output);
    let first_line = body_of(&key).lines().next().map(str::to_owned).unwrap();
    assert!(!said.contains(&first_line), "{said}");
}

#[test]
fn what_is_no_pem_certificate_is_told_apart_from_an_empty_file() {
    let Pair { certificate, .. } = authority(&rcgen::PKCS_ECDSA_P256_SHA256);
    let der = Certificate::from_pem(certificate.as_bytes()).unwrap().der;
    let other = authority(&rcgen::PKCS_ECDSA_P256_SHA256).certificate;
    let chain = format!("a comment\n{certificate}{other}");
    let cut = &certificate[..certificate.len() / 2];
    let cases: [(&str, &[u8], usize, Option<CertificateError>); 5] = [
        ("chain.pem", chain.as_bytes(), 2, None),
        ("cut.pem", cut.as_bytes(), 1, Some(CertificateError::Damaged)),
        ("der.pem", &der, 0, Some(CertificateError::NotPem)),
        ("empty.pem", b"", 0, Some(CertificateError::Empty)),
        ("one.pem", certificate.as_bytes(), 1, None),
    ];
    let files: Vec<(&str, &[u8])> = cases.iter().map(|(name, content, _, _)| (*name, *content)).collect();
    let (seen, _) = look(&files, KeyReading::PublicPrefix);
    for (name, _, count, error) in cases {
        let file = seen.file(Location::Ssl, name).unwrap();
        assert_eq!(file.certificates, count, "{name}");
        let Content::Certificate(read) = &file.content else { panic!("{name}") };
        assert_eq!(read.as_ref().err(), error.as_ref(), "{name}");
    }
}

#[test]
fn a_docker_that_hangs_is_told_from_a_node_that_does() {
    let answers = |hanging: &str| {
        format!(
            "case $1 in\n\
             {hanging}) exec sleep 60 ;;\n\
             ps) echo '0123 etcd' ;;\n\
             inspect) case $* in *.State*) printf '\"/etcd\"\\t\"image\"\\t{{}}\\t0\\n' ;; esac ;;\n\
             exec) echo 'https://10.0.0.1:2379 is healthy: successfully committed proposal: took = 1ms' ;;\n\
             esac"
        )
    };
    let Pair { certificate, .. } = authority(&rcgen::PKCS_ECDSA_P256_SHA256);
    let files = [("kube-ca.pem", certificate.as_bytes())];
    let coreutils = "exec /usr/bin/timeout \"$@\"";
    let busybox = "/usr/bin/timeout \"$@\"; status=$?; [ $status != 124 ] || exit 143; exit $status";
    for (hanging, timeout, error, health) in [
        ("none", coreutils, None, Some(true)),
        ("ps", coreutils, Some("docker does not answer within 1 s"), None),
        ("ps", busybox, Some("docker does not answer within 1 s"), None),
        ("inspect", coreutils, Some("docker inspect does not answer within 1 s"), Some(true)),
        ("inspect", busybox, Some("docker inspect does not answer within 1 s"), Some(true)),
        ("exec", coreutils, None, Some(false)),
    ] {
        let programs = [("docker", answers(hanging)), ("timeout", timeout.to_owned())];
        let programs = programs.each_ref().map(|(name, text)| (*name, text.as_str()));
        let seen = look_beside(&files, KeyReading::PublicPrefix, &programs).0;
        assert_eq!(seen.docker_error.as_deref(), error, "{hanging}");
        assert_eq!(seen.health.first().and_then(|health| health.healthy), health, "{hanging}");
        // What docker does not need to tell is known all the same.
        assert!(seen.file(Location::Ssl, "kube-ca.pem").is_some(), "{hanging}");
    }
}

/// The answer of a docker that inspects four containers, of which one is gone and a stranger may have started the first.
const INSPECTED: &str = r#"case $1 in
ps) printf '01 k8s_agent_cattle-node-agent-x_cattle-system_y_0\n02 kubelet\n03 pause\n04 kube-apiserver\n05 etcd-restore\n' ;;
inspect)
  shift 3
  [ "$*" = '01 02 04 05' ] || exit 125
  cat <<'E'
"/k8s_agent_cattle-node-agent-x_cattle-system_y_0"	"a"	{"Status":"running","StartedAt":"2026-11-21T19:15:00Z"}	0
variable /k8s_agent_cattle-node-agent-x_cattle-system_y_0 "CATTLE_SERVER=https://rancher.example\nmount /kubelet /evil"
proxy /k8s_agent_cattle-node-agent-x_cattle-system_y_0
"/kubelet"	"k"	{"Status":"running","StartedAt":"2026-11-21T19:15:00Z"}	0
mount /kubelet /opt/its own/etc/kubernetes
proxy /kubelet
"/kube-apiserver"	"k"	{"Status":"running","StartedAt":"2026-11-21T19:15:00Z"}	0
mount /kube-apiserver /opt/rke/etc/kubernetes
argument /kube-apiserver "--service-account-key-file=/etc/kubernetes/ssl/kube-apiserver-key.pem"
E
  exit 1
  ;;
esac"#;

#[test]
fn one_inspection_tells_the_directory_the_key_file_and_the_agent() {
    let seen = look_beside(&[], KeyReading::PublicPrefix, &[("docker", INSPECTED)]).0;
    assert_eq!(seen.kubernetes_directory, "/opt/its own/etc/kubernetes", "kubelet's comes first");
    let names: Vec<_> = seen.containers.iter().map(|container| container.name.as_str()).collect();
    assert_eq!(names, ["k8s_agent_cattle-node-agent-x_cattle-system_y_0", "kubelet", "kube-apiserver"]);
    let key_file = seen.service_account_key_file.as_deref();
    assert_eq!(key_file, Some("/etc/kubernetes/ssl/kube-apiserver-key.pem"));
    let agent = seen.agent.unwrap();
    assert_eq!(agent.server.as_deref(), Some("https://rancher.example\nmount /kubelet /evil"));
    assert!(agent.uses_proxy);
    assert_eq!(seen.docker_error, None, "one was removed meanwhile, which is no error");
}

#[test]
fn every_shell_sees_the_same() {
    let rsa = new_key(KeyAlgorithm::Rsa2048).unwrap();
    let Pair { certificate, .. } = authority(&rcgen::PKCS_ECDSA_P256_SHA256);
    let other = authority(&rcgen::PKCS_ECDSA_P256_SHA256).certificate;
    let chain = format!("*\n{}\n\n{certificate}{}", rsa.as_str(), other.trim_end());
    let der = Certificate::from_pem(certificate.as_bytes()).unwrap().der;
    let files: [(&str, &[u8]); 6] = [
        ("a b.pem", certificate.trim_end().as_bytes()),
        ("a b-key.pem", rsa.trim_end().as_bytes()),
        ("chain.pem", chain.as_bytes()),
        ("der.pem", &der),
        ("empty-key.pem", b""),
        ("left.pem.certroll", certificate.as_bytes()),
    ];
    let private = &body_of(&rsa).replace('\n', "")[364..404];
    for shell in [&["dash"][..], &["bash"], &["bash", "--posix"], &["busybox", "sh"]] {
        if !["/bin", "/usr/bin"].iter().any(|folder| Path::new(folder).join(shell[0]).is_file()) {
            println!("SKIPPED: {} is not installed", shell[0]);
            continue;
        }
        let (seen, output) = look_in(shell, &files, KeyReading::PublicPrefix, &[("docker", "exit 1")]);
        let said = seen.files.iter().map(|file| match &file.content {
            Content::Certificate(read) => (file.file_name.as_str(), read.is_ok(), file.certificates),
            Content::Key(prefix) => (file.file_name.as_str(), matches!(prefix, PublicPrefix::Rsa { .. }), 0),
            Content::Other => (file.file_name.as_str(), false, 0),
        });
        let mut said: Vec<_> = said.collect();
        said.sort_unstable();
        let expected = [
            ("a b-key.pem", true, 0),
            ("a b.pem", true, 1),
            ("chain.pem", true, 2),
            ("der.pem", false, 0),
            ("empty-key.pem", false, 0),
        ];
        assert_eq!(said, expected, "{shell:?}");
        assert!(seen.free_kibibytes.is_some() && seen.used_kibibytes.is_some(), "{shell:?}");
        assert!(!String::from_utf8_lossy(&output).replace('\n', "").contains(private), "{shell:?}");
    }
}
