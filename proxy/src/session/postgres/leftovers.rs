//! What statements leave behind in a session: settings, what pins it, and how the server reads its texts from then on.

use std::rc::Rc;

use control_store::Engine;
use protocol_postgres::backend::{TransactionStatus, write};
use protocol_sql::Effects;

use super::live::{Hidden, Live, Then};
use super::pins::{self, Pins};
use super::settings::{MAX_NAMES, Reading, Settings, Touched, canonical, put_literal};
use crate::backend::postgres::Backend;
use crate::metrics::PinReason;
use crate::route;
use crate::session::{Context, Ports};

impl Live {
    /// Notes what a statement does to its session.
    #[inline]
    pub(super) fn note_effects(&mut self, cx: &Context, effects: Effects, text: &[u8]) {
        const HARMLESS: Effects = Effects::TRANSACTION
            .union(Effects::SAVEPOINT)
            .union(Effects::COPY)
            .union(Effects::EXECUTE)
            .union(Effects::NOTIFY);
        if effects.without(HARMLESS).is_empty() {
            return;
        }
        self.note_lasting_effects(cx, effects, text);
    }

    fn note_lasting_effects(&mut self, cx: &Context, effects: Effects, text: &[u8]) {
        const SETTING: Effects = Effects::SET_SESSION
            .union(Effects::RESET)
            .union(Effects::SET_CONFIG)
            .union(Effects::DISCARD);
        if effects.intersects(SETTING) {
            self.touched.note(text);
            self.reading_unknown |= self.touched.may_change_reading();
        } else if effects.intersects(Effects::SET_LOCAL) {
            let mut touched = Touched::Nothing;
            touched.note(text);
            self.reading_unknown |= touched.may_change_reading();
        }
        self.inspect_pins |= self.pins.may_end(effects);
        for reason in Pins::reasons(effects) {
            // A lock that was not to be had, or a statement that failed, leaves nothing to keep; in a transaction, a
            // later rollback may undo it.
            let new = self.pin(cx, reason);
            self.inspect_pins |= new || self.transaction != TransactionStatus::Idle;
        }
        if effects.intersects(Effects::DDL) && self.route.ddl == route::DdlPolicy::Pass {
            self.schema_changes = true;
        }
    }

    /// How the server reads the session's texts, if that is certain.
    #[inline]
    pub(super) fn reading(&self) -> Option<&Reading> {
        let certain = !self.reading_unknown
            && self.strayed.is_empty()
            && !self.pins.has(PinReason::SessionState)
            && !self.pins.has(PinReason::TemporaryObject);
        certain.then_some(&self.settings.reading)
    }

    /// Notes what the server reports of a setting.
    pub(super) fn note_reported(&mut self, name: &[u8], value: &[u8]) {
        const FIXED: [&[u8]; 6] = [
            b"in_hot_standby",
            b"integer_datetimes",
            b"is_superuser",
            b"server_encoding",
            b"server_version",
            b"session_authorization",
        ];
        if FIXED.contains(&name) {
            return;
        }
        let key = canonical(name);
        let known = match (self.settings.values.get(&key), &self.backend) {
            (Some(value), _) => Some(value),
            (None, Some(backend)) => {
                let mut reported = backend.parameters.iter();
                reported.find(|(it, _)| **it == *name).map(|it| &it.1)
            }
            (None, None) => None,
        };
        let as_known = known.is_some_and(|known| **known == *value);
        self.strayed.retain(|it| *it != key);
        if !as_known {
            self.strayed.push(key);
        }
    }

    /// Whether the backend may have statements that only it knows by the names that the client uses.
    pub(super) const fn has_foreign_names(&self) -> bool {
        self.pins.has(PinReason::Prepared)
    }

    /// Keeps the backend for that reason; whether the reason is new.
    pub(super) fn pin(&mut self, cx: &Context, reason: PinReason) -> bool {
        let new = self.pins.add(reason);
        if new {
            let metrics = cx.metrics.protocol(Engine::Postgres);
            metrics.pins.of(reason).increment();
        }
        new
    }

    /// What a function called by its number does to its session nobody can tell from its message.
    pub(super) fn touch_everything(&mut self, cx: &Context) {
        self.touched.note(b"DISCARD");
        self.reading_unknown = true;
        self.pin(cx, PinReason::SessionLock);
        self.inspect_pins = true;
    }

    /// Asks the server what the session has come to hold, if that may have changed.
    pub(super) fn inspect<P: Ports<Backend>>(&mut self, ports: &mut P) -> bool {
        for name in std::mem::take(&mut self.strayed) {
            self.touched.name(name);
        }
        let touched = std::mem::take(&mut self.touched);
        let pins = std::mem::take(&mut self.inspect_pins);
        let mut text = Vec::new();
        let doubtful = match &touched {
            Touched::Nothing => Vec::new(),
            Touched::Names(names) => self.doubtful(Some(names)),
            Touched::All(_) => self.doubtful(None),
        };
        let all = match touched {
            Touched::Nothing if !pins => return false,
            Touched::Nothing => false,
            Touched::Names(names) => {
                self.remember_custom(&names);
                put_current_settings(&mut text, &names);
                false
            }
            Touched::All(names) => {
                self.remember_custom(&names);
                text.extend_from_slice(
                    b"SELECT name, setting FROM pg_catalog.pg_settings WHERE source = 'session'",
                );
                if !self.custom.is_empty() {
                    text.extend_from_slice(b" UNION ALL ");
                    put_current_settings(&mut text, &self.custom);
                }
                true
            }
        };
        if !doubtful.is_empty() {
            put_reset(&mut text, &doubtful);
        }
        if pins {
            if !text.is_empty() {
                text.extend_from_slice(b" UNION ALL ");
            }
            text.extend_from_slice(pins::INSPECTION.as_bytes());
            self.pins = self.pins.lasting();
        }
        self.send_hidden(ports, &text, Then::Inspect { all });
        true
    }

    /// The settings of which the server is asked whether they have a value of the session's own: those named, or those that the
    /// client asked for at its login. Of custom ones the server does not say where their values come from.
    fn doubtful(&self, names: Option<&Vec<Box<[u8]>>>) -> Vec<Box<[u8]>> {
        let doubtful: Vec<_> = match (names, &self.initial) {
            (Some(names), _) => names.iter().map(|name| canonical(name)).collect(),
            (None, Some(initial)) => initial.settings.values.keys().cloned().collect(),
            (None, None) => Vec::new(),
        };
        let listed = doubtful.into_iter();
        listed.filter(|name| !name.contains(&b'.')).collect()
    }

    /// Goes back to what the client asked for at its login, if it did. The backend follows before its next statement.
    fn restore<P: Ports<Backend>>(&mut self, ports: &mut P, settings: &mut Settings, key: &[u8]) {
        let Some(initial) = self.initial.clone() else {
            return;
        };
        let Some(value) = initial.settings.values.get(key) else {
            return;
        };
        settings.insert(key.into(), value.clone());
        self.strayed.retain(|it| **it != *key);
        let mut parameters = initial.parameters.iter();
        if let Some((name, value)) = parameters.find(|(it, _)| *canonical(it) == *key) {
            // The client was told of the server's own value.
            self.note_parameter(name, value);
            let mut out = Vec::with_capacity(64);
            // It came from a server without zero bytes.
            let _ = write::parameter_status(&mut out, name, value);
            ports.copy_client(&out);
        }
    }

    fn remember_custom(&mut self, names: &[Box<[u8]>]) {
        for name in names.iter().filter(|name| name.contains(&b'.')) {
            if !self.custom.contains(name) && self.custom.len() < MAX_NAMES {
                self.custom.push(name.clone());
            }
        }
    }

    pub(super) fn inspected<P: Ports<Backend>>(
        &mut self,
        cx: &mut Context,
        ports: &mut P,
        hidden: Hidden,
        all: bool,
    ) {
        if let Some((code, message)) = hidden.error {
            // What is not known stays as it is, on a backend of its own.
            tracing::warn!(code = %String::from_utf8_lossy(&code), message, "a session could not be inspected");
            self.pin(cx, PinReason::SessionState);
            return;
        }
        let mut settings = if all {
            Settings::new()
        } else {
            self.settings.values.clone()
        };
        let mut changed = all;
        let mut reset = Vec::new();
        for (name, value) in hidden.rows {
            if name == RESET {
                changed = true;
                reset.push(value);
                continue;
            }
            match pins::reason_of(&name) {
                Some(reason) => {
                    self.pins.add(reason);
                }
                None => {
                    changed = true;
                    settings.insert(canonical(&name), value.into());
                }
            }
        }
        for name in &reset {
            // A SET that failed leaves nothing either, and the server may let nobody but a superuser set what it named.
            settings.remove(&**name);
        }
        if changed {
            self.settings = cx.sets.intern(settings.clone());
            if let Some(backend) = self.backend.as_mut() {
                backend.settings = Rc::clone(&self.settings);
            }
        }
        if !reset.is_empty() {
            for name in reset {
                self.restore(ports, &mut settings, &name);
            }
            self.settings = cx.sets.intern(settings);
        }
    }
}

/// Marks a row that names a setting without a value of the session's own.
const RESET: &[u8] = b"=";

/// Asks which of these settings have no value of the session's own.
fn put_reset(text: &mut Vec<u8>, names: &[Box<[u8]>]) {
    text.extend_from_slice(b" UNION ALL SELECT '=', n FROM pg_catalog.unnest(ARRAY[");
    put_literals(text, names);
    text.extend_from_slice(
        b"]::pg_catalog.text[]) t(n) WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_settings \
          WHERE pg_catalog.lower(name) = n AND source = 'session')",
    );
}

fn put_literals(text: &mut Vec<u8>, names: &[Box<[u8]>]) {
    for (at, name) in names.iter().enumerate() {
        if at > 0 {
            text.push(b',');
        }
        put_literal(text, name);
    }
}

fn put_current_settings(text: &mut Vec<u8>, names: &[Box<[u8]>]) {
    text.extend_from_slice(b"SELECT n, s FROM (SELECT n, pg_catalog.current_setting(n, true) FROM pg_catalog.unnest(ARRAY[");
    put_literals(text, names);
    text.extend_from_slice(b"]::pg_catalog.text[]) t(n)) t(n, s) WHERE s IS NOT NULL");
}
