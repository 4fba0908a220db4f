//! What the kernel gives back to us with each event: 8 bits of kind, 24 of index, 32 of generation.

use super::{ConnId, ListenerId};

const KIND_SHIFT: u32 = 56;
const INDEX_SHIFT: u32 = 32;
const INDEX_MASK: u64 = (1 << 24) - 1;

/// A token taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token {
    /// Of the reactor's own choice.
    pub(super) kind: u8,
    pub(super) id: ConnId,
}

impl Token {
    /// For something that concerns a connection.
    pub(super) const fn conn(kind: u8, id: ConnId) -> Self {
        Self { kind, id }
    }

    /// For something that concerns a listener, or (`ListenerId(0)`) the reactor as a whole.
    pub(super) const fn listener(kind: u8, id: ListenerId) -> Self {
        let id = ConnId {
            index: 0,
            generation: id.0,
        };
        Self { kind, id }
    }

    pub(super) const fn as_listener(self) -> ListenerId {
        ListenerId(self.id.generation)
    }

    pub(super) fn pack(self) -> u64 {
        u64::from(self.kind) << KIND_SHIFT
            | (u64::from(self.id.index) & INDEX_MASK) << INDEX_SHIFT
            | u64::from(self.id.generation)
    }

    #[allow(clippy::cast_possible_truncation)] // Taking fields apart: each cast keeps the field's bits.
    pub(super) const fn unpack(packed: u64) -> Self {
        Self {
            kind: (packed >> KIND_SHIFT) as u8,
            id: ConnId {
                index: (packed >> INDEX_SHIFT & INDEX_MASK) as u32,
                generation: packed as u32,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_survive_packing() {
        for (kind, index, generation) in [
            (0, 0, 0),
            (255, (1 << 24) - 1, u32::MAX),
            (7, 1, 0),
            (0, 0, 9),
        ] {
            let token = Token::conn(kind, ConnId { index, generation });
            assert_eq!(Token::unpack(token.pack()), token);
        }
        let token = Token::listener(3, ListenerId(77));
        assert_eq!(Token::unpack(token.pack()).as_listener(), ListenerId(77));
    }
}
