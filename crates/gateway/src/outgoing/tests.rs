//! Against real servers: good ones, slow, endless, broken and absent ones.

use std::sync::atomic::{AtomicUsize, Ordering};

use ::http::Response;
use fanfare_testbed::authority::GOOD;
use fanfare_testbed::{Authority, Backend, backend, eventually};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;

use super::*;

/// What no test comes near, unless it is about it.
const POLICY: Policy = Policy {
    timeout: Duration::from_secs(30),
    answer_bytes: 1000,
    concurrent: 4,
    waiting: 4,
    failures: 1000,
    cool_down: Duration::from_secs(3600),
};

/// For servers that make one wait for nothing.
const IMPATIENT: Policy = Policy { timeout: Duration::from_millis(200), ..POLICY };

fn outgoing(policy: Policy) -> Outgoing {
    outgoing_with(policy, &Authorities::default())
}

fn outgoing_with(policy: Policy, authorities: &Authorities) -> Outgoing {
    Dialer::new(authorities, TaskTracker::new(), Arc::new(Metrics::new())).outgoing(Purpose::Keys, policy)
}

async fn get(outgoing: &Outgoing, url: &str) -> Result<Answer, OutgoingError> {
    outgoing.get(&url.parse().unwrap(), HeaderMap::new()).await
}

/// What comes of asking a server that answers every request with these bytes and then does the rest.
async fn asked_of<F>(
    policy: Policy,
    answer: &'static [u8],
    rest: impl Fn(TcpStream) -> F + Copy + Send + Sync + 'static,
) -> OutgoingError
where
    F: Future<Output = ()> + Send + 'static,
{
    let (address, _server) = backend::accept(move |mut socket| async move {
        let _ = socket.read(&mut [0; 4096]).await;
        let _ = socket.write_all(answer).await;
        rest(socket).await;
    })
    .await;
    get(&outgoing(policy), &format!("http://{address}/")).await.unwrap_err()
}

/// Nothing more is said, and nobody hangs up.
async fn silence(mut socket: TcpStream) {
    while socket.read(&mut [0; 4096]).await.is_ok_and(|bytes| bytes > 0) {}
}

async fn hang_up(socket: TcpStream) {
    drop(socket);
}

/// The value of one series.
fn counted(outgoing: &Outgoing, series: &str) -> u64 {
    let text = outgoing.metrics.render();
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{series} is not served")).parse().unwrap()
}

fn ended(outgoing: &Outgoing, outcome: &str) -> u64 {
    counted(outgoing, &format!("fanfare_outgoing_requests_total{{outcome=\"{outcome}\",purpose=\"keys\"}}"))
}

fn open(outgoing: &Outgoing) -> u64 {
    counted(outgoing, "fanfare_outgoing_breakers_open{purpose=\"keys\"}")
}

#[tokio::test]
async fn a_connection_serves_many_requests() {
    let server = Backend::start(async |asked| {
        assert!(asked.headers()["user-agent"].to_str().unwrap().starts_with("fanfare/"));
        Response::new(
            asked
                .headers()
                .get("x")
                .map_or_else(Full::default, |it| Bytes::copy_from_slice(it.as_bytes()).into()),
        )
    })
    .await;
    let outgoing = outgoing(POLICY);
    for number in 0..20_u8 {
        let headers =
            HeaderMap::from_iter([(HeaderName::from_static("x"), HeaderValue::from(u16::from(number)))]);
        let body = Bytes::from(vec![number; 10]);
        let answer =
            outgoing.post(&server.url("/a?b").parse().unwrap(), headers, body.clone()).await.unwrap();
        assert_eq!((answer.status, answer.body), (StatusCode::OK, number.to_string().into()));
        assert_eq!(server.asked().pop(), Some(("POST /a?b".into(), body)));
    }
    assert_eq!((server.connections(), server.requests()), (1, 20));
    assert_eq!(
        (ended(&outgoing, "ok"), counted(&outgoing, "fanfare_outgoing_requests{purpose=\"keys\"}")),
        (20, 0)
    );
}

#[tokio::test]
async fn over_tls_only_who_has_an_authorities_word_is_asked() {
    let (known, unknown) = (Authority::new(), Authority::new());
    let server =
        Backend::start_tls(&known.issue("server", GOOD), async |_| Response::new("keys".into())).await;
    let trusting = |authority: &Authority| {
        let own = CertificateDer::pem_file_iter(authority.file()).unwrap().map(Result::unwrap);
        outgoing_with(POLICY, &Authorities::new(own.collect()).unwrap())
    };
    assert_eq!(get(&trusting(&known), &server.url("/")).await.unwrap().body, "keys");
    for outgoing in [trusting(&unknown), outgoing(POLICY)] {
        let error = get(&outgoing, &server.url("/")).await.unwrap_err();
        assert!(error.to_string().contains("invalid peer certificate"), "{error}");
    }
    assert_eq!(server.requests(), 1);
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let server = Backend::start(async |_| {
        Response::builder().status(302).header("location", "/elsewhere").body(Full::default()).unwrap()
    })
    .await;
    let error = get(&outgoing(POLICY), &server.url("/here")).await.unwrap_err();
    assert!(matches!(error, OutgoingError::Status { status: StatusCode::FOUND, .. }), "{error}");
    assert_eq!(server.requests(), 1);
}

#[tokio::test]
async fn a_refusal_is_told_with_its_body_and_when_to_come_back() {
    let server = Backend::start(async |_| {
        Response::builder().status(503).header("retry-after", "7").body("later".into()).unwrap()
    })
    .await;
    match get(&outgoing(POLICY), &server.url("/")).await.unwrap_err() {
        OutgoingError::Status { status, retry_after, body } => {
            assert_eq!(
                (status.as_u16(), retry_after, &body[..]),
                (503, Some(Duration::from_secs(7)), &b"later"[..])
            );
        }
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn who_does_not_answer_in_time_has_not_answered() {
    for (answer, rest) in [
        (&b""[..], "in silence"),
        (b"HTTP/1.1 200 OK\r\nContent-Le", "in the middle of the head"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", "in the middle of the body"),
    ] {
        let error = asked_of(IMPATIENT, answer, silence).await;
        assert!(matches!(error, OutgoingError::Timeout(_)), "{rest}: {error}");
    }
}

/// Each byte comes in time, the whole never does.
#[tokio::test]
async fn the_deadline_is_that_of_the_whole_answer() {
    let head = b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n";
    let error = asked_of(IMPATIENT, head, async |mut socket: TcpStream| {
        let mut pace = tokio::time::interval(Duration::from_millis(5));
        while socket.write_all(b"x").await.is_ok() {
            pace.tick().await;
        }
    })
    .await;
    assert!(matches!(error, OutgoingError::Timeout(_)), "{error}");
}

#[tokio::test]
async fn an_answer_has_a_bound_whether_it_is_announced_or_not() {
    let announced = b"HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n";
    let error = asked_of(POLICY, announced, silence).await;
    assert!(matches!(error, OutgoingError::TooLarge(1000)), "{error}");
    for head in [&b"HTTP/1.1 200 OK\r\n\r\n"[..], b"HTTP/1.1 500 No\r\nTransfer-Encoding: chunked\r\n\r\n"] {
        let error = asked_of(
            POLICY,
            head,
            async |mut socket: TcpStream| {
                while socket.write_all(b"3\r\nabc\r\n").await.is_ok() {}
            },
        )
        .await;
        assert!(matches!(error, OutgoingError::TooLarge(1000)), "{error}");
    }
    let error =
        asked_of(
            POLICY,
            b"HTTP/1.1 200 OK\r\nX: ",
            async |mut socket: TcpStream| {
                while socket.write_all(&[b'x'; 1000]).await.is_ok() {}
            },
        )
        .await;
    assert!(matches!(error, OutgoingError::Transport(_)), "a head without end: {error}");
}

/// To the byte, though the server says nothing more and does not hang up.
#[tokio::test]
async fn the_bound_of_an_answer_is_exact() {
    for (length, is_taken) in [(1000, true), (1001, false)] {
        let (address, _server) = backend::accept(move |mut socket| async move {
            let _ = socket.read(&mut [0; 4096]).await;
            let body = "x".repeat(length);
            let end = if is_taken { "0\r\n\r\n" } else { "" };
            let answer =
                format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{length:x}\r\n{body}\r\n{end}");
            let _ = socket.write_all(answer.as_bytes()).await;
            silence(socket).await;
        })
        .await;
        match get(&outgoing(POLICY), &format!("http://{address}/")).await {
            Ok(answer) => assert!(is_taken && answer.body.len() == length),
            Err(error) => assert!(!is_taken && matches!(error, OutgoingError::TooLarge(1000)), "{error}"),
        }
    }
}

#[tokio::test]
async fn who_hangs_up_or_talks_nonsense_has_not_answered() {
    for answer in
        [&b""[..], b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", b"220 mail.example.com\r\n\r\n"]
    {
        let error = asked_of(POLICY, answer, hang_up).await;
        assert!(matches!(error, OutgoingError::Transport(_)), "{error}");
    }
}

#[tokio::test]
async fn an_error_says_what_is_wrong_and_no_secret() {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let error = get(&outgoing(POLICY), &format!("http://{address}/?token=hunter2")).await.unwrap_err();
    assert!(error.to_string().contains("refused"), "{error}");
    assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
}

/// A server that keeps its visitors until it is told to answer.
async fn waiting_room() -> (Backend, Arc<Notify>, Arc<AtomicUsize>) {
    let (door, inside) = (Arc::new(Notify::new()), Arc::new(AtomicUsize::new(0)));
    let server = Backend::start({
        let (door, inside) = (door.clone(), inside.clone());
        move |_| {
            let (door, inside) = (door.clone(), inside.clone());
            async move {
                inside.fetch_add(1, Ordering::SeqCst);
                door.notified().await;
                inside.fetch_sub(1, Ordering::SeqCst);
                Response::new(Full::default())
            }
        }
    })
    .await;
    (server, door, inside)
}

#[tokio::test]
async fn so_many_are_under_way_so_many_wait_and_the_rest_is_refused() {
    let (server, door, inside) = waiting_room().await;
    let outgoing = Arc::new(outgoing(Policy { concurrent: 2, waiting: 1, ..POLICY }));
    let url = server.url("/");
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..3 {
        let (outgoing, url) = (outgoing.clone(), url.clone());
        calls.spawn(async move { get(&outgoing, &url).await });
    }
    eventually("two are inside and one waits", async || {
        inside.load(Ordering::SeqCst) == 2 && outgoing.admitted.available_permits() == 0
    })
    .await;
    assert!(matches!(get(&outgoing, &url).await, Err(OutgoingError::Busy)));
    while server.requests() < 3 || !calls.is_empty() {
        assert!(inside.load(Ordering::SeqCst) <= 2);
        door.notify_one();
        while let Some(answer) = calls.try_join_next() {
            answer.unwrap().unwrap();
        }
        tokio::task::yield_now().await;
    }
    assert_eq!((ended(&outgoing, "ok"), ended(&outgoing, "busy"), server.connections()), (3, 1, 2));
}

#[tokio::test]
async fn a_call_that_is_given_up_leaves_its_place_and_its_connection() {
    let (hung_up, gone) = (Arc::new(Notify::new()), Arc::new(AtomicUsize::new(0)));
    let (address, _server) = backend::accept({
        let (hung_up, gone) = (hung_up.clone(), gone.clone());
        move |socket| {
            let (hung_up, gone) = (hung_up.clone(), gone.clone());
            async move {
                hung_up.notify_one();
                silence(socket).await;
                gone.fetch_add(1, Ordering::SeqCst);
            }
        }
    })
    .await;
    let outgoing = outgoing(Policy { concurrent: 1, waiting: 0, ..POLICY });
    for round in 1..=3 {
        let url = format!("http://{address}/");
        tokio::select! {
            answer = get(&outgoing, &url) => panic!("{answer:?}"),
            () = hung_up.notified() => {}
        }
        eventually("the server sees the connection close", async || gone.load(Ordering::SeqCst) == round)
            .await;
    }
    assert_eq!(outgoing.slots.available_permits(), 1);
    assert_eq!(counted(&outgoing, "fanfare_outgoing_requests{purpose=\"keys\"}"), 0);
}

/// Answers with what is set.
async fn moody(status: &Arc<AtomicUsize>) -> Backend {
    let status = status.clone();
    Backend::start(move |_| {
        let status = u16::try_from(status.load(Ordering::SeqCst)).unwrap();
        async move { Response::builder().status(status).body(Full::default()).unwrap() }
    })
    .await
}

#[tokio::test]
async fn a_server_that_fails_in_a_row_is_left_alone() {
    let status = Arc::new(AtomicUsize::new(500));
    let server = moody(&status).await;
    let outgoing = outgoing(Policy { failures: 3, ..POLICY });
    for _ in 0..3 {
        assert_eq!(open(&outgoing), 0);
        assert!(matches!(get(&outgoing, &server.url("/")).await, Err(OutgoingError::Status { .. })));
    }
    for _ in 0..100 {
        match get(&outgoing, &server.url("/")).await.unwrap_err() {
            OutgoingError::Open(wait) => assert!(wait <= POLICY.cool_down && !wait.is_zero()),
            other => panic!("{other}"),
        }
    }
    assert_eq!((server.requests(), open(&outgoing)), (3, 1));
    assert_eq!((ended(&outgoing, "status"), ended(&outgoing, "breaker_open")), (3, 100));
    let metrics = outgoing.metrics.clone();
    drop(outgoing);
    assert!(metrics.render().contains("fanfare_outgoing_breakers_open{purpose=\"keys\"} 0"));
}

#[tokio::test]
async fn a_server_that_is_back_is_asked_again() {
    let status = Arc::new(AtomicUsize::new(500));
    let server = moody(&status).await;
    let outgoing = outgoing(Policy { failures: 1, cool_down: Duration::from_millis(20), ..POLICY });
    assert!(get(&outgoing, &server.url("/")).await.is_err());
    assert_eq!(open(&outgoing), 1);
    eventually("a trial finds it still failing", async || {
        matches!(get(&outgoing, &server.url("/")).await, Err(OutgoingError::Status { .. }))
    })
    .await;
    status.store(200, Ordering::SeqCst);
    eventually("a trial finds it well", async || get(&outgoing, &server.url("/")).await.is_ok()).await;
    assert_eq!(open(&outgoing), 0);
    assert!(get(&outgoing, &server.url("/")).await.is_ok());
}

#[tokio::test]
async fn saying_no_is_no_failure_of_the_server() {
    let status = Arc::new(AtomicUsize::new(404));
    let server = moody(&status).await;
    let outgoing = outgoing(Policy { failures: 1, ..POLICY });
    for code in [400, 401, 403, 404, 301] {
        status.store(code, Ordering::SeqCst);
        assert!(matches!(get(&outgoing, &server.url("/")).await, Err(OutgoingError::Status { .. })));
    }
    status.store(429, Ordering::SeqCst);
    assert!(get(&outgoing, &server.url("/")).await.is_err());
    assert_eq!(open(&outgoing), 1);
}

#[tokio::test]
async fn a_node_that_stops_waits_for_no_connection() {
    let server = Backend::start(async |_| Response::new(Full::default())).await;
    let tasks = TaskTracker::new();
    let dialer = Dialer::new(&Authorities::default(), tasks.clone(), Arc::new(Metrics::new()));
    let outgoing = dialer.outgoing(Purpose::Keys, POLICY);
    get(&outgoing, &server.url("/")).await.unwrap();
    assert!(!tasks.is_empty(), "the connection is kept");
    drop(outgoing);
    tasks.close();
    tokio::time::timeout(fanfare_testbed::PATIENCE, tasks.wait()).await.expect("it ends with its owner");
}
