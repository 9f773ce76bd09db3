//! Values that are one of a few words: the enum and its words in one declaration.

/// Declares an enum whose variants are spelt in the configuration.
macro_rules! choice {
    ($(#[$outer:meta])* pub enum $name:ident { $($(#[$inner:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$outer])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name {
            $($(#[$inner])* $variant,)+
        }

        impl $name {
            pub(super) const WORDS: &'static [&'static str] = &[$($word),+];
            const VARIANTS: &'static [Self] = &[$(Self::$variant),+];

            /// The word that the configuration uses.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }

            /// The variant of a word that was checked against [`Self::WORDS`].
            pub(super) fn of(word: &str) -> Self {
                let variant = Self::VARIANTS.iter().copied().find(|it| it.as_str() == word);
                variant.expect("a checked word names a variant")
            }
        }
    };
}

choice! {
    /// What carries publications between the nodes.
    pub enum BrokerKind {
        /// Nothing: one node, alone.
        Memory = "memory",
        /// Redis publish/subscribe.
        Redis = "redis",
    }
}

choice! {
    /// How the Redis servers are arranged.
    pub enum RedisMode {
        /// One server.
        Single = "single",
        /// A primary and replicas, watched by Sentinels.
        Sentinel = "sentinel",
        /// Redis Cluster.
        Cluster = "cluster",
        /// Several independent servers, channels spread over them.
        Sharded = "sharded",
    }
}

choice! {
    /// How the Redis servers of a consumer are arranged.
    pub enum SourceMode {
        /// One server.
        Single = "single",
        /// A primary and replicas, watched by Sentinels.
        Sentinel = "sentinel",
        /// Redis Cluster.
        Cluster = "cluster",
    }
}

choice! {
    /// Who may publish to the channels of a namespace.
    pub enum PublishBy {
        /// No client: the server API alone.
        None = "none",
        /// Clients that are subscribed to the channel.
        Subscribers = "subscribers",
        /// Every client.
        Anyone = "anyone",
    }
}

choice! {
    /// Who may subscribe to the channels of a namespace.
    pub enum SubscribeBy {
        /// Clients whose token names the channel.
        Token = "token",
        /// Clients with a user.
        Authenticated = "authenticated",
        /// Every client.
        Anyone = "anyone",
    }
}

choice! {
    /// What a caller of the server API may do.
    pub enum Scope {
        /// Publish.
        Publish = "publish",
        /// Ask what there is: history, presence, channels, connections, nodes.
        Read = "read",
        /// Everything.
        Admin = "admin",
    }
}

choice! {
    /// What holds while a backend does not answer.
    pub enum OnFailure {
        /// Nobody may do what it would have been asked about.
        Refuse = "refuse",
        /// Whoever may by the rules and by its token.
        Allow = "allow",
    }
}

choice! {
    /// What becomes of a subscriber that reads too slowly.
    pub enum SlowSubscriber {
        /// It is disconnected, and may recover what it missed.
        Disconnect = "disconnect",
        /// The oldest publications that wait for it give way.
        DropOldest = "drop_oldest",
        /// Only the newest publication of a channel waits for it.
        Conflate = "conflate",
    }
}

choice! {
    /// The oldest version of TLS that is spoken.
    pub enum TlsVersion {
        /// RFC 5246.
        V1_2 = "1.2",
        /// RFC 8446.
        V1_3 = "1.3",
    }
}

choice! {
    /// Whether clients have to present a certificate, where they are asked for one.
    pub enum ClientCertificates {
        /// Those without one are not let in.
        Required = "required",
        /// Those without one are let in; a wrong one is refused.
        Optional = "optional",
    }
}

choice! {
    /// How log lines are written.
    pub enum LogFormat {
        /// For people.
        Text = "text",
        /// One JSON object a line.
        Json = "json",
    }
}

choice! {
    /// The header in which proxies say for whom they speak.
    pub enum ForwardedBy {
        /// `X-Forwarded-For`: addresses, the nearest last.
        XForwardedFor = "x-forwarded-for",
        /// `Forwarded` (RFC 7239).
        Forwarded = "forwarded",
    }
}

choice! {
    /// A limit that can be tried without being enforced: none of these is what bounds memory.
    pub enum Trial {
        /// All of them.
        All = "all",
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
        /// `limits.channels`
        Channels = "channels",
        /// `limits.batch`
        Batch = "batch",
        /// `limits.json_depth`
        JsonDepth = "json_depth",
    }
}

choice! {
    /// What the backend is told of.
    pub enum EventKind {
        /// A conversation has been opened.
        Connected = "connected",
        /// It is over.
        Disconnected = "disconnected",
        /// The first has come to a channel.
        Occupied = "occupied",
        /// The last has left it.
        Vacated = "vacated",
    }
}

choice! {
    /// What an application is told of.
    pub enum AppEvent {
        /// The first has come to a channel, the last has left it.
        ChannelExistence = "channel_existence",
        /// Users come to presence channels, and leave.
        Presence = "presence",
        /// What clients publish.
        ClientEvents = "client_events",
        /// Nothing was kept for who subscribes to a cache channel.
        CacheMisses = "cache_channels",
        /// How many are subscribed.
        SubscriptionCount = "subscription_count",
    }
}
