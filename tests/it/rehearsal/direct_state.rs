//! Expired clusters: one command makes them healthy again, and leaves no old certificate where rke would find it.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use certroll::pki::Certificate;
use certroll::sim::{Fault, Layout, RkeFiles, StateObject, StoredKind};
use serde_json::{Value, json};

use super::direct::{
    ALL, BRISK, SMALL, TRIO, after_etcd, certificates, in_folder, restarts, staging_is_gone,
};
use super::direct_secrets::Watch;
use super::{KUBERNETES, Rehearsal, name, rehearse};

const FULL_STATE: &str = "full-cluster-state";

/// What stays what it was.
const NEVER: [&str; 3] = ["kube-ca", "kube-apiserver-requestheader-ca", "kube-service-account-token"];

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// Returns the one backup of a file of the bastion.
fn backup(path: &Path) -> std::path::PathBuf {
    let begin = format!("{}.", path.file_name().unwrap().to_str().unwrap());
    let files = std::fs::read_dir(path.parent().unwrap()).unwrap().map(|entry| entry.unwrap().path());
    let found: Vec<_> =
        files.filter(|file| file.file_name().unwrap().to_str().unwrap().starts_with(&begin)).collect();
    assert_eq!(found.len(), 1, "{found:?}");
    found[0].clone()
}

/// Returns a value of the kubeconfig, out of base64.
fn of_kube_config(text: &str, field: &str) -> Vec<u8> {
    let line = text.lines().find_map(|line| line.trim().strip_prefix(&format!("{field}: "))).unwrap();
    STANDARD.decode(line.trim_matches('"')).unwrap()
}

/// Returns the full state that the cluster stores.
fn stored(lab: &Rehearsal, kind: StoredKind) -> Value {
    let object = lab.fleet.stored(kind, FULL_STATE).unwrap();
    let text = object["data"][FULL_STATE].as_str().unwrap();
    match kind {
        StoredKind::ConfigMap => serde_json::from_str(text).unwrap(),
        StoredKind::Secret => serde_json::from_slice(&STANDARD.decode(text).unwrap()).unwrap(),
    }
}

/// Expects a state that holds what lies on the nodes now, and all else as it was.
fn is_renewed(lab: &Rehearsal, before: &Value, after: &Value) {
    let disk = certificates(lab, "cp-1");
    let mut rest = after.clone();
    for half in ["desiredState", "currentState"] {
        let old = &before[half]["certificatesBundle"];
        for (name, entry) in after[half]["certificatesBundle"].as_object().unwrap() {
            let unchanged = *entry == old[name];
            assert_eq!(unchanged, NEVER.contains(&name.as_str()), "{half} {name}");
            let own = Certificate::from_pem(entry["certificatePEM"].as_str().unwrap().as_bytes()).unwrap();
            if name == "kube-admin" {
                let data = STANDARD.encode(entry["certificatePEM"].as_str().unwrap());
                assert!(entry["config"].as_str().unwrap().contains(&data), "its kubeconfig has the new pair");
            } else {
                assert_eq!(own.sha256, disk[name].sha256, "{half} {name}");
                let key = lab.file("cp-1", &format!("{KUBERNETES}/ssl/{name}-key.pem")).unwrap();
                let key = String::from_utf8(key).unwrap();
                assert_eq!(entry["keyPEM"].as_str().unwrap().trim(), key.trim(), "{half} {name}");
            }
            let entry = rest[half]["certificatesBundle"][name].as_object_mut().unwrap();
            for field in ["certificatePEM", "keyPEM", "config"] {
                entry.insert(field.to_owned(), old[name][field].clone());
            }
        }
    }
    assert_eq!(rest, *before, "nothing but pairs has changed");
}

#[test]
fn one_command_makes_an_expired_cluster_healthy_and_no_old_certificate_is_left_to_rke() {
    rehearse(async {
        let lab = Rehearsal::of(TRIO, Layout::Expired028, |options| {
            options.rke_files = RkeFiles::Beside;
            options.pace = BRISK;
        })
        .await;
        let paths = lab.fleet.paths().clone();
        let (state, kube_config) = (paths.rkestate.unwrap(), paths.kube_config.unwrap());
        let mut file: Value = serde_json::from_str(&read(&state)).unwrap();
        file["ofTomorrow"] = json!({"a": [1, 2.50, "x"]});
        file["desiredState"]["certificatesBundle"]["kube-node"]["ofTomorrow"] = json!("kept");
        file["currentState"]["rkeConfig"]["ofTomorrow"] = json!(null);
        std::fs::write(&state, serde_json::to_string_pretty(&file).unwrap()).unwrap();
        let (old_text, old_config) = (read(&state), read(&kube_config));
        let old_object = stored(&lab, StoredKind::ConfigMap);
        let authorities = ALL.map(|node| untouchable(&lab, node));
        lab.certroll(&["check"]).await.expect(3);
        let watch = Watch::begin(&lab);

        let applied = lab.certroll(&["apply", "--via", "direct", "--yes", "-v"]).await.expect(0);

        lab.certroll(&["check"]).await.expect(0);
        let serving = lab.fleet.serving();
        assert_eq!((serving.etcd_members, serving.api_servers), (3, 3));
        let mut restarted = restarts(&lab);
        let rest = restarted.split_off(3);
        let first: BTreeSet<&str> = restarted.iter().take(2).map(String::as_str).collect();
        assert_eq!((first, restarted[2].as_str()), (BTreeSet::from(["cp-1 etcd", "cp-2 etcd"]), "cp-3 etcd"));
        assert_eq!(rest, after_etcd());
        assert_eq!(ALL.map(|node| untouchable(&lab, node)), authorities);
        staging_is_gone(&lab);

        is_renewed(&lab, &file, &serde_json::from_str(&read(&state)).unwrap());
        let object = stored(&lab, StoredKind::ConfigMap);
        is_renewed(&lab, &old_object, &object);
        let config = read(&kube_config);
        let admin = &object["currentState"]["certificatesBundle"]["kube-admin"];
        for (field, part) in [("client-certificate-data", "certificatePEM"), ("client-key-data", "keyPEM")] {
            assert_eq!(of_kube_config(&config, field), admin[part].as_str().unwrap().as_bytes(), "{field}");
        }
        let authority = |text| of_kube_config(text, "certificate-authority-data");
        assert_eq!(authority(&config), authority(&old_config));
        for (path, old) in [(&state, &old_text), (&kube_config, &old_config)] {
            let kept = backup(path);
            assert_eq!((mode(path), mode(&kept)), (0o600, 0o600), "{}", path.display());
            assert_eq!(read(&kept), *old);
        }
        watch.nothing_leaked(&lab, &[("apply", &applied)]);
        lab.certroll(&["apply", "--via", "direct", "--yes"]).await.expect(0).says("Nothing to do");
    });
}

/// Returns all of a node that is never made anew.
fn untouchable(lab: &Rehearsal, node: &str) -> BTreeMap<String, super::Trace> {
    let mut files = lab.files(node, KUBERNETES);
    files.retain(|path, _| {
        NEVER
            .iter()
            .any(|name| path.contains(&format!("/{name}.")) || path.contains(&format!("/{name}-key.")))
    });
    assert!(!files.is_empty(), "{files:?}");
    files
}

#[test]
fn newer_clusters_keep_their_state_in_a_secret_and_a_lost_kubeconfig_is_made() {
    rehearse(async {
        let lab = Rehearsal::of(SMALL, Layout::Expired028, |options| {
            options.state_object = StateObject::Secret;
            options.pace = BRISK;
        })
        .await;
        let before = stored(&lab, StoredKind::Secret);
        lab.certroll(&["apply", "--via", "direct", "--yes"]).await.expect(0);
        is_renewed(&lab, &before, &stored(&lab, StoredKind::Secret));
        lab.certroll(&["check"]).await.expect(0);
        let made = lab.fleet.paths().cluster_yml.with_file_name("kube_config_cluster.yml");
        assert_eq!(mode(&made), 0o600);
        let admin = Certificate::from_pem(&of_kube_config(&read(&made), "client-certificate-data")).unwrap();
        assert!(admin.is_signed_by(&certificates(&lab, "cp-1")["kube-ca"]));
        assert!(!made.with_file_name("cluster.rkestate").exists(), "a state that nobody had is not made up");
    });
}

/// What a run that broke off has switched is valid: the next finds nothing due, and has rke's records to write nevertheless.
#[test]
fn records_of_rke_that_a_run_could_not_write_are_written_by_the_next() {
    rehearse(async {
        let lab = Rehearsal::of(SMALL, Layout::Expired028, |options| {
            options.rke_files = RkeFiles::Beside;
            options.pace = BRISK;
        })
        .await;
        let state = lab.fleet.paths().rkestate.clone().unwrap();
        let (object, text) = (stored(&lab, StoredKind::ConfigMap), read(&state));
        let worker = lab.files("w-1", KUBERNETES);
        let apply = ["apply", "--via", "direct", "--yes"];

        lab.fleet.inject(&name("w-1"), Fault::NoSpaceBeneath { folder: format!("{KUBERNETES}/ssl") });
        lab.certroll(&apply).await.expect(1).shows("w-1").shows("No space left on device");
        let unchanged = |files: BTreeMap<String, super::Trace>| {
            files.into_iter().filter(|(path, _)| !path.ends_with(".certroll")).collect::<BTreeMap<_, _>>()
        };
        assert_eq!(unchanged(lab.files("w-1", KUBERNETES)), worker, "no half of a pair is switched");
        let restarted = restarts(&lab);
        assert!(!restarted.iter().any(|restart| restart.starts_with("w-")), "{restarted:?}");
        assert_eq!((stored(&lab, StoredKind::ConfigMap), read(&state)), (object.clone(), text.clone()));
        lab.fleet.mend(&name("w-1"));

        let unwritable = Fault::CommandFails {
            pattern: "full-cluster-state.json".to_owned(),
            status: 1,
            stderr: "cat: write error: Input/output error".to_owned(),
        };
        lab.fleet.inject(&name("cp-1"), unwritable);
        lab.certroll(&apply)
            .await
            .expect(1)
            .shows("the old state could not be kept")
            .shows("rke's own records still hold the old certificates");
        lab.fleet.mend(&name("cp-1"));
        assert_eq!((stored(&lab, StoredKind::ConfigMap), read(&state)), (object.clone(), text.clone()));

        let before = restarts(&lab);
        lab.certroll(&apply).await.expect(0);
        assert_eq!(restarts(&lab), before, "all that was left is to write");
        is_renewed(&lab, &object, &stored(&lab, StoredKind::ConfigMap));
        is_renewed(
            &lab,
            &serde_json::from_str(&text).unwrap(),
            &serde_json::from_str(&read(&state)).unwrap(),
        );
        staging_is_gone(&lab);
        lab.certroll(&["check"]).await.expect(0);
        lab.certroll(&apply).await.expect(0).says("Nothing to do");
    });
}

#[test]
fn a_legacy_cluster_keeps_the_key_that_its_tokens_are_signed_with() {
    rehearse(async {
        let lab = Rehearsal::with(Layout::LegacyExpired, "/", |options| options.pace = BRISK).await;
        let control_plane = ["cp-1", "cp-2"];
        let nodes = ["cp-1", "cp-2", "etcd-1"];
        let folders = ["ssl", ".tmp"].map(|folder| format!("{KUBERNETES}/{folder}"));
        let key = |node: &str, folder: &str| lab.files(node, folder)["kube-apiserver-key.pem"].clone();
        let keys = control_plane.map(|node| folders.each_ref().map(|folder| key(node, folder)));
        let old = nodes.map(|node| folders.each_ref().map(|folder| in_folder(&lab, node, folder)));
        let secrets: BTreeMap<String, Value> = secrets(&lab);
        let watch = Watch::begin(&lab);
        let saved = lab.path("direct.plan");
        let saved = saved.to_str().unwrap();
        let planned = lab.certroll(&["plan", "--via", "direct", "-v", "--save", saved]).await.expect(0);
        let shell = lab.certroll(&["plan", "--via", "direct", "-o", "shell"]).await.expect(0);
        let applied = lab.certroll(&["apply", "--plan", saved, "--yes", "-v", "-o", "json"]).await.expect(0);
        let runs = lab.certroll(&["runs", "-o", "json"]).await.expect(0);

        lab.certroll(&["check"]).await.expect(0);
        assert_eq!(control_plane.map(|node| folders.each_ref().map(|folder| key(node, folder))), keys);
        for (node, before) in nodes.iter().zip(&old) {
            for (folder, before) in folders.iter().zip(before) {
                for (name, new) in in_folder(&lab, node, folder) {
                    let (old, place) = (&before[&name], format!("{node} {folder}/{name}"));
                    assert_eq!(new.serial == old.serial, NEVER.contains(&name.as_str()), "{place}");
                    assert_eq!(
                        new.has_same_key_as(old),
                        NEVER.contains(&name.as_str()) || name == "kube-apiserver",
                        "{place}"
                    );
                    let in_use = certificates(&lab, "cp-1");
                    if let Some(in_use) = in_use.get(&name) {
                        assert_eq!(new.sha256, in_use.sha256, "{place}: one pair everywhere");
                    }
                }
            }
        }
        let now = self::secrets(&lab);
        assert_eq!(secrets.keys().collect::<Vec<_>>(), now.keys().collect::<Vec<_>>());
        let disk = in_folder(&lab, "cp-1", &folders[1]);
        for (name, secret) in &now {
            let decoded = |field: &str| STANDARD.decode(secret["data"][field].as_str().unwrap()).unwrap();
            if NEVER.contains(&name.as_str()) {
                assert_eq!(*secret, secrets[name], "{name}");
                continue;
            }
            assert_ne!(secret["data"]["Certificate"], secrets[name]["data"]["Certificate"], "{name}");
            let own = Certificate::from_pem(&decoded("Certificate")).unwrap();
            assert_eq!(disk.get(name).map_or(&own.sha256, |disk| &disk.sha256), &own.sha256, "{name}");
            let same_key = secret["data"]["Key"] == secrets[name]["data"]["Key"];
            assert_eq!(same_key, name == "kube-apiserver", "{name}");
        }
        staging_is_gone(&lab);
        watch.nothing_leaked(
            &lab,
            &[("plan", &planned), ("shell", &shell), ("apply", &applied), ("runs", &runs)],
        );
    });
}

/// Returns the secrets that rke 0.1 keeps, by name.
fn secrets(lab: &Rehearsal) -> BTreeMap<String, Value> {
    let names =
        lab.fleet.stored_names(StoredKind::Secret).into_iter().filter(|name| name.starts_with("kube-"));
    let secret = |name: String| lab.fleet.stored(StoredKind::Secret, &name).map(|secret| (name, secret));
    let secrets: BTreeMap<_, _> = names.filter_map(secret).collect();
    assert!(secrets.len() > 8, "{:?}", secrets.keys());
    secrets
}
