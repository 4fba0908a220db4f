//! What a supervisor needs to know of a server, whichever engine's it is.

use std::time::Duration;

use async_trait::async_trait;
use rustix::process::Signal;
use tokio::process::Child;

use super::account::Account;
use super::home::Home;
use super::process::Seen;
use crate::provisioner::ProvisionError;

/// A server on this machine.
#[async_trait]
pub(super) trait LocalServer: Send + Sync + 'static {
    /// Its folders.
    fn home(&self) -> &Home;

    /// Who runs it.
    fn account(&self) -> &Account;

    /// How it is told to end.
    fn stopping(&self) -> &'static Stopping;

    /// Starts its process, which then has to become ready.
    fn spawn(&self) -> Result<Child, ProvisionError>;

    /// Looks whether it takes connections and answers.
    ///
    /// # Cancel safety
    /// Safe to drop.
    async fn probe(&self) -> Probe;

    /// The end of what it printed when it started.
    fn last_words(&self) -> String;

    /// Whether a process is the one that was started for this server, now or in an earlier life.
    fn is_main(&self, seen: &Seen) -> bool;

    /// Whether a process is that one or a child of it.
    fn is_of(&self, seen: &Seen) -> bool;
}

/// How a server is told to end.
#[derive(Debug)]
pub(super) struct Stopping {
    /// What it is told, and how long it is waited for until the next is tried.
    pub(super) steps: &'static [(Signal, Duration)],
    /// What ends it at once, without a word to its clients.
    pub(super) at_once: Signal,
}

/// What a look at a server told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Probe {
    /// It answers.
    Answers,
    /// It does not, or not yet.
    Silent,
    /// It never will, for this reason, until it is started again.
    Stuck(&'static str),
}
