//! The lexer and classifier.

use protocol_sql::{Classifier, Options, TrailBytes, split};

/// The first byte chooses how the text is read, the second where it is cut: a text in pieces is classified as the whole is,
/// and its statements are parts of it, in order.
pub fn classify(data: &[u8]) {
    let [how, step, text @ ..] = data else {
        return;
    };
    let options = Options {
        standard_conforming_strings: how & 1 == 0,
        backslash_trail_bytes: match how >> 1 & 3 {
            0 | 3 => TrailBytes::Never,
            1 => TrailBytes::ShiftJis,
            _ => TrailBytes::AfterHighByte,
        },
    };
    let whole = protocol_sql::classify(text, &options);
    let mut pieces = Classifier::new(&options);
    for piece in text.chunks(usize::from(*step).max(1)) {
        pieces.push(piece);
        pieces.push(&[]);
    }
    assert_eq!(pieces.finish(), whole, "cut every {step}");
    let mut halves = Classifier::new(&options);
    let (first, second) = text.split_at(usize::from(*step).min(text.len()));
    halves.push(first);
    halves.push(second);
    assert_eq!(halves.finish(), whole, "cut at {step}");

    if let Ok(text) = std::str::from_utf8(text) {
        let mut rest = text;
        for statement in split(text, &options) {
            let at = rest.find(statement).expect("a part of the text");
            rest = &rest[at + statement.len()..];
        }
    }
}
