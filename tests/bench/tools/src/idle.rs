//! Connections that have had one request each and are then left alone.

use crate::arguments::Arguments;
use crate::link::{Link, Resume, client_config};
use std::error::Error;
use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

/// How many of the held connections are asked once more at the end.
const SAMPLE: usize = 50;
const PATIENCE: Duration = Duration::from_secs(10);

/// Opens them, says so, holds them until stdin ends, and says how many of a sample still answer.
pub(crate) fn hold(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let (address, request) = (arguments.address()?, arguments.request()?);
    let config = client_config(Resume::Never)?;
    let mut buffer = vec![0; 64 << 10];
    let mut held = Vec::new();
    let mut failed = 0;
    for _ in 0..arguments.number("connections", 5000)? {
        let opened = Link::open(address, &config).and_then(|mut link| {
            let (status, _) = link.get(&request, &mut buffer, Instant::now() + PATIENCE)?;
            Ok((link, status))
        });
        match opened {
            Ok((link, 200)) => held.push(link),
            _ => failed += 1,
        }
    }
    println!("{{\"open\":{},\"failed\":{failed}}}", held.len());
    io::stdout().flush()?;
    io::stdin().read_to_end(&mut Vec::new())?;
    let sample = held.iter_mut().take(SAMPLE);
    let asked = sample.len();
    let alive = sample
        .filter_map(|link| {
            link.get(&request, &mut buffer, Instant::now() + PATIENCE)
                .ok()
        })
        .count();
    println!("{{\"asked\":{asked},\"alive\":{alive}}}");
    held.into_iter().for_each(Link::reset);
    Ok(())
}
