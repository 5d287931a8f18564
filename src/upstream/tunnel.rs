//! A WebSocket tunnel: bytes both ways after the backend's own 101, within bounds on silence, age and bytes.
//!
//! A side that ends closes its direction alone: the other one may still say what it has to. One that breaks off ends
//! both. A direction holds one buffer and reads no more before that is taken, so whoever reads slowly slows the writer
//! and costs no memory. It does not look at frames.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split},
    time::{Instant, sleep},
};

/// How long a side may take to hear that it is closed.
pub const CLOSE_TIME: Duration = Duration::from_secs(5);
/// Bytes held for one direction of a tunnel.
const BUFFER_BYTES: usize = 8 * 1024;
/// Longest wait that is asked of a timer.
const NEVER: Duration = Duration::from_hours(365 * 24);

/// What bounds a tunnel.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Longest silence: nothing taken either way.
    pub idle: Duration,
    /// Longest life.
    pub age: Duration,
    /// Most bytes, each way by itself.
    pub bytes: u64,
}

/// How a tunnel ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Both sides had said all they wanted to.
    Whole,
    /// The client broke off.
    ClientLeft,
    /// The backend broke off.
    BackendBroke,
    /// Silence.
    Idle,
    /// Age.
    Age,
    /// Bytes.
    Bytes,
    /// Whoever opened it may have it no longer.
    Stopped,
}

/// What became of a tunnel.
#[derive(Clone, Copy, Debug)]
pub struct Passed {
    /// Bytes from the client that the backend took.
    pub up: u64,
    /// Bytes from the backend that the client took.
    pub down: u64,
    /// Why it ended.
    pub end: End,
}

/// Passes bytes between the two sides until the end, or until `stop`. Neither is closed but where the other one has ended.
pub async fn run<C, B>(
    client: &mut C,
    backend: &mut B,
    bounds: Bounds,
    stop: impl Future<Output = ()>,
) -> Passed
where
    C: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let (mut client_read, mut client_write) = split(client);
    let (mut backend_read, mut backend_write) = split(backend);
    let clock = Clock::new();
    let (up, down) = (AtomicU64::new(0), AtomicU64::new(0));
    let most = bounds.bytes;
    let both = async {
        tokio::try_join!(
            async {
                let cut = pump(&mut client_read, &mut backend_write, (&clock, &up), most).await;
                cut.map_err(|cut| cut.end(&clock, End::ClientLeft, End::BackendBroke))
            },
            async {
                let cut = pump(&mut backend_read, &mut client_write, (&clock, &down), most).await;
                cut.map_err(|cut| cut.end(&clock, End::BackendBroke, End::ClientLeft))
            },
        )
    };
    let end = tokio::select! {
        biased;
        ended = both => ended.map_or_else(|end| end, |_| End::Whole),
        end = clock.run_out(bounds) => end,
        () = stop => End::Stopped,
    };
    Passed {
        up: up.load(Relaxed),
        down: down.load(Relaxed),
        end,
    }
}

/// Why one direction ended before its source did.
#[derive(Clone, Copy, Debug)]
enum Cut {
    Reading,
    Writing,
    Full,
}

impl Cut {
    fn end(self, clock: &Clock, reading: End, writing: End) -> End {
        match self {
            // Many do not take leave once the other side has: nothing was lost.
            Self::Reading if clock.half_ended.load(Relaxed) => End::Whole,
            Self::Reading => reading,
            Self::Writing => writing,
            Self::Full => End::Bytes,
        }
    }
}

/// Copies one direction to its end, and closes what it writes to when there will be no more.
async fn pump(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    (clock, passed): (&Clock, &AtomicU64),
    most: u64,
) -> Result<(), Cut> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let read = from.read(&mut buffer).await.map_err(|_| Cut::Reading)?;
        if read == 0 {
            clock.half_ended.store(true, Relaxed);
            // Whether it still listens shows in the other direction.
            let _ = to.shutdown().await;
            return Ok(());
        }
        let total = passed.load(Relaxed);
        let room = usize::try_from(most.saturating_sub(total)).unwrap_or(usize::MAX);
        let piece = buffer.get(..read.min(room)).unwrap_or_default();
        to.write_all(piece).await.map_err(|_| Cut::Writing)?;
        // A TLS session keeps what its socket does not take yet.
        to.flush().await.map_err(|_| Cut::Writing)?;
        let length = u64::try_from(piece.len()).unwrap_or(u64::MAX);
        passed.store(total.saturating_add(length), Relaxed);
        clock.moved();
        if piece.len() < read {
            return Err(Cut::Full);
        }
    }
}

/// When the tunnel began, when something last moved, and whether a side has ended.
struct Clock {
    began: Instant,
    moved_ms: AtomicU64,
    /// One side has said all.
    half_ended: AtomicBool,
}

impl Clock {
    fn new() -> Self {
        Self {
            began: Instant::now(),
            moved_ms: AtomicU64::new(0),
            half_ended: AtomicBool::new(false),
        }
    }

    fn moved(&self) {
        let ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.moved_ms.store(ms, Relaxed);
    }

    /// Resolves when the tunnel has been silent, or has lived, for too long.
    async fn run_out(&self, bounds: Bounds) -> End {
        loop {
            let moved = Duration::from_millis(self.moved_ms.load(Relaxed));
            match bounds.look(moved, self.began.elapsed()) {
                Err(end) => return end,
                // A clock of milliseconds must not wake just before the moment, over and over.
                Ok(left) => sleep(left.max(Duration::from_millis(1)).min(NEVER)).await,
            }
        }
    }
}

impl Bounds {
    /// How long to wait before looking again; what moved last and what is now are counted from the beginning.
    fn look(&self, moved: Duration, now: Duration) -> Result<Duration, End> {
        let old = self.age.saturating_sub(now);
        let quiet = moved.saturating_add(self.idle).saturating_sub(now);
        match (old.is_zero(), quiet.is_zero()) {
            (true, _) => Err(End::Age),
            (false, true) => Err(End::Idle),
            (false, false) => Ok(old.min(quiet)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::io::{DuplexStream, duplex};

    use super::*;

    const WIDE: Bounds = Bounds {
        idle: Duration::from_mins(1),
        age: Duration::from_hours(1),
        bytes: u64::MAX,
    };

    /// A tunnel under way, with the far ends of its client and its backend.
    fn begin(
        bounds: Bounds,
        room: usize,
    ) -> (DuplexStream, DuplexStream, tokio::task::JoinHandle<Passed>) {
        let (client, mut near_client) = duplex(room);
        let (backend, mut near_backend) = duplex(room);
        let task = tokio::spawn(async move {
            run(&mut near_client, &mut near_backend, bounds, pending()).await
        });
        (client, backend, task)
    }

    async fn read(stream: &mut DuplexStream, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        stream.read_exact(&mut bytes).await.unwrap();
        bytes
    }

    #[tokio::test]
    async fn a_side_that_ends_may_still_be_told() {
        let (mut client, mut backend, task) = begin(WIDE, 1024);
        client.write_all(b"last words").await.unwrap();
        client.shutdown().await.unwrap();
        assert_eq!(read(&mut backend, 10).await, b"last words");
        assert_eq!(backend.read(&mut [0]).await.unwrap(), 0, "told of the end");
        backend.write_all(b"answer").await.unwrap();
        assert_eq!(read(&mut client, 6).await, b"answer");
        drop(backend);
        let passed = task.await.unwrap();
        assert_eq!((passed.up, passed.down, passed.end), (10, 6, End::Whole));
    }

    #[test]
    fn silence_and_age_are_counted_apart() {
        let second = Duration::from_secs;
        let bounds = Bounds {
            idle: second(10),
            age: second(60),
            bytes: u64::MAX,
        };
        for (moved, now, looked) in [
            (0, 0, Ok(second(10))),
            (0, 9, Ok(second(1))),
            (0, 10, Err(End::Idle)),
            (9, 10, Ok(second(9))),
            (45, 54, Ok(second(1))),
            (45, 55, Err(End::Idle)),
            (55, 59, Ok(second(1))),
            (59, 60, Err(End::Age)),
            (0, 61, Err(End::Age)),
        ] {
            assert_eq!(
                bounds.look(second(moved), second(now)),
                looked,
                "{moved} {now}"
            );
        }
        let endless = Bounds {
            idle: Duration::MAX,
            age: Duration::MAX,
            bytes: u64::MAX,
        };
        assert!(endless.look(second(1), second(2)).is_ok());
    }

    #[tokio::test]
    async fn the_last_byte_within_the_limit_passes_and_the_next_does_not() {
        let (mut client, mut backend, task) = begin(Bounds { bytes: 8, ..WIDE }, 1024);
        client.write_all(b"12345678").await.unwrap();
        backend.write_all(b"abcdefgh").await.unwrap();
        assert_eq!(read(&mut backend, 8).await, b"12345678");
        assert_eq!(read(&mut client, 8).await, b"abcdefgh");
        client.write_all(b"9").await.unwrap();
        let passed = task.await.unwrap();
        assert_eq!((passed.up, passed.down, passed.end), (8, 8, End::Bytes));
        let mut rest = Vec::new();
        let _ = backend.read_to_end(&mut rest).await;
        assert!(rest.is_empty());
    }

    #[tokio::test]
    async fn the_limit_itself_is_no_excess() {
        let (mut client, mut backend, task) = begin(Bounds { bytes: 8, ..WIDE }, 1024);
        client.write_all(b"12345678").await.unwrap();
        client.shutdown().await.unwrap();
        backend.write_all(b"abcdefgh").await.unwrap();
        backend.shutdown().await.unwrap();
        let passed = task.await.unwrap();
        assert_eq!((passed.up, passed.down, passed.end), (8, 8, End::Whole));
    }

    #[tokio::test]
    async fn who_does_not_read_stops_the_writer_and_is_silent() {
        let idle = Duration::from_millis(200);
        let (mut client, _backend, task) = begin(Bounds { idle, ..WIDE }, 1024);
        let mut taken = 0;
        let chunk = [0; 1024];
        // The last write waits until the silence has ended the tunnel.
        while let Ok(written) = client.write(&chunk).await {
            taken += written;
        }
        // The two pipes and the one buffer.
        assert!(taken <= 1024 + BUFFER_BYTES + 1024, "{taken}");
        assert_eq!(task.await.unwrap().end, End::Idle);
    }
}
