//! Database servers that somebody else runs: they serve tenants, go down and come up, move, and are never ours to stop.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use end_to_end::servers::{PASSWORD, Server};
use end_to_end::{Account, Login, Product, REACTORS, binary};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(60);

/// A PostgreSQL server with an administrator named `operator`, who is no superuser.
fn prepared() -> Result<Server> {
    let server = Server::postgres()?;
    make_operator(&server, "")?;
    prepare(&server)?;
    Ok(server)
}

fn make_operator(server: &Server, rights: &str) -> Result<String> {
    let password = PASSWORD.replace('\'', "''");
    server.sql(&format!(
        "CREATE ROLE operator LOGIN {rights} PASSWORD '{password}'"
    ))
}

/// What the product prints for an operator.
fn preparation(engine: &str) -> Result<String> {
    let out = Command::new(binary())
        .args(["prepare", engine, "--user", "operator"])
        .output()?;
    ensure!(out.status.success());
    Ok(String::from_utf8(out.stdout)?)
}

fn prepare(server: &Server) -> Result<String> {
    server.sql(&preparation("postgresql")?)
}

/// A Redis server whose administrator is the one that the product asks for.
fn redis() -> Result<Server> {
    let asked = preparation("redis")?;
    let rules = asked
        .lines()
        .find(|it| it.starts_with("ACL SETUSER operator"));
    let rules = rules.context("no rules")?;
    // As a configuration has it: without a reset, which comes first by itself, and with quotes.
    let rules = rules.replace("ACL SETUSER operator reset", "user operator");
    let rules = rules.replace(">PASSWORD", &format!("\">{PASSWORD}\""));
    Server::redis(&format!("user default off\n{rules}"))
}

/// The configuration's part for servers with these names.
fn configuration(folder: &Path, servers: &[(&str, &str, &Server)]) -> Result<String> {
    let file = folder.join("password");
    std::fs::write(&file, format!("{PASSWORD}\n"))?;
    let tables = servers.iter().map(|(name, engine, server)| {
        format!(
            "[[servers]]\nname = '{name}'\nengine = '{engine}'\naddress = 'localhost:{}'\nuser = 'operator'\n\
             password_file = '{}'\nconnections = 50\n",
            server.port,
            file.display()
        )
    });
    let tables: String = tables.collect();
    Ok(format!("engines = ['postgresql', 'redis']\n{tables}"))
}

fn until(what: &str, mut held: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + LIMIT;
    while !held()? {
        ensure!(Instant::now() < deadline, "not in time: {what}");
        sleep(Duration::from_millis(100));
    }
    Ok(())
}

/// What psql prints, with the codes of errors.
fn psql(login: &Login, statement: &str) -> Result<String> {
    let out = login.program(
        "psql",
        &["-XAtq", "-v", "VERBOSITY=verbose", "-c", statement],
    )?;
    Ok(String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr))
}

/// Runs redis-cli with a connection string. It prints errors as it does values.
fn redis_cli(product: &Product, url: &str, words: &str) -> Result<String> {
    let out = Command::new("redis-cli")
        .args(["--no-auth-warning", "-u", url, "--cacert"])
        .arg(product.ready["ca_cert"].as_str().context("no authority")?)
        .args(words.split(' '))
        .output()?;
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    Ok(text + &String::from_utf8_lossy(&out.stderr))
}

/// Makes a workspace and a tenant on Redis; gives the tenant's connection string.
fn cache(account: &Account<'_>) -> Result<String> {
    let workspace = json!({"name": "cache", "database": "Redis", "mode": "tenant"});
    account.ok("POST", "/workspaces", Some(&workspace))?;
    let database = json!({"blueprint": "cache", "isolation_level": 1});
    let tenant = json!({"tenant_id": "kiosk", "databases": [database]});
    let made = account.ok("POST", "/tenants", Some(&tenant))?;
    let url = &made["databases"][0]["connection"]["connection_string"];
    Ok(url.as_str().context("no connection string")?.to_owned())
}

/// Runs a driver's test.
fn driver(script: &str, environment: &mut Command) -> Result<()> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let out = environment
        .arg(here.join("drivers").join(script))
        .output()?;
    let told =
        String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    ensure!(told.ends_with("ok\n"), "{script}: {told}");
    Ok(())
}

fn python() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/drivers/python/bin/python")
}

/// A session that has asked something, and asks again when it is told to.
struct OpenSession(Child);

impl OpenSession {
    fn of(login: &Login) -> Result<Self> {
        let script = "
import psycopg
with psycopg.connect(autocommit=True) as session:
    session.execute('SELECT 1')
    print('ready', flush=True)
    input()
    try:
        session.execute('SELECT 1')
    except psycopg.Error as error:
        print(error.sqlstate)";
        let mut child = login
            .command(python())
            .args(["-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut ready = [0; 6];
        let stdout = child.stdout.as_mut().context("no output")?;
        stdout.read_exact(&mut ready)?;
        Ok(Self(child))
    }

    /// The code of the error that it meets.
    fn goes_on(mut self) -> Result<String> {
        let mut stdin = self.0.stdin.take().context("no input")?;
        stdin.write_all(b"\n")?;
        drop(stdin);
        let out = self.0.wait_with_output()?;
        Ok(String::from_utf8(out.stdout)?.trim().to_owned())
    }
}

/// Whether the product says so of that server.
fn is_up(product: &Product, name: &str) -> Result<bool> {
    let metrics = product.metrics()?;
    let line = metrics
        .lines()
        .find(|it| it.starts_with("tenantsdb_server_up") && it.contains(&format!("\"{name}\"")));
    Ok(line.with_context(|| metrics.clone())?.ends_with(" 1"))
}

fn health(product: &Product) -> Result<Value> {
    Ok(product.call("GET", "/health", None, None)?["status"].clone())
}

/// The names of databases on a server that the product has made.
fn made_on(server: &Server) -> Result<String> {
    server.sql(
        "SELECT string_agg(datname, ' ' ORDER BY datname) FROM pg_database
         WHERE datname NOT LIKE 'template_' AND datname NOT LIKE 'tenantsdb%' AND datname <> 'postgres'",
    )
}

#[test]
fn servers_that_exist_serve_tenants_whatever_happens_to_them() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (a, mut b, mut cache_server) = (prepared()?, Server::postgres()?, redis()?);
    make_operator(&b, "SUPERUSER")?;
    b.sql("REVOKE ALL ON DATABASE postgres, template1 FROM PUBLIC")?;
    let all = configuration(
        folder.path(),
        &[
            ("pg-a", "postgresql", &a),
            ("pg-b", "postgresql", &b),
            ("cache", "redis", &cache_server),
        ],
    )?;
    let product = Product::serve(&all)?;
    assert!(
        !product.data().join("servers/pg-1").exists(),
        "none is started here"
    );
    assert_eq!(health(&product)?, "healthy", "{}", product.log());

    let account = product.sign_up("ann@example.com")?;
    let workspace = account.workspace("shop", "tenant")?;
    psql(
        &workspace,
        "CREATE TABLE items (id int PRIMARY KEY, name text)",
    )?;
    let acme = account.tenant("acme", "shop", &workspace)?;
    let globex = account.tenant("globex", "shop", &workspace)?;
    assert_eq!(made_on(&a)?, "shop__globex shop_workspace");
    assert_eq!(made_on(&b)?, "shop__acme", "where there is most room");
    for tenant in [&acme, &globex] {
        driver("python/psycopg_test.py", &mut tenant.command(python()))?;
        psql(
            tenant,
            "TRUNCATE items; INSERT INTO items VALUES (1, 'kept')",
        )?;
        let refused = psql(tenant, "DROP TABLE items")?;
        assert!(refused.contains("DDL not allowed"), "{refused}");
    }
    let url = cache(&account)?;
    let authority = product.ready["ca_cert"].as_str().context("no authority")?;
    let mut redis_py = Command::new(python());
    driver(
        "python/redis_test.py",
        redis_py.env("REDIS_URL", &url).env("REDIS_CA", authority),
    )?;
    assert_eq!(redis_cli(&product, &url, "SET a 1")?, "OK\n");

    // A server goes down and comes up.
    let session = OpenSession::of(&acme)?;
    b.stop()?;
    cache_server.stop()?;
    until("seen to be down", || {
        Ok(!is_up(&product, "pg-b")? && !is_up(&product, "cache")?)
    })?;
    assert_eq!(health(&product)?, "degraded");
    // The login may be refused already, where psql shows no code.
    let told = psql(&acme, "SELECT name FROM items")?;
    assert!(told.contains("database server is unavailable"), "{told}");
    assert_eq!(session.goes_on()?, "57P03");
    let told = redis_cli(&product, &url, "GET a")?;
    assert!(
        told.contains("unavailable") || told.contains("ERR"),
        "{told}"
    );
    assert_eq!(psql(&globex, "SELECT name FROM items")?, "kept\n");
    account.tenant("third", "shop", &workspace)?;
    assert_eq!(made_on(&a)?, "shop__globex shop__third shop_workspace");
    b.start()?;
    cache_server.start()?;
    until("seen to be up", || {
        Ok(is_up(&product, "pg-b")? && is_up(&product, "cache")?)
    })?;
    assert_eq!(psql(&acme, "SELECT name FROM items")?, "kept\n");
    assert_eq!(
        redis_cli(&product, &url, "GET a")?,
        "1\n",
        "its users are made again"
    );
    Ok(())
}

#[test]
fn the_product_may_be_restarted_and_a_server_moved_and_not_forgotten() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (a, mut b) = (prepared()?, prepared()?);
    let both = |b: &Server| {
        configuration(
            folder.path(),
            &[("pg-a", "postgresql", &a), ("pg-b", "postgresql", b)],
        )
        .map(|it| it.replace("['postgresql', 'redis']", "['postgresql']"))
    };
    let mut product = Product::serve(&both(&b)?)?;
    let account = product.sign_up("ann@example.com")?;
    let workspace = account.workspace("shop", "tenant")?;
    psql(
        &workspace,
        "CREATE TABLE items (id int PRIMARY KEY, name text)",
    )?;
    let acme = account.tenant("acme", "shop", &workspace)?;
    let key = account.key.clone();
    psql(&acme, "INSERT INTO items VALUES (1, 'kept')")?;
    assert_eq!(made_on(&b)?, "shop__acme");
    let at = |product: &Product| Login {
        port: product.postgres().1,
        ..acme.clone()
    };

    product.stop()?;
    assert!(a.answers() && b.answers(), "they are not ours to stop");
    product.start_again()?;
    assert_eq!(psql(&at(&product), "SELECT name FROM items")?, "kept\n");

    // A server that is down at the start.
    product.stop()?;
    b.stop()?;
    product.start_again()?;
    let told = psql(&at(&product), "SELECT 1")?;
    // Before a login psql shows no codes.
    assert!(
        told.contains("FATAL:  database server is unavailable"),
        "{told}"
    );
    b.start()?;
    until("taken up", || is_up(&product, "pg-b"))?;
    assert_eq!(psql(&at(&product), "SELECT name FROM items")?, "kept\n");

    // One that has moved.
    product.stop()?;
    b.move_away()?;
    product.configure(&both(&b)?);
    product.start_again()?;
    assert_eq!(psql(&at(&product), "SELECT name FROM items")?, "kept\n");

    // One that is to go, with a database and without.
    product.stop()?;
    let only_a = configuration(folder.path(), &[("pg-a", "postgresql", &a)])?;
    let only_a = only_a.replace("['postgresql', 'redis']", "['postgresql']");
    product.configure(&only_a);
    let refused = format!("{:#}", product.start_again().unwrap_err());
    assert!(
        refused.contains(
            "the server 'pg-b' is not in the configuration any more and holds 1 databases"
        ),
        "{refused}"
    );
    product.configure(&both(&b)?);
    product.start_again()?;
    let account = Account::known(&product, &key);
    account.ok("DELETE", "/tenants/acme?hard=true", None)?;
    assert_eq!(made_on(&b)?, "");
    product.stop()?;
    product.configure(&only_a);
    product.start_again()?;
    assert!(b.answers(), "nothing is done to it");
    Ok(())
}

#[test]
fn a_server_started_here_before_keeps_what_it_has() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut product = Product::serve("engines = ['postgresql']")?;
    let account = product.sign_up("ann@example.com")?;
    let workspace = account.workspace("shop", "tenant")?;
    let key = account.key.clone();
    product.stop()?;
    let a = prepared()?;
    let settings = configuration(folder.path(), &[("pg-a", "postgresql", &a)])?;
    product.configure(&settings.replace("['postgresql', 'redis']", "['postgresql']"));
    product.start_again()?;
    let account = Account::known(&product, &key);
    let at = |login: &Login| Login {
        port: product.postgres().1,
        ..login.clone()
    };
    for tenant in ["acme", "globex"] {
        let made = account.tenant(tenant, "shop", &at(&workspace))?;
        assert_eq!(psql(&made, "SELECT 1")?, "1\n");
    }
    assert_eq!(made_on(&a)?, "shop__acme shop__globex");
    assert_eq!(psql(&at(&workspace), "SELECT 1")?, "1\n");
    Ok(())
}

#[test]
fn a_server_that_is_unfit_takes_nothing_until_it_is_put_right() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let a = Server::postgres()?;
    make_operator(&a, "CREATEDB CREATEROLE")?;
    a.sql("CREATE DATABASE shop_workspace")?;
    let settings = configuration(folder.path(), &[("pg-a", "postgresql", &a)])?;
    let product = Product::serve(&settings.replace("['postgresql', 'redis']", "['postgresql']"))?;
    assert!(!is_up(&product, "pg-a")?);
    for sentence in [
        "lacks pg_signal_backend: run GRANT",
        "may not make event triggers: have a superuser run what `tenantsdb prepare` prints",
        "every role may connect to",
    ] {
        assert!(
            product.log().contains(sentence),
            "{sentence}: {}",
            product.log()
        );
    }
    let mut status = Command::new(binary());
    let shown = status.arg("status").arg("--data-dir").arg(product.data());
    let shown = String::from_utf8(shown.output()?.stdout)?;
    assert!(
        shown.contains("degraded") && shown.contains("unfit: "),
        "{shown}"
    );
    let account = product.sign_up("ann@example.com")?;
    let body = json!({"name": "shop", "database": "PostgreSQL", "mode": "tenant"});
    let refused = account.call("POST", "/workspaces", Some(&body))?;
    assert_eq!(refused["success"], false, "{refused}");

    prepare(&a)?;
    a.sql("REVOKE ALL ON DATABASE shop_workspace FROM PUBLIC")?;
    until("fit", || is_up(&product, "pg-a"))?;
    // A database of that name was there before us.
    let refused = account.call("POST", "/workspaces", Some(&body))?;
    assert!(
        refused["error"].to_string().contains("not ours"),
        "{refused}"
    );
    assert_eq!(made_on(&a)?, "shop_workspace");
    let workspace = account.workspace("app", "control")?;
    assert_eq!(psql(&workspace, "SELECT 1")?, "1\n");
    Ok(())
}

#[test]
fn servers_are_spoken_to_over_verified_tls() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (mut a, mut cache_server) = (prepared()?, redis()?);
    let mut authorities = Vec::new();
    for server in [&mut a, &mut cache_server] {
        server.stop()?;
        authorities.push(server.encrypt()?);
        server.start()?;
    }
    let with = |tls: [String; 2]| -> Result<String> {
        let mut text = "engines = ['postgresql', 'redis']\n".to_owned();
        let tables = [
            ("pg-a", "postgresql", &a),
            ("cache", "redis", &cache_server),
        ];
        for (table, tls) in tables.into_iter().zip(tls) {
            let table = configuration(folder.path(), &[table])?;
            let (_, table) = table.split_once('\n').context("no table")?;
            text += &format!("{table}{tls}\n");
        }
        Ok(text)
    };
    let verified = |path: &PathBuf| format!("tls = 'verify-full'\nca_file = '{}'", path.display());
    let right = with([verified(&authorities[0]), verified(&authorities[1])])?;

    // An authority that has not issued the certificate, and no TLS at all.
    let wrong = with([verified(&authorities[1]), String::new()])?;
    let mut product = Product::serve(&wrong)?;
    assert!(!is_up(&product, "pg-a")? && !is_up(&product, "cache")?);
    assert!(
        product.log().contains("invalid peer certificate"),
        "{}",
        product.log()
    );

    for configuration in [
        with(["tls = 'require'".into(), "tls = 'require'".into()])?,
        right,
    ] {
        product.stop()?;
        product.configure(&configuration);
        product.start_again()?;
        assert_eq!(health(&product)?, "healthy", "{}", product.log());
    }
    let account = product.sign_up("ann@example.com")?;
    let key = account.key.clone();
    let workspace = account.workspace("shop", "tenant")?;
    psql(
        &workspace,
        "CREATE TABLE items (id int PRIMARY KEY, name text)",
    )?;
    let acme = account.tenant("acme", "shop", &workspace)?;
    let url = cache(&account)?;
    for reactor in REACTORS {
        product.stop()?;
        product.drive_sockets_by(reactor);
        product.start_again()?;
        use_encrypted(&product, &a, &acme, &url)?;
    }
    let account = Account::known(&product, &key);
    let drift = account.ok("GET", "/tenants/acme/drift", None)?;
    assert!(drift.to_string().contains("shop"), "{drift}");
    Ok(())
}

/// Has drivers use a tenant's databases whose servers take nothing but TLS.
fn use_encrypted(product: &Product, server: &Server, tenant: &Login, url: &str) -> Result<()> {
    let tenant = Login {
        port: product.postgres().1,
        ..tenant.clone()
    };
    driver("python/psycopg_test.py", &mut tenant.command(python()))?;
    let counted = "SELECT count(*) FILTER (WHERE ssl), count(*) FILTER (WHERE NOT ssl) FROM pg_stat_ssl \
        JOIN pg_stat_activity USING (pid) WHERE usename LIKE 'tdb_%'";
    let counted = server.sql(counted)?;
    assert!(counted.ends_with("|0") && counted != "0|0", "{counted}");
    let large = "SELECT length(repeat('x', 10000000)), repeat('y', 5000000)";
    assert!(psql(&tenant, large)?.len() > 5_000_000);
    let long = format!("SELECT '{}' = ''", "z".repeat(100_000));
    assert_eq!(psql(&tenant, &long)?, "f\n");
    let (before, _) = url.rsplit_once(':').context("no port")?;
    let port = product.ready["redis"]
        .as_str()
        .and_then(|it| it.rsplit(':').next());
    let database = url.rsplit('/').next().filter(|it| !it.contains(':'));
    let url = format!(
        "{before}:{}/{}",
        port.context("no port")?,
        database.unwrap_or_default()
    );
    let authority = product.ready["ca_cert"].as_str().context("no authority")?;
    let mut redis_py = Command::new(python());
    driver(
        "python/redis_test.py",
        redis_py.env("REDIS_URL", &url).env("REDIS_CA", authority),
    )
}
