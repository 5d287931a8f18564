//! The origin behind every system: one thread, epoll, HTTP/1.1, GET only.
//!
//! It does as little as it can for each request, one read and one write, because it shares a core with the load: an origin
//! that costs more would be the bottleneck before the proxies are.
//!
//! `/1m` and `/100m` are bodies of that size, `/cookie` is the small answer with a cookie, anything else is 1 KiB of JSON.

use rustix::buffer::spare_capacity;
use rustix::event::epoll;
use std::error::Error;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};

const MIB: usize = 1 << 20;
const SMALL: usize = 1024;
const LISTENER: u64 = u64::MAX;

/// Listens on a free port, prints it, and answers until it is ended.
pub(crate) fn serve() -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    // A deep queue: bursts of connections are the proxy's test, not the origin's.
    rustix::net::listen(&listener, 4096)?;
    println!("{}", listener.local_addr()?.port());
    io::stdout().flush()?;
    Origin::new(listener)?.run()
}

struct Origin {
    listener: TcpListener,
    poll: OwnedFd,
    /// By file descriptor.
    connections: Vec<Option<Connection>>,
    answers: Answers,
    buffer: Vec<u8>,
}

struct Answers {
    small: Vec<u8>,
    cookie: Vec<u8>,
    block: Vec<u8>,
}

struct Connection {
    tcp: TcpStream,
    /// What was read and is not a whole head yet.
    partial: Vec<u8>,
    /// What is still to be written before the body.
    head: Vec<u8>,
    /// Bytes of a large body still to be written.
    body: usize,
    blocked: bool,
}

impl Origin {
    fn new(listener: TcpListener) -> io::Result<Self> {
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let watched = epoll::EventData::new_u64(LISTENER);
        epoll::add(&poll, &listener, watched, epoll::EventFlags::IN)?;
        Ok(Self {
            listener,
            poll,
            connections: Vec::new(),
            answers: Answers::new(),
            buffer: vec![0; 64 << 10],
        })
    }

    fn run(mut self) -> Result<(), Box<dyn Error>> {
        let mut events = Vec::with_capacity(256);
        loop {
            events.clear();
            epoll::wait(&self.poll, spare_capacity(&mut events), None)?;
            for event in &events {
                match event.data.u64() {
                    LISTENER => self.accept()?,
                    place => self.turn(usize::try_from(place)?)?,
                }
            }
        }
    }

    fn accept(&mut self) -> io::Result<()> {
        while let Ok((tcp, _)) = self.listener.accept() {
            tcp.set_nonblocking(true)?;
            tcp.set_nodelay(true)?;
            let place = usize::try_from(tcp.as_raw_fd()).map_err(io::Error::other)?;
            let watched = epoll::EventData::new_u64(place as u64);
            epoll::add(&self.poll, &tcp, watched, epoll::EventFlags::IN)?;
            if self.connections.len() <= place {
                self.connections.resize_with(place + 1, || None);
            }
            self.connections[place] = Some(Connection {
                tcp,
                partial: Vec::new(),
                head: Vec::new(),
                body: 0,
                blocked: false,
            });
        }
        Ok(())
    }

    /// Reads, answers and writes what the connection takes; one that ends or errs is dropped.
    fn turn(&mut self, place: usize) -> io::Result<()> {
        let Some(Some(connection)) = self.connections.get_mut(place) else {
            return Ok(());
        };
        let before = connection.blocked;
        let alive = connection
            .read(&mut self.buffer, &self.answers)
            .and_then(|()| connection.write(&self.answers.block));
        if alive.is_err() {
            self.connections[place] = None;
        } else if connection.blocked != before {
            let mut flags = epoll::EventFlags::IN;
            flags.set(epoll::EventFlags::OUT, connection.blocked);
            let watched = epoll::EventData::new_u64(place as u64);
            epoll::modify(&self.poll, &connection.tcp, watched, flags)?;
        }
        Ok(())
    }
}

impl Connection {
    fn read(&mut self, buffer: &mut [u8], answers: &Answers) -> io::Result<()> {
        let got = match self.tcp.read(buffer) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(got) => got,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        };
        // The common case: one whole small request and nothing pending.
        let read = &buffer[..got];
        let idle = self.partial.is_empty() && self.head.is_empty() && self.body == 0;
        if idle && end_of_head(read) == Some(got) && large(read) == 0 {
            let answer = answers.small_for(read);
            let written = self.tcp.write(answer).or_else(nothing_if_blocked)?;
            self.head.extend_from_slice(&answer[written..]);
            return Ok(());
        }
        self.partial.extend_from_slice(read);
        while self.body == 0 {
            let Some(end) = end_of_head(&self.partial) else {
                break;
            };
            let head: Vec<u8> = self.partial.drain(..end).collect();
            self.body = large(&head);
            if self.body == 0 {
                self.head.extend_from_slice(answers.small_for(&head));
            } else {
                self.head.extend(answer_head("", self.body));
            }
        }
        Ok(())
    }

    fn write(&mut self, block: &[u8]) -> io::Result<()> {
        self.blocked = false;
        while !self.head.is_empty() {
            let written = self.tcp.write(&self.head).or_else(nothing_if_blocked)?;
            self.head.drain(..written);
            if written == 0 {
                self.blocked = true;
                return Ok(());
            }
        }
        while self.body > 0 {
            // The block is written round and round; where in it a write starts does not matter.
            let part = &block[..self.body.min(block.len())];
            let written = self.tcp.write(part).or_else(nothing_if_blocked)?;
            self.body -= written;
            if written == 0 {
                self.blocked = true;
                return Ok(());
            }
        }
        Ok(())
    }
}

impl Answers {
    fn new() -> Self {
        let mut body = String::from(r#"{"id":42,"name":"bench","items":["#);
        let mut item = 1000;
        while body.len() < SMALL - 12 {
            body.push_str(&format!("{item},"));
            item += 1;
        }
        while body.len() < SMALL - 2 {
            body.push('0');
        }
        body.push_str("]}");
        let whole = |fields: &str| [answer_head(fields, SMALL), body.clone().into_bytes()].concat();
        Self {
            small: whole(""),
            cookie: whole("Set-Cookie: session=0123456789abcdef; Path=/\r\n"),
            block: (0..MIB).map(|place| (place * 31 % 251) as u8).collect(),
        }
    }

    fn small_for(&self, head: &[u8]) -> &[u8] {
        if head.starts_with(b"GET /cookie ") {
            &self.cookie
        } else {
            &self.small
        }
    }
}

fn answer_head(fields: &str, length: usize) -> Vec<u8> {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n{fields}Content-Length: {length}\r\n\r\n"
    )
    .into_bytes()
}

/// The size of the large body that is asked for, or 0.
fn large(head: &[u8]) -> usize {
    if head.starts_with(b"GET /1m ") {
        MIB
    } else if head.starts_with(b"GET /100m ") {
        100 * MIB
    } else {
        0
    }
}

fn end_of_head(read: &[u8]) -> Option<usize> {
    Some(read.windows(4).position(|four| four == b"\r\n\r\n")? + 4)
}

fn nothing_if_blocked(error: io::Error) -> io::Result<usize> {
    match error.kind() {
        ErrorKind::WouldBlock => Ok(0),
        _ => Err(error),
    }
}
