//! HTTP/1.1 messages as a test sees them: a head cut into lines, a body by its framing, nothing normalised.

use std::io::{self, Read};

use serde_json::Value;

/// The head of one message: its first line and its fields in order, names as sent.
#[derive(Clone, Debug)]
pub struct Head {
    pub line: String,
    pub fields: Vec<(String, String)>,
    /// The bytes as they came, up to and with the empty line.
    pub raw: Vec<u8>,
}

impl Head {
    /// Cuts `raw` (which ends with the empty line) into its lines; bytes above 0x7f become Latin-1 characters.
    pub fn parse(raw: &[u8]) -> Self {
        let text: String = raw.iter().map(|&byte| char::from(byte)).collect();
        let mut lines = text.split("\r\n");
        let line = lines.next().unwrap_or_default().to_owned();
        let fields = lines
            .take_while(|line| !line.is_empty())
            .map(|line| {
                let (name, value) = line.split_once(':').unwrap_or((line, ""));
                (name.to_owned(), value.trim().to_owned())
            })
            .collect();
        Self {
            line,
            fields,
            raw: raw.to_vec(),
        }
    }

    /// All values of the field `name`, in order.
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.fields
            .iter()
            .filter(|(field, _)| field.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
            .collect()
    }

    /// The value of the field `name`; panics when it stands more than once, since that is never what a case wants.
    pub fn get(&self, name: &str) -> Option<&str> {
        let all = self.all(name);
        assert!(
            all.len() <= 1,
            "`{name}` stands {} times: {self:#?}",
            all.len()
        );
        all.first().copied()
    }

    /// The request method.
    pub fn method(&self) -> &str {
        self.line.split(' ').next().unwrap_or_default()
    }

    /// The request target as it came.
    pub fn target(&self) -> &str {
        self.line.split(' ').nth(1).unwrap_or_default()
    }

    fn status(&self) -> u16 {
        self.line
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok())
            .unwrap_or_else(|| panic!("not a status line: `{}`", self.line))
    }

    fn framing(&self) -> Framing {
        if self
            .all("transfer-encoding")
            .iter()
            .any(|value| value.to_ascii_lowercase().ends_with("chunked"))
        {
            return Framing::Chunked;
        }
        match self.all("content-length").first() {
            Some(length) => Framing::Length(length.parse().unwrap_or(0)),
            None => Framing::None,
        }
    }
}

/// How the end of a body is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    Length(usize),
    Chunked,
    None,
}

/// One answer as the client got it.
#[derive(Clone, Debug)]
pub struct Response {
    pub status: u16,
    pub head: Head,
    pub body: Vec<u8>,
    /// The status codes of the 1xx answers that came first.
    pub interim: Vec<u16>,
}

impl Response {
    /// The one value of a header, if it stands.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.get(name)
    }

    /// All values of a header.
    pub fn headers(&self, name: &str) -> Vec<&str> {
        self.head.all(name)
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("not JSON ({error}): {}", self.text()))
    }

    /// The body as an RFC 9457 problem; panics unless media type, status and id are those of one.
    pub fn problem(&self) -> Value {
        assert_eq!(
            self.header("content-type"),
            Some("application/problem+json"),
            "{}",
            self.text()
        );
        let problem = self.json();
        assert_eq!(problem["status"], self.status, "{problem}");
        for member in ["type", "title", "instance"] {
            assert!(problem[member].is_string(), "no `{member}` in {problem}");
        }
        problem
    }

    /// Panics unless the answer has this status, showing what came instead.
    #[track_caller]
    pub fn expect(&self, status: u16) -> &Self {
        assert_eq!(
            self.status,
            status,
            "{}\n{}",
            String::from_utf8_lossy(&self.head.raw),
            self.text()
        );
        self
    }
}

/// A reader that keeps what it read beyond the message it was asked for.
pub struct Buffered<S> {
    pub stream: S,
    pending: Vec<u8>,
    /// All bytes that ever came in.
    pub seen: Vec<u8>,
}

impl<S: Read> Buffered<S> {
    pub fn new(stream: S) -> Self {
        Self {
            stream,
            pending: Vec::new(),
            seen: Vec::new(),
        }
    }

    /// Reads a head; `None` when the stream ended cleanly before its first byte.
    ///
    /// # Errors
    /// What the stream reports, or an unexpected end within the head.
    pub fn head(&mut self) -> io::Result<Option<Head>> {
        loop {
            if let Some(end) = find(&self.pending, b"\r\n\r\n") {
                let raw = self.take(end + 4);
                return Ok(Some(Head::parse(&raw)));
            }
            if self.fill()? == 0 {
                return if self.pending.is_empty() {
                    Ok(None)
                } else {
                    Err(io::ErrorKind::UnexpectedEof.into())
                };
            }
        }
    }

    /// Reads the body of a request with this head, decoded.
    ///
    /// # Errors
    /// What the stream reports, or an end before the body's.
    pub fn request_body(&mut self, head: &Head) -> io::Result<Vec<u8>> {
        match head.framing() {
            Framing::None => Ok(Vec::new()),
            Framing::Length(length) => self.exactly(length),
            Framing::Chunked => self.chunked(),
        }
    }

    /// Reads one final answer to a request with `method`, keeping the codes of interim ones.
    ///
    /// # Errors
    /// What the stream reports, or an end before the message's.
    pub fn response(&mut self, method: &str) -> io::Result<Response> {
        let mut interim = Vec::new();
        loop {
            let head = self.head()?.ok_or(io::ErrorKind::UnexpectedEof)?;
            let status = head.status();
            if (100..200).contains(&status) && status != 101 {
                interim.push(status);
                continue;
            }
            let bodiless = method == "HEAD" || matches!(status, 101 | 204 | 304);
            let body = match head.framing() {
                _ if bodiless => Vec::new(),
                Framing::Length(length) => self.exactly(length)?,
                Framing::Chunked => self.chunked()?,
                Framing::None => self.rest()?,
            };
            return Ok(Response {
                status,
                head,
                body,
                interim,
            });
        }
    }

    /// Reads `length` bytes.
    ///
    /// # Errors
    /// What the stream reports, or an end before the last byte.
    pub fn exactly(&mut self, length: usize) -> io::Result<Vec<u8>> {
        while self.pending.len() < length {
            if self.fill()? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(self.take(length))
    }

    /// Reads one chunk's data; empty at the last one, whose trailers are read and dropped.
    ///
    /// # Errors
    /// What the stream reports, a malformed size, or an end before the chunk's.
    pub fn chunk(&mut self) -> io::Result<Vec<u8>> {
        let line = self.line()?;
        let digits = line.split(';').next().unwrap_or_default().trim().to_owned();
        let size = usize::from_str_radix(&digits, 16)
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, format!("chunk `{line}`")))?;
        if size == 0 {
            while !self.line()?.is_empty() {}
            return Ok(Vec::new());
        }
        let data = self.exactly(size)?;
        self.exactly(2)?;
        Ok(data)
    }

    /// Reads until the peer closes.
    ///
    /// # Errors
    /// What the stream reports, a missed deadline included.
    pub fn rest(&mut self) -> io::Result<Vec<u8>> {
        while self.fill()? != 0 {}
        let all = self.pending.len();
        Ok(self.take(all))
    }

    /// Whatever has come and was not taken yet, after at most one read.
    ///
    /// # Errors
    /// What the stream reports.
    pub fn some(&mut self) -> io::Result<Vec<u8>> {
        if self.pending.is_empty() {
            self.fill()?;
        }
        let all = self.pending.len();
        Ok(self.take(all))
    }

    fn chunked(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let chunk = self.chunk()?;
            if chunk.is_empty() {
                return Ok(body);
            }
            body.extend(chunk);
        }
    }

    fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = find(&self.pending, b"\r\n") {
                let mut raw = self.take(end + 2);
                raw.truncate(end);
                return Ok(String::from_utf8_lossy(&raw).into_owned());
            }
            if self.fill()? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    fn take(&mut self, length: usize) -> Vec<u8> {
        self.pending.drain(..length).collect()
    }

    fn fill(&mut self) -> io::Result<usize> {
        let mut block = [0; 16 * 1024];
        let read = loop {
            match self.stream.read(&mut block) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other?,
            }
        };
        self.pending.extend_from_slice(&block[..read]);
        self.seen.extend_from_slice(&block[..read]);
        Ok(read)
    }
}

/// Where `needle` first stands in `haystack`.
pub fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
}
