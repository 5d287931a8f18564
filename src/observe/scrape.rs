//! Writes the counts of [`super::metrics`] as `OpenMetrics` 1.0 text, which Prometheus reads.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeLabelSet, MetricEncoder, NoLabelSet, text,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::cells::Durations;
use super::metrics::{
    ConnectionState, Families, LimiterReading, ReloadOutcome, ServerReading, lock,
};

/// The media type of the text.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

pub(super) fn render(families: &Arc<Families>) -> String {
    let mut registry = Registry::with_prefix("portcullis");
    registry.register_collector(Box::new(Arc::clone(families)));
    let mut out = String::with_capacity(16 * 1024);
    if text::encode(&mut out, &registry).is_err() {
        tracing::error!("cannot write the metrics");
    }
    out
}

impl Collector for Families {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let out = &mut encoder;
        encode_routes(self, out)?;
        encode_refusals(self, out)?;
        encode_upstreams(self, out)?;
        encode_servers(self, out)?;
        encode_issuers(self, out)?;
        encode_replays(self, out)?;
        encode_connections(self, out)?;
        encode_program(self, out)?;
        encode_limiters(self, out)?;
        encode_bans(self, out)?;
        encode_proofs(self, out)?;
        encode_sessions(self, out)?;
        encode_certificates(self, out)
    }
}

fn encode_routes(families: &Families, out: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let routes = lock(&families.routes);
    let mut requests = counter(out, "requests", "Requests that have ended")?;
    for ((blueprint, route), metrics) in &*routes {
        for (method, status_class, decision, count) in metrics.read() {
            let labels = [
                ("blueprint", blueprint.as_str()),
                ("route", route.as_str()),
                ("method", method),
                ("status_class", status_class),
                ("decision", decision),
            ];
            add_count(&mut requests, &labels, count)?;
        }
    }
    let help = "Time from the request head to the last byte of the answer";
    let mut durations = histogram(out, "request_duration_seconds", help)?;
    for ((blueprint, route), metrics) in &*routes {
        let labels = [("blueprint", blueprint.as_str()), ("route", route.as_str())];
        add_durations(&mut durations, &labels, &metrics.durations)?;
    }
    Ok(())
}

fn encode_refusals(families: &Families, out: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let help = "Requests that a policy refused, or would have refused in monitor mode";
    let mut refusals = counter(out, "refusals", help)?;
    for ([stage, reason, mode], count) in families.refusals.read() {
        let labels = [("stage", stage), ("reason", reason), ("mode", mode)];
        add_count(&mut refusals, &labels, count)?;
    }
    Ok(())
}

fn encode_upstreams(families: &Families, out: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let upstreams = lock(&families.upstreams);
    let mut requests = counter(out, "upstream_requests", "Attempts to forward a request")?;
    for (upstream, metrics) in &*upstreams {
        for (outcome, count) in metrics.read() {
            let labels = [("upstream", upstream.as_str()), ("outcome", outcome)];
            add_count(&mut requests, &labels, count)?;
        }
    }
    let help = "Time until the response head came from the backend";
    let mut durations = histogram(out, "upstream_duration_seconds", help)?;
    for (upstream, metrics) in &*upstreams {
        add_durations(
            &mut durations,
            &[("upstream", upstream.as_str())],
            &metrics.durations,
        )?;
    }
    Ok(())
}

fn encode_servers(families: &Families, out: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let upstreams = lock(&families.upstreams);
    let help = "Servers that were left out for doing worse than their peers";
    let mut ejections = counter(out, "upstream_ejections", help)?;
    for (upstream, metrics) in &*upstreams {
        for (cause, count) in metrics.ejections() {
            let labels = [("upstream", upstream.as_str()), ("cause", cause)];
            add_count(&mut ejections, &labels, count)?;
        }
    }
    let mut servers = gauge(out, "upstream_servers", "Servers by state")?;
    for (upstream, metrics) in &*upstreams {
        for (state, count) in metrics.servers().into_iter().flat_map(ServerReading::read) {
            let labels = [("upstream", upstream.as_str()), ("state", state)];
            add_value(&mut servers, &labels, i64::from(count))?;
        }
    }
    Ok(())
}

fn encode_issuers(families: &Families, out: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let issuers = lock(&families.issuers)
        .as_ref()
        .map(|read| (read.0)())
        .unwrap_or_default();
    let mut tokens = counter(out, "tokens_verified", "Tokens that were judged")?;
    for issuer in &issuers {
        add_outcomes(&mut tokens, &issuer.name, &issuer.tokens)?;
    }
    let mut fetches = counter(out, "jwks_fetches", "Fetches of a key set")?;
    for issuer in &issuers {
        add_outcomes(&mut fetches, &issuer.name, &issuer.fetches)?;
    }
    let help = "Questions to an issuer about a token";
    let mut questions = counter(out, "introspections", help)?;
    for issuer in &issuers {
        add_outcomes(&mut questions, &issuer.name, &issuer.questions)?;
    }
    let help = "Tokens that are remembered, and entries of the list of revoked ones";
    let mut entries = gauge(out, "issuer_entries", help)?;
    for issuer in &issuers {
        for (table, count) in &issuer.entries {
            let labels = [("issuer", issuer.name.as_str()), ("table", table)];
            add_value(
                &mut entries,
                &labels,
                i64::try_from(*count).unwrap_or(i64::MAX),
            )?;
        }
    }
    Ok(())
}

fn encode_replays(families: &Families, out: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let signers = lock(&families.replays)
        .as_ref()
        .map(|read| (read.0)())
        .unwrap_or_default();
    let help = "Nonces, signatures and deliveries that are remembered, since they count once";
    let mut entries = gauge(out, "replay_entries", help)?;
    for signer in &signers {
        let count = i64::try_from(signer.entries).unwrap_or(i64::MAX);
        add_value(&mut entries, &[("signer", signer.name.as_str())], count)?;
    }
    let help = "Signed requests refused for being used again, or for want of room to remember them";
    let mut refused = counter(out, "replays_refused", help)?;
    for signer in &signers {
        for (outcome, count) in &signer.refused {
            let labels = [("signer", signer.name.as_str()), ("outcome", *outcome)];
            add_count(&mut refused, &labels, *count)?;
        }
    }
    Ok(())
}

/// The outcomes that came about.
fn add_outcomes(
    family: &mut MetricEncoder<'_>,
    issuer: &str,
    outcomes: &[(&'static str, u64)],
) -> fmt::Result {
    for (outcome, count) in outcomes.iter().filter(|(_, count)| *count > 0) {
        add_count(family, &[("issuer", issuer), ("outcome", outcome)], *count)?;
    }
    Ok(())
}

fn encode_connections(families: &Families, out: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let mut connections = gauge(out, "connections", "Client connections by state")?;
    for (state, count) in ConnectionState::ALL
        .into_iter()
        .zip(families.connections.iter())
    {
        let labels = [("state", state.as_str())];
        add_value(&mut connections, &labels, count.load(Ordering::Relaxed))?;
    }
    let requests = lock(&families.requests)
        .as_ref()
        .map_or(0, |probe| (probe.0)());
    gauge(out, "requests_in_flight", "Requests under way")?.encode_gauge(&requests)?;
    let spool = lock(&families.spool)
        .as_ref()
        .map_or(0, |probe| (probe.0)());
    let help = "Memory taken by request bodies that are held until they are whole";
    gauge(out, "spool_bytes", help)?.encode_gauge(&spool)
}

fn encode_program(families: &Families, out: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let mut reloads = counter(out, "reloads", "Attempts to put a changed file into force")?;
    for (outcome, count) in ReloadOutcome::ALL.into_iter().zip(&families.reloads) {
        let labels = [("outcome", outcome.as_str())];
        add_count(&mut reloads, &labels, count.load(Ordering::Relaxed))?;
    }
    let dropped = lock(&families.lines_dropped)
        .as_ref()
        .map_or(0, |probe| (probe.0)());
    let help = "Access lines lost to a full, closed or blocked log";
    add_alone(counter(out, "log_lines_dropped", help)?, dropped)?;
    let panics = families.panics.load(Ordering::Relaxed);
    add_alone(
        counter(out, "panics", "Requests that ended in a panic")?,
        panics,
    )?;
    out.encode_descriptor("build", "The running version", None, MetricType::Info)?
        .encode_info(&[("version", env!("CARGO_PKG_VERSION"))])
}

fn encode_limiters(families: &Families, out: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let mut total = LimiterReading::default();
    for probe in lock(&families.limiters).values() {
        let reading = (probe.0)();
        total.entries = total.entries.saturating_add(reading.entries);
        total.evictions = total.evictions.saturating_add(reading.evictions);
    }
    gauge(
        out,
        "limiter_entries",
        "Clients that the rate limits remember",
    )?
    .encode_gauge(&total.entries)?;
    let help = "Clients in debt that made room for others, their debt with them";
    add_alone(counter(out, "limiter_evictions", help)?, total.evictions)
}

fn encode_bans(families: &Families, out: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let reading = lock(&families.bans)
        .as_ref()
        .map(|read| (read.0)())
        .unwrap_or_default();
    let help = "Clients whose failures to authenticate are remembered";
    gauge(out, "ban_entries", help)?.encode_gauge(&reading.remembered)?;
    let help = "Clients that are banned now";
    gauge(out, "banned_clients", help)?.encode_gauge(&reading.banned)?;
    let help = "Bans of clients that failed to authenticate too often";
    add_alone(counter(out, "bans", help)?, reading.begun)?;
    let help = "Clients with failures that a full table forgot or did not count";
    add_alone(counter(out, "ban_evictions", help)?, reading.evictions)
}

fn encode_proofs(families: &Families, out: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let proofs = lock(&families.proofs)
        .as_ref()
        .map_or(0, |probe| (probe.0)());
    let help = "Proofs of possession that would be refused if they came again";
    gauge(out, "proofs_remembered", help)?.encode_gauge(&proofs)
}

fn encode_sessions(families: &Families, out: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let probe = lock(&families.sessions);
    let Some(reading) = probe.as_ref().map(|read| (read.0)()) else {
        return Ok(());
    };
    let help = "Sessions by whether a second factor was proven in them";
    let mut sessions = gauge(out, "sessions", help)?;
    for (state, count) in [("pending", reading.pending), ("proven", reading.proven)] {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        add_value(&mut sessions, &[("state", state)], count)?;
    }
    let help = "Session cookies that were taken for none";
    let mut refused = counter(out, "session_cookies_refused", help)?;
    for (why, count) in &reading.refused {
        add_count(&mut refused, &[("why", *why)], *count)?;
    }
    let help = "Tries at the second factor";
    let mut tries = counter(out, "second_factor_tries", help)?;
    for (outcome, count) in &reading.tries {
        add_count(&mut tries, &[("outcome", *outcome)], *count)?;
    }
    Ok(())
}

fn encode_certificates(families: &Families, out: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let now = SystemTime::now();
    let help = "Time until a certificate expires, negative after that";
    let mut expiry = gauge(out, "certificate_expiry_seconds", help)?;
    for (name, end) in &*lock(&families.certificates) {
        let left = match end.duration_since(now) {
            Ok(left) => i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            Err(past) => -i64::try_from(past.duration().as_secs()).unwrap_or(i64::MAX),
        };
        add_value(&mut expiry, &[("name", name.as_str())], left)?;
    }
    Ok(())
}

type Encoded<'a> = Result<MetricEncoder<'a>, fmt::Error>;

fn counter<'a>(out: &'a mut DescriptorEncoder<'_>, name: &'a str, help: &str) -> Encoded<'a> {
    out.encode_descriptor(name, help, None, MetricType::Counter)
}

fn gauge<'a>(out: &'a mut DescriptorEncoder<'_>, name: &'a str, help: &str) -> Encoded<'a> {
    out.encode_descriptor(name, help, None, MetricType::Gauge)
}

fn histogram<'a>(out: &'a mut DescriptorEncoder<'_>, name: &'a str, help: &str) -> Encoded<'a> {
    out.encode_descriptor(name, help, None, MetricType::Histogram)
}

fn add_alone(mut family: MetricEncoder<'_>, count: u64) -> fmt::Result {
    family.encode_counter::<NoLabelSet, _, f64>(&count, None)
}

fn add_count(
    family: &mut MetricEncoder<'_>,
    labels: &impl EncodeLabelSet,
    count: u64,
) -> fmt::Result {
    family
        .encode_family(labels)?
        .encode_counter::<NoLabelSet, _, f64>(&count, None)
}

fn add_value(
    family: &mut MetricEncoder<'_>,
    labels: &impl EncodeLabelSet,
    value: i64,
) -> fmt::Result {
    family.encode_family(labels)?.encode_gauge(&value)
}

/// A histogram that was never written is left out: ten thousand quiet routes would fill a scrape with zeros.
fn add_durations(
    family: &mut MetricEncoder<'_>,
    labels: &impl EncodeLabelSet,
    durations: &Durations,
) -> fmt::Result {
    if !durations.is_touched() {
        return Ok(());
    }
    let (sum, count, buckets) = durations.read();
    family
        .encode_family(labels)?
        .encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::time::Duration;

    use http::Method;

    use super::super::access::Decision;
    use super::super::metrics::{Metrics, Mode, UpstreamOutcome};
    use super::*;
    use crate::observe::metrics::IssuerReading;
    use crate::wire::halt::{Reason, Stage};

    fn scraped() -> String {
        let metrics = Metrics::new();
        let route = metrics.route("api", "users\\\"\n");
        route.record(
            &Method::GET,
            Some(200),
            Decision::Forwarded,
            Duration::from_millis(2),
        );
        metrics
            .upstream("legacy")
            .record(UpstreamOutcome::Answered, Duration::from_millis(1));
        metrics.watch_issuers(|| {
            vec![IssuerReading {
                name: "corp".to_owned(),
                tokens: vec![("valid", 1), ("expired", 0)],
                fetches: vec![("fetched", 1)],
                questions: vec![("held-back", 2)],
                entries: vec![("revoked", 3)],
            }]
        });
        metrics.refusal(Stage::Authn, Reason::TokenInvalid, Mode::Enforce);
        metrics.reload(ReloadOutcome::Rejected);
        metrics.set_certificates([("app".to_owned(), SystemTime::now())]);
        metrics.render()
    }

    #[test]
    fn every_name_of_the_contract_is_there() {
        let text = scraped();
        for sample in [
            "portcullis_refusals_total{stage=\"authn\",reason=\"token-invalid\",mode=\"enforce\"} 1",
            "portcullis_upstream_requests_total{upstream=\"legacy\",outcome=\"answered\"} 1",
            "portcullis_upstream_duration_seconds_count{upstream=\"legacy\"} 1",
            "portcullis_request_duration_seconds_count{blueprint=\"api\",",
            "portcullis_requests_total{blueprint=\"api\",route=\"users\\\\\\\"\\n\",method=\"GET\",",
            "portcullis_connections{state=\"open\"} 0",
            "portcullis_requests_in_flight 0",
            "portcullis_reloads_total{outcome=\"rejected\"} 1",
            "portcullis_log_lines_dropped_total 0",
            "portcullis_limiter_entries 0",
            "portcullis_ban_entries 0",
            "portcullis_proofs_remembered 0",
            "portcullis_tokens_verified_total{issuer=\"corp\",outcome=\"valid\"} 1",
            "portcullis_jwks_fetches_total{issuer=\"corp\",outcome=\"fetched\"} 1",
            "portcullis_introspections_total{issuer=\"corp\",outcome=\"held-back\"} 2",
            "portcullis_issuer_entries{issuer=\"corp\",table=\"revoked\"} 3",
            "portcullis_certificate_expiry_seconds{name=\"app\"} ",
            "portcullis_build_info{version=\"",
        ] {
            assert!(
                text.lines().any(|line| line.starts_with(sample)),
                "no {sample} in\n{text}"
            );
        }
    }

    #[test]
    fn the_text_is_well_formed() {
        let text = scraped();
        assert!(text.ends_with("\n# EOF\n"));
        let mut types = HashSet::new();
        let mut samples = HashSet::new();
        for line in text.lines() {
            if let Some(described) = line.strip_prefix("# TYPE ") {
                assert!(
                    types.insert(described.to_owned()),
                    "{described} stands twice"
                );
            } else if !line.starts_with('#') {
                let (series, value) = line.rsplit_once(' ').unwrap();
                assert!(value.parse::<f64>().is_ok(), "{line}");
                assert!(samples.insert(series.to_owned()), "{series} stands twice");
            }
        }
        assert_eq!(text.matches("# HELP ").count(), types.len());
    }
}
