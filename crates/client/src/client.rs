//! The near end: what an application holds.

use std::fmt::Write;
use std::sync::{Arc, OnceLock};

use data_encoding::HEXLOWER;
use serde::Serialize;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use crate::calls::{Answer, Call};
use crate::driver::Driver;
use crate::subscriber::Subscriber;
use crate::subscription::{Subscribe, Subscription};
use crate::wire::{History, Position, Presence};
use crate::{Ending, Error, Options, OptionsError, Transport};

/// The most orders that wait for the task; further ones wait for a place.
const ORDERS_MAX: usize = 256;

/// What the task is asked for.
#[derive(Debug)]
pub(crate) enum Order {
    Subscribe(String, Box<Subscriber>),
    /// Its subscription has been dropped.
    Leave(String),
    Call(Call),
    Stop,
}

/// A client of one server or cluster: a handle that may be cloned. The connection ends when all handles and subscriptions are gone.
#[derive(Clone, Debug)]
pub struct Client {
    orders: mpsc::Sender<Order>,
    options: Arc<Options>,
    node: watch::Receiver<Option<String>>,
    transport: watch::Receiver<Option<Transport>>,
    /// Set before the task takes no more orders.
    ending: Arc<OnceLock<Ending>>,
    tasks: TaskTracker,
}

impl Client {
    /// Starts the task that connects, and keeps the client connected from then on. Has to be called on a tokio runtime.
    ///
    /// # Errors
    /// The options cannot be used. That the server cannot be reached is none: the task tries again until it can.
    pub fn start(options: Options) -> Result<Self, OptionsError> {
        let target = options.target()?;
        let (orders, queue) = mpsc::channel(ORDERS_MAX);
        let (connected, node) = watch::channel(None);
        let (carried, transport) = watch::channel(None);
        let options = Arc::new(options);
        let ending = Arc::default();
        let tasks = TaskTracker::new();
        tasks.spawn(Driver::new(options.clone(), target, queue, connected, carried).run(Arc::clone(&ending)));
        tasks.close();
        Ok(Self { orders, options, node, transport, ending, tasks })
    }

    /// Subscribes to a channel, and waits until the server has confirmed it.
    ///
    /// # Errors
    /// [`Error::Refused`] when it may not be, [`Error::Timeout`] when there is no answer, [`Error::Subscribed`] when this client is
    /// subscribed to it already, and [`Error::Ended`].
    pub async fn subscribe(&self, channel: &str, how: Subscribe) -> Result<Subscription, Error> {
        let (events, heard) = mpsc::channel(self.options.queue + 1); // One place for the end.
        let (ready, is_ready) = oneshot::channel();
        let subscriber = Box::new(Subscriber::new(how, events, ready));
        // Made first: if this is dropped or times out, its own drop unsubscribes.
        let subscription = Subscription::new(channel, heard, self.orders.clone());
        self.order(Order::Subscribe(channel.to_owned(), subscriber)).await?;
        match timeout(self.options.timeout, is_ready).await {
            Ok(Ok(Ok(()))) => Ok(subscription),
            Ok(Ok(Err(error))) => Err(error),
            Ok(Err(_)) => Err(self.ended()),
            Err(_) => Err(Error::Timeout),
        }
    }

    /// Publishes data under a key of its own, which is sent again until it is answered: published once, if the channel has
    /// history.
    ///
    /// # Errors
    /// [`Error::Refused`], with 4400 where the channel has no history: there [`Client::publish`] will do. [`Error::Timeout`] when there was no
    /// answer for so long: nobody knows. [`Error::TooLarge`], [`Error::Data`], [`Error::Busy`] and [`Error::Ended`].
    pub async fn publish_once<T: Serialize + ?Sized>(
        &self,
        channel: &str,
        data: &T,
    ) -> Result<Position, Error> {
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(|error| Error::Data(error.to_string()))?;
        self.publish_as(channel, data, &HEXLOWER.encode(&random)).await
    }

    /// The same under a key that the caller has made, 1 to 128 bytes: the same key on the same channel is published once,
    /// whoever sends it.
    ///
    /// # Errors
    /// Those of [`Client::publish_once`].
    pub async fn publish_as<T: Serialize + ?Sized>(
        &self,
        channel: &str,
        data: &T,
        key: &str,
    ) -> Result<Position, Error> {
        let mut fields = publication(channel, data)?;
        field(&mut fields, "key", key)?;
        match self.call(fields, true).await? {
            Answer::Published(Some(position)) => Ok(position),
            _ => Err(Error::Unknown),
        }
    }

    /// Publishes data, and sends it no second time. Returns its position on a channel with history.
    ///
    /// # Errors
    /// Those of [`Client::publish_once`], and [`Error::Unknown`] when the connection was lost before the answer.
    pub async fn publish<T: Serialize + ?Sized>(
        &self,
        channel: &str,
        data: &T,
    ) -> Result<Option<Position>, Error> {
        match self.call(publication(channel, data)?, false).await? {
            Answer::Published(position) => Ok(position),
            _ => Err(Error::Unknown),
        }
    }

    /// Reads at most `limit` messages of the past: those after `since`, or the oldest that are kept; in reverse those before it, or the
    /// newest.
    ///
    /// # Errors
    /// [`Error::Refused`], with 4404 where the channel has no history; [`Error::Timeout`], [`Error::Busy`] and [`Error::Ended`].
    pub async fn history(
        &self,
        channel: &str,
        since: Option<&Position>,
        limit: u16,
        reverse: bool,
    ) -> Result<History, Error> {
        let mut fields = command("history", channel)?;
        field(&mut fields, "limit", &limit)?;
        field(&mut fields, "reverse", &reverse)?;
        if let Some(since) = since {
            field(&mut fields, "since", since)?;
        }
        match self.call(fields, true).await? {
            Answer::History(page) => Ok(page),
            _ => Err(Error::Unknown),
        }
    }

    /// Asks who is subscribed to a channel, or only how many.
    ///
    /// # Errors
    /// [`Error::Refused`], with 4404 where presence is off; [`Error::Timeout`], [`Error::Busy`] and [`Error::Ended`].
    pub async fn presence(&self, channel: &str, members: bool) -> Result<Presence, Error> {
        let mut fields = command("presence", channel)?;
        field(&mut fields, "members", &members)?;
        match self.call(fields, true).await? {
            Answer::Presence(presence) => Ok(presence),
            _ => Err(Error::Unknown),
        }
    }

    /// The node that the client is connected to; none while it is not, and an empty name where polls do not say it. A receiver of the
    /// changes, and of the end: it closes when the client has ended for good.
    pub fn node(&self) -> watch::Receiver<Option<String>> {
        self.node.clone()
    }

    /// By what it is connected; none while it is not. A receiver like that of [`Client::node`].
    pub fn transport(&self) -> watch::Receiver<Option<Transport>> {
        self.transport.clone()
    }

    /// Ends the client: subscriptions hear [`Event::Ended`](crate::Event::Ended), calls fail, and the server is told.
    pub async fn stop(self) {
        let _ = self.orders.send(Order::Stop).await; // It fails when the client has ended already.
        self.tasks.wait().await;
    }

    async fn call(&self, fields: String, is_repeatable: bool) -> Result<Answer, Error> {
        let (answer, answered) = oneshot::channel();
        let call = Call { fields, is_repeatable, answer };
        let calling = async {
            self.order(Order::Call(call)).await?;
            answered.await.unwrap_or_else(|_| Err(self.ended()))
        };
        timeout(self.options.timeout, calling).await.unwrap_or(Err(Error::Timeout))
    }

    async fn order(&self, order: Order) -> Result<(), Error> {
        self.orders.send(order).await.map_err(|_| self.ended())
    }

    fn ended(&self) -> Error {
        let stopped = || Ending { code: None, reason: "it was stopped".into() };
        Error::Ended(self.ending.get().cloned().unwrap_or_else(stopped))
    }
}

fn publication<T: Serialize + ?Sized>(channel: &str, data: &T) -> Result<String, Error> {
    let mut fields = command("publish", channel)?;
    field(&mut fields, "data", data)?;
    Ok(fields)
}

/// The fields of a command, as JSON without its braces.
pub(crate) fn command(kind: &str, channel: &str) -> Result<String, Error> {
    let mut fields = format!("\"type\":\"{kind}\"");
    field(&mut fields, "channel", channel)?;
    Ok(fields)
}

/// Appends a field.
pub(crate) fn field<T: Serialize + ?Sized>(fields: &mut String, name: &str, value: &T) -> Result<(), Error> {
    let value = serde_json::to_string(value).map_err(|error| Error::Data(error.to_string()))?;
    write!(fields, ",\"{name}\":{value}").expect("a string takes whatever it is given");
    Ok(())
}
