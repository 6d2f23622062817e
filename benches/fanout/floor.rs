//! The floor: a bare loop over the same SSH library that connects, logs in, runs `true` and closes, and does nothing else.
//!
//! It runs as a process of its own, so that its time and memory are measured as everybody's are.

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use russh::ChannelMsg;
use russh::client::{self, AuthResult, Handler};
use russh::keys::{PrivateKeyWithHashAlg, PublicKeyOrCertificate, load_secret_key};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// The first argument that makes this program the floor.
pub(crate) const WORD: &str = "floor";

/// A client that takes any host key.
struct AnyHost;

impl Handler for AnyHost {
    type Error = russh::Error;

    async fn check_server_key(&mut self, _: &PublicKeyOrCertificate) -> Result<bool, Self::Error> {
        Ok(true)
    }
}

/// Reads `floor LIST KEY USER PORT PARALLEL` and runs the loop.
pub(crate) fn run(words: &[String]) -> Result<()> {
    let [_, _, list, key, user, port, parallel] = words else {
        anyhow::bail!("the floor takes five arguments")
    };
    let hosts: Vec<String> = std::fs::read_to_string(list)?.lines().map(str::to_owned).collect();
    let key = Arc::new(load_secret_key(key, None)?);
    let port: u16 = port.parse()?;
    let permits = Arc::new(Semaphore::new(parallel.parse()?));
    let configuration = Arc::new(client::Config::default());
    let user: Arc<str> = Arc::from(user.as_str());
    tokio::runtime::Runtime::new()?.block_on(async {
        let mut running = JoinSet::new();
        for host in hosts {
            let permit = Arc::clone(&permits).acquire_owned().await?;
            let (configuration, key, user) =
                (Arc::clone(&configuration), Arc::clone(&key), Arc::clone(&user));
            running.spawn(async move {
                let result = one(&host, port, configuration, key, &user).await;
                drop(permit);
                result.context(host)
            });
        }
        while let Some(result) = running.join_next().await {
            result??;
        }
        Ok(())
    })
}

async fn one(
    host: &str,
    port: u16,
    configuration: Arc<client::Config>,
    key: Arc<russh::keys::PrivateKey>,
    user: &str,
) -> Result<()> {
    let stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    let mut handle = client::connect_stream(configuration, stream, AnyHost).await?;
    let key = PrivateKeyWithHashAlg::new(key, None);
    ensure!(matches!(handle.authenticate_publickey(user, key).await?, AuthResult::Success), "not let in");
    let mut channel = handle.channel_open_session().await?;
    channel.exec(true, "true").await?;
    let mut status = None;
    while let Some(message) = channel.wait().await {
        if let ChannelMsg::ExitStatus { exit_status } = message {
            status = Some(exit_status);
        }
    }
    ensure!(status == Some(0), "`true` ended with {status:?}");
    handle.disconnect(russh::Disconnect::ByApplication, "", "").await?;
    Ok(())
}
