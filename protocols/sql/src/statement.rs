//! One statement: a small machine that takes its tokens and knows its kind and effects.
//!
//! The grammar followed is `src/backend/parser/gram.y` of PostgreSQL 18. Text that the server
//! refuses to parse has no effects, so the machine need not recognize it as wrong.

use crate::block::BlockScan;
use crate::keyword::Keyword;
use crate::lexer::Token;
use crate::{Effects, StatementKind};

/// A token as the machine sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    Nothing,
    Word(Keyword),
    Quoted(Keyword),
    Literal,
    Number,
    Symbol(u8),
}

impl Piece {
    pub(crate) fn of(token: Token<'_>) -> Self {
        match token {
            Token::Word(word) => Self::Word(Keyword::lookup(word)),
            Token::Quoted(name) => Self::Quoted(Keyword::lookup_quoted(name)),
            Token::Literal => Self::Literal,
            Token::Number => Self::Number,
            Token::Symbol(byte) => Self::Symbol(byte),
        }
    }

    pub(crate) fn keyword(self) -> Keyword {
        match self {
            Self::Word(keyword) => keyword,
            _ => Keyword::Other,
        }
    }

    fn name(self) -> Keyword {
        match self {
            Self::Word(keyword) | Self::Quoted(keyword) => keyword,
            _ => Keyword::Other,
        }
    }
}

/// What the machine waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// The verb.
    Start,
    /// Only names of interest.
    Body,
    With {
        base: u32,
    },
    /// The name after `SELECT … INTO`.
    Into,
    Explain,
    /// After `EXPLAIN (`: options or a query.
    ExplainParenthesis,
    ExplainOptions,
    Create,
    /// The name of a table, view or sequence: in `pg_temp` it is no DDL.
    CreateName,
    /// A dot after `pg_temp`, which would make the name temporary.
    TemporaryDot,
    /// A possible `BEGIN ATOMIC`.
    Routine,
    /// Inside `BEGIN ATOMIC … END`.
    Atomic,
    Drop,
    DropName,
    DropTemporaryDot,
    DropTemporary,
    Set {
        local: bool,
    },
    /// After a word that is a scope or a form of its own, unless `=`, `TO` or a dot follows.
    SetWord {
        word: Keyword,
        local: bool,
    },
    Reset,
    Commit,
    Rollback,
    Prepare,
    /// After `PREPARE TRANSACTION`: a literal, or it was a statement's name.
    PrepareTransaction,
    /// The `AS` before a statement's text.
    PrepareAs,
    Declare,
}

/// The machine for one statement.
#[derive(Debug)]
pub(crate) struct Statement {
    kind: StatementKind,
    effects: Effects,
    step: Step,
    depth: u32,
    prev: Piece,
    /// `INTO` would make a table.
    selects: bool,
    explain_runs: bool,
    /// Of the body, if it is a block.
    block: BlockScan,
}

impl Statement {
    pub(crate) fn new() -> Self {
        Self {
            kind: StatementKind::Empty,
            effects: Effects::NONE,
            step: Step::Start,
            depth: 0,
            prev: Piece::Nothing,
            selects: false,
            explain_runs: false,
            block: BlockScan::default(),
        }
    }

    /// Whether a semicolon would end it here.
    pub(crate) fn ends_at_semicolon(&self) -> bool {
        self.depth == 0 && self.step != Step::Atomic
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.prev == Piece::Nothing
    }

    /// Takes the next token.
    pub(crate) fn take(&mut self, piece: Piece) {
        match piece {
            Piece::Symbol(b'(') => self.depth = self.depth.saturating_add(1),
            Piece::Symbol(b')') => self.depth = self.depth.saturating_sub(1),
            Piece::Word(Keyword::Other) if self.step == Step::Body => {}
            _ => self.note_name(piece),
        }
        self.advance(piece);
        self.prev = piece;
        if self.kind == StatementKind::Do {
            self.block.end();
        }
    }

    /// Takes a piece of the literal that was the last token.
    pub(crate) fn take_literal(&mut self, piece: &[u8], quoted: bool) {
        if self.kind == StatementKind::Do {
            self.block.push(piece, quoted);
        }
    }

    /// What it was, once all tokens are in.
    pub(crate) fn finish(&mut self) -> (StatementKind, Effects) {
        let mut effects = self.effects;
        self.block.end();
        if self.block.found() {
            effects |= Effects::DDL;
        }
        match self.step {
            Step::Create | Step::CreateName | Step::TemporaryDot | Step::Into => {
                effects |= Effects::DDL;
            }
            Step::Drop | Step::DropName | Step::DropTemporaryDot => effects |= Effects::DDL,
            _ => {}
        }
        match self.kind {
            StatementKind::Explain if !self.explain_runs => {
                (self.kind, effects.without(Effects::DDL | Effects::TEMP))
            }
            StatementKind::Empty if !self.is_empty() => (StatementKind::Unknown, effects),
            kind => (kind, effects),
        }
    }

    /// Function names count wherever they stand.
    fn note_name(&mut self, piece: Piece) {
        self.effects |= match piece.name() {
            Keyword::SetConfig => Effects::SET_CONFIG,
            Keyword::PgAdvisoryLock
            | Keyword::PgAdvisoryLockShared
            | Keyword::PgTryAdvisoryLock
            | Keyword::PgTryAdvisoryLockShared => Effects::ADVISORY_LOCK,
            Keyword::PgAdvisoryUnlock
            | Keyword::PgAdvisoryUnlockShared
            | Keyword::PgAdvisoryUnlockAll => Effects::ADVISORY_UNLOCK,
            Keyword::PgTemp if self.kind == StatementKind::Create => Effects::TEMP,
            // The name before it is spelled with an escape of its own: it may be any name.
            Keyword::Uescape if matches!(self.prev, Piece::Quoted(_)) => {
                let any = Effects::SET_CONFIG | Effects::ADVISORY_LOCK | Effects::ADVISORY_UNLOCK;
                let sets = self
                    .effects
                    .intersects(Effects::SET_SESSION | Effects::SET_LOCAL);
                if sets { any | Effects::SET_ROLE } else { any }
            }
            _ => return,
        };
    }

    fn advance(&mut self, piece: Piece) {
        match self.step {
            Step::Body => self.body(piece),
            Step::Start => self.start(piece),
            Step::With { base } => self.with(piece, base),
            Step::Into => self.name_of_into(piece),
            Step::Explain => self.explain(piece),
            Step::ExplainParenthesis => self.explain_parenthesis(piece),
            Step::ExplainOptions => self.explain_options(piece),
            Step::Create => self.create(piece),
            Step::CreateName => self.create_name(piece),
            Step::TemporaryDot => self.temporary_dot(piece),
            Step::Routine => self.routine(piece),
            Step::Atomic => self.atomic(piece),
            Step::Drop => self.drop_type(piece),
            Step::DropName => self.drop_name(piece),
            Step::DropTemporaryDot => self.drop_temporary_dot(piece),
            Step::DropTemporary => self.drop_temporary(piece),
            Step::Set { local } => self.set(piece, local),
            Step::SetWord { word, local } => self.set_word(piece, word, local),
            Step::Reset => self.reset(piece),
            Step::Commit => self.commit(piece),
            Step::Rollback => self.rollback(piece),
            Step::Prepare => self.prepare(piece),
            Step::PrepareTransaction => self.prepare_transaction(piece),
            Step::PrepareAs => self.prepare_as(piece),
            Step::Declare => self.declare(piece),
        }
    }

    fn body(&mut self, piece: Piece) {
        match piece {
            Piece::Word(Keyword::Into) if self.selects => self.into(),
            Piece::Word(Keyword::Execute) if self.executes() => self.effects |= Effects::EXECUTE,
            _ => {}
        }
    }

    /// Whether the word `EXECUTE` stands where `CREATE TABLE … AS` takes it.
    fn executes(&self) -> bool {
        matches!(self.kind, StatementKind::Create | StatementKind::Explain)
            && self.prev.keyword() == Keyword::As
    }

    /// `INTO` after `INSERT`, `MERGE`, `AS` or a dot makes no table.
    fn into(&mut self) {
        let harmless = match self.prev {
            Piece::Word(keyword) => {
                matches!(keyword, Keyword::Insert | Keyword::Merge | Keyword::As)
            }
            piece => piece == Piece::Symbol(b'.'),
        };
        if !harmless {
            self.step = Step::Into;
        }
    }

    fn name_of_into(&mut self, piece: Piece) {
        match piece.name() {
            Keyword::Temp | Keyword::Temporary => self.become_effect(Effects::TEMP),
            Keyword::Local | Keyword::Global | Keyword::Unlogged | Keyword::Table => {}
            Keyword::PgTemp => self.step = Step::TemporaryDot,
            _ => self.become_effect(Effects::DDL),
        }
    }

    fn become_effect(&mut self, effects: Effects) {
        self.effects |= effects;
        self.step = Step::Body;
    }

    /// The verb inside `EXPLAIN` and `PREPARE` does not change what the statement is.
    fn set_kind(&mut self, kind: StatementKind) {
        if self.kind == StatementKind::Empty {
            self.kind = kind;
        }
    }

    fn start(&mut self, piece: Piece) {
        if matches!(piece, Piece::Symbol(b'(')) {
            return;
        }
        let (kind, effects, step) = verb(piece.keyword());
        self.set_kind(kind);
        self.effects |= effects;
        self.selects = kind == StatementKind::Select;
        self.step = match step {
            Step::With { .. } => Step::With { base: self.depth },
            step => step,
        };
    }

    fn with(&mut self, piece: Piece, base: u32) {
        let keyword = piece.keyword();
        if keyword == Keyword::Into {
            return self.into();
        }
        let names_a_table = matches!(
            self.prev,
            Piece::Word(Keyword::With | Keyword::Recursive) | Piece::Symbol(b',' | b'.')
        );
        if self.depth != base || names_a_table {
            return;
        }
        let kind = match keyword {
            Keyword::Insert => StatementKind::Insert,
            Keyword::Update => StatementKind::Update,
            Keyword::Delete => StatementKind::Delete,
            Keyword::Merge => StatementKind::Merge,
            Keyword::Select | Keyword::Values | Keyword::Table => return self.step = Step::Body,
            _ => return,
        };
        if self.kind == StatementKind::Select {
            self.kind = kind;
        }
        self.selects = false;
        self.step = Step::Body;
    }

    fn explain(&mut self, piece: Piece) {
        match (piece, piece.keyword()) {
            (_, Keyword::Analyze | Keyword::Analyse) => self.explain_runs = true,
            (_, Keyword::Verbose) => {}
            (Piece::Symbol(b'('), _) => self.step = Step::ExplainParenthesis,
            _ => self.start(piece),
        }
    }

    fn explain_parenthesis(&mut self, piece: Piece) {
        match (piece, piece.keyword()) {
            (_, Keyword::Select | Keyword::Values | Keyword::With | Keyword::Table) => {
                self.start(piece);
            }
            (Piece::Symbol(b'('), _) => self.step = Step::Start,
            _ => {
                self.step = Step::ExplainOptions;
                self.explain_options(piece);
            }
        }
    }

    fn explain_options(&mut self, piece: Piece) {
        match (piece, piece.keyword()) {
            (_, Keyword::Analyze | Keyword::Analyse) => self.explain_runs = true,
            // An option's name may be quoted, and spelled by escapes.
            (Piece::Quoted(_), _) => self.explain_runs = true,
            (Piece::Symbol(b')'), _) if self.depth == 0 => self.step = Step::Start,
            _ => {}
        }
    }

    fn create(&mut self, piece: Piece) {
        match piece.keyword() {
            Keyword::Or | Keyword::Replace | Keyword::Global | Keyword::Local => {}
            Keyword::Unlogged | Keyword::Recursive => {}
            Keyword::Temp | Keyword::Temporary => self.become_effect(Effects::TEMP),
            Keyword::Table | Keyword::View | Keyword::Sequence => self.step = Step::CreateName,
            Keyword::Function | Keyword::Procedure => {
                self.effects |= Effects::DDL;
                self.step = Step::Routine;
            }
            _ => self.become_effect(Effects::DDL),
        }
    }

    fn create_name(&mut self, piece: Piece) {
        match piece.name() {
            Keyword::If | Keyword::Not | Keyword::Exists => {}
            Keyword::PgTemp => self.step = Step::TemporaryDot,
            _ => self.become_effect(Effects::DDL),
        }
    }

    fn temporary_dot(&mut self, piece: Piece) {
        let temporary = piece == Piece::Symbol(b'.');
        self.become_effect(if temporary {
            Effects::TEMP
        } else {
            Effects::DDL
        });
    }

    fn routine(&mut self, piece: Piece) {
        let begins = piece.keyword() == Keyword::Atomic && self.prev.keyword() == Keyword::Begin;
        if begins && self.depth == 0 {
            self.step = Step::Atomic;
        }
    }

    /// Each statement of the body ends in a semicolon, so its `END` follows one, or `ATOMIC`.
    fn atomic(&mut self, piece: Piece) {
        let last =
            matches!(self.prev, Piece::Symbol(b';')) || self.prev.keyword() == Keyword::Atomic;
        if last && self.depth == 0 && piece.keyword() == Keyword::End {
            self.step = Step::Body;
        }
    }

    fn drop_type(&mut self, piece: Piece) {
        match piece.keyword() {
            Keyword::Table | Keyword::View | Keyword::Sequence | Keyword::Index => {
                self.step = Step::DropName;
            }
            _ => self.become_effect(Effects::DDL),
        }
    }

    fn drop_name(&mut self, piece: Piece) {
        match piece.name() {
            Keyword::If | Keyword::Exists | Keyword::Concurrently => {}
            Keyword::PgTemp => self.step = Step::DropTemporaryDot,
            _ => self.become_effect(Effects::DDL),
        }
    }

    fn drop_temporary_dot(&mut self, piece: Piece) {
        if piece == Piece::Symbol(b'.') {
            self.step = Step::DropTemporary;
        } else {
            self.become_effect(Effects::DDL);
        }
    }

    fn drop_temporary(&mut self, piece: Piece) {
        if piece == Piece::Symbol(b',') {
            self.step = Step::DropName;
        }
    }

    fn set(&mut self, piece: Piece, local: bool) {
        let word = piece.name();
        match word {
            Keyword::Session | Keyword::Local | Keyword::Transaction | Keyword::Constraints => {
                self.step = Step::SetWord { word, local };
            }
            Keyword::Role | Keyword::SessionAuthorization => {
                self.become_effect(scope(local) | Effects::SET_ROLE);
            }
            _ => self.become_effect(scope(local)),
        }
    }

    fn set_word(&mut self, piece: Piece, word: Keyword, local: bool) {
        let next = piece.keyword();
        if matches!(piece, Piece::Symbol(b'.' | b'=')) || next == Keyword::To {
            return self.become_effect(scope(local));
        }
        match (word, next) {
            (Keyword::Transaction, _) => self.become_kind(StatementKind::SetTransaction),
            (Keyword::Constraints, _) => self.become_kind(StatementKind::SetConstraints),
            (Keyword::Session, Keyword::Authorization) => {
                self.become_effect(scope(local) | Effects::SET_ROLE);
            }
            (Keyword::Session, Keyword::Characteristics) => {
                self.become_effect(Effects::SET_SESSION);
            }
            _ => self.set(piece, local || word == Keyword::Local),
        }
    }

    fn become_kind(&mut self, kind: StatementKind) {
        self.kind = kind;
        self.step = Step::Body;
    }

    fn reset(&mut self, piece: Piece) {
        match piece.name() {
            Keyword::Role | Keyword::Session | Keyword::SessionAuthorization | Keyword::All => {
                let role = piece.name() != Keyword::All;
                self.become_effect(if role {
                    Effects::SET_ROLE
                } else {
                    Effects::NONE
                });
            }
            _ => self.step = Step::Body,
        }
    }

    fn commit(&mut self, piece: Piece) {
        match piece.keyword() {
            Keyword::Prepared => self.become_kind(StatementKind::CommitPrepared),
            _ => self.step = Step::Body,
        }
    }

    fn rollback(&mut self, piece: Piece) {
        match piece.keyword() {
            Keyword::Work | Keyword::Transaction => {}
            Keyword::Prepared => self.become_kind(StatementKind::RollbackPrepared),
            Keyword::To => {
                self.effects = Effects::SAVEPOINT;
                self.become_kind(StatementKind::RollbackTo);
            }
            _ => self.step = Step::Body,
        }
    }

    fn prepare(&mut self, piece: Piece) {
        self.step = match piece.keyword() {
            Keyword::Transaction => Step::PrepareTransaction,
            _ => Step::PrepareAs,
        };
        if self.step == Step::PrepareAs {
            self.effects |= Effects::PREPARE;
        }
    }

    fn prepare_transaction(&mut self, piece: Piece) {
        if piece == Piece::Literal {
            self.effects |= Effects::TRANSACTION;
            return self.become_kind(StatementKind::PrepareTransaction);
        }
        self.effects |= Effects::PREPARE;
        self.step = Step::PrepareAs;
        self.prepare_as(piece);
    }

    fn prepare_as(&mut self, piece: Piece) {
        if self.depth == 0 && piece.keyword() == Keyword::As {
            self.step = Step::Start;
        }
    }

    fn declare(&mut self, piece: Piece) {
        match piece.keyword() {
            Keyword::Hold if self.prev.keyword() == Keyword::With => {
                self.effects |= Effects::HOLD_CURSOR;
            }
            Keyword::For => self.step = Step::Body,
            _ => {}
        }
    }
}

fn scope(local: bool) -> Effects {
    if local {
        Effects::SET_LOCAL
    } else {
        Effects::SET_SESSION
    }
}

/// What the first word says: the kind, what it does in any case, and what to look for next.
fn verb(keyword: Keyword) -> (StatementKind, Effects, Step) {
    use StatementKind as Kind;
    let plain = |kind| (kind, Effects::NONE, Step::Body);
    let with = |kind, effects| (kind, effects, Step::Body);
    let ddl = |kind| (kind, Effects::DDL, Step::Body);
    match keyword {
        Keyword::Select => plain(Kind::Select),
        Keyword::With => (Kind::Select, Effects::NONE, Step::With { base: 0 }),
        Keyword::Insert => plain(Kind::Insert),
        Keyword::Update => plain(Kind::Update),
        Keyword::Delete => plain(Kind::Delete),
        Keyword::Merge => plain(Kind::Merge),
        Keyword::Values => plain(Kind::Values),
        Keyword::Table => plain(Kind::Table),
        Keyword::Truncate => plain(Kind::Truncate),
        Keyword::Show => plain(Kind::Show),
        Keyword::Fetch => plain(Kind::Fetch),
        Keyword::Move => plain(Kind::Move),
        Keyword::Lock => plain(Kind::Lock),
        Keyword::Call => plain(Kind::Call),
        Keyword::Do => plain(Kind::Do),
        Keyword::Checkpoint => plain(Kind::Checkpoint),
        Keyword::Explain => (Kind::Explain, Effects::NONE, Step::Explain),
        Keyword::Begin | Keyword::Start => with(Kind::Begin, Effects::TRANSACTION),
        Keyword::Commit | Keyword::End => (Kind::Commit, Effects::TRANSACTION, Step::Commit),
        Keyword::Rollback => (Kind::Rollback, Effects::TRANSACTION, Step::Rollback),
        Keyword::Abort => with(Kind::Rollback, Effects::TRANSACTION),
        Keyword::Savepoint => with(Kind::Savepoint, Effects::SAVEPOINT),
        Keyword::Release => with(Kind::Release, Effects::SAVEPOINT),
        Keyword::Set => (Kind::Set, Effects::NONE, Step::Set { local: false }),
        Keyword::Reset => (Kind::Reset, Effects::RESET, Step::Reset),
        Keyword::Discard => with(Kind::Discard, Effects::DISCARD),
        Keyword::Prepare => (Kind::Prepare, Effects::NONE, Step::Prepare),
        Keyword::Execute => with(Kind::Execute, Effects::EXECUTE),
        Keyword::Deallocate => with(Kind::Deallocate, Effects::DEALLOCATE),
        Keyword::Declare => (Kind::Declare, Effects::NONE, Step::Declare),
        Keyword::Close => with(Kind::Close, Effects::CLOSE_CURSOR),
        Keyword::Listen => with(Kind::Listen, Effects::LISTEN),
        Keyword::Unlisten => with(Kind::Unlisten, Effects::UNLISTEN),
        Keyword::Notify => with(Kind::Notify, Effects::NOTIFY),
        Keyword::Load => with(Kind::Load, Effects::LOAD),
        Keyword::Copy => with(Kind::Copy, Effects::COPY),
        Keyword::Create => (Kind::Create, Effects::NONE, Step::Create),
        Keyword::Drop => (Kind::Drop, Effects::NONE, Step::Drop),
        Keyword::Alter => ddl(Kind::Alter),
        Keyword::Comment => ddl(Kind::Comment),
        Keyword::Grant => ddl(Kind::Grant),
        Keyword::Revoke => ddl(Kind::Revoke),
        Keyword::Security => ddl(Kind::SecurityLabel),
        Keyword::Reindex => ddl(Kind::Reindex),
        Keyword::Cluster | Keyword::Repack => ddl(Kind::Cluster),
        Keyword::Vacuum => ddl(Kind::Vacuum),
        Keyword::Analyze | Keyword::Analyse => ddl(Kind::Analyze),
        Keyword::Refresh => ddl(Kind::Refresh),
        Keyword::Import => ddl(Kind::Import),
        Keyword::Reassign => ddl(Kind::Reassign),
        _ => plain(Kind::Unknown),
    }
}
