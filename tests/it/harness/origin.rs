//! A scripted backend on raw sockets: it records each byte that reaches it and answers what its script says.

use std::io::{self, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::json;

use super::ca::Leaf;
use super::eventually::eventually;
use super::message::{Buffered, Head};

/// How long the origin waits for the proxy's next byte.
const DEADLINE: Duration = Duration::from_mins(1);

/// One request as it reached the backend.
#[derive(Clone, Debug)]
pub struct Received {
    pub head: Head,
    /// The body, decoded from its framing.
    pub body: Vec<u8>,
    /// Which connection it came on, counted from 0.
    pub connection: usize,
}

/// Everything that reached the backend.
#[derive(Default)]
struct Record {
    requests: Vec<Received>,
    bytes: Vec<Vec<u8>>,
    closed: usize,
}

type Shared = Arc<Mutex<Record>>;
type Script = dyn Fn(&mut Conn) -> io::Result<()> + Send + Sync;

/// A stream of either kind that the origin accepts.
trait Socket: io::Read + Write + Send {
    fn close(&self);
}

impl Socket for TcpStream {
    fn close(&self) {
        let _ = self.shutdown(Shutdown::Both);
    }
}

impl Socket for UnixStream {
    fn close(&self) {
        let _ = self.shutdown(Shutdown::Both);
    }
}

impl Socket for StreamOwned<ServerConnection, TcpStream> {
    fn close(&self) {
        self.sock.close();
    }
}

/// One accepted connection, in the hands of a script.
pub struct Conn {
    buffered: Buffered<Tap>,
    record: Shared,
    /// Which connection this is, counted from 0.
    pub index: usize,
}

/// Notes each byte that comes in before anyone parses it.
struct Tap {
    socket: Box<dyn Socket>,
    record: Shared,
    index: usize,
}

impl io::Read for Tap {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.socket.read(buffer)?;
        let mut record = self.record.lock().unwrap_or_else(PoisonError::into_inner);
        record.bytes[self.index].extend_from_slice(&buffer[..read]);
        Ok(read)
    }
}

impl Conn {
    /// Reads the head of the next request; `None` when the proxy has closed.
    ///
    /// # Errors
    /// What the socket reports.
    pub fn head(&mut self) -> io::Result<Option<Head>> {
        self.buffered.head()
    }

    /// Reads the next request whole and notes it; `None` when the proxy has closed.
    ///
    /// # Errors
    /// What the socket reports, or an end within the request.
    pub fn request(&mut self) -> io::Result<Option<Received>> {
        let Some(head) = self.head()? else {
            return Ok(None);
        };
        let body = self.buffered.request_body(&head)?;
        let received = Received {
            head,
            body,
            connection: self.index,
        };
        self.note(received.clone());
        Ok(Some(received))
    }

    /// Notes a request whose body the script reads on its own.
    pub fn note(&self, received: Received) {
        let mut record = self.record.lock().unwrap_or_else(PoisonError::into_inner);
        record.requests.push(received);
    }

    /// Reads one chunk of a chunked request body; empty at its end.
    ///
    /// # Errors
    /// What the socket reports.
    pub fn chunk(&mut self) -> io::Result<Vec<u8>> {
        self.buffered.chunk()
    }

    /// Reads exactly `length` bytes.
    ///
    /// # Errors
    /// What the socket reports.
    pub fn exactly(&mut self, length: usize) -> io::Result<Vec<u8>> {
        self.buffered.exactly(length)
    }

    /// Reads until the proxy closes.
    ///
    /// # Errors
    /// What the socket reports.
    pub fn until_close(&mut self) -> io::Result<Vec<u8>> {
        self.buffered.rest()
    }

    /// Sends exactly these bytes.
    ///
    /// # Errors
    /// What the socket reports.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.buffered.stream.socket.write_all(bytes.as_ref())?;
        self.buffered.stream.socket.flush()
    }
}

/// The backend and all it has seen.
pub struct Origin {
    address: Option<SocketAddr>,
    record: Shared,
    stop: Arc<AtomicBool>,
    accepting: Option<JoinHandle<()>>,
    wake: Box<dyn Fn() + Send + Sync>,
}

impl Origin {
    /// Answers 200 with a JSON account of what it got: method, target, headers in order, body length.
    pub fn echo() -> Self {
        Self::serve(|received| {
            let fields: Vec<_> = received
                .head
                .fields
                .iter()
                .map(|(name, value)| json!([name, value]))
                .collect();
            let body = json!({
                "method": received.head.method(),
                "target": received.head.target(),
                "headers": fields,
                "body_bytes": received.body.len(),
            });
            answer(
                200,
                &[("Content-Type", "application/json")],
                body.to_string(),
            )
        })
    }

    /// Answers each request with these bytes.
    pub fn fixed(bytes: impl Into<Vec<u8>>) -> Self {
        let bytes = bytes.into();
        Self::serve(move |_| bytes.clone())
    }

    /// Answers 200 with these headers and a two-byte body.
    pub fn with_headers(headers: &[(&str, &str)]) -> Self {
        Self::fixed(answer(200, headers, "ok"))
    }

    /// Answers each request with the bytes that `reply` makes of it, on a connection kept alive.
    pub fn serve(reply: impl Fn(&Received) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self::script(keep_answering(reply))
    }

    /// Hands each connection to `script`; the connection closes when it returns.
    pub fn script(script: impl Fn(&mut Conn) -> io::Result<()> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
        Self::script_on(listener, script)
    }

    /// Like `script`, on a listener that the test made.
    pub fn script_on(
        listener: TcpListener,
        script: impl Fn(&mut Conn) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let address = listener.local_addr().expect("a bound listener");
        let accept = move || -> io::Result<Box<dyn Socket>> {
            let (socket, _) = listener.accept()?;
            prepare(&socket)?;
            Ok(Box::new(socket))
        };
        let wake = move || drop(TcpStream::connect(address));
        Self::start(Some(address), accept, Box::new(wake), Arc::new(script))
    }

    /// Echoes within TLS, with the given certificate.
    pub fn tls(leaf: &Leaf, reply: impl Fn(&Received) -> Vec<u8> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
        let address = listener.local_addr().expect("a bound listener");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider's versions")
            .with_no_client_auth()
            .with_single_cert(vec![leaf.cert_der.clone()], leaf.key_der())
            .expect("the leaf and its key fit");
        let config = Arc::new(config);
        let accept = move || -> io::Result<Box<dyn Socket>> {
            let (socket, _) = listener.accept()?;
            prepare(&socket)?;
            let connection =
                ServerConnection::new(Arc::clone(&config)).map_err(io::Error::other)?;
            Ok(Box::new(StreamOwned::new(connection, socket)))
        };
        let wake = move || drop(TcpStream::connect(address));
        let script = Arc::new(keep_answering(reply));
        Self::start(Some(address), accept, Box::new(wake), script)
    }

    /// Answers on a Unix socket at `path`.
    pub fn unix(path: &Path, reply: impl Fn(&Received) -> Vec<u8> + Send + Sync + 'static) -> Self {
        let listener = UnixListener::bind(path).expect("a free path");
        let accept = move || -> io::Result<Box<dyn Socket>> {
            let (socket, _) = listener.accept()?;
            socket.set_read_timeout(Some(DEADLINE))?;
            Ok(Box::new(socket))
        };
        let path = path.to_owned();
        let wake = move || drop(UnixStream::connect(&path));
        Self::start(
            None,
            accept,
            Box::new(wake),
            Arc::new(keep_answering(reply)),
        )
    }

    /// The address as an upstream URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    /// The TCP address it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address.expect("a TCP origin")
    }

    /// All requests so far.
    pub fn requests(&self) -> Vec<Received> {
        self.record().requests.clone()
    }

    /// The one request that ought to have come; panics when it were none or more.
    #[track_caller]
    pub fn only_request(&self) -> Received {
        let mut requests = self.requests();
        assert_eq!(requests.len(), 1, "requests at the backend: {requests:#?}");
        requests.remove(0)
    }

    /// The latest request.
    #[track_caller]
    pub fn last_request(&self) -> Received {
        self.requests().pop().expect("a request at the backend")
    }

    /// Each byte of each connection.
    pub fn bytes(&self) -> Vec<Vec<u8>> {
        self.record().bytes.clone()
    }

    /// Panics if a byte has reached the backend.
    #[track_caller]
    pub fn expect_untouched(&self) {
        let bytes = self.bytes().concat();
        assert!(
            bytes.is_empty(),
            "reached the backend: `{}`",
            String::from_utf8_lossy(&bytes).escape_debug()
        );
    }

    /// How many connections it has had.
    pub fn connections(&self) -> usize {
        self.record().bytes.len()
    }

    /// Waits until `count` connections have ended.
    pub fn await_closed(&self, count: usize) {
        eventually("the proxy closes its upstream connection", || {
            (self.record().closed >= count).then_some(())
        });
    }

    fn record(&self) -> std::sync::MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start(
        address: Option<SocketAddr>,
        accept: impl Fn() -> io::Result<Box<dyn Socket>> + Send + 'static,
        wake: Box<dyn Fn() + Send + Sync>,
        script: Arc<Script>,
    ) -> Self {
        let record = Shared::default();
        let stop = Arc::new(AtomicBool::new(false));
        let accepting = std::thread::spawn({
            let (record, stop) = (Arc::clone(&record), Arc::clone(&stop));
            move || {
                while let Ok(socket) = accept() {
                    if stop.load(Ordering::SeqCst) {
                        break;
                    }
                    hand_over(socket, &record, &script);
                }
            }
        });
        Self {
            address,
            record,
            stop,
            accepting: Some(accepting),
            wake,
        }
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        (self.wake)();
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}

fn hand_over(socket: Box<dyn Socket>, record: &Shared, script: &Arc<Script>) {
    let index = {
        let mut record = record.lock().unwrap_or_else(PoisonError::into_inner);
        record.bytes.push(Vec::new());
        record.bytes.len() - 1
    };
    let tap = Tap {
        socket,
        record: Arc::clone(record),
        index,
    };
    let mut conn = Conn {
        buffered: Buffered::new(tap),
        record: Arc::clone(record),
        index,
    };
    let script = Arc::clone(script);
    std::thread::spawn(move || {
        let _ = script(&mut conn);
        conn.buffered.stream.socket.close();
        let mut record = conn.record.lock().unwrap_or_else(PoisonError::into_inner);
        record.closed += 1;
    });
}

fn keep_answering(
    reply: impl Fn(&Received) -> Vec<u8> + Send + Sync + 'static,
) -> impl Fn(&mut Conn) -> io::Result<()> + Send + Sync + 'static {
    move |conn| {
        while let Some(received) = conn.request()? {
            conn.send(reply(&received))?;
        }
        Ok(())
    }
}

fn prepare(socket: &TcpStream) -> io::Result<()> {
    socket.set_read_timeout(Some(DEADLINE))?;
    socket.set_nodelay(true)
}

/// The bytes of an answer with a length.
pub fn answer(status: u16, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Vec<u8> {
    use std::fmt::Write;

    let body = body.as_ref();
    let mut head = format!("HTTP/1.1 {status} Scripted\r\n");
    for (name, value) in headers {
        let _ = write!(head, "{name}: {value}\r\n");
    }
    let _ = write!(head, "Content-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}
