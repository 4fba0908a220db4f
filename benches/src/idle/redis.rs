//! How a client of Redis logs in.

use anyhow::{Result, ensure};

use super::{Connection, Login};
use crate::contender::Endpoint;

/// Logs in with `AUTH`, or where nobody does, shows with `PING` that it is served.
pub struct Auth;

impl Login for Auth {
    fn log_in(&mut self, stream: &mut dyn Connection, endpoint: &Endpoint) -> Result<()> {
        let (command, expected) = if endpoint.user.is_empty() {
            ("PING\r\n".to_owned(), "+PONG\r\n")
        } else {
            let (user, password) = (&endpoint.user, &endpoint.password);
            let arguments = ["AUTH", user, password];
            let command = arguments
                .iter()
                .fold(format!("*{}\r\n", arguments.len()), |text, it| {
                    text + &format!("${}\r\n{it}\r\n", it.len())
                });
            (command, "+OK\r\n")
        };
        stream.write_all(command.as_bytes())?;
        let mut reply = Vec::new();
        while !reply.ends_with(b"\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            reply.push(byte[0]);
        }
        ensure!(
            reply == expected.as_bytes(),
            "{}",
            String::from_utf8_lossy(&reply).trim()
        );
        Ok(())
    }
}
