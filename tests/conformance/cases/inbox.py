"""The inbox: delivery, resume, devices, what leaves the log."""

from harness import behind, configured, equal, leave, offsets, payloads, position, section, that, until
from wire import encode

case = section("inbox")
RECOVERED = (
    "`inbox_recovered` is true if nothing is missing: every message after the position, or after the stored cursor,"
    " follows, but for those whose own `ttl_seconds` has passed."
)


def ack(client, message):
    client.send("Ack", **message.stamp.position)
    client.alive()


def written(run, user, count, first=1):
    writer = run.sign_in()
    for i in range(first, first + count):
        last = run.publish(writer, "@" + user, b"%d" % i).stamp.position
    return position(last.epoch, last.offset)


def back(run, user, **values):
    """A device that comes back, and the offsets that it is brought."""
    client = run.sign_in(user, **values)
    count = 0
    if client.hello.inbox.offset:
        frame = client.ask_for("HistoryResult", "History", topic="@" + user, limit=300)
        count = len(frame.messages)
    got = offsets(run.marked(client, run.sign_in(), "@" + user))
    that(len(got) <= max(count, 0) + 1, f"more came than the log holds: {got}")
    return client, got


@case(
    "live",
    "After `Connected` it sends everything from there on, in order of offsets, and goes on with live messages. No other"
    " order and no offset twice, except for repetitions.",
)
def live(run):
    reader = run.sign_in()
    written(run, reader.user, 20)
    got = [reader.take("Message") for _ in range(20)]
    equal("offsets", offsets(got), list(range(1, 21)))


@case("waits-for-who-is-away", "a message stays until the cursors of the user's known devices have passed it")
def waits(run):
    user = run.user()
    run.device(user)
    last = written(run, user, 5)
    client, got = back(run, user)
    equal("Connected.inbox", client.hello.inbox, last)
    equal("offsets", got, [1, 2, 3, 4, 5])
    that(client.hello.inbox_recovered, "inbox_recovered is false")


@case(
    "before-the-first-sign-in",
    "For a user who has never signed in fewer messages wait (100 by default, 64 MiB for all such users of a shard",
)
def before_the_first_sign_in(run):
    user = run.user()
    written(run, user, 5)
    client, got = back(run, user)
    equal("offsets", got, [1, 2, 3, 4, 5])
    that(client.hello.inbox_recovered, "inbox_recovered is false")


@case(
    "unknown-user-is-bounded",
    "For a user who has never signed in fewer messages wait",
    configured("inbox.unknown_messages_max"),
)
def unknown_user_is_bounded(run):
    user = run.user()
    written(run, user, 15)
    equal("offsets", back(run, user)[1], list(range(6, 16)))


@case("resume-with-position", "`Connect` with `inbox`: goes on after that position, which counts as an `Ack`.")
def resume_with_position(run):
    user = run.user()
    run.device(user)
    last = written(run, user, 5)
    client, got = back(run, user, inbox=behind(last, 2))
    equal("offsets and recovered", (got, client.hello.inbox_recovered), ([4, 5], True))
    leave(client)
    # Without a position the stored cursor is where the given position put it; 6 is the mark of the look before.
    client, got = back(run, user)
    equal("offsets and recovered", (got, client.hello.inbox_recovered), ([4, 5, 6], True))


@case("resume-at-the-newest", "every message after the position, or after the stored cursor, follows")
def resume_at_the_newest(run):
    user = run.user()
    run.device(user)
    last = written(run, user, 3)
    client, got = back(run, user, inbox=last)
    equal("offsets and recovered", (got, client.hello.inbox_recovered), ([], True))


@case("new-device", "for a device that it does not know, at the beginning of what the log still holds")
def new_device(run):
    user = run.user()
    run.device(user, "one")
    written(run, user, 3)
    client, got = back(run, user, device="two")
    equal("offsets and recovered", (got, client.hello.inbox_recovered), ([1, 2, 3], True))


@case(
    "new-device-later",
    "For an unknown device, `inbox_recovered` is false if any forgotten device had unread messages that have since left"
    " the log, and true otherwise.",
)
def new_device_later(run):
    user = run.user()
    one = run.sign_in(user, device="one")
    written(run, user, 3)
    ack(one, one.messages("@" + user, 3)[2])
    client, got = back(run, user, device="two")
    equal("offsets and recovered", (got, client.hello.inbox_recovered), ([], True))


@case(
    "position-beyond-the-newest",
    "A position in the right epoch beyond the newest one is one that the gateway never gave: false.",
)
def position_beyond_the_newest(run):
    user = run.user()
    run.device(user)
    last = written(run, user, 3)
    client, got = back(run, user, inbox=position(last["epoch"], 1000))
    equal("offsets and recovered", (got, client.hello.inbox_recovered), ([1, 2, 3], False))


@case("position-of-zeros", "So is {0, 0}, which counts as a given position.")
def position_of_zeros(run):
    user = run.user()
    run.device(user)
    written(run, user, 3)
    client, got = back(run, user, inbox=position(0, 0))
    equal("offsets and recovered", (got, client.hello.inbox_recovered), ([1, 2, 3], False))


@case(
    "position-of-another-epoch",
    "What the log still holds follows, from its oldest message on, in the epoch of `Connected.inbox`.",
)
def position_of_another_epoch(run):
    user = run.user()
    run.device(user)
    last = written(run, user, 3)
    client, got = back(run, user, inbox=position(last["epoch"] + 1, 2))
    equal("offsets and recovered", (got, client.hello.inbox_recovered), ([1, 2, 3], False))


@case(
    "position-behind-what-left",
    "A position behind what has left the log is false even if nothing follows, since what left is not known any more.",
)
def position_behind_what_left(run):
    user = run.user()
    client = run.sign_in(user)
    last = written(run, user, 3)
    ack(client, client.messages("@" + user, 3)[2])
    leave(client)
    client, got = back(run, user, inbox=behind(last, 2))
    equal("offsets and recovered", (got, client.hello.inbox_recovered), ([], False))


@case(
    "said-once-where-nothing-is-gone",
    "Where messages are gone, it is said again at each `Connect` until the device has acknowledged a message that"
    " followed.",
)
def said_once_where_nothing_is_gone(run):
    user = run.user()
    run.device(user)
    written(run, user, 2)
    client = run.sign_in(user, inbox=position(0, 0))
    that(not client.hello.inbox_recovered, "inbox_recovered is true for {0, 0}")
    leave(client)
    client, got = back(run, user)
    equal("offsets and recovered", (got, client.hello.inbox_recovered), ([1, 2], True))


@case(
    "said-again",
    "Where messages are gone, it is said again at each `Connect` until the device has acknowledged a message that"
    " followed.",
    configured("inbox.messages_max"),
)
def said_again(run):
    user = run.user()
    run.device(user)
    written(run, user, 65)
    for _ in range(3):
        client = run.sign_in(user)
        that(
            not client.hello.inbox_recovered,
            "inbox_recovered is true, and nothing was acknowledged since messages were lost",
        )
        leave(client)
    client = run.sign_in(user)
    ack(client, client.messages("@" + user, 1)[0])
    leave(client)
    that(run.sign_in(user).hello.inbox_recovered, "inbox_recovered is false after the Ack")


@case(
    "falls-out-by-count",
    "or until it falls out of the log by count (1000 by default), by size (8 MiB together), by age (7 days) or by its"
    " own `ttl_seconds`",
    configured("inbox.messages_max"),
)
def falls_out_by_count(run):
    user = run.user()
    run.device(user)
    last = written(run, user, 70)
    client, got = back_within_a_window(run, user)
    equal("the first and last offset", (got[0], got[-1]), (11, 70))
    equal("recovered and position", (client.hello.inbox_recovered, client.hello.inbox), (False, last))


def back_within_a_window(run, user):
    """For more messages than the window holds: acknowledges, and looks until the newest has come."""
    client, got = run.sign_in(user), []
    while not got or got[-1] < client.hello.inbox.offset:
        message = client.messages("@" + user, 1)[0]
        if not got or message.stamp.position.offset > got[-1]:
            got.append(message.stamp.position.offset)
        client.send("Ack", **message.stamp.position)
    return client, got


@case("falls-out-by-ttl", RECOVERED, long=True)
def falls_out_by_ttl(run):
    user = run.user()
    run.device(user)
    writer = run.sign_in()
    run.publish(writer, "@" + user, b"1")
    run.publish(writer, "@" + user, b"2", ttl_seconds=1)
    run.publish(writer, "@" + user, b"3")
    look = run.sign_in(user, device="look")
    until(
        "the second has expired",
        lambda: offsets(look.ask_for("HistoryResult", "History", topic="@" + user, limit=9).messages) == [1, 3],
        8,
    )
    client, got = back(run, user)
    equal("offsets and recovered", (got, client.hello.inbox_recovered), ([1, 3], True))


@case(
    "receive-window",
    "At most `receive_window` messages are on their way unacknowledged; more wait in the log until an `Ack` comes.",
)
def receive_window(run):
    client = run.sign_in(receive_window=3)
    topic = "@" + client.user
    written(run, client.user, 8)
    got = [client.take("Message", topic=topic) for _ in range(3)]
    client.quiet(0.3)
    ack(client, got[1])
    got += [client.take("Message", topic=topic) for _ in range(2)]
    client.quiet(0.3)
    ack(client, got[4])
    got += [client.take("Message", topic=topic) for _ in range(3)]
    equal("offsets", offsets(got), list(range(1, 9)))


@case(
    "receive-window-of-the-gateway",
    "the most inbox messages that come without an `Ack`; 1024 by default",
    configured("inbox.in_flight_max"),
)
def receive_window_of_the_gateway(run):
    client = run.sign_in()
    window = client.hello.receive_window
    written(run, client.user, window + 5)
    equal("offsets", offsets([client.take("Message") for _ in range(window)]), list(range(1, window + 1)))
    client.quiet(0.3)


@case("receive-window-at-resume", "At most `receive_window` messages are on their way unacknowledged")
def receive_window_at_resume(run):
    user = run.user()
    run.device(user)
    written(run, user, 6)
    client = run.sign_in(user, receive_window=2)
    got = [client.take("Message") for _ in range(2)]
    client.quiet(0.3)
    ack(client, got[1])
    equal("offsets", offsets(got + [client.take("Message") for _ in range(2)]), [1, 2, 3, 4])


@case(
    "ephemeral-to-a-lagging-device",
    "of those only the ones to which no earlier message of this topic is still to be brought from the log",
)
def ephemeral_to_a_lagging_device(run):
    client, writer = run.sign_in(receive_window=1), run.sign_in()
    topic = "@" + client.user
    run.publish(writer, topic, b"1")
    run.publish(writer, topic, b"2")
    run.publish(writer, topic, b"hint", ephemeral=True)
    first = client.take("Message")
    ack(client, first)
    second = client.take("Message")
    ack(client, second)
    run.publish(writer, topic, b"3")
    equal("payloads", payloads([first, second, client.take("Message")]), [b"1", b"2", b"3"])


@case("each-device", "**At least once** to each device")
def each_device(run):
    user = run.user()
    one, two = run.sign_in(user, device="one"), run.sign_in(user, device="two")
    written(run, user, 4)
    for client in (one, two):
        equal("offsets", offsets(client.messages("@" + user, 4)), [1, 2, 3, 4])


@case(
    "leaves-when-all-have-acknowledged", "a message stays until the cursors of the user's known devices have passed it"
)
def leaves_when_all_have_acknowledged(run):
    user = run.user()
    one, two = run.sign_in(user, device="one"), run.sign_in(user, device="two")
    written(run, user, 3)
    held = lambda: offsets(one.ask_for("HistoryResult", "History", topic="@" + user, limit=9).messages)  # noqa: E731
    ack(one, one.messages("@" + user, 3)[2])
    equal("what the log holds", held(), [1, 2, 3])
    ack(two, two.messages("@" + user, 3)[1])
    until("the log holds the last alone", lambda: held() == [3])


@case(
    "forgotten-device",
    "one more, and the device that has been away longest is forgotten",
    configured("inbox.devices_max"),
)
def forgotten_device(run):
    user = run.user()
    run.device(user, "d0")
    written(run, user, 1)
    for i in range(1, 8):
        client = run.sign_in(user, device=f"d{i}")
        ack(client, client.messages("@" + user, 1)[0])
        leave(client)
    # One more than are known: d0 goes, and the message that it alone had not acknowledged.
    run.device(user, "d8")
    client = run.sign_in(user, device="d0")
    equal("inbox_recovered of the forgotten device", client.hello.inbox_recovered, False)
    equal("messages", run.marked(client, run.sign_in(), "@" + user), [])


@case(
    "known-device-stays-known",
    "A device is **known** from its first `Connect` until it has not been connected for 30 days (by default)",
)
def known_device_stays_known(run):
    user = run.user()
    run.device(user, "one")
    run.device(user, "two")
    client = run.sign_in(user, device="two")
    written(run, user, 1)
    ack(client, client.messages("@" + user, 1)[0])
    client, got = back(run, user, device="one")
    equal("offsets and recovered", (got, client.hello.inbox_recovered), ([1], True))


@case("takeover-brings-it-again", "a message stays until the cursors of the user's known devices have passed it")
def takeover_brings_it_again(run):
    older = run.sign_in()
    written(run, older.user, 3)
    got = older.messages("@" + older.user, 3)
    ack(older, got[0])
    newer, brought = back(run, older.user)
    older.goodbye(4500)
    equal("offsets and recovered", (brought, newer.hello.inbox_recovered), ([2, 3], True))


@case(
    "position-goes-on",
    "The inbox's epoch and offset are kept for 30 days (by default) after its last device was forgotten and its last"
    " message left.",
)
def position_goes_on(run):
    user = run.user()
    client = run.sign_in(user)
    last = written(run, user, 2)
    ack(client, client.messages("@" + user, 2)[1])
    leave(client)
    again = written(run, user, 1)
    equal("the next position", again, position(last["epoch"], last["offset"] + 1))


@case(
    "resume-while-written-to",
    "After `Connected` it sends everything from there on, in order of offsets, and goes on with live messages.",
)
def resume_while_written_to(run):
    user, writer = run.user(), run.sign_in()
    run.device(user)
    frames = [encode("Publish", request=100 + i, topic="@" + user, payload=b"%d" % (i + 1)) for i in range(30)]
    writer.send_bytes(b"".join(frames[:15]))
    client = run.begin(user)
    writer.send_bytes(b"".join(frames[15:]))
    client.take("Connected")
    got = [client.take("Message") for _ in range(30)]
    equal("offsets", offsets(got), list(range(1, 31)))
