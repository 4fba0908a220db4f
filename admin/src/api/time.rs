//! Times as the reference writes them.

use jiff::Timestamp;

/// `2026-01-17T20:12:06Z`.
pub(super) fn seconds(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// `2026-01-17T20:12:06.123Z`, where several things happen in a second.
pub(super) fn millis(time: std::time::SystemTime) -> String {
    Timestamp::try_from(time).map_or_else(
        |_| String::new(),
        |time| time.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        let ms = 1_768_680_726_123;
        let time = Timestamp::from_millisecond(ms).unwrap();
        assert_eq!(seconds(time), "2026-01-17T20:12:06Z");
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_millis(ms.unsigned_abs());
        assert_eq!(millis(time), "2026-01-17T20:12:06.123Z");
    }
}
