//! Listening sockets.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, ToSocketAddrs as _};

use anyhow::{Context as _, Result, bail};
use socket2::{Domain, Protocol, Socket, Type};

/// Connections that may wait to be taken.
const BACKLOG: i32 = 4096;
/// A default port that is taken moves up by this much.
const STEP: u16 = 10_000;

/// Where to listen, and what to do if somebody else does already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    address: SocketAddr,
    /// Nobody asked for this very port: another will do.
    may_move: bool,
    /// What names it in errors.
    key: &'static str,
}

impl Wanted {
    /// An address that was asked for; or this port on loopback, which may move.
    pub(crate) fn parse(asked: Option<&str>, port: u16, key: &'static str) -> Result<Self> {
        let may_move = asked.is_none();
        Ok(Self {
            may_move,
            ..Self::exactly(asked, port, key)?
        })
    }

    /// An address that was asked for, or this port on loopback; neither moves.
    pub(crate) fn exactly(asked: Option<&str>, port: u16, key: &'static str) -> Result<Self> {
        let address = match asked {
            None => SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port),
            Some(text) => text
                .to_socket_addrs()
                .ok()
                .and_then(|mut found| found.next())
                .with_context(|| {
                    format!("{key} is '{text}': it must be an address with a port, such as 127.0.0.1:{port}")
                })?,
        };
        Ok(Self {
            address,
            may_move: false,
            key,
        })
    }

    /// Listens with so many sockets on one address.
    pub(crate) fn bind(&self, sockets: u16) -> Result<Vec<TcpListener>> {
        let mut address = self.address;
        loop {
            match bind_all(address, sockets) {
                Ok(listeners) => return Ok(listeners),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                    let higher = address.port().checked_add(STEP);
                    match higher.filter(|_| self.may_move) {
                        Some(port) => address.set_port(port),
                        None => bail!(
                            "{address} is taken by another program: stop it, or choose another address with {}",
                            self.key
                        ),
                    }
                }
                Err(error) => bail!("cannot listen on {address} ({}): {error}", self.key),
            }
        }
    }
}

fn bind_all(mut address: SocketAddr, sockets: u16) -> io::Result<Vec<TcpListener>> {
    // The first one is bound without sharing, so that another program that shares its port is not joined unawares.
    let probe = bind_one(address, false)?;
    address = probe.local_addr()?;
    drop(probe);
    (0..sockets.max(1))
        .map(|_| {
            let listener = bind_one(address, true)?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        })
        .collect()
}

fn bind_one(address: SocketAddr, shared: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    if shared {
        socket.set_reuse_port(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_an_error_or_moves() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let wanted = Wanted::parse(Some(&address.to_string()), 1, "--api").unwrap();
        let refusal = wanted.bind(1).unwrap_err().to_string();
        assert!(
            refusal.contains("taken") && refusal.contains("--api"),
            "{refusal}"
        );
        let moves = Wanted {
            may_move: true,
            ..wanted
        };
        if let Some(higher) = address.port().checked_add(STEP) {
            let bound = moves.bind(1).unwrap();
            assert!(bound[0].local_addr().unwrap().port() >= higher);
        }
    }

    #[test]
    fn several_sockets_share_a_port() {
        let wanted = Wanted::parse(Some("127.0.0.1:0"), 1, "--postgres").unwrap();
        let bound = wanted.bind(3).unwrap();
        let ports: Vec<_> = bound
            .iter()
            .map(|it| it.local_addr().unwrap().port())
            .collect();
        assert_eq!(ports, [ports[0]; 3]);
    }

    #[test]
    fn an_address_needs_a_port() {
        let refusal = Wanted::parse(Some("localhost"), 8080, "--api").unwrap_err();
        assert!(refusal.to_string().contains("127.0.0.1:8080"));
    }
}
