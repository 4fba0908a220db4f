//! What the session has told the server about how its text is to be read.

/// The settings of a session that change how the server lexes its statements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// The setting of that name: when off, a backslash escapes in plain `'…'` strings too.
    pub standard_conforming_strings: bool,
    /// How the client encoding uses ASCII bytes inside its characters.
    pub backslash_trail_bytes: TrailBytes,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            standard_conforming_strings: true,
            backslash_trail_bytes: TrailBytes::Never,
        }
    }
}

impl Options {
    /// The options of a session with this `client_encoding`, spelled in any of the ways the
    /// server accepts (`SJIS`, `shift_jis`, `Win-932` …).
    #[must_use]
    pub fn for_encoding(client_encoding: &str, standard_conforming_strings: bool) -> Self {
        let backslash_trail_bytes = TrailBytes::of_encoding(client_encoding);
        Self {
            standard_conforming_strings,
            backslash_trail_bytes,
        }
    }
}

/// How a client encoding uses the bytes `0x40..=0x7E` as the second byte of a character.
///
/// Such a byte is no backslash and no letter, because the server converts the text before it
/// lexes it. Half-width katakana is why one flag would not do: in Shift JIS, and only there,
/// `0xA1..=0xDF` are characters of one byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TrailBytes {
    /// Never: UTF-8, the single-byte encodings and the EUC family.
    #[default]
    Never,
    /// Shift JIS: after `0x81..=0xA0` and `0xE0..=0xFF`.
    ShiftJis,
    /// BIG5, GBK, GB18030, UHC and JOHAB: after every byte above `0x7F`.
    AfterHighByte,
}

impl TrailBytes {
    fn of_encoding(name: &str) -> Self {
        let is = |known: &str| {
            let letters = name.bytes().filter(u8::is_ascii_alphanumeric);
            letters
                .map(|byte| byte.to_ascii_lowercase())
                .eq(known.bytes())
        };
        const SHIFT_JIS: [&str; 6] = [
            "sjis",
            "shiftjis",
            "mskanji",
            "win932",
            "windows932",
            "shiftjis2004",
        ];
        const HIGH_BYTE: [&str; 10] = [
            "big5",
            "win950",
            "windows950",
            "gbk",
            "win936",
            "windows936",
            "gb18030",
            "uhc",
            "win949",
            "windows949",
        ];
        if SHIFT_JIS.into_iter().any(is) {
            Self::ShiftJis
        } else if is("johab") || HIGH_BYTE.into_iter().any(is) {
            Self::AfterHighByte
        } else {
            Self::Never
        }
    }

    /// Whether `byte` begins a character of two bytes.
    pub(crate) fn leads(self, byte: u8) -> bool {
        match self {
            Self::Never => false,
            Self::ShiftJis => byte >= 0x80 && !(0xA1..=0xDF).contains(&byte),
            Self::AfterHighByte => byte >= 0x80,
        }
    }
}
