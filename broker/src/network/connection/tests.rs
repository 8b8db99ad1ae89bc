//! Connections over real sockets, with handlers that answer what the test wants.

use super::*;
use crate::network::response::Chunk;
use bytes::{BufMut, BytesMut};
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

const MIB: usize = 1024 * 1024;

/// A client's end, and the task that serves the other one.
struct Served {
    client: TcpStream,
    task: JoinHandle<()>,
    _stop: sync::watch::Sender<bool>,
}

fn limits() -> ConnectionLimits {
    ConnectionLimits { request_max_bytes: 100 * MIB, max_idle: None, queued_max_bytes: Some(MIB) }
}

fn shared(
    limits: ConnectionLimits,
    dispatch: impl Fn(Bytes) -> Result<Reply, Refused> + Send + Sync + 'static,
) -> Arc<SharedByConnections> {
    let dispatch = move |_: &ConnectionContext, frame| dispatch(frame);
    Arc::new(SharedByConnections::with_dispatch(limits, Box::new(dispatch)))
}

async fn served(shared: &Arc<SharedByConnections>) -> Served {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let local = listener.local_addr().unwrap();
    let client = TcpStream::connect(local).await.unwrap();
    let (stream, peer) = listener.accept().await.unwrap();
    let context = ConnectionContext { peer, local, listener: Arc::from("TEST") };
    let (stop, stopping) = sync::watch::channel(false);
    let task = tokio::spawn(serve(stream, context, Arc::clone(shared), stopping));
    Served { client, task, _stop: stop }
}

fn framed(body: &[u8]) -> Bytes {
    let mut frame = BytesMut::new();
    frame.put_u32(body.len() as u32);
    frame.put_slice(body);
    frame.freeze()
}

fn answer(body: &[u8]) -> Response {
    Response::from_chunks(vec![Chunk::Memory(framed(body))])
}

async fn read_answer(client: &mut TcpStream) -> Vec<u8> {
    let size_bytes = client.read_u32().await.unwrap();
    let mut body = vec![0; size_bytes as usize];
    client.read_exact(&mut body).await.unwrap();
    body
}

#[tokio::test]
async fn answers_leave_in_the_order_of_the_requests_whichever_is_ready_first() {
    let (sender, receiver) = oneshot::channel::<()>();
    let receiver = Mutex::new(Some(receiver));
    let shared = shared(limits(), move |frame| match &frame[..] {
        b"later" => {
            let receiver = receiver.lock().unwrap().take().unwrap();
            Ok(Reply::Waiting(Box::pin(async move {
                receiver.await.unwrap();
                Some(answer(b"later"))
            })))
        }
        b"serial" => Ok(Reply::Serial(Box::pin(async { Some(answer(b"serial")) }))),
        other => Ok(Reply::Now(answer(other))),
    });
    let Served { mut client, _stop, .. } = served(&shared).await;
    for body in [&b"one"[..], b"later", b"two", b"serial", b"three"] {
        client.write_all(&framed(body)).await.unwrap();
    }
    assert_eq!(read_answer(&mut client).await, b"one");
    sender.send(()).unwrap();
    for body in [&b"later"[..], b"two", b"serial", b"three"] {
        assert_eq!(read_answer(&mut client).await, body);
    }
}

#[tokio::test]
async fn answers_that_wait_for_their_turn_behind_another_are_bounded_like_those_that_wait_to_be_read()
 {
    let (sender, receiver) = oneshot::channel::<()>();
    let receiver = Mutex::new(Some(receiver));
    let made = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&made);
    let shared = shared(limits(), move |frame| {
        if &frame[..] != b"later" {
            counted.fetch_add(1, Ordering::Relaxed);
            return Ok(Reply::Now(answer(&vec![1; MAX_UNWRITTEN_BYTES])));
        }
        let receiver = receiver.lock().unwrap().take().unwrap();
        Ok(Reply::Waiting(Box::pin(async move {
            receiver.await.unwrap();
            Some(answer(b"later"))
        })))
    });
    let Served { mut client, _stop, .. } = served(&shared).await;
    client.write_all(&[framed(b"later"), framed(b"now").repeat(10).into()].concat()).await.unwrap();
    // The runtime has one thread: what came at once is handled in one turn.
    while made.load(Ordering::Relaxed) == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(made.load(Ordering::Relaxed), 1);
    sender.send(()).unwrap();
    assert_eq!(read_answer(&mut client).await, b"later");
    for _ in 0..10 {
        assert_eq!(read_answer(&mut client).await.len(), MAX_UNWRITTEN_BYTES);
    }
}

#[tokio::test]
async fn a_client_that_leaves_while_its_fetch_waits_is_noticed() {
    let shared = shared(limits(), |_| Ok(Reply::Serial(Box::pin(std::future::pending()))));
    let Served { mut client, task, _stop } = served(&shared).await;
    client.write_all(&framed(b"fetch")).await.unwrap();
    drop(client);
    task.await.unwrap();
}

#[tokio::test]
async fn a_client_that_leaves_unread_requests_behind_is_noticed() {
    let ticking = ConnectionLimits { max_idle: Some(Duration::from_millis(40)), ..limits() };
    let shared = shared(ticking, |_| Ok(Reply::Serial(Box::pin(std::future::pending()))));
    let Served { mut client, task, _stop } = served(&shared).await;
    for _ in 0..3 {
        client.write_all(&framed(&[7; READ_AHEAD_BYTES])).await.unwrap();
    }
    drop(client);
    task.await.unwrap();
}

#[tokio::test]
async fn a_client_that_pipelines_and_does_not_read_is_answered_only_as_far_as_its_socket_holds() {
    const REQUESTS: usize = 200;
    let made = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&made);
    let unlimited = ConnectionLimits { queued_max_bytes: None, ..limits() };
    let shared = shared(unlimited, move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        Ok(Reply::Now(answer(&vec![1; MIB])))
    });
    let Served { mut client, _stop, .. } = served(&shared).await;
    for _ in 0..REQUESTS {
        client.write_all(&framed(b"more")).await.unwrap();
    }
    for read in 0..REQUESTS {
        assert_eq!(read_answer(&mut client).await.len(), MIB);
        // What the kernel holds for both ends is a few tens of MiB at the most.
        let ahead = made.load(Ordering::Relaxed) - read;
        assert!(ahead < 100, "{ahead} answers of a MiB were made and not read");
    }
}

#[tokio::test]
async fn while_answers_fill_the_memory_whoever_has_left_them_unread_for_longest_is_cut_off() {
    let shared = shared(limits(), |frame| {
        Ok(Reply::Now(answer(&vec![0; if &frame[..] == b"all" { 64 * MIB } else { 10 }])))
    });
    let Served { client: mut silent, task: cut_off, _stop: _one } = served(&shared).await;
    silent.write_all(&framed(b"all")).await.unwrap();
    cut_off.await.unwrap();
    let Served { mut client, _stop, .. } = served(&shared).await;
    client.write_all(&framed(b"little")).await.unwrap();
    assert_eq!(read_answer(&mut client).await.len(), 10);
}

/// Sends the second half of a frame of which the first was sent, and wants its last three bytes for an answer.
async fn send_rest(client: &mut TcpStream, rest: &[u8]) {
    let (mut reading, mut writing) = client.split();
    let answered = async {
        let mut head = [0; 7];
        reading.read_exact(&mut head).await.unwrap();
        assert_eq!(&head[4..], b"end");
    };
    let (written, ()) = tokio::join!(writing.write_all(rest), answered);
    written.unwrap();
}

fn large_frame() -> Bytes {
    let mut body = vec![2; 5 * MIB];
    body.extend_from_slice(b"end");
    framed(&body)
}

fn last_three() -> Arc<SharedByConnections> {
    shared(limits(), |frame| Ok(Reply::Now(answer(&frame[frame.len() - 3..]))))
}

#[tokio::test(start_paused = true)]
async fn a_client_alone_may_take_its_time_with_a_frame_larger_than_the_memory() {
    let shared = last_three();
    let Served { mut client, _stop, .. } = served(&shared).await;
    let frame = large_frame();
    let (first, rest) = frame.split_at(3 * MIB);
    client.write_all(first).await.unwrap();
    tokio::time::sleep(Duration::from_secs(300)).await;
    send_rest(&mut client, rest).await;
}

#[tokio::test(start_paused = true)]
async fn a_frame_that_stopped_long_ago_is_given_up_as_soon_as_another_needs_its_memory() {
    let shared = last_three();
    let frame = large_frame();
    let Served { client: mut stopped, task, _stop: _one } = served(&shared).await;
    stopped.write_all(&frame[..3 * MIB]).await.unwrap();
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert!(!task.is_finished());
    let Served { mut client, _stop, .. } = served(&shared).await;
    send_rest(&mut client, &frame).await;
    task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn who_is_not_read_because_its_requests_wait_is_not_cut_off_and_does_not_hold_others_up() {
    let (sender, receiver) = sync::watch::channel(false);
    let room_for_them = ConnectionLimits { queued_max_bytes: Some(4 * MIB), ..limits() };
    let shared = shared(room_for_them, move |frame| {
        let response = answer(&frame[frame.len() - 3..]);
        if frame[0] != b'w' {
            return Ok(Reply::Now(response));
        }
        let mut receiver = receiver.clone();
        Ok(Reply::Waiting(Box::pin(async move {
            receiver.wait_for(|is_done| *is_done).await.unwrap();
            Some(response)
        })))
    });
    let Served { mut client, _stop: _one, .. } = served(&shared).await;
    let frame = framed(&vec![b'w'; 40 * 1024]);
    let requests = MAX_WAITING_REQUESTS + 1;
    let (mut reading, mut writing) = client.split();
    let written = writing.write_all(&frame.repeat(requests)).await;
    written.unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let Served { client: mut other, _stop, .. } = served(&shared).await;
    send_rest(&mut other, &large_frame()).await;
    tokio::time::sleep(Duration::from_secs(300)).await;
    sender.send(true).unwrap();
    for _ in 0..requests {
        let mut head = [0; 7];
        reading.read_exact(&mut head).await.unwrap();
        assert_eq!(&head[4..], b"www");
    }
}

#[tokio::test(start_paused = true)]
async fn a_frame_that_is_not_read_behind_unread_answers_does_not_hold_others_up_and_comes_in_later()
{
    let (sender, receiver) = sync::watch::channel(false);
    let room_for_them = ConnectionLimits { queued_max_bytes: Some(40 * MIB), ..limits() };
    let shared = shared(room_for_them, move |frame| {
        if frame[0] != b'w' {
            return Ok(Reply::Now(answer(&frame[frame.len() - 3..])));
        }
        let mut receiver = receiver.clone();
        Ok(Reply::Waiting(Box::pin(async move {
            receiver.wait_for(|is_done| *is_done).await.unwrap();
            Some(answer(&vec![1; 16 * MIB]))
        })))
    });
    let Served { mut client, _stop: _one, .. } = served(&shared).await;
    let mut body = vec![2; 30 * MIB];
    body.extend_from_slice(b"end");
    let frame = framed(&body);
    client.write_all(&framed(b"w")).await.unwrap();
    client.write_all(&frame[..22 * MIB]).await.unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    sender.send(true).unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let Served { client: mut other, _stop, .. } = served(&shared).await;
    send_rest(&mut other, &large_frame()).await;
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(read_answer(&mut client).await.len(), 16 * MIB);
    send_rest(&mut client, &frame[22 * MIB..]).await;
}

#[tokio::test(start_paused = true)]
async fn a_frame_comes_in_though_others_hold_all_the_memory_with_frames_that_do_not() {
    let ticking = ConnectionLimits { max_idle: Some(Duration::from_secs(2)), ..limits() };
    let shared = shared(ticking, |frame| Ok(Reply::Now(answer(&frame[frame.len() - 3..]))));
    let mut stalled = Vec::new();
    for _ in 0..4 {
        let mut one = served(&shared).await;
        // Half of a frame of 600 KiB: more than the memory there is, all together.
        one.client.write_u32(600 * 1024).await.unwrap();
        one.client.write_all(&vec![1; 300 * 1024]).await.unwrap();
        stalled.push(one);
    }
    let Served { mut client, _stop, .. } = served(&shared).await;
    for size in [100, 100 * 1024, 5 * MIB] {
        let mut body = vec![2; size];
        body.extend_from_slice(b"end");
        let (mut reading, mut writing) = client.split();
        let frame = framed(&body);
        let answered = async {
            let mut head = [0; 7];
            reading.read_exact(&mut head).await.unwrap();
            assert_eq!(&head[4..], b"end");
        };
        let (written, ()) = tokio::join!(writing.write_all(&frame), answered);
        written.unwrap();
    }
    drop(stalled);
}

#[tokio::test]
async fn an_idle_connection_is_closed_after_its_time_and_one_that_is_owed_an_answer_is_not() {
    let idle = ConnectionLimits { max_idle: Some(Duration::from_millis(20)), ..limits() };
    let (sender, receiver) = oneshot::channel::<()>();
    let receiver = Mutex::new(Some(receiver));
    let shared = shared(idle, move |_| {
        let receiver = receiver.lock().unwrap().take().unwrap();
        Ok(Reply::Serial(Box::pin(async move {
            receiver.await.unwrap();
            Some(answer(b"at last"))
        })))
    });
    let Served { mut client, task: owed, _stop: _one } = served(&shared).await;
    client.write_all(&framed(b"wait")).await.unwrap();
    let Served { client: _quiet, task, _stop } = served(&shared).await;
    task.await.unwrap();
    assert!(!owed.is_finished());
    sender.send(()).unwrap();
    assert_eq!(read_answer(&mut client).await, b"at last");
}
