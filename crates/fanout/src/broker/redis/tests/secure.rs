//! Servers that speak TLS.

use fanfare_testbed::{Authority, RedisCluster, RedisSentinels, SHARDS};

use super::*;
use crate::broker::redis::keys::slot;

impl RealRedis {
    fn trusting(&self, authority: &Authority, mode: RedisMode, urls: Vec<String>) -> RedisOptions {
        let tls = Some(Arc::new(authority.client(&[], None)));
        RedisOptions { mode, urls, tls, ..self.options() }
    }
}

#[tokio::test]
async fn over_tls_a_server_is_used_that_an_authority_vouches_for_and_no_other() {
    let (known, unknown) = (Authority::new(), Authority::new());
    let redis = RealRedis::on(RedisServer::start_secure(&known, &[]).await);
    let urls = vec![redis.server.url()];
    assert!(urls[0].starts_with("rediss://"), "{urls:?}");
    let mut node = redis.join_with(&redis.trusting(&known, RedisMode::Single, urls.clone()));
    node.is_up().await;
    node.watch("a").await;
    node.hears_again("a").await;
    let doubting = redis.trusting(&unknown, RedisMode::Single, urls);
    let stranger = redis.join_with(&doubting);
    assert!(matches!(stranger.publish("a", 1).await, Err(BrokerError::Unavailable(_))));
    assert_eq!(stranger.broker.link(), Link::Down);
    let servers = RedisServers::find(&doubting, "test", redis.metrics.clone(), &redis.tasks).unwrap();
    let refused = servers.way("a").line().await.unwrap_err().to_string();
    assert!(refused.contains("invalid peer certificate"), "{refused}");
}

#[tokio::test]
async fn a_primary_that_sentinels_name_is_spoken_to_over_tls_and_so_is_who_replaces_it() {
    let authority = Authority::new();
    let servers = RedisSentinels::start_secure(&authority).await;
    let nodes = RealRedis::on(RedisServer::reserve());
    let mode = RedisMode::Sentinel { primary: servers.name().to_owned() };
    let mut node = nodes.join_with(&nodes.trusting(&authority, mode, servers.urls()));
    node.is_up().await;
    node.watch("a").await;
    node.hears_again("a").await;
    servers.are_ready().await;
    servers.fail_over().await;
    node.hears_again("a").await;
}

#[tokio::test]
async fn every_node_of_a_cluster_is_spoken_to_over_tls() {
    let authority = Authority::new();
    let servers = RedisCluster::start_secure(&authority).await;
    let nodes = RealRedis::on(RedisServer::reserve());
    let urls = vec![servers.urls()[0].clone()];
    let mut node = nodes.join_with(&nodes.trusting(&authority, RedisMode::Cluster, urls));
    node.is_up().await;
    for shard in 0..SHARDS {
        let slots = RedisCluster::first_slot(shard)..RedisCluster::first_slot(shard + 1);
        let mut names = (0..).map(|it| format!("room:{it}"));
        let name = names.find(|name| slots.contains(&usize::from(slot(&channel(name)))));
        let name = name.expect("there are enough names");
        node.watch(&name).await;
        node.hears_again(&name).await;
    }
}

#[tokio::test]
async fn tls_is_for_all_servers_or_for_none() {
    let (redis, authority) = (RealRedis::on(RedisServer::reserve()), Authority::new());
    let urls = ["redis://127.0.0.1:1", "rediss://127.0.0.1:2"].map(str::to_owned).to_vec();
    let options = redis.trusting(&authority, RedisMode::Sharded, urls);
    assert_eq!(options.check(), Err(RedisOptionsError::Mixed));
    let urls = vec!["rediss://user:p%23ss@a:1/2".to_owned()];
    assert_eq!(redis.trusting(&authority, RedisMode::Single, urls).check(), Ok(()));
}
