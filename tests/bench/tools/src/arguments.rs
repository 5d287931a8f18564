//! `name=value` words of the command line.

use std::error::Error;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

/// What was asked for, with the last word of a name winning.
pub(crate) struct Arguments(Vec<(String, String)>);

impl Arguments {
    pub(crate) fn read(words: impl Iterator<Item = String>) -> Result<Self, Box<dyn Error>> {
        words
            .map(|word| match word.split_once('=') {
                Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
                None => Err(format!("`{word}` is not name=value").into()),
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }

    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        let mut found = self.0.iter().rev().filter(|(known, _)| known == name);
        found.next().map(|(_, value)| value.as_str())
    }

    pub(crate) fn number<T: FromStr>(&self, name: &str, default: T) -> Result<T, Box<dyn Error>> {
        self.text(name).map_or(Ok(default), |value| {
            value
                .parse()
                .map_err(|_| format!("{name}=`{value}` is not a number").into())
        })
    }

    /// How long the load goes on: two minutes at most.
    pub(crate) fn duration(&self) -> Result<Duration, Box<dyn Error>> {
        Ok(Duration::from_secs_f64(
            self.number("seconds", 1.0_f64)?.clamp(0.1, 120.0),
        ))
    }

    /// Where the load goes: loopback, nothing else.
    pub(crate) fn address(&self) -> Result<SocketAddr, Box<dyn Error>> {
        let address: SocketAddr = self
            .text("address")
            .ok_or("address=… is missing")?
            .parse()?;
        if address.ip().is_loopback() {
            Ok(address)
        } else {
            Err("loads go to loopback only".into())
        }
    }

    /// The request, as bytes.
    pub(crate) fn request(&self) -> Result<Vec<u8>, Box<dyn Error>> {
        let path = self.text("path").unwrap_or("/items");
        let mut request = format!(
            "GET {path} HTTP/1.1\r\nHost: localhost:{}\r\nUser-Agent: bench\r\n",
            self.address()?.port()
        );
        for (_, field) in self.0.iter().filter(|(name, _)| name == "field") {
            request.push_str(field);
            request.push_str("\r\n");
        }
        request.push_str("\r\n");
        Ok(request.into_bytes())
    }
}
