//! What each of the reactor's connections is for.

use control_store::Engine;

use crate::reactor::ConnId;

/// A connection's part, and whose protocol it speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// The client of the session in that slot.
    Client(Engine, u32),
    /// The backend in that slot.
    Backend(Engine, u32),
    /// Carries a cancel request for the backend in that slot, whose own connection is this.
    Cancel(Engine, u32, ConnId),
}

/// Parts by connection.
#[derive(Default)]
pub(crate) struct Conns {
    roles: Vec<Option<(u32, Role)>>,
}

impl Conns {
    pub(crate) fn set(&mut self, conn: ConnId, role: Role) {
        let at = conn.index as usize;
        if at >= self.roles.len() {
            self.roles.resize(at + 1, None);
        }
        if let Some(place) = self.roles.get_mut(at) {
            *place = Some((conn.generation, role));
        }
    }

    #[inline]
    pub(crate) fn get(&self, conn: ConnId) -> Option<Role> {
        match self.roles.get(conn.index as usize) {
            Some(Some((generation, role))) if *generation == conn.generation => Some(*role),
            _ => None,
        }
    }

    pub(crate) fn clear(&mut self, conn: ConnId) {
        if self.get(conn).is_some()
            && let Some(place) = self.roles.get_mut(conn.index as usize)
        {
            *place = None;
        }
    }
}
