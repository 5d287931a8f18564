//! What is counted, and the handles that count it.
//!
//! A scrape reads [`Metrics::render`]; everybody else takes a handle once (a route when it is compiled, an upstream or
//! an issuer when it is made) and counts through it without looking anything up. Handles are found by name, so that
//! counts go on after a reload. Labels come from the file or from the source code, never from a request: no path, no
//! user, no address can add a series.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use http::Method;

use super::access::Decision;
use super::cells::{Counters, Durations};
use super::labels::MethodClass;
use super::scrape;
use crate::wire::halt::{Reason, Stage};

pub use super::labels::{
    ConnectionState, EjectionCause, Mode, ReloadOutcome, ServerState, UpstreamOutcome,
};
pub use super::scrape::CONTENT_TYPE;
pub use super::upstreams::{ServerReading, UpstreamMetrics};

/// Blueprint and route of requests that matched none.
const UNMATCHED: &str = "none";

const STATUS_CLASSES: usize = 6;
const MODES: usize = 2;

/// All counts of the program; a clone is the same counts.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    pub(super) families: Arc<Families>,
}

#[derive(Debug, Default)]
pub(super) struct Families {
    pub(super) routes: Mutex<BTreeMap<RouteName, Arc<RouteMetrics>>>,
    unmatched: OnceLock<Arc<RouteMetrics>>,
    pub(super) upstreams: Named<UpstreamMetrics>,
    pub(super) issuers: Mutex<Option<Probe<Vec<IssuerReading>>>>,
    pub(super) refusals: Refusals,
    pub(super) connections: Arc<[AtomicI64; ConnectionState::ALL.len()]>,
    pub(super) reloads: [AtomicU64; ReloadOutcome::ALL.len()],
    pub(super) panics: AtomicU64,
    pub(super) bans: Mutex<Option<Probe<BanReading>>>,
    pub(super) limiters: Mutex<BTreeMap<String, Probe<LimiterReading>>>,
    pub(super) replays: Mutex<Option<Probe<Vec<ReplayReading>>>>,
    pub(super) lines_dropped: Mutex<Option<Probe<u64>>>,
    pub(super) requests: Mutex<Option<Probe<u64>>>,
    pub(super) proofs: Mutex<Option<Probe<u64>>>,
    pub(super) spool: Mutex<Option<Probe<u64>>>,
    pub(super) sessions: Mutex<Option<Probe<SessionReading>>>,
    pub(super) certificates: Mutex<Vec<(String, SystemTime)>>,
}

/// Blueprint and route.
pub(super) type RouteName = (String, String);
pub(super) type Named<T> = Mutex<BTreeMap<String, Arc<T>>>;

/// A number that its owner keeps, asked for at each scrape.
pub(super) struct Probe<T>(pub(super) Box<dyn Fn() -> T + Send + Sync>);

impl<T> fmt::Debug for Probe<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Probe")
    }
}

/// What a limiter says of itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct LimiterReading {
    /// Clients remembered.
    pub entries: u64,
    /// Clients forgotten while still in debt.
    pub evictions: u64,
}

/// What the table of bans says of itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct BanReading {
    /// Clients whose failures to authenticate are remembered.
    pub remembered: u64,
    /// Clients that are banned now.
    pub banned: u64,
    /// Bans that have begun.
    pub begun: u64,
    /// Clients that a full table forgot or did not count.
    pub evictions: u64,
}

/// What a signer's memory of what may be used once says of itself.
#[derive(Clone, Debug, Default)]
pub struct ReplayReading {
    /// Name of the signer in the file.
    pub name: String,
    /// Things remembered.
    pub entries: u64,
    /// Refusals by outcome.
    pub refused: Vec<(&'static str, u64)>,
}

/// What the gate's own second factor says of itself. The words are those of the program.
#[derive(Clone, Debug, Default)]
pub struct SessionReading {
    /// Sessions in which nothing is proven yet.
    pub pending: usize,
    /// Sessions in which a factor was proven.
    pub proven: usize,
    /// Cookies that were taken for none, by why.
    pub refused: Vec<(&'static str, u64)>,
    /// Tries at a factor, by outcome.
    pub tries: Vec<(&'static str, u64)>,
}

/// What an issuer says of itself. The words are those of the program, so their number is bounded.
#[derive(Clone, Debug, Default)]
pub struct IssuerReading {
    /// Name in the file.
    pub name: String,
    /// Tokens by outcome.
    pub tokens: Vec<(&'static str, u64)>,
    /// Fetches of the key set by outcome.
    pub fetches: Vec<(&'static str, u64)>,
    /// Questions about tokens by outcome.
    pub questions: Vec<(&'static str, u64)>,
    /// What each table holds.
    pub entries: Vec<(&'static str, usize)>,
}

impl Metrics {
    /// Starts with nothing counted.
    pub fn new() -> Self {
        Self::default()
    }

    /// The handle of a route, made when first asked for.
    pub fn route(&self, blueprint: &str, route: &str) -> Arc<RouteMetrics> {
        let name = (blueprint.to_owned(), route.to_owned());
        Arc::clone(lock(&self.families.routes).entry(name).or_default())
    }

    /// The handle of requests that matched no route, looked up once: scans ask for it without end.
    pub fn unmatched(&self) -> &RouteMetrics {
        let found = || self.route(UNMATCHED, UNMATCHED);
        self.families.unmatched.get_or_init(found)
    }

    /// The handle of an upstream, made when first asked for.
    pub fn upstream(&self, name: &str) -> Arc<UpstreamMetrics> {
        Arc::clone(
            lock(&self.families.upstreams)
                .entry(name.to_owned())
                .or_default(),
        )
    }

    /// Drops the routes and upstreams that nobody counts through and that have counted nothing: those of a file that did
    /// not come to be used.
    pub fn forget_unused(&self) {
        lock(&self.families.routes)
            .retain(|_, route| Arc::strong_count(route) > 1 || route.durations.is_touched());
        lock(&self.families.upstreams)
            .retain(|_, upstream| Arc::strong_count(upstream) > 1 || upstream.is_touched());
    }

    /// Reads the counts of the issuers at each scrape; a later call takes the place of an earlier one.
    pub fn watch_issuers(&self, read: impl Fn() -> Vec<IssuerReading> + Send + Sync + 'static) {
        *lock(&self.families.issuers) = Some(Probe(Box::new(read)));
    }

    /// Reads the memories of signers at each scrape; a later call takes the place of an earlier one.
    pub fn watch_replays(&self, read: impl Fn() -> Vec<ReplayReading> + Send + Sync + 'static) {
        *lock(&self.families.replays) = Some(Probe(Box::new(read)));
    }

    /// Counts a refusal, or what would have been one.
    pub fn refusal(&self, stage: Stage, reason: Reason, mode: Mode) {
        self.families
            .refusals
            .0
            .add(Refusals::index(stage, reason, mode), 1);
    }

    /// Counts a connection in until the returned guard is dropped.
    pub fn connection(&self, state: ConnectionState) -> ConnectionGuard {
        let guard = ConnectionGuard {
            gauges: Arc::clone(&self.families.connections),
            state,
        };
        guard.add(1);
        guard
    }

    /// Counts an attempt to reload.
    pub fn reload(&self, outcome: ReloadOutcome) {
        if let Some(count) = self.families.reloads.get(outcome as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts a panic that was caught.
    pub fn panicked(&self) {
        self.families.panics.fetch_add(1, Ordering::Relaxed);
    }

    /// Reads a limiter at each scrape; a second one of the same name takes its place. Hold a `Weak` in the closure.
    pub fn watch_limiter(
        &self,
        name: &str,
        read: impl Fn() -> LimiterReading + Send + Sync + 'static,
    ) {
        lock(&self.families.limiters).insert(name.to_owned(), Probe(Box::new(read)));
    }

    /// Reads the table of bans at each scrape; a later call takes the place of an earlier one.
    pub fn watch_bans(&self, read: impl Fn() -> BanReading + Send + Sync + 'static) {
        *lock(&self.families.bans) = Some(Probe(Box::new(read)));
    }

    /// Reads the count of lost access lines at each scrape, see [`super::access::AccessLog::dropped_probe`].
    pub fn watch_access_log(&self, read: impl Fn() -> u64 + Send + Sync + 'static) {
        *lock(&self.families.lines_dropped) = Some(Probe(Box::new(read)));
    }

    /// Reads the number of requests under way at each scrape; a later call takes the place of an earlier one.
    pub fn watch_requests(&self, read: impl Fn() -> u64 + Send + Sync + 'static) {
        *lock(&self.families.requests) = Some(Probe(Box::new(read)));
    }

    /// Reads the number of proofs remembered at each scrape; a later call takes the place of an earlier one.
    pub fn watch_proofs(&self, read: impl Fn() -> u64 + Send + Sync + 'static) {
        *lock(&self.families.proofs) = Some(Probe(Box::new(read)));
    }

    /// Reads how much is held of request bodies at each scrape.
    pub fn watch_spool(&self, read: impl Fn() -> u64 + Send + Sync + 'static) {
        *lock(&self.families.spool) = Some(Probe(Box::new(read)));
    }

    /// Reads the sessions and the tries at a second factor at each scrape; a later call takes the place of an earlier one.
    pub fn watch_sessions(&self, read: impl Fn() -> SessionReading + Send + Sync + 'static) {
        *lock(&self.families.sessions) = Some(Probe(Box::new(read)));
    }

    /// Says which certificates are served and when each ends; replaces what was said before.
    pub fn set_certificates(&self, certificates: impl IntoIterator<Item = (String, SystemTime)>) {
        let mut certificates: Vec<_> = certificates.into_iter().collect();
        // Two files for one name would be one series twice; the one that ends first is what an alarm needs.
        certificates.sort();
        certificates.dedup_by(|later, first| later.0 == first.0);
        *lock(&self.families.certificates) = certificates;
    }

    /// Everything as `OpenMetrics` text, to be sent as [`CONTENT_TYPE`].
    pub fn render(&self) -> String {
        scrape::render(&self.families)
    }
}

/// The counts of one route.
#[derive(Debug)]
pub struct RouteMetrics {
    /// The method class that came first, mostly the only one: its row stands beside the durations.
    first: OnceLock<MethodClass>,
    pub(super) durations: Durations,
    /// A row for each other method class, made when that method is first seen.
    others: [OnceLock<Box<Counters>>; MethodClass::ALL.len()],
}

/// Counters of one method class.
const ROW: usize = STATUS_CLASSES * Decision::ALL.len();

impl Default for RouteMetrics {
    fn default() -> Self {
        Self {
            first: OnceLock::new(),
            durations: Durations::beside(ROW),
            others: [const { OnceLock::new() }; MethodClass::ALL.len()],
        }
    }
}

impl RouteMetrics {
    /// Counts a request that has ended; `status` is none when the client left before an answer.
    pub fn record(
        &self,
        method: &Method,
        status: Option<u16>,
        decision: Decision,
        duration: Duration,
    ) {
        let method = MethodClass::of(method);
        let index = request_index(status_class(status), decision);
        if *self.first.get_or_init(|| method) == method {
            return self.durations.observe_with(duration, index);
        }
        if let Some(cell) = self.others.get(method as usize) {
            let row = || Box::new(Counters::new(ROW));
            cell.get_or_init(row).add(index, 1);
        }
        self.durations.observe(duration);
    }

    /// Every combination that was seen: method, status class, decision, count.
    pub(super) fn read(&self) -> Vec<(&'static str, &'static str, &'static str, u64)> {
        let mut seen = Vec::new();
        for (method, cell) in MethodClass::ALL.into_iter().zip(&self.others) {
            let is_first = self.first.get() == Some(&method);
            for (class, class_text) in STATUS_TEXTS.into_iter().enumerate() {
                for decision in Decision::ALL {
                    let index = request_index(class, decision);
                    let count = if is_first {
                        self.durations.further(index)
                    } else {
                        cell.get().map_or(0, |row| row.sum(index))
                    };
                    if count > 0 {
                        seen.push((method.as_str(), class_text, decision.as_str(), count));
                    }
                }
            }
        }
        seen
    }
}

const STATUS_TEXTS: [&str; STATUS_CLASSES] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

fn status_class(status: Option<u16>) -> usize {
    match status {
        Some(100..=199) => 1,
        Some(200..=299) => 2,
        Some(300..=399) => 3,
        Some(400..=499) => 4,
        Some(500..=599) => 5,
        _ => 0,
    }
}

const fn request_index(class: usize, decision: Decision) -> usize {
    class * Decision::ALL.len() + decision as usize
}

#[derive(Debug)]
pub(super) struct Refusals(Counters);

impl Default for Refusals {
    fn default() -> Self {
        Self(Counters::new(Stage::ALL.len() * Reason::ALL.len() * MODES))
    }
}

impl Refusals {
    const fn index(stage: Stage, reason: Reason, mode: Mode) -> usize {
        (stage as usize * Reason::ALL.len() + reason as usize) * MODES + mode as usize
    }

    /// Every combination that was seen: stage, reason, mode, count.
    pub(super) fn read(&self) -> Vec<([&'static str; 3], u64)> {
        let mut seen = Vec::new();
        for stage in Stage::ALL {
            for reason in Reason::ALL {
                for mode in [Mode::Enforce, Mode::Monitor] {
                    let count = self.0.sum(Self::index(stage, *reason, mode));
                    if count > 0 {
                        seen.push(([stage.as_str(), reason.code(), mode.as_str()], count));
                    }
                }
            }
        }
        seen
    }
}

/// Counts one connection under its state for as long as it lives.
#[derive(Debug)]
pub struct ConnectionGuard {
    gauges: Arc<[AtomicI64; ConnectionState::ALL.len()]>,
    state: ConnectionState,
}

impl ConnectionGuard {
    /// Counts the connection under another state from now on.
    pub fn move_to(&mut self, state: ConnectionState) {
        self.add(-1);
        self.state = state;
        self.add(1);
    }

    fn add(&self, count: i64) {
        if let Some(gauge) = self.gauges.get(self.state as usize) {
            gauge.fetch_add(count, Ordering::Relaxed);
        }
    }
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.add(-1);
    }
}

/// A panic elsewhere must not end the counting: the maps hold whole entries at every moment.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn has(text: &str, line: &str) {
        assert!(
            text.lines().any(|have| have == line),
            "no `{line}` in\n{text}"
        );
    }

    #[test]
    fn a_request_is_counted_under_its_route() {
        let metrics = Metrics::new();
        let route = metrics.route("api", "remove-user");
        route.record(
            &Method::DELETE,
            Some(204),
            Decision::Forwarded,
            Duration::from_millis(3),
        );
        let after_reload = metrics.route("api", "remove-user");
        after_reload.record(
            &Method::DELETE,
            Some(204),
            Decision::Forwarded,
            Duration::ZERO,
        );
        let brew = Method::from_bytes(b"BREW").unwrap();
        metrics
            .unmatched()
            .record(&brew, None, Decision::Aborted, Duration::from_mins(1));
        let text = metrics.render();
        has(
            &text,
            "portcullis_requests_total{blueprint=\"api\",route=\"remove-user\",\
             method=\"DELETE\",status_class=\"2xx\",decision=\"forwarded\"} 2",
        );
        has(
            &text,
            "portcullis_requests_total{blueprint=\"none\",route=\"none\",\
             method=\"other\",status_class=\"none\",decision=\"aborted\"} 1",
        );
        has(
            &text,
            "portcullis_request_duration_seconds_bucket{le=\"0.005\",blueprint=\"api\",\
             route=\"remove-user\"} 2",
        );
        has(
            &text,
            "portcullis_request_duration_seconds_bucket{le=\"+Inf\",blueprint=\"none\",\
             route=\"none\"} 1",
        );
    }

    #[test]
    fn every_combination_has_a_counter_of_its_own() {
        let metrics = Metrics::new();
        for stage in Stage::ALL {
            for reason in Reason::ALL {
                metrics.refusal(stage, *reason, Mode::Enforce);
                metrics.refusal(stage, *reason, Mode::Monitor);
            }
        }
        let seen = metrics.families.refusals.read();
        assert_eq!(seen.len(), Stage::ALL.len() * Reason::ALL.len() * 2);
        assert!(seen.iter().all(|(_, count)| *count == 1));
        let route = RouteMetrics::default();
        for method in [Method::GET, Method::HEAD, Method::TRACE] {
            for status in [None, Some(101), Some(200), Some(304), Some(404), Some(502)] {
                for decision in Decision::ALL {
                    route.record(&method, status, decision, Duration::ZERO);
                }
            }
        }
        assert_eq!(route.read().len(), 3 * 6 * 5);
        assert!(route.read().iter().all(|(_, _, _, count)| *count == 1));
    }

    #[test]
    fn a_connection_counts_under_one_state_at_a_time() {
        let metrics = Metrics::new();
        let mut first = metrics.connection(ConnectionState::Handshake);
        let second = metrics.connection(ConnectionState::Handshake);
        first.move_to(ConnectionState::Open);
        let text = metrics.render();
        has(&text, "portcullis_connections{state=\"handshake\"} 1");
        has(&text, "portcullis_connections{state=\"open\"} 1");
        drop((first, second));
        let text = metrics.render();
        has(&text, "portcullis_connections{state=\"handshake\"} 0");
        has(&text, "portcullis_connections{state=\"open\"} 0");
    }

    #[test]
    fn what_others_keep_is_read_at_the_scrape() {
        let metrics = Metrics::new();
        metrics.watch_limiter("flood", || LimiterReading {
            entries: 1,
            evictions: 0,
        });
        metrics.watch_limiter("flood", || LimiterReading {
            entries: 40,
            evictions: 2,
        });
        metrics.watch_limiter("api", || LimiterReading {
            entries: 2,
            evictions: 0,
        });
        metrics.watch_bans(|| BanReading {
            remembered: 4,
            banned: 1,
            begun: 3,
            evictions: 5,
        });
        metrics.watch_access_log(|| 7);
        let later = SystemTime::now() + Duration::from_hours(1);
        let past = SystemTime::now() - Duration::from_mins(1);
        let certificate = |name: &str, end| (name.to_owned(), end);
        metrics.set_certificates([
            certificate("a\"b", later),
            certificate("old", past),
            certificate("old", later),
        ]);
        let text = metrics.render();
        has(&text, "portcullis_limiter_entries 42");
        has(&text, "portcullis_limiter_evictions_total 2");
        has(&text, "portcullis_ban_entries 4");
        has(&text, "portcullis_banned_clients 1");
        has(&text, "portcullis_bans_total 3");
        has(&text, "portcullis_ban_evictions_total 5");
        has(&text, "portcullis_log_lines_dropped_total 7");
        let expiry = |name: &str| {
            let head = format!("portcullis_certificate_expiry_seconds{{name=\"{name}\"}} ");
            let mut lines = text.lines().filter_map(|line| line.strip_prefix(&head));
            let value: i64 = lines.next().unwrap().parse().unwrap();
            assert_eq!(lines.next(), None);
            value
        };
        assert!((3500..=3600).contains(&expiry("a\\\"b")));
        assert!((-70..=-59).contains(&expiry("old")));
    }
}
