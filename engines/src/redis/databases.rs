//! Making, closing and removing databases: their roles, and their keys.

use std::collections::HashMap;

use ::redis::aio::MultiplexedConnection;
use ::redis::{Cmd, Value, cmd, from_redis_value_ref, pipe};
use control_store::ids::Role;
use control_store::redis::function_namespace;
use control_store::snapshot::{NativeRoles, RedisDatabase};

use super::acl::{rules, set_user};
use super::connect::{admin, ask, ask_all, error, run};
use super::table::commands;
use crate::{DatabaseSpec, EngineError, ServerAccess};

/// Where its keys are.
pub(super) fn place<'a>(database: &DatabaseSpec<'a>) -> Result<&'a RedisDatabase, EngineError> {
    database.redis.ok_or(EngineError::Unsupported(
        "the database has no number on a Redis server",
    ))
}

/// Makes the roles; the logical database is there. Repeated, it gives the roles back what they may do.
pub(super) async fn create(
    server: &ServerAccess,
    spec: &DatabaseSpec<'_>,
) -> Result<(), EngineError> {
    create_all(server, std::slice::from_ref(spec)).await
}

/// As [`create`], for several databases with one look at the server's commands. A server saves a user's rights as categories of
/// commands, and a newer one may have more commands in them.
pub(super) async fn create_all(
    server: &ServerAccess,
    databases: &[DatabaseSpec<'_>],
) -> Result<(), EngineError> {
    let mut admin = admin(server, 0).await?;
    let commands = commands(&mut admin).await?;
    for database in databases {
        let place = place(database)?;
        let mut users = pipe();
        for role in [Role::Admin, Role::Write, Role::Read] {
            let login = database.roles.for_role(role);
            let rules = rules(role, login, place, &commands);
            users.add_command(set_user(&login.name, &rules));
        }
        ask_all::<Value>(&mut admin, &users).await?;
    }
    save(&mut admin).await.map(drop)
}

/// Lets nobody in and ends who is.
pub(super) async fn close(
    server: &ServerAccess,
    database: &DatabaseSpec<'_>,
) -> Result<(), EngineError> {
    let mut admin = admin(server, 0).await?;
    for name in names(database.roles) {
        let mut known = acl("GETUSER");
        known.arg(name);
        if ask::<Value>(&mut admin, &known).await? == Value::Nil {
            return Err(EngineError::Unsupported(
                "the server does not know the database's roles",
            ));
        }
        run(&mut admin, &set_user(name, &["off"])).await?;
        let mut kill = cmd("CLIENT");
        kill.arg("KILL").arg("USER").arg(name);
        run(&mut admin, &kill).await?;
    }
    save(&mut admin).await.map(drop)
}

/// Removes the roles, which ends their connections, and then the keys, which nobody can add to any more, and the libraries of
/// functions. Keys are freed beside the server's other work.
pub(super) async fn remove(
    server: &ServerAccess,
    database: &DatabaseSpec<'_>,
) -> Result<(), EngineError> {
    let mut admin = admin(server, place(database)?.number).await?;
    let mut delete = acl("DELUSER");
    for name in names(database.roles) {
        delete.arg(name);
    }
    run(&mut admin, &delete).await?;
    let mut flush = cmd("FLUSHDB");
    flush.arg("ASYNC");
    run(&mut admin, &flush).await?;
    remove_libraries(&mut admin, database).await?;
    save(&mut admin).await.map(drop)
}

/// Removes the libraries that a database has on a server which others use as well.
async fn remove_libraries(
    admin: &mut MultiplexedConnection,
    database: &DatabaseSpec<'_>,
) -> Result<(), EngineError> {
    let namespace = function_namespace(database.roles, place(database)?);
    if namespace.is_empty() {
        return Ok(()); // They end with the server.
    }
    let mut list = cmd("FUNCTION");
    list.arg("LIST")
        .arg("LIBRARYNAME")
        .arg(format!("{namespace}*"));
    let libraries: Vec<HashMap<String, Value>> = ask(admin, &list).await?;
    for library in libraries {
        let Some(name) = library.get("library_name") else {
            continue;
        };
        let name: String = from_redis_value_ref(name).map_err(|it| error(&it.into()))?;
        let mut delete = cmd("FUNCTION");
        delete.arg("DELETE").arg(name);
        run(admin, &delete).await?;
    }
    Ok(())
}

/// So that a restart finds the users as they are now. Whether it does: a server that is not ours may keep no users.
pub(super) async fn save(admin: &mut MultiplexedConnection) -> Result<bool, EngineError> {
    match run(admin, &acl("SAVE")).await {
        Ok(()) => Ok(true),
        Err(EngineError::Statement { message, .. }) if message.contains("ACL file") => Ok(false),
        Err(other) => Err(other),
    }
}

fn acl(subcommand: &str) -> Cmd {
    let mut command = cmd("ACL");
    command.arg(subcommand);
    command
}

fn names(roles: &NativeRoles) -> [&str; 3] {
    [&roles.admin.name, &roles.write.name, &roles.read.name]
}
