//! Finds a text in any letter case.

/// How common a byte is in statements, most common first; what is not listed is rare.
const COMMON: &[u8] = b" etaorsnilcdmu_ph,.fgb0w1'=\"()$vyk23";

/// Something to look for, prepared.
#[derive(Clone, Debug)]
pub(super) struct Needle {
    /// In lower case.
    text: String,
    /// Where its rarest byte is.
    anchor: usize,
}

impl Needle {
    pub(super) fn new(text: &str) -> Self {
        let text = text.to_lowercase();
        let rarity = |byte: &u8| {
            COMMON
                .iter()
                .position(|common| common == byte)
                .unwrap_or(COMMON.len())
        };
        let anchor = text
            .bytes()
            .enumerate()
            .max_by_key(|(_, byte)| rarity(byte))
            .map_or(0, |(at, _)| at);
        Self { text, anchor }
    }

    /// Whether `text` contains it. Other alphabets than ASCII are compared in lower case too, at a price.
    pub(super) fn is_in(&self, text: &[u8]) -> bool {
        if self.text.is_ascii() {
            return self.find(text, 0).is_some();
        }
        String::from_utf8_lossy(text)
            .to_lowercase()
            .contains(&self.text)
    }

    /// Whether it may be in one of several texts that stand in `texts`; if not, it is in none.
    pub(super) fn may_be_in(&self, texts: &[u8]) -> bool {
        !self.text.is_ascii() || self.find(texts, 0).is_some()
    }

    /// Where it begins in `text`, at `from` or later. For ASCII needles.
    pub(super) fn find(&self, text: &[u8], from: usize) -> Option<usize> {
        let needle = self.text.as_bytes();
        let Some(&lower) = needle.get(self.anchor) else {
            return Some(from);
        };
        let after = from.checked_add(self.anchor)?;
        memchr::memchr2_iter(lower, lower.to_ascii_uppercase(), text.get(after..)?).find_map(
            |hit| {
                let begin = from + hit;
                let here = text.get(begin..begin + needle.len())?;
                here.eq_ignore_ascii_case(needle).then_some(begin)
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(needle: &str, text: &str, found: bool) {
        assert_eq!(
            Needle::new(needle).is_in(text.as_bytes()),
            found,
            "{needle:?} in {text:?}"
        );
    }

    #[test]
    fn any_case_anywhere() {
        check("users", "SELECT * FROM Users", true);
        check("USERS", "select * from users u", true);
        check("select", "SELECT", true);
        check("selects", "SELECT", false);
        check("", "anything", true);
        check("", "", true);
        check("x", "", false);
        check("aab", "AaAaB", true);
        check("zz", "zaz", false);
        check("GRÖSSE", "select größe, grösse", true);
        check("größe", "SELECT GRÖSSE", false);
        check("日本", "'日本語'", true);
    }

    #[test]
    fn finds_each_place() {
        let needle = Needle::new("ab");
        assert_eq!(needle.find(b"abxAB", 0), Some(0));
        assert_eq!(needle.find(b"abxAB", 1), Some(3));
        assert_eq!(needle.find(b"abxAB", 4), None);
        assert_eq!(needle.find(b"abxAB", 9), None);
    }
}
