//! A node that means harm: what it says moves no cursor and opens no file, and what it never stops saying fills no memory.
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test that cannot go on panics; it starts processes"
)]

use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use russh::keys::key::safe_rng;
use russh::keys::ssh_key::LineEnding;
use russh::keys::{Algorithm, PrivateKey, PublicKeyBase64 as _};
use russh::server::{Auth, ChannelOpenHandle, Config, Handler, Msg, Session, VerifiedPublicKey};
use russh::{Channel, ChannelId};
use tempfile::TempDir;
use tokio::net::TcpListener;

/// Clears the screen, sets the title, asks the terminal for an answer; with C1 controls too, and letters that turn text round.
const HARM: &str = "\u{1b}[2J\u{1b}]0;pwned\u{7}\u{1b}[6n\u{9b}31m\u{202e}live\u{2066}\r\u{8}";

/// The same in JSON, as docker would print a name.
const HARM_IN_JSON: &str =
    r"\u001b[2J\u001b]0;pwned\u0007\u001b[6n\u009b31m\u202elive\u2066\r\b\ntouch /tmp/pwned\n";

/// How long a command may take.
const LIMIT: Duration = Duration::from_secs(60);

/// What a node says to a command line.
enum Says {
    /// On stdout and on stderr, and with which status it ends.
    This(String, String, u32),
    /// It never ends.
    EverMore,
}

type Tongue = Arc<dyn Fn(&str) -> Says + Send + Sync>;

/// The bastion of somebody whose only node is hostile.
struct Victim {
    folder: TempDir,
}

impl Victim {
    /// Starts a node that says what it likes.
    async fn of(tongue: impl Fn(&str) -> Says + Send + Sync + 'static) -> Self {
        let folder = TempDir::new().unwrap();
        let key = PrivateKey::random(&mut safe_rng(), Algorithm::Ed25519).unwrap();
        std::fs::write(folder.path().join("key"), key.to_openssh(LineEnding::LF).unwrap()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let line = format!(
            "[127.0.0.1]:{port} {} {}\n",
            key.public_key().algorithm(),
            key.public_key().public_key_base64()
        );
        std::fs::write(folder.path().join("known_hosts"), line).unwrap();
        let yml = format!(
            "cluster_name: prod\nkubernetes_version: v1.15.3-rancher1-1\nssh_key_path: {}/key\nnodes:\n- {{address: 127.0.0.1, port: \
             {port}, hostname_override: node-1, user: rke, role: [controlplane, etcd, worker]}}\n",
            folder.path().display()
        );
        std::fs::write(folder.path().join("cluster.yml"), yml).unwrap();
        let config =
            Arc::new(Config { keys: vec![key], auth_rejection_time: Duration::ZERO, ..Config::default() });
        let tongue: Tongue = Arc::new(tongue);
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (config, tongue) = (Arc::clone(&config), Arc::clone(&tongue));
                tokio::spawn(async move {
                    if let Ok(session) =
                        russh::server::run_stream(config, socket, Host { tongue, channel: None }).await
                    {
                        let _ = session.await;
                    }
                });
            }
        });
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn program(&self, words: &[&str]) -> tokio::process::Command {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_certroll"));
        command.args(words).env_clear().env("HOME", self.folder.path()).env("USER", "operator");
        command.arg("--config").arg(self.path("cluster.yml"));
        command.arg("--known-hosts").arg(self.path("known_hosts"));
        command.arg("--state-dir").arg(self.path("state"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }

    async fn certroll(&self, words: &[&str]) -> Output {
        tokio::time::timeout(LIMIT, self.program(words).output()).await.unwrap().unwrap()
    }
}

struct Host {
    tongue: Tongue,
    channel: Option<Channel<Msg>>,
}

impl Handler for Host {
    type Error = russh::Error;

    async fn auth_publickey(&mut self, _: &str, _: VerifiedPublicKey<'_>) -> Result<Auth, russh::Error> {
        Ok(Auth::Accept)
    }

    async fn authentication_banner(&mut self) -> Result<Option<String>, russh::Error> {
        Ok(Some(HARM.to_owned()))
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        self.channel = Some(channel);
        reply.accept().await;
        Ok(())
    }

    async fn exec_request(
        &mut self,
        id: ChannelId,
        line: &[u8],
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        let channel = self.channel.take().unwrap();
        session.channel_success(id)?;
        let said = (self.tongue)(&String::from_utf8_lossy(line));
        tokio::spawn(async move { say(said, &channel).await });
        Ok(())
    }
}

async fn say(said: Says, channel: &Channel<Msg>) -> Result<(), russh::Error> {
    match said {
        Says::This(stdout, stderr, status) => {
            channel.data_bytes(stdout.into_bytes()).await?;
            channel.extended_data_bytes(1, stderr.into_bytes()).await?;
            channel.eof().await?;
            channel.exit_status(status).await?;
            channel.close().await
        }
        Says::EverMore => loop {
            channel.data_bytes(vec![b'y'; 64 << 10]).await?;
        },
    }
}

/// Returns the marker that a probe's frames are to begin with.
fn marker(line: &str) -> String {
    let start = line.find("certroll-").unwrap();
    line[start..].chars().take_while(|letter| letter.is_alphanumeric() || *letter == '-').collect()
}

/// Returns a certificate that is harmful to read, as PEM.
fn certificate() -> String {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["kubernetes".to_owned()]).unwrap();
    params.distinguished_name.push(rcgen::DnType::CommonName, format!("kube-ca{HARM}"));
    params.distinguished_name.push(rcgen::DnType::OrganizationName, HARM);
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.not_after = rcgen::date_time_ymd(2026, 12, 1);
    params.self_signed(&key).unwrap().pem()
}

/// Returns an answer to the probe that has harm in every field that a node can fill.
fn harmful_answer(line: &str) -> String {
    let marker = marker(line);
    let pem = certificate();
    let directory = format!("/etc/kubernetes{}", HARM.replace('\r', ""));
    let frames = [
        "access sudo\n".to_owned(),
        format!("clock {HARM}\n"),
        format!("directory {directory}\n"),
        format!(
            "files\n600 0 0 99 1795288400 2026-11-21 19:13:20.25 +0000 {directory}/ssl/kube-ca.pem\n\n{marker} content {directory}/ssl/kube-ca.pem\n{pem}"
        ),
        format!(
            "files\n600 0 0 99 1795288400 2026-11-21 19:13:20.25 +0000 {directory}/ssl/{HARM}.pem\n\n{marker} content {directory}/ssl/{HARM}.pem\n{pem}"
        ),
        format!(
            "files\n777 0 0 99 1795288400 2026-11-21 19:13:20.25 +0000 {directory}/ssl/kube-node.pem\n\n{marker} content {directory}/ssl/kube-node.pem\n{HARM}"
        ),
        format!(
            "lock\n{{\"run\":\"{HARM_IN_JSON}\",\"owner\":\"{HARM_IN_JSON}\",\"pid\":1,\"since\":\"{HARM_IN_JSON}\"}}\n"
        ),
        "writable no\n".to_owned(),
        format!("staged /x/{HARM}\n"),
        format!("space\n1 1024 1 1 {directory}\n"),
        format!(
            "containers\n\"/kubelet\"\t\"{HARM_IN_JSON}\"\t{{\"Status\":\"{HARM_IN_JSON}\",\"StartedAt\":\"{HARM_IN_JSON}\"}}\t0\n\
             \"/k8s_agent_cattle-node-agent-{HARM_IN_JSON}\"\t\"x\"\t{{\"Status\":\"exited\",\"StartedAt\":\"\"}}\t7\n\
             \"/k8s_agent_cattle-node-agent-x\"\t\"x\"\t{{\"Status\":\"exited\",\"StartedAt\":\"\"}}\t7\n\
             argument /kube-apiserver \"--service-account-key-file={HARM_IN_JSON}\"\n\
             variable /k8s_agent_cattle-node-agent-x \"CATTLE_SERVER=https://{HARM_IN_JSON}\"\n"
        ),
        format!("agent-log\n{HARM} Failed to connect to proxy {HARM}\n"),
        format!("etcd 1\n{HARM} is unhealthy {HARM}\n"),
        "end\n".to_owned(),
    ];
    frames.map(|frame| format!("\n{marker} {frame}")).concat()
}

/// Expects nothing in an output that acts on a terminal.
#[track_caller]
fn is_harmless(what: &str, output: &[u8]) {
    let text = String::from_utf8(output.to_vec()).unwrap();
    let acts = |letter: &char| {
        letter.is_control() && !matches!(letter, '\n' | '\t')
            || matches!(letter, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let found = text.chars().find(acts);
    assert_eq!(found, None, "{what} of {text:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_field_of_a_node_reaches_the_terminal_as_it_is() {
    let victim = Victim::of(|line| Says::This(harmful_answer(line), HARM.to_owned(), 0)).await;
    let mut shown = 0;
    for words in [
        &["check"][..],
        &["check", "-v"],
        &["check", "-o", "json"],
        &["plan", "--via", "manual", "-v"],
        &["plan", "--via", "direct", "-v"],
        &["plan", "repair", "-o", "json"],
        &["plan", "--via", "direct", "-o", "markdown"],
        &["plan", "--via", "manual", "-o", "shell"],
        &["apply", "restart", "--yes"],
        &["apply", "--via", "direct", "--yes", "-o", "json"],
    ] {
        let output = victim.certroll(words).await;
        is_harmless(&format!("stdout of {words:?}"), &output.stdout);
        is_harmless(&format!("stderr of {words:?}"), &output.stderr);
        let all = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(!all.contains("panicked"), "{words:?}: {all}");
        let is_command = |line: &&str| line.trim_start().starts_with("touch ");
        assert_eq!(
            all.lines().find(is_command),
            None,
            "{words:?}: a name became a command of the runbook: {all}"
        );
        shown += all.matches("pwned").count();
        if words.contains(&"json") {
            for line in all.lines().filter(|line| line.starts_with("{\"")) {
                serde_json::from_str::<serde_json::Value>(line).unwrap();
            }
        }
    }
    assert!(shown > 10, "what the node says is shown, as text");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_to_become_root_is_shown_as_text() {
    let victim = Victim::of(|line| {
        Says::This(format!("\n{} none uid 0; sudo: {HARM}\n", marker(line)), HARM.to_owned(), 1)
    })
    .await;
    for words in [&["check"][..], &["check", "-o", "json"], &["plan", "restart"]] {
        let output = victim.certroll(words).await;
        is_harmless("stdout", &output.stdout);
        is_harmless("stderr", &output.stderr);
        let all = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(all.contains("no way to root"), "{all}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_is_no_probe_is_a_clear_finding() {
    for (answer, said) in [
        ("This account is currently not available.\n", "This account is currently not available."),
        ("", "did not run what it was given: it said nothing"),
        ("\u{0}\u{1}\u{2}\u{ff}\u{fe}MZ\u{90}", "did not run what it was given"),
    ] {
        let victim = Victim::of(move |_| Says::This(answer.to_owned(), String::new(), 1)).await;
        let output = victim.certroll(&["check"]).await;
        assert_eq!(output.status.code(), Some(1), "a node that could not be looked at");
        is_harmless("stdout", &output.stdout);
        let all = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(all.contains("node-1") && all.contains(said) && all.contains("hint:"), "{all}");
    }
    let victim = Victim::of(|line| {
        Says::This(format!("\n{0} access root\n\n{0} clock 7\n", marker(line)), String::new(), 0)
    })
    .await;
    let output = victim.certroll(&["check"]).await;
    let all = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(all.contains("incomplete") && all.contains("breaks off after `clock`"), "{all}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_never_stops_talking_is_cut_off_within_bounds() {
    let victim = Victim::of(|_| Says::EverMore).await;
    let mut child = victim.program(&["check"]).spawn().unwrap();
    let process = child.id().unwrap();
    let watch = async {
        let mut most = 0;
        while let Some(kibibytes) = resident(process) {
            most = most.max(kibibytes);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        most
    };
    let ended = async {
        let mut output = Vec::new();
        tokio::io::AsyncReadExt::read_to_end(child.stdout.as_mut().unwrap(), &mut output).await.unwrap();
        (child.wait().await.unwrap(), output)
    };
    let ((status, output), most) =
        tokio::time::timeout(LIMIT, async { tokio::join!(ended, watch) }).await.unwrap();
    let said = String::from_utf8(output).unwrap();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("wrote more than 8 MiB"), "{said}");
    assert!(said.contains("hint:"), "{said}");
    assert!((1 << 10..96 << 10).contains(&most), "{most} KiB were resident");
}

/// Returns the most memory that a process had so far, in KiB; nothing once it has ended.
fn resident(process: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}
