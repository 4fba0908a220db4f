//! What the body of a `DO` block may do.

/// Words that a body needs in order to change roles or rights, by itself or by a statement it puts together.
const WORDS: [&[u8]; 5] = [b"alter", b"execute", b"grant", b"reassign", b"revoke"];

/// Looks for those words in a literal that arrives in pieces. It may see one where the server would see none (in a string
/// or comment of the body), never the other way round.
#[derive(Debug, Default)]
pub(crate) struct BlockScan {
    /// The letters of the current word as far as they fit, in lower case.
    word: [u8; 8],
    /// How long the word is; beyond the room it is none of ours.
    len: usize,
    found: bool,
}

impl BlockScan {
    /// Takes a piece of the body. In quotes, unlike between dollar quotes, a backslash may spell any letter.
    pub(crate) fn push(&mut self, piece: &[u8], quoted: bool) {
        for &byte in piece {
            if byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80 {
                if let Some(letter) = self.word.get_mut(self.len) {
                    *letter = byte.to_ascii_lowercase();
                }
                self.len = self.len.saturating_add(1);
            } else {
                self.end();
                self.found |= quoted && byte == b'\\';
            }
        }
    }

    /// The literal, or the word in it, is over.
    pub(crate) fn end(&mut self) {
        let word = self.word.get(..self.len).unwrap_or_default();
        self.found |= WORDS.contains(&word);
        self.len = 0;
    }

    /// Whether such a word was seen.
    pub(crate) fn found(&self) -> bool {
        self.found
    }
}
