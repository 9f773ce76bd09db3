//! Labels are enums: a value that is not in the list cannot be spelt, so a series cannot be made by a client.

/// A label whose values are the variants of an enum.
pub(crate) trait Label: Copy + Into<usize> + 'static {
    /// The label's name in Prometheus.
    const NAME: &'static str;
    /// What the variants are called there, in the order of their discriminants.
    const VALUES: &'static [&'static str];

    /// What this variant is called there.
    fn value(self) -> &'static str {
        Self::VALUES[self.into()]
    }
}

/// The labels of one metric family: none of them has more combinations than its enums multiply to.
pub(crate) trait Labels: Copy {
    /// Name and possible values of each label, in the order in which they are declared.
    const COLUMNS: &'static [(&'static str, &'static [&'static str])];
    /// The place of this combination among all of them, the last label varying fastest.
    fn index(self) -> usize;
}

impl<L: Label> Labels for L {
    const COLUMNS: &'static [(&'static str, &'static [&'static str])] = &[(L::NAME, L::VALUES)];

    fn index(self) -> usize {
        self.into()
    }
}

impl<A: Label, B: Label> Labels for (A, B) {
    const COLUMNS: &'static [(&'static str, &'static [&'static str])] =
        &[(A::NAME, A::VALUES), (B::NAME, B::VALUES)];

    fn index(self) -> usize {
        self.0.into() * B::VALUES.len() + self.1.into()
    }
}

/// Declares an enum, its label's name and its values in one place.
macro_rules! label {
    ($(#[$outer:meta])* $vis:vis enum $name:ident as $label:literal {
        $($(#[$inner:meta])* $variant:ident = $value:literal,)+
    }) => {
        $(#[$outer])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        $vis enum $name {
            $($(#[$inner])* $variant,)+
        }

        impl From<$name> for usize {
            fn from(it: $name) -> Self {
                it as Self
            }
        }

        impl Label for $name {
            const NAME: &'static str = $label;
            const VALUES: &'static [&'static str] = &[$($value),+];
        }
    };
}

label! {
    /// Why an upgrade was refused.
    pub enum Refusal as "reason" {
        /// 400: the handshake breaks RFC 6455.
        BadRequest = "bad_request",
        /// 401: the request carried a token that was refused.
        Unauthorized = "unauthorized",
        /// 403: the page's origin is not on the list.
        ForbiddenOrigin = "forbidden_origin",
        /// 404: nothing is served at this path.
        NotFound = "not_found",
        /// 426: another version of WebSocket was asked for.
        BadVersion = "bad_version",
        /// 429: the address has too many connections or opens them too fast.
        TooManyFromAddress = "too_many_from_address",
        /// 429: the user has too many connections.
        TooManyOfUser = "too_many_of_user",
        /// 503: clients come faster than the node may let them in.
        TooManyAtOnce = "too_many_at_once",
        /// What ought to begin with a header of the PROXY protocol did not.
        BadProxyHeader = "bad_proxy_header",
        /// 503: the node is draining.
        Draining = "draining",
        /// 503: the node does not know yet which tokens are revoked.
        NotReady = "not_ready",
        /// 503: the node is full.
        AtCapacity = "at_capacity",
        /// The request head did not arrive in time.
        HeaderTimeout = "header_timeout",
        /// Anything else.
        Other = "other",
    }
}

label! {
    /// A bound that can be met.
    pub enum Limit as "limit" {
        /// `limits.connections`, and the sockets beyond it.
        Sockets = "sockets",
        /// `limits.connections`
        Connections = "connections",
        /// `limits.connections_per_ip`
        ConnectionsPerIp = "connections_per_ip",
        /// `limits.connections_per_user`
        ConnectionsPerUser = "connections_per_user",
        /// `limits.handshakes_per_second`
        Handshakes = "handshakes_per_second",
        /// `limits.handshakes_per_second_per_ip`
        HandshakesPerIp = "handshakes_per_second_per_ip",
        /// `limits.messages_per_second`
        Messages = "messages_per_second",
        /// `namespaces.<name>.rate`
        Rate = "rate",
        /// `namespaces.<name>.max_bytes`
        MaxBytes = "max_bytes",
        /// `limits.channels`
        Channels = "channels",
        /// `limits.batch`
        Batch = "batch",
        /// `limits.json_depth`
        JsonDepth = "json_depth",
        /// `limits.message_bytes`
        MessageBytes = "message_bytes",
        /// `limits.queue_bytes`
        QueueBytes = "queue_bytes",
    }
}

label! {
    /// What came of meeting a bound.
    pub enum Enforcement as "mode" {
        /// It was enforced.
        Refused = "refused",
        /// It is in `limits.dry_run`: all went on.
        WouldRefuse = "would_refuse",
    }
}

label! {
    /// What came of handing a post on to the node of its ticket.
    pub enum Errand as "outcome" {
        /// That node has said what came of it.
        Answered = "answered",
        /// It has not in time, or it could not be asked.
        Unanswered = "unanswered",
        /// Too many of the client's, or of all, were waited for.
        NoRoom = "no_room",
    }
}

label! {
    /// A version of HTTP.
    pub enum HttpVersion as "http" {
        /// HTTP/1.1: the WebSocket has taken over the socket of its request.
        Http1 = "1.1",
        /// HTTP/2: the WebSocket is one of a socket's streams.
        Http2 = "2",
    }
}

label! {
    /// What carries a connection.
    pub enum Carrier as "transport" {
        /// A WebSocket.
        WebSocket = "websocket",
        /// Server-Sent Events.
        Events = "sse",
        /// Lines of JSON in the body of one response.
        Lines = "stream",
        /// The wait for one answer: each poll is a connection of its own.
        Poll = "poll",
    }
}

label! {
    /// How a TLS handshake ended.
    pub enum TlsHandshake as "outcome" {
        /// With keys agreed on anew.
        Full = "full",
        /// With a ticket of an earlier one, at a fraction of the cost.
        Resumed = "resumed",
        /// The peer spoke something else than TLS.
        NotTls = "not_tls",
        /// One side did not accept the other: no version or cipher in common, an unknown authority, a missing certificate.
        Refused = "refused",
        /// The peer left, or the socket failed.
        Gone = "gone",
        /// It was not over in time.
        Timeout = "timeout",
    }
}

label! {
    /// One of a node's two listeners.
    pub enum Listener as "listener" {
        /// For clients.
        Public = "public",
        /// For metrics and the server API.
        Internal = "internal",
    }
}

label! {
    /// Why a token was refused.
    pub enum TokenRefusal as "reason" {
        /// It is no token that can be read.
        Malformed = "malformed",
        /// No key is for its algorithm.
        Algorithm = "algorithm",
        /// No key has signed it.
        Signature = "signature",
        /// It names a key that its issuer does not have.
        UnknownKey = "unknown_key",
        /// It is over.
        Expired = "expired",
        /// It has not begun.
        NotYetValid = "not_yet_valid",
        /// It is by another issuer.
        Issuer = "issuer",
        /// It is for another audience.
        Audience = "audience",
        /// It has been revoked.
        Revoked = "revoked",
        /// A claim is not what it ought to be.
        Claims = "claims",
    }
}

label! {
    /// What a client asked for.
    pub enum Command as "command" {
        /// Presents a token.
        Auth = "auth",
        /// Joins a channel.
        Subscribe = "subscribe",
        /// Leaves a channel.
        Unsubscribe = "unsubscribe",
        /// Publishes to a channel.
        Publish = "publish",
        /// Asks who is there.
        Presence = "presence",
        /// Asks what was said.
        History = "history",
        /// Has the backend do something, or tells it something.
        Call = "call",
        /// Asks for a sign of life.
        Ping = "ping",
        /// A type that the protocol does not know.
        Unknown = "unknown",
    }
}

label! {
    /// Which call of the broker was made.
    pub enum BrokerCall as "call" {
        /// Hands over a publication.
        Publish = "publish",
        /// Starts hearing a channel.
        Watch = "watch",
        /// Stops hearing a channel.
        Unwatch = "unwatch",
        /// Reads or removes what was published, or asks where streams stand.
        History = "history",
        /// Asks whether the broker lives.
        Ping = "ping",
        /// Reads or writes who is on channels, tells that the node lives, or clears after one that does not.
        Presence = "presence",
    }
}

/// How a call of the broker ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As it should.
    Ok,
    /// The broker could not be reached, or refused.
    Unavailable,
    /// The broker did not answer before the call's deadline.
    Timeout,
}

label! {
    /// The outcomes that are errors: `ok` would be a series that never moves.
    pub(crate) enum Failure as "outcome" {
        Unavailable = "unavailable",
        Timeout = "timeout",
    }
}

impl Outcome {
    pub(crate) fn failure(self) -> Option<Failure> {
        match self {
            Self::Ok => None,
            Self::Unavailable => Some(Failure::Unavailable),
            Self::Timeout => Some(Failure::Timeout),
        }
    }
}

label! {
    /// By which policy of its channel a publication was not sent to a slow client.
    pub enum Sacrifice as "policy" {
        /// It gave way to others when the queue was full.
        DropOldest = "drop_oldest",
        /// A newer one of its channel replaced it.
        Conflate = "conflate",
    }
}

label! {
    /// Where a consumer fetches publications.
    pub enum Source as "source" {
        /// A Redis Stream.
        RedisStream = "redis_stream",
        /// A table of PostgreSQL.
        Postgres = "postgres",
    }
}

label! {
    /// What became of an entry that a consumer has read.
    pub enum Consumed as "outcome" {
        /// The broker has taken it.
        Accepted = "accepted",
        /// The broker has not taken it: it is read again.
        Deferred = "deferred",
        /// Nobody could publish it: it was put aside or dropped.
        Refused = "refused",
    }
}

label! {
    /// Which method of the server API was called.
    pub enum ApiMethod as "method" {
        /// `POST /api/publish`.
        Publish = "publish",
        /// `POST /api/presence`.
        Presence = "presence",
        /// `POST /api/history`.
        History = "history",
        /// `POST /api/channels`.
        Channels = "channels",
        /// `POST /api/disconnect`.
        Disconnect = "disconnect",
        /// `POST /api/revoke`.
        Revoke = "revoke",
        /// `POST /api/refresh`.
        Refresh = "refresh",
        /// `POST /api/history/remove`.
        RemoveHistory = "history_remove",
        /// `POST /api/subscribe`.
        Subscribe = "subscribe",
        /// `POST /api/unsubscribe`.
        Unsubscribe = "unsubscribe",
        /// `POST /api/connections`.
        Connections = "connections",
        /// `POST /api/nodes`.
        Nodes = "nodes",
        /// `POST /api/rpc`.
        Call = "call",
        /// `POST /api/batch`.
        Batch = "batch",
        /// `POST /api/ingest`.
        Ingest = "ingest",
        /// `POST /api/log`.
        Log = "log",
        /// Looking on while a channel or a user is served.
        Trace = "trace",
        /// A path under `/api/` that does not exist.
        Other = "other",
    }
}

label! {
    /// An HTTP status by its class.
    pub(crate) enum StatusClass as "status" {
        Success = "2xx",
        Client = "4xx",
        Server = "5xx",
        Other = "other",
    }
}

impl StatusClass {
    pub(crate) fn of(status: u16) -> Self {
        match status / 100 {
            2 => Self::Success,
            4 => Self::Client,
            5 => Self::Server,
            _ => Self::Other,
        }
    }
}

/// The labels that call sites name can be spelt in logs too.
macro_rules! spelt {
    ($($name:ident)+) => {$(
        impl $name {
            /// The label's value in Prometheus.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                self.value()
            }
        }
    )+};
}

spelt! { Refusal Command BrokerCall ApiMethod Listener Hook HookOutcome }

/// Declares a label whose values are numbers and `other`, and the way from a number to its variant.
macro_rules! code_label {
    ($(#[$outer:meta])* $vis:vis enum $name:ident { $($variant:ident = $value:literal,)+ }) => {
        label! {
            $(#[$outer])*
            $vis enum $name as "code" {
                $($variant = $value,)+
                Other = "other",
            }
        }

        impl $name {
            const NUMBERED: &'static [Self] = &[$(Self::$variant),+];

            /// The variant of this number. The lists are short and read once per close or error: a walk will do.
            $vis fn of(code: u16) -> Self {
                let named = |it: &Self| it.value().parse() == Ok(code);
                Self::NUMBERED.iter().copied().find(named).unwrap_or(Self::Other)
            }
        }
    };
}

code_label! {
    /// The codes a connection may end with.
    pub(crate) enum CloseCode {
        Normal = "1000",
        GoingAway = "1001",
        ProtocolError = "1002",
        UnsupportedData = "1003",
        Abnormal = "1006",
        InvalidPayload = "1007",
        TooBig = "1009",
        Internal = "1011",
        TryAgainLater = "1013",
        BadRequest = "4400",
        Unauthorized = "4401",
        Forbidden = "4403",
        HeartbeatTimeout = "4408",
        LimitReached = "4422",
        RateLimited = "4429",
        SlowConsumer = "4508",
    }
}

code_label! {
    /// The codes a command may be refused with.
    pub(crate) enum RefusalCode {
        BadRequest = "4400",
        Unauthorized = "4401",
        Forbidden = "4403",
        NotFound = "4404",
        Conflict = "4409",
        Gap = "4410",
        TooLarge = "4413",
        LimitReached = "4422",
        RateLimited = "4429",
        Unavailable = "4503",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_its_own_value_and_the_rest_share_one() {
        for code in 0..=u16::MAX {
            let value = CloseCode::of(code).value();
            assert!(value == code.to_string() || value == "other", "{code} became {value}");
        }
        assert_eq!(CloseCode::of(1006), CloseCode::Abnormal);
        assert_eq!(CloseCode::of(4508).value(), "4508");
        assert_eq!(CloseCode::of(3000), CloseCode::Other);
        assert_eq!(RefusalCode::of(4404).value(), "4404");
        assert_eq!(RefusalCode::of(4508), RefusalCode::Other);
    }

    #[test]
    fn pairs_of_labels_have_distinct_places() {
        use BrokerCall::{History, Ping, Presence, Publish, Unwatch, Watch};
        let places: Vec<_> = [Publish, Watch, Unwatch, History, Ping, Presence]
            .into_iter()
            .flat_map(|call| [(call, Failure::Unavailable), (call, Failure::Timeout)])
            .map(Labels::index)
            .collect();
        assert_eq!(places, (0..12).collect::<Vec<_>>());
    }
}

label! {
    /// A part of a publication's way.
    pub enum Stage as "stage" {
        /// From the gateway's receiving it to the broker's accepting it, where both are this node's.
        Accepted = "accepted",
        /// From the gateway's receiving it to this node's hearing it, where it is this node's.
        Heard = "heard",
        /// From this node's hearing it to a subscriber's socket taking it.
        Written = "written",
    }
}

label! {
    /// What came of a client's coming back for what it had missed.
    pub enum Recovery as "outcome" {
        /// All of it follows.
        Recovered = "recovered",
        /// Some of it is gone: the client was told.
        Lost = "lost",
        /// A subscriber that was live was told that its place is lost.
        Gap = "gap",
    }
}

label! {
    /// How much waits for a connection.
    pub enum Queue as "messages" {
        /// Nothing.
        Empty = "0",
        /// A few.
        Few = "1-9",
        /// More.
        Tens = "10-99",
        /// Many.
        Hundreds = "100-999",
        /// More than that.
        Thousands = "1000+",
    }
}

label! {
    /// How many bytes wait for a connection.
    pub enum QueueBytes as "bytes" {
        /// None.
        Empty = "0",
        /// Less than 1 KiB.
        Bytes = "<1KiB",
        /// Less than 16 KiB.
        Little = "<16KiB",
        /// Less than 256 KiB.
        Some = "<256KiB",
        /// More than that.
        Much = "256KiB+",
    }
}

label! {
    /// What became of spans.
    pub enum SpanOutcome as "outcome" {
        /// A collector has them.
        Exported = "exported",
        /// There was no room for them.
        Dropped = "dropped",
        /// No collector has taken them.
        Failed = "failed",
    }
}

label! {
    /// What the node asks of somebody else's server.
    pub enum Purpose as "purpose" {
        /// The keys that tokens are held against.
        Keys = "keys",
        /// What a client may do.
        Hook = "hook",
        /// To take note of something.
        Webhook = "webhook",
        /// To keep what was recorded.
        Spans = "spans",
    }
}

label! {
    /// What the backend is asked about.
    pub enum Hook as "hook" {
        /// Who a client is.
        Connect = "connect",
        /// Whether clients are still welcome; one for many of them.
        Refresh = "refresh",
        /// A subscription.
        Subscribe = "subscribe",
        /// A publication.
        Publish = "publish",
        /// What a client wants to be done.
        Call = "call",
    }
}

label! {
    /// What came of a question to the backend.
    pub enum HookOutcome as "outcome" {
        /// It has nothing against it.
        Allowed = "allowed",
        /// It has.
        Refused = "refused",
        /// Its answer cannot be understood, or contradicts itself.
        Unreadable = "unreadable",
        /// It has not answered, or not with success.
        Failed = "failed",
        /// It was not asked: it had failed too often, or too many questions were under way.
        NotAsked = "not_asked",
        /// The client has gone meanwhile.
        Abandoned = "abandoned",
    }
}

label! {
    /// What became of an event that a backend was to be told.
    pub enum EventOutcome as "outcome" {
        /// The backend has taken it.
        Delivered = "delivered",
        /// It has not, for as long as it was tried.
        GivenUp = "given_up",
        /// Too many waited already.
        Overflowed = "overflowed",
    }
}

label! {
    /// What came of a request to somebody else's server.
    pub enum Answered as "outcome" {
        /// An answer of success.
        Ok = "ok",
        /// An answer of another status.
        Status = "status",
        /// No whole answer in time.
        Timeout = "timeout",
        /// An answer over its bound.
        TooLarge = "too_large",
        /// No connection, or one that broke.
        Transport = "transport",
        /// Not sent: too many were under way.
        Busy = "busy",
        /// Not sent: the server has failed too often in a row.
        BreakerOpen = "breaker_open",
    }
}
