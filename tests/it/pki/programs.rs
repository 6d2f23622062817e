//! The programs that must accept what certroll makes: openssl, a Go client (`kubectl`) against rustls, and etcd.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use certroll::inventory::Inventory;
use certroll::pki::{Certificate, KeyAlgorithm, Signer, SubjectKey, leaf, new_key};
use jiff::Timestamp;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned};

use super::authority::Pair;

const CLUSTER: &str = "
nodes:
- {address: 127.0.0.1, hostname_override: here, user: u, role: [controlplane, etcd, worker]}
";

/// What a CA's configuration says where it is as RKE's from before Go 1.15: it has no key identifier.
const PLAIN_CA: &str = "[req]\ndistinguished_name = name\nx509_extensions = ca\nprompt = no\n[name]\nCN = kube-ca\n[ca]\n\
    basicConstraints = critical, CA:TRUE\nkeyUsage = critical, digitalSignature, keyEncipherment, keyCertSign\n";
const IDENTIFIED_CA: &str = "subjectKeyIdentifier = hash\n";

/// The CAs that a cluster may have: the command that makes the key, and what its certificate says besides.
const AUTHORITIES: [(&str, &str, &str); 4] = [
    ("RSA as RKE's", "openssl genrsa -traditional -out ca-key.pem 2048", ""),
    ("RSA in PKCS#8", "openssl genrsa -out ca-key.pem 3072", IDENTIFIED_CA),
    ("EC with its parameters", "openssl ecparam -name prime256v1 -genkey -out ca-key.pem", ""),
    (
        "EC in PKCS#8",
        "openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-384 -out ca-key.pem",
        IDENTIFIED_CA,
    ),
];

/// Says which programs are missing, so that a test which was not tried does not pass in silence.
fn lacks(programs: &[&str]) -> bool {
    let missing = |program: &&&str| {
        !std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
            .any(|folder| folder.join(program).is_file())
    };
    let missing: Vec<&str> = programs.iter().filter(missing).copied().collect();
    if !missing.is_empty() {
        eprintln!("skipped: {} is not installed", missing.join(", "));
    }
    !missing.is_empty()
}

/// A folder with a CA that openssl made, and what certroll makes of it.
struct Workshop {
    folder: tempfile::TempDir,
    signer: Signer,
    authority: Pair,
}

impl Workshop {
    fn open((name, command, extensions): (&str, &str, &str)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        // openssl has the last word on an identifier: without this one it adds its own.
        let identifier = if extensions.is_empty() { "subjectKeyIdentifier = none\n" } else { extensions };
        fs::write(folder.path().join("ca.cnf"), format!("{PLAIN_CA}{identifier}")).unwrap();
        run(folder.path(), command);
        run(folder.path(), "openssl req -x509 -new -key ca-key.pem -days 3650 -config ca.cnf -out ca.pem");
        let read = |file: &str| fs::read_to_string(folder.path().join(file)).unwrap();
        let authority = Pair { certificate: read("ca.pem"), key: read("ca-key.pem") };
        let signer = Signer::new(authority.certificate.as_bytes(), &authority.key)
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        Self { folder, signer, authority }
    }

    fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    /// Issues a pair, and leaves it as `<name>.pem` and `<name>-key.pem`.
    fn issue(&self, name: &str, algorithm: KeyAlgorithm) -> Pair {
        let inventory = Inventory::parse(CLUSTER, "cluster.yml").unwrap().inventory;
        let key = new_key(algorithm).unwrap();
        let leaf = leaf(name, &inventory).unwrap();
        // The signer cuts it to the CA's own end.
        let made = self.signer.issue(&leaf, SubjectKey::Pem(&key), 4711, Timestamp::MAX).unwrap();
        let pair = Pair { certificate: made.to_pem(), key: key.to_string() };
        fs::write(self.path(&format!("{name}.pem")), &pair.certificate).unwrap();
        fs::write(self.path(&format!("{name}-key.pem")), &pair.key).unwrap();
        pair
    }
}

/// Runs a command that must succeed, and returns what it printed.
fn run(folder: &Path, command: &str) -> String {
    let mut words = command.split_whitespace();
    let output = Command::new(words.next().unwrap()).args(words).current_dir(folder).output().unwrap();
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command}: {said}");
    said
}

#[test]
fn openssl_accepts_what_every_kind_of_authority_issues() {
    if lacks(&["openssl"]) {
        return;
    }
    for authority in AUTHORITIES {
        let workshop = Workshop::open(authority);
        let folder = workshop.folder.path();
        let leaves = [
            ("kube-apiserver", KeyAlgorithm::Rsa2048),
            ("kube-etcd-127-0-0-1", KeyAlgorithm::EcdsaP256),
            ("kube-apiserver-proxy-client", KeyAlgorithm::EcdsaP384),
            ("kube-admin", KeyAlgorithm::Rsa2048),
        ];
        for (name, algorithm) in leaves {
            workshop.issue(name, algorithm);
            let verify =
                |purpose: &str| format!("openssl verify -CAfile ca.pem -purpose {purpose} {name}.pem");
            assert_eq!(run(folder, &verify("sslclient")).trim(), format!("{name}.pem: OK"));
            if name != "kube-admin" {
                run(folder, &verify("sslserver"));
            }
            let check = run(folder, &format!("openssl pkey -in {name}-key.pem -check -noout"));
            assert!(check.contains("Key is valid"), "{name}: {check}");
            let public = run(folder, &format!("openssl x509 -in {name}.pem -noout -pubkey"));
            assert_eq!(run(folder, &format!("openssl pkey -in {name}-key.pem -pubout")), public, "{name}");
        }
        run(folder, "openssl verify -CAfile ca.pem -verify_ip 127.0.0.1 kube-apiserver.pem");
        run(folder, "openssl verify -CAfile ca.pem -verify_hostname here kube-etcd-127-0-0-1.pem");
        assert!(run(folder, "openssl rsa -in kube-admin-key.pem -check -noout").contains("RSA key ok"));
        let serial = run(folder, "openssl x509 -in kube-admin.pem -noout -serial");
        assert_eq!(serial.trim(), "serial=1267", "4711 in hex");
    }
}

/// Serves `/healthz` over TLS until it is told to stop; the answer is the subject of the client's certificate.
struct Server {
    address: SocketAddr,
    stopped: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Server {
    fn start(authority: &Pair, own: &Pair) -> Self {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let clients = WebPkiClientVerifier::builder_with_provider(roots(authority).into(), provider.clone())
            .build()
            .unwrap();
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(clients)
            .with_single_cert(vec![der(&own.certificate)], key(own))
            .unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let stopped = Arc::new(AtomicBool::new(false));
        let (config, stop) = (Arc::new(config), Arc::clone(&stopped));
        let thread = std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                answer(ServerConnection::new(Arc::clone(&config)).unwrap(), stream);
            }
        });
        Self { address, stopped, thread: Some(thread) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::SeqCst);
        // The accept returns for this connection, and sees that it is the last.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Answers one request; a client that is refused ends its connection, which is no fault of the server's.
fn answer(connection: ServerConnection, stream: TcpStream) {
    let mut stream = StreamOwned::new(connection, stream);
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => request.push(byte[0]),
            _ => return,
        }
    }
    let subject = stream
        .conn
        .peer_certificates()
        .and_then(|chain| Certificate::from_der(&chain[0]).ok())
        .map_or_else(|| "nobody".to_owned(), |certificate| certificate.subject);
    let found = if request.starts_with(b"GET /healthz") { "200 OK" } else { "404 Not Found" };
    let text = format!(
        "HTTP/1.1 {found}\r\nContent-Type: text/plain\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{subject}",
        subject.len()
    );
    let _ = stream.write_all(text.as_bytes());
    stream.conn.send_close_notify();
    let _ = stream.flush();
}

fn roots(authority: &Pair) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add(der(&authority.certificate)).unwrap();
    roots
}

fn der(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}

fn key(pair: &Pair) -> PrivateKeyDer<'static> {
    PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap()
}

/// Asks as kubectl does, with a certificate of the folder or with none.
fn kubectl(folder: &Path, address: SocketAddr, client: Option<&str>) -> (bool, String) {
    let user = client.map_or_else(
        || "{}".to_owned(),
        |name| format!("{{client-certificate: {name}.pem, client-key: {name}-key.pem}}"),
    );
    let config = format!(
        "apiVersion: v1\nkind: Config\nclusters: [{{name: c, cluster: {{server: 'https://{address}', certificate-authority: ca.pem}}}}]\n\
         users: [{{name: u, user: {user}}}]\ncontexts: [{{name: x, context: {{cluster: c, user: u}}}}]\ncurrent-context: x\n"
    );
    fs::write(folder.join("config"), config).unwrap();
    let output = Command::new("kubectl")
        .args(["--kubeconfig", "config", "--request-timeout=20s", "get", "--raw", "/healthz"])
        .current_dir(folder)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("HOME", folder)
        .output()
        .unwrap();
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.success(), said)
}

#[test]
fn a_go_client_and_rustls_accept_each_other() {
    if lacks(&["openssl", "kubectl"]) {
        return;
    }
    for (authority, algorithm) in AUTHORITIES.into_iter().zip([
        KeyAlgorithm::Rsa2048,
        KeyAlgorithm::EcdsaP256,
        KeyAlgorithm::EcdsaP384,
        KeyAlgorithm::Rsa2048,
    ]) {
        let workshop = Workshop::open(authority);
        let folder = workshop.folder.path();
        let own = workshop.issue("kube-apiserver", algorithm);
        let server = Server::start(&workshop.authority, &own);
        for (name, subject) in [
            ("kube-admin", "O=system:masters, CN=kube-admin"),
            ("kube-node", "O=system:nodes, CN=system:node"),
        ] {
            workshop.issue(name, algorithm);
            assert_eq!(
                kubectl(folder, server.address, Some(name)),
                (true, subject.to_owned()),
                "{}",
                authority.0
            );
        }
        let (succeeded, said) = kubectl(folder, server.address, None);
        assert!(!succeeded, "the server asks for a certificate: {said}");
    }
}

/// An etcd of this machine, which ends with the test.
struct Etcd {
    process: Child,
    address: SocketAddr,
}

impl Etcd {
    fn start(workshop: &Workshop) -> Self {
        let [client, peer] = free_ports();
        let folder = workshop.folder.path();
        let text = |path: PathBuf| path.to_str().unwrap().to_owned();
        let url = |port: u16| format!("https://127.0.0.1:{port}");
        let certificate = text(workshop.path("kube-etcd-127-0-0-1.pem"));
        let key = text(workshop.path("kube-etcd-127-0-0-1-key.pem"));
        let authority = text(workshop.path("ca.pem"));
        let options = [
            ("--data-dir", text(folder.join("data"))),
            ("--listen-client-urls", url(client)),
            ("--advertise-client-urls", url(client)),
            ("--listen-peer-urls", url(peer)),
            ("--initial-advertise-peer-urls", url(peer)),
            ("--initial-cluster", format!("default={}", url(peer))),
            ("--cert-file", certificate.clone()),
            ("--key-file", key.clone()),
            ("--trusted-ca-file", authority.clone()),
            ("--peer-cert-file", certificate),
            ("--peer-key-file", key),
            ("--peer-trusted-ca-file", authority),
        ];
        let mut process = Command::new("etcd")
            .args(options.iter().flat_map(|(name, value)| [*name, value.as_str()]))
            .args(["--client-cert-auth", "--peer-client-cert-auth"])
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let is_ready = lines.by_ref().map_while(Result::ok).any(|line| {
            said.push_str(&line);
            said.push('\n');
            // 3.4: "ready to serve client requests"; 3.5 and later speak JSON with the same words.
            line.contains("ready to serve client requests")
        });
        assert!(is_ready, "{said}");
        // Its log is read on, or it would block.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        Self { process, address: SocketAddr::from((Ipv4Addr::LOCALHOST, client)) }
    }

    /// Asks for its health; `None` where it refuses the client.
    fn health(&self, authority: &Pair, client: Option<&Pair>) -> Option<String> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots(authority));
        let config = match client {
            Some(pair) => builder.with_client_auth_cert(vec![der(&pair.certificate)], key(pair)).unwrap(),
            None => builder.with_no_client_auth(),
        };
        let name = "localhost".try_into().unwrap();
        let connection = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut stream = StreamOwned::new(connection, TcpStream::connect(self.address).unwrap());
        stream.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok()?;
        Some(String::from_utf8(answer).unwrap())
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Returns two ports that were free a moment ago.
fn free_ports() -> [u16; 2] {
    let listeners = [0, 0].map(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}

#[test]
fn etcd_serves_with_an_issued_pair_and_lets_an_issued_client_in() {
    if lacks(&["openssl", "etcd"]) {
        return;
    }
    for (authority, algorithm) in
        [(AUTHORITIES[0], KeyAlgorithm::Rsa2048), (AUTHORITIES[2], KeyAlgorithm::EcdsaP256)]
    {
        let workshop = Workshop::open(authority);
        workshop.issue("kube-etcd-127-0-0-1", algorithm);
        let client = workshop.issue("kube-node", algorithm);
        let stranger = Workshop::open(authority).issue("kube-node", algorithm);
        let etcd = Etcd::start(&workshop);
        let health = etcd.health(&workshop.authority, Some(&client)).unwrap();
        assert!(health.starts_with("HTTP/1.1 200 ") && health.contains("\"health\":\"true\""), "{health}");
        for refused in [None, Some(&stranger)] {
            assert_eq!(etcd.health(&workshop.authority, refused), None, "{}", authority.0);
        }
    }
}
