//! A book that can be frozen, cut off, or robbed of its answers, as one node sees it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fanfare_fanout::broker::BrokerError;
use fanfare_fanout::presence::{After, Beat, Change, Debt, Presence, Seat, Writer};
use fanfare_protocol::Channel;
use fanfare_protocol::event::Crowd;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::watch;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// Every call waits, as the calls of a stopped process do.
    Frozen,
    /// Every call fails.
    Cut,
    /// Writes are done, and nobody hears that they were.
    Deaf,
}

#[derive(Debug)]
pub(crate) struct Faulty {
    book: Arc<dyn Presence>,
    fault: watch::Sender<Fault>,
    pub(crate) reads: AtomicU64,
    pub(crate) writes: AtomicU64,
}

impl Faulty {
    pub(crate) fn new(book: Arc<dyn Presence>) -> Arc<Self> {
        let fault = watch::Sender::new(Fault::None);
        Arc::new(Self { book, fault, reads: AtomicU64::new(0), writes: AtomicU64::new(0) })
    }

    /// How often it was asked to write.
    pub(crate) fn writes(&self) -> u64 {
        self.writes.load(Ordering::Relaxed)
    }

    pub(crate) fn set(&self, fault: Fault) {
        self.fault.send_replace(fault);
    }

    async fn pass(&self) -> Result<(), BrokerError> {
        let mut fault = self.fault.subscribe();
        match *fault.wait_for(|it| *it != Fault::Frozen).await.unwrap() {
            Fault::Cut => Err(BrokerError::Unavailable("cut off".into())),
            Fault::None | Fault::Deaf | Fault::Frozen => Ok(()),
        }
    }
}

impl Presence for Faulty {
    fn write(&self, writer: Writer, changes: Vec<Change>) -> BoxFuture<'_, Result<Vec<After>, BrokerError>> {
        async move {
            self.pass().await?;
            self.writes.fetch_add(1, Ordering::Relaxed);
            let answer = self.book.write(writer, changes).await;
            match *self.fault.borrow() {
                Fault::Deaf => Err(BrokerError::Timeout(Duration::ZERO)),
                _ => answer,
            }
        }
        .boxed()
    }

    fn channels(&self) -> BoxFuture<'_, Result<Vec<Channel>, BrokerError>> {
        async move {
            self.pass().await?;
            self.book.channels().await
        }
        .boxed()
    }

    fn beat(&self, seat: Seat, ttl: Duration, new: bool) -> BoxFuture<'_, Result<Beat, BrokerError>> {
        async move {
            self.pass().await?;
            self.book.beat(seat, ttl, new).await
        }
        .boxed()
    }

    fn sweep(&self) -> BoxFuture<'_, Result<bool, BrokerError>> {
        async move {
            self.pass().await?;
            self.book.sweep().await
        }
        .boxed()
    }

    fn crowd(&self, channel: Channel, members: bool) -> BoxFuture<'_, Result<Crowd, BrokerError>> {
        async move {
            self.pass().await?;
            self.reads.fetch_add(1, Ordering::Relaxed);
            self.book.crowd(channel, members).await
        }
        .boxed()
    }

    fn settle(&self, told: Vec<(Debt, Option<u64>)>) -> BoxFuture<'_, Result<Vec<Option<u64>>, BrokerError>> {
        async move {
            self.pass().await?;
            self.book.settle(told).await
        }
        .boxed()
    }
}
