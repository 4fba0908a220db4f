//! What clients say to a server and what it answers, from `dialogues.txt`.

use std::collections::BTreeMap;

pub(crate) fn encode(words: &[&str]) -> Vec<u8> {
    let words: Vec<&[u8]> = words.iter().map(|it| it.as_bytes()).collect();
    let mut out = Vec::new();
    protocol_redis::reply::write::command(&mut out, &words);
    out
}

/// What one client sends at once, and what all of them are sent after it.
#[derive(Default)]
pub(crate) struct Turn {
    pub(crate) client: usize,
    pub(crate) sends: Vec<u8>,
    pub(crate) answers: BTreeMap<usize, Vec<u8>>,
}

pub(crate) struct Dialogue {
    pub(crate) name: &'static str,
    pub(crate) turns: Vec<Turn>,
}

/// `<n>` stands for n letters.
fn expand(word: &str, password: &str) -> String {
    let letters = word.strip_prefix('<').and_then(|it| it.strip_suffix('>'));
    match letters.and_then(|it| it.parse().ok()) {
        Some(count) => "x".repeat(count),
        None => word.replace("PASSWORD", password),
    }
}

/// Those of `dialogues.txt`. But for the one about logins, each client's first words are a login.
pub(crate) fn dialogues(password: &str) -> Vec<Dialogue> {
    let mut dialogues: Vec<Dialogue> = Vec::new();
    let mut answered = true;
    let mut known: Vec<usize> = Vec::new();
    for line in include_str!("dialogues.txt").lines() {
        if let Some(name) = line.strip_prefix("== ") {
            let turns = Vec::new();
            dialogues.push(Dialogue { name, turns });
            (answered, known) = (true, Vec::new());
            continue;
        }
        let Some(dialogue) = dialogues.last_mut() else {
            continue;
        };
        let (Some((client, rest)), false) = (line.split_once(['<', '>']), line.starts_with('#'))
        else {
            continue;
        };
        let sent = line.as_bytes().get(client.len()) == Some(&b'>');
        let client: usize = client.parse().unwrap();
        if !sent {
            let turn = dialogue.turns.last_mut().unwrap();
            let answer = turn.answers.entry(client).or_default();
            answer.extend(expand(rest.strip_prefix(' ').unwrap(), password).into_bytes());
            answer.extend(b"\r\n");
            answered = true;
            continue;
        }
        if std::mem::take(&mut answered) || dialogue.turns.last().unwrap().client != client {
            dialogue.turns.push(Turn {
                client,
                ..Turn::default()
            });
        }
        let logs_in = dialogue.name != "logins" && !known.contains(&client);
        let turn = dialogue.turns.last_mut().unwrap();
        if logs_in {
            known.push(client);
            turn.sends.extend(encode(&["AUTH", "acme", password]));
            turn.answers.entry(client).or_default().extend(b"+OK\r\n");
        }
        if let Some(raw) = rest.strip_prefix("> ") {
            turn.sends.extend(format!("{raw}\r\n").into_bytes());
        } else {
            let words: Vec<String> = rest
                .split_whitespace()
                .map(|it| expand(it, password))
                .collect();
            let words: Vec<&str> = words.iter().map(|it| &**it).collect();
            turn.sends.extend(encode(&words));
        }
    }
    dialogues
}

/// What a client is sent, without what differs from run to run and from server to server.
pub(crate) fn told(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut lines = text.split("\r\n");
    let mut told = Vec::new();
    while let Some(line) = lines.next() {
        told.push(if line.len() > 200 { "..." } else { line });
        if line == "id" && lines.next().is_some() {
            told.push(":ID");
        }
        if line == "version" && lines.next().is_some() && lines.next().is_some() {
            told.push("VERSION");
        }
    }
    told.join("|")
}
