//! Pairs that a node lost its power over: the new certificate lies beside the old key.

use certroll::pki::{KeyAlgorithm, Signer, SubjectKey, leaf, new_key};
use certroll::sim::{Fault, Layout};

use super::direct::{BRISK, SMALL, TRIO, certificates, staging_is_gone};
use super::{KUBERNETES, Rehearsal, name, rehearse};

const CERTIFICATE: &str = "/etc/kubernetes/ssl/kube-proxy.pem";
const KEY: &str = "/etc/kubernetes/ssl/kube-proxy-key.pem";

/// Writes a text over a file of a node, which keeps its owner and mode.
async fn write(lab: &Rehearsal, node: &str, path: &str, text: &str) {
    lab.root(node, &format!("cat >{path} <<'END'\n{}\nEND", text.trim_end())).await;
}

/// Gives every node a kube-proxy pair with an elliptic-curve key, and returns the key.
async fn use_elliptic_curves(lab: &Rehearsal) -> String {
    let authority = lab.file("cp-1", "/etc/kubernetes/ssl/kube-ca.pem").unwrap();
    let signing =
        String::from_utf8(lab.file("cp-1", "/etc/kubernetes/ssl/kube-ca-key.pem").unwrap()).unwrap();
    let signer = Signer::new(&authority, &signing).unwrap();
    let key = new_key(KeyAlgorithm::EcdsaP256).unwrap();
    let wanted = leaf("kube-proxy", &lab.inventory).unwrap();
    let end = signer.certificate().not_after;
    let certificate = signer.issue(&wanted, SubjectKey::Pem(&key), 7, end).unwrap().to_pem();
    for node in &lab.inventory.nodes {
        write(lab, node.name.as_str(), CERTIFICATE, &certificate).await;
        write(lab, node.name.as_str(), KEY, &key).await;
        lab.root(node.name.as_str(), "docker restart kube-proxy").await;
    }
    key.to_string()
}

/// Of such a key there is no telling from its first bytes whether it matches: it is read, and a half pair is switched again.
#[test]
fn half_a_pair_of_a_key_that_cannot_be_compared_is_switched_again() {
    rehearse(async {
        let lab = Rehearsal::of(SMALL, Layout::Healthy, |options| options.pace = BRISK).await;
        let old = use_elliptic_curves(&lab).await;
        let fault = Fault::CommandFails {
            pattern: "prepare()".to_owned(),
            status: 1,
            stderr: "mv: Input/output error".to_owned(),
        };
        lab.fleet.inject(&name("w-1"), fault);
        lab.certroll(&["apply", "--via", "direct", "--force", "--yes"]).await.expect(1);
        lab.fleet.mend(&name("w-1"));
        assert_ne!(lab.file("cp-1", KEY).unwrap(), old.as_bytes());
        write(&lab, "cp-1", KEY, &old).await;
        let half = certificates(&lab, "cp-1")["kube-proxy"].serial.clone();

        lab.certroll(&["apply", "--resume", "--yes"]).await.expect(0);
        let key = lab.file("cp-1", KEY).unwrap();
        for node in ["cp-1", "w-1", "w-2"] {
            assert_ne!(certificates(&lab, node)["kube-proxy"].serial, half, "{node}");
            assert_eq!(lab.file(node, KEY).unwrap(), key, "{node}");
        }
        staging_is_gone(&lab);
        assert_eq!(lab.locks(KUBERNETES), Vec::<String>::new());
        lab.certroll(&["check"]).await.expect(0);
    });
}

/// A node that does not give its pair away keeps no resume from the one that another node has in use; a key crosses the wire once.
#[test]
fn a_pair_that_one_node_does_not_give_is_read_from_another_and_once() {
    rehearse(async {
        let lab = Rehearsal::of(TRIO, Layout::Healthy, |options| options.pace = BRISK).await;
        use_elliptic_curves(&lab).await;
        let fails = |pattern: &str| Fault::CommandFails {
            pattern: pattern.to_owned(),
            status: 1,
            stderr: "Input/output error".to_owned(),
        };
        lab.fleet.inject(&name("w-1"), fails("prepare()"));
        lab.certroll(&["apply", "--via", "direct", "--force", "--yes"]).await.expect(1);
        lab.fleet.mend(&name("w-1"));
        let made = lab.file("cp-1", KEY).unwrap();
        let read = "tar -C / -cf - etc/kubernetes/ssl/kube-proxy.pem";
        lab.fleet.inject(&name("cp-1"), fails(read));

        lab.certroll(&["apply", "--resume", "--yes"]).await.expect(0);
        for node in ["cp-2", "w-1", "w-2"] {
            assert_eq!(lab.file(node, KEY).unwrap(), made, "{node}");
        }
        let reads = |node: &str| {
            let lines = lab.fleet.command_lines().into_iter();
            lines.filter(|(asked, line)| asked.as_str() == node && line.contains(read)).count()
        };
        assert_eq!(["cp-1", "cp-2", "cp-3"].map(reads), [1, 1, 0]);
    });
}
