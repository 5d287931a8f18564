//! A strict look at the bytes of an HTTP/1 client connection before the parser sees them (RFC 9112).
//!
//! A pure state machine, no I/O: it is fed each freshly read piece and says how many of its bytes may be handed on. It
//! knows only what is needed to find where each message ends, and refuses whatever two parsers could read differently:
//! disagreeing lengths, bare line ends, folded lines, blanks where none may be. Every check is made at the offending
//! byte, which is never handed on, so the parser behind it can neither finish such a head nor refuse it in its own words.
//!
//! It does not judge what a well-framed request asks for: hosts, paths and policies are the pipeline's.

mod chunked;
mod facts;
mod head;
mod octets;

use chunked::Chunked;
use head::{Framing, Head};

/// The most bytes of trailers, their empty line among them.
const TRAILER_BYTES: usize = 16 * 1024 - 1;

/// Bounds on one request head; trailers share them, up to [`TRAILER_BYTES`].
#[derive(Debug, Clone, Copy)]
pub struct ScreenLimits {
    /// Bytes of a head, from the first one to the end of its empty line.
    pub head_bytes: usize,
    /// Field lines of a head. The parser behind must allow as many.
    pub header_count: usize,
    /// Bytes of the request target; never more than 65,534, which is all the parser takes.
    pub uri_bytes: usize,
}

impl ScreenLimits {
    /// The parser behind has a bound of its own on trailers, and takes fewer bytes than that.
    fn of_trailers(self) -> Self {
        Self {
            head_bytes: self.head_bytes.min(TRAILER_BYTES),
            ..self
        }
    }
}

/// Why a connection is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// The length of the body can be read in two ways, or in none.
    #[error("the length of the message is stated in conflicting or unknown ways")]
    FramingConflict,
    /// The head breaks the grammar.
    #[error("the request head is malformed")]
    MalformedHead,
    /// The head, or the trailers, are too long or have too many fields.
    #[error("the request head is too large")]
    HeadTooLarge,
    /// The request target is too long.
    #[error("the request target is too long")]
    UriTooLong,
    /// The version is neither HTTP/1.0 nor HTTP/1.1.
    #[error("the protocol version is not supported")]
    UnsupportedVersion,
    /// The method is unknown by its very form, or `CONNECT`.
    #[error("the method is not supported")]
    UnsupportedMethod,
    /// The chunked framing of the body is broken.
    #[error("the chunked framing is broken")]
    BadChunk,
    /// Bytes came behind a request for a tunnel before it was open.
    #[error("bytes came before the tunnel was open")]
    EarlyTunnelBytes,
}

impl Violation {
    /// The status of the answer.
    pub fn status(self) -> u16 {
        match self {
            Self::FramingConflict
            | Self::MalformedHead
            | Self::BadChunk
            | Self::EarlyTunnelBytes => 400,
            Self::UriTooLong => 414,
            Self::HeadTooLarge => 431,
            Self::UnsupportedMethod => 501,
            Self::UnsupportedVersion => 505,
        }
    }

    /// The stable reason code for body, log and metric.
    pub fn code(self) -> &'static str {
        match self {
            Self::FramingConflict => "framing-conflict",
            Self::MalformedHead => "malformed-head",
            Self::HeadTooLarge => "head-too-large",
            Self::UriTooLong => "uri-too-long",
            Self::UnsupportedVersion => "unsupported-version",
            Self::UnsupportedMethod => "unsupported-method",
            Self::BadChunk => "bad-chunk",
            Self::EarlyTunnelBytes => "early-tunnel-bytes",
        }
    }
}

/// Where in the exchange of messages a connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Between two requests, or behind a request without a body.
    Idle,
    /// Within a request head.
    Head,
    /// Within a request body.
    Body,
    /// The connection is a tunnel; nothing is looked at any more.
    Tunnel,
    /// A violation was seen; nothing passes any more.
    Refused,
}

/// What came of one piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fed {
    /// How many bytes of the piece may be handed on. Fewer than there were only beside a violation.
    pub pass: usize,
    /// The violation that ends the connection, repeated for every later piece.
    pub violation: Option<Violation>,
}

/// A refused request, for its answer and its log line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What was broken.
    pub violation: Violation,
    /// The exact rule, for the log; never for the client.
    pub detail: &'static str,
    /// Where it happened: within a head, within a body (then the request is in flight already), or between them.
    pub during: Phase,
    /// The method as far as it was seen, raw.
    pub method: Vec<u8>,
    /// The request target as far as it was seen, raw and cut at 1 KiB.
    pub target: Vec<u8>,
}

/// A violation with the rule behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fault {
    violation: Violation,
    detail: &'static str,
}

impl Fault {
    const fn new(violation: Violation, detail: &'static str) -> Self {
        Self { violation, detail }
    }
}

/// What a part of the machine made of the bytes it was given.
enum Step {
    /// All of them belong to it and there is more to come.
    More,
    /// It ends behind this many.
    Done(usize),
    /// This many pass; the next one breaks a rule.
    Broken(usize, Fault),
}

/// The machine; one for each connection.
#[derive(Debug)]
pub struct Screen {
    state: State,
    limits: ScreenLimits,
    head: Head,
    heads: u64,
}

#[derive(Debug)]
enum State {
    Head,
    Length(u64),
    Chunked(Chunked),
    Trailers,
    AwaitTunnel,
    Tunnel,
    Refused { fault: Fault, during: Phase },
}

impl Screen {
    /// A screen before the first byte of a connection.
    pub fn new(limits: ScreenLimits) -> Self {
        let limits = ScreenLimits {
            uri_bytes: limits.uri_bytes.min(65_534),
            ..limits
        };
        Self {
            state: State::Head,
            limits,
            head: Head::default(),
            heads: 0,
        }
    }

    /// Looks at the bytes read last and says how many may be handed on.
    pub fn feed(&mut self, bytes: &[u8]) -> Fed {
        let mut rest = bytes;
        while !rest.is_empty() {
            match self.step(rest) {
                Step::More => {
                    return Fed {
                        pass: bytes.len(),
                        violation: None,
                    };
                }
                Step::Done(taken) => rest = rest.get(taken..).unwrap_or_default(),
                Step::Broken(taken, fault) => {
                    let pass = bytes.len() - rest.len() + taken;
                    return Fed {
                        pass,
                        violation: Some(self.refuse(fault)),
                    };
                }
            }
        }
        Fed {
            pass: bytes.len(),
            violation: None,
        }
    }

    /// Where the connection stands.
    pub fn phase(&self) -> Phase {
        match &self.state {
            State::Head if self.head.is_untouched() => Phase::Idle,
            State::Head => Phase::Head,
            State::Length(_) | State::Chunked(_) | State::Trailers => Phase::Body,
            State::AwaitTunnel => Phase::Idle,
            State::Tunnel => Phase::Tunnel,
            State::Refused { .. } => Phase::Refused,
        }
    }

    /// Whether the last byte that passed ended a message, and the next one begins a head.
    pub fn is_between(&self) -> bool {
        matches!(self.state, State::Head) && self.head.is_untouched()
    }

    /// How many whole heads have passed.
    pub fn heads(&self) -> u64 {
        self.heads
    }

    /// Whether a tunnel was asked for and neither opened nor denied yet.
    pub fn awaits_tunnel(&self) -> bool {
        matches!(self.state, State::AwaitTunnel)
    }

    /// The tunnel that was asked for is open: from now on everything passes. Without a request for one, nothing changes.
    pub fn open_tunnel(&mut self) {
        if self.awaits_tunnel() {
            self.state = State::Tunnel;
        }
    }

    /// The tunnel that was asked for is denied: the next bytes are a request again.
    pub fn resume(&mut self) {
        if self.awaits_tunnel() {
            self.state = State::Head;
        }
    }

    /// The refused request, once there was a violation.
    pub fn refusal(&self) -> Option<Refusal> {
        let State::Refused { fault, during } = &self.state else {
            return None;
        };
        let (method, target) = match during {
            Phase::Head => self.head.request_line(),
            _ => (Vec::new(), Vec::new()),
        };
        Some(Refusal {
            violation: fault.violation,
            detail: fault.detail,
            during: *during,
            method,
            target,
        })
    }

    fn step(&mut self, bytes: &[u8]) -> Step {
        match &mut self.state {
            State::Head => match self.head.scan(bytes, &self.limits) {
                Step::Done(taken) => self.head_done(taken),
                other => other,
            },
            State::Length(left) => match take(left, bytes) {
                Step::Done(taken) => self.message_done(taken),
                other => other,
            },
            State::Chunked(chunked) => match chunked.scan(bytes) {
                Step::Done(taken) => {
                    self.state = State::Trailers;
                    self.head.begin_trailers();
                    Step::Done(taken)
                }
                other => other,
            },
            State::Trailers => match self.head.scan(bytes, &self.limits.of_trailers()) {
                Step::Done(taken) => self.message_done(taken),
                other => other,
            },
            State::AwaitTunnel => Step::Broken(0, EARLY),
            State::Tunnel => Step::More,
            State::Refused { fault, .. } => Step::Broken(0, *fault),
        }
    }

    fn head_done(&mut self, taken: usize) -> Step {
        self.heads += 1;
        self.state = match self.head.framing() {
            Framing::None => State::Head,
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::Chunked(Chunked::default()),
            Framing::Tunnel => State::AwaitTunnel,
        };
        self.head.reset();
        Step::Done(taken)
    }

    fn message_done(&mut self, taken: usize) -> Step {
        self.state = State::Head;
        self.head.reset();
        Step::Done(taken)
    }

    fn refuse(&mut self, fault: Fault) -> Violation {
        if !matches!(self.state, State::Refused { .. }) {
            let during = match self.state {
                State::Head => Phase::Head,
                _ => self.phase(),
            };
            self.state = State::Refused { fault, during };
        }
        fault.violation
    }
}

const EARLY: Fault = Fault::new(
    Violation::EarlyTunnelBytes,
    "bytes before the tunnel was open",
);

/// Takes what belongs to a run of known length.
fn take(left: &mut u64, bytes: &[u8]) -> Step {
    let given = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    if given < *left {
        *left -= given;
        return Step::More;
    }
    let taken = usize::try_from(*left).unwrap_or(bytes.len());
    *left = 0;
    Step::Done(taken)
}

#[cfg(test)]
pub(super) mod tests;
