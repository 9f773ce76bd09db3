use std::collections::VecDeque;
use std::sync::atomic::AtomicUsize;
use std::task::Wake;

use fanfare_protocol::publication::{Draft, Payload};
use fanfare_protocol::{Channel, SessionId};
use proptest::prelude::*;

use super::queue::SLOTS_AT_REST;
use super::*;

mod claims;
mod watched;

pub(super) const US: SessionId = SessionId::from_random([1; 16]);

fn outbox(bytes_max: usize) -> Arc<Outbox> {
    Outbox::new(US, Encoding::NativeJson, bytes_max)
}

fn publication(number: usize, exclude: Option<SessionId>) -> Arc<Publication> {
    publication_of("room:1", number, exclude)
}

pub(super) fn publication_of(channel: &str, number: usize, exclude: Option<SessionId>) -> Arc<Publication> {
    let draft = Draft {
        channel: Channel::parse(channel).unwrap(),
        payload: Payload::parse(&number.to_string()).unwrap(),
        sender: None,
        exclude,
        received: UnixMicros(number as u64),
        retention: None,
        key: None,
        trace: None,
    };
    Arc::new(Publication::new(draft, None))
}

fn bytes_of(publication: &Publication) -> Bytes {
    publication.encoded(Encoding::NativeJson).bytes().clone()
}

/// A frame of `bytes` bytes in all, header included.
pub(super) fn frame(bytes: usize) -> Frame {
    let frame = Frame::binary(&vec![7; bytes - if bytes > 127 { 4 } else { 2 }]);
    assert_eq!(frame.len(), bytes);
    frame
}

/// Counts how often a task was woken.
#[derive(Default)]
struct Alarm(AtomicUsize);

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Alarm {
    fn rung(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

/// Offers publications of a channel that loses nothing, and returns by how much the queue grew.
fn offer(outbox: &Outbox, publications: &[Arc<Publication>]) -> i64 {
    let Queued { grown_bytes, dropped: 0, conflated: 0 } = outbox.offer(publications, Overflow::Disconnect)
    else {
        panic!("nothing gives way here")
    };
    grown_bytes
}

fn grown(outcome: Result<Queued, Full>) -> i64 {
    outcome.unwrap_or_else(Queued::from).grown_bytes
}

fn take(outbox: &Outbox) -> Option<Batch> {
    let mut batch = Batch::default();
    match outbox.poll_take(&Context::from_waker(Waker::noop()), &mut batch) {
        Poll::Ready(bytes) => {
            assert_eq!(bytes, batch.bytes);
            assert_eq!(bytes, batch.frames.iter().map(Bytes::len).sum::<usize>());
            Some(batch)
        }
        Poll::Pending => None,
    }
}

fn order(outbox: &Outbox) -> Option<Order> {
    match outbox.poll_order(&Context::from_waker(Waker::noop())) {
        Poll::Ready(order) => Some(order),
        Poll::Pending => None,
    }
}

#[test]
fn the_bound_is_kept_to_the_byte() {
    let outbox = outbox(300);
    assert_eq!(grown(outbox.push(frame(100))), 100);
    assert_eq!(grown(outbox.push(frame(200))), 200, "exactly full is not over");
    assert_eq!(order(&outbox), None);
    assert_eq!(outbox.push(frame(2)), Err(Full { discarded: 300 }));
    assert!(outbox.is_empty(), "an overflow empties the queue");
    assert_eq!(order(&outbox), Some(Order::Overflowed));
    assert_eq!(order(&outbox), None, "it is told once");
    assert_eq!(outbox.push(frame(2)), Err(Full { discarded: 0 }), "nothing is taken after an overflow");
    assert_eq!(offer(&outbox, &[publication(1, None)]), 0);
    assert_eq!(order(&outbox), None);
}

#[test]
fn what_was_taken_makes_room() {
    let outbox = outbox(100);
    for _ in 0..3 {
        assert_eq!(grown(outbox.push(frame(100))), 100);
        assert_eq!(take(&outbox).unwrap().bytes, 100);
    }
    assert_eq!(order(&outbox), None);
}

#[test]
fn publications_that_overflow_discard_their_own_beginning_too() {
    let run: Vec<_> = (1..=3).map(|number| publication(number, None)).collect();
    let each = bytes_of(&run[0]).len();
    let outbox = outbox(100 + 2 * each);
    assert!(grown(outbox.push(frame(100))) > 0);
    assert_eq!(offer(&outbox, &run), -100, "only what had been counted is taken back");
    assert!(outbox.is_empty());
    assert_eq!(order(&outbox), Some(Order::Overflowed));
}

/// The queue is as empty after this overflow as before it: the byte count alone does not tell.
#[test]
fn an_overflow_of_an_empty_queue_is_told_at_once() {
    let alarm = Arc::new(Alarm::default());
    let waker = Waker::from(alarm.clone());
    let outbox = outbox(10);
    assert!(outbox.poll_order(&Context::from_waker(&waker)).is_pending());
    assert_eq!(offer(&outbox, &[publication(1, None)]), 0);
    assert_eq!(alarm.rung(), 1);
    assert_eq!(order(&outbox), Some(Order::Overflowed));
}

#[test]
fn the_last_words_fit_whatever_the_bound_says_and_are_the_last() {
    let outbox = outbox(100);
    assert!(grown(outbox.push(frame(60))) > 0);
    assert_eq!(outbox.conclude([frame(70), frame(20)]), 90);
    assert_eq!(outbox.push(frame(2)), Err(Full { discarded: 0 }));
    assert_eq!(offer(&outbox, &[publication(1, None)]), 0);
    assert_eq!(outbox.conclude([frame(2)]), 0, "there is one end");
    let batch = take(&outbox).unwrap();
    assert_eq!(batch.frames.iter().map(Bytes::len).collect::<Vec<_>>(), [60, 70, 20]);
    assert_eq!(order(&outbox), None, "an end is no overflow");
}

#[test]
fn the_last_words_follow_an_overflow() {
    let outbox = outbox(10);
    outbox.push(frame(11)).unwrap_err();
    assert_eq!(outbox.conclude([frame(30)]), 30);
    assert_eq!(take(&outbox).unwrap().bytes, 30);
}

#[test]
fn what_is_discarded_is_counted_and_nothing_comes_after() {
    let outbox = outbox(100);
    assert!(grown(outbox.push(frame(60))) > 0);
    assert_eq!(outbox.discard(), 60);
    assert_eq!(outbox.discard(), 0);
    assert_eq!(outbox.push(frame(2)), Err(Full { discarded: 0 }));
    assert_eq!(outbox.conclude([frame(2)]), 0);
    assert!(take(&outbox).is_none());
}

#[test]
fn a_batch_has_a_bound_in_frames_and_in_bytes() {
    let outbox = outbox(usize::MAX);
    for _ in 0..BATCH_FRAMES + 1 {
        assert!(grown(outbox.push(frame(2))) > 0);
    }
    assert_eq!(take(&outbox).unwrap().frames.len(), BATCH_FRAMES);
    assert_eq!(take(&outbox).unwrap().frames.len(), 1);

    let half = BATCH_BYTES / 2;
    for _ in 0..5 {
        assert!(grown(outbox.push(frame(half - 1))) > 0);
    }
    assert_eq!(take(&outbox).unwrap().frames.len(), 3, "the third frame passes the bound");
    assert_eq!(take(&outbox).unwrap().frames.len(), 2);
    assert!(take(&outbox).is_none());
}

#[test]
fn a_batch_is_as_old_as_its_own_first_publication() {
    let outbox = outbox(1_000);
    let mut batch = Batch::default();
    assert!(grown(outbox.push(frame(2))) > 0);
    offer(&outbox, &[publication(5, None), publication(6, None)]);
    let cx = Context::from_waker(Waker::noop());
    assert!(outbox.poll_take(&cx, &mut batch).is_ready());
    assert_eq!(batch.oldest, Some(UnixMicros(5)));
    assert_eq!(batch.advance(batch.bytes), 3);
    assert!(grown(outbox.push(frame(2))) > 0);
    assert!(outbox.poll_take(&cx, &mut batch).is_ready());
    assert_eq!(batch.oldest, None, "there is no publication in it");
}

#[test]
fn a_publisher_that_asked_for_no_echo_hears_none() {
    let outbox = outbox(1_000);
    let other = SessionId::from_random([2; 16]);
    let run = [publication(1, Some(US)), publication(2, Some(other)), publication(3, None)];
    offer(&outbox, &run);
    let expected: Vec<_> = run[1..].iter().map(|publication| bytes_of(publication)).collect();
    assert_eq!(take(&outbox).unwrap().frames, expected);
    assert_eq!(offer(&outbox, &run[..1]), 0);
    assert!(take(&outbox).is_none());
}

#[test]
fn subscribers_share_the_bytes_of_a_publication() {
    let publication = publication(1, None);
    let (one, other) = (outbox(1_000), outbox(1_000));
    offer(&one, std::slice::from_ref(&publication));
    offer(&other, std::slice::from_ref(&publication));
    let pointer = |outbox: &Outbox| take(outbox).unwrap().frames[0].as_ptr();
    assert_eq!(pointer(&one), pointer(&other));
}

#[test]
fn an_idle_writer_is_woken_once_by_the_first_frame() {
    let alarm = Arc::new(Alarm::default());
    let waker = Waker::from(alarm.clone());
    let outbox = outbox(1_000);
    let mut batch = Batch::default();
    assert!(outbox.poll_order(&Context::from_waker(&waker)).is_pending());
    assert!(outbox.poll_take(&Context::from_waker(&waker), &mut batch).is_pending());
    offer(&outbox, &[publication(1, Some(US))]);
    assert_eq!(alarm.rung(), 0, "nothing came");
    offer(&outbox, &[publication(1, None)]);
    assert_eq!(alarm.rung(), 1);
    offer(&outbox, &[publication(2, None)]);
    assert!(grown(outbox.push(frame(2))) > 0);
    outbox.order(Order::Tick);
    outbox.conclude([frame(2)]);
    assert_eq!(alarm.rung(), 1, "it is awake already");
}

#[test]
fn a_writer_whose_socket_is_full_is_woken_by_orders_alone() {
    for order in [
        Order::Tick,
        Order::Lost { channel: Channel::parse("a").unwrap() },
        Order::Drain { after: Duration::from_secs(1) },
    ] {
        let alarm = Arc::new(Alarm::default());
        let waker = Waker::from(alarm.clone());
        let outbox = outbox(1_000);
        assert!(outbox.poll_order(&Context::from_waker(&waker)).is_pending());
        offer(&outbox, &[publication(1, None)]);
        assert!(grown(outbox.push(frame(100))) > 0);
        assert_eq!(alarm.rung(), 0);
        outbox.order(order.clone());
        outbox.order(Order::Tick);
        assert_eq!(alarm.rung(), 1);
        assert_eq!(self::order(&outbox), Some(order), "first come, first told");
        assert_eq!(self::order(&outbox), Some(Order::Tick));
        assert_eq!(self::order(&outbox), None);
    }
}

#[test]
fn an_overflow_wakes_a_writer_whose_socket_is_full() {
    let alarm = Arc::new(Alarm::default());
    let waker = Waker::from(alarm.clone());
    let outbox = outbox(100);
    assert!(outbox.poll_order(&Context::from_waker(&waker)).is_pending());
    assert!(grown(outbox.push(frame(60))) > 0);
    assert_eq!(alarm.rung(), 0);
    outbox.push(frame(60)).unwrap_err();
    assert_eq!(alarm.rung(), 1);
}

#[test]
fn the_task_that_asked_last_is_woken() {
    let (old, new) = (Arc::new(Alarm::default()), Arc::new(Alarm::default()));
    let outbox = outbox(100);
    for alarm in [&old, &new] {
        let waker = Waker::from(alarm.clone());
        assert!(outbox.poll_order(&Context::from_waker(&waker)).is_pending());
    }
    outbox.order(Order::Tick);
    assert_eq!((old.rung(), new.rung()), (0, 1));
}

/// With the two counters of its `Arc`, these are all the bytes that an outbox in which nothing waits takes from the
/// heap. Every connection has one: whoever makes it larger pays for each of them.
#[cfg(target_pointer_width = "64")]
const IDLE_BYTES: usize = 176;

#[cfg(target_pointer_width = "64")]
#[test]
fn an_idle_outbox_is_small_and_owns_nothing() {
    assert_eq!(size_of::<Outbox>(), IDLE_BYTES);
    let outbox = outbox(usize::MAX);
    let heap = |outbox: &Outbox| {
        let state = outbox.state.lock();
        (state.queue.heap(), state.orders.capacity())
    };
    assert_eq!(heap(&outbox), ((0, false), 0));
    offer(&outbox, &[publication(1, None)]);
    take(&outbox).unwrap();
    let room = heap(&outbox).0.0;
    assert!((1..=SLOTS_AT_REST).contains(&room), "room for the next publication");
    for round in 0..3 {
        for number in 0..32 {
            offer(&outbox, &[publication(number, None)]);
        }
        let room = heap(&outbox).0.0;
        while take(&outbox).is_some() {}
        assert_eq!(
            (room, heap(&outbox).0.0),
            (32, 32),
            "room for the next batch: nothing is allocated in round {round}"
        );
    }
    outbox.rest();
    assert_eq!(heap(&outbox), ((0, false), 0), "a busy time is not paid for ever");
    for number in 0..1_000 {
        offer(&outbox, &[publication(number, None)]);
        outbox.order(Order::Tick);
    }
    while take(&outbox).is_some() {}
    while order(&outbox).is_some() {}
    assert_eq!(heap(&outbox), ((0, false), 0), "a burst is not paid for until the next rest");
    offer(&outbox, &[publication(1, None)]);
    let room = heap(&outbox);
    outbox.rest();
    assert_eq!((heap(&outbox), outbox.is_empty()), (room, false), "what waits is left alone");
}

#[derive(Clone, Debug)]
enum Op {
    Push(usize),
    Offer(usize, bool),
    Take,
    Order,
    Conclude(usize),
    Discard,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        10 => (2..120_usize).prop_map(Op::Push),
        10 => (0..5_usize, any::<bool>()).prop_map(|(run, excluded)| Op::Offer(run, excluded)),
        10 => Just(Op::Take),
        2 => Just(Op::Order),
        1 => (2..120_usize).prop_map(Op::Conclude),
        1 => Just(Op::Discard),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whoever adds up what an outbox reports knows what waits in it: a node's gauge of queued bytes does not drift.
    #[test]
    fn the_reports_add_up(ops in proptest::collection::vec(op(), 0..60), bytes_max in 2..1_000_usize) {
        let outbox = outbox(bytes_max);
        let mut waiting = 0;
        let mut concluding = 0;
        for op in ops {
            match op {
                Op::Push(bytes) => waiting += grown(outbox.push(frame(bytes))),
                Op::Offer(run, excluded) => {
                    let run: Vec<_> = (0..run).map(|n| publication(n, excluded.then_some(US))).collect();
                    waiting += offer(&outbox, &run);
                }
                Op::Take => waiting -= take(&outbox).map_or(0, |batch| signed(batch.bytes)),
                Op::Order => outbox.order(Order::Tick),
                Op::Conclude(bytes) => {
                    let grown = outbox.conclude([frame(bytes)]);
                    concluding += grown;
                    waiting += signed(grown);
                }
                Op::Discard => waiting -= signed(outbox.discard()),
            }
            let state = outbox.state.lock();
            prop_assert_eq!(signed(state.queue.bytes()), waiting);
            prop_assert_eq!(state.queue.is_empty(), waiting == 0);
            prop_assert!(state.queue.bytes() <= bytes_max + concluding, "the bound");
        }
    }

    /// However the kernel cuts the writes, the peer reads the same bytes.
    #[test]
    fn any_split_of_writes_yields_the_same_bytes(
        frames in proptest::collection::vec(2..300_usize, 1..40),
        splits in proptest::collection::vec(0..700_usize, 1..30),
    ) {
        let mut batch = Batch::default();
        for (index, &bytes) in frames.iter().enumerate() {
            let frame: Bytes = (0..bytes).map(|at| (at + index) as u8).collect();
            batch.bytes += bytes;
            batch.frames.push_back(frame);
        }
        let expected: Vec<u8> = batch.frames.iter().flatten().copied().collect();
        let mut written = Vec::new();
        let mut completed = 0;
        let mut splits = splits.into_iter().chain(std::iter::repeat(100));
        while !batch.is_empty() {
            let gathered: Vec<u8> = batch.frames.iter().flatten().copied().collect();
            prop_assert_eq!(gathered.len(), batch.bytes);
            let cut = splits.next().unwrap().min(gathered.len());
            written.extend_from_slice(&gathered[..cut]);
            completed += batch.advance(cut);
            let ends = frames.iter().scan(0, |end, bytes| { *end += bytes; Some(*end) });
            prop_assert_eq!(completed as usize, ends.filter(|&end| end <= written.len()).count());
        }
        prop_assert_eq!(written, expected);
        prop_assert_eq!(batch.bytes, 0);
        prop_assert_eq!(batch.frames, VecDeque::<Bytes>::new());
    }
}
