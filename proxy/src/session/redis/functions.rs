//! Functions: libraries belong to a whole server, so that on one that others use as well a database's own have names in a namespace
//! of its own (see `rewrite/functions.rs` of the protocol), and the platform's user loads, lists and deletes them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use control_store::DatabaseId;
use control_store::ids::Role;
use protocol_redis::command::Flags;
use protocol_redis::reply::Value;
use protocol_redis::reply::write;
use protocol_redis::request::Command;
use protocol_redis::rewrite::Transform;
use protocol_redis::rewrite::functions::{self, Loaded};

use super::command::Step;
use super::flight::{Kind, Logged};
use super::own::Actor;
use super::{RedisSession, Wait};
use crate::backend::redis::Backend;
use crate::metrics::ErrorClass;
use crate::reactor::{Buf, ConnId};
use crate::session::{Context, Ports};

/// Bytes that the code of all libraries of a database may have, with what we put in front of each: it holds the code once more.
const MAX_CODE: usize = 2 << 20;

/// What a command does with functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Function {
    /// It calls one.
    Call,
    Load,
    Delete,
    Flush,
    List,
    Stats,
    Help,
    /// All libraries of the server at once.
    Dump,
    /// A script that runs, whoever's it is.
    Kill,
    /// There is no such subcommand.
    Unknown,
}

impl Function {
    /// By the command's name in lower case, with its subcommand.
    pub(super) fn of(name: &[u8]) -> Self {
        match name {
            b"function|load" => Self::Load,
            b"function|delete" => Self::Delete,
            b"function|flush" => Self::Flush,
            b"function|list" => Self::List,
            b"function|stats" => Self::Stats,
            b"function|help" => Self::Help,
            b"function|dump" | b"function|restore" => Self::Dump,
            b"function|kill" => Self::Kill,
            _ => Self::Unknown,
        }
    }
}

/// Which libraries a database has, asked for before a command that depends on it.
pub(super) enum Inquiry {
    /// The server has been asked.
    Asked,
    /// It has answered.
    Answered(Vec<Loaded>),
    /// It has answered with this error.
    Failed(String),
}

/// The libraries that are being loaded, in all workers, so that two which come at once do not have more code than a database may.
#[derive(Default)]
pub(crate) struct Loads(Mutex<HashMap<DatabaseId, Underway>>);

#[derive(Default)]
struct Underway {
    count: usize,
    /// The code of those under way, and of those that have ended while others were: who has looked before may not have seen them.
    bytes: usize,
}

impl Loads {
    fn lock(&self) -> MutexGuard<'_, HashMap<DatabaseId, Underway>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A library is to be loaded.
    fn begin(self: &Arc<Self>, database: DatabaseId, bytes: usize) -> Load {
        let mut all = self.lock();
        let underway = all.entry(database).or_default();
        underway.count += 1;
        underway.bytes += bytes;
        Load {
            loads: Arc::clone(self),
            database,
        }
    }
}

/// A library that is being loaded.
pub(super) struct Load {
    loads: Arc<Loads>,
    database: DatabaseId,
}

impl Load {
    /// The code of all that are being loaded.
    fn bytes(&self) -> usize {
        let all = self.loads.lock();
        all.get(&self.database).map_or(0, |it| it.bytes)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let mut all = self.loads.lock();
        if let Some(underway) = all.get_mut(&self.database) {
            underway.count -= 1;
            if underway.count == 0 {
                all.remove(&self.database);
            }
        }
    }
}

/// What a session does with libraries that takes more than one command.
#[derive(Default)]
pub(super) struct Libraries {
    inquiry: Option<Inquiry>,
    load: Option<Load>,
}

impl RedisSession {
    /// Whether others use the server as well.
    pub(super) fn shares_server(&self) -> bool {
        let who = self.who.as_ref();
        who.is_some_and(|who| !who.rewriter.namespace().is_empty())
    }

    /// A command that has to do with functions, on a server that others use as well.
    pub(super) fn function<P: Ports<Backend>>(
        &mut self,
        cx: &mut Context,
        ports: &mut P,
        command: &Command<'_>,
        front: &Buf,
        what: Function,
    ) -> Step {
        if let Function::Call = what {
            return self.send_anywhere(cx, ports, command, front, Kind::Plain);
        }
        let mut deny = |session: &mut Self, text: &str| {
            session.refuse(cx, ports, command, text, ErrorClass::Denied)
        };
        match what {
            Function::Dump => {
                let text = "NOPERM FUNCTION DUMP and RESTORE are about a whole server: FUNCTION LIST WITHCODE shows your libraries as FUNCTION LOAD takes them";
                return deny(self, text);
            }
            Function::Kill => {
                let text = "NOPERM a function over its time is stopped by the platform";
                return deny(self, text);
            }
            Function::Load | Function::Delete | Function::Flush if self.may_only_read(command) => {
                let text = "NOPERM a key with the scope read may not change functions";
                return deny(self, text);
            }
            _ => {}
        }
        if self.own.as_ref().is_some_and(|own| own.queued.is_some()) {
            let text = "ERR this command is not allowed in a transaction here";
            return self.refuse(cx, ports, command, text, ErrorClass::Statement);
        }
        if self.must_wait_here() {
            return Step::Later;
        }
        let step = match what {
            Function::Load => self.load_library(cx, ports, command),
            Function::Flush => self.flush_libraries(cx, ports, command),
            Function::Delete | Function::List | Function::Stats | Function::Help => {
                self.ask_platform(cx, ports, command, what)
            }
            _ => {
                let text = format!(
                    "ERR unknown subcommand '{}'. Try FUNCTION HELP.",
                    String::from_utf8_lossy(command.arg(1)).replace(['\r', '\n'], " ")
                );
                self.refuse(cx, ports, command, &text, ErrorClass::Statement)
            }
        };
        if step == Step::Done {
            self.libraries = None;
        }
        step
    }

    /// Whether the command writes, by the server's own table, and the client may not.
    fn may_only_read(&self, command: &Command<'_>) -> bool {
        let Some(who) = &self.who else { return true };
        let known = who.known.as_ref();
        let spec = known.and_then(|known| known.commands.of(command));
        who.key.role == Role::Read && spec.is_none_or(|(spec, _)| spec.flags().has(Flags::WRITE))
    }

    /// A command that the platform's user runs, in the client's namespace.
    fn ask_platform<P: Ports<Backend>>(
        &mut self,
        cx: &mut Context,
        ports: &mut P,
        command: &Command<'_>,
        what: Function,
    ) -> Step {
        let conn = match self.own_turn(cx, ports, command) {
            Ok(conn) => conn,
            Err(step) => return step,
        };
        let Some(who) = &self.who else {
            return Step::Done;
        };
        let mut out = Vec::new();
        let kind = match what {
            Function::Delete => {
                let name = who.rewriter.own_name(command.arg(2));
                write::command(&mut out, &[b"FUNCTION", b"DELETE", &name]);
                Kind::Plain
            }
            Function::List => {
                who.rewriter.list(command, &mut out);
                Kind::Keys(Transform::Libraries)
            }
            Function::Stats => {
                who.rewriter.list_all(false, &mut out);
                Kind::FunctionStats
            }
            _ => {
                write::command(&mut out, &[b"FUNCTION", b"HELP"]);
                Kind::Plain
            }
        };
        self.act_as(cx, ports, Actor::Platform);
        ports.copy_backend(conn, &out);
        self.launch(cx, ports, kind, Some(Logged::names_of(command)));
        self.act_as(cx, ports, Actor::Role);
        Step::Done
    }

    fn load_library<P: Ports<Backend>>(
        &mut self,
        cx: &mut Context,
        ports: &mut P,
        command: &Command<'_>,
    ) -> Step {
        let Some(who) = &self.who else {
            return Step::Done;
        };
        let database = who.route.database.id;
        let last = command.argc() - 1;
        let options = command.args().take(last).skip(2);
        let mut replaces = false;
        for option in options {
            if !option.eq_ignore_ascii_case(b"REPLACE") {
                let option = String::from_utf8_lossy(option).replace(['\r', '\n'], " ");
                let text = format!("ERR Unknown option given: {option}");
                return self.refuse(cx, ports, command, &text, ErrorClass::Statement);
            }
            replaces = true;
        }
        let library = match who.rewriter.library(command.arg(last)) {
            Ok(library) => library,
            Err(error) => {
                let text = error.to_string().replace(['\r', '\n'], " ");
                return self.refuse(cx, ports, command, &text, ErrorClass::Statement);
            }
        };
        if self.libraries().load.is_none() {
            let load = cx.shared.redis_loads.begin(database, library.code.len());
            self.libraries().load = Some(load);
        }
        let loaded = match self.inquire(cx, ports, command) {
            Ok(loaded) => loaded,
            Err(step) => return step,
        };
        let stays = |it: &&Loaded| !(replaces && it.name == library.name);
        let there: usize = loaded.iter().filter(stays).map(|it| it.size).sum();
        let coming = self.libraries().load.as_ref().map_or(0, Load::bytes);
        if there + coming > MAX_CODE {
            let text = format!(
                "OOM the functions of this database have {there} bytes of code, and may not have more than {MAX_CODE}, with this library's"
            );
            return self.refuse(cx, ports, command, &text, ErrorClass::Limit);
        }
        let conn = match self.own_turn(cx, ports, command) {
            Ok(conn) => conn,
            Err(step) => {
                if step == Step::Later {
                    self.libraries().inquiry = Some(Inquiry::Answered(loaded));
                }
                return step;
            }
        };
        let mut out = Vec::new();
        match replaces {
            true => write::command(&mut out, &[b"FUNCTION", b"LOAD", b"REPLACE", &library.code]),
            false => write::command(&mut out, &[b"FUNCTION", b"LOAD", &library.code]),
        }
        let load = self.libraries().load.take();
        self.act_as(cx, ports, Actor::Platform);
        ports.copy_backend(conn, &out);
        self.launch(
            cx,
            ports,
            Kind::Loaded { _load: load },
            Some(Logged::names_of(command)),
        );
        self.act_as(cx, ports, Actor::Role);
        Step::Done
    }

    fn flush_libraries<P: Ports<Backend>>(
        &mut self,
        cx: &mut Context,
        ports: &mut P,
        command: &Command<'_>,
    ) -> Step {
        let how = command.get(2);
        let known =
            |how: &[u8]| how.eq_ignore_ascii_case(b"SYNC") || how.eq_ignore_ascii_case(b"ASYNC");
        if command.argc() > 3 {
            let text = "ERR unknown subcommand or wrong number of arguments for 'flush'. Try FUNCTION HELP.";
            return self.refuse(cx, ports, command, text, ErrorClass::Statement);
        }
        if how.is_some_and(|how| !known(how)) {
            let text = "ERR FUNCTION FLUSH only supports SYNC|ASYNC option";
            return self.refuse(cx, ports, command, text, ErrorClass::Statement);
        }
        let loaded = match self.inquire(cx, ports, command) {
            Ok(loaded) => loaded,
            Err(step) => return step,
        };
        let logged = Logged::names_of(command);
        let Some((last, others)) = loaded.split_last() else {
            let step = self.here(cx, ports, |out, _| write::ok(out));
            self.record_here(cx, &logged, None);
            return step;
        };
        let conn = match self.own_turn(cx, ports, command) {
            Ok(conn) => conn,
            Err(step) => {
                if step == Step::Later {
                    self.libraries().inquiry = Some(Inquiry::Answered(loaded));
                }
                return step;
            }
        };
        self.act_as(cx, ports, Actor::Platform);
        for library in others {
            self.delete(ports, conn, &library.name);
            self.launch_hidden(cx, ports, Kind::Ignored);
        }
        self.delete(ports, conn, &last.name);
        self.launch(cx, ports, Kind::Flushed, Some(logged));
        self.act_as(cx, ports, Actor::Role);
        Step::Done
    }

    fn delete<P: Ports<Backend>>(&self, ports: &mut P, conn: ConnId, name: &[u8]) {
        if let Some(who) = &self.who {
            let name = who.rewriter.own_name(name);
            let mut out = Vec::new();
            write::command(&mut out, &[b"FUNCTION", b"DELETE", &name]);
            ports.copy_backend(conn, &out);
        }
    }

    fn libraries(&mut self) -> &mut Libraries {
        self.libraries.get_or_insert_default()
    }

    /// The libraries that the database has. Otherwise what becomes of the command meanwhile.
    fn inquire<P: Ports<Backend>>(
        &mut self,
        cx: &mut Context,
        ports: &mut P,
        command: &Command<'_>,
    ) -> Result<Vec<Loaded>, Step> {
        match self.libraries().inquiry.take() {
            Some(Inquiry::Answered(loaded)) => return Ok(loaded),
            Some(Inquiry::Failed(text)) => {
                return Err(self.refuse(cx, ports, command, &text, ErrorClass::Statement));
            }
            // What was asked is not answered any more: its connection is gone.
            Some(Inquiry::Asked) | None => {}
        }
        let conn = self.own_turn(cx, ports, command)?;
        let Some(who) = &self.who else {
            return Err(Step::Done);
        };
        let mut out = Vec::new();
        who.rewriter.list_all(true, &mut out);
        self.act_as(cx, ports, Actor::Platform);
        ports.copy_backend(conn, &out);
        self.libraries().inquiry = Some(Inquiry::Asked);
        self.launch_hidden(cx, ports, Kind::Libraries);
        self.act_as(cx, ports, Actor::Role);
        self.wait = Wait::Replies;
        Err(Step::Later)
    }

    /// Which libraries there are.
    pub(super) fn libraries_answered(&mut self, reply: &[u8]) {
        let Some(who) = &self.who else { return };
        let answer = match (who.rewriter.loaded(reply), Value::parse(reply)) {
            (Ok(loaded), _) => Inquiry::Answered(loaded),
            (_, Ok(Value::Error(text))) => {
                Inquiry::Failed(String::from_utf8_lossy(text).into_owned())
            }
            _ => Inquiry::Failed("ERR the server's list of functions cannot be read".into()),
        };
        if let Some(libraries) = self.libraries.as_mut() {
            libraries.inquiry = Some(answer);
        }
    }

    /// The reply to `FUNCTION STATS`, of the database's own libraries.
    pub(super) fn function_stats(&self, reply: &[u8], out: &mut Vec<u8>) {
        let loaded = self.who.as_ref().map(|who| who.rewriter.loaded(reply));
        let loaded = loaded.and_then(Result::ok).unwrap_or_default();
        functions::stats(&loaded, self.version, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_loaded_at_once_is_counted_together() {
        let loads = Arc::new(Loads::default());
        let (one, other) = (DatabaseId(1), DatabaseId(2));
        let first = loads.begin(one, 10);
        let second = loads.begin(one, 5);
        let apart = loads.begin(other, 100);
        assert_eq!(
            (first.bytes(), second.bytes(), apart.bytes()),
            (15, 15, 100)
        );
        // The second may have looked at the server's list before the first was in it.
        drop(first);
        assert_eq!(second.bytes(), 15);
        drop(second);
        assert_eq!(loads.begin(one, 7).bytes(), 7);
        drop(apart);
        assert!(loads.lock().is_empty());
    }
}
