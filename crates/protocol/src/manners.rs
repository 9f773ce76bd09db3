//! How a conversation is held, where dialects differ in that and not only in how they spell things.

use std::time::Duration;

/// The manners of a dialect: one value per dialect, for all of its conversations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Manners {
    /// Who speaks first.
    pub opening: Opening,
    /// What shows that the client is there.
    pub life: SignOfLife,
    /// What becomes of a client whose token is refused.
    pub refusal: Refusal,
    /// Whether a client may unsubscribe from what it is not subscribed to.
    pub absence: Absence,
    /// When a client may say who it is.
    pub naming: Naming,
    /// Who a client that is told who joins and leaves learns to be there already.
    pub arrival: Arrival,
    /// What becomes of a client that may have missed something on a channel.
    pub loss: Loss,
    /// What becomes of a client that tells the application something where none listens.
    pub telling: Telling,
    /// As whom its clients publish.
    pub senders: Senders,
    /// How long after its token has ended a client may take to bring another.
    pub token_grace: Duration,
}

/// Who speaks first in a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// The server greets whoever comes, or waits for a token from those who need one.
    Server,
    /// The client, by [`crate::command::Command::Open`]; whatever else comes before that ends the conversation. What its token
    /// lists is joined before it is greeted, and told of in the greeting.
    Client,
}

/// What shows that a client is there, once it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignOfLife {
    /// Any byte.
    Anything,
    /// An answer, by [`crate::command::Command::Pong`], and nothing else; one that was not asked for ends the conversation.
    Answer,
}

/// What becomes of a client whose token is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is told why. If the conversation was still to be opened, that is over then.
    Told,
    /// The conversation is over, at whatever time; only one whose token has expired is told, so that it may bring another.
    Final,
}

/// Whether it is a mistake to unsubscribe from what one is not subscribed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absence {
    /// It is refused.
    Refused,
    /// It is answered like any other.
    Fine,
}

/// When a client that has come as nobody may say who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Naming {
    /// Before it subscribes. It is greeted, and subscribed to what its token lists.
    First,
    /// At any time. It is told that it was recognised, and may hear what its token lists.
    AtAnyTime,
}

/// Who a client that is told who joins and leaves learns to be there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// Nobody: it may ask.
    Unseen,
    /// Everybody, in the answer to its subscription; and then who joins and leaves, none of them missed.
    WithCrowd,
}

/// What becomes of a client that may have missed something on a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// It is told, and subscribes anew.
    Told,
    /// It cannot be told: the conversation is over, and it comes back.
    Final,
}

/// What becomes of a client that tells the application something where none listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Telling {
    /// It is refused.
    Refused,
    /// There is no answer to what it says, so it cannot be told: the conversation is over.
    Final,
}

/// As whom clients publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Senders {
    /// As users. Of who is nobody nothing is told.
    Users,
    /// As connections, whether they are anybody's or not.
    Connections,
}

impl Manners {
    /// Those of the native dialect.
    pub const PLAIN: Self = Self {
        opening: Opening::Server,
        life: SignOfLife::Anything,
        refusal: Refusal::Told,
        absence: Absence::Refused,
        naming: Naming::First,
        arrival: Arrival::Unseen,
        loss: Loss::Told,
        telling: Telling::Refused,
        senders: Senders::Users,
        token_grace: Duration::ZERO,
    };
}
