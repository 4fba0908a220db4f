//! What is known of a server's commands, with what the proxy does with each.

use protocol_redis::command::{Flags, Role, Spec, Table};
use protocol_redis::request::Command;
use protocol_redis::rewrite::Transform;

use super::flight::Logged;
use super::policy::{Policy, policy};

/// The commands of one server.
pub(crate) struct Commands {
    table: Table,
    /// By the place in the table.
    policies: Box<[Policy]>,
}

impl Commands {
    pub(crate) fn new(table: Table) -> Self {
        let specs = table.specs().iter();
        let policies = specs.map(policy_of).collect();
        Self { table, policies }
    }

    /// The command of that name, and what becomes of it.
    #[inline]
    pub(super) fn find(&self, name: &[u8], subcommand: Option<&[u8]>) -> Option<(&Spec, Policy)> {
        let spec = self.table.find(name, subcommand)?;
        let first = std::ptr::from_ref(self.table.specs().first()?).addr();
        let place = (std::ptr::from_ref(spec).addr() - first) / size_of::<Spec>();
        Some((spec, *self.policies.get(place)?))
    }

    #[inline]
    pub(super) fn of(&self, command: &Command<'_>) -> Option<(&Spec, Policy)> {
        self.find(command.arg(0), command.get(1))
    }

    /// What a server says to a command that it does not know.
    pub(super) fn unknown(command: &Command<'_>) -> String {
        /// As in Redis.
        const MAX: usize = 128;
        let shorten = |arg: &[u8]| {
            let text = String::from_utf8_lossy(arg).replace(['\r', '\n'], " ");
            text.chars().take(MAX).collect::<String>()
        };
        let mut args = String::new();
        for arg in command.args().skip(1) {
            if args.len() >= MAX {
                break;
            }
            args.push_str(&format!("'{}' ", shorten(arg)));
        }
        format!(
            "ERR unknown command '{}', with args beginning with: {args}",
            shorten(command.arg(0))
        )
    }
}

/// What becomes of a command: by its name, and of one that has none here by what the server says of it.
fn policy_of(spec: &Spec) -> Policy {
    match policy(spec.name()) {
        // Over the shared connection, others would wait with it.
        Policy::Share if spec.flags().has(Flags::BLOCKING) => Policy::Block,
        policy => policy,
    }
}

/// Notes for the log what a command's name and keys are. Gives what is to be done with its reply.
#[inline]
pub(super) fn describe(spec: &Spec, command: &Command<'_>, logged: &mut Logged) -> Transform {
    let mut walk = spec.walk(command.argc());
    let subcommand = spec.name().contains(&b'|');
    let mut end = 0;
    for (index, arg) in command.args().enumerate() {
        // Each argument lies behind its header.
        let start = arg.as_ptr().addr() - command.raw().as_ptr().addr();
        let shown = match walk.next(Some(arg)) {
            Role::Other => index == 0 || (index == 1 && subcommand),
            _ => true,
        };
        end = start + arg.len();
        if shown {
            logged.show(start..end);
        }
    }
    let _ = end;
    spec.transform()
}
