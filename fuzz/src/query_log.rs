//! The query log's files, and the masking of passwords.

use proxy::query_log::hostile;

/// A block's head and data, without the checksums that would keep everything else out. The first two bytes part them.
pub fn query_log_block(data: &[u8]) {
    let _ = hostile::is_block(data);
    if let Some((cut, rest)) = data.split_first_chunk::<2>() {
        let (head, data) = rest.split_at(usize::from(u16::from_le_bytes(*cut)).min(rest.len()));
        let _ = hostile::is_block_unsummed(head, data);
    }
}

/// A journal, and a batch of one without its checksum.
pub fn query_log_journal(data: &[u8]) {
    let _ = hostile::batches_in_journal(data);
    let _ = hostile::is_batch_unsummed(data);
}

/// Masking adds nothing but its mark: what is left stands in the text, in order.
pub fn query_log_mask(data: &[u8]) {
    let masked = hostile::masked(data);
    if masked.len() == data.len() && masked.as_ref() == data {
        return;
    }
    let mut rest = data;
    for part in masked.split(|byte| *byte == b'*') {
        let Some(at) = rest
            .windows(part.len().max(1))
            .position(|it| it.starts_with(part))
        else {
            assert!(
                part.is_empty() || rest.is_empty(),
                "{part:?} comes from nowhere"
            );
            continue;
        };
        rest = &rest[at + part.len()..];
    }
}
