//! The place of a running gate is taken by a new process, over the same listening sockets: a new binary without a lost
//! connection.
//!
//! The old process starts the new one, with the command line of its own start, and gives it one end of a socket pair as
//! standard input. Over it go the listening sockets (`SCM_RIGHTS`, `unix(7)`), then words: the new process says `ready`
//! when its file is compiled, its workers stand and its issuers have keys; the old one answers `go` and stops accepting,
//! and the new one begins when it hears that. For an instant both may accept from the sockets, which both hold, so there
//! is none in which nobody does. If the new process ends, or is not ready in time, it is ended and the old one has changed
//! nothing. The words are between two versions of this program: one that changes them must still understand these.
//!
//! What is in memory begins anew: limits, breakers, verified tokens, TLS sessions.

use std::{
    ffi::OsString,
    fs::File,
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    pin::pin,
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg,
    sendmsg, socketpair,
};
use socket2::Socket;
use tokio::{io::Interest, net::UnixStream};

use super::listener::{Listener, Opened};

/// Says to the new process that its standard input is one end of the pair.
const VARIABLE: &str = "PORTCULLIS_HANDOVER";
const STDIN: &str = "stdin";
/// No more listeners.
const END: &[u8] = b"end";
const READY: &[u8] = b"ready";
const GO: &[u8] = b"go";
/// How long a new process that fails may take to say why.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// How often is looked whether it has ended.
const LOOK: Duration = Duration::from_millis(10);
/// Longer than a role with the longest path of a socket.
const WORD_BYTES: usize = 256;

/// Why the place was not taken; the old process goes on.
#[derive(Debug, thiserror::Error)]
pub enum HandoverError {
    /// There is no command line to start again.
    #[error("only `portcullis run` can hand over")]
    NotHere,
    /// The end of the first process of a container ends every other.
    #[error(
        "this process is the first of its container, and nothing outlives that; replace the container"
    )]
    First,
    /// The new process could not be started.
    #[error("cannot start `{0}`: {1}")]
    Start(String, io::Error),
    /// It has gone, or does not know what this is.
    #[error("the new process ended before it was ready; what it said on standard error tells why")]
    Ended,
    /// It did not get ready in time.
    #[error("the new process was not ready within {0:?} (`server.handover`) and was ended")]
    Late(Duration),
    /// The pair failed.
    #[error("cannot speak to the new process: {0}")]
    Channel(#[from] io::Error),
}

/// The command line that starts this program again, in the same folder.
#[derive(Clone, Debug)]
pub struct Program {
    path: OsString,
    arguments: Vec<OsString>,
}

impl Program {
    /// That of this process, as it was given: behind a link or a search path may stand another version by now, which is
    /// what a hand-over is for.
    pub fn own() -> Option<Self> {
        let mut words = std::env::args_os();
        let path = words.next().filter(|path| !path.is_empty())?;
        Some(Self {
            path,
            arguments: words.collect(),
        })
    }
}

/// A new process that is ready to serve. Dropped before [`Prepared::go`], it is ended.
#[derive(Debug)]
pub struct Prepared {
    channel: UnixStream,
    newcomer: Newcomer,
}

impl Prepared {
    /// Lets it serve, and gives its process id.
    ///
    /// # Errors
    /// It has ended meanwhile.
    pub async fn go(self) -> Result<u32, HandoverError> {
        say(&self.channel, GO, None).await?;
        let mut newcomer = self.newcomer;
        let child = newcomer.0.take().ok_or(HandoverError::Ended)?;
        Ok(child.id())
    }
}

#[derive(Debug)]
struct Newcomer(Option<Child>);

impl Newcomer {
    /// Waits for a process that has let go of the listeners to end by itself: ended at once, it could not say why.
    async fn fail(&mut self) {
        let ended = async {
            while self
                .0
                .as_mut()
                .is_some_and(|child| matches!(child.try_wait(), Ok(None)))
            {
                tokio::time::sleep(LOOK).await;
            }
        };
        let _ = tokio::time::timeout(LAST_WORDS, ended).await;
    }
}

impl Drop for Newcomer {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Starts the new process, gives it the listeners and waits until it is ready, at most for `limit`.
///
/// # Errors
/// See [`HandoverError`]; the new process is not there any more then.
pub async fn prepare(
    program: Option<&Program>,
    listeners: &[Opened],
    limit: Duration,
) -> Result<Prepared, HandoverError> {
    let program = program.ok_or(HandoverError::NotHere)?;
    outlived(std::process::id())?;
    let patience = tokio::time::timeout(limit, introduce(program, listeners));
    patience.await.map_err(|_| HandoverError::Late(limit))?
}

fn outlived(own: u32) -> Result<(), HandoverError> {
    if own == 1 {
        return Err(HandoverError::First);
    }
    Ok(())
}

async fn introduce(program: &Program, listeners: &[Opened]) -> Result<Prepared, HandoverError> {
    let (ours, theirs) = socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
    .map_err(io::Error::from)?;
    rustix::io::ioctl_fionbio(&ours, true).map_err(io::Error::from)?;
    // Of packets; what tokio's type adds is the waiting.
    let channel = UnixStream::from_std(ours.into())?;
    // The command, and with it their end, is gone behind this: else the end of the new process would not be seen.
    let started = Command::new(&program.path)
        .args(&program.arguments)
        .env(VARIABLE, STDIN)
        .stdin(Stdio::from(theirs))
        .spawn();
    let child = started.map_err(|error| {
        HandoverError::Start(program.path.to_string_lossy().into_owned(), error)
    })?;
    let mut newcomer = Newcomer(Some(child));
    match instruct(&channel, listeners).await {
        Ok(()) => Ok(Prepared { channel, newcomer }),
        Err(error) => {
            newcomer.fail().await;
            Err(error)
        }
    }
}

/// Gives the listeners to the new process and waits for its word.
async fn instruct(channel: &UnixStream, listeners: &[Opened]) -> Result<(), HandoverError> {
    for opened in listeners {
        let word = format!("{} {}", opened.role, opened.stated);
        for socket in &opened.sockets {
            say(channel, word.as_bytes(), Some(descriptor(socket))).await?;
        }
    }
    say(channel, END, None).await?;
    let heard = channel.async_io(Interest::READABLE, || hear(channel));
    match heard.await? {
        Some((word, _)) if word == READY => Ok(()),
        _ => Err(HandoverError::Ended),
    }
}

fn descriptor(listener: &Listener) -> BorrowedFd<'_> {
    match listener {
        Listener::Tcp(listener) => listener.as_fd(),
        Listener::Unix(listener) => listener.as_fd(),
    }
}

async fn say(
    channel: &UnixStream,
    word: &[u8],
    passed: Option<BorrowedFd<'_>>,
) -> Result<(), HandoverError> {
    let said = channel
        .async_io(Interest::WRITABLE, || send(channel, word, passed))
        .await;
    match said {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(HandoverError::Ended),
        said => Ok(said?),
    }
}

fn send(channel: impl AsFd, word: &[u8], passed: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut room);
    if let Some(passed) = passed.as_ref() {
        control.push(SendAncillaryMessage::ScmRights(std::slice::from_ref(
            passed,
        )));
    }
    let pieces = [IoSlice::new(word)];
    rustix::io::retry_on_intr(|| sendmsg(&channel, &pieces, &mut control, SendFlags::NOSIGNAL))?;
    Ok(())
}

/// A word, with the socket that came with it; nothing once the other end has gone.
fn hear(channel: impl AsFd) -> io::Result<Option<(Vec<u8>, Option<Socket>)>> {
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut word = vec![0; WORD_BYTES];
    let (received, passed) = loop {
        let mut control = RecvAncillaryBuffer::new(&mut room);
        let mut pieces = [IoSliceMut::new(&mut word)];
        match recvmsg(&channel, &mut pieces, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => {}
            // It ended with words of ours unread.
            Err(rustix::io::Errno::CONNRESET) => return Ok(None),
            outcome => break (outcome?, descriptors(&mut control).next()),
        }
    };
    if received
        .flags
        .intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC)
    {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "an overlong word",
        ));
    }
    word.truncate(received.bytes);
    Ok((!word.is_empty()).then_some((word, passed)))
}

fn descriptors(control: &mut RecvAncillaryBuffer<'_>) -> impl Iterator<Item = Socket> {
    control
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
            _ => None,
        })
        .flatten()
        .map(Socket::from)
        .collect::<Vec<_>>()
        .into_iter()
}

/// The process whose place this one takes.
#[derive(Debug)]
pub struct Predecessor(OwnedFd);

/// Listeners with the role and address that the former process's file states for them.
type Received = Vec<(String, Socket)>;

/// Receives the listeners of the process whose place this one is to take; nothing when it takes nobody's. Standard input
/// is empty from then on.
///
/// # Errors
/// The other process has gone, or says something else.
pub fn receive() -> io::Result<Option<(Received, Predecessor)>> {
    if std::env::var_os(VARIABLE).is_none_or(|value| value != STDIN) {
        return Ok(None);
    }
    let channel = io::stdin().as_fd().try_clone_to_owned()?;
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    let mut listeners = Vec::new();
    loop {
        let (word, passed) = hear(&channel)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        match passed {
            Some(socket) => {
                listeners.push((String::from_utf8_lossy(&word).into_owned(), socket));
            }
            None if word == END => return Ok(Some((listeners, Predecessor(channel)))),
            None => return Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

impl Predecessor {
    /// Says that this process is ready once `prepared` is done, and waits until it may serve. How long that may take is
    /// for the other process to say, which ends this one then.
    ///
    /// # Errors
    /// The other process has gone or has given up waiting.
    pub async fn relieve(self, prepared: impl Future<Output = ()>) -> io::Result<()> {
        rustix::io::ioctl_fionbio(&self.0, true)?;
        let channel = UnixStream::from_std(self.0.into())?;
        let mut word = pin!(channel.async_io(Interest::READABLE, || hear(&channel)));
        tokio::select! {
            () = prepared => {}
            // Nothing is to be heard before this process has spoken, so that is the end of the other one.
            _ = &mut word => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
        let said = channel.async_io(Interest::WRITABLE, || send(&channel, READY, None));
        said.await?;
        match word.await? {
            Some((word, _)) if word == GO => Ok(()),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_process_of_a_container_does_not_hand_over() {
        assert!(matches!(outlived(1), Err(HandoverError::First)));
        assert!(outlived(2).is_ok());
    }

    #[test]
    fn a_socket_goes_over_with_its_word_and_an_overlong_word_is_refused() {
        let (one, other) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .expect("a pair");
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        send(&one, b"http 127.0.0.1:0", Some(listener.as_fd())).expect("sent");
        let (word, passed) = hear(&other).expect("heard").expect("a word");
        assert_eq!(word, b"http 127.0.0.1:0");
        let passed = std::net::TcpListener::from(passed.expect("a socket"));
        assert_eq!(
            passed.local_addr().expect("an address"),
            listener.local_addr().expect("an address")
        );
        send(&one, &[b'a'; WORD_BYTES + 1], None).expect("sent");
        assert!(hear(&other).is_err());
        drop(one);
        assert!(hear(&other).expect("the end").is_none());
    }
}
