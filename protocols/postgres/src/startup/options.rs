//! The startup parameter `options`: server switches as a command line (`pg_split_opts`, `process_postgres_switches`).

/// Why an `options` value is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OptionError {
    /// A switch other than `-c name=value` and `--name=value`.
    #[error("invalid command-line argument for server process")]
    UnknownSwitch,
    /// A setting without `=` or without a name.
    #[error("setting requires a value")]
    NoValue,
}

/// One setting of `options`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Its name; a dash stands for an underscore, as PostgreSQL has it.
    pub name: Vec<u8>,
    /// Its value, escapes undone.
    pub value: Vec<u8>,
}

/// Iterates over an `options` value. After an error it ends.
#[derive(Clone, Debug)]
pub struct Settings<'a>(&'a [u8]);

/// Parses `-c name=value`, `-cname=value` and `--name=value`, parted by blanks; a backslash takes the next byte as is.
#[must_use]
pub fn settings(options: &[u8]) -> Settings<'_> {
    Settings(options)
}

impl Iterator for Settings<'_> {
    type Item = Result<Setting, OptionError>;

    fn next(&mut self) -> Option<Self::Item> {
        let word = self.word()?;
        let setting = self.setting(&word);
        if setting.is_err() {
            self.0 = &[];
        }
        Some(setting)
    }
}

impl Settings<'_> {
    fn setting(&mut self, word: &[u8]) -> Result<Setting, OptionError> {
        if word == b"-c" {
            let word = self.word().ok_or(OptionError::NoValue)?;
            return assignment(&word);
        }
        let body = word
            .strip_prefix(b"-c")
            .or_else(|| word.strip_prefix(b"--"));
        assignment(body.ok_or(OptionError::UnknownSwitch)?)
    }

    fn word(&mut self) -> Option<Vec<u8>> {
        self.0 = trim_start(self.0);
        if self.0.is_empty() {
            return None;
        }
        let mut word = Vec::new();
        while let Some((&byte, rest)) = self.0.split_first() {
            if is_space(byte) {
                break;
            }
            self.0 = rest;
            if byte != b'\\' {
                word.push(byte);
            } else if let Some((&escaped, rest)) = rest.split_first() {
                word.push(escaped);
                self.0 = rest;
            }
        }
        Some(word)
    }
}

fn assignment(word: &[u8]) -> Result<Setting, OptionError> {
    let equals = word
        .iter()
        .position(|&byte| byte == b'=')
        .ok_or(OptionError::NoValue)?;
    let (name, value) = word.split_at_checked(equals).ok_or(OptionError::NoValue)?;
    if name.is_empty() {
        return Err(OptionError::NoValue);
    }
    let name = name
        .iter()
        .map(|&byte| if byte == b'-' { b'_' } else { byte })
        .collect();
    Ok(Setting {
        name,
        value: value.get(1..).unwrap_or_default().to_vec(),
    })
}

fn trim_start(bytes: &[u8]) -> &[u8] {
    let blanks = bytes.iter().take_while(|&&byte| is_space(byte)).count();
    bytes.get(blanks..).unwrap_or_default()
}

/// C's `isspace`, which counts the vertical tab, too.
fn is_space(byte: u8) -> bool {
    byte.is_ascii_whitespace() || byte == 0x0b
}
