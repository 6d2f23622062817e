//! Wiring of Rancher: where it is, whom to trust, and what it says of the cluster.
#![expect(clippy::disallowed_methods, reason = "the token's and the CA's files are read here")]

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::arguments::RancherOptions;
use super::failure::{CANCELLED, FAILED, Failure, REFUSED, USAGE};
use super::settings;
use super::terminal::Terminal;
use crate::escape::shown;
use crate::execute::Rancher;
use crate::facts::AGENT_CHECK_INTERVAL;
use crate::inventory::{Inventory, Secret};
use crate::plan::{RancherNodeState, RancherTarget, RancherWork, RotationOffer};
use crate::rancher::{
    Client, Cluster, OwnAuthority, RancherError, Rotation, ServerVersion, Settings, Trust, first_look,
    rotation_state,
};

/// How long Rancher may take for one answer.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Connects to Rancher and asks it about the cluster; a person may be asked whether it is to be trusted.
pub(super) async fn connect(
    options: &RancherOptions,
    inventory: &Inventory,
    terminal: &Terminal,
) -> Result<(Rancher, RancherTarget), Failure> {
    describe(client(options, terminal).await?, options, inventory).await
}

/// Asks Rancher about the cluster.
async fn describe(
    client: Client,
    options: &RancherOptions,
    inventory: &Inventory,
) -> Result<(Rancher, RancherTarget), Failure> {
    let wanted = options.rancher_cluster.as_deref().unwrap_or(&inventory.cluster_name);
    let version = client.server_version().await.map_err(failure)?;
    let cluster = client.find_cluster(wanted).await.map_err(failure)?;
    let nodes = client.nodes(&cluster.id).await.map_err(failure)?;
    let agent_check_interval =
        nodes.iter().filter_map(|node| node.agent_check_interval).max().unwrap_or(AGENT_CHECK_INTERVAL);
    let target = RancherTarget {
        url: client.address(),
        version: version.as_str().to_owned(),
        cluster_id: cluster.id.clone(),
        rotation: rotation_offer(&cluster, &version),
        state: cluster.state.clone(),
        work: work(&cluster),
        nodes: nodes
            .iter()
            .map(|node| RancherNodeState {
                names: std::iter::once(&node.name)
                    .chain(&node.addresses)
                    .map(|name| name.to_lowercase())
                    .collect(),
                state: node.state.clone(),
            })
            .collect(),
        agent_check_interval,
    };
    Ok((Rancher { client, cluster_id: cluster.id }, target))
}

/// Returns whether Rancher offers to rotate, and what to do where it does not.
fn rotation_offer(cluster: &Cluster, version: &ServerVersion) -> RotationOffer {
    if cluster.can_rotate() {
        return RotationOffer::Offered;
    }
    let why = cluster.why_no_rotation(Some(version));
    RotationOffer::Missing { reason: why.to_string(), way_out: why.way_out().to_owned() }
}

/// Returns what Rancher is in the middle of.
fn work(cluster: &Cluster) -> RancherWork {
    if cluster.rotation_flag.as_ref().is_some_and(|flag| flag.certificate_authority) {
        return RancherWork::RotatingAuthority { message: cluster.transitioning_message.clone() };
    }
    match rotation_state(cluster) {
        Rotation::Running { message } => RancherWork::Rotating { message },
        Rotation::Failing { message } => RancherWork::RotationFails { message },
        Rotation::Finished | Rotation::Idle if cluster.is_being_changed() => {
            RancherWork::Provisioning { message: cluster.transitioning_message.clone() }
        }
        Rotation::Finished | Rotation::Idle => RancherWork::None,
    }
}

/// Refuses another cluster, or another Rancher, than those that the calls of a plan name.
pub(super) fn refuse_other(target: &RancherTarget, calls: &[(&str, &str)]) -> Result<(), Failure> {
    let RancherTarget { url, cluster_id, .. } = target;
    let Some((planned_url, planned)) = calls.iter().find(|(at, id)| at != url || id != cluster_id) else {
        return Ok(());
    };
    let message = format!(
        "the plan has Rancher rotate cluster `{planned}` of {planned_url}, and this is `{cluster_id}` of {url}"
    );
    Err(Failure::message(REFUSED, message).hint(format!(
        "give `--rancher-url {planned_url} --rancher-cluster {planned}`, or make the plan anew"
    )))
}

/// Asks Rancher about the cluster where its address and a token are at hand; what it says helps, and is not needed. What was given and
/// cannot be used is an error all the same: who gives it counts on it.
pub(super) async fn consult(
    options: &RancherOptions,
    inventory: &Inventory,
    terminal: &Terminal,
) -> Result<Option<(Rancher, RancherTarget)>, Failure> {
    let Some(url) = &options.rancher_url else { return Ok(None) };
    if options.rancher_token_file.is_none() && settings::rancher_token().is_none() {
        // In the environment an address may stand for other commands.
        if settings::rancher_url().as_ref() != Some(url) {
            terminal.mention(
                "warning: going on without Rancher: no token is given\nhint: set RANCHER_TOKEN, or give --rancher-token-file FILE",
            );
        }
        return Ok(None);
    }
    let found = match acquaint(options, None).await {
        Ok(client) => describe(client, options, inventory).await,
        Err(failure) => Err(failure),
    };
    match found {
        Ok(found) => Ok(Some(found)),
        Err(failure) if failure.status == USAGE => Err(failure),
        Err(failure) => {
            let cause = failure.cause();
            let hints = failure.hints.iter().map(|hint| format!("\nhint: {}", shown(hint)));
            let hints: String = hints.collect();
            terminal.mention(&format!("warning: going on without Rancher: {}{hints}", shown(&cause)));
            Ok(None)
        }
    }
}

/// Makes the client of a server whose certificate is trusted; the token has been sent nowhere yet.
pub(super) async fn client(options: &RancherOptions, terminal: &Terminal) -> Result<Client, Failure> {
    acquaint(options, Some(terminal)).await
}

/// Makes the client; without a terminal nobody is asked whether a server is to be trusted.
async fn acquaint(options: &RancherOptions, terminal: Option<&Terminal>) -> Result<Client, Failure> {
    let Some(url) = options.rancher_url.clone() else {
        return Err(Failure::usage("Rancher's address is not known")
            .hint("give --rancher-url URL, or set RANCHER_URL".to_owned()));
    };
    let trust = match (&options.rancher_ca, &options.rancher_ca_checksum) {
        (Some(file), _) => Trust::CertificateAuthority(read(file)?),
        (None, Some(checksum)) => Trust::Checksum(checksum.clone()),
        (None, None) => Trust::SystemRoots,
    };
    let settings = Settings { url, token: token(options)?, trust, timeout: TIMEOUT };
    let client = Client::new(settings.clone()).await.map_err(failure)?;
    match client.handshake().await {
        Ok(()) => Ok(client),
        Err(error @ RancherError::UnknownAuthority { .. }) if settings.trust == Trust::SystemRoots => {
            introduce(settings, error, terminal).await
        }
        Err(error) => Err(failure(error)),
    }
}

/// Shows the authority that a server names as its own and asks whether it is the right one, as ssh does of a host it does not know.
///
/// `--yes` does not answer, and the answer holds for this command alone.
async fn introduce(
    settings: Settings,
    error: RancherError,
    terminal: Option<&Terminal>,
) -> Result<Client, Failure> {
    let Some(own) = first_look(&settings.url, TIMEOUT).await.map_err(failure)? else {
        return Err(Failure::new(REFUSED, error).hint(
            "Rancher names no authority of its own (`cacerts` is empty): give the file of the one that signed its certificate, \
             `--rancher-ca FILE`"
                .to_owned(),
        ));
    };
    let Some(terminal) = terminal.filter(|terminal| terminal.can_ask()) else {
        return Err(Failure::new(REFUSED, error)
            .hint(format!("it names an authority of its own, {}", described(&own)))
            .hint(COMPARE.to_owned())
            .hint(format!("if they are the same: `--rancher-ca-checksum {}`", own.checksum)));
    };
    let question = introduction(&settings.url, &own);
    if terminal.ask(&question).as_deref() != Some("yes") {
        return Err(Failure::message(
            CANCELLED,
            "the authority of Rancher is not trusted; the token was not sent",
        ));
    }
    terminal.mention(&format!(
        "Trusted for this command; `--rancher-ca-checksum {}` says so without a question.",
        own.checksum
    ));
    let settings = Settings { trust: Trust::CertificateAuthority(own.pem.into_bytes()), ..settings };
    let client = Client::new(settings).await.map_err(failure)?;
    client.handshake().await.map_err(failure)?;
    Ok(client)
}

/// How a checksum is compared over a way that does not lead through this server.
const COMPARE: &str = "compare its checksum with the one that Rancher's agents were given, on a node of the cluster: \
    `docker inspect $(docker ps -aqf name=cattle-node-agent) | grep -m1 CATTLE_CA_CHECKSUM`";

/// Returns what is asked of a server that nobody has vouched for.
fn introduction(url: &str, own: &OwnAuthority) -> String {
    format!(
        "The certificate of `{url}` is signed by an authority that this machine does not know.\nRancher names it as its own:\n  \
         {}\n  checksum {}\nTo be sure that no other machine answers here, {COMPARE}\n\nIs it the same, and trusted? Only `yes` is taken for a yes:",
        described(own),
        own.checksum
    )
}

/// Returns who an authority says it is, on one line.
fn described(own: &OwnAuthority) -> String {
    own.certificate.as_ref().map_or_else(
        || "which cannot be read as a certificate".to_owned(),
        |found| {
            let (begin, end) = (found.not_before.strftime("%F"), found.not_after.strftime("%F"));
            format!("{}, valid from {begin} to {end}", shown(&found.subject))
        },
    )
}

/// Returns the token; it never comes from an argument, which everybody on the machine could read.
fn token(options: &RancherOptions) -> Result<Secret, Failure> {
    let text = match &options.rancher_token_file {
        Some(file) => String::from_utf8(read(file)?)
            .map_err(|_| Failure::usage(format!("`{}` is not text", file.display())))?,
        None => settings::rancher_token().ok_or_else(|| {
            Failure::usage("a token of Rancher's is needed").hint(
                "set RANCHER_TOKEN, or give --rancher-token-file FILE (Rancher: your avatar, API & Keys)"
                    .to_owned(),
            )
        })?,
    };
    Ok(Secret::new(text.trim().to_owned()))
}

fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    fs::read(file).map_err(|error| Failure::usage(format!("`{}` cannot be read: {error}", file.display())))
}

/// Returns an error of Rancher's as that of a command: nothing was changed.
pub(super) fn failure(error: RancherError) -> Failure {
    let hint = error.hint();
    let status = match &error {
        error if error.is_transient() => FAILED,
        RancherError::Address { .. }
        | RancherError::Token
        | RancherError::CertificateAuthority(_)
        | RancherError::NotAChecksum(_) => USAGE,
        _ => REFUSED,
    };
    Failure::new(status, error).hint(hint)
}
