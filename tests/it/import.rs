//! Imports from servers that answer as the real ones do: a Rancher in pages, with an archive of a machine, and an API server.

#![expect(clippy::disallowed_methods, reason = "the built program is started, on files made for it")]
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a server that cannot be had fails its test"
)]

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Cursor, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use certroll::inventory::{Inventory, NodeName, Role};
use serde_json::{Value, json};

const TOKEN: &str = "token-abcde:secret";
const KEY: &str = "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----\n";

/// Answers by path with query; whoever lacks the token is refused. As often as `busy PATH` has bytes it cannot answer first.
struct Server {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn start(answers: impl FnOnce(SocketAddr) -> BTreeMap<String, Vec<u8>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let answers = answers(address);
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&asked);
        // It ends with the process of the tests.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                let _ = answer(&stream, &answers, &log);
            }
        });
        Self { address, asked }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn answer(
    mut stream: &TcpStream,
    answers: &BTreeMap<String, Vec<u8>>,
    log: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next().unwrap_or_else(|| Ok(String::new()))?;
    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut is_known = false;
    for line in lines {
        let line = line?;
        is_known |= line.eq_ignore_ascii_case(&format!("authorization: Bearer {TOKEN}"));
        if line.is_empty() {
            break;
        }
    }
    let mut asked = log.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let times = asked.iter().filter(|before| **before == path).count();
    let is_busy = answers.get(&format!("busy {path}")).is_some_and(|often| times < often.len());
    let public = path == "/ping" || path.starts_with("/v3/settings/");
    let (status, body) = match answers.get(&path) {
        _ if !is_known && !public => ("401 Unauthorized", b"{\"message\":\"must authenticate\"}".to_vec()),
        _ if is_busy => ("503 Service Unavailable\r\nRetry-After: 0", b"{\"message\":\"busy\"}".to_vec()),
        Some(body) => ("200 OK", body.clone()),
        None if path == "/ping" => ("200 OK", b"pong".to_vec()),
        None => ("404 Not Found", b"{\"kind\":\"Status\",\"message\":\"not found\"}".to_vec()),
    };
    asked.push(path);
    drop(asked);
    let length = body.len();
    write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n")?;
    stream.write_all(&body)
}

/// Runs the program; stdout, stderr and the exit status in one text.
fn certroll(folder: &Path, words: &[&str], variables: &[(&str, &str)]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_certroll"));
    command.args(words).current_dir(folder).env_clear().env("HOME", folder).env("USER", "operator");
    command.envs(variables.iter().copied()).stdin(Stdio::null());
    let output = command.output().unwrap();
    format!(
        "exit status {}\n--- stdout\n{}--- stderr\n{}",
        output.status.code().unwrap(),
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap()
    )
    .replace(&folder.display().to_string(), "~")
}

fn inventory(path: &Path) -> Inventory {
    Inventory::parse(&fs::read_to_string(path).unwrap(), "imported").unwrap().inventory
}

fn archive() -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for (name, content) in [("w1/id_rsa.pub", "ssh-rsa AAAA"), ("w1/id_rsa", KEY)] {
        writer.start_file(name, options).unwrap();
        writer.write_all(content.as_bytes()).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

/// Returns what a Rancher answers that has the golden cluster, and one more node that it made itself, on two pages.
fn rancher(_: SocketAddr) -> BTreeMap<String, Vec<u8>> {
    let cluster: Value =
        serde_json::from_str(include_str!("../cases/rancher/cluster-provisioned.json")).unwrap();
    let mut nodes: Value = serde_json::from_str(include_str!("../cases/rancher/nodes.json")).unwrap();
    let own = json!({
        "id": "c-xx8vz:m-made", "nodeName": "w-1", "requestedHostname": "w1", "nodeTemplateId": "cattle-global-nt:nt-1",
        "ipAddress": "10.77.0.21", "externalIpAddress": "203.0.113.21", "sshUser": "ubuntu", "worker": true, "state": "active",
        // As Rancher gives it behind a balancer: another host, which must not get the token.
        "links": {"nodeConfig": "https://rancher.invalid/v3/nodes/c-xx8vz:m-made/nodeconfig"},
    });
    nodes["pagination"] =
        json!({"limit": 4, "next": "https://rancher.invalid/v3/nodes?clusterId=c-xx8vz&marker=m-ed23"});
    let last = json!({"data": [own], "pagination": {"limit": 4}});
    let found = json!({"data": [cluster.clone()], "pagination": {"limit": 1000}});
    [
        ("/v3/settings/server-version", json!({"value": "v2.2.8"}).to_string().into_bytes()),
        ("/v3/clusters", found.to_string().into_bytes()),
        ("/v3/clusters?name=judge", found.to_string().into_bytes()),
        ("/v3/clusters?name=jugde", json!({"data": []}).to_string().into_bytes()),
        ("/v3/clusters/c-xx8vz", cluster.to_string().into_bytes()),
        ("/v3/nodes?clusterId=c-xx8vz", nodes.to_string().into_bytes()),
        ("/v3/nodes?clusterId=c-xx8vz&marker=m-ed23", last.to_string().into_bytes()),
        ("/v3/nodes/c-xx8vz:m-made/nodeconfig", archive()),
        ("busy /v3/nodes/c-xx8vz:m-made/nodeconfig", vec![0; 2]),
    ]
    .into_iter()
    .map(|(path, body)| (path.to_owned(), body))
    .collect()
}

#[test]
fn a_cluster_of_rancher_is_imported_with_the_keys_of_its_machines() {
    let server = Server::start(rancher);
    let url = format!("http://{}", server.address);
    let home = tempfile::tempdir().unwrap();
    let variables = [("RANCHER_URL", url.as_str()), ("RANCHER_TOKEN", TOKEN)];
    let import = |words: &[&str]| {
        let words: Vec<&str> = ["import", "rancher"].into_iter().chain(words.iter().copied()).collect();
        certroll(home.path(), &words, &variables).replace(&url, "http://RANCHER")
    };
    let refusals = [
        import(&[]),
        import(&["--rancher-cluster", "jugde"]),
        import(&["--rancher-cluster", "judge", "--save", "judge.yml"]),
    ];
    assert!(!home.path().join("judge.yml").exists() && !home.path().join("judge-keys").exists());
    let access = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let open = home.path().join("open");
    fs::create_dir(&open).unwrap();
    fs::set_permissions(&open, fs::Permissions::from_mode(0o755)).unwrap();
    let refused = import(&[
        "--rancher-cluster",
        "judge",
        "--save",
        "judge.yml",
        "--ssh-user",
        "rancher",
        "--keys",
        "open",
    ]);
    assert!(refused.starts_with("exit status 4") && refused.contains("with --keys"), "{refused}");
    assert!(access(&open) == 0o755 && !home.path().join("judge.yml").exists(), "{refused}");
    let done = import(&[
        "--rancher-cluster",
        "judge",
        "--save",
        "judge.yml",
        "--ssh-user",
        "rancher",
        "--ssh-key",
        "~/.ssh/lab",
    ]);
    let yaml = fs::read_to_string(home.path().join("judge.yml")).unwrap();
    let yaml = yaml.replace(&home.path().display().to_string(), "~").replace(&url, "http://RANCHER");
    insta::assert_snapshot!(format!("{}\n{done}\n--- judge.yml\n{yaml}", refusals.join("\n")));

    let inventory = inventory(&home.path().join("judge.yml"));
    assert_eq!(inventory.nodes.len(), 5, "both pages");
    let made = inventory.node(&NodeName::new("w-1")).unwrap();
    assert_eq!((made.user.as_str(), made.roles.as_slice()), ("ubuntu", [Role::Worker].as_slice()));
    let key = home.path().join("judge-keys/w-1");
    assert_eq!(made.ssh.key_path.as_deref(), key.to_str());
    assert_eq!(fs::read_to_string(&key).unwrap(), KEY);
    assert_eq!((access(&key), access(key.parent().unwrap())), (0o600, 0o700));
    let custom = inventory.node(&NodeName::new("n1")).unwrap();
    assert_eq!((custom.user.as_str(), custom.ssh.key_path.as_deref()), ("rancher", Some("~/.ssh/lab")));
    let shown = certroll(home.path(), &["nodes", "-c", "judge.yml"], &[]);
    assert!(shown.starts_with("exit status 0"), "{shown}");
    assert!(server.asked().iter().any(|path| path.ends_with("/nodeconfig")));
}

/// Returns what a Rancher answers that is busy with a cluster which it has just made: w-2 is not there yet, w-3 has no key yet.
fn rancher_at_work(address: SocketAddr) -> BTreeMap<String, Vec<u8>> {
    let mut answers = rancher(address);
    let mut change = |path: &str, change: &dyn Fn(&mut Value)| {
        let body = answers.get_mut(path).unwrap();
        let mut value = serde_json::from_slice(body).unwrap();
        change(&mut value);
        *body = value.to_string().into_bytes();
    };
    change("/v3/clusters/c-xx8vz", &|cluster| {
        cluster["name"] = json!("prod:eu");
        // A configuration that lists the nodes, too, as the applied one does.
        let applied = cluster["appliedSpec"]["rancherKubernetesEngineConfig"]["nodes"].clone();
        assert_eq!(applied.as_array().map(Vec::len), Some(4));
        cluster["rancherKubernetesEngineConfig"]["nodes"] = applied;
    });
    change("/v3/nodes?clusterId=c-xx8vz&marker=m-ed23", &|page| {
        let made = |name: &str, address: &str, state: &str| {
            json!({"id": format!("c-xx8vz:{name}"), "requestedHostname": name, "nodeTemplateId": "nt-1", "sshUser": "ubuntu",
                "ipAddress": address, "worker": true, "state": state, "links": {}})
        };
        let nodes = page["data"].as_array_mut().unwrap();
        nodes.push(made("w-2", "", "provisioning"));
        nodes.push(made("w-3", "10.77.0.23", "registering"));
    });
    answers.insert("busy /v3/nodes/c-xx8vz:m-made/nodeconfig".to_owned(), vec![0; 100]);
    answers
}

#[test]
fn what_rancher_cannot_give_yet_is_left_out_and_named() {
    let server = Server::start(rancher_at_work);
    let url = format!("http://{}", server.address);
    let home = tempfile::tempdir().unwrap();
    let variables = [("RANCHER_URL", url.as_str()), ("RANCHER_TOKEN", TOKEN)];
    let words = "import rancher --rancher-cluster c-xx8vz --save prod.yml --ssh-user rancher --ssh-key lab";
    let shown = certroll(home.path(), &words.split(' ').collect::<Vec<_>>(), &variables);
    insta::assert_snapshot!(shown);
    let imported = inventory(&home.path().join("prod.yml"));
    let names: Vec<&str> = imported.nodes.iter().map(|node| node.name.as_str()).collect();
    assert_eq!(names, ["n1", "n2", "n4", "n5", "w-1", "w-3"]);
}

#[test]
fn a_state_alone_connects_nowhere_whatever_the_environment_names() {
    let home = tempfile::tempdir().unwrap();
    let golden = include_str!("../cases/golden/rke-v0.2.8/cluster.rkestate");
    fs::write(home.path().join("cluster.rkestate"), golden).unwrap();
    let check = |words: &[&str]| {
        let words: Vec<&str> =
            ["check", "--state", "cluster.rkestate"].into_iter().chain(words.iter().copied()).collect();
        certroll(home.path(), &words, &[("RKE_CONFIG", "missing.yml")])
    };
    let alone = check(&[]);
    assert!(alone.contains("kube-apiserver") && !alone.contains("missing.yml"), "{alone}");
    let typed = check(&["-c", "missing.yml"]);
    assert!(typed.starts_with("exit status 2") && typed.contains("`missing.yml` does not exist"), "{typed}");
}

/// Returns what the API server of the golden cluster answers, behind Rancher.
fn api(_: SocketAddr) -> BTreeMap<String, Vec<u8>> {
    let mut nodes: Value =
        serde_json::from_str(include_str!("../cases/golden/rke-v0.2.8/api-nodes.json")).unwrap();
    let rest: Vec<Value> = nodes["items"].as_array_mut().unwrap().split_off(2);
    nodes["metadata"]["continue"] = json!("a b+c");
    let state = include_str!("../cases/golden/rke-v0.2.8/full-cluster-state.json");
    let base = "/k8s/clusters/c-xx8vz/api/v1";
    [
        (format!("{base}/nodes?limit=100"), nodes.to_string().into_bytes()),
        (format!("{base}/nodes?limit=100&continue=a+b%2Bc"), json!({"items": rest}).to_string().into_bytes()),
        (format!("{base}/namespaces/kube-system/configmaps/full-cluster-state"), state.as_bytes().to_vec()),
    ]
    .into_iter()
    .collect()
}

fn kubeconfig(server: &Server, token: &str) -> String {
    let address = server.address;
    format!(
        "clusters:\n- {{name: judge, cluster: {{server: 'http://{address}/k8s/clusters/c-xx8vz'}}}}\n\
         users:\n- {{name: me, user: {{token: '{token}'}}}}\n\
         contexts:\n- {{name: judge, context: {{cluster: judge, user: me}}}}\ncurrent-context: judge\n"
    )
}

#[test]
fn a_live_cluster_is_imported_with_what_rke_keeps_in_it() {
    let server = Server::start(api);
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("config"), kubeconfig(&server, TOKEN)).unwrap();
    let shown = certroll(home.path(), &["import", "kubeconfig", "config", "--save", "judge.yml"], &[]);
    assert!(shown.starts_with("exit status 0"), "{shown}");
    assert!(!shown.contains("secret"), "{shown}");
    let golden = Inventory::parse(include_str!("../cases/golden/rke-v0.2.8/cluster.yml"), "golden");
    let golden = golden.unwrap().inventory;
    let mut imported = inventory(&home.path().join("judge.yml"));
    // A state has RKE's defaults filled in.
    for (node, golden) in imported.nodes.iter_mut().zip(&golden.nodes) {
        node.ssh.port_origin = golden.ssh.port_origin;
    }
    assert_eq!((imported.nodes, imported.cluster_name), (golden.nodes, golden.cluster_name));

    fs::write(home.path().join("stranger"), kubeconfig(&server, "other")).unwrap();
    let refused = certroll(home.path(), &["import", "kubeconfig", "stranger"], &[]);
    assert!(refused.starts_with("exit status 1") && refused.contains("HTTP 401"), "{refused}");
    assert!(refused.contains("hint: use a kubeconfig that may list nodes"), "{refused}");
}

#[test]
fn a_live_cluster_without_a_state_tells_what_is_missing() {
    let server = Server::start(|address| {
        let mut answers = api(address);
        answers.retain(|path, _| !path.contains("full-cluster-state"));
        answers
    });
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("config"), kubeconfig(&server, TOKEN)).unwrap();
    let refused = certroll(home.path(), &["import", "kubeconfig", "config"], &[]);
    assert!(refused.starts_with("exit status 4"), "{refused}");
    assert!(refused.contains("n1 (10.77.0.11): --ssh-user, --ssh-key"), "{refused}");
    let words = ["import", "kubeconfig", "config", "--save", "judge.yml", "--ssh-user", "rancher"];
    let shown = certroll(home.path(), &words, &[]);
    assert!(shown.contains("the cluster holds no `full-cluster-state`"), "{shown}");
    assert!(shown.contains("n4 (10.77.0.14): --ssh-key missing"), "{shown}");
    let imported = inventory(&home.path().join("judge.yml"));
    assert_eq!(imported.kubernetes_version.as_deref().map(|version| version.starts_with('v')), Some(true));
    assert_eq!(imported.with_role(Role::Etcd).count(), 3);
}
