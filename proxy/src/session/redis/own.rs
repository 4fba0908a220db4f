//! What a session has a connection of its own for: a transaction, watched keys, a command that waits, subscriptions, tracking.

use std::time::Instant;

use control_store::Fault;
use protocol_redis::rewrite::Transform;

use super::flight::Kind;
use super::pubsub::Subscriptions;
use super::route::{Turn, hello};
use super::{RedisSession, Wait};
use crate::backend::redis::Backend;
use crate::backend::redis::links::SCRIPT_TIME;
use crate::backend::redis::login;
use crate::reactor::Buf;
use crate::session::{Context, Fate, Ports};

/// Whether the client wants replies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Replies {
    On,
    Off,
    /// Not to the next command.
    SkipNext,
}

/// As whom a command is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Actor {
    /// The database's role.
    Role,
    /// The platform's user.
    Platform,
}

/// A connection of the session's own, and what it is kept for.
pub(super) struct Own {
    pub(super) backend: Box<Backend>,
    /// The commands of the open transaction, as far as the server takes them.
    pub(super) queued: Option<Vec<Transform>>,
    /// Keys are watched.
    pub(super) watching: bool,
    /// The server tells of changed keys that the client has read.
    pub(super) tracking: bool,
    /// Part of a command is at the server, and the rest is to come.
    pub(super) streaming: bool,
    /// A command waits at the server, and was told to wait no longer.
    pub(super) woken: bool,
    pub(super) subscriptions: Subscriptions,
    /// When the server was last told to end a script that keeps everybody waiting.
    urged: Instant,
}

impl Own {
    pub(super) fn new(backend: Box<Backend>, now: Instant) -> Self {
        Self {
            urged: now,
            backend,
            queued: None,
            watching: false,
            tracking: false,
            streaming: false,
            woken: false,
            subscriptions: Subscriptions::default(),
        }
    }

    /// What has begun must end where it began.
    pub(super) const fn in_transaction(&self) -> bool {
        self.queued.is_some() || self.watching || self.streaming
    }

    /// Whether the session needs it no more, once all is answered.
    fn is_free(&self) -> bool {
        !self.in_transaction() && !self.tracking && self.subscriptions.is_empty()
    }
}

impl RedisSession {
    /// Whether commands must go over the session's own connection.
    pub(super) fn keeps_own(&self) -> bool {
        self.own.as_ref().is_some_and(|own| !own.is_free())
    }

    /// Gives the own connection back if it is needed no more; nothing is under way on it.
    pub(super) fn rest_own<P: Ports<Backend>>(&mut self, ports: &mut P) {
        if let Some(own) = self.own.take_if(|own| own.is_free()) {
            self.give_back(ports, *own);
        }
        if let Some(own) = self.own.as_mut()
            && self.flights.is_empty()
            && own.subscriptions.is_empty()
            && !own.tracking
        {
            // No more messages come, and a reply that looks like one is a reply.
            own.backend.inbox.set_subscribed(false);
        }
    }

    fn give_back<P: Ports<Backend>>(&self, ports: &mut P, mut own: Own) {
        own.backend.inbox.set_subscribed(false);
        let fate = if own.is_free() && own.backend.inbox.is_at_rest() {
            Fate::Keep
        } else {
            Fate::Close
        };
        ports.release(own.backend, fate);
    }

    /// Gives the own connection up, whatever it is kept for.
    pub(super) fn drop_own<P: Ports<Backend>>(&mut self, ports: &mut P) {
        if let Some(own) = self.own.take() {
            self.give_back(ports, *own);
        }
    }

    /// Has the own connection speak the client's version.
    pub(super) fn agree_on_version<P: Ports<Backend>>(&mut self, cx: &Context, ports: &mut P) {
        let Some(own) = self.own.as_mut() else { return };
        if own.backend.version == self.version {
            return;
        }
        own.backend.version = self.version;
        self.send_hidden(cx, ports, hello(self.version));
    }

    /// Something that the own connection needs and the client does not see.
    fn send_hidden<P: Ports<Backend>>(&mut self, cx: &Context, ports: &mut P, command: &[u8]) {
        let Some(own) = &self.own else { return };
        ports.copy_backend(own.backend.conn, command);
        self.launch_hidden(cx, ports, Kind::Hidden);
    }

    /// Has the own connection act as the platform's user, which may do what the database's roles may not because a server cannot
    /// confine it: the rewriting has confined it. Or as the database's role again.
    pub(super) fn act_as<P: Ports<Backend>>(&mut self, cx: &Context, ports: &mut P, who: Actor) {
        let Some(route) = self.who.as_ref().map(|who| &who.route) else {
            return;
        };
        // On a server of its own, the database's role may do everything.
        let Some(platform) = &route.server.redis_select else {
            return;
        };
        let role = match who {
            Actor::Platform => platform,
            Actor::Role => &route.native_role,
        };
        let mut out = Vec::new();
        login::auth(&mut out, role);
        self.send_hidden(cx, ports, &out);
    }

    /// Bytes from the own connection.
    pub(super) fn own_answered<P: Ports<Backend>>(
        &mut self,
        cx: &mut Context,
        ports: &mut P,
        buf: Buf,
    ) {
        if let Some(own) = self.own.as_mut() {
            own.backend.inbox.receive(buf);
        }
        while let Some(own) = self.own.as_mut() {
            match own.backend.inbox.next() {
                Some((_, answer)) => self.take_answer(cx, ports, answer),
                None if own.backend.inbox.is_broken() => return self.own_lost(cx, ports),
                None => break,
            }
        }
        self.at_rest(cx, ports);
    }

    /// The own connection broke.
    pub(super) fn own_lost<P: Ports<Backend>>(&mut self, cx: &mut Context, ports: &mut P) {
        let Some(own) = self.own.take() else { return };
        let held = own.in_transaction() || own.tracking || !own.subscriptions.is_empty();
        ports.release(own.backend, Fate::Close);
        self.fail_flights(cx, ports, &Fault::BackendLost);
        if held {
            // What the client had there is gone, and only a new connection tells it so.
            return self.terminate(cx, ports, &Fault::BackendLost);
        }
        self.at_rest(cx, ports);
    }

    /// The database has moved, and with it what the session has on its own connection.
    pub(super) fn move_own<P: Ports<Backend>>(&mut self, ports: &mut P) -> Result<(), Fault> {
        let Some(own) = self.own.take() else {
            return Ok(());
        };
        if own.in_transaction() || own.tracking {
            ports.release(own.backend, Fate::Close);
            return Err(Fault::Terminated {
                why: "the database has moved to another server, and this session held what cannot move with it",
            });
        }
        if !own.subscriptions.is_empty() {
            self.moved = Some(Box::new(own.subscriptions));
        }
        ports.release(own.backend, Fate::Close);
        Ok(())
    }

    /// Sets up again, on the server to which the database has moved, what the client has subscribed to. Whether that is on its way.
    pub(super) fn follow<P: Ports<Backend>>(&mut self, cx: &mut Context, ports: &mut P) -> bool {
        match self.take_own(cx, ports, 0) {
            Turn::Now(_) => true,
            Turn::Later => false,
            Turn::Refused(fault) => {
                self.terminate(cx, ports, &fault);
                false
            }
        }
    }

    /// The own connection gets the version of the client, and the subscriptions that it has on no other connection any more.
    pub(super) fn adopt_own<P: Ports<Backend>>(&mut self, cx: &mut Context, ports: &mut P) {
        self.agree_on_version(cx, ports);
        let (Some(mut subscriptions), Some(own), Some(who)) =
            (self.moved.take(), self.own.as_mut(), self.who.as_ref())
        else {
            return;
        };
        let mut out = Vec::new();
        let left = subscriptions.again(&who.rewriter, &mut out);
        own.subscriptions = *subscriptions;
        own.backend.inbox.set_subscribed(true);
        ports.copy_backend(own.backend.conn, &out);
        let told = Vec::new();
        self.launch_hidden(cx, ports, Kind::Subscribe { left, told });
    }

    /// Looks after what a session with a connection of its own waits for while its database may move.
    pub(super) fn tick_own<P: Ports<Backend>>(&mut self, cx: &mut Context, ports: &mut P) {
        let (Some(who), Some(own)) = (self.who.as_ref(), self.own.as_mut()) else {
            return;
        };
        let word = who.gate.word();
        let waits = self
            .flights
            .front()
            .is_some_and(|flight| matches!(flight.kind, Kind::Blocking(_)));
        let late = own.backend.inbox.late_since().unwrap_or(cx.now);
        if !waits && cx.now.saturating_duration_since(late.max(own.urged)) >= SCRIPT_TIME {
            own.urged = cx.now;
            ports.cancel(own.backend.id);
        }
        if word == who.word {
            return;
        }
        if word.is_held() {
            // What waits at the server would keep the database from moving.
            if waits && !own.woken {
                own.woken = true;
                ports.cancel(own.backend.id);
            }
            return;
        }
        // Subscriptions follow the database without the client's doing.
        if self.flights.is_empty() && self.wait == Wait::Not && !own.in_transaction() {
            if let Err(fault) = self.renew(cx, ports, word) {
                return self.terminate(cx, ports, &fault);
            }
            self.pump(cx, ports);
        }
    }
}
