use fanfare_protocol::Channel;

use super::*;

/// A word: its election, and lines of id, port, flags, primary, epoch and slots.
fn word(epoch: u64, lines: &[(&str, u16, &str, &str, u64, &str)]) -> Word {
    let line = |(id, port, flags, primary, epoch, slots): &(&str, u16, &str, &str, u64, &str)| {
        format!("{id} 10.0.0.1:{port}@1{port} {flags} {primary} 0 0 {epoch} connected {slots}")
    };
    let lines: Vec<_> = lines.iter().map(line).collect();
    let facts = format!("cluster_state:ok\r\ncluster_current_epoch:{epoch}\r\n");
    Word::read(&facts, &lines.join("\n"), &address(1)).unwrap()
}

fn address(port: u16) -> Address {
    Address { host: "10.0.0.1".into(), port }
}

fn learn(known: &mut Known, words: &[Word]) -> Option<Layout> {
    let seed = Server::new("redis://10.0.0.1", None).unwrap();
    known.learn(words.to_vec(), seed.access())
}

/// The place and the port of the primary of a slot.
fn at(known: &Known, layout: &Layout, slot: usize) -> Option<(PlaceId, u16)> {
    let Route::Slots(slots) = &layout.route else { panic!("a cluster has slots") };
    let id = layout.places[usize::from(slots[slot]?)].id;
    let shard = known.shards.iter().find(|shard| shard.place.id == id).unwrap();
    let port = shard.found.borrow().as_ref().map(|it| it.port);
    Some((id, port.unwrap()))
}

const TWO: [(&str, u16, &str, &str, u64, &str); 3] = [
    ("a", 1, "myself,master", "-", 1, "0-8191"),
    ("b", 2, "master", "-", 2, "8192-16383"),
    ("r", 3, "slave", "a", 1, ""),
];

#[test]
fn a_node_is_read_as_it_is_written() {
    let read = |line: &str| Node::read(line, &address(7));
    let node =
        read("b 10.0.0.1:6379@16379,b.example master,fail? - 0 1 5 connected 0-99 200 [300->-c]").unwrap();
    assert_eq!((node.id.as_str(), node.address, node.epoch), ("b", Some(address(6379)), 5));
    assert_eq!((node.slots, node.follows), (vec![0..=99, 200..=200], None));
    let own = read("b :6379@16379 myself,slave a 0 1 5 connected").unwrap();
    assert_eq!((own.address, own.follows.as_deref()), (Some(address(6379)), Some("a")));
    let v6 = read("b ::1:6379@16379 master - 0 1 5 connected").unwrap();
    assert_eq!(v6.address.unwrap().host, "::1");
    for nowhere in ["b :0@0 master,noaddr - 0 1 5 disconnected", "b :6379@16379 master - 0 1 5 connected"] {
        assert_eq!(read(nowhere).unwrap().address, None);
    }
    for bad in ["", "b", "b x master - 0 1 5 connected", "b 10.0.0.1:1@2 handshake - 0 0 0 connected"] {
        assert_eq!(read(bad), None, "{bad}");
    }
    let beyond = read("b 10.0.0.1:1@2 master - 0 1 5 connected 16000-16384 9-x").unwrap();
    assert_eq!(beyond.slots, []);
}

#[test]
fn a_node_that_finds_the_cluster_incomplete_leads_nobody_anywhere() {
    let nodes = "a 10.0.0.1:1@2 myself,master - 0 0 1 connected 0-16383";
    let read = |facts: &str| Word::read(facts, nodes, &address(1));
    let learns = |facts| learn(&mut Known::default(), &[read(facts).unwrap()]).is_some();
    assert!(learns("cluster_state:ok\r\ncluster_current_epoch:1\r\n"));
    assert!(!learns("cluster_state:fail\r\ncluster_current_epoch:1\r\n"));
    assert_eq!(read(""), None);
}

/// Who leads shard `a` of [`TWO`] after a round.
fn leader_of_a(known: &Known) -> Option<u16> {
    let shard =
        known.shards.iter().find(|shard| shard.replicas.contains("r") || shard.primary == "r").unwrap();
    shard.found.borrow().as_ref().map(|it| it.port)
}

#[test]
fn whoever_is_given_up_is_nobody_until_that_is_taken_back_or_another_leads() {
    let failed = [("a", 1, "master,fail", "-", 1, "0-8191"), TWO[1], TWO[2]];
    let incomplete = |mut word: Word| {
        word.is_complete = false;
        word
    };
    for giving_up in [
        vec![word(2, &failed)],
        vec![incomplete(word(2, &failed))],
        vec![word(2, &TWO), word(2, &failed)],
        vec![word(2, &TWO), incomplete(word(2, &failed))],
    ] {
        let mut known = Known::default();
        let before = learn(&mut known, &[word(2, &TWO)]).unwrap();
        assert_eq!((leader_of_a(&known), known.is_led()), (Some(1), true));
        learn(&mut known, &giving_up);
        assert_eq!((leader_of_a(&known), known.is_led()), (None, false), "{giving_up:?}");
        assert_eq!(at(&known, &before, 8192).unwrap().1, 2, "the other shard is as it was");
        learn(&mut known, &[incomplete(word(2, &TWO))]);
        assert_eq!(leader_of_a(&known), None, "who finds the cluster incomplete leads nobody back");
        let after = learn(&mut known, &[word(2, &TWO)]).unwrap();
        assert_eq!((leader_of_a(&known), after.is_alike(&before)), (Some(1), true));
        learn(&mut known, &giving_up);
        let replaced = [("a", 1, "master,fail", "-", 1, ""), TWO[1], ("r", 3, "master", "-", 3, "0-8191")];
        assert!(learn(&mut known, &[word(3, &replaced)]).unwrap().is_alike(&before), "it is the same place");
        assert_eq!((leader_of_a(&known), known.is_led()), (Some(3), true));
    }
}

#[test]
fn a_primary_that_nobody_can_replace_stays_who_it_was() {
    for (flags, leader) in [("slave", None), ("slave,fail?", None), ("slave,fail", Some(1))] {
        let mut known = Known::default();
        learn(&mut known, &[word(2, &TWO)]).unwrap();
        let failed = [("a", 1, "master,fail", "-", 1, "0-8191"), TWO[1], ("r", 3, flags, "a", 1, "")];
        learn(&mut known, &[word(2, &failed)]);
        assert_eq!(leader_of_a(&known), leader, "{flags}");
    }
    let suspected = [("a", 1, "master,fail?", "-", 1, "0-8191"), TWO[1], TWO[2]];
    let mut known = Known::default();
    learn(&mut known, &[word(2, &suspected)]).unwrap();
    assert_eq!(leader_of_a(&known), Some(1), "one node's suspicion is no verdict");
}

#[test]
fn a_replica_that_takes_over_is_the_same_place() {
    let mut known = Known::default();
    let before = learn(&mut known, &[word(2, &TWO)]).unwrap();
    let (place, port) = at(&known, &before, 0).unwrap();
    assert_eq!((port, before.places.len()), (1, 2));
    let failed_over =
        [("a", 1, "master,fail", "-", 1, ""), TWO[1], ("r", 3, "myself,master", "-", 3, "0-8191")];
    let after = learn(&mut known, &[word(3, &failed_over)]).unwrap();
    assert_eq!(at(&known, &after, 0), Some((place, 3)));
    assert!(after.is_alike(&before), "nothing else has changed");
    // The old primary was cut off. Later it wakes and has not heard of anything yet.
    assert!(learn(&mut known, &[word(2, &TWO)]).is_none());
    let both = learn(&mut known, &[word(2, &TWO), word(3, &failed_over)]).unwrap();
    assert_eq!(at(&known, &both, 0), Some((place, 3)));
}

#[test]
fn the_latest_claim_to_a_slot_wins() {
    let mut known = Known::default();
    let before = learn(&mut known, &[word(2, &TWO)]).unwrap();
    let moved = [("a", 1, "master", "-", 1, "1-8191"), ("b", 2, "myself,master", "-", 3, "0 8192-16383")];
    // The others have heard of the election, and not yet of the slot.
    let stale = word(3, &TWO);
    for words in [[word(3, &moved), stale.clone()], [stale, word(3, &moved)]] {
        let after = learn(&mut known, &words).unwrap();
        assert_eq!(at(&known, &after, 0).unwrap().1, 2);
        assert_eq!(at(&known, &after, 1), at(&known, &before, 1));
        assert!(!after.is_alike(&before));
    }
}

#[test]
fn places_come_and_go_and_are_never_confused() {
    let mut known = Known::default();
    let two = learn(&mut known, &[word(2, &TWO)]).unwrap();
    let three = [TWO[0], ("b", 2, "master", "-", 2, "8193-16383"), ("c", 4, "master", "-", 3, "8192")];
    let layout = learn(&mut known, &[word(3, &three)]).unwrap();
    let new = at(&known, &layout, 8192).unwrap();
    assert_eq!((new.1, layout.places.len()), (4, 3));
    assert!(two.places.iter().all(|place| place.id != new.0));
    let back = [TWO[0], ("b", 2, "master", "-", 4, "8192-16383"), ("c", 4, "master", "-", 3, "")];
    assert_eq!(learn(&mut known, &[word(4, &back)]).unwrap().places.len(), 2);
    let again = [TWO[0], ("b", 2, "master", "-", 4, "8193-16383"), ("c", 4, "master", "-", 5, "8192")];
    let layout = learn(&mut known, &[word(5, &again)]).unwrap();
    assert_ne!(at(&known, &layout, 8192).unwrap().0, new.0, "its connections have ended meanwhile");
}

#[test]
fn slots_that_nobody_has_lead_nowhere() {
    let mut known = Known::default();
    let holes = [("a", 1, "master", "-", 1, "0-99"), ("b", 2, "master,noaddr", "-", 2, "100")];
    let layout = learn(&mut known, &[word(2, &holes)]).unwrap();
    assert_eq!((at(&known, &layout, 99).unwrap().1, at(&known, &layout, 100)), (1, None));
    assert_eq!(layout.of(&Channel::parse("a").unwrap()), None);
}

#[test]
fn another_cluster_in_the_same_place_is_believed() {
    let mut known = Known::default();
    learn(&mut known, &[word(7, &TWO)]).unwrap();
    let other = [("x", 1, "myself,master", "-", 1, "0-16383")];
    assert!(learn(&mut known, &[word(1, &other), word(7, &TWO)]).unwrap().places.len() == 2, "ours is there");
    let layout = learn(&mut known, &[word(1, &other)]).unwrap();
    assert_eq!(layout.places.len(), 1);
    assert_eq!(known.epoch, 1);
}
