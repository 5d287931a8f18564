//! Floods of HTTP/2 frames (RFC 9113 §10.5) on one connection: within bounded memory, with others served meanwhile.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::harness::client::is_close;
use crate::harness::gate::{Running, request};
use crate::harness::{Client, Conn, Gate, Origin, TlsOptions};

/// Frames that a flood sends at most; each is answered, ignored or the last.
const FRAMES: usize = 100_000;
/// Frames in one write.
const BATCH: usize = 500;
/// The memory that a flood may cost the gate.
const KIB: u64 = 20 * 1024;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const UNKNOWN: u8 = 0xbb;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len())
        .expect("a short payload")
        .to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A head in HPACK (RFC 7541) without dynamic table: `:method`, `:scheme https`, `:path /`, `:authority app.example`.
fn head(stream: u32, method: u8, flags: u8) -> Vec<u8> {
    let mut block = vec![0x80 | method, 0x87, 0x84, 0x01, 11];
    block.extend(b"app.example");
    frame(HEADERS, 0x4 | flags, stream, &block)
}

const GET: u8 = 2;
const POST: u8 = 3;
const END_STREAM: u8 = 1;

/// A connection after the prefaces of both sides.
fn connect(gate: &Running) -> Client {
    let mut options = TlsOptions::new(&gate.ca, "app.example");
    let mut config = (*options.config).clone();
    config.alpn_protocols = vec![b"h2".to_vec()];
    options.config = Arc::new(config);
    let mut client = Client::tls(gate.proxy.https(), &options);
    client.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    client.send(frame(SETTINGS, 0, 0, &[]));
    client
}

/// Requests of another client while a flood runs, and the longest that one took.
struct Bystander {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<(usize, Duration)>,
}

impl Bystander {
    fn of(gate: &Running) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, mut client) = (Arc::clone(&stop), gate.https());
        let thread = std::thread::spawn(move || {
            let (mut answers, mut longest) = (0, Duration::ZERO);
            while answers < 50 || !stopped.load(Ordering::Relaxed) {
                let begun = Instant::now();
                client.send(request("GET", "/", &[])).response().expect(200);
                longest = longest.max(begun.elapsed());
                answers += 1;
            }
            (answers, longest)
        });
        Self { stop, thread }
    }

    fn expect_served(self, what: &str) {
        self.stop.store(true, Ordering::Relaxed);
        let (answers, longest) = self.thread.join().expect("every answer came");
        assert!(
            longest < Duration::from_secs(2),
            "{what}: one of {answers} answers took {longest:?}"
        );
    }
}

/// How a flood ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// The gate closed the connection, after so many frames at most.
    Cut,
    /// All were taken.
    Taken,
}

/// Sends a frame `FRAMES` times on a fresh connection, on which `before` went out first.
fn flood(gate: &Running, what: &str, before: &[Vec<u8>], frame: &[u8]) -> End {
    let memory = gate.proxy.resident_kib();
    let bystander = Bystander::of(gate);
    let mut client = connect(gate);
    for bytes in before {
        client.send(bytes);
    }
    let batch = frame.repeat(BATCH);
    let sent = (0..FRAMES / BATCH).try_for_each(|_| client.try_send(&batch));
    // What the system took need not have been read: a last PING that is answered says that all was.
    let sent = sent.and_then(|()| client.try_send(self::frame(PING, 0, 0, b"the last")));
    let end = match sent.and_then(|()| await_pong(&mut client, *b"the last")) {
        Ok(()) => End::Taken,
        Err(error) => {
            assert!(is_close(&error), "{what}: {error}");
            End::Cut
        }
    };
    bystander.expect_served(what);
    let grown = gate.proxy.resident_kib().saturating_sub(memory);
    assert!(grown < KIB, "{what}: grew by {grown} KiB");
    gate.get("/").expect(200);
    end
}

/// One frame: type, flags, stream, payload.
fn next_frame(client: &mut Client) -> io::Result<(u8, u8, u32, Vec<u8>)> {
    let head = client.try_exactly(9)?;
    let number = |bytes: [u8; 4]| u32::from_be_bytes(bytes);
    let length = usize::try_from(number([0, head[0], head[1], head[2]])).expect("24 bits");
    let payload = client.try_exactly(length)?;
    let stream = number([head[5], head[6], head[7], head[8]]);
    Ok((head[3], head[4], stream, payload))
}

/// Reads frames until the answer to this PING.
fn await_pong(client: &mut Client, wanted: [u8; 8]) -> io::Result<()> {
    loop {
        let (kind, _, _, payload) = next_frame(client)?;
        if kind == PING && payload == wanted {
            return Ok(());
        }
    }
}

/// Reads frames until one ends this stream.
fn await_end_of(client: &mut Client, wanted: u32) {
    loop {
        let (kind, flags, stream, _) = next_frame(client).expect("the connection goes on");
        assert_ne!(kind, GOAWAY, "the gate goes away at stream {wanted}");
        if stream == wanted && matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0 {
            return;
        }
    }
}

#[test]
fn floods_of_small_frames_are_cut() {
    let origin = Origin::echo();
    let gate = Gate::before(&origin).open();
    let ping = frame(PING, 0, 0, &[7; 8]);
    let settings = frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100]);
    let priority = frame(PRIORITY, 0, 5, &[0, 0, 0, 1, 9]);
    let window = frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]);
    let unknown = frame(UNKNOWN, 0, 0, &[]);
    for (what, frame) in [
        ("ping", ping),
        ("settings", settings),
        ("priority", priority),
        ("window update", window),
        ("unknown", unknown),
    ] {
        assert_eq!(flood(&gate, what, &[], &frame), End::Cut, "{what}");
    }
}

#[test]
fn a_flood_of_empty_data_is_cut() {
    let echo = Origin::echo();
    let gate = Gate::before(&echo).open();
    let begun = [head(1, POST, 0)];
    let empty = frame(DATA, 0, 1, &[]);
    assert_eq!(flood(&gate, "empty data", &begun, &empty), End::Cut);
}

#[test]
fn a_flood_of_empty_data_before_a_backend_that_reads_nothing_costs_little() {
    // Answers the bystander, and leaves a body where it is.
    let origin = Origin::script(|conn: &mut Conn| {
        while let Some(head) = conn.head()? {
            if head.method() == "POST" {
                conn.until_close()?;
            }
            conn.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
        }
        Ok(())
    });
    let gate = Gate::before(&origin).open();
    // A window full of bytes first, so that nothing moves.
    let mut begun = vec![head(1, POST, 0)];
    begun.extend((0..16).map(|_| frame(DATA, 0, 1, &[b'x'; 8192])));
    let empty = frame(DATA, 0, 1, &[]);
    assert_eq!(
        flood(&gate, "empty data, nobody reads", &begun, &empty),
        End::Cut
    );
}

#[test]
fn ends_of_a_request_that_is_over_are_cut() {
    let origin = Origin::echo();
    let gate = Gate::before(&origin).open();
    // The window of the stream runs over, so that the gate resets it and lets go of what comes behind.
    let reset = [
        head(1, POST, 0),
        frame(WINDOW_UPDATE, 0, 1, &[0x7f, 0xff, 0xff, 0xff]),
    ];
    let end = frame(DATA, END_STREAM, 1, &[]);
    assert_eq!(flood(&gate, "ends", &reset, &end), End::Cut);
}

#[test]
fn a_client_that_measures_the_way_with_each_message_is_no_flood() {
    const MESSAGES: usize = 6000;
    let origin = Origin::script(|conn: &mut Conn| {
        conn.request()?;
        conn.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        for _ in 0..MESSAGES {
            conn.send("14\r\nan event of 20 bytes\r\n")?;
        }
        conn.send("0\r\n\r\n")
    });
    let gate = Gate::before(&origin).open();
    let mut client = connect(&gate);
    client.send(head(1, GET, END_STREAM));
    let mut got = 0;
    while got < MESSAGES * 20 {
        let (kind, _, _, payload) = next_frame(&mut client).expect("the connection goes on");
        if kind == DATA {
            got += payload.len();
            let increment = u32::try_from(payload.len()).expect("short").to_be_bytes();
            client.send(frame(WINDOW_UPDATE, 0, 0, &increment));
            client.send(frame(WINDOW_UPDATE, 0, 1, &increment));
            client.send(frame(PING, 0, 0, &[7; 8]));
        }
    }
}

#[test]
fn many_requests_on_one_connection_are_no_flood() {
    let origin = Origin::echo();
    let gate = Gate::before(&origin).open();
    let mut client = connect(&gate);
    // As a browser does: each answer is waited for, each window given back.
    for number in 0..3000_u32 {
        let stream = number * 2 + 1;
        client.send(head(stream, GET, END_STREAM));
        client.send(frame(WINDOW_UPDATE, 0, 0, &[0, 0, 4, 0]));
        await_end_of(&mut client, stream);
    }
}
