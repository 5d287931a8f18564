//! Closed loops: each of the connections sends its next request when the last one is answered.

use crate::arguments::Arguments;
use crate::link::{Link, Resume, client_config};
use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::time::Instant;

/// A connection that failed so often in a row is given up.
const MOST_FAILURES: usize = 50;
const BUFFER: usize = 64 << 10;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Full,
    Resume,
    Bulk,
}

impl Kind {
    pub(crate) fn named(verb: &str) -> Self {
        match verb {
            "resume" => Self::Resume,
            "bulk" => Self::Bulk,
            _ => Self::Full,
        }
    }
}

/// What one connection, or all of them, came to.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) latencies: Vec<u64>,
    pub(crate) refused: usize,
    pub(crate) errors: usize,
    pub(crate) last_error: String,
    bytes: usize,
    full: usize,
    resumed: usize,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.latencies.extend(other.latencies);
        self.refused += other.refused;
        self.errors += other.errors;
        self.bytes += other.bytes;
        self.full += other.full;
        self.resumed += other.resumed;
        if !other.last_error.is_empty() {
            self.last_error = other.last_error;
        }
    }

    /// One line of JSON.
    pub(crate) fn print(mut self, started: Instant) {
        let seconds = started.elapsed().as_secs_f64();
        self.latencies.sort_unstable();
        let rank = |per_mille: usize| {
            let place = self.latencies.len().saturating_sub(1) * per_mille / 1000;
            self.latencies.get(place).copied().unwrap_or_default()
        };
        println!(
            "{{\"requests\":{},\"refused\":{},\"errors\":{},\"last_error\":{:?},\"seconds\":{seconds:.4},\"bytes\":{},\
             \"full\":{},\"resumed\":{},\"p50_us\":{},\"p99_us\":{},\"p999_us\":{}}}",
            self.latencies.len(),
            self.refused,
            self.errors,
            self.last_error,
            self.bytes,
            self.full,
            self.resumed,
            rank(500),
            rank(990),
            rank(999),
        );
    }
}

struct Plan {
    kind: Kind,
    address: SocketAddr,
    request: Vec<u8>,
    deadline: Instant,
}

/// Loads until the time is over and prints what came of it.
pub(crate) fn load(kind: Kind, arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let started = Instant::now();
    let plan = Plan {
        kind,
        address: arguments.address()?,
        request: arguments.request()?,
        deadline: started + arguments.duration()?,
    };
    let connections = arguments.number("connections", 16)?;
    let total = std::thread::scope(|scope| {
        let loops: Vec<_> = (0..connections)
            .map(|_| scope.spawn(|| run(&plan)))
            .collect();
        let mut total = Tally::default();
        for one in loops {
            total.add(one.join().unwrap_or_default());
        }
        total
    });
    total.print(started);
    Ok(())
}

fn run(plan: &Plan) -> Tally {
    let mut tally = Tally::default();
    let resume = match plan.kind {
        Kind::Resume => Resume::Always,
        Kind::Full | Kind::Bulk => Resume::Never,
    };
    let Ok(config) = client_config(resume) else {
        return tally;
    };
    let mut buffer = vec![0; BUFFER];
    let mut kept: Option<Link> = None;
    while Instant::now() < plan.deadline && tally.errors < MOST_FAILURES {
        let started = Instant::now();
        let fresh = kept.is_none();
        let mut once = || -> io::Result<(Link, u16, usize)> {
            let mut link = match kept.take() {
                Some(link) => link,
                None => Link::open(plan.address, &config)?,
            };
            let (status, bytes) = link.get(&plan.request, &mut buffer, plan.deadline)?;
            Ok((link, status, bytes))
        };
        match once() {
            Ok((link, status, bytes)) => {
                tally.latencies.push(microseconds(started));
                tally.bytes += bytes;
                tally.refused += usize::from(status / 100 != 2);
                if fresh {
                    tally.resumed += usize::from(link.resumed());
                    tally.full += usize::from(!link.resumed());
                }
                match plan.kind {
                    Kind::Bulk => kept = Some(link),
                    Kind::Full | Kind::Resume => link.reset(),
                }
            }
            Err(error) => {
                tally.errors += 1;
                tally.last_error = error.to_string();
            }
        }
    }
    if let Some(link) = kept {
        link.reset();
    }
    tally
}

pub(crate) fn microseconds(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}
