//! What kind of statement a statement is.

/// The kind of a statement, by its leading words; after `WITH` by its main verb.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum StatementKind {
    /// Nothing but space and comments.
    #[default]
    Empty,
    /// A word no statement begins with.
    Unknown,
    /// `SELECT`, also in parentheses or after `WITH`.
    Select,
    /// `VALUES`.
    Values,
    /// `TABLE t`.
    Table,
    /// `INSERT`.
    Insert,
    /// `UPDATE`.
    Update,
    /// `DELETE`.
    Delete,
    /// `MERGE`.
    Merge,
    /// `COPY`.
    Copy,
    /// `TRUNCATE`.
    Truncate,
    /// `BEGIN`, `START TRANSACTION`.
    Begin,
    /// `COMMIT`, `END`.
    Commit,
    /// `ROLLBACK`, `ABORT`.
    Rollback,
    /// `PREPARE TRANSACTION`.
    PrepareTransaction,
    /// `COMMIT PREPARED`.
    CommitPrepared,
    /// `ROLLBACK PREPARED`.
    RollbackPrepared,
    /// `SAVEPOINT`.
    Savepoint,
    /// `ROLLBACK TO`.
    RollbackTo,
    /// `RELEASE`.
    Release,
    /// `SET` of a variable or of the role.
    Set,
    /// `SET TRANSACTION`.
    SetTransaction,
    /// `SET CONSTRAINTS`.
    SetConstraints,
    /// `SHOW`.
    Show,
    /// `RESET`.
    Reset,
    /// `DISCARD`.
    Discard,
    /// `PREPARE`.
    Prepare,
    /// `EXECUTE`.
    Execute,
    /// `DEALLOCATE`.
    Deallocate,
    /// `DECLARE`.
    Declare,
    /// `FETCH`.
    Fetch,
    /// `MOVE`.
    Move,
    /// `CLOSE`.
    Close,
    /// `LISTEN`.
    Listen,
    /// `UNLISTEN`.
    Unlisten,
    /// `NOTIFY`.
    Notify,
    /// `LOCK`.
    Lock,
    /// `EXPLAIN`.
    Explain,
    /// `CALL`.
    Call,
    /// `DO`.
    Do,
    /// `LOAD`.
    Load,
    /// `CHECKPOINT`.
    Checkpoint,
    /// `CREATE`.
    Create,
    /// `ALTER`.
    Alter,
    /// `DROP`.
    Drop,
    /// `COMMENT`.
    Comment,
    /// `GRANT`.
    Grant,
    /// `REVOKE`.
    Revoke,
    /// `SECURITY LABEL`.
    SecurityLabel,
    /// `REINDEX`.
    Reindex,
    /// `CLUSTER`, and `REPACK`.
    Cluster,
    /// `VACUUM`.
    Vacuum,
    /// `ANALYZE`.
    Analyze,
    /// `REFRESH MATERIALIZED VIEW`.
    Refresh,
    /// `IMPORT FOREIGN SCHEMA`.
    Import,
    /// `REASSIGN OWNED`.
    Reassign,
}
