use serde_json::json;

use super::*;

fn refused(texts: &[&str]) -> String {
    match commands(texts).map(drop) {
        Err(Failure::BadRequest(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_command_on_each_line() {
    let found = commands(&["SET a \"b\\nc\"\r\n\n  get 'a b'", "client id"]).unwrap();
    let told: Vec<_> = found.iter().map(|it| (&*it.name, it.words.len())).collect();
    assert_eq!(told, [("SET", 3), ("GET", 2), ("CLIENT ID", 2)]);
    assert_eq!(found[0].words[2], b"b\nc");
    assert_eq!(
        refused(&["GET a\nGET \"a"]),
        "Field 'query': line 2: unbalanced quotes"
    );
    assert_eq!(refused(&[" \n "]), "Field 'query' must not be empty");
    for line in ["subscribe a", "CLIENT reply off", "AUTH a b", "select 0"] {
        assert!(refused(&[line]).ends_with("use a driver"), "{line}");
    }
    let many = "PING\n".repeat(MAX_COMMANDS + 1);
    assert!(refused(&[&many]).contains("at most"));
}

fn check(reply: &[u8], columns: &[&str], rows: &serde_json::Value) {
    let command = Command {
        name: "GET".into(),
        words: Vec::new(),
    };
    let found = result(&command, reply).unwrap();
    assert_eq!(found.columns, columns);
    assert_eq!(&serde_json::to_value(&found.rows).unwrap(), rows);
}

#[test]
fn replies_are_rows() {
    for (reply, rows) in [
        (&b"+OK\r\n"[..], json!([["OK"]])),
        (b":7\r\n", json!([[7]])),
        (b":9007199254740993\r\n", json!([["9007199254740993"]])),
        (b"$3\r\nabc\r\n", json!([["abc"]])),
        (b"$2\r\n\xff\x00\r\n", json!([[{ "base64": "/wA=" }]])),
        (b"_\r\n", json!([[null]])),
        (b",1.5\r\n", json!([[1.5]])),
        (b",inf\r\n", json!([["inf"]])),
        (b"#t\r\n", json!([[true]])),
        (b"*0\r\n", json!([])),
        (b"*2\r\n:1\r\n_\r\n", json!([[1], [null]])),
        (b"~1\r\n+a\r\n", json!([["a"]])),
        (
            b"*2\r\n*1\r\n:1\r\n%1\r\n+a\r\n:2\r\n",
            json!([[[1]], [[["a", 2]]]]),
        ),
        (b"*1\r\n-ERR no\r\n", json!([["ERR no"]])),
    ] {
        check(reply, &["value"], &rows);
    }
    let map = b"%2\r\n$1\r\na\r\n:1\r\n$1\r\nb\r\n*1\r\n:2\r\n";
    check(map, &["key", "value"], &json!([["a", 1], ["b", [2]]]));
}

#[test]
fn depth_has_an_end() {
    let deep = [&b"*1\r\n".repeat(100_000)[..], b":1\r\n"].concat();
    let command = Command {
        name: "EVAL".into(),
        words: Vec::new(),
    };
    assert!(matches!(
        result(&command, &deep),
        Err(Failure::BadRequest(_))
    ));
}

#[test]
fn errors_keep_their_code() {
    let engine = |text: &[u8]| match refusal(text) {
        Failure::Engine(it) => (it.code, it.message),
        other => panic!("{other:?}"),
    };
    assert_eq!(
        engine(b"WRONGTYPE Operation against a key"),
        ("WRONGTYPE".into(), "Operation against a key".into())
    );
    assert_eq!(engine(b"ODD"), ("ODD".into(), "ODD".into()));
    assert!(matches!(
        refusal(b"NOPERM no"),
        Failure::PermissionDenied(_)
    ));
    let suspended = format!("ERR {}", Fault::Suspended);
    assert!(matches!(
        refusal(suspended.as_bytes()),
        Failure::Fault(Fault::Suspended)
    ));
}
