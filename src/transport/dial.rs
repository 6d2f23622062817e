//! Dialling is how a TCP connection to one of a host's addresses comes about.
//!
//! The connector calls it. Addresses are tried a little apart from each other (RFC 8305), so that a silent one does not eat the time
//! of the others.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::net::TcpStream;

use super::ssh_config::AddressFamily;

/// How long an address is waited for before the next one is tried beside it (RFC 8305, 5: the recommended delay).
const STAGGER: Duration = Duration::from_millis(250);

/// Returns addresses in the order in which they are tried: that of the resolver, with the two families in turn (RFC 8305, 4).
pub(super) fn in_turn(addresses: impl Iterator<Item = SocketAddr>, family: AddressFamily) -> Vec<SocketAddr> {
    let fits = |address: &SocketAddr| match family {
        AddressFamily::Any => true,
        AddressFamily::Inet => address.is_ipv4(),
        AddressFamily::Inet6 => address.is_ipv6(),
    };
    let addresses: Vec<SocketAddr> = addresses.filter(fits).collect();
    let Some(first) = addresses.first().copied() else { return addresses };
    let (ours, others): (Vec<SocketAddr>, Vec<SocketAddr>) =
        addresses.into_iter().partition(|address| address.is_ipv4() == first.is_ipv4());
    let (mut ours, mut others) = (ours.into_iter(), others.into_iter());
    let mut turns = Vec::with_capacity(ours.len() + others.len());
    while ours.len() + others.len() > 0 {
        turns.extend(ours.next());
        turns.extend(others.next());
    }
    turns
}

/// Connects to the first address that answers.
pub(super) async fn first_to_answer(addresses: Vec<SocketAddr>) -> io::Result<TcpStream> {
    if let [address] = addresses.as_slice() {
        return TcpStream::connect(*address).await;
    }
    let mut left = addresses.into_iter();
    let mut attempts = FuturesUnordered::new();
    let mut failure: Option<io::Error> = None;
    loop {
        match left.next() {
            Some(address) => attempts.push(TcpStream::connect(address)),
            None if attempts.is_empty() => {
                return Err(failure.unwrap_or_else(|| io::ErrorKind::AddrNotAvailable.into()));
            }
            None => {}
        }
        let next = async {
            if left.len() == 0 {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(STAGGER).await;
        };
        tokio::select! {
            Some(result) = attempts.next() => match result {
                Ok(stream) => return Ok(stream),
                Err(error) => failure = Some(telling(failure, error)),
            },
            () = next => {}
        }
    }
}

/// Returns the failure that tells more: a host that refuses is there, and a family without a route says nothing about it.
fn telling(first: Option<io::Error>, second: io::Error) -> io::Error {
    match first {
        Some(first) if second.kind() != io::ErrorKind::ConnectionRefused => first,
        _ => second,
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use tokio::net::TcpListener;

    use super::*;

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn families_take_turns_in_the_resolvers_order() {
        let known = addresses(&["[::1]:1", "[::2]:1", "[::3]:1", "10.0.0.1:1", "10.0.0.2:1"]);
        let turns = |family| in_turn(known.iter().copied(), family);
        let expected = addresses(&["[::1]:1", "10.0.0.1:1", "[::2]:1", "10.0.0.2:1", "[::3]:1"]);
        assert_eq!(turns(AddressFamily::Any), expected);
        assert_eq!(turns(AddressFamily::Inet), addresses(&["10.0.0.1:1", "10.0.0.2:1"]));
        assert_eq!(turns(AddressFamily::Inet6).len(), 3);
        assert_eq!(in_turn([].into_iter(), AddressFamily::Any), []);
    }

    async fn listener() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    #[tokio::test]
    async fn an_address_that_refuses_gives_way_at_once() {
        let (_listener, good) = listener().await;
        let (closed, refusing) = listener().await;
        drop(closed);
        let stream = first_to_answer(vec![refusing, good]).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), good);
    }

    #[tokio::test]
    async fn a_host_that_refuses_everywhere_refuses() {
        let (closed, refusing) = listener().await;
        drop(closed);
        let nowhere = SocketAddr::from((Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1), 1));
        for addresses in [vec![refusing], vec![refusing, nowhere], vec![nowhere, refusing]] {
            let error = first_to_answer(addresses.clone()).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused, "{addresses:?}");
        }
    }
}
