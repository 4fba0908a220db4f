-- Redis: a server's logical databases, and who selects among them; a database's number on its server.

ALTER TABLE servers ADD COLUMN redis_databases INTEGER; -- how many logical databases it has
ALTER TABLE servers ADD COLUMN sealed_select_password BLOB; -- of the user that may only SELECT

-- Names of Redis databases are ours alone, and no server sees them: two of a name may be on one server. SQLite changes a
-- table's rules only by making it anew, and the ledger would go with the old table's rows.
CREATE TABLE ledger_kept AS SELECT * FROM ledger;
DROP TABLE ledger;
CREATE TABLE databases_anew (
    id INTEGER PRIMARY KEY,
    project TEXT NOT NULL,
    engine TEXT NOT NULL,
    name TEXT NOT NULL,
    workspace TEXT NOT NULL,
    tenant TEXT,
    server INTEGER NOT NULL REFERENCES servers (id),
    redis_number INTEGER, -- among its server's logical databases
    state TEXT NOT NULL,
    sealed_roles BLOB NOT NULL,
    settings TEXT NOT NULL, -- JSON: in force
    pool_mode TEXT NOT NULL,
    schema_epoch INTEGER NOT NULL DEFAULT 0,
    version INTEGER NOT NULL DEFAULT 0, -- the newest blueprint version it has in full
    created_at INTEGER NOT NULL,
    UNIQUE (server, redis_number),
    UNIQUE (project, engine, name),
    CHECK ((engine = 'redis') = (redis_number IS NOT NULL)),
    FOREIGN KEY (project, workspace) REFERENCES workspaces (project, name),
    FOREIGN KEY (project, tenant) REFERENCES tenants (project, id)
) STRICT;
INSERT INTO databases_anew (id, project, engine, name, workspace, tenant, server, state, sealed_roles, settings, pool_mode,
    schema_epoch, version, created_at)
SELECT id, project, engine, name, workspace, tenant, server, state, sealed_roles, settings, pool_mode,
    schema_epoch, version, created_at
FROM databases;
DROP TABLE databases;
ALTER TABLE databases_anew RENAME TO databases;
CREATE UNIQUE INDEX database_names_on_server ON databases (server, name) WHERE engine <> 'redis';
CREATE INDEX databases_in_state ON databases (state);
CREATE INDEX databases_of_workspace ON databases (project, workspace);
CREATE INDEX databases_of_tenant ON databases (project, tenant);

CREATE TABLE ledger (
    database INTEGER NOT NULL REFERENCES databases (id) ON DELETE CASCADE,
    change INTEGER NOT NULL,
    applied_at INTEGER NOT NULL,
    PRIMARY KEY (database, change)
) STRICT, WITHOUT ROWID;
INSERT INTO ledger SELECT * FROM ledger_kept;
DROP TABLE ledger_kept;
