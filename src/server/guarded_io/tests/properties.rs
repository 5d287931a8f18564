//! Any stream: hyper finds the boundaries that the screen found, whether its parser sleeps between messages or not.

use super::*;

/// What hyper made of a connection: each request's target and body, and the bytes it answered with.
async fn read_by_hyper(bytes: &[u8]) -> (Vec<(String, Option<Bytes>)>, String, bool) {
    let (mut client, far) = duplex(64 * 1024);
    let seen = RefCell::new(Vec::new());
    let served = serve(far, Activity::new(), |request, in_flight| {
        let target = request.uri().to_string();
        let at = seen.borrow().len();
        seen.borrow_mut().push((target, None));
        let seen = &seen;
        async move {
            let body = request
                .into_body()
                .collect()
                .await
                .ok()
                .map(http_body_util::Collected::to_bytes);
            seen.borrow_mut()[at].1 = body;
            answer("ok".to_owned(), in_flight)
        }
    });
    let talking = async {
        client.write_all(bytes).await.unwrap();
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
        client.shutdown().await.unwrap();
        let mut heard = Vec::new();
        client.read_to_end(&mut heard).await.unwrap();
        String::from_utf8(heard).unwrap()
    };
    let (refusal, heard) = tokio::join!(served, talking);
    (seen.into_inner(), heard, refusal.is_some())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn hyper_reads_what_passes_with_the_same_boundaries(bytes in stream()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let (seen, heard, refused) = runtime.block_on(read_by_hyper(&bytes));
        let mut alone = screen();
        let fed = alone.feed(&bytes);
        let closes = String::from_utf8_lossy(&bytes).to_ascii_lowercase().contains("close") || heard.contains("HTTP/1.0");
        let heads = usize::try_from(alone.heads()).unwrap();
        prop_assert!(seen.len() == heads || (closes && seen.len() < heads), "{:?} of {}: {}", seen, heads, bytes.escape_ascii());
        // Never an answer of the parser's own.
        let ours = usize::from(refused);
        prop_assert_eq!(heard.matches(" 400 ").count(), ours, "{}", bytes.escape_ascii());
        if refused {
            prop_assert!(fed.violation.is_some());
            prop_assert!(heard.as_bytes().ends_with(REFUSED));
        }
    }
}

/// Whether the parser of a connection is taken apart whenever it may be, that is between any two pieces.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Naps {
    Never,
    Always,
}

/// The target and the body of a request.
type Seen = (String, Option<Bytes>);

/// What the service got and the client heard of a stream that came in pieces, and how often the parser slept.
#[derive(Debug, Default, PartialEq, Eq)]
struct Account {
    seen: Vec<Seen>,
    heard: Vec<String>,
    refused: bool,
}

/// Serves as the connection's task does; every rest ends with a knock. Says behind which bytes it rested.
async fn napping(
    mut io: GuardedIo<DuplexStream>,
    (activity, seen): (&Arc<Activity>, &RefCell<Vec<Seen>>),
    (limits, knock): (Deadlines, &Notify),
) -> (bool, Vec<u64>) {
    let mut naps = Vec::new();
    loop {
        let service = service_fn(|request: Request<Incoming>| {
            let in_flight = activity.begin_request();
            let at = seen.borrow().len();
            seen.borrow_mut().push((request.uri().to_string(), None));
            async move {
                let body = request.into_body().collect().await;
                seen.borrow_mut()[at].1 = body.ok().map(http_body_util::Collected::to_bytes);
                Ok::<_, std::convert::Infallible>(answer("ok".to_owned(), in_flight))
            }
        });
        let mut http = http1::Builder::new().serve_connection(TokioIo::new(io), service);
        let slept = tokio::select! {
            biased;
            _ = &mut http => false,
            overdue = watch(activity, &limits) => overdue == Overdue::Rest,
        };
        let parts = http.into_parts();
        io = parts.io.into_inner();
        if !slept {
            break;
        }
        assert!(parts.read_buf.is_empty(), "{:?}", parts.read_buf);
        naps.push(activity.bytes_in());
        knock.notified().await;
    }
    let refused = activity.take_refusal().is_some();
    if refused {
        write_refusal(&mut io.into_inner(), REFUSED).await.unwrap();
    }
    (refused, naps)
}

async fn pieces(bytes: &[u8], sizes: &[usize], naps: Naps) -> (Account, Vec<u64>) {
    let (mut client, far) = duplex(64 * 1024);
    let (activity, seen, knock) = (Activity::new(), RefCell::default(), Notify::new());
    let limits = Deadlines {
        rest: (naps == Naps::Always).then_some(Duration::ZERO),
        ..deadlines(60_000, 60_000, 60_000)
    };
    let io = GuardedIo::new(far, Some(screen()), Arc::clone(&activity));
    let served = napping(io, (&activity, &seen), (limits, &knock));
    let talking = async {
        let (mut left, mut sizes) = (bytes, sizes.iter().cycle());
        while !left.is_empty() {
            let (piece, rest) = left.split_at(left.len().min(*sizes.next().unwrap()));
            left = rest;
            let _ = client.write_all(piece).await;
            knock.notify_one();
            // Long enough for the timer of a rest of no length.
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
        client.shutdown().await.unwrap();
        knock.notify_one();
        let mut heard = Vec::new();
        client.read_to_end(&mut heard).await.unwrap();
        let heard = String::from_utf8(heard).unwrap();
        let undated = heard.lines().filter(|line| !line.starts_with("date:"));
        undated.map(str::to_owned).collect()
    };
    let ((refused, naps), heard) = tokio::join!(served, talking);
    let account = Account {
        seen: seen.into_inner(),
        heard,
        refused,
    };
    (account, naps)
}

#[tokio::test]
async fn a_parser_is_taken_apart_between_messages_only() {
    let chunked =
        "POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n";
    let stream = [GOOD, "\r\n", GOOD, chunked, GOOD].concat();
    let ends = [0, 1, 3, 4, 5].map(|parts| {
        let part = [GOOD, "\r\n", GOOD, chunked, GOOD][..parts].concat();
        u64::try_from(part.len()).unwrap()
    });
    for size in [1, 2, 7, 1000] {
        let (account, mut rests) = pieces(stream.as_bytes(), &[size], Naps::Always).await;
        assert_eq!(account.seen.len(), 4);
        rests.dedup();
        let stray = rests.iter().find(|&rest| !ends.contains(rest));
        assert_eq!(stray, None, "{rests:?} of {ends:?} by {size}");
        assert!(size > 1 || rests == ends[1..], "{rests:?} of {ends:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn taking_the_parser_apart_changes_nothing(
        bytes in stream(),
        sizes in proptest::collection::vec(1..200_usize, 1..4),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let (asleep, _) = runtime.block_on(pieces(&bytes, &sizes, Naps::Always));
        let (awake, none) = runtime.block_on(pieces(&bytes, &sizes, Naps::Never));
        prop_assert!(none.is_empty());
        prop_assert_eq!(asleep, awake, "{}", bytes.escape_ascii());
    }
}
