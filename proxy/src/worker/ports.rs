//! How a session acts on a worker.

use std::time::Instant;

use crate::backend::budget::WorkerId;
use crate::backend::pool::{Lessee, LinkId, Pools, SessionRef};
use crate::backend::{BackendId, PoolKey};
use crate::metrics::{ProtocolMetrics, Side};
use crate::protocol::{LinksOf, Protocol};
use crate::reactor::{Buf, ConnId, Reactor};
use crate::route::Route;
use crate::session::{Fate, Ports, Request};

use super::SLOT_BITS;
use super::conns::Conns;

pub(super) struct WorkerPorts<'a, R: Reactor, P: Protocol> {
    pub(super) reactor: &'a mut R,
    pub(super) conns: &'a mut Conns,
    pub(super) pools: &'a mut Pools<P>,
    pub(super) links: &'a mut LinksOf<P>,
    pub(super) requests: &'a mut Vec<Request>,
    pub(super) metrics: &'a ProtocolMetrics,
    pub(super) conn: ConnId,
    /// What gathers to be encrypted, if the client speaks TLS.
    pub(super) tls: Option<&'a mut Vec<Buf>>,
    pub(super) session: SessionRef,
    pub(super) worker: WorkerId,
    pub(super) now: Instant,
    /// The backend that was sent something.
    pub(super) sent_to: Option<ConnId>,
    /// The leased backend's connection, while it is not read because the client does not take what it has.
    pub(super) backend_paused: &'a mut Option<ConnId>,
    /// The leased backend does not take what it has been sent.
    pub(super) backend_full: &'a mut bool,
}

impl<R: Reactor, P: Protocol> WorkerPorts<'_, R, P> {
    #[inline]
    fn count_sent(&self, side: Side, bytes: usize) {
        let sent = &self.metrics.traffic.of(side).sent;
        sent.add(u64::try_from(bytes).unwrap_or(0));
    }
}

impl<R: Reactor, P: Protocol> Ports<P::Backend> for WorkerPorts<'_, R, P> {
    #[inline]
    fn send_client(&mut self, buf: Buf) {
        self.count_sent(Side::Client, buf.len());
        match &mut self.tls {
            Some(pieces) => pieces.push(buf),
            None => self.reactor.send(self.conn, buf),
        }
    }

    fn copy_client(&mut self, bytes: &[u8]) {
        self.count_sent(Side::Client, bytes.len());
        match &mut self.tls {
            Some(pieces) => pieces.push(Buf::from_vec(bytes.to_vec())),
            None => self.reactor.send_copy(self.conn, bytes),
        }
    }

    #[inline]
    fn send_backend(&mut self, conn: ConnId, buf: Buf) {
        self.count_sent(Side::Backend, buf.len());
        self.sent_to = Some(conn);
        self.reactor.send(conn, buf);
    }

    #[inline]
    fn copy_backend(&mut self, conn: ConnId, bytes: &[u8]) {
        self.count_sent(Side::Backend, bytes.len());
        self.sent_to = Some(conn);
        self.reactor.send_copy(conn, bytes);
    }

    fn expect_client(&mut self, bytes: u64) {
        self.reactor.expect(self.conn, bytes);
    }

    fn expect_backend(&mut self, conn: ConnId, bytes: u64) {
        self.reactor.expect(conn, bytes);
    }

    #[inline]
    fn lease(&mut self, pool: PoolKey, route: &Route) -> Option<Box<P::Backend>> {
        self.pools.lease(
            self.reactor,
            self.conns,
            pool,
            route,
            Lessee::Session(self.session),
            self.now,
        )
    }

    fn lease_link(
        &mut self,
        link: LinkId,
        pool: PoolKey,
        route: &Route,
    ) -> Option<Box<P::Backend>> {
        self.pools.lease(
            self.reactor,
            self.conns,
            pool,
            route,
            Lessee::Link(link),
            self.now,
        )
    }

    #[inline]
    fn links(&mut self) -> &mut LinksOf<P> {
        self.links
    }

    #[inline]
    fn release(&mut self, backend: Box<P::Backend>, fate: Fate) {
        // Whoever leases it next must hear of it, and this client be read whatever that backend still has to take.
        if let Some(paused) = self.backend_paused.take() {
            self.reactor.resume(paused);
        }
        *self.backend_full = false;
        self.sent_to = None;
        self.pools
            .release(self.reactor, self.conns, backend, fate, self.now);
    }

    fn cancel(&mut self, backend: BackendId) {
        self.pools.cancel(self.reactor, self.conns, backend);
    }

    fn request(&mut self, request: Request) {
        self.requests.push(request);
    }

    fn process_id(&self) -> u32 {
        u32::from(self.worker.0) << SLOT_BITS | self.session.slot
    }

    #[inline]
    fn this(&self) -> SessionRef {
        self.session
    }

    #[inline]
    fn client_queued(&self) -> usize {
        self.reactor.queued(self.conn)
    }
}
