//! How a client of PostgreSQL logs in.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::num::NonZeroU32;

use anyhow::{Context, Result, bail};
use protocol_postgres::frontend::write;
use protocol_postgres::scram::{
    Client, ClientBinding, Credentials, Nonce, SCRAM_SHA_256, ScramSecret,
};
use protocol_postgres::startup;

use super::{Connection, Login};
use crate::contender::Endpoint;

/// Logs in, deriving a password's keys once.
#[derive(Default)]
pub struct Scram {
    /// The password with which they were derived, and they.
    secret: Option<(String, ScramSecret)>,
}

impl Login for Scram {
    fn ask_for_tls(&self, stream: &mut TcpStream) -> Result<()> {
        let mut request = Vec::new();
        startup::write::ssl_request(&mut request);
        stream.write_all(&request)?;
        let mut answer = [0];
        stream.read_exact(&mut answer)?;
        if answer != [b'S'] {
            bail!("no TLS is offered");
        }
        Ok(())
    }

    fn log_in(&mut self, stream: &mut dyn Connection, endpoint: &Endpoint) -> Result<()> {
        let mut out = Vec::new();
        let parameters = [
            (&b"user"[..], endpoint.user.as_bytes()),
            (b"database", endpoint.database.as_bytes()),
        ];
        startup::write::startup_message(&mut out, protocol_postgres::PROTOCOL_3_0, parameters)?;
        stream.write_all(&out)?;
        read_message(stream)?;
        let (client, first) = Client::start("", ClientBinding::Unsupported, Nonce::random()?);
        out.clear();
        write::sasl_initial_response(&mut out, SCRAM_SHA_256, &first)?;
        stream.write_all(&out)?;
        let (_, body) = read_message(stream)?;
        let challenge = body.get(4..).context("a short challenge")?;
        let secret = self.secret_for(challenge, &endpoint.password)?;
        let credentials = Credentials::Keys {
            salt: &secret.salt,
            iterations: secret.iterations,
            client_key: &secret.client_key,
            server_key: &secret.server_key,
        };
        let (_, last) = client.respond(challenge, credentials)?;
        out.clear();
        write::sasl_response(&mut out, &last)?;
        stream.write_all(&out)?;
        loop {
            match read_message(stream)? {
                (b'Z', _) => return Ok(()),
                (b'E', body) => bail!("{}", String::from_utf8_lossy(&body).replace('\0', " ")),
                _ => {}
            }
        }
    }
}

impl Scram {
    fn secret_for(&mut self, challenge: &[u8], password: &str) -> Result<&ScramSecret> {
        let text = std::str::from_utf8(challenge)?;
        let field = |name: &str| text.split(',').find_map(|it| it.strip_prefix(name));
        let salt = field("s=").context("no salt")?;
        let salt = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, salt)?;
        let iterations: NonZeroU32 = field("i=").context("no iterations")?.parse()?;
        // The contenders' salts may be equal where their passwords are not.
        let known = self.secret.as_ref();
        if !known.is_some_and(|(of, secret)| of == password && secret.salt == salt) {
            let secret = ScramSecret::derive(password.as_bytes(), &salt, iterations);
            self.secret = Some((password.to_owned(), secret));
        }
        self.secret
            .as_ref()
            .map(|(_, secret)| secret)
            .context("no secret")
    }
}

fn read_message(stream: &mut dyn Connection) -> Result<(u8, Vec<u8>)> {
    let mut head = [0; 5];
    stream.read_exact(&mut head)?;
    let [tag, len @ ..] = head;
    let len = (u32::from_be_bytes(len) as usize).saturating_sub(4);
    let mut body = vec![0; len];
    stream.read_exact(&mut body)?;
    Ok((tag, body))
}
