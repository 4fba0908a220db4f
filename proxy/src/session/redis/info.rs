//! `INFO` as a tenant may see it: what the server is and what its own database holds, nothing of the server's other work.

use protocol_redis::reply::Value;
use protocol_redis::reply::write::{self, Version};

/// Fields that say nothing of others. Of the rest, sections keep their headings, so that what reads them finds them.
const SHOWN: [&str; 21] = [
    "redis_version",
    "server_name",
    "valkey_version",
    "redis_mode",
    "server_mode",
    "arch_bits",
    "multiplexing_api",
    "gcc_version",
    "hz",
    "configured_hz",
    "maxmemory_policy",
    "mem_allocator",
    "loading",
    "async_loading",
    "aof_enabled",
    "role",
    "cluster_enabled",
    "io_threads_active",
    "number_of_cached_scripts_limit",
    "redis_build_id",
    "redis_git_sha1",
];

/// Writes the reply to `INFO` without what concerns others. `clients` is how many clients the database has, `number` its own on its
/// server.
pub(super) fn own_info(
    reply: &[u8],
    number: u32,
    clients: usize,
    version: Version,
    out: &mut Vec<u8>,
) {
    let text = Value::parse(reply).ok().and_then(|it| it.string());
    let mut own = Vec::with_capacity(1024);
    let mut in_clients = false;
    let text = text.unwrap_or_default();
    for line in text
        .strip_suffix(b"\r\n")
        .unwrap_or(text)
        .split(|byte| *byte == b'\n')
    {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let shown = match line.first() {
            None => !own.is_empty() && !own.ends_with(b"\r\n\r\n"),
            Some(b'#') => {
                in_clients = line == b"# Clients";
                true
            }
            Some(_) => {
                let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
                SHOWN.iter().any(|it| it.as_bytes() == name)
            }
        };
        if shown {
            own.extend_from_slice(line);
            own.extend_from_slice(b"\r\n");
        } else if let Some(keys) = keyspace(line, number) {
            own.extend_from_slice(b"db0:");
            own.extend_from_slice(keys);
            own.extend_from_slice(b"\r\n");
        }
        if std::mem::take(&mut in_clients) {
            own.extend_from_slice(format!("connected_clients:{clients}\r\n").as_bytes());
        }
    }
    write::verbatim(out, version, &own);
}

/// What is said of the database's own number in a line like `db7:keys=1,expires=0,avg_ttl=0`.
fn keyspace(line: &[u8], number: u32) -> Option<&[u8]> {
    line.strip_prefix(format!("db{number}:").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_sees_its_own_database_and_not_the_others() {
        let text = "# Server\r\nredis_version:7.0.15\r\nrun_id:abc\r\ntcp_port:0\r\n\r\n# Clients\r\nconnected_clients:90\r\n\r\n\
                    # Memory\r\nused_memory:1\r\n\r\n# Keyspace\r\ndb1:keys=9,expires=0,avg_ttl=0\r\ndb12:keys=3,expires=1,avg_ttl=5\r\n";
        let mut reply = Vec::new();
        write::bulk(&mut reply, text.as_bytes());
        let mut out = Vec::new();
        own_info(&reply, 12, 2, Version::Resp2, &mut out);
        let own = Value::parse(&out).unwrap().string().unwrap();
        assert_eq!(
            String::from_utf8_lossy(own),
            "# Server\r\nredis_version:7.0.15\r\n\r\n# Clients\r\nconnected_clients:2\r\n\r\n# Memory\r\n\r\n\
             # Keyspace\r\ndb0:keys=3,expires=1,avg_ttl=5\r\n"
        );
    }
}
