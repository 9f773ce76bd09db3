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
