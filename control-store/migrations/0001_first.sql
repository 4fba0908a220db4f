-- The first schema. Times are microseconds since 1970, UTC. Ids come from next_ids and are never used again.

CREATE TABLE next_ids (
    kind TEXT PRIMARY KEY,
    next INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Facts about the store itself; 'seal-check' proves that the sealing key belongs to it.
CREATE TABLE facts (
    name TEXT PRIMARY KEY,
    value BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE accounts (
    id INTEGER PRIMARY KEY,
    email TEXT NOT NULL UNIQUE, -- lower case
    password_hash TEXT NOT NULL, -- argon2id, PHC string
    tier TEXT NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE projects (
    id TEXT PRIMARY KEY,
    account INTEGER NOT NULL REFERENCES accounts (id),
    name TEXT NOT NULL,
    scram_salt BLOB NOT NULL,
    scram_iterations INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    deleted_at INTEGER -- set while its databases are still being removed
) STRICT, WITHOUT ROWID;
CREATE INDEX projects_of_account ON projects (account, created_at);

CREATE TABLE api_keys (
    id INTEGER PRIMARY KEY,
    project TEXT NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
    hash BLOB NOT NULL UNIQUE, -- SHA-256 of the full key
    sealed_key BLOB NOT NULL,
    sealed_password BLOB NOT NULL,
    hint TEXT NOT NULL, -- the part of the key that lists show
    stored_key BLOB NOT NULL,
    server_key BLOB NOT NULL,
    name TEXT NOT NULL,
    role TEXT NOT NULL,
    scope_type TEXT NOT NULL,
    scope_values TEXT NOT NULL, -- JSON array of names
    created_at INTEGER NOT NULL
) STRICT;
CREATE INDEX api_keys_of_project ON api_keys (project, id);

CREATE TABLE servers (
    id INTEGER PRIMARY KEY,
    engine TEXT NOT NULL,
    kind TEXT NOT NULL, -- shared or dedicated
    address TEXT NOT NULL, -- unix:/path or tcp:host:port
    connection_budget INTEGER NOT NULL,
    region TEXT NOT NULL,
    admin_user TEXT NOT NULL,
    sealed_admin_password BLOB NOT NULL,
    provisioner TEXT NOT NULL, -- JSON, read only by the provisioner that made it
    created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE workspaces (
    project TEXT NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    engine TEXT NOT NULL,
    mode TEXT NOT NULL, -- tenant or control
    settings TEXT NOT NULL, -- JSON: of the newest version, or in force where there are no versions
    pending_settings TEXT, -- JSON: saved, in no version yet
    next_change INTEGER NOT NULL DEFAULT 1,
    taken_position INTEGER NOT NULL DEFAULT 0, -- of the workspace database's own log
    created_at INTEGER NOT NULL,
    PRIMARY KEY (project, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE blueprint_versions (
    project TEXT NOT NULL,
    workspace TEXT NOT NULL,
    number INTEGER NOT NULL,
    settings TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    deployed_at INTEGER,
    PRIMARY KEY (project, workspace, number),
    FOREIGN KEY (project, workspace) REFERENCES workspaces (project, name) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;

CREATE TABLE changes (
    project TEXT NOT NULL,
    workspace TEXT NOT NULL,
    id INTEGER NOT NULL,
    statement TEXT NOT NULL,
    search_path TEXT NOT NULL,
    position INTEGER, -- in the workspace database's own log, which makes recording idempotent
    version INTEGER, -- NULL while pending
    created_at INTEGER NOT NULL,
    PRIMARY KEY (project, workspace, id),
    UNIQUE (project, workspace, position),
    FOREIGN KEY (project, workspace) REFERENCES workspaces (project, name) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;

CREATE TABLE tenants (
    project TEXT NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
    id TEXT NOT NULL,
    status TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    deleted_at INTEGER,
    PRIMARY KEY (project, id)
) STRICT, WITHOUT ROWID;

-- A row stands for a physical database: whatever it points at cannot be deleted before it.
CREATE TABLE databases (
    id INTEGER PRIMARY KEY,
    project TEXT NOT NULL,
    engine TEXT NOT NULL,
    name TEXT NOT NULL,
    workspace TEXT NOT NULL,
    tenant TEXT,
    server INTEGER NOT NULL REFERENCES servers (id),
    state TEXT NOT NULL,
    sealed_roles BLOB NOT NULL,
    settings TEXT NOT NULL, -- JSON: in force
    pool_mode TEXT NOT NULL,
    schema_epoch INTEGER NOT NULL DEFAULT 0,
    version INTEGER NOT NULL DEFAULT 0, -- the newest blueprint version it has in full
    created_at INTEGER NOT NULL,
    UNIQUE (server, name),
    UNIQUE (project, engine, name),
    FOREIGN KEY (project, workspace) REFERENCES workspaces (project, name),
    FOREIGN KEY (project, tenant) REFERENCES tenants (project, id)
) STRICT;
CREATE INDEX databases_in_state ON databases (state);
CREATE INDEX databases_of_workspace ON databases (project, workspace);
CREATE INDEX databases_of_tenant ON databases (project, tenant);

-- Changes that a database has beyond its version, since a deployment failed on the way. The whole ledger is in the database.
CREATE TABLE ledger (
    database INTEGER NOT NULL REFERENCES databases (id) ON DELETE CASCADE,
    change INTEGER NOT NULL,
    applied_at INTEGER NOT NULL,
    PRIMARY KEY (database, change)
) STRICT, WITHOUT ROWID;

CREATE TABLE deployments (
    id TEXT PRIMARY KEY,
    project TEXT NOT NULL,
    workspace TEXT NOT NULL,
    version INTEGER NOT NULL,
    status TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    finished_at INTEGER,
    FOREIGN KEY (project, workspace) REFERENCES workspaces (project, name) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
CREATE INDEX deployments_of_project ON deployments (project, created_at);
CREATE INDEX deployments_by_status ON deployments (status);
CREATE INDEX deployments_of_workspace ON deployments (project, workspace);

CREATE TABLE deployment_results (
    deployment TEXT NOT NULL REFERENCES deployments (id) ON DELETE CASCADE,
    tenant TEXT NOT NULL, -- kept when the tenant is gone
    database INTEGER NOT NULL,
    status TEXT NOT NULL,
    error TEXT,
    duration_us INTEGER,
    PRIMARY KEY (deployment, tenant)
) STRICT, WITHOUT ROWID;
CREATE INDEX deployment_results_of_tenant ON deployment_results (tenant);

CREATE TABLE jobs (
    id INTEGER PRIMARY KEY,
    kind TEXT NOT NULL,
    project TEXT, -- kept when the project is gone
    params TEXT NOT NULL, -- JSON
    status TEXT NOT NULL,
    error TEXT,
    created_at INTEGER NOT NULL,
    finished_at INTEGER
) STRICT;
CREATE INDEX jobs_by_status ON jobs (status);

CREATE TABLE job_log (
    job INTEGER NOT NULL REFERENCES jobs (id),
    seq INTEGER NOT NULL,
    step TEXT NOT NULL,
    event TEXT NOT NULL,
    data TEXT NOT NULL, -- JSON: what a later step or the undoing needs
    at INTEGER NOT NULL,
    PRIMARY KEY (job, seq)
) STRICT, WITHOUT ROWID;
CREATE TRIGGER job_log_is_append_only BEFORE UPDATE ON job_log
BEGIN
    SELECT RAISE(ABORT, 'the job log is append-only');
END;
CREATE TRIGGER job_log_is_not_thinned BEFORE DELETE ON job_log
BEGIN
    SELECT RAISE(ABORT, 'the job log is append-only');
END;

CREATE TABLE bans (
    address TEXT PRIMARY KEY, -- an IPv4 address, or the /64 of an IPv6 address
    until INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE audit (
    id INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    account INTEGER,
    project TEXT,
    key INTEGER,
    address TEXT, -- where the request came from
    action TEXT NOT NULL,
    detail TEXT NOT NULL
) STRICT;
CREATE INDEX audit_of_project ON audit (project, id);
