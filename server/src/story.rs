//! The first example, to be pasted.

use crate::ready::Ready;

/// Commands for a newcomer: an account, a workspace, a schema, two tenants, a second version, the log.
pub(crate) fn first_example(ready: &Ready) -> String {
    let api = &ready.api;
    let (host, port) = ready
        .postgres
        .as_deref()
        .and_then(|address| address.rsplit_once(':'))
        .unwrap_or(("127.0.0.1", "5432"));
    let trust = ready.ca_cert.as_ref().map_or_else(String::new, |path| {
        format!(
            "export PGSSLMODE=verify-full PGSSLROOTCERT='{}'\n",
            path.display()
        )
    });
    format!(
        r#"
# An account with a first project (a key is shown once):
{trust}export PGHOST={host} PGPORT={port}
SIGNUP=$(curl -s {api}/signup -H 'content-type: application/json' -d '{{"email":"you@example.com","password":"change me soon","project_name":"Shop"}}')
export KEY=$(echo "$SIGNUP" | sed -n 's/.*"api_key": *"\([^"]*\)".*/\1/p')
post() {{ curl -s -X POST "{api}$1" -H "Authorization: Bearer $KEY" -H 'content-type: application/json' -d "$2"; echo; }}

# A workspace: shape the schema there with psql, through the proxy.
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

# What ran:
curl -s "{api}/tenants/acme/logs" -H "Authorization: Bearer $KEY"; echo
"#
    )
}
