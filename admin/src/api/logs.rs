//! `/tenants/{id}/logs`, `/logs/stats` and `/metrics`.

use std::time::{Duration, SystemTime};

use axum::extract::State;
use control_store::ids::DatabaseId;
use control_store::logs::{LogFilter, LogStats, LogWindow, Source};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::caller::Caller;
use super::envelope::Reply;
use super::input::{At, Params};
use super::state::{AppState, Shared};
use super::{tenants, time};
use crate::app::failure::{Failure, Outcome};

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(logs))
        .routes(routes!(stats))
        .routes(routes!(metrics))
}

const DEFAULT_LIMIT: usize = 50;
const MAX_LIMIT: usize = 1000;
/// The largest number that every JSON library can hold as a whole one.
const MAX_OFFSET: u64 = i64::MAX.cast_unsigned();

/// What ran on a tenant's databases, the newest first.
#[derive(Serialize, ToSchema)]
struct LogReply {
    #[schema(example = "acme")]
    tenant_id: String,
    logs: Vec<LogItem>,
    #[schema(example = 1)]
    count: usize,
    has_more: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    gaps: Vec<GapItem>,
}

/// A time in which statements may have run that the log does not hold, nor count: the process was killed.
#[derive(Serialize, ToSchema)]
struct GapItem {
    /// Up to here all is kept.
    #[schema(example = "2026-02-15T14:30:00.123Z")]
    from: String,
    /// From here on the log was written again.
    #[schema(example = "2026-02-15T14:30:09.456Z")]
    until: String,
}

/// A statement that ran.
#[derive(Serialize, ToSchema)]
struct LogItem {
    /// Without parameter values.
    #[schema(example = "SELECT * FROM users WHERE active = $1")]
    query: String,
    /// `proxy` or `api`.
    #[schema(example = "proxy")]
    source: &'static str,
    success: bool,
    #[schema(example = 4.2)]
    duration_ms: f64,
    /// When it ended.
    #[schema(example = "2026-02-15T14:30:00.123Z")]
    created_at: String,
    /// Rows returned or changed.
    #[schema(example = 1)]
    rows: u64,
    /// The engine's code for why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "42P01")]
    error_code: Option<String>,
}

fn source_name(source: Source) -> &'static str {
    match source {
        Source::Proxy => "proxy",
        Source::Api => "api",
    }
}

/// Milliseconds, to the microsecond.
fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

/// A filter of a list of statements.
#[derive(Clone, Copy)]
enum Only {
    Errors,
    Slow,
}

/// Shows what ran on a tenant's databases, the newest first.
#[utoipa::path(get, path = "/tenants/{id}/logs", tag = "Query logs",
    params(("id" = String, Path, example = "acme"),
        ("limit" = Option<u32>, Query, description = "1 to 1000; 50 if left out"),
        ("offset" = Option<u64>, Query, description = "How many to pass over"),
        ("type" = Option<String>, Query, description = "`error` or `slow`"),
        ("search" = Option<String>, Query, description = "A part of the text, in any letter case"),
        ("source" = Option<String>, Query, description = "`proxy` or `api`"),
        ("since" = Option<String>, Query, description = "`1h`, `24h`, `7d`, `30d`, or any number of `m`, `h` or `d`")),
    responses((status = 200, body = LogReply)))]
async fn logs(
    State(state): State<AppState>,
    caller: Caller,
    At(id): At<String>,
    mut params: Params,
) -> Outcome<Reply<LogReply>> {
    let limit = params
        .number("limit", 1, MAX_LIMIT)?
        .unwrap_or(DEFAULT_LIMIT);
    let offset = params.number("offset", 0, MAX_OFFSET)?.unwrap_or(0);
    let only = params.word("type", &[("error", Only::Errors), ("slow", Only::Slow)])?;
    let source = params.word("source", &[("proxy", Source::Proxy), ("api", Source::Api)])?;
    let search = params.text("search").filter(|text| !text.is_empty());
    let since = since(&mut params)?;
    params.finish()?;
    let (databases, made) = databases(&state, &caller, &id)?;
    let filter = LogFilter {
        databases,
        errors_only: matches!(only, Some(Only::Errors)),
        slower_than: matches!(only, Some(Only::Slow)).then_some(state.config.slow_query),
        search,
        source,
        since,
        offset,
        limit,
    };
    let page = state
        .blocking(move |shared| {
            shared
                .logs
                .find(&filter)
                .map_err(|error| unreadable(&error))
        })
        .await?;
    let logs: Vec<_> = page
        .entries
        .into_iter()
        .map(|it| LogItem {
            query: it.query,
            source: source_name(it.source),
            success: it.error_code.is_none(),
            duration_ms: millis(it.duration),
            created_at: time::millis(it.at),
            rows: it.rows,
            error_code: it.error_code,
        })
        .collect();
    Ok(Reply::ok(LogReply {
        tenant_id: id,
        count: logs.len(),
        logs,
        has_more: page.has_more,
        gaps: gaps(&state, since, made),
    }))
}

/// A tenant's databases, and since when there is something to tell of them.
fn databases(
    state: &Shared,
    caller: &Caller,
    tenant: &str,
) -> Outcome<(Vec<DatabaseId>, SystemTime)> {
    let (info, databases) = tenants::reachable(state, caller, tenant)?;
    let databases = databases.into_iter().map(|it| it.id).collect();
    // What cannot be told as a time here was before anything else.
    let made = SystemTime::try_from(info.created_at).unwrap_or(SystemTime::UNIX_EPOCH);
    Ok((databases, made))
}

/// The gaps that may concern what was asked for.
fn gaps(state: &Shared, since: Option<SystemTime>, made: SystemTime) -> Vec<GapItem> {
    let begin = since.map_or(made, |since| since.max(made));
    let gaps = state.logs.gaps().into_iter();
    let within = gaps.filter(|it| it.until >= begin);
    let items = within.map(|it| GapItem {
        from: time::millis(it.from),
        until: time::millis(it.until),
    });
    items.collect()
}

fn unreadable(error: &std::io::Error) -> Failure {
    Failure::Internal(format!("the query log cannot be read: {error}"))
}

/// Takes `since`, such as `24h`.
fn since(params: &mut Params) -> Outcome<Option<SystemTime>> {
    let Some(text) = params.text("since") else {
        return Ok(None);
    };
    let ago = ago(&text).ok_or_else(|| {
        Failure::bad("Parameter 'since' must be a time such as 30m, 1h, 24h, 7d or 30d")
    })?;
    // What would be before all time is the beginning of it.
    let now = SystemTime::now();
    Ok(Some(now.checked_sub(ago).unwrap_or(SystemTime::UNIX_EPOCH)))
}

fn ago(text: &str) -> Option<Duration> {
    let unit = text.chars().last()?;
    let number: u32 = text.strip_suffix(unit)?.parse().ok()?;
    let seconds = match unit {
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return None,
    };
    Some(Duration::from_secs(u64::from(number) * seconds))
}

/// Counts of what ran on a tenant's databases.
#[derive(Serialize, ToSchema)]
struct StatsReply {
    #[schema(example = "acme")]
    tenant_id: String,
    #[schema(example = 48230)]
    total_queries: u64,
    #[schema(example = 47891)]
    successful: u64,
    #[schema(example = 339)]
    failed: u64,
    by_source: BySource,
    #[schema(example = 12.4)]
    avg_duration_ms: f64,
    #[schema(example = 18)]
    slow_queries: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    gaps: Vec<GapItem>,
}

/// Statements by who sent them.
#[derive(Serialize, ToSchema)]
struct BySource {
    /// Drivers.
    #[schema(example = 45000)]
    proxy: u64,
    /// The API.
    #[schema(example = 3230)]
    api: u64,
}

fn average(stats: &LogStats) -> f64 {
    let count = u32::try_from(stats.total).unwrap_or(u32::MAX);
    stats.total_duration.checked_div(count).map_or(0.0, millis)
}

/// Counts what ran on a tenant's databases, since they were made or since a time. The counts are exact, also for statements
/// that the log no longer shows.
#[utoipa::path(get, path = "/tenants/{id}/logs/stats", tag = "Query logs",
    params(("id" = String, Path, example = "acme"),
        ("since" = Option<String>, Query, description = "`1h`, `24h`, `7d`, `30d`, or any number of `m`, `h` or `d`")),
    responses((status = 200, body = StatsReply)))]
async fn stats(
    State(state): State<AppState>,
    caller: Caller,
    At(id): At<String>,
    mut params: Params,
) -> Outcome<Reply<StatsReply>> {
    let since = since(&mut params)?;
    params.finish()?;
    let (databases, made) = databases(&state, &caller, &id)?;
    let stats = state
        .blocking(move |shared| match since {
            None => Ok(shared.logs.stats(&databases)),
            Some(since) => match shared.logs.window(&databases, since) {
                Ok(window) => Ok(window.stats),
                Err(error) => Err(unreadable(&error)),
            },
        })
        .await?;
    Ok(Reply::ok(StatsReply {
        tenant_id: id,
        total_queries: stats.total,
        successful: stats.total.saturating_sub(stats.failed),
        failed: stats.failed,
        by_source: BySource {
            proxy: stats.from_proxy,
            api: stats.from_api,
        },
        avg_duration_ms: average(&stats),
        slow_queries: stats.slow,
        gaps: gaps(&state, since, made),
    }))
}

/// How a tenant's databases performed in a window of time.
#[derive(Serialize, ToSchema)]
struct MetricsReply {
    #[schema(example = "acme")]
    tenant_id: String,
    /// Where the window begins.
    #[schema(example = "2026-02-14T14:30:00.000Z")]
    since: String,
    /// Where it ends.
    #[schema(example = "2026-02-15T14:30:00.000Z")]
    until: String,
    #[schema(example = 48230)]
    query_count: u64,
    #[schema(example = 339)]
    error_count: u64,
    /// Percent of the statements that succeeded; 100 if there were none.
    #[schema(example = 99.3)]
    success_rate: f64,
    #[schema(example = 12.4)]
    avg_latency_ms: f64,
    latency_ms: Latency,
    #[schema(example = 0.56)]
    queries_per_second: f64,
    #[schema(example = 18)]
    slow_queries: u64,
    /// Rows returned or changed.
    #[schema(example = 120_000)]
    rows: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    gaps: Vec<GapItem>,
}

/// Milliseconds that statements took.
#[derive(Serialize, ToSchema)]
struct Latency {
    #[schema(example = 8.1)]
    p50: f64,
    #[schema(example = 31.0)]
    p95: f64,
    #[schema(example = 80.2)]
    p99: f64,
    #[schema(example = 1203.9)]
    max: f64,
}

/// The window of `/metrics` if none is asked for.
const DAY: Duration = Duration::from_secs(86_400);

/// Shows how many statements ran on a tenant's databases, how fast, and how many succeeded; of the last 24 hours, or since a
/// time.
#[utoipa::path(get, path = "/tenants/{id}/metrics", tag = "Query logs",
    params(("id" = String, Path, example = "acme"),
        ("since" = Option<String>, Query, description = "`1h`, `24h`, `7d`, `30d`, or any number of `m`, `h` or `d`")),
    responses((status = 200, body = MetricsReply)))]
async fn metrics(
    State(state): State<AppState>,
    caller: Caller,
    At(id): At<String>,
    mut params: Params,
) -> Outcome<Reply<MetricsReply>> {
    let since = since(&mut params)?.unwrap_or(SystemTime::now() - DAY);
    params.finish()?;
    let (databases, made) = databases(&state, &caller, &id)?;
    let window = state
        .blocking(move |shared| {
            let window = shared.logs.window(&databases, since);
            window.map_err(|error| unreadable(&error))
        })
        .await?;
    let gaps = gaps(&state, Some(since), made);
    Ok(Reply::ok(measured(id, &window, gaps)))
}

#[allow(
    clippy::cast_precision_loss,
    reason = "rates: what a 64-bit float loses is below what they show"
)]
fn measured(tenant_id: String, window: &LogWindow, gaps: Vec<GapItem>) -> MetricsReply {
    let LogWindow { stats, latency, .. } = window;
    let seconds = window
        .until
        .duration_since(window.since)
        .unwrap_or_default()
        .as_secs_f64();
    let share = |part: u64, whole: f64| {
        if whole > 0.0 {
            part as f64 / whole
        } else {
            0.0
        }
    };
    let succeeded = stats.total.saturating_sub(stats.failed);
    MetricsReply {
        tenant_id,
        since: time::millis(window.since),
        until: time::millis(window.until),
        query_count: stats.total,
        error_count: stats.failed,
        success_rate: if stats.total == 0 {
            100.0
        } else {
            100.0 * share(succeeded, stats.total as f64)
        },
        avg_latency_ms: average(stats),
        latency_ms: Latency {
            p50: millis(latency.p50),
            p95: millis(latency.p95),
            p99: millis(latency.p99),
            max: millis(latency.max),
        },
        queries_per_second: share(stats.total, seconds),
        slow_queries: stats.slow,
        rows: stats.rows,
        gaps,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_ago() {
        for (text, seconds) in [
            ("1h", Some(3600)),
            ("24h", Some(86_400)),
            ("7d", Some(604_800)),
            ("30m", Some(1800)),
            ("h", None),
            ("", None),
            ("1", None),
            ("-1h", None),
            ("1é", None),
        ] {
            assert_eq!(ago(text), seconds.map(Duration::from_secs), "{text}");
        }
    }

    #[test]
    fn nothing_ran_without_a_failure() {
        let window = LogWindow {
            since: SystemTime::UNIX_EPOCH,
            until: SystemTime::UNIX_EPOCH,
            stats: LogStats::default(),
            latency: control_store::logs::LogLatency::default(),
        };
        let none = measured("acme".into(), &window, Vec::new());
        assert_eq!((none.query_count, none.queries_per_second), (0, 0.0));
        assert_eq!((none.success_rate, none.avg_latency_ms), (100.0, 0.0));
    }
}
