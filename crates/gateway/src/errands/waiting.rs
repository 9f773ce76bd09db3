//! Who waits for what other nodes answer, by the number that each question has.

use std::collections::HashMap;

use parking_lot::Mutex;

/// Those that wait, at most so many; what each of them is told by is a `T`.
#[derive(Debug)]
pub(crate) struct Waiting<T> {
    most: usize,
    asked: Mutex<HashMap<u64, T>>,
}

/// A question that is waited for until this is dropped.
pub(crate) struct Asked<'a, T> {
    pub(crate) id: u64,
    waiting: &'a Waiting<T>,
}

impl<T> Waiting<T> {
    pub(crate) fn new(most: usize) -> Self {
        Self { most, asked: Mutex::default() }
    }

    /// Waits for an answer from now on; not where too many do.
    pub(crate) fn begin(&self, asker: T) -> Option<Asked<'_, T>> {
        let mut asked = self.asked.lock();
        if asked.len() >= self.most {
            return None;
        }
        // Who guesses it could answer, and whoever may publish between nodes could do worse.
        let id = fastrand::u64(..);
        asked.insert(id, asker);
        Some(Asked { id, waiting: self })
    }

    /// Whoever has asked this, for the one answer that it gets; nobody, where it has given up.
    pub(crate) fn take(&self, id: u64) -> Option<T> {
        self.asked.lock().remove(&id)
    }

    /// The same where more answers may come.
    pub(crate) fn with(&self, id: u64, tell: impl FnOnce(&T)) {
        if let Some(asker) = self.asked.lock().get(&id) {
            tell(asker);
        }
    }
}

impl<T> Drop for Asked<'_, T> {
    fn drop(&mut self) {
        self.waiting.asked.lock().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_waited_for_until_it_is_answered_or_given_up() {
        let waiting = Waiting::new(2);
        let (one, two) = (waiting.begin(1).unwrap(), waiting.begin(2).unwrap());
        assert!(waiting.begin(3).is_none(), "so many and no more");
        let mut heard = 0;
        waiting.with(one.id, |it| heard = *it);
        assert_eq!((heard, waiting.take(one.id), waiting.take(one.id)), (1, Some(1), None));
        let id = two.id;
        drop((one, two));
        assert_eq!(waiting.take(id), None, "given up");
        assert!(waiting.begin(3).is_some());
    }
}
