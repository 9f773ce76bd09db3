//! What nodes ask of Redis while nothing happens.

use fanfare_protocol::command::Start;
use fanfare_protocol::session::Terms;
use fanfare_protocol::websocket::Frame;
use fanfare_protocol::{Encoding, SessionId};

use super::*;
use crate::follower::LOOKS_APART;
use crate::outbox::Outbox;
use crate::{Hub, HubOptions};

const QUIET: u64 = 1_000;

/// The calls that are made of the broker to find out where streams stand: at most one per look and 512 channels.
const CHECKS: &str = "fanfare_broker_call_seconds_count{call=\"history\"}";

/// A node with subscribers on as many channels with history as there are, all of them quiet.
async fn quiet_node(redis: &RealRedis) -> Arc<Hub> {
    let (lanes, ends) = Lanes::new(1, 1024);
    let (metrics, shutdown) = (redis.metrics.clone(), redis.shutdown.clone());
    let broker = RedisBroker::connect(&redis.options(), &lanes, metrics, &redis.tasks, shutdown).unwrap();
    let options = HubOptions {
        broker_timeout: DEADLINE,
        check_interval: Duration::from_millis(50),
        now: || fanfare_protocol::time::UnixMicros(0),
    };
    let hub = Hub::start(Arc::new(broker), ends, redis.metrics.clone(), &redis.tasks, options);
    eventually("the link is up", async || hub.link() == Link::Up).await;
    let outbox = Outbox::new(SessionId::from_random([1; 16]), Encoding::NativeJson, 1 << 20);
    let joining = (0..QUIET).map(async |number| {
        let terms = Terms { start: Start::Live, history: true, ..Terms::default() };
        let room = channel(&format!("quiet:{number}"));
        hub.subscribe(&room, &outbox, terms).await.unwrap().expect("it has history");
        hub.go_live(&room, &outbox, Frame::text("{}"));
    });
    join_all(joining).await;
    hub
}

/// A look asks about a few of them, by one command each.
#[tokio::test]
async fn a_thousand_quiet_channels_cost_redis_a_few_commands_a_look() {
    let redis = RealRedis::start().await;
    let _hubs = [quiet_node(&redis).await, quiet_node(&redis).await];
    let looks_pass = async |looks: u64| {
        let until = redis.counted(CHECKS) + looks;
        eventually("looks pass", async || redis.counted(CHECKS) >= until).await;
    };
    looks_pass(2 * u64::from(LOOKS_APART)).await; // They have been quiet for a while.
    let (looked, commands) = (redis.counted(CHECKS), redis.server.commands().await);
    looks_pass(10 * u64::from(LOOKS_APART)).await;
    let commands = redis.server.commands().await - commands;
    let looks = redis.counted(CHECKS) - looked;
    let fair = looks * QUIET / u64::from(LOOKS_APART);
    assert!(commands >= fair * 3 / 4, "{commands} commands in {looks} looks: they are not compared");
    assert!(commands <= fair * 5 / 4, "{commands} commands in {looks} looks, and {fair} would be fair");
}
