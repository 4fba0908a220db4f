//! Connections by [`ConnId`]: slots with generations, so that an id of the past finds nothing.

use super::ConnId;

/// Slots are numbered below this, so that an index fits into 24 bits of a kernel token.
const MAX_SLOTS: usize = 1 << 24;

/// Values by id.
pub(super) struct Table<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
}

struct Slot<T> {
    generation: u32,
    value: Option<T>,
}

impl<T> Table<T> {
    pub(super) const fn new() -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
        }
    }

    /// Stores a value under a fresh id; `None` when all slots are in use.
    pub(super) fn insert(&mut self, value: T) -> Option<ConnId> {
        if let Some(index) = self.free.pop() {
            let slot = self.slots.get_mut(index as usize)?;
            slot.value = Some(value);
            return Some(ConnId {
                index,
                generation: slot.generation,
            });
        }
        if self.slots.len() >= MAX_SLOTS {
            return None;
        }
        let index = u32::try_from(self.slots.len()).ok()?;
        self.slots.push(Slot {
            generation: 0,
            value: Some(value),
        });
        Some(ConnId {
            index,
            generation: 0,
        })
    }

    pub(super) fn get(&self, id: ConnId) -> Option<&T> {
        self.slots
            .get(id.index as usize)
            .filter(|slot| slot.generation == id.generation)?
            .value
            .as_ref()
    }

    pub(super) fn get_mut(&mut self, id: ConnId) -> Option<&mut T> {
        self.slots
            .get_mut(id.index as usize)
            .filter(|slot| slot.generation == id.generation)?
            .value
            .as_mut()
    }

    /// Takes the value out; its id is dead from now on.
    pub(super) fn remove(&mut self, id: ConnId) -> Option<T> {
        let slot = self
            .slots
            .get_mut(id.index as usize)
            .filter(|slot| slot.generation == id.generation)?;
        let value = slot.value.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(id.index);
        Some(value)
    }

    /// How many values there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_id_finds_nothing_in_a_reused_slot() {
        let mut table = Table::new();
        let old = table.insert("old").expect("room");
        assert_eq!(table.remove(old), Some("old"));
        let new = table.insert("new").expect("room");
        assert_eq!(new.index, old.index, "the slot is used again");
        assert_eq!(table.get(old), None);
        assert_eq!(table.get_mut(old), None);
        assert_eq!(table.remove(old), None);
        assert_eq!(table.get(new), Some(&"new"));
        assert_eq!(table.len(), 1);
    }
}
