//! A connection to something that is no good broker: an error that names the address, soon, and nothing worse.

use std::time::Duration;

use client::{Connection, ConnectionConfig, ConnectionError};
use kafka_protocol::messages::MetadataRequest;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Calls `serve` with every connection and its number; gives the address.
async fn listen<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> String
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound").to_string();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    address
}

/// The next request: its API key and its correlation id.
async fn read_request(stream: &mut TcpStream) -> Option<(i16, i32)> {
    let size = stream.read_u32().await.ok()?;
    let mut frame = vec![0; size as usize];
    stream.read_exact(&mut frame).await.ok()?;
    Some((
        i16::from_be_bytes([frame[0], frame[1]]),
        i32::from_be_bytes([frame[4], frame[5], frame[6], frame[7]]),
    ))
}

async fn answer(stream: &mut TcpStream, correlation_id: i32, body: &[u8]) {
    let mut frame = (4 + body.len() as u32).to_be_bytes().to_vec();
    frame.extend(correlation_id.to_be_bytes());
    frame.extend(body);
    let _ = stream.write_all(&frame).await;
}

/// ApiVersions v4: no error, one API (Metadata 1 to 1), no throttling, no tags.
const API_VERSIONS: [u8; 15] = [0, 0, 2, 0, 3, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0];

/// A good answer to ApiVersions, then `body` to whatever comes.
async fn listen_with_answer(body: Vec<u8>) -> String {
    listen(move |mut stream| {
        let body = body.clone();
        async move {
            let (_, id) = read_request(&mut stream).await.expect("ApiVersions");
            answer(&mut stream, id, &API_VERSIONS).await;
            while let Some((_, id)) = read_request(&mut stream).await {
                answer(&mut stream, id, &body).await;
            }
        }
    })
    .await
}

fn config() -> ConnectionConfig {
    ConnectionConfig { max_answer_size_bytes: 1 << 20, ..ConnectionConfig::default() }
}

async fn open_error(address: &str) -> ConnectionError {
    Connection::open(address, &config()).await.expect_err("no broker")
}

#[tokio::test]
async fn another_protocol_is_not_mistaken_for_kafkas() {
    let greetings: [&[u8]; 3] =
        [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x15\x03\x03\x00\x02\x02\x46", b"SSH-2.0-x\r\n"];
    for greeting in greetings {
        let address = listen(move |mut stream| async move {
            let _ = stream.write_all(greeting).await;
            let _ = read_request(&mut stream).await;
        })
        .await;
        let error = open_error(&address).await;
        let text = error.to_string();
        assert!(matches!(error, ConnectionError::AnswerInvalid { .. }), "{text}");
        assert!(text.contains(&address) && text.contains("TLS"), "{text}");
    }
}

#[tokio::test]
async fn a_count_without_bytes_behind_it_is_refused_before_anything_is_reserved() {
    // Metadata v1 whose brokers are 2^31 - 1: decoded unchecked this aborts the process.
    let address = listen_with_answer(vec![0x7f, 0xff, 0xff, 0xff]).await;
    let connection = Connection::open(&address, &config()).await.expect("so far so good");
    let error = connection.call(&MetadataRequest::default()).await.expect_err("no answer");
    assert!(matches!(error, ConnectionError::AnswerInvalid { .. }), "{error}");
    assert!(connection.closed().is_some());
    // And in the first answer of all.
    let address = listen(|mut stream| async move {
        let (_, id) = read_request(&mut stream).await.expect("ApiVersions");
        answer(&mut stream, id, &[0, 0, 0xff, 0xff, 0xff, 0xff, 0x0f]).await;
    })
    .await;
    assert!(matches!(open_error(&address).await, ConnectionError::AnswerInvalid { .. }));
}

#[tokio::test]
async fn an_answer_that_is_too_long_is_not_read() {
    let address = listen(|mut stream| async move {
        let _ = read_request(&mut stream).await;
        let _ = stream.write_all(&(1i32 << 21).to_be_bytes()).await;
        let _ = read_request(&mut stream).await;
    })
    .await;
    assert!(matches!(open_error(&address).await, ConnectionError::AnswerInvalid { .. }));
}

#[tokio::test]
async fn an_answer_to_another_request_closes_the_connection() {
    let address = listen(|mut stream| async move {
        let (_, id) = read_request(&mut stream).await.expect("ApiVersions");
        answer(&mut stream, id, &API_VERSIONS).await;
        let (_, id) = read_request(&mut stream).await.expect("Metadata");
        answer(&mut stream, id + 1, &[0; 20]).await;
        let _ = read_request(&mut stream).await;
    })
    .await;
    let connection = Connection::open(&address, &config()).await.expect("so far so good");
    let request = MetadataRequest::default();
    let error = connection.call(&request).await.expect_err("not its answer");
    assert!(matches!(error, ConnectionError::AnswerInvalid { .. }), "{error}");
    // The first reason stands.
    let again = connection.call(&request).await.expect_err("closed");
    assert_eq!(again.to_string(), error.to_string());
}

#[tokio::test]
async fn a_broker_that_hangs_up_fails_every_request_that_waits() {
    let address = listen(|mut stream| async move {
        let (_, id) = read_request(&mut stream).await.expect("ApiVersions");
        answer(&mut stream, id, &API_VERSIONS).await;
        for _ in 0..3 {
            let _ = read_request(&mut stream).await;
        }
    })
    .await;
    let connection = Connection::open(&address, &config()).await.expect("so far so good");
    let mut answers = Vec::new();
    for _ in 0..3 {
        let started = connection.start(1, &MetadataRequest::default(), Duration::ZERO).await;
        answers.push(started.expect("queued"));
    }
    for answer in answers {
        let error = answer.get().await.expect_err("it hung up");
        assert!(error.is_retriable(), "{error}");
    }
}

#[tokio::test]
async fn silence_is_an_error_after_the_timeout() {
    let address =
        listen(|mut stream| async move { while read_request(&mut stream).await.is_some() {} })
            .await;
    let config = ConnectionConfig { connect_timeout: Duration::from_millis(50), ..config() };
    let error = Connection::open(&address, &config).await.expect_err("nobody answers");
    assert!(matches!(error, ConnectionError::ConnectTimedOut { .. }), "{error}");

    let address = listen(|mut stream| async move {
        let (_, id) = read_request(&mut stream).await.expect("ApiVersions");
        answer(&mut stream, id, &API_VERSIONS).await;
        while read_request(&mut stream).await.is_some() {}
    })
    .await;
    let config = ConnectionConfig { request_timeout: Duration::from_millis(50), ..self::config() };
    let connection = Connection::open(&address, &config).await.expect("so far so good");
    let error = connection.call(&MetadataRequest::default()).await.expect_err("nobody answers");
    assert!(matches!(error, ConnectionError::RequestTimedOut { .. }), "{error}");
    assert!(connection.closed().is_some(), "a late answer would be taken for the next one's");
}

#[tokio::test]
async fn a_broker_of_older_versions_is_asked_again_in_its_own() {
    let address = listen(|mut stream| async move {
        // Version 4 is not known: error 35, and ApiVersions 0 to 2, in the shape of version 0.
        let (_, id) = read_request(&mut stream).await.expect("ApiVersions v4");
        answer(&mut stream, id, &[0, 35, 0, 0, 0, 1, 0, 18, 0, 0, 0, 2]).await;
        let (_, id) = read_request(&mut stream).await.expect("ApiVersions v2");
        answer(&mut stream, id, &[0, 0, 0, 0, 0, 1, 0, 3, 0, 0, 0, 5, 0, 0, 0, 0]).await;
        let _ = read_request(&mut stream).await;
    })
    .await;
    let connection = Connection::open(&address, &config()).await.expect("an old broker");
    assert_eq!(connection.version_of::<MetadataRequest>().expect("common"), 5);
}
