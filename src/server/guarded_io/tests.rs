//! The guard between a client and hyper's own server, over a stream in memory.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use proptest::prelude::*;
use tokio::io::{DuplexStream, duplex};
use tokio::sync::Notify;

use super::*;
use crate::exchange::hints::Turn;
use crate::server::activity::{Deadlines, InFlight, Overdue, watch};
use crate::server::screen::{Refusal, ScreenLimits, tests::stream};

mod properties;

const REFUSED: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n";
const GOOD: &str = "GET /good HTTP/1.1\r\nHost: a\r\n\r\n";
const BAD: &str = "GET /bad HTTP/1.1\r\nHost : a\r\n\r\n";
const SOCKET: &str =
    "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";

struct Answer(
    Full<Bytes>,
    #[expect(dead_code, reason = "held until the body is dropped")] InFlight,
);

impl Body for Answer {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Pin::new(&mut self.get_mut().0).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

fn screen() -> Screen {
    Screen::new(ScreenLimits {
        head_bytes: 1024,
        header_count: 8,
        uri_bytes: 200,
    })
}

fn answer(text: String, in_flight: InFlight) -> Response<Answer> {
    Response::new(Answer(Full::from(text), in_flight))
}

/// Serves one connection as its task does: to the end, then the refusal if one is due.
async fn serve<S, F, R>(io: S, activity: Arc<Activity>, service: F) -> Option<Refusal>
where
    S: AsyncRead + AsyncWrite + Unpin,
    F: Fn(Request<Incoming>, InFlight) -> R,
    R: Future<Output = Response<Answer>>,
{
    let guarded = GuardedIo::new(io, Some(screen()), Arc::clone(&activity));
    let service = service_fn(|request| {
        let answer = service(request, activity.begin_request());
        async { Ok::<_, std::convert::Infallible>(answer.await) }
    });
    let mut http = http1::Builder::new().serve_connection(TokioIo::new(guarded), service);
    let _ = (&mut http).await;
    let refusal = activity.take_refusal();
    let mut io = http.into_parts().io.into_inner().into_inner();
    if refusal.is_some() {
        write_refusal(&mut io, REFUSED).await.unwrap();
    }
    refusal
}

/// Answers with the path and the body, or with what became of it.
async fn echo(request: Request<Incoming>, in_flight: InFlight) -> Response<Answer> {
    let path = request.uri().path().to_owned();
    if let Ok(body) = request.into_body().collect().await {
        return answer(
            format!("{path}:{}", body.to_bytes().escape_ascii()),
            in_flight,
        );
    }
    let mut failed = answer("body failed".to_owned(), in_flight);
    *failed.status_mut() = StatusCode::BAD_REQUEST;
    failed
}

/// Sends pieces with pauses long enough to be read apart, and reads to the end of the connection.
async fn talk(mut client: DuplexStream, pieces: &[&str]) -> String {
    for piece in pieces {
        // The other end may have closed already.
        let _ = client.write_all(piece.as_bytes()).await;
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
    }
    let mut heard = Vec::new();
    let read = client.read_to_end(&mut heard);
    tokio::time::timeout(Duration::from_secs(5), read)
        .await
        .expect("the connection was closed")
        .unwrap();
    String::from_utf8(heard).unwrap()
}

#[tokio::test]
async fn a_sound_request_is_answered_before_the_refusal_of_the_next() {
    let both = format!("{GOOD}{BAD}");
    let (first, second) = both.split_at(GOOD.len() + 9);
    for pieces in [
        &[&*both][..],
        &[GOOD, BAD],
        &[first, second],
        &[GOOD, "\0"],
        &[GOOD, GOOD, BAD],
    ] {
        let (client, far) = duplex(4096);
        let activity = Activity::new();
        let slow = |request, in_flight| async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            echo(request, in_flight).await
        };
        let (refusal, heard) = tokio::join!(serve(far, activity, slow), talk(client, pieces));
        let goods = pieces.concat().matches("/good").count();
        assert_eq!(
            heard.matches("/good:").count(),
            goods,
            "{pieces:?}: {heard}"
        );
        assert!(heard.as_bytes().ends_with(REFUSED), "{pieces:?}: {heard}");
        assert_eq!(
            heard.matches("HTTP/1.1 ").count(),
            goods + 1,
            "{pieces:?}: {heard}"
        );
        assert_eq!(refusal.unwrap().violation, Violation::MalformedHead);
    }
}

#[tokio::test]
async fn a_refusal_at_once_needs_no_request_before_it() {
    for bad in [
        BAD,
        "\0",
        "get / HTTP/1.1\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
    ] {
        let (client, far) = duplex(4096);
        let (refusal, heard) = tokio::join!(
            serve(far, Activity::new(), echo),
            talk(client, std::slice::from_ref(&bad))
        );
        assert_eq!(heard.as_bytes(), REFUSED, "{bad}");
        assert!(refusal.is_some());
    }
}

#[tokio::test]
async fn a_large_answer_is_not_cut_by_the_refusal_behind_it() {
    let (client, far) = duplex(512);
    let large = |_, in_flight| async { answer("x".repeat(300_000), in_flight) };
    let pieces = [GOOD, BAD];
    let (refusal, heard) = tokio::join!(serve(far, Activity::new(), large), talk(client, &pieces));
    assert!(refusal.is_some());
    assert_eq!(heard.matches('x').count(), 300_000);
    assert!(heard.as_bytes().ends_with(REFUSED));
}

#[tokio::test]
async fn a_broken_body_fails_its_request_and_nothing_more() {
    let start = "POST /up HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let all = format!("{start}5\r\nhello\r\n5 \r\nworld\r\n0\r\n\r\n{GOOD}");
    for pieces in [
        &[&*all][..],
        &[start, "5\r\nhello\r\n", "5 \r\nworld\r\n0\r\n\r\n"],
    ] {
        let (client, far) = duplex(4096);
        let activity = Activity::new();
        let served = serve(far, Arc::clone(&activity), echo);
        let (refusal, heard) = tokio::join!(served, talk(client, pieces));
        assert_eq!(refusal, None);
        assert_eq!(activity.violation(), Some(Violation::BadChunk));
        assert!(heard.ends_with("body failed"), "{heard}");
        assert_eq!(heard.matches("HTTP/1.1 ").count(), 1, "{heard}");
    }
}

#[tokio::test]
async fn an_answer_reaches_a_client_that_sends_its_whole_body_first() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let early = |_, in_flight| async { answer("no".to_owned(), in_flight) };
    let served = async {
        let (stream, _) = listener.accept().await.unwrap();
        serve(stream, Activity::new(), early).await
    };
    let talking = async {
        let mut client = tokio::net::TcpStream::connect(address).await.unwrap();
        let body = vec![b'x'; 2_000_000];
        let start = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3000000\r\n\r\n";
        client.write_all(start.as_bytes()).await.unwrap();
        client.write_all(&body).await.unwrap();
        let mut heard = String::new();
        client.read_to_string(&mut heard).await.unwrap();
        heard
    };
    let (refusal, heard) = tokio::join!(served, talking);
    assert_eq!(refusal, None);
    assert!(heard.ends_with("no"), "{heard}");
}

#[tokio::test]
async fn a_client_that_leaves_is_noticed_while_its_request_is_in_flight() {
    let (mut client, far) = duplex(4096);
    let dropped = Rc::new(());
    let kept = Rc::downgrade(&dropped);
    let forever = move |_, in_flight| {
        let dropped = Rc::clone(&dropped);
        async move {
            std::future::pending::<()>().await;
            drop(dropped);
            answer(String::new(), in_flight)
        }
    };
    let leave = async {
        client.write_all(GOOD.as_bytes()).await.unwrap();
        tokio::task::yield_now().await;
        drop(client);
    };
    let activity = Activity::new();
    let served = serve(far, Arc::clone(&activity), forever);
    let both = async { tokio::join!(served, leave) };
    tokio::time::timeout(Duration::from_secs(5), both)
        .await
        .expect("the connection ended");
    assert_eq!(kept.strong_count(), 0);
    assert_eq!(activity.in_flight(), 0);
}

#[tokio::test]
async fn bytes_before_a_tunnel_is_open_keep_it_shut() {
    for pieces in [&[&*format!("{SOCKET}{GOOD}")][..], &[SOCKET, GOOD]] {
        let (client, far) = duplex(4096);
        let activity = Activity::new();
        let opened = AtomicBool::new(false);
        let tunnel = |_, in_flight| async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            opened.store(activity.open_tunnel(), Ordering::SeqCst);
            answer("denied".to_owned(), in_flight)
        };
        let served = serve(far, Arc::clone(&activity), tunnel);
        let (refusal, heard) = tokio::join!(served, talk(client, pieces));
        assert!(!opened.load(Ordering::SeqCst));
        assert_eq!(refusal.unwrap().violation, Violation::EarlyTunnelBytes);
        assert!(
            heard.contains("denied") && !heard.contains("/good"),
            "{heard}"
        );
    }
}

#[tokio::test]
async fn behind_a_denied_tunnel_requests_go_on() {
    let (mut client, far) = duplex(4096);
    let said = Notify::new();
    let served = serve(far, Activity::new(), |request, in_flight| async {
        said.notify_one();
        echo(request, in_flight).await
    });
    let talking = async {
        client.write_all(SOCKET.as_bytes()).await.unwrap();
        said.notified().await;
        tokio::time::sleep(Duration::from_millis(5)).await;
        talk(client, &[GOOD, "\0"]).await
    };
    let (refusal, heard) = tokio::join!(served, talking);
    assert!(refusal.is_some());
    assert!(
        heard.contains("/ws:") && heard.contains("/good:"),
        "{heard}"
    );
}

#[tokio::test]
async fn an_open_tunnel_passes_everything() {
    let (mut client, far) = duplex(4096);
    let activity = Activity::new();
    let guarded = GuardedIo::new(far, Some(screen()), Arc::clone(&activity));
    let mut guarded = Box::pin(guarded);
    let in_flight = activity.begin_request();
    client.write_all(SOCKET.as_bytes()).await.unwrap();
    let mut buf = [0; 256];
    assert_eq!(guarded.read(&mut buf).await.unwrap(), SOCKET.len());
    assert!(activity.open_tunnel());
    assert!(!activity.open_tunnel());
    drop(in_flight);
    client.write_all(b"\x00\n\n raw").await.unwrap();
    assert_eq!(guarded.read(&mut buf).await.unwrap(), 7);
    assert_eq!(activity.phase(), Phase::Tunnel);
    assert_eq!(
        activity.bytes_in(),
        u64::try_from(SOCKET.len()).unwrap() + 7
    );
}

fn deadlines(header_ms: u64, keep_alive_ms: u64, write_ms: u64) -> Deadlines {
    let ms = Duration::from_millis;
    Deadlines {
        header: ms(header_ms),
        keep_alive: ms(keep_alive_ms),
        write: ms(write_ms),
        rest: None,
    }
}

#[tokio::test]
async fn the_watch_finds_silence_slow_heads_and_idle_connections() {
    let long = 60_000;
    for (sent, limits, expected) in [
        ("", deadlines(30, long, long), Overdue::Header),
        ("GET / HT", deadlines(30, long, long), Overdue::Header),
        (GOOD, deadlines(long, 30, long), Overdue::KeepAlive),
        (
            &*format!("{GOOD}G"),
            deadlines(30, long, long),
            Overdue::Header,
        ),
        ("\0", deadlines(30, 30, 30), Overdue::Write),
    ] {
        let (mut client, far) = duplex(4096);
        let activity = Activity::new();
        client.write_all(sent.as_bytes()).await.unwrap();
        let served = serve(far, Arc::clone(&activity), echo);
        let watched = async {
            tokio::select! {
                biased;
                _ = served => None,
                overdue = watch(&activity, &limits) => Some(overdue),
            }
        };
        let found = tokio::time::timeout(Duration::from_secs(5), watched)
            .await
            .unwrap();
        let expected = (sent != "\0").then_some(expected);
        assert_eq!(found, expected, "{sent:?}");
    }
}

#[tokio::test]
async fn the_watch_leaves_a_request_in_flight_alone_and_finds_a_client_that_does_not_read() {
    let (mut client, far) = duplex(512);
    let activity = Activity::new();
    client.write_all(GOOD.as_bytes()).await.unwrap();
    let large = |_, in_flight| async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        answer("x".repeat(100_000), in_flight)
    };
    let served = serve(far, Arc::clone(&activity), large);
    let limits = deadlines(10, 10, 50);
    let started = std::time::Instant::now();
    let overdue = tokio::select! {
        biased;
        _ = served => None,
        overdue = watch(&activity, &limits) => Some(overdue),
    };
    assert_eq!(overdue, Some(Overdue::Write));
    assert!(started.elapsed() >= Duration::from_millis(150));
}

#[tokio::test]
async fn a_connection_rests_only_when_all_it_wrote_has_gone_out() {
    let (client, server) = duplex(4096);
    let activity = Activity::new();
    let mut guarded = GuardedIo::new(server, Some(screen()), Arc::clone(&activity));
    let mut limits = deadlines(60_000, 60_000, 60_000);
    limits.rest = Some(Duration::from_millis(1));
    let later = std::time::Instant::now() + Duration::from_secs(1);
    let mut room = [0; 16];
    let mut cx = Context::from_waker(std::task::Waker::noop());

    let read = Pin::new(&mut guarded).poll_read(&mut cx, &mut ReadBuf::new(&mut room));
    assert!(read.is_pending());
    assert_eq!(activity.overdue(later, &limits), Some(Overdue::Rest));
    let written = Pin::new(&mut guarded).poll_write(&mut cx, b"answer");
    assert!(matches!(written, Poll::Ready(Ok(6))));
    assert_eq!(activity.overdue(later, &limits), None, "not flushed yet");
    assert!(Pin::new(&mut guarded).poll_flush(&mut cx).is_ready());
    assert_eq!(activity.overdue(later, &limits), Some(Overdue::Rest));
    drop(client);
}

const HINT: &[u8] = b"HTTP/1.1 103 Early Hints\r\nlink: </style.css>; rel=preload\r\n\r\n";

#[tokio::test]
async fn a_hint_goes_out_whole_before_the_answer_and_one_that_comes_late_does_not() {
    let connection = Arc::new(Connection::new(([127, 0, 0, 1], 1).into(), None));
    // Takes less than a hint at a time.
    let (client, server) = duplex(8);
    let activity = Activity::new();
    let guarded = GuardedIo::new(server, Some(screen()), Arc::clone(&activity))
        .with_hints(Arc::clone(&connection));
    let service = service_fn(|_: Request<Incoming>| {
        let (connection, in_flight) = (Arc::clone(&connection), activity.begin_request());
        async move {
            let turn = Turn::begin(&connection);
            connection
                .hints
                .put(turn.number(), Some(Bytes::from_static(HINT)));
            tokio::task::yield_now().await;
            // The first is half written now.
            let late = Bytes::from_static(b"late");
            connection.hints.put(turn.number(), Some(late));
            drop(turn);
            Ok::<_, std::convert::Infallible>(answer("done".to_owned(), in_flight))
        }
    });
    let http = http1::Builder::new().serve_connection(TokioIo::new(guarded), service);
    let talk = async {
        let request = GOOD.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
        let twice = [GOOD, &request].concat();
        let (mut reader, mut writer) = tokio::io::split(client);
        let mut all = Vec::new();
        let (read, written) = tokio::join!(
            reader.read_to_end(&mut all),
            writer.write_all(twice.as_bytes())
        );
        read.unwrap();
        written.unwrap();
        all
    };
    let (end, said) = tokio::join!(http, talk);
    end.unwrap();
    let text = String::from_utf8(said).unwrap();
    let hint = std::str::from_utf8(HINT).unwrap();
    let parts: Vec<&str> = text.split(hint).collect();
    assert_eq!(parts.len(), 3, "{text}");
    assert!(parts[0].is_empty(), "{text}");
    for answer in &parts[1..] {
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
        assert!(answer.ends_with("\r\n\r\ndone"), "{text}");
    }
}
