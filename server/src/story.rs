//! The first example, to be pasted.

use crate::ready::Ready;

/// Commands for a newcomer: an account; for each engine that runs a workspace and tenants of it; what ran.
pub(crate) fn first_example(ready: &Ready) -> String {
    let api = &ready.api;
    let mut example = format!(
        r#"
# An account with a first project (a key is shown once):
SIGNUP=$(curl -s {api}/signup -H 'content-type: application/json' -d '{{"email":"you@example.com","password":"change me soon","project_name":"Shop"}}')
export KEY=$(echo "$SIGNUP" | sed -n 's/.*"api_key": *"\([^"]*\)".*/\1/p')
post() {{ curl -s -X POST "{api}$1" -H "Authorization: Bearer $KEY" -H 'content-type: application/json' -d "$2"; echo; }}
"#
    );
    let mut tenant = None;
    if let Some(address) = &ready.redis {
        example += &redis(ready, address);
        tenant = Some("initech");
    }
    if let Some(address) = &ready.postgres {
        example += &postgres(ready, address);
        tenant = Some("acme");
    }
    if let Some(tenant) = tenant {
        example += &format!(
            r#"
# What ran:
curl -s "{api}/tenants/{tenant}/logs" -H "Authorization: Bearer $KEY"; echo
"#
        );
    }
    example
}

/// A schema, two tenants, a second version.
fn postgres(ready: &Ready, address: &str) -> String {
    let (host, port) = address.rsplit_once(':').unwrap_or((address, "5432"));
    let trust = ready.ca_cert.as_ref().map_or_else(String::new, |path| {
        format!(
            "export PGSSLMODE=verify-full PGSSLROOTCERT='{}'\n",
            path.display()
        )
    });
    format!(
        r#"
# A workspace: shape the schema there with psql, through the proxy.
{trust}export PGHOST={host} PGPORT={port}
WORKSPACE=$(post /workspaces '{{"name":"shop","database":"PostgreSQL","mode":"tenant"}}')
export PGUSER=$(echo "$WORKSPACE" | sed -n 's/.*"user": *"\([^"]*\)".*/\1/p')
export PGPASSWORD=$(echo "$WORKSPACE" | sed -n 's/.*"password": *"\([^"]*\)".*/\1/p')
psql -d shop_workspace -c 'CREATE TABLE products (id SERIAL PRIMARY KEY, name TEXT NOT NULL)'

# Two tenants, with a database each:
post /tenants '{{"tenant_id":"acme","databases":[{{"blueprint":"shop","isolation_level":1}}]}}'
post /tenants '{{"tenant_id":"globex","databases":[{{"blueprint":"shop","isolation_level":1}}]}}'
psql -d shop__acme -c "INSERT INTO products (name) VALUES ('anvil') RETURNING *"
psql -d shop__globex -c 'SELECT count(*) FROM products'
psql -d shop__acme -c 'DROP TABLE products'   # refused: tenants change by deployment

# A second version of the schema, deployed to both:
psql -d shop_workspace -c 'ALTER TABLE products ADD COLUMN price NUMERIC(12,2)'
post /deployments '{{"blueprint_name":"shop","deploy_all":true}}'
sleep 2; psql -d shop__globex -c '\d products'
"#
    )
}

/// A tenant with a database, by its own connection string.
fn redis(ready: &Ready, address: &str) -> String {
    let trust = ready.ca_cert.as_ref().map_or_else(String::new, |path| {
        format!(" --cacert '{}'", path.display())
    });
    format!(
        r#"
# Redis at {address}: a blueprint without a schema, and a tenant whose keys nobody else sees.
post /workspaces '{{"name":"cache","database":"Redis","mode":"tenant"}}'
TENANT=$(post /tenants '{{"tenant_id":"initech","databases":[{{"blueprint":"cache","isolation_level":1}}]}}')
REDIS=$(echo "$TENANT" | sed -n 's/.*"connection_string": *"\([^"]*\)".*/\1/p')
redis-cli --no-auth-warning -u "$REDIS"{trust} SET greeting hello
redis-cli --no-auth-warning -u "$REDIS"{trust} GET greeting
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_shows_the_engines_that_run() {
        let both = Ready {
            api: "http://127.0.0.1:8080".into(),
            metrics: "http://127.0.0.1:9090/metrics".into(),
            postgres: Some("127.0.0.1:5432".into()),
            redis: Some("127.0.0.1:6379".into()),
            ca_cert: None,
            pid: 1,
        };
        for (postgres, redis) in [(true, true), (true, false), (false, true)] {
            let ready = Ready {
                postgres: both.postgres.clone().filter(|_| postgres),
                redis: both.redis.clone().filter(|_| redis),
                ..both.clone()
            };
            let example = first_example(&ready);
            assert_eq!(example.contains("psql"), postgres);
            assert_eq!(example.contains("redis-cli"), redis);
            assert_eq!(example.matches("/logs").count(), 1);
        }
    }
}
