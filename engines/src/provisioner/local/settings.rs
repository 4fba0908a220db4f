//! The files that configure a local PostgreSQL server. They are written anew at each start.

use std::fmt::Write as _;
use std::path::Path;

use super::account::Account;
use super::home::Home;

/// The superuser of every local server.
pub(super) const SUPERUSER: &str = "tenantsdb";

/// Settings for one server with many databases, most of them idle, reached over its socket only.
///
/// Each database costs a worker process per `autovacuum_naptime`, whether there is anything to do in it or not.
///
/// Errors of statements stay out of the log: their texts can hold what clients consider secret.
const SETTINGS: &str = "\
listen_addresses = ''
port = 5432
unix_socket_permissions = 0700
password_encryption = 'scram-sha-256'
max_connections = 400
superuser_reserved_connections = 20
max_prepared_transactions = 0
max_locks_per_transaction = 256
max_worker_processes = 24
max_logical_replication_workers = 12
max_sync_workers_per_subscription = 4
shared_buffers = '128MB'
work_mem = '4MB'
maintenance_work_mem = '64MB'
temp_file_limit = '8GB'
jit = off
wal_level = logical
max_wal_senders = 24
max_replication_slots = 24
max_slot_wal_keep_size = '8GB'
max_wal_size = '2GB'
min_wal_size = '80MB'
checkpoint_timeout = '10min'
checkpoint_completion_target = 0.9
autovacuum = on
autovacuum_max_workers = 4
autovacuum_naptime = '5min'
logging_collector = on
log_destination = 'stderr'
log_filename = 'postgresql-%a.log'
log_truncate_on_rotation = on
log_rotation_age = '1d'
log_rotation_size = 0
log_line_prefix = '%m [%p] %d '
log_min_messages = log
log_min_error_statement = panic
log_min_duration_statement = -1
log_statement = 'none'
log_connections = off
log_disconnections = off
log_timezone = 'UTC'
timezone = 'UTC'
datestyle = 'iso, mdy'
default_text_search_config = 'pg_catalog.english'
ssl = off
";

/// `postgresql.conf`. An operator's `custom.conf` in the server's folder has the last word.
pub(super) fn postgresql_conf(home: &Home) -> String {
    let mut text = String::from(
        "# Written by tenantsdb at each start. Put your own settings into ../custom.conf.\n",
    );
    text.push_str(SETTINGS);
    let mut setting = |name: &str, value: &str| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{name} = {}", quote(value));
    };
    setting("cluster_name", &home.label);
    setting("unix_socket_directories", &display(&home.run));
    setting("log_directory", &display(&home.log));
    setting("hba_file", &display(&home.data.join("pg_hba.conf")));
    setting("ident_file", &display(&home.data.join("pg_ident.conf")));
    let _ = writeln!(
        text,
        "include_if_exists = {}",
        quote(&display(&home.root.join("custom.conf")))
    );
    text
}

/// `pg_hba.conf`: the superuser only as ourselves, everybody else by password.
pub(super) fn pg_hba_conf() -> String {
    format!(
        "# TYPE  DATABASE  USER  METHOD\n\
         local  all  {SUPERUSER}  peer map=platform\n\
         local  all  all  scram-sha-256\n\
         local  replication  {SUPERUSER}  peer map=platform\n"
    )
}

/// `pg_ident.conf`: which accounts of the operating system may be the superuser.
pub(super) fn pg_ident_conf(account: &Account) -> String {
    let mut names = vec![account.own_name.as_str(), account.name.as_str()];
    names.dedup();
    names.iter().fold(String::new(), |text, name| {
        text + &format!("platform  \"{name}\"  {SUPERUSER}\n")
    })
}

fn display(path: &Path) -> String {
    path.display().to_string()
}

fn quote(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_quoted() {
        assert_eq!(quote("/it's/here\\"), "'/it''s/here\\\\'");
    }
}
