//! The broker of a cluster: Redis.
