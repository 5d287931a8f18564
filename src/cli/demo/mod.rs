//! `portcullis demo`: a deliberately weak application inside the process, the gate with its full policy before it, an
//! issuer of tokens, and on standard output the curl lines that show every guard.
//!
//! Everything listens on this machine; the keys and tokens are made on the spot and end with the process.

mod issuer;
mod legacy;
mod lines;
mod policy;
mod ports;

use std::{
    io::Write,
    net::SocketAddr,
    process::ExitCode,
    sync::mpsc::{SyncSender, sync_channel},
    thread,
};

use anyhow::{Context, anyhow};
use clap::Args;
use tokio::net::TcpListener;

use super::run::{color, end};
use crate::server::{gate, reload::Source};

/// `demo`
#[derive(Clone, Debug, Args)]
pub struct DemoArgs {
    /// Where the gate speaks TLS [default: 127.0.0.1:8443, or a free port where that is taken]
    #[arg(long, value_name = "ADDR")]
    https: Option<SocketAddr>,
    /// Where the gate redirects to https [default: 127.0.0.1:8080, or a free port where that is taken]
    #[arg(long, value_name = "ADDR")]
    http: Option<SocketAddr>,
    /// Where health and metrics are, a loopback address [default: 127.0.0.1:9900, or a free port where that is taken]
    #[arg(long, value_name = "ADDR")]
    admin: Option<SocketAddr>,
    /// Write the access line of each request to standard error
    #[arg(long)]
    log: bool,
}

/// Where everything of the demo listens.
struct Places {
    https: ports::Held,
    http: ports::Held,
    admin: ports::Held,
    /// A port on which nobody answers, for the route to a backend that is gone.
    gone: ports::Held,
    legacy: SocketAddr,
    issuer: SocketAddr,
}

/// Runs the demo until it is told to stop.
pub fn run(args: &DemoArgs) -> ExitCode {
    let (places, issuer) = match set_up(args) {
        Ok(ready) => ready,
        Err(error) => {
            eprintln!("error: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    let text = policy::text(&places, args.log);
    let source = Source::Text("demo".to_owned(), text, Vec::new());
    let shown = lines::page(&places, &issuer);
    let _gone = make_way(places);
    end(gate::run(source, None, color(), |ready| {
        // Standard output may be closed; the demo serves all the same.
        let mut out = std::io::stdout().lock();
        let _ = out.write_all(shown.as_bytes()).and_then(|()| out.flush());
        ready.announce();
    }))
}

/// Frees the gate's ports for the gate, and keeps the one on which nobody may answer.
fn make_way(places: Places) -> ports::Held {
    places.gone
}

fn set_up(args: &DemoArgs) -> anyhow::Result<(Places, issuer::Issuer)> {
    let issuer = issuer::Issuer::new()?;
    let (legacy, keys) = start_parts(issuer.key_set())?;
    let places = Places {
        https: ports::hold(args.https, 8443).context("https")?,
        http: ports::hold(args.http, 8080).context("http")?,
        admin: ports::hold(args.admin, 9900).context("admin")?,
        gone: ports::free()?,
        legacy,
        issuer: keys,
    };
    Ok((places, issuer))
}

/// The application and the key set, on a thread of their own so that the gate has all of its workers.
fn start_parts(key_set: String) -> anyhow::Result<(SocketAddr, SocketAddr)> {
    let (tell, told) = sync_channel(1);
    thread::Builder::new()
        .name("demo-parts".to_owned())
        .spawn(move || serve_parts(key_set, &tell))?;
    told.recv()
        .map_err(|_| anyhow!("the application ended before it listened"))?
        .context("the application cannot listen")
}

type Addresses = std::io::Result<(SocketAddr, SocketAddr)>;

fn serve_parts(key_set: String, tell: &SyncSender<Addresses>) {
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            let _ = tell.send(Err(error));
            return;
        }
    };
    runtime.block_on(async {
        match open_parts().await {
            Ok((application, keys, addresses)) => {
                let _ = tell.send(Ok(addresses));
                tokio::join!(
                    legacy::serve(application),
                    issuer::serve(keys, key_set.into())
                );
            }
            Err(error) => {
                let _ = tell.send(Err(error));
            }
        }
    });
}

async fn open_parts() -> std::io::Result<(TcpListener, TcpListener, (SocketAddr, SocketAddr))> {
    let application = TcpListener::bind("127.0.0.1:0").await?;
    let keys = TcpListener::bind("127.0.0.1:0").await?;
    let addresses = (application.local_addr()?, keys.local_addr()?);
    Ok((application, keys, addresses))
}
