//! One frame is lost, doubled, changed or misdirected, or comes in another's place: it shows as many times as that was done.

use super::load::Load;
use super::run::{ALLOWABLE, PROMISES, Run, on_one_gateway, skipped_the_rest};
use crate::proxy::{Fault, Points};

/// With each of these loads a fault is done to each tenth frame of its kind, and shows as these figures and no others: each is as
/// many times the number of injections.
fn shows(loads: &[Load], fault: Fault, figures: &[(&'static str, u64)]) {
    on_one_gateway(loads, |load, address| {
        let plan = [(fault, Points::each_tenth(3))];
        let run = Run::of(load, &plan);
        let outcome = run.run(address, |_, _| {});
        let (injected, planned) = (outcome.book.injected[0], run.injections());
        assert!(injected == planned && injected > 0, "{load:?}: {injected} of {planned} {fault:?}");
        let figures: Vec<_> = figures.iter().map(|(name, times)| (*name, injected * times)).collect();
        let all = PROMISES.iter().chain(ALLOWABLE.iter().map(|(name, _)| name));
        let others = all.filter(|name| !figures.iter().any(|(shown, _)| shown == *name)).map(|name| (*name, 0));
        let figures: Vec<_> = figures.iter().copied().chain(others).collect();
        outcome.differences(outcome.expected(), &figures)
    });
}

#[test]
fn nothing_is_wrong_then_nothing_is_reported() {
    on_one_gateway(&Load::ALL, |load, address| {
        let outcome = Run::of(load, &[]).run(address, |_, _| {});
        let right = [("sent", load.rate()), ("lost", 0), ("undecided", 0), ("pings_unanswered", 0)];
        outcome.differences(outcome.expected(), &right)
    });
}

#[test]
fn a_message_never_comes_then_it_is_lost() {
    shows(&Load::WITH_MESSAGES, Fault::Lose, &[("lost", 1)]);
}

#[test]
fn a_message_comes_twice_then_it_is_duplicated() {
    shows(&Load::WITH_MESSAGES, Fault::Double, &[("duplicated", 1)]);
}

#[test]
fn two_messages_change_places_then_one_is_reordered() {
    shows(&Load::WITH_MESSAGES, Fault::Swap, &[("reordered", 1)]);
}

#[test]
fn a_bit_of_the_stamp_is_another_then_the_message_is_corrupted_and_the_right_one_lost() {
    shows(&Load::WITH_MESSAGES, Fault::FlipInStamp, &[("corrupted", 1), ("lost", 1)]);
}

#[test]
fn a_bit_behind_the_stamp_is_another_then_the_message_is_corrupted_and_the_right_one_lost() {
    shows(&Load::WITH_MESSAGES, Fault::FlipInFill, &[("corrupted", 1), ("lost", 1)]);
}

#[test]
fn a_payload_is_cut_then_the_message_is_corrupted_and_the_right_one_lost() {
    shows(&Load::WITH_MESSAGES, Fault::Shorten, &[("corrupted", 1), ("lost", 1)]);
}

#[test]
fn a_message_comes_to_somebody_else_then_it_is_misdelivered_and_lost() {
    shows(&Load::WITH_MESSAGES, Fault::Misdirect, &[("misdelivered", 1), ("lost", 1)]);
}

#[test]
fn a_message_comes_to_somebody_else_too_then_it_is_misdelivered() {
    shows(&Load::WITH_MESSAGES, Fault::Leak, &[("misdelivered", 1)]);
}

#[test]
fn a_message_comes_under_another_topic_then_it_is_misdelivered_and_lost() {
    shows(&Load::WITH_MESSAGES, Fault::OtherTopic, &[("misdelivered", 1), ("lost", 1)]);
}

#[test]
fn a_message_comes_from_another_sender_then_it_is_misdelivered_and_lost() {
    shows(&Load::WITH_MESSAGES, Fault::OtherSender, &[("misdelivered", 1), ("lost", 1)]);
}

#[test]
fn a_published_never_comes_then_the_publish_is_unanswered() {
    shows(&Load::WITH_MESSAGES, Fault::LoseAnswer, &[("unanswered", 1)]);
}

#[test]
fn a_published_comes_twice_then_it_is_counted() {
    shows(&Load::WITH_MESSAGES, Fault::DoubleAnswer, &[("answered_twice", 1)]);
}

#[test]
fn a_refused_message_is_delivered_then_each_delivery_is_counted() {
    shows(&[Load::P2p, Load::Offline], Fault::Refuse, &[("delivered_refused", 1)]);
    // At each member of the room.
    shows(&[Load::Room], Fault::Refuse, &[("delivered_refused", 6)]);
}

#[test]
fn a_pong_never_comes_then_one_ping_is_unanswered() {
    on_one_gateway(&Load::WITH_PINGS, |load, address| {
        let plan = [(Fault::LosePong, Points::once(3))];
        let run = Run::of(load, &plan);
        let outcome = run.run(address, |_, _| {});
        let injected = outcome.book.injected[0];
        assert!(injected == run.injections() && injected > 0 && outcome.code == 1, "{}", outcome.what);
        // Pings that wait for the one before are not sent.
        skipped_the_rest(&outcome, &[("pings_unanswered", injected), ("lost", 0)])
    });
}

/// Senders and receivers are on different workers, and so are members of a room.
#[test]
fn messages_of_two_workers_are_lost_doubled_and_misdirected_then_the_controller_says_how_many() {
    on_one_gateway(&[Load::P2p, Load::Room, Load::Mixed], |load, address| {
        let faults = [Fault::Lose, Fault::Double, Fault::FlipInFill, Fault::Leak, Fault::Swap];
        let plan: Vec<_> = faults.into_iter().zip(3..).map(|(fault, at)| (fault, Points::once(at))).collect();
        let run = Run { crew: true, ..Run::of(load, &plan) };
        let outcome = run.run(address, |_, _| {});
        let injected = run.injections();
        assert!(injected > 0 && outcome.book.injected == [injected; 5], "{}", outcome.what);
        let shown =
            [("duplicated", injected), ("corrupted", injected), ("misdelivered", injected), ("reordered", injected)];
        outcome.differences(outcome.expected(), &[&shown[..], &[("lost", 2 * injected)]].concat())
    });
}
