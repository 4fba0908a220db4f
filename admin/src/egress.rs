//! Which addresses the API may connect to on a caller's behalf: those of the public Internet, and what the operator allows.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use tokio::net::lookup_host;

use crate::api::Network;
use crate::app::failure::{Failure, Outcome};

/// Ranges that are no part of the public Internet, or could be used to reach what is not: from IANA's registries of
/// special-purpose addresses.
const CLOSED: [&str; 15] = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "240.0.0.0/4",
];
/// Of version 6 only this is given out; the rest is closed.
const GLOBAL_V6: &str = "2000::/3";
/// Within it: protocol assignments with Teredo, documentation, 6to4 (which can name any address of version 4).
const CLOSED_V6: [&str; 4] = ["2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"];

/// Whether a connection to that address may be made. `allowed` comes first.
pub fn may_connect(address: IpAddr, allowed: &[Network]) -> bool {
    let address = address.to_canonical();
    allowed.iter().any(|it| it.contains(address)) || is_public(address)
}

fn is_public(address: IpAddr) -> bool {
    let within = |ranges: &[&str]| {
        ranges
            .iter()
            .any(|it| it.parse::<Network>().is_ok_and(|it| it.contains(address)))
    };
    match address {
        IpAddr::V4(_) => !within(&CLOSED),
        IpAddr::V6(v6) => match translated(v6) {
            Some(v4) => is_public(v4),
            None => within(&[GLOBAL_V6]) && !within(&CLOSED_V6),
        },
    }
}

/// The address of version 4 behind a translator's well-known prefix, `64:ff9b::/96`.
fn translated(address: Ipv6Addr) -> Option<IpAddr> {
    let [0x64, 0xff9b, 0, 0, 0, 0, a, b] = address.segments() else {
        return None;
    };
    let ([a, b], [c, d]) = (a.to_be_bytes(), b.to_be_bytes());
    Some(IpAddr::from([a, b, c, d]))
}

/// Looks a name up, once: connect to the address that this gives, since another look-up may give another one.
///
/// # Errors
/// There is no such name, or none of its addresses may be connected to. `field` is the one to blame.
pub async fn resolve(
    field: &str,
    host: &str,
    port: u16,
    allowed: &[Network],
) -> Outcome<SocketAddr> {
    let found: Vec<SocketAddr> = match host.parse::<IpAddr>() {
        Ok(address) => vec![SocketAddr::new(address, port)],
        Err(_) => match lookup_host((host, port)).await {
            Ok(found) => found.collect(),
            Err(_) => {
                return Err(Failure::BadRequest(format!(
                    "Field '{field}': there is no host '{host}'"
                )));
            }
        },
    };
    let open = found.into_iter().find(|it| may_connect(it.ip(), allowed));
    open.ok_or_else(|| {
        Failure::BadRequest(format!(
            "Field '{field}': '{host}' is not on the public Internet, and the operator has not allowed its address (api.import_networks)"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_addresses_and_allowed_ones_are_open() {
        for (address, open) in [
            ("8.8.8.8", true),
            ("127.0.0.1", false),
            ("127.9.9.9", false),
            ("0.0.0.0", false),
            ("10.1.2.3", false),
            ("172.31.0.1", false),
            ("172.32.0.1", true),
            ("192.168.0.1", false),
            ("169.254.169.254", false),
            ("100.100.100.200", false),
            ("224.0.0.1", false),
            ("255.255.255.255", false),
            ("::1", false),
            ("::", false),
            ("::ffff:127.0.0.1", false),
            ("::ffff:8.8.8.8", true),
            ("::7f00:1", false),
            ("fe80::1", false),
            ("fd00:ec2::254", false),
            ("ff02::1", false),
            ("64:ff9b::a9fe:a9fe", false),
            ("64:ff9b::808:808", true),
            ("64:ff9b:1::1", false),
            ("2002:7f00:1::", false),
            ("2001:0:1::", false),
            ("2001:db8::1", false),
            ("2606:4700::1111", true),
        ] {
            let address: IpAddr = address.parse().unwrap();
            assert_eq!(may_connect(address, &[]), open, "{address}");
        }
        let allowed = ["10.0.0.0/8".parse().unwrap(), "::1".parse().unwrap()];
        for (address, open) in [
            ("10.1.2.3", true),
            ("::ffff:10.1.2.3", true),
            ("::1", true),
            ("127.0.0.1", false),
        ] {
            let address: IpAddr = address.parse().unwrap();
            assert_eq!(may_connect(address, &allowed), open, "{address}");
        }
    }

    #[tokio::test]
    async fn names_are_looked_up_and_judged_by_their_address() {
        let loopback = ["127.0.0.0/8".parse().unwrap(), "::1".parse().unwrap()];
        for (host, allowed, expected) in [
            ("127.0.0.1", &[][..], Err("not on the public Internet")),
            ("localhost", &[][..], Err("not on the public Internet")),
            ("localhost", &loopback[..], Ok(())),
            ("no.such.invalid", &[][..], Err("there is no host")),
            (
                "/var/run/postgresql",
                &loopback[..],
                Err("there is no host"),
            ),
            ("", &loopback[..], Err("there is no host")),
        ] {
            match (resolve("host", host, 5432, allowed).await, expected) {
                (Ok(found), Ok(())) => assert!(found.ip().is_loopback(), "{host}"),
                (Err(Failure::BadRequest(why)), Err(expected)) => {
                    assert!(why.contains(expected), "{host}: {why}");
                }
                (found, _) => panic!("{host}: {found:?}"),
            }
        }
    }
}
