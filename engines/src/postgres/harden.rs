//! What PostgreSQL shows and lets everybody do by default, and nobody may here.
//!
//! Databases of many customers share a server. Stock PostgreSQL lets any role see the names, sessions and sizes of all
//! databases; what of it can be taken from PUBLIC is taken, in each database, since rights on the catalog's own objects are
//! per database. What a session needs of itself (`pg_settings`, `pg_cursors`, `pg_prepared_statements`, `pg_class`,
//! `information_schema`) stays.

use super::{identifier, literal};

/// What the platform keeps for itself in every database.
pub(super) const PLATFORM: &str = "_tenantsdb";

/// Owns what is in the platform's schema, so that a function there which runs with more rights than its caller has those of
/// a role that can do nothing else.
pub(super) const PLATFORM_ROLE: &str = "tenantsdb_platform";

/// Relations that show other databases, their sessions or how busy the server is, as LIKE patterns.
const HIDDEN_RELATIONS: [&str; 24] = [
    "pg\\_database",
    "pg\\_db\\_role\\_setting",
    "pg\\_locks",
    "pg\\_prepared\\_xacts",
    "pg\\_replication\\_origin%",
    "pg\\_replication\\_slots",
    "pg\\_shdepend",
    "pg\\_stat\\_activity",
    "pg\\_stat\\_archiver",
    "pg\\_stat\\_bgwriter",
    "pg\\_stat\\_checkpointer",
    "pg\\_stat\\_database%",
    "pg\\_stat\\_gssapi",
    "pg\\_stat\\_io",
    "pg\\_stat\\_progress\\_%",
    "pg\\_stat\\_recovery\\_prefetch",
    "pg\\_stat\\_replication%",
    "pg\\_stat\\_slru",
    "pg\\_stat\\_ssl",
    "pg\\_stat\\_subscription%",
    "pg\\_stat\\_wal",
    "pg\\_stat\\_wal\\_receiver",
    "pg\\_subscription",
    "pg\\_shseclabel",
];

/// The same as functions, what tells whether a database of some name exists, and what acts on other sessions.
const HIDDEN_FUNCTIONS: [&str; 30] = [
    "has\\_database\\_privilege",
    "pg\\_blocking\\_pids",
    "pg\\_cancel\\_backend",
    "pg\\_control\\_%",
    "pg\\_database\\_size",
    "pg\\_describe\\_object",
    "pg\\_get\\_object\\_address",
    "pg\\_get\\_replication\\_slots",
    "pg\\_identify\\_object%",
    "pg\\_isolation\\_test\\_session\\_is\\_blocked",
    "pg\\_lock\\_status",
    "pg\\_prepared\\_xact",
    "pg\\_safe\\_snapshot\\_blocking\\_pids",
    "pg\\_show\\_replication\\_origin\\_status",
    "pg\\_stat\\_get\\_activity",
    "pg\\_stat\\_get\\_archiver",
    "pg\\_stat\\_get\\_backend\\_%",
    "pg\\_stat\\_get\\_bgwriter\\_%",
    "pg\\_stat\\_get\\_buf\\_%",
    "pg\\_stat\\_get\\_checkpoint%",
    "pg\\_stat\\_get\\_db\\_%",
    "pg\\_stat\\_get\\_io",
    "pg\\_stat\\_get\\_progress\\_info",
    "pg\\_stat\\_get\\_replication\\_slot",
    "pg\\_stat\\_get\\_slru",
    "pg\\_stat\\_get\\_subscription%",
    "pg\\_stat\\_get\\_wal%",
    "pg\\_tablespace\\_databases",
    "pg\\_tablespace\\_size",
    "pg\\_terminate\\_backend",
];

/// What writes large objects: data to a role that may write, and nothing for one that may only read.
const LARGE_OBJECT_WRITERS: [&str; 8] = [
    "lo\\_creat",
    "lo\\_create",
    "lo\\_from\\_bytea",
    "lo\\_put",
    "lo\\_truncate",
    "lo\\_truncate64",
    "lo\\_unlink",
    "lowrite",
];

/// Extensions that PostgreSQL itself trusts to anybody and that bring no language with them.
const EXTENSIONS: [&str; 21] = [
    "btree_gin",
    "btree_gist",
    "citext",
    "cube",
    "dict_int",
    "fuzzystrmatch",
    "hstore",
    "intarray",
    "isn",
    "lo",
    "ltree",
    "pg_trgm",
    "pgcrypto",
    "seg",
    "tablefunc",
    "tcn",
    "tsm_system_rows",
    "tsm_system_time",
    "unaccent",
    "uuid-ossp",
    "vector",
];

/// What a tenant's role may do to its temporary objects, by command tag. Functions, types and operators are not among it:
/// a temporary one could come before another's in what runs with more rights.
const TEMPORARY: [&str; 14] = [
    "ALTER INDEX",
    "ALTER SEQUENCE",
    "ALTER TABLE",
    "ALTER VIEW",
    "CREATE INDEX",
    "CREATE SEQUENCE",
    "CREATE TABLE",
    "CREATE TABLE AS",
    "CREATE VIEW",
    "DROP INDEX",
    "DROP SEQUENCE",
    "DROP TABLE",
    "DROP VIEW",
    "SELECT INTO",
];

/// The sentence of the API reference.
const NO_DDL: &str = "DDL not allowed on tenant databases. Deploy schema through blueprints.";

fn list<const N: usize>(items: [&str; N]) -> String {
    items.map(literal).join(", ")
}

/// `information_schema.columns` looks up the encoding in `pg_database`, as whoever asks: it gets along without.
const OCTET_LENGTH: &str = "
CREATE OR REPLACE FUNCTION information_schema._pg_char_octet_length(typid oid, typmod int4) RETURNS integer
    LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURNS NULL ON NULL INPUT
    RETURN CASE WHEN typid IN (25, 1042, 1043) THEN
        CASE WHEN typmod = -1 THEN CAST(2^30 AS integer)
        ELSE information_schema._pg_char_max_length(typid, typmod)
            * pg_catalog.pg_encoding_max_length(pg_catalog.pg_char_to_encoding(pg_catalog.getdatabaseencoding()))
        END
    END;";

/// Takes from PUBLIC what shows others; gives large objects to `writers`, a list of identifiers. It takes a superuser.
pub(super) fn catalog(writers: &str) -> String {
    let relations = list(HIDDEN_RELATIONS);
    let functions = list(HIDDEN_FUNCTIONS);
    let large = list(LARGE_OBJECT_WRITERS);
    format!(
        "DO $$
         DECLARE name text;
         BEGIN
             FOR name IN SELECT c.oid::regclass FROM pg_class c
                 WHERE c.relnamespace = 'pg_catalog'::regnamespace AND c.relkind IN ('r', 'v')
                     AND c.relname LIKE ANY (ARRAY[{relations}])
             LOOP EXECUTE 'REVOKE ALL ON ' || name || ' FROM PUBLIC'; END LOOP;
             FOR name IN SELECT p.oid::regprocedure FROM pg_proc p
                 WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.proname LIKE ANY (ARRAY[{functions}])
             LOOP EXECUTE 'REVOKE ALL ON FUNCTION ' || name || ' FROM PUBLIC'; END LOOP;
             FOR name IN SELECT p.oid::regprocedure FROM pg_proc p
                 WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.proname LIKE ANY (ARRAY[{large}])
             LOOP EXECUTE 'REVOKE ALL ON FUNCTION ' || name || ' FROM PUBLIC'; END LOOP;
         END $$;
         {}
         {OCTET_LENGTH}",
        large_objects(writers)
    )
}

/// Gives large objects to `writers`, a list of identifiers with what may follow one in a `GRANT`.
pub(super) fn large_objects(writers: &str) -> String {
    let large = list(LARGE_OBJECT_WRITERS);
    format!(
        "DO $$
         DECLARE name text;
         BEGIN
             FOR name IN SELECT p.oid::regprocedure FROM pg_proc p
                 WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.proname LIKE ANY (ARRAY[{large}])
             LOOP EXECUTE 'GRANT EXECUTE ON FUNCTION ' || name || ' TO {writers}'; END LOOP;
         END $$;"
    )
}

/// The platform's schema with what every database has in it.
///
/// Functions that run as another role name `pg_temp` last in their search path: left out, it would come first, and
/// anybody can put views and types there.
pub(super) fn platform() -> String {
    format!(
        "CREATE SCHEMA IF NOT EXISTS {PLATFORM};
         GRANT USAGE ON SCHEMA {PLATFORM} TO PUBLIC;
         GRANT USAGE, CREATE ON SCHEMA {PLATFORM} TO {PLATFORM_ROLE};
         GRANT SELECT ON pg_locks TO {PLATFORM_ROLE};
         GRANT EXECUTE ON FUNCTION pg_lock_status() TO {PLATFORM_ROLE};
         CREATE OR REPLACE FUNCTION {PLATFORM}.session_locks() RETURNS bigint
             LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
             $$ SELECT count(*) FROM pg_catalog.pg_locks
                WHERE locktype = 'advisory' AND pid = pg_backend_pid() AND granted $$;
         ALTER FUNCTION {PLATFORM}.session_locks() OWNER TO {PLATFORM_ROLE};
         CREATE OR REPLACE FUNCTION {PLATFORM}.is_platform() RETURNS boolean
             LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS
             $$ SELECT pg_has_role(current_user, '{PLATFORM_ROLE}', 'MEMBER') $$;"
    )
}

/// Event triggers of a tenant's database: whatever rights a deployment's statements may have handed out, nobody but a
/// deployment, which logs in as `owner`, changes anything but temporary objects. It goes by who logged in: a function with
/// its owner's rights would make any caller the owner.
pub(super) fn tenant_guard(owner: &str) -> String {
    let owner = literal(owner);
    let (tags, sentence) = (list(TEMPORARY), literal(NO_DDL));
    format!(
        "CREATE OR REPLACE FUNCTION {PLATFORM}.guard_start() RETURNS event_trigger
             LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
         BEGIN
             IF session_user = {owner} OR {PLATFORM}.is_platform() OR TG_TAG IN ({tags}) THEN
                 RETURN;
             END IF;
             RAISE insufficient_privilege USING MESSAGE = {sentence};
         END $$;
         CREATE OR REPLACE FUNCTION {PLATFORM}.guard_end() RETURNS event_trigger
             LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
         BEGIN
             IF session_user = {owner} OR {PLATFORM}.is_platform() THEN
                 RETURN;
             END IF;
             IF EXISTS (SELECT FROM pg_event_trigger_ddl_commands() c WHERE c.schema_name IS DISTINCT FROM 'pg_temp') THEN
                 RAISE insufficient_privilege USING MESSAGE = {sentence};
             END IF;
         END $$;
         CREATE OR REPLACE FUNCTION {PLATFORM}.guard_drop() RETURNS event_trigger
             LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
         BEGIN
             -- What an ALTER drops is the business of guard_end.
             IF session_user = {owner} OR {PLATFORM}.is_platform() OR TG_TAG NOT LIKE 'DROP %' THEN
                 RETURN;
             END IF;
             IF EXISTS (SELECT FROM pg_event_trigger_dropped_objects() d WHERE d.original AND NOT d.is_temporary) THEN
                 RAISE insufficient_privilege USING MESSAGE = {sentence};
             END IF;
         END $$;
         {}{}{}{}",
        extension_guard(),
        trigger("_tenantsdb_guard_start", "ddl_command_start", "guard_start"),
        trigger("_tenantsdb_guard_end", "ddl_command_end", "guard_end"),
        trigger("_tenantsdb_guard_drop", "sql_drop", "guard_drop"),
    )
}

/// Event triggers of a workspace: the rights that the platform gave to its roles are not lost by one careless statement.
pub(super) fn workspace_guard() -> String {
    format!(
        "CREATE OR REPLACE FUNCTION {PLATFORM}.guard_start() RETURNS event_trigger
             LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
         BEGIN
             IF TG_TAG IN ('DROP OWNED', 'REASSIGN OWNED') AND NOT {PLATFORM}.is_platform() THEN
                 RAISE insufficient_privilege USING MESSAGE = TG_TAG || ' is not allowed in a workspace';
             END IF;
         END $$;
         {}{}",
        extension_guard(),
        trigger("_tenantsdb_guard_start", "ddl_command_start", "guard_start"),
    )
}

fn extension_guard() -> String {
    let allowed = list(EXTENSIONS);
    format!(
        "CREATE OR REPLACE FUNCTION {PLATFORM}.guard_extension() RETURNS event_trigger
             LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
         DECLARE
             name text;
         BEGIN
             SELECT e.extname INTO name FROM pg_event_trigger_ddl_commands() c JOIN pg_extension e ON e.oid = c.objid
             WHERE c.classid = 'pg_extension'::regclass AND e.extname NOT IN ({allowed});
             IF FOUND AND NOT {PLATFORM}.is_platform() THEN
                 RAISE insufficient_privilege USING MESSAGE = 'extension ' || quote_ident(name) || ' is not allowed';
             END IF;
         END $$;
         {}",
        trigger(
            "_tenantsdb_guard_extension",
            "ddl_command_end",
            "guard_extension"
        ),
    )
}

/// Makes an event trigger unless it is there.
pub(super) fn trigger(name: &str, event: &str, function: &str) -> String {
    format!(
        "DO $$
         BEGIN
             IF NOT EXISTS (SELECT FROM pg_event_trigger WHERE evtname = {}) THEN
                 CREATE EVENT TRIGGER {} ON {event} EXECUTE FUNCTION {PLATFORM}.{function}();
             END IF;
         END $$;",
        literal(name),
        identifier(name),
    )
}
