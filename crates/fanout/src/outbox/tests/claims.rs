use std::sync::{OnceLock, Weak};

use super::*;

/// A socket that takes so many bytes of each write, and does something to the outbox before it does.
struct Door {
    takes: usize,
    heard: Mutex<Vec<u8>>,
    meanwhile: Box<dyn Fn() + Send + Sync>,
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a door")
    }
}

impl Socket for Door {
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        (self.meanwhile)();
        let taken = self.takes.min(bytes.len());
        self.heard.lock().extend_from_slice(&bytes[..taken]);
        if taken == 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(taken) }
    }
}

/// An outbox beside such a door, and its writer's alarm.
fn beside(takes: usize, meanwhile: fn(&Outbox)) -> (Arc<Outbox>, Arc<Door>, Arc<Alarm>) {
    let (cell, alarm) = (Arc::new(OnceLock::<Weak<Outbox>>::new()), Arc::new(Alarm::default()));
    let known = cell.clone();
    let meanwhile =
        Box::new(move || known.get().and_then(Weak::upgrade).iter().for_each(|outbox| meanwhile(outbox)));
    let door = Arc::new(Door { takes, heard: Mutex::default(), meanwhile });
    let session = SessionId::from_random([1; 16]);
    let outbox = Outbox::new(session, Encoding::NativeJson, 1_000);
    outbox.lend(door.clone());
    cell.set(Arc::downgrade(&outbox)).unwrap();
    (outbox, door, alarm)
}

fn sleep(outbox: &Outbox, alarm: &Arc<Alarm>) {
    let waker = Waker::from(alarm.clone());
    let mut batch = Batch::default();
    assert!(outbox.poll_order(&Context::from_waker(&waker)).is_pending());
    assert!(outbox.poll_take(&Context::from_waker(&waker), &mut batch).is_pending());
}

fn sheaf(numbers: &[usize]) -> Sheaf {
    let publications: Vec<_> = numbers.iter().map(|&number| publication(number, None)).collect();
    Sheaf::of(&publications, Encoding::NativeJson.into()).unwrap()
}

#[test]
fn only_a_writer_that_sleeps_for_want_of_frames_is_passed_by() {
    let (outbox, _, alarm) = beside(usize::MAX, |_| {});
    assert!(outbox.claim().is_none(), "it has not begun");
    let waker = Waker::from(alarm.clone());
    assert!(outbox.poll_order(&Context::from_waker(&waker)).is_pending());
    assert!(outbox.claim().is_none(), "its socket may be full");
    sleep(&outbox, &alarm);
    assert!(grown(outbox.push(frame(10))) > 0);
    assert!(outbox.claim().is_none(), "something waits");
    take(&outbox).unwrap();
    sleep(&outbox, &alarm);
    let claim = outbox.claim().expect("it is idle");
    assert!(outbox.claim().is_none() && !outbox.is_empty(), "somebody else writes");
    claim.write(&sheaf(&[1]));
    assert!(outbox.claim().is_some());
    assert!(Outbox::new(SessionId::from_random([1; 16]), Encoding::NativeJson, 9).claim().is_none());
}

/// What comes while somebody else writes is neither taken nor woken for until that is done, and follows.
#[test]
fn what_comes_meanwhile_follows_and_is_woken_for_once() {
    let (outbox, door, alarm) = beside(usize::MAX, |outbox| {
        assert!(grown(outbox.push(frame(10))) > 0);
        assert!(!outbox.is_empty());
    });
    sleep(&outbox, &alarm);
    let claim = outbox.claim().unwrap();
    assert!(grown(outbox.push(frame(5))) > 0);
    sleep(&outbox, &alarm); // Not past the one who writes.
    assert_eq!(alarm.rung(), 0);
    let sheaf = sheaf(&[1, 2]);
    assert_eq!(claim.write(&sheaf), sheaf.bytes().len());
    assert_eq!(&*door.heard.lock(), &sheaf.bytes()[..]);
    assert_eq!((alarm.rung(), take(&outbox).unwrap().frames.len()), (1, 2), "both came meanwhile");
}

/// However little the socket takes, the rest comes first of all, and frame by frame.
#[test]
fn what_the_socket_did_not_take_comes_before_what_came_meanwhile() {
    let whole = sheaf(&[1, 2, 3]);
    for takes in 0..whole.bytes().len() {
        let (outbox, door, alarm) = beside(takes, |outbox| {
            let _ = outbox.push(frame(10));
        });
        sleep(&outbox, &alarm);
        assert_eq!(outbox.claim().unwrap().write(&whole), takes);
        assert_eq!(alarm.rung(), 1, "{takes}");
        assert!(outbox.claim().is_none() && !outbox.is_empty());
        let mut heard = door.heard.lock().clone();
        let mut left_over = Batch::default();
        let cx = Context::from_waker(Waker::noop());
        assert_eq!(outbox.poll_take(&cx, &mut left_over), Poll::Ready(0), "nothing of it was queued");
        assert_eq!(left_over.bytes, whole.bytes().len() - takes);
        assert_eq!(left_over.oldest.is_some(), takes == 0, "its age is told once");
        left_over.frames.iter().for_each(|frame| heard.extend_from_slice(frame));
        assert_eq!(heard, whole.bytes()[..]);
        assert_eq!(take(&outbox).unwrap().frames.len(), 1, "{takes}");
    }
}

/// The connection ends while somebody else writes: its socket is let go of, and a Close is still its last frame.
#[test]
fn whoever_ends_meanwhile_is_told_and_keeps_nothing() {
    let (outbox, door, alarm) = beside(1, |outbox| {
        let _ = outbox.discard();
    });
    sleep(&outbox, &alarm);
    outbox.claim().unwrap().write(&sheaf(&[1]));
    assert!(take(&outbox).is_none() && outbox.claim().is_none());
    assert_eq!(Arc::strong_count(&door), 1, "the socket is closed");

    let (outbox, _, alarm) = beside(usize::MAX, |outbox| {
        let _ = outbox.conclude([frame(4)]);
    });
    sleep(&outbox, &alarm);
    outbox.claim().unwrap().write(&sheaf(&[1]));
    assert_eq!((alarm.rung(), take(&outbox).unwrap().frames.len()), (1, 1));
}

#[test]
fn an_overflow_meanwhile_is_told() {
    let (outbox, _, alarm) = beside(usize::MAX, |outbox| {
        let _ = outbox.push(frame(5_000));
    });
    sleep(&outbox, &alarm);
    outbox.claim().unwrap().write(&sheaf(&[1]));
    assert_eq!((alarm.rung(), order(&outbox)), (1, Some(Order::Overflowed)));
}

/// Claims an outbox, as the walk through a crowd does.
fn claimed(outbox: &Arc<Outbox>, numbers: &[usize]) -> Asleep {
    let publications: Vec<_> = numbers.iter().map(|&number| publication(number, None)).collect();
    Sheaves::of(&publications).claim(outbox, Overflow::Disconnect).expect("it is idle, and shows its socket")
}

/// Sees to it, and returns how many messages were counted as written.
fn see_to(asleep: Asleep) -> u64 {
    let metrics = Metrics::new();
    asleep.see_to(&mut Row::default(), &metrics, || UnixMicros(9));
    metrics.messages_sent()
}

/// What was claimed for and all that came until its turn leaves in one write, in order; nobody is woken.
#[test]
fn what_has_come_by_the_time_of_its_turn_goes_along() {
    let (outbox, door, alarm) = beside(usize::MAX, |_| {});
    for _ in 0..2 {
        sleep(&outbox, &alarm);
        let claim = claimed(&outbox, &[1]);
        assert!(outbox.offer_asleep(&[publication(2, None)], Overflow::Disconnect).1.is_none());
        let _ = outbox.push(frame(10)).unwrap();
        let expected = [&sheaf(&[1, 2]).bytes()[..], frame(10).bytes()].concat();
        assert_eq!(see_to(claim), 3);
        assert_eq!(std::mem::take(&mut *door.heard.lock()), expected);
        assert_eq!((alarm.rung(), outbox.is_empty()), (0, true));
    }
}

/// However little the socket takes, the rest comes first of all and frame by frame, and everything is counted once.
#[test]
fn what_the_socket_did_not_take_of_a_row_comes_before_what_came_meanwhile() {
    let whole = sheaf(&[1, 2, 3]);
    for takes in 0..whole.bytes().len() {
        let (outbox, door, alarm) = beside(takes, |outbox| {
            let _ = outbox.push(frame(10));
        });
        sleep(&outbox, &alarm);
        let claim = claimed(&outbox, &[1, 2]);
        let _ = outbox.offer(&[publication(3, None)], Overflow::Disconnect);
        let sent = see_to(claim);
        assert_eq!(sent, whole.frames_in(takes));
        assert_eq!(alarm.rung(), 1, "{takes}");
        let mut heard = door.heard.lock().clone();
        let mut left_over = Batch::default();
        let cx = Context::from_waker(Waker::noop());
        assert_eq!(outbox.poll_take(&cx, &mut left_over), Poll::Ready(0), "it is in the queue no more");
        assert_eq!((left_over.bytes, left_over.frames.len() as u64), (whole.bytes().len() - takes, 3 - sent));
        assert_eq!(left_over.oldest.is_some(), takes == 0, "its age is told once");
        left_over.frames.iter().for_each(|frame| heard.extend_from_slice(frame));
        assert_eq!(heard, whole.bytes()[..]);
        assert_eq!(take(&outbox).unwrap().frames.len(), 1, "{takes}");
    }
}

/// More than is worth putting in a row, and more than one write carries, is the task's.
#[test]
fn what_is_too_much_for_one_write_is_left_to_the_task() {
    for (frames, bytes, left) in [(1, 20_000, 1), (BATCH_FRAMES + 1, 2, 1)] {
        let (_, door, alarm) = beside(usize::MAX, |_| {});
        let outbox = outbox(usize::MAX);
        outbox.lend(door.clone());
        sleep(&outbox, &alarm);
        let claim = claimed(&outbox, &[1]);
        for _ in 0..frames {
            let _ = outbox.push(frame(bytes)).unwrap();
        }
        see_to(claim);
        assert!(door.heard.lock().starts_with(sheaf(&[1]).bytes()));
        assert_eq!((alarm.rung(), take(&outbox).unwrap().frames.len()), (1, left), "{frames} of {bytes}");
    }
}

/// Who asked for no echo, whose channel counts what it leaves out, and what is too long to be put in a row for many.
#[test]
fn who_is_to_have_something_else_than_the_rest_is_not_claimed() {
    let (outbox, _, alarm) = beside(usize::MAX, |_| {});
    sleep(&outbox, &alarm);
    let ours = [publication(1, Some(US)), publication(2, None)];
    assert!(Sheaves::of(&ours).claim(&outbox, Overflow::Disconnect).is_none());
    assert!(Sheaves::of(&ours[1..]).claim(&outbox, Overflow::Conflate).is_none());
    let long: Vec<_> = (0..BATCH_BYTES / 50).map(|number| publication(number, None)).collect();
    assert!(Sheaves::of(&long).claim(&outbox, Overflow::Disconnect).is_none());
    assert_eq!((alarm.rung(), outbox.is_empty()), (0, true));
    assert!(outbox.claim().is_some(), "it is as it was");
}

/// The connection ends, or passes its bound, between the claim and its turn.
#[test]
fn whoever_ends_before_its_turn_is_told() {
    let (outbox, door, alarm) = beside(usize::MAX, |_| {});
    sleep(&outbox, &alarm);
    let claim = claimed(&outbox, &[1]);
    let _ = outbox.push(frame(5_000));
    assert_eq!(alarm.rung(), 0, "not before the claim is over");
    see_to(claim);
    assert_eq!((alarm.rung(), order(&outbox)), (1, Some(Order::Overflowed)));
    assert_eq!(*door.heard.lock(), sheaf(&[1]).bytes()[..], "what was taken before");

    let (outbox, door, alarm) = beside(usize::MAX, |_| {});
    sleep(&outbox, &alarm);
    let claim = claimed(&outbox, &[1]);
    outbox.conclude([frame(4)]);
    see_to(claim);
    let expected = [&sheaf(&[1]).bytes()[..], frame(4).bytes()].concat();
    assert_eq!(*door.heard.lock(), expected, "the Close is last");
    assert_eq!((alarm.rung(), outbox.is_empty()), (1, true), "and the task knows that it has left");

    let (outbox, door, alarm) = beside(usize::MAX, |_| {});
    sleep(&outbox, &alarm);
    let claim = claimed(&outbox, &[1]);
    outbox.discard();
    see_to(claim);
    assert_eq!(Arc::strong_count(&door), 1, "the socket is closed");
}

/// A hub that ends, or panics, between the claim and its turn: the task writes all of it.
#[test]
fn a_claim_whose_turn_never_comes_is_left_to_the_task() {
    let (outbox, door, alarm) = beside(usize::MAX, |_| {});
    sleep(&outbox, &alarm);
    claimed(&outbox, &[1, 2]).wake();
    let mut left_over = Batch::default();
    assert!(outbox.poll_take(&Context::from_waker(Waker::noop()), &mut left_over).is_ready());
    assert_eq!((alarm.rung(), left_over.frames.len()), (1, 2));
    assert!(door.heard.lock().is_empty());
}
