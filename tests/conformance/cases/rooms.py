"""Subscribe, Unsubscribe, Subscribed, recovery, Joined and Left."""

from harness import behind, configured, equal, leave, namespace, offsets, payloads, position, section, that, until
from wire import encode

case = section("rooms")
NOT_REACHED = (
    "If messages after `since` have left the log other than by their own `ttl_seconds`, the epoch is another one, or"
    " `since` is beyond the newest position: `recovered` = false."
)


def filled(run, namespace_name, count):
    """A room in which `count` messages were published, with somebody who stays in it, and the last position."""
    room = run.room(namespace_name)
    writer = run.member(room)
    for i in range(count):
        last = run.publish(writer, room, b"%d" % (i + 1)).stamp.position
    writer.messages(room, count)
    return room, writer, position(last.epoch, last.offset)


def joined(run, room, **values):
    client = run.sign_in()
    return client, client.ask_for("Subscribed", "Subscribe", room=room, **values)


def brought_of_a_full_log(run, client, writer, room):
    """The messages of a log of five. The mark takes the oldest out of it, so it is published when they have come."""
    return client.messages(room, 5) + run.marked(client, writer, room)


@case(
    "subscribe",
    "`Subscribe` without `since`: `Subscribed` with `recovered` = true (nothing was to be recovered), then live"
    " messages from `position` on.",
)
def subscribe(run):
    room, writer, last = filled(run, "chat", 3)
    client, frame = joined(run, room)
    equal("room", frame.room, room)
    equal("recovered", frame.recovered, True)
    equal("position", frame.position, last)
    equal("start", frame.start, last)
    run.publish(writer, room, b"live")
    equal("messages", payloads(client.messages(room, 1)), [b"live"])


@case("new-room", "the newest position of the room at this moment")
def new_room(run):
    _, frame = joined(run, run.room())
    equal("position.offset", frame.position.offset, 0)
    that(frame.position.epoch != 0, "the epoch is 0")
    equal("start", frame.start, frame.position)
    equal("recovered", frame.recovered, True)


@case(
    "already",
    "| 105 | already subscribed | no | the session is in the room already, or about to be | go on: it is in |",
)
def already(run):
    room = run.room()
    client = run.member(room)
    error = client.refused(105, "Subscribe", room=room)
    equal("room and temporary", (error.room, error.temporary), (room, False))
    client.send_bytes(encode("Subscribe", request=1, room=room + "b") + encode("Subscribe", request=2, room=room + "b"))
    client.take("Subscribed", request=1)
    equal("the answer to the second of two at once", client.answer(2).code, 105)


@case("before-messages", "`Subscribed` comes before any message of the room.")
def before_messages(run):
    room, _, last = filled(run, "chat", 10)
    client = run.sign_in()
    client.send("Subscribe", request=1, room=room, since=position(last["epoch"], 0))
    first = client.next()
    equal("the first frame", first.name if first else None, "Subscribed")


@case(
    "since",
    "if the log reaches back to it, `Subscribed` with `recovered` = true, then the messages from `since.offset` + 1 up"
    " to `position.offset`, then live ones. One order, no offset twice.",
)
def since(run):
    room, writer, last = filled(run, "chat", 6)
    client, frame = joined(run, room, since=behind(last, 4))
    equal("recovered", frame.recovered, True)
    equal("position", frame.position, last)
    equal("start", frame.start, behind(last, 4))
    run.publish(writer, room, b"live")
    got = [client.take("Message", topic=room) for _ in range(5)]
    equal("offsets", offsets(got), [3, 4, 5, 6, 7])
    equal("payloads", payloads(got), [b"3", b"4", b"5", b"6", b"live"])


@case("since-the-newest", "It is `since`, if the log reaches back to it")
def since_the_newest(run):
    room, writer, last = filled(run, "chat", 3)
    client, frame = joined(run, room, since=last)
    equal("recovered, position and start", (frame.recovered, frame.position, frame.start), (True, last, last))
    equal("messages", run.marked(client, writer, room), [])


@case("since-the-beginning", "then the messages from `since.offset` + 1 up to `position.offset`")
def since_the_beginning(run):
    room, writer, last = filled(run, "chat", 3)
    client, frame = joined(run, room, since=position(last["epoch"], 0))
    equal("recovered", frame.recovered, True)
    equal("messages", offsets(run.marked(client, writer, room)), [1, 2, 3])


@case("beyond-the-newest", NOT_REACHED)
def beyond_the_newest(run):
    room, writer, last = filled(run, "chat", 3)
    for recover, wanted in ((None, []), (0, []), (1, [1, 2, 3])):
        client, frame = joined(run, room, since=position(last["epoch"], 99), recover=recover)
        equal("recovered and position", (frame.recovered, frame.position), (False, last))
        got = run.marked(client, writer, room)
        equal(f"messages with recover = {recover}", offsets(got)[: len(wanted)] if recover else offsets(got), wanted)
        last = position(last["epoch"], last["offset"] + 1)


@case("another-epoch", NOT_REACHED)
def another_epoch(run):
    room, writer, last = filled(run, "chat", 3)
    client, frame = joined(run, room, since=position(last["epoch"] + 1, 2))
    equal("recovered, position and start", (frame.recovered, frame.position, frame.start), (False, last, last))
    equal("messages", run.marked(client, writer, room), [])


@case("left-the-log", NOT_REACHED, namespace("few"))
def left_the_log(run):
    room, writer, last = filled(run, "few", 12)
    client, frame = joined(run, room, since=position(last["epoch"], 3))
    equal("recovered, position and start", (frame.recovered, frame.position, frame.start), (False, last, last))
    equal("messages", run.marked(client, writer, room), [])


@case("still-in-the-log", "if the log reaches back to it, `Subscribed` with `recovered` = true", namespace("few"))
def still_in_the_log(run):
    room, writer, last = filled(run, "few", 12)
    client, frame = joined(run, room, since=behind(last, 5))
    equal("recovered and start", (frame.recovered, frame.start), (True, behind(last, 5)))
    equal("messages", offsets(brought_of_a_full_log(run, client, writer, room)), [8, 9, 10, 11, 12])


@case("recover-best", "the place where the log begins, if not and `recover` is `best`", namespace("few"))
def recover_best(run):
    room, writer, last = filled(run, "few", 12)
    client, frame = joined(run, room, since=position(last["epoch"], 3), recover=1)
    equal(
        "recovered, position and start", (frame.recovered, frame.position, frame.start), (False, last, behind(last, 5))
    )
    equal("messages", offsets(brought_of_a_full_log(run, client, writer, room)), [8, 9, 10, 11, 12])


@case("recover-best-reached", "1 (`best`): what there still is, oldest first, then live traffic")
def recover_best_reached(run):
    room, writer, last = filled(run, "chat", 5)
    client, frame = joined(run, room, since=behind(last, 2), recover=1)
    equal("recovered and start", (frame.recovered, frame.start), (True, behind(last, 2)))
    equal("messages", offsets(run.marked(client, writer, room)), [4, 5])


@case(
    "recover-best-without-since",
    "`Subscribe` without `since`: `Subscribed` with `recovered` = true (nothing was to be recovered)",
)
def recover_best_without_since(run):
    room, writer, last = filled(run, "chat", 3)
    client, frame = joined(run, room, recover=1)
    equal("recovered and start", (frame.recovered, frame.start), (True, last))
    equal("messages", run.marked(client, writer, room), [])


@case("recover-all", "({0, 0} as `since` with `recover` = 1 brings all there is.)")
def recover_all(run):
    room, writer, last = filled(run, "chat", 4)
    client, frame = joined(run, room, since=position(0, 0), recover=1)
    equal(
        "recovered, position and start",
        (frame.recovered, frame.position, frame.start),
        (False, last, position(last["epoch"], 0)),
    )
    equal("messages", offsets(run.marked(client, writer, room)), [1, 2, 3, 4])


@case("zero-position-exact", "0 (`exact`): live traffic only.")
def zero_position_exact(run):
    room, writer, last = filled(run, "chat", 4)
    client, frame = joined(run, room, since=position(0, 0))
    equal("recovered and start", (frame.recovered, frame.start), (False, last))
    equal("messages", run.marked(client, writer, room), [])


@case("recover-in-connect", "| `rooms[].recover` | u8 | as in [Subscribe](#subscribe-5) |", namespace("few"))
def recover_in_connect(run):
    room, writer, last = filled(run, "few", 12)
    exact, exact_writer, exact_last = filled(run, "few", 12)
    reached, reached_writer, reached_last = filled(run, "few", 12)
    old = position(last["epoch"], 3)
    client = run.sign_in(
        rooms=[
            {"room": room, "since": old, "recover": 1},
            {"room": exact, "since": position(exact_last["epoch"], 3)},
            {"room": reached, "since": behind(reached_last, 2)},
        ]
    )
    frame = client.take("Subscribed", room=room)
    equal("best", (frame.recovered, frame.start), (False, behind(last, 5)))
    frame = client.take("Subscribed", room=exact)
    equal("exact", (frame.recovered, frame.start), (False, exact_last))
    frame = client.take("Subscribed", room=reached)
    equal("reached", (frame.recovered, frame.start), (True, behind(reached_last, 2)))
    equal("messages", offsets(run.marked(client, writer, room)), [8, 9, 10, 11, 12])
    equal("messages", run.marked(client, exact_writer, exact), [])
    equal("messages", offsets(run.marked(client, reached_writer, reached)), [11, 12])


@case(
    "expired-is-no-loss", "If messages after `since` have left the log other than by their own `ttl_seconds`", long=True
)
def expired_is_no_loss(run):
    room = run.room()
    writer = run.member(room)
    first = run.publish(writer, room, b"1").stamp.position
    run.publish(writer, room, b"2", ttl_seconds=1)
    run.publish(writer, room, b"3")

    def gone():
        return len(writer.ask_for("HistoryResult", "History", topic=room, limit=10).messages) == 2

    until("the message has expired", gone, 8)
    client, frame = joined(run, room, since=position(first.epoch, first.offset))
    equal("recovered", frame.recovered, True)
    equal("messages", payloads(run.marked(client, writer, room)), [b"3"])


@case(
    "no-log-nothing-published",
    "In a namespace that keeps no log, `recovered` is true only if `since` is the room's position and nothing was "
    "published in this epoch.",
    namespace("nolog"),
)
def no_log_nothing_published(run):
    room = run.room("nolog")
    _, frame = joined(run, room)
    equal("recovered without since", frame.recovered, True)
    _, again = joined(run, room, since=dict(frame.position))
    equal("recovered", again.recovered, True)


@case(
    "no-log-published",
    "In a namespace that keeps no log, `recovered` is true only if `since` is the room's position and nothing was"
    " published in this epoch.",
    namespace("nolog"),
)
def no_log_published(run):
    room = run.room("nolog")
    writer, frame = joined(run, room)
    run.publish(writer, room, b"gone")
    writer.messages(room, 1)
    for recover in (0, 1):
        client, again = joined(run, room, since=dict(frame.position), recover=recover)
        equal("recovered", again.recovered, False)
        equal("messages", run.marked(client, writer, room), [])


@case("no-log-live", "Live messages of a room are sent **at most once**.", namespace("nolog"))
def no_log_live(run):
    room = run.room("nolog")
    client, writer = run.member(room), run.member(room)
    for i in range(20):
        run.publish(writer, room, b"%d" % i)
    equal("payloads", payloads(client.messages(room, 20)), [b"%d" % i for i in range(20)])


@case("at-most-once", "Live messages of a room are sent **at most once**.", configured("inbox.ack_wait"), long=True)
def at_most_once(run):
    room = run.room()
    client = run.member(room)
    run.publish(client, room, b"once")
    client.take("Message")
    client.quiet(6)


@case("keeps-its-position", "A room without members and messages keeps its epoch and offset for 30 days (by default)")
def keeps_its_position(run):
    room, writer, last = filled(run, "chat", 2)
    leave(writer)
    _, frame = joined(run, room)
    equal("position", frame.position, last)


@case("vanishes", "unless its namespace makes rooms vanish when they are empty", namespace("vanish"))
def vanishes(run):
    room, writer, last = filled(run, "vanish", 2)
    leave(writer)

    def new_epoch():
        client, frame = joined(run, room, since=last)
        leave(client)
        return frame.position.epoch != last["epoch"] and not frame.recovered

    until("the room has another epoch", new_epoch)


@case("unsubscribe", "Answer: `Unsubscribed` with code 0, or `Error` 107, 111, 401.")
def unsubscribe(run):
    room = run.room()
    client, writer = run.member(room), run.member(room)
    frame = client.ask_for("Unsubscribed", "Unsubscribe", room=room)
    equal("room and code", (frame.room, frame.code), (room, 0))
    run.publish(writer, room, b"not for the one who left")
    equal("messages", run.marked(client, writer, "@" + client.user), [])
    that(not client.aside, f"a message of the room came: {client.aside}")
    client.refused(401, "Unsubscribe", room=room)
    client.ask_for("Subscribed", "Subscribe", room=room)


@case(
    "unsubscribe-elsewhere",
    "| 401 | not subscribed | no | the session is not in the room and has not asked to be | subscribe first |",
)
def unsubscribe_elsewhere(run):
    client = run.sign_in()
    that(not client.refused(401, "Unsubscribe", room=run.room()).temporary, "the Error is temporary")


@case("unsubscribe-right-behind", "an `Unsubscribe` right behind a `Subscribe`")
def unsubscribe_right_behind(run):
    room = run.room()
    client = run.sign_in()
    client.send_bytes(
        b"".join(
            encode("Subscribe", request=10 + i, room=room) + encode("Unsubscribe", request=30 + i, room=room)
            for i in range(10)
        )
    )
    for i in range(10):
        equal("the answers", (client.answer(10 + i).name, client.answer(30 + i).name), ("Subscribed", "Unsubscribed"))
    until("nobody is in the room", lambda: client.ask_for("PresenceResult", "Presence", room=room, limit=0).count == 0)


@case("subscribe-needs-a-grant", "neither the token nor the namespace allows it", namespace("members"))
def subscribe_needs_a_grant(run):
    room = run.room("members")
    client = run.sign_in()
    equal("room", client.refused(103, "Subscribe", room=room).room, room)
    client.refused(103, "History", topic=room, limit=1)
    client.refused(103, "Presence", room=room, limit=1)


@case("two-rooms", "Live messages of a room are sent **at most once**.")
def two_rooms(run):
    one, two = run.room(), run.room()
    client, writer = run.sign_in(rooms=[{"room": one}, {"room": two}]), run.sign_in(
        rooms=[{"room": one}, {"room": two}]
    )
    client.take("Subscribed", room=one), client.take("Subscribed", room=two)
    for i in range(10):
        run.publish(writer, one if i % 2 else two, b"%d" % i)
    equal("of the first", payloads(client.messages(one, 5)), [b"1", b"3", b"5", b"7", b"9"])
    equal("of the second", payloads(client.messages(two, 5)), [b"0", b"2", b"4", b"6", b"8"])


@case(
    "joined-and-left",
    "Another device (also another one of the same user) came into or left a room whose namespace announces it.",
    namespace("joins"),
)
def joined_and_left(run):
    room = run.room("joins")
    watcher = run.member(room)
    other = run.member(room, device="phone")
    frame = watcher.take("Joined", room=room)
    equal("who", (frame.user, frame.device), (other.user, "phone"))
    other.ask_for("Unsubscribed", "Unsubscribe", room=room)
    frame = watcher.take("Left", room=room)
    equal("who", (frame.user, frame.device), (other.user, "phone"))


@case("joined-by-own-device", "Another device (also another one of the same user)", namespace("joins"))
def joined_by_own_device(run):
    room = run.room("joins")
    watcher = run.member(room, device="one")
    other = run.member(room, watcher.user, device="two")
    equal("device", watcher.take("Joined", room=room, user=watcher.user).device, "two")
    leave(other)
    equal("device", watcher.take("Left", room=room, user=watcher.user).device, "two")


@case("joined-not-to-itself", "Another device (also another one of the same user) came into", namespace("joins"))
def joined_not_to_itself(run):
    room = run.room("joins")
    client = run.member(room)
    run.publish(client, room, b"x")
    client.messages(room, 1)
    client.alive()
    that(not client.aside, f"its own arrival is announced to it: {client.aside}")


@case(
    "left-by-disconnect",
    "A device comes with its first session in the room and leaves with its last",
    namespace("joins"),
)
def left_by_disconnect(run):
    room = run.room("joins")
    watcher = run.member(room)
    other = run.member(room)
    watcher.take("Joined", user=other.user)
    other.close()
    watcher.take("Left", user=other.user)


@case(
    "takeover-is-no-event",
    "a takeover, and a reconnect that is quicker than the end of the old connection, is no event",
    namespace("joins"),
)
def takeover_is_no_event(run):
    room = run.room("joins")
    watcher = run.member(room)
    other = run.member(room)
    watcher.take("Joined", user=other.user)
    again = run.sign_in(other.user, rooms=[{"room": room}])
    again.take("Subscribed", room=room)
    other.goodbye(4500)
    # Events of one room come in order: what the takeover caused would come before this one.
    third = run.member(room)
    frame = watcher.take("Joined", "Left")
    equal("the next event", (frame.name, frame.user), ("Joined", third.user))


@case(
    "left-after-a-takeover",
    "A device whose session was taken over and whose newer session does not join again within 10 s has left then.",
    namespace("joins"),
    long=True,
)
def left_after_a_takeover(run):
    room = run.room("joins")
    watcher = run.member(room)
    other = run.member(room)
    watcher.take("Joined", user=other.user)
    run.sign_in(other.user)
    other.goodbye(4500)
    watcher.take("Left", user=other.user, seconds=25)


@case("not-announced", "came into or left a room whose namespace announces it")
def not_announced(run):
    room = run.room()
    watcher = run.member(room)
    other = run.member(room)
    run.publish(other, room, b"x")
    watcher.messages(room, 1)
    that(not watcher.aside, f"an arrival is announced in a namespace that does not: {watcher.aside}")


@case("since-of-connect", "the last position of the room that this client has kept; absent for live traffic only")
def since_of_connect(run):
    room, writer, last = filled(run, "chat", 5)
    client = run.sign_in(rooms=[{"room": room, "since": behind(last, 3)}])
    frame = client.take("Subscribed", room=room)
    equal(
        "recovered, position and start", (frame.recovered, frame.position, frame.start), (True, last, behind(last, 3))
    )
    equal("messages", offsets(run.marked(client, writer, room)), [3, 4, 5])


@case(
    "echo-after-a-resume",
    "After a resume, own messages may therefore come once even where the namespace does not `echo`.",
    namespace("noecho"),
)
def echo_after_a_resume(run):
    room = run.room("noecho")
    writer, other = run.member(room), run.member(room)
    first = run.publish(writer, room, b"mine").stamp.position
    leave(writer)
    client = run.sign_in(writer.user)
    frame = client.ask_for("Subscribed", "Subscribe", room=room, since=position(first.epoch, 0))
    equal("recovered", frame.recovered, True)
    got = run.marked(client, other, room)
    that(offsets(got) in ([], [1]), f"offsets {offsets(got)}")


@case(
    "slow-reader-is-caught-up",
    "A subscriber that reads too slowly is paused, and is brought what it missed from the log when it reads again, in"
    " order.",
)
def slow_reader_is_caught_up(run):
    room = run.room()
    slow, writer = run.member(room), run.member(room)
    count, size = 200, 20_000
    for start in range(0, count, 50):
        writer.send_bytes(
            b"".join(
                encode("Publish", request=1000 + i, topic=room, payload=b"%05d" % i + b"." * size)
                for i in range(start, start + 50)
            )
        )
        for i in range(start, start + 50):
            equal("the answer", writer.answer(1000 + i).name, "Published")
        writer.messages(room, 50)
    equal(
        "what the slow one is brought",
        [m.payload[:5] for m in slow.messages(room, count)],
        [b"%05d" % i for i in range(count)],
    )
