use fanfare_testbed::Samples;

use super::*;
use crate::config::{self, Source};

fn limits(change: impl FnOnce(&mut Limits)) -> Limits {
    let mut limits = config::load(&Source::default()).unwrap().limits;
    change(&mut limits);
    limits
}

fn connections(most: usize) -> Limits {
    limits(|it| it.connections = most.try_into().unwrap())
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

#[test]
fn a_place_is_free_again_when_dropped() {
    let (admission, metrics, limits) = (Admission::default(), Metrics::new(), connections(2));
    let enter = || admission.connection(HERE, &limits, &metrics);
    let (first, second) = (enter().unwrap(), enter().unwrap());
    assert_eq!(enter().unwrap_err(), NoRoom::Node);
    drop(first);
    let third = enter().unwrap();
    assert_eq!(enter().unwrap_err(), NoRoom::Node);
    drop((second, third));
    assert!(enter().is_ok());
}

#[test]
fn a_bound_below_what_is_open_lets_nobody_in_until_enough_have_gone() {
    let (admission, metrics) = (Admission::default(), Metrics::new());
    let enter = |most| admission.connection(HERE, &connections(most), &metrics);
    let mut places: Vec<_> = (0..3).map(|_| enter(3).unwrap()).collect();
    assert!(enter(4).is_ok(), "a raised bound has room");
    for _ in 0..2 {
        assert!(enter(2).is_err());
        places.pop();
    }
    assert!(enter(2).is_ok());
}

#[test]
fn sockets_have_room_beyond_the_connections() {
    let (admission, metrics, limits) = (Admission::default(), Metrics::new(), connections(2));
    let sockets: Vec<_> = std::iter::from_fn(|| admission.socket(&limits, &metrics)).collect();
    assert_eq!(sockets.len(), 2 + SPARE_SOCKETS);
    let refused = "fanfare_limit_exceeded_total{limit=\"sockets\",mode=\"refused\"}";
    assert!((Samples::parse(&metrics.render()).value(refused) - 1.0).abs() < 0.5);
}

/// IPv4 by the whole address, whatever it is dressed in; IPv6 by its network.
#[test]
fn clients_are_told_apart_by_address_or_network() {
    let (admission, metrics) = (Admission::default(), Metrics::new());
    let limits = limits(|it| it.connections_per_ip = NonZeroU32::new(1));
    let enter = |text| admission.connection(address(text), &limits, &metrics);
    let _places = ["192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8:0:1::1"].map(|it| enter(it).unwrap());
    for taken in ["192.0.2.1", "::ffff:192.0.2.2", "2001:db8::2", "2001:db8:0:1:ffff::"] {
        assert_eq!(enter(taken).unwrap_err(), NoRoom::Address, "{taken}");
    }
    assert_eq!(admission.open.count.load(Ordering::Relaxed), 4, "who is refused holds no place");
}

#[test]
fn a_place_of_a_user_is_given_back_with_the_place_or_before() {
    let (admission, metrics) = (Admission::default(), Metrics::new());
    let limits = limits(|it| it.connections_per_user = NonZeroU32::new(1));
    let (ada, bob) = (UserId::new("ada"), UserId::new("bob"));
    let enter = || admission.connection(HERE, &limits, &metrics).unwrap();
    let belong = |place: &mut Place, user| admission.belong(place, user, &limits, &metrics);
    let (mut first, mut second) = (enter(), enter());
    assert_eq!([belong(&mut first, &ada), belong(&mut first, &ada)], [Ok(()), Ok(())], "it is the same one");
    assert_eq!(belong(&mut second, &ada), Err(NoRoom::User));
    assert_eq!(belong(&mut second, &bob), Ok(()));
    first.belong_to_nobody();
    let mut third = enter();
    assert_eq!(belong(&mut third, &ada), Ok(()));
    drop(third);
    assert_eq!(belong(&mut first, &ada), Ok(()));
    assert_eq!(belong(&mut first, &bob), Err(NoRoom::User));
    assert_eq!(belong(&mut enter(), &ada), Ok(()), "who was refused is nobody's");
}

#[test]
fn who_is_over_a_rate_is_told_as_often_and_then_is_not() {
    let (admission, metrics) = (Admission::default(), Metrics::new());
    let pace = |per_second, burst| {
        Some(Pace {
            per_second: NonZeroU32::new(per_second).unwrap(),
            burst: NonZeroU32::new(burst).unwrap(),
        })
    };
    let limits = limits(|it| {
        it.handshakes_per_ip = pace(1, 2);
        it.handshakes = pace(2, 3);
    });
    let draw = |from, second| {
        let now = Moment::after_start(Duration::from_secs(second));
        admission.draw(address(from), &limits, &metrics, now)
    };
    let address_pace = NoRoom::AddressPace(Duration::from_secs(1));
    for expected in [
        Drawn::Welcome,
        Drawn::Welcome,
        Drawn::Told(address_pace),
        Drawn::Told(address_pace),
        Drawn::Untold(address_pace),
    ] {
        assert_eq!(draw("192.0.2.1", 9), expected);
    }
    // The node was charged for two; others have one left between them.
    assert_eq!(draw("192.0.2.2", 9), Drawn::Welcome);
    let node_pace = NoRoom::NodePace(Duration::from_millis(500));
    let rest = [0; 4].map(|_| draw("192.0.2.2", 9));
    assert_eq!(rest[0], Drawn::Told(node_pace));
    assert_eq!(draw("192.0.2.1", 10), Drawn::Welcome);
}

#[tokio::test]
async fn a_limit_that_is_tried_lets_everybody_in_and_counts() {
    let (admission, metrics) = (Admission::default(), Metrics::new());
    let text = "[limits]\nconnections_per_ip = 1\ndry_run = [\"connections_per_ip\"]";
    let file = config::File { path: "test.toml".into(), text: text.into() };
    let limits = config::load(&Source { file: Some(file), ..Source::default() }).unwrap().limits;
    let places = [0; 3].map(|_| admission.connection(HERE, &limits, &metrics).unwrap());
    let samples = Samples::parse(&metrics.render());
    let met = |mode| format!("fanfare_limit_exceeded_total{{limit=\"connections_per_ip\",mode=\"{mode}\"}}");
    assert_eq!([samples.value(&met("would_refuse")), samples.value(&met("refused"))], [2.0, 0.0]);
    // Whoever came in over it counts once it is enforced.
    let enforced = Limits { dry_run: config::DryRun::default(), ..limits };
    assert_eq!(admission.connection(HERE, &enforced, &metrics).unwrap_err(), NoRoom::Address);
    drop(places);
    assert!(admission.connection(HERE, &enforced, &metrics).is_ok());
}
