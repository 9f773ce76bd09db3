use std::sync::OnceLock;

use super::*;
use crate::tap::{Fate, Receiver, Tap, Witness};

/// Follows everybody, and remembers.
#[derive(Debug, Default)]
struct Eyes(Mutex<Vec<(Fate, Bytes)>>);

impl Witness for Eyes {
    fn follows(&self, _: &Channel, _: SubscriberId) -> bool {
        true
    }

    fn heard(&self, _: &[Arc<Publication>]) {}

    fn fanned_out(&self, _: &[Arc<Publication>], _: u64) {}

    fn handed_on(&self, _: &Publication, _: UnixMicros, _: u64) {}

    fn met(&self, receiver: Receiver, publication: &Publication, fate: Fate) {
        assert_eq!(receiver.session, US);
        self.0.lock().push((fate, bytes_of(publication)));
    }
}

impl Eyes {
    fn all(&self, is_it: fn(&Fate) -> bool) -> Vec<Bytes> {
        self.0.lock().iter().filter(|(fate, _)| is_it(fate)).map(|(_, bytes)| bytes.clone()).collect()
    }
}

fn looked_at() -> (Arc<Tap>, Arc<Eyes>) {
    let (tap, eyes) = (Arc::new(Tap::default()), Arc::new(Eyes::default()));
    tap.show(eyes.clone());
    tap.switch(true);
    (tap, eyes)
}

fn take(outbox: &Outbox) -> Vec<Bytes> {
    let mut batch = Batch::default();
    let cx = Context::from_waker(Waker::noop());
    if outbox.poll_take(&cx, &mut batch).is_pending() {
        return Vec::new();
    }
    let frames = batch.frames.iter().cloned().collect();
    batch.advance(batch.bytes);
    frames
}

proptest! {
    /// Whoever looks on changes nothing of what is delivered, and is told of just what is.
    #[test]
    fn what_is_watched_is_the_same_and_what_is_written_is_told(
        steps in proptest::collection::vec((0..4_u8, 1..6_usize), 1..40), bytes_max in 200..2_000_usize,
    ) {
        let (watched, other) = (outbox(bytes_max), outbox(bytes_max));
        let (tap, eyes) = looked_at();
        let (mut number, mut written, mut lost) = (0, Vec::new(), 0);
        for (step, count) in steps {
            let policy = [Overflow::DropOldest, Overflow::Conflate, Overflow::Disconnect][usize::from(step) % 3];
            if step == 3 {
                let frames = take(&watched);
                prop_assert_eq!(&frames, &take(&other));
                written.extend(frames);
                continue;
            }
            let channel = ["room:0", "room:1", "room:2"][usize::from(step) % 3];
            let run: Vec<_> = (number..number + count).map(|it| publication_of(channel, it, None)).collect();
            number += count;
            watched.watch(&tap);
            let queued = watched.offer(&run, policy);
            prop_assert_eq!(queued, other.offer(&run, policy));
            lost += queued.dropped + queued.conflated;
        }
        let told = eyes.all(|fate| *fate == Fate::Written);
        // One that stands for others says so, which the shared frame does not.
        prop_assert_eq!(told.len(), written.len());
        let told_lost: u64 = eyes.0.lock().iter().map(|(fate, _)| match fate {
            Fate::Dropped { policy: Overflow::DropOldest | Overflow::Conflate, count } => *count,
            _ => 0,
        }).sum();
        prop_assert_eq!(told_lost, lost);
    }
}

#[test]
fn an_overflow_is_told_with_its_policy() {
    let (tap, eyes) = looked_at();
    let small = outbox(100);
    small.watch(&tap);
    let run: Vec<_> = (0..9).map(|number| publication(number, None)).collect();
    let _ = small.offer(&run, Overflow::Disconnect);
    let is_it = |fate: &Fate| matches!(fate, Fate::Dropped { policy: Overflow::Disconnect, .. });
    assert_eq!(eyes.all(is_it).len(), 1);
}

/// Nobody writes past the task of who is watched, until all that waited has been written.
#[test]
fn who_is_watched_is_written_to_by_its_task() {
    #[derive(Debug)]
    struct Door(OnceLock<()>);
    impl Socket for Door {
        fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
            self.0.set(()).expect("once");
            Ok(bytes.len())
        }
    }
    let (tap, eyes) = looked_at();
    let outbox = outbox(1_000);
    let door = Arc::new(Door(OnceLock::new()));
    outbox.lend(door);
    assert!(take(&outbox).is_empty(), "its writer sleeps now");
    outbox.watch(&tap);
    assert!(outbox.claim().is_none());
    let _ = outbox.offer(&[publication(1, None)], Overflow::Disconnect);
    assert_eq!((take(&outbox).len(), eyes.all(|it| *it == Fate::Written).len()), (1, 1));
    assert!(take(&outbox).is_empty() && outbox.claim().is_some(), "it is over");
}
