//! One frame is lost, doubled, changed or misdirected, or comes in another's place: it shows as many times as that was done.

use std::collections::BTreeMap;
use std::time::Duration;

use super::load::Load;
use super::run::{ALLOWABLE, PROMISES, Run, on_one_gateway, skipped_the_rest_with_away, with_and_without_tls};
use crate::proxy::{Fault, Points};

/// A fault, done to each tenth frame of its kind from this one on, and the figures in which it shows: each is as many times the
/// number of injections.
type Shown = (Fault, u64, &'static [(&'static str, u64)]);

/// Loads that these are done to in one run.
type Case = (&'static [Load], &'static [Shown]);

/// Faults show as these figures and no others. Those of one run are done to different frames, so that none hides another. Half of
/// the loads go over TLS, and with the next faults the other half.
fn show(cases: &[Case]) {
    let of_case = |(at, (loads, faults)): (usize, &Case)| {
        let faults = *faults;
        loads.iter().enumerate().map(move |(place, load)| (*load, (at + place) % 2 == 1, faults))
    };
    let cases: Vec<_> = cases.iter().enumerate().flat_map(of_case).collect();
    on_one_gateway(&cases, |(load, tls, faults), address| {
        let plan: Vec<_> = faults.iter().map(|(fault, first, _)| (*fault, Points::each_tenth(*first))).collect();
        let run = Run { tls, ..Run::of(load, &plan) };
        let outcome = run.run(address, |_, _| {});
        let planned: Vec<_> = plan.iter().map(|fault| run.injections_of(*fault)).collect();
        assert!(outcome.book.injected == planned && !planned.contains(&0), "{}: {planned:?}", outcome.what);
        let all = PROMISES.iter().chain(ALLOWABLE.iter().map(|(name, _)| name));
        let mut figures: BTreeMap<_, u64> = all.map(|name| (*name, 0)).collect();
        for ((.., shown), injected) in faults.iter().zip(planned) {
            for (name, times) in *shown {
                *figures.entry(name).or_default() += injected * times;
            }
        }
        outcome.differences(outcome.expected(), &figures.into_iter().collect::<Vec<_>>())
    });
}

#[test]
fn nothing_is_wrong_then_nothing_is_reported() {
    let loads = [&Load::ALL[..], &Load::OF_CONNECTIONS, &[Load::Guests]].concat();
    on_one_gateway(&with_and_without_tls(&loads), |(load, tls), address| {
        let outcome = Run { tls, ..Run::of(load, &[]) }.run(address, |_, _| {});
        let right = [("sent", load.rate()), ("lost", 0), ("undecided", 0), ("pings_unanswered", 0)];
        outcome.differences(outcome.expected(), &right)
    });
}

#[test]
fn messages_are_lost_doubled_swapped_changed_or_cut_then_each_shows() {
    show(&[
        (
            &Load::WITH_MESSAGES_AND_GUESTS,
            &[
                (Fault::Lose, 0, &[("lost", 1)]),
                (Fault::Double, 2, &[("duplicated", 1)]),
                (Fault::Swap, 4, &[("reordered", 1)]),
                (Fault::FlipInStamp, 7, &[("corrupted", 1), ("lost", 1)]),
            ],
        ),
        (&Load::WITH_MESSAGES, &[(Fault::FlipInFill, 1, &[("corrupted", 1), ("lost", 1)])]),
        (&Load::WITH_MESSAGES, &[(Fault::Shorten, 1, &[("corrupted", 1), ("lost", 1)])]),
    ]);
}

#[test]
fn messages_come_to_somebody_else_or_in_the_name_of_another_then_they_are_misdelivered() {
    const MISSED: &[(&str, u64)] = &[("misdelivered", 1), ("lost", 1)];
    show(&[
        (&Load::WITH_MESSAGES, &[(Fault::Misdirect, 3, MISSED)]),
        (&Load::WITH_MESSAGES, &[(Fault::Leak, 3, &[("misdelivered", 1)])]),
        (&Load::WITH_MESSAGES, &[(Fault::OtherTopic, 3, MISSED)]),
        (&Load::WITH_MESSAGES, &[(Fault::OtherSender, 3, MISSED)]),
        // Of another run, they are ignored where they would be right.
        (&Load::WITH_MESSAGES, &[(Fault::Foreign, 2, &[]), (Fault::ForeignElsewhere, 6, &[("misdelivered", 1)])]),
    ]);
}

#[test]
fn answers_are_lost_doubled_name_another_request_or_are_refusals_then_each_shows() {
    show(&[
        (
            &Load::WITH_MESSAGES_AND_GUESTS,
            &[
                (Fault::LoseAnswer, 1, &[("unanswered", 1)]),
                (Fault::DoubleAnswer, 3, &[("answered_twice", 1)]),
                (Fault::OtherRequest, 5, &[("answered_wrong", 1)]),
            ],
        ),
        (&[Load::P2p, Load::Offline], &[(Fault::Refuse, 3, &[("delivered_refused", 1)])]),
        // It is delivered to each member of the room.
        (&[Load::Room], &[(Fault::Refuse, 3, &[("delivered_refused", 6)])]),
    ]);
}

/// Nothing else is under way any more when they come.
#[test]
fn the_last_messages_come_again_after_all_others_then_they_are_duplicated() {
    const TIME: Duration = Duration::from_millis(300);
    on_one_gateway(&[(Load::P2p, 39), (Load::Offline, 39), (Load::Room, 9)], |(load, last), address| {
        let plan = [(Fault::DoubleLate(TIME), Points::once(last))];
        let run = Run::of(load, &plan);
        let outcome = run.run(address, |_, _| {});
        let injected = outcome.book.injected[0];
        assert!(injected == run.injections() && injected > 0, "{}", outcome.what);
        outcome.differences(outcome.expected(), &[("duplicated", injected), ("lost", 0)])
    });
}

#[test]
fn a_pong_never_comes_then_one_ping_is_unanswered() {
    on_one_gateway(&Load::WITH_PINGS, |load, address| {
        let plan = [(Fault::LosePong, Points::once(3))];
        let run = Run::of(load, &plan);
        let outcome = run.run(address, |_, _| {});
        let injected = outcome.book.injected[0];
        assert!(injected == run.injections() && injected > 0 && outcome.code == 1, "{}", outcome.what);
        // Pings that wait for the one before are not sent, and in the end the connection is taken for dead.
        skipped_the_rest_with_away(&outcome, load.clients(), &[("pings_unanswered", injected), ("lost", 0)])
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
