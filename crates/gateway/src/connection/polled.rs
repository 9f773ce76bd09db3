//! A connection that has no task: whoever has it polls it, and while it asks it is in the question.

use std::fmt;
use std::mem;
use std::task::{Context, Poll, ready};

use futures_util::future::BoxFuture;

use super::Connection;
use super::effects::asks_hub;
use crate::transport::Transport;

/// Where it is.
pub(super) enum Polled<T> {
    Here(Box<Connection<T>>),
    /// The hub or the backend is being asked; nothing is written meanwhile but what the question writes.
    Asking(BoxFuture<'static, Box<Connection<T>>>),
    /// It is over.
    Gone,
}

impl<T: Transport + Send + 'static> Polled<T> {
    pub(super) fn here(&mut self) -> Option<&mut Connection<T>> {
        match self {
            Self::Here(connection) => Some(connection),
            Self::Asking(_) | Self::Gone => None,
        }
    }

    /// Waits for the answer, if something is being asked.
    pub(super) fn poll_asking(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Self::Asking(asking) = self {
            let connection = ready!(asking.as_mut().poll(cx));
            *self = Self::Here(connection);
        }
        Poll::Ready(())
    }

    /// Performs what the session has decided, where something of that is to be asked; `false` where it is not.
    pub(super) fn ask(&mut self) -> bool {
        let asks = |connection: &Connection<T>| connection.effects.iter().any(asks_hub);
        if !self.here().is_some_and(|connection| asks(connection)) {
            return false;
        }
        if let Self::Here(mut connection) = mem::replace(self, Self::Gone) {
            *self = Self::Asking(Box::pin(async move {
                if let Some(asking) = connection.perform_effects() {
                    asking.await;
                }
                connection
            }));
        }
        true
    }
}

impl<T> fmt::Debug for Polled<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Here(_) => "Here",
            Self::Asking(_) => "Asking",
            Self::Gone => "Gone",
        })
    }
}
