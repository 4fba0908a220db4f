//! A peer that plays the proxy on its internal socket.

use protocol_postgres::backend::tag;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

pub(super) fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(body.len() + 4).expect("a short message");
    [&[tag][..], &len.to_be_bytes(), body].concat()
}

pub(super) fn done(command: &str) -> Vec<u8> {
    message(tag::COMMAND_COMPLETE, format!("{command}\0").as_bytes())
}

pub(super) fn error(code: &str, text: &str) -> Vec<u8> {
    let body = format!("SERROR\0C{code}\0M{text}\0P8\0\0");
    message(tag::ERROR_RESPONSE, body.as_bytes())
}

/// One row of `id`, an integer, and texts.
pub(super) fn row(names: &[&str], values: &[&str]) -> Vec<u8> {
    let count = u16::try_from(names.len())
        .expect("few columns")
        .to_be_bytes();
    let mut description = count.to_vec();
    let mut data = count.to_vec();
    for (name, value) in names.iter().zip(values) {
        let oid: u32 = if *name == "id" { 23 } else { 25 };
        description.extend_from_slice(name.as_bytes());
        description.extend_from_slice(&[0; 7]);
        description.extend_from_slice(&oid.to_be_bytes());
        description.extend_from_slice(&[0; 8]);
        data.extend_from_slice(&u32::try_from(value.len()).expect("short").to_be_bytes());
        data.extend_from_slice(value.as_bytes());
    }
    [
        message(tag::ROW_DESCRIPTION, &description),
        message(tag::DATA_ROW, &data),
        done("SELECT 1"),
    ]
    .concat()
}

/// Lets anyone in and answers queries until the client is gone.
pub(super) async fn serve(mut stream: UnixStream, script: fn(&str) -> Vec<u8>) {
    let ready = message(tag::READY_FOR_QUERY, b"I");
    let Some(_startup) = body(&mut stream).await else {
        return;
    };
    let hello = [message(tag::AUTHENTICATION, &[0; 4]), ready.clone()].concat();
    if stream.write_all(&hello).await.is_err() {
        return;
    }
    while let Ok(b'Q') = stream.read_u8().await {
        let Some(sql) = body(&mut stream).await else {
            return;
        };
        let sql = String::from_utf8_lossy(&sql);
        let answer = [script(sql.trim_end_matches('\0')), ready.clone()].concat();
        if stream.write_all(&answer).await.is_err() {
            return;
        }
    }
}

async fn body(stream: &mut UnixStream) -> Option<Vec<u8>> {
    let len = stream.read_u32().await.ok()?.checked_sub(4)?;
    let mut body = vec![0; len as usize];
    stream.read_exact(&mut body).await.ok()?;
    Some(body)
}
