//! An open loop: requests at a fixed rate. A request is due at its time whether earlier ones are answered or not, and its
//! latency counts from then, so that a stall of the proxy is seen by all the requests that fell into it.

use crate::arguments::Arguments;
use crate::closed::{Tally, microseconds};
use crate::link::{Head, Link, Resume, client_config, dial};
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustls::ClientConnection;
use std::collections::VecDeque;
use std::error::Error;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::num::NonZeroU64;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// How long after the end answers are still waited for.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

/// Sends at the rate until the time is over and prints what came of it.
pub(crate) fn load(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    // The kernel may otherwise wake a sleeper 50 µs late, which is more than most latencies here.
    rustix::thread::set_current_timer_slack(NonZeroU64::new(1))?;
    let mut pace = Pace::open(arguments)?;
    let rate: f64 = arguments.number("rate", 1000.0)?;
    let started = Instant::now();
    pace.run(started, arguments.duration()?, rate)?;
    pace.tally.errors +=
        pace.waiting.len() + pace.lines.iter().filter(|line| line.due.is_some()).count();
    pace.tally.print(started);
    Ok(())
}

struct Pace {
    poll: OwnedFd,
    lines: Vec<Line>,
    /// Lines with no request under way, longest unused first.
    unused: VecDeque<usize>,
    /// Requests that were due while all lines were in use.
    waiting: VecDeque<Instant>,
    request: Vec<u8>,
    buffer: Vec<u8>,
    tally: Tally,
}

struct Line {
    tcp: TcpStream,
    tls: Option<ClientConnection>,
    due: Option<Instant>,
    answer: Vec<u8>,
}

impl Pace {
    fn open(arguments: &Arguments) -> Result<Self, Box<dyn Error>> {
        let address = arguments.address()?;
        let count: usize = arguments.number("connections", 64)?;
        let config = client_config(Resume::Never)?;
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let mut lines = Vec::with_capacity(count);
        for place in 0..count {
            let (tcp, tls) = if arguments.text("tls") == Some("no") {
                (dial(address)?, None)
            } else {
                let link = Link::open(address, &config)?;
                (link.tcp, Some(link.tls))
            };
            tcp.set_nonblocking(true)?;
            let watched = epoll::EventData::new_u64(place as u64);
            epoll::add(&poll, &tcp, watched, epoll::EventFlags::IN)?;
            lines.push(Line {
                tcp,
                tls,
                due: None,
                answer: Vec::new(),
            });
        }
        Ok(Self {
            poll,
            lines,
            unused: (0..count).collect(),
            waiting: VecDeque::new(),
            request: arguments.request()?,
            buffer: vec![0; 64 << 10],
            tally: Tally::default(),
        })
    }

    fn run(&mut self, started: Instant, length: Duration, rate: f64) -> Result<(), Box<dyn Error>> {
        let mut events = Vec::with_capacity(256);
        let mut sent: u64 = 0;
        loop {
            let next = started + Duration::from_secs_f64(sent as f64 / rate);
            let over = next >= started + length;
            if !over && next <= Instant::now() {
                sent += 1;
                self.waiting.push_back(next);
                self.send_what_waits();
                continue;
            }
            let nothing_left = self.unused.len() == self.lines.len() && self.waiting.is_empty();
            let end = if over {
                started + length + LAST_ANSWERS
            } else {
                next
            };
            let wait = end.saturating_duration_since(Instant::now());
            if over && (nothing_left || wait.is_zero()) {
                return Ok(());
            }
            events.clear();
            let timeout = Timespec::try_from(wait)?;
            epoll::wait(&self.poll, spare_capacity(&mut events), Some(&timeout))?;
            for event in &events {
                self.turn(usize::try_from(event.data.u64())?);
            }
            self.send_what_waits();
        }
    }

    fn send_what_waits(&mut self) {
        while !self.waiting.is_empty() {
            let Some(place) = self.unused.pop_front() else {
                return;
            };
            let line = &mut self.lines[place];
            line.due = self.waiting.pop_front();
            if let Err(error) = line.send(&self.request) {
                self.lose(place, &error);
            }
        }
    }

    fn turn(&mut self, place: usize) {
        let line = &mut self.lines[place];
        match line.receive(&mut self.buffer) {
            Ok(None) => {}
            Ok(Some(status)) => {
                if let Some(due) = line.due.take() {
                    self.tally.latencies.push(microseconds(due));
                    self.tally.refused += usize::from(status / 100 != 2);
                    self.unused.push_back(place);
                }
            }
            Err(error) => self.lose(place, &error),
        }
    }

    /// A line that broke is not used again; a request on it counts as an error at the end.
    fn lose(&mut self, place: usize, error: &io::Error) {
        self.tally.errors += usize::from(self.lines[place].due.is_none());
        self.tally.last_error = error.to_string();
        self.unused.retain(|one| *one != place);
        let _ = epoll::delete(&self.poll, &self.lines[place].tcp);
    }
}

impl Line {
    /// A request is far smaller than the empty send buffer that it meets, so it is written at once.
    fn send(&mut self, request: &[u8]) -> io::Result<()> {
        let Some(tls) = &mut self.tls else {
            return self.tcp.write_all(request);
        };
        tls.writer().write_all(request)?;
        while tls.wants_write() {
            tls.write_tls(&mut self.tcp)?;
        }
        Ok(())
    }

    /// The status, once an answer is whole.
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Option<u16>> {
        let read = match &mut self.tls {
            None => self.tcp.read(buffer),
            Some(tls) => tls.read_tls(&mut self.tcp).and_then(|got| {
                if got == 0 {
                    return Ok(0);
                }
                tls.process_new_packets().map_err(io::Error::other)?;
                tls.reader().read(buffer)
            }),
        };
        match read {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(got) => self.answer.extend_from_slice(&buffer[..got]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        match Head::parse(&self.answer)? {
            Some(head) if self.answer.len() >= head.bytes + head.body => {
                self.answer.clear();
                Ok(Some(head.status))
            }
            _ => Ok(None),
        }
    }
}
