//! The end of a login: startup parameters are applied, and the client is told that it is in.

use std::rc::Rc;

use control_store::snapshot::PoolMode;
use protocol_postgres::backend::{TransactionStatus, write};
use protocol_sql::Options;

use super::live::{Hidden, Live, Then, Turn};
use super::login::KnownLogin;
use super::settings::{canonical, put_set_config};
use crate::backend::postgres::Backend;
use crate::metrics::PinReason;
use crate::session::{Context, Fate, Ports, Request};

impl Live {
    /// Begins what follows the authentication: startup parameters are applied on a backend, unless their outcome is known.
    pub(super) fn begin<P: Ports<Backend>>(&mut self, cx: &mut Context, ports: &mut P) {
        let Some(wanted) = &self.login else { return };
        let known = cx.logins.find(
            self.pool_key(),
            self.route.server.id,
            wanted,
            &cx.sets.none(),
        );
        if let Some(known) = known {
            return self.logged_in(cx, ports, &known);
        }
        match self.turn(cx, ports, 0) {
            Turn::Now => self.log_in_on_backend(cx, ports),
            Turn::Wait => {}
            Turn::Refused(fault) => self.terminate(cx, ports, &fault),
        }
    }

    pub(super) fn log_in_on_backend<P: Ports<Backend>>(&mut self, cx: &mut Context, ports: &mut P) {
        let (Some(backend), Some(wanted)) = (&self.backend, &self.login) else {
            return;
        };
        let base = Rc::clone(&backend.parameters);
        cx.logins.learn_base(backend.pool, backend.server, &base);
        if wanted.is_empty() {
            let known = KnownLogin {
                settings: cx.sets.none(),
                parameters: base,
            };
            self.logged_in(cx, ports, &known);
            self.at_rest(cx, ports);
            return self.pump(cx, ports);
        }
        let mut text = Vec::with_capacity(256);
        put_set_config(
            &mut text,
            wanted.iter().map(|(name, value)| (&**name, &**value)),
        );
        self.send_hidden(ports, &text, Then::LogIn);
    }

    /// The backend has applied the startup parameters, or refused one.
    pub(super) fn parameters_applied<P: Ports<Backend>>(
        &mut self,
        cx: &mut Context,
        ports: &mut P,
        hidden: Hidden,
    ) {
        let (Some(backend), Some(wanted)) = (self.backend.as_mut(), self.login.as_deref()) else {
            return;
        };
        if let Some((code, message)) = hidden.error {
            let code = String::from_utf8_lossy(&code).into_owned();
            let error = super::refusal::encode(
                protocol_postgres::backend::Severity::Fatal,
                &code,
                &message,
            );
            ports.copy_client(&error);
            return self.close(ports, Fate::Keep);
        }
        let mut parameters = (*backend.parameters).clone();
        for (name, value) in hidden.reported {
            match parameters.iter_mut().find(|(known, _)| *known == name) {
                Some((_, known)) => *known = value,
                None => parameters.push((name, value)),
            }
        }
        let settings = cx.sets.intern(
            wanted
                .iter()
                .map(|(name, value)| (canonical(name), value.clone()))
                .collect(),
        );
        backend.settings = Rc::clone(&settings);
        let known = KnownLogin {
            settings,
            parameters: Rc::new(parameters),
        };
        cx.logins.learn(backend.pool, wanted.clone(), known.clone());
        self.logged_in(cx, ports, &known);
        self.at_rest(cx, ports);
    }

    fn logged_in<P: Ports<Backend>>(
        &mut self,
        cx: &mut Context,
        ports: &mut P,
        known: &KnownLogin,
    ) {
        if let Some(wanted) = self.login.take() {
            self.initial = (!wanted.is_empty()).then(|| known.clone());
            let custom = wanted.iter().map(|(name, _)| name);
            self.custom
                .extend(custom.filter(|name| name.contains(&b'.')).cloned());
        }
        self.settings = Rc::clone(&known.settings);
        let mut out = std::mem::take(&mut cx.scratch);
        out.clear();
        for (name, value) in known.parameters.iter() {
            self.note_parameter(name, value);
            let shown = match &**name {
                // The native role's name is none of the client's business.
                b"session_authorization" => self.id.user.as_bytes(),
                _ => value,
            };
            // Values came without zero bytes.
            let _ = write::parameter_status(&mut out, name, shown);
        }
        let _ = write::backend_key_data(&mut out, ports.process_id(), self.cancel_key());
        write::ready_for_query(&mut out, TransactionStatus::Idle);
        ports.copy_client(&out);
        cx.scratch = out;
        ports.request(Request::LoggedIn);
        if self.route.database.pool_mode == PoolMode::Session {
            self.pins.add(PinReason::SessionPooling);
        }
    }

    /// A setting that the server reports has this value for the client now.
    pub(super) fn note_parameter(&mut self, name: &[u8], value: &[u8]) {
        match name {
            b"client_encoding" => {
                let encoding = String::from_utf8_lossy(value);
                let conforming = self.lexing.standard_conforming_strings;
                self.lexing = Options::for_encoding(&encoding, conforming);
            }
            b"standard_conforming_strings" => {
                self.lexing.standard_conforming_strings = value != b"off";
            }
            _ => {}
        }
    }
}
