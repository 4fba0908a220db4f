//! Schemas from elsewhere: what stands in another database stands in the workspace afterwards, and in its tenants.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use anyhow::{Context as _, Result};
use end_to_end::{Login, Product};
use serde_json::{Value, json};

/// Something of every kind.
const RICH: &str = r#"
CREATE EXTENSION citext;
CREATE SCHEMA app;
CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
CREATE DOMAIN email AS citext CHECK (VALUE ~ '@');
CREATE TABLE users (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    email email NOT NULL UNIQUE,
    mood mood DEFAULT 'ok',
    balance numeric(12,2) DEFAULT 0 NOT NULL CHECK (balance >= 0),
    tags text[] DEFAULT '{}',
    doc jsonb,
    at timestamptz DEFAULT now() NOT NULL,
    shout text GENERATED ALWAYS AS (upper(coalesce(doc->>'name', ''))) STORED
);
CREATE SEQUENCE app.invoice_number START 1000 INCREMENT 5;
CREATE TABLE app."Order" (
    id serial PRIMARY KEY,
    "user" bigint NOT NULL REFERENCES users (id) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED,
    number bigint DEFAULT nextval('app.invoice_number'),
    during tstzrange,
    EXCLUDE USING gist (during WITH &&)
);
CREATE TABLE events (id bigint, at date NOT NULL, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
CREATE TABLE events_2026 PARTITION OF events FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
CREATE TABLE events_rest PARTITION OF events DEFAULT;
CREATE INDEX happy ON users USING btree (lower(email::text)) INCLUDE (id) WHERE mood = 'happy';
CREATE INDEX ON events (at);
CREATE VIEW rich AS SELECT id, email FROM users WHERE balance > 1000;
CREATE VIEW totals AS SELECT u.id, u.email, count(*) FROM users u JOIN app."Order" o ON o."user" = u.id GROUP BY u.id;
CREATE MATERIALIZED VIEW moods AS SELECT mood, count(*) AS many FROM users GROUP BY mood;
CREATE UNIQUE INDEX ON moods (mood);
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.at := now(); -- ; "quoted"
    RETURN NEW; END $$;
CREATE TRIGGER touched BEFORE UPDATE ON users FOR EACH ROW WHEN (OLD.at < now()) EXECUTE FUNCTION touch();
CREATE FUNCTION add(a integer, b integer DEFAULT 1) RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT a + b';
CREATE PROCEDURE noop() LANGUAGE sql AS 'SELECT 1';
CREATE AGGREGATE product(numeric) (SFUNC = numeric_mul, STYPE = numeric, INITCOND = '1');
CREATE RULE keep AS ON DELETE TO app."Order" WHERE OLD.number IS NULL DO INSTEAD NOTHING;
ALTER TABLE app."Order" ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON app."Order" FOR SELECT USING (number > 0);
CREATE STATISTICS together (dependencies) ON mood, balance FROM users;
COMMENT ON TABLE users IS 'People; "them"';
COMMENT ON COLUMN users.email IS 'It''s theirs';
COMMENT ON FUNCTION add(integer, integer) IS 'Adds';
COMMENT ON INDEX happy IS 'Few';
"#;

/// The whole schema as text.
fn dump(login: &Login) -> Result<String> {
    let arguments = [
        "--schema-only",
        "--no-owner",
        "--no-privileges",
        "--no-subscriptions",
        "--exclude-schema=_tenantsdb",
    ];
    let out = login.program("pg_dump", &arguments)?;
    let told = String::from_utf8_lossy(&out.stderr).into_owned();
    anyhow::ensure!(out.status.success(), "{told}");
    let text = String::from_utf8(out.stdout)?;
    let kept = text.lines().filter(|line| {
        let session = [
            "SET ",
            "\\restrict ",
            "\\unrestrict ",
            "SELECT pg_catalog.set_config(",
        ];
        !line.is_empty() && !session.iter().any(|it| line.starts_with(it))
    });
    // The platform's own triggers stand at the end, and are not the schema's.
    let mut kept: Vec<_> = kept.collect();
    if let Some(at) = kept.iter().position(|it| it.contains("EVENT TRIGGER")) {
        kept.truncate(at);
    }
    while kept.last().is_some_and(|it| it.starts_with("--")) {
        kept.pop();
    }
    Ok(kept.join("\n"))
}

fn elsewhere(login: &Login) -> Result<Value> {
    Ok(json!({ "source": "database", "connection": {
        "type": "postgresql", "host": login.host, "port": login.port.parse::<u16>()?, "database": login.database,
        "user": login.user, "password": login.password, "sslmode": "require"
    } }))
}

#[test]
fn a_rich_schema_comes_over_from_another_database_as_it_is() -> Result<()> {
    let product = Product::start(&[])?;
    let account = product.sign_up("ann@example.com")?;
    let source = account.workspace("old", "control")?;
    assert_eq!(source.psql(RICH)?, "");
    let workspace = account.workspace("new", "tenant")?;
    let request = elsewhere(&source)?;
    let imported = account.call("POST", "/workspaces/new/schema", Some(&request))?;
    assert_eq!(imported["success"], true, "{imported:#}");
    assert_eq!(imported["errors"], json!([]), "{imported:#}");
    assert_eq!(imported["skipped"], json!([]), "{imported:#}");
    for name in [
        "users",
        "app.Order",
        "mood",
        "rich",
        "add",
        "events_2026",
        "citext",
    ] {
        let created = imported["created"].as_array().context("created")?;
        assert!(created.contains(&json!(name)), "{name}: {imported:#}");
    }
    let original = dump(&source)?;
    assert!(original.contains("CREATE RULE keep"), "{original}");
    assert_eq!(dump(&workspace)?, original);

    let tenant = account.tenant("acme", "new", &workspace)?;
    let (found, expected) = (dump(&tenant)?, original);
    assert_eq!(found, expected);
    tenant.psql("INSERT INTO users (email, mood) VALUES ('Ann@example.com', 'happy')")?;
    assert_eq!(
        tenant.psql("SELECT id, mood, shout FROM users WHERE email = 'ann@EXAMPLE.com'")?,
        "1|happy|\n"
    );

    let again = account.ok("POST", "/workspaces/new/schema", Some(&request))?;
    assert_eq!(again["created"], json!([]), "{again:#}");
    assert_eq!(again["errors"], json!([]), "{again:#}");
    assert_eq!(again["details"]["statements_executed"], 0, "{again:#}");
    let diff = account.ok("GET", "/workspaces/new/diff", None)?;
    assert_eq!(diff["changes"], json!([]), "{diff:#}");
    Ok(())
}

#[test]
fn a_schema_comes_over_from_a_url() -> Result<()> {
    let product = Product::start(&[])?;
    let account = product.sign_up("ann@example.com")?;
    account.workspace("app", "tenant")?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let url = format!("http://{}/schema.json", listener.local_addr()?);
    let server = std::thread::spawn(move || -> Result<String> {
        let (mut stream, _) = listener.accept()?;
        let mut request = [0; 4096];
        let length = stream.read(&mut request)?;
        let body = r#"{"tables":[{"name":"users","columns":[{"name":"id","type":"SERIAL","nullable":false},{"name":"name","type":"TEXT"}],"indexes":["users_pkey"]}]}"#;
        write!(
            stream,
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        )?;
        Ok(String::from_utf8_lossy(&request[..length]).into_owned())
    });
    let request = json!({ "source": "url", "url": url });
    let imported = account.ok("POST", "/workspaces/app/schema", Some(&request))?;
    assert_eq!(imported["created"], json!(["users"]), "{imported:#}");
    let asked = server
        .join()
        .map_err(|_| anyhow::anyhow!("the server panicked"))??;
    assert!(
        asked.starts_with("GET /schema.json HTTP/1.1\r\n"),
        "{asked}"
    );
    let schema = account.ok("GET", "/workspaces/app/schema", None)?;
    assert_eq!(schema["tables"][0]["columns"][0]["type"], "SERIAL");
    Ok(())
}

/// What an operator has done to a tenant's database by hand.
#[test]
fn drift_is_told_in_words_and_as_statements_that_undo_it() -> Result<()> {
    let product = Product::start(&[])?;
    let account = product.sign_up("ann@example.com")?;
    let workspace = account.workspace("shop", "tenant")?;
    assert_eq!(workspace.psql(RICH)?, "");
    let tenant = account.tenant("acme", "shop", &workspace)?;
    let drift = account.ok("GET", "/tenants/acme/drift", None)?;
    assert_eq!(drift["in_sync"], true, "{drift:#}");
    assert_eq!(drift["databases"][0]["version"], 1);

    let by_hand = "ALTER TABLE users ALTER COLUMN balance DROP NOT NULL; ALTER TABLE users ADD COLUMN age int;
        DROP INDEX happy; DROP VIEW totals; CREATE TABLE app.stray (a int);
        COMMENT ON TABLE users IS 'other'";
    let operator = |script: &str| -> Result<String> {
        let operator = Login {
            database: tenant.database.clone(),
            ..product.superuser()
        };
        operator.psql(script)
    };
    assert_eq!(operator(by_hand)?, "");
    let drift = account.ok("GET", "/tenants/acme/drift?blueprint=shop", None)?;
    let differences = drift["databases"][0]["differences"]
        .as_array()
        .context("differences")?
        .clone();
    let words: Vec<_> = differences
        .iter()
        .filter_map(|it| it["description"].as_str())
        .collect();
    for expected in [
        "column users.balance is 'numeric(12,2) DEFAULT 0' and should be 'numeric(12,2) DEFAULT 0 NOT NULL'",
        "column users.age is not in the blueprint",
        "index happy is missing",
        "view totals is missing",
        "table app.stray is not in the blueprint",
        "the comment on table users is not as in the blueprint",
    ] {
        assert!(words.contains(&expected), "{expected}: {drift:#}");
    }
    for statement in differences
        .iter()
        .filter_map(|it| it["ddl"].as_array())
        .flatten()
    {
        let statement = statement.as_str().context("a statement")?;
        assert_eq!(operator(statement)?, "", "{statement}");
    }
    let drift = account.ok("GET", "/tenants/acme/drift", None)?;
    assert_eq!(drift["in_sync"], true, "{drift:#}");
    let left = operator("SELECT count(*) FROM pg_database WHERE datname LIKE '\\_tdb%'")?;
    assert_eq!(left, "0\n");
    Ok(())
}
