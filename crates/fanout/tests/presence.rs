//! The contract of presence, on every book: in memory on paused time, in a real Redis, in three, and in a Redis Cluster, on the
//! real clock; and what becomes of it when a replica takes over, or slots move.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod presence {
    pub(crate) mod cluster;
    pub(crate) mod counting;
    pub(crate) mod debts;
    pub(crate) mod failover;
    pub(crate) mod faults;
    pub(crate) mod properties;
    pub(crate) mod redis;
    pub(crate) mod slots;
}

use presence::{cluster::Cluster, properties};

/// Runs each property on each book.
macro_rules! contract {
    ($properties:ident: $($property:ident)+) => {
        mod memory {
            $(#[tokio::test(start_paused = true)]
            async fn $property() {
                super::$properties::$property(super::Cluster::in_memory()).await;
            })+
        }
        mod shards {
            $(#[tokio::test]
            async fn $property() {
                super::$properties::$property(super::Cluster::on_shards().await).await;
            })+
        }
        mod slots {
            $(#[tokio::test]
            async fn $property() {
                super::$properties::$property(super::Cluster::on_slots().await).await;
            })+
        }
        mod redis {
            $(#[tokio::test]
            async fn $property() {
                super::$properties::$property(super::Cluster::on_redis().await).await;
            })+
        }
    };
}

/// What a backend is told of it.
mod telling {
    use super::presence::{cluster::Cluster, debts};

    contract! {
        debts:
        a_channel_is_told_of_when_the_first_comes_and_the_last_goes
        users_and_connections_are_told_of_where_that_is_wanted
        what_came_and_went_untold_is_not_told
        a_change_while_it_is_told_is_told_next
        what_a_dead_node_owes_another_one_tells
        a_lost_answer_loses_no_word
        backends_are_told_each_by_itself
    }
}

/// What those are told who hear it.
mod counting {
    use super::presence::{cluster::Cluster, counting};

    contract! {
        counting:
        those_who_hear_are_told_how_many_they_are
        who_comes_back_is_told_how_many_there_are
        a_storm_costs_a_few_words
    }
}

contract! {
    properties:
    a_crowd_counts_connections_and_users_of_all_nodes
    each_user_is_told_of_once_on_every_node_however_many_connections
    whoever_listens_is_not_told_of_itself
    one_connection_of_several_leaves_without_waiting_for_the_grace
    who_comes_back_within_the_grace_has_never_left
    who_stays_away_has_left_when_the_grace_is_over_and_not_before
    who_comes_and_goes_at_once_leaves_nothing_behind
    members_of_a_crashed_node_are_gone_within_two_heartbeats
    a_frozen_node_is_declared_dead_and_enters_again
    what_a_dead_node_writes_late_does_not_stay
    a_node_that_is_cut_off_for_less_than_a_heartbeat_is_not_missed
    a_lost_answer_is_made_good_in_silence
    members_of_a_drained_node_have_the_grace_to_come_back
    a_channel_of_ten_thousand_is_one_crowd
    channels_with_anybody_on_them_are_listed
}
