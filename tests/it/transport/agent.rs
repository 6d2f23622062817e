//! An SSH agent inside the test process, which holds keys in an order, security keys among them, and may be slow to sign.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use russh::keys::signature::Signer as _;
use russh::keys::ssh_encoding::Encode as _;
use russh::keys::ssh_key::Signature;
use russh::keys::{Certificate, PrivateKey, PublicKey};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};

use super::operator::Operator;

/// What a token signs for, as `ssh-keygen` makes it.
const APPLICATION: &str = "ssh:";

/// The flag that somebody has touched the token.
const TOUCHED: u8 = 1;

/// One identity of an agent.
#[derive(Clone)]
pub(crate) enum Held {
    Key(PrivateKey),
    /// A certificate, and the key that it is for.
    Certificate(Box<Certificate>, PrivateKey),
    /// A key in a token, which signs with what it is given here.
    InToken(PrivateKey),
}

/// What an agent does when it is asked to sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Consent {
    Given,
    Refused,
    /// It waits for somebody who never comes.
    Awaited,
}

/// A running agent; it ends with the runtime of its test.
pub(crate) struct Agent {
    pub(crate) socket: PathBuf,
    shared: Arc<Shared>,
}

struct Shared {
    held: Vec<Held>,
    consent: Consent,
    listed: AtomicUsize,
    asked_to_sign: AtomicUsize,
}

impl Agent {
    pub(super) fn start(operator: &Operator, held: Vec<Held>, consent: Consent) -> Self {
        Self::at(operator.path("agent"), held, consent)
    }

    pub(crate) fn at(socket: PathBuf, held: Vec<Held>, consent: Consent) -> Self {
        let listener = UnixListener::bind(&socket).unwrap();
        let (listed, asked_to_sign) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let shared = Arc::new(Shared { held, consent, listed, asked_to_sign });
        let agent = Self { socket, shared: Arc::clone(&shared) };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&shared)));
            }
        });
        agent
    }

    /// Returns how many times its keys were listed.
    pub(crate) fn listed(&self) -> usize {
        self.shared.listed.load(Ordering::SeqCst)
    }

    /// Returns how many times it was asked to sign.
    pub(crate) fn asked_to_sign(&self) -> usize {
        self.shared.asked_to_sign.load(Ordering::SeqCst)
    }
}

impl Held {
    /// Returns the public key as servers and agents see it.
    pub(crate) fn blob(&self) -> Vec<u8> {
        match self {
            Self::Key(key) => key.public_key().to_bytes().unwrap(),
            Self::Certificate(certificate, _) => certificate.to_bytes().unwrap(),
            Self::InToken(key) => {
                let plain = key.public_key().to_bytes().unwrap();
                let mut blob = Vec::new();
                token_algorithm(key).encode(&mut blob).unwrap();
                // What follows the name of the algorithm is the same.
                blob.extend_from_slice(&plain[4 + key.algorithm().as_str().len()..]);
                APPLICATION.encode(&mut blob).unwrap();
                blob
            }
        }
    }

    /// Returns the public key for `authorized_keys`.
    pub(crate) fn public_key(&self) -> PublicKey {
        PublicKey::from_bytes(&self.blob()).unwrap()
    }

    fn sign(&self, data: &[u8]) -> Vec<u8> {
        let (Self::Key(key) | Self::Certificate(_, key) | Self::InToken(key)) = self;
        if !matches!(self, Self::InToken(_)) {
            let signature: Signature = key.try_sign(data).unwrap();
            return signature.try_into().unwrap();
        }
        let counter = 7_u32.to_be_bytes();
        let signed = [&Sha256::digest(APPLICATION)[..], &[TOUCHED], &counter, &Sha256::digest(data)].concat();
        let signature: Signature = key.try_sign(&signed).unwrap();
        let mut blob = Vec::new();
        token_algorithm(key).encode(&mut blob).unwrap();
        signature.as_bytes().encode(&mut blob).unwrap();
        blob.push(TOUCHED);
        blob.extend_from_slice(&counter);
        blob
    }
}

/// Returns how OpenSSH calls such a key when it lies in a token.
fn token_algorithm(key: &PrivateKey) -> String {
    format!("sk-{}@openssh.com", key.algorithm())
}

/// Answers one client.
async fn serve(mut stream: UnixStream, shared: Arc<Shared>) -> std::io::Result<()> {
    loop {
        let length = stream.read_u32().await?;
        let mut request = vec![0; length as usize];
        stream.read_exact(&mut request).await?;
        let answer = match request[0] {
            11 => shared.list(),
            13 => {
                shared.asked_to_sign.fetch_add(1, Ordering::SeqCst);
                if shared.consent == Consent::Awaited {
                    std::future::pending::<()>().await;
                }
                shared.sign(&request[1..])
            }
            _ => vec![5],
        };
        stream.write_u32(answer.len().try_into().unwrap()).await?;
        stream.write_all(&answer).await?;
    }
}

impl Shared {
    fn list(&self) -> Vec<u8> {
        self.listed.fetch_add(1, Ordering::SeqCst);
        let mut answer = vec![12];
        u32::try_from(self.held.len()).unwrap().encode(&mut answer).unwrap();
        for (held, number) in self.held.iter().zip(1..) {
            held.blob().encode(&mut answer).unwrap();
            format!("key {number}").encode(&mut answer).unwrap();
        }
        answer
    }

    fn sign(&self, request: &[u8]) -> Vec<u8> {
        let (key, rest) = string(request);
        let (data, _) = string(rest);
        let held = self.held.iter().find(|held| held.blob() == key);
        let Some(held) = held.filter(|_| self.consent == Consent::Given) else { return vec![5] };
        let mut answer = vec![14];
        held.sign(data).encode(&mut answer).unwrap();
        answer
    }
}

/// Splits a text with its length before it off.
fn string(bytes: &[u8]) -> (&[u8], &[u8]) {
    let (length, rest) = bytes.split_first_chunk().unwrap();
    rest.split_at(u32::from_be_bytes(*length) as usize)
}
