//! Against a peer that plays its part from a script.

use std::time::Duration;

use protocol_postgres::backend::tag;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixListener;

use crate::app::failure::Failure;
use crate::query::{Budget, Target, run};

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(body.len() + 4).unwrap();
    [&[tag][..], &len.to_be_bytes(), body].concat()
}

fn ready() -> Vec<u8> {
    message(tag::READY_FOR_QUERY, b"I")
}

fn error(code: &str, text: &str) -> Vec<u8> {
    error_of("ERROR", code, text)
}

fn error_of(severity: &str, code: &str, text: &str) -> Vec<u8> {
    let body = format!("S{severity}\0C{code}\0M{text}\0P15\0HTry\0\0");
    message(tag::ERROR_RESPONSE, body.as_bytes())
}

/// Lets anyone in and answers the first query with `answer`, a few bytes at a time.
async fn ask(answer: Vec<u8>, limit: usize) -> Result<String, Failure> {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("socket");
    let listener = UnixListener::bind(&socket).unwrap();
    let peer = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut seen = [0; 4096];
        assert_ne!(stream.read(&mut seen).await.unwrap(), 0);
        let hello = [message(tag::AUTHENTICATION, &[0; 4]), ready()].concat();
        stream.write_all(&hello).await.unwrap();
        assert_ne!(stream.read(&mut seen).await.unwrap(), 0);
        for piece in answer.chunks(3) {
            if stream.write_all(piece).await.is_err() {
                return;
            }
        }
        // Until the other side is done: what it does not need it need not read.
        let _ = stream.read(&mut seen).await;
    });
    let budget = Budget::new(limit);
    let target = Target {
        engine: control_store::Engine::Postgres,
        socket: &socket,
        user: "tdb_1",
        password: "secret",
        database: "shop_workspace",
        deadline: Duration::from_secs(60),
        budget: &budget,
    };
    let results = run(&target, &["SELECT 1"]).await;
    peer.await.unwrap();
    Ok(results?
        .iter()
        .map(|it| {
            let rows = serde_json::to_string(&it.rows).unwrap();
            format!("{} {:?} {rows} {:?};", it.command, it.columns, it.affected)
        })
        .collect())
}

const COLUMN: &[u8] = b"\0\x01id\0\0\0\0\0\0\0\0\0\0\x17\0\x04\xff\xff\xff\xff\0\0";
const ROW: &[u8] = b"\0\x01\0\0\0\x0242";

#[tokio::test]
async fn several_statements() {
    let answer = [
        message(tag::COMMAND_COMPLETE, b"INSERT 0 5\0"),
        message(tag::ROW_DESCRIPTION, COLUMN),
        message(tag::DATA_ROW, ROW),
        message(tag::COMMAND_COMPLETE, b"SELECT 1\0"),
        message(tag::COMMAND_COMPLETE, b"CREATE TABLE\0"),
        ready(),
    ]
    .concat();
    assert_eq!(
        ask(answer, 100).await.unwrap(),
        r#"INSERT [] [] Some(5);SELECT ["id"] [[42]] None;CREATE TABLE [] [] None;"#
    );
}

#[tokio::test]
async fn an_error_carries_code_and_position() {
    let answer = [error("42P01", "relation \"x\" does not exist"), ready()].concat();
    let Err(Failure::Engine(found)) = ask(answer, 100).await else {
        panic!("an error of the engine")
    };
    assert_eq!((found.code.as_str(), found.position), ("42P01", Some(15)));
    assert_eq!(found.hint.as_deref(), Some("Try"));
}

#[tokio::test]
async fn a_fatal_error_is_told_though_the_connection_ends_without_a_word() {
    let Err(Failure::Engine(found)) = ask(error_of("FATAL", "54000", "too many rows"), 100).await
    else {
        panic!("an error of the engine")
    };
    assert_eq!(found.code, "54000");
}

#[tokio::test]
async fn results_have_a_limit_and_copy_is_refused() {
    let rows = [
        message(tag::ROW_DESCRIPTION, COLUMN),
        message(tag::DATA_ROW, ROW),
        message(tag::DATA_ROW, ROW),
    ]
    .concat();
    let Err(Failure::BadRequest(why)) = ask(rows, 10).await else {
        panic!("too large")
    };
    assert!(why.contains("larger than 10 bytes"));
    let copy = message(tag::COPY_OUT_RESPONSE, b"\0\0\0");
    assert!(matches!(ask(copy, 10).await, Err(Failure::BadRequest(_))));
}

#[tokio::test]
async fn what_the_role_may_not_is_permission_denied() {
    let answer = [error("42501", "permission denied for table t"), ready()].concat();
    assert!(matches!(
        ask(answer, 10).await,
        Err(Failure::PermissionDenied(_))
    ));
    let answer = [error("42501", control_store::fault::DDL_REFUSED), ready()].concat();
    assert!(matches!(ask(answer, 10).await, Err(Failure::Engine(_))));
}
