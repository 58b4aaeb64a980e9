"""Publish, Published, deduplication, copies."""

import secrets

from harness import configured, equal, leave, namespace, offsets, payloads, section, that
from wire import encode

case = section("publish")


def message_id():
    return {"high": secrets.randbits(64), "low": secrets.randbits(64) | 1}


@case("published", "the level that was reached: 0 in no log, 1 in a log in memory, 2 in a log on stable storage")
def published(run):
    client = run.sign_in()
    number = message_id()
    frame = run.publish(client, "@" + client.user, b"x", client_message_id=number)
    equal("client_message_id", dict(frame.client_message_id), number)
    that(frame.durability in (1, 2), f"durability is {frame.durability} for a message in a log")
    equal("duplicate", frame.duplicate, False)
    equal("offset", frame.stamp.position.offset, 1)


@case("message", "user id of who published it, as the gateway knows it from the token")
def message(run):
    writer, reader = run.sign_in(), run.sign_in()
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    frame = run.publish(writer, "@" + reader.user, b"\0\xffbytes", trace=trace)
    got = reader.messages("@" + reader.user, 1)[0]
    equal("topic", got.topic, "@" + reader.user)
    equal("stamp", got.stamp, frame.stamp)
    equal("sender", got.sender, writer.user)
    equal("payload", got.payload, b"\0\xffbytes")
    equal("trace", got.trace, trace)
    that("sent_to" not in got.present, "sent_to is there, and it is no copy")


@case("trace-absent", "absent when the publisher gave none")
def trace_absent(run):
    client = run.sign_in()
    run.publish(client, "@" + client.user, b"x")
    that("trace" not in client.messages("@" + client.user, 1)[0].present, "a trace came that nobody gave")


@case("payload-empty", "opaque; 0 to `message_bytes_max` bytes (65 536 by default).")
def payload_empty(run):
    client = run.sign_in()
    run.publish(client, "@" + client.user, None)
    run.publish(client, "@" + client.user, b"")
    equal("payloads", payloads(client.messages("@" + client.user, 2)), [b"", b""])


@case("payload-longest", "opaque; 0 to `message_bytes_max` bytes")
def payload_longest(run):
    client = run.sign_in()
    data = secrets.token_bytes(client.hello.message_bytes_max)
    run.publish(client, "@" + client.user, data)
    that(client.messages("@" + client.user, 1)[0].payload == data, "the longest payload came changed")


@case("payload-too-long", "Longer: `Error` 106, or close 3510 when the frame is over its limit too")
def payload_too_long(run):
    client = run.sign_in()
    data = b"x" * (client.hello.message_bytes_max + 1)
    if len(data) + 200 <= max(client.hello.message_bytes_max + 4096, 36_864):
        that(
            not client.refused(106, "Publish", topic="@" + client.user, payload=data).temporary,
            "the Error is temporary",
        )
        client.alive()
    client.send_bytes(encode("Publish", request=1, topic="@" + client.user, payload=data + b"x" * 40_000))
    client.goodbye(3510)


@case(
    "in-order",
    "`Publish` frames of one connection to one topic get their offsets in the order in which they were sent.",
)
def in_order(run):
    room = run.room()
    client = run.member(room)
    client.send_bytes(b"".join(encode("Publish", request=10 + i, topic=room, payload=b"%d" % i) for i in range(50)))
    equal(
        "offsets",
        [client.take("Published", request=10 + i).stamp.position.offset for i in range(50)],
        list(range(1, 51)),
    )


@case("one-order-for-all", "Everybody sees the messages of one topic in the same order.")
def one_order_for_all(run):
    room = run.room()
    clients = [run.member(room) for _ in range(4)]
    for number, client in enumerate(clients):
        client.send_bytes(
            b"".join(encode("Publish", request=10 + i, topic=room, payload=b"%d-%d" % (number, i)) for i in range(25))
        )
    seen = [[(m.stamp.position.offset, m.payload) for m in client.messages(room, 100)] for client in clients]
    equal("offsets", [offset for offset, _ in seen[0]], list(range(1, 101)))
    for other in seen[1:]:
        that(other == seen[0], "two members saw different orders")


@case(
    "duplicate",
    "within 5 min (by default) the same user, topic and id get the same stamp with `duplicate` = true and nothing is"
    " stored twice, ephemeral messages included",
)
def duplicate(run):
    writer, reader = run.sign_in(), run.sign_in()
    topic, number = "@" + reader.user, message_id()
    first = run.publish(writer, topic, b"one", client_message_id=number)
    second = run.publish(writer, topic, b"one", client_message_id=number)
    equal("duplicate", (first.duplicate, second.duplicate), (False, True))
    equal("stamp", second.stamp, first.stamp)
    equal("durability", second.durability, first.durability)
    equal("messages", payloads(run.marked(reader, writer, topic)), [b"one"])


@case(
    "duplicate-on-the-next-connection",
    "The client repeats the `Publish` on the next connection with the **same `client_message_id`**",
)
def duplicate_on_the_next_connection(run):
    user, reader = run.user(), run.sign_in()
    topic, number = "@" + reader.user, message_id()
    first = run.publish(run.sign_in(user, device="one"), topic, b"x", client_message_id=number)
    for device in ("one", "two"):
        again = run.publish(run.sign_in(user, device=device), topic, b"x", client_message_id=number)
        equal("duplicate and stamp", (again.duplicate, again.stamp), (True, first.stamp))


@case("duplicate-ephemeral", "nothing is stored twice, ephemeral messages included")
def duplicate_ephemeral(run):
    room, number = run.room(), message_id()
    reader, writer = run.member(room), run.member(room)
    first = run.publish(writer, room, b"hint", client_message_id=number, ephemeral=True)
    second = run.publish(writer, room, b"hint", client_message_id=number, ephemeral=True)
    equal("duplicate", (first.duplicate, second.duplicate), (False, True))
    equal("stamp", second.stamp, first.stamp)
    equal("messages", payloads(run.marked(reader, writer, room)), [b"hint"])


@case("duplicate-of-another-user", "the same user, topic and id get the same stamp")
def duplicate_of_another_user(run):
    room, number = run.room(), message_id()
    one, two = run.member(room), run.member(room)
    equal(
        "duplicates",
        [run.publish(client, room, client_message_id=number).duplicate for client in (one, two, one)],
        [False, False, True],
    )


@case("duplicate-of-another-topic", "the same user, topic and id")
def duplicate_of_another_topic(run):
    number = message_id()
    client = run.sign_in()
    for _ in range(3):
        frame = run.publish(client, "@" + run.user(), client_message_id=number)
        equal("duplicate", frame.duplicate, False)


@case(
    "looked-for-before-refused",
    "an id is looked for before anything is refused (but for 107: a frame whose fields are out of bounds never "
    "stored anything)",
)
def looked_for_before_refused(run):
    room, number = run.room(), message_id()
    client = run.member(room)
    first = run.publish(client, room, b"x", client_message_id=number)
    client.ask_for("Unsubscribed", "Unsubscribe", room=room)
    client.refused(401, "Publish", topic=room, payload=b"x", client_message_id=message_id())
    again = run.publish(client, room, b"x", client_message_id=number)
    equal("duplicate and stamp", (again.duplicate, again.stamp), (True, first.stamp))
    too_long = b"x" * (client.hello.message_bytes_max + 1)
    equal("duplicate", run.publish(client, room, too_long, client_message_id=number).duplicate, True)
    client.refused(107, "Publish", topic=room, trace="a b", client_message_id=number)


@case(
    "refused-stores-nothing",
    "this attempt stored nothing, and no earlier one with the same `client_message_id` did within the window",
)
def refused_stores_nothing(run):
    room, number = run.room(), message_id()
    reader, client = run.member(room), run.sign_in()
    client.refused(401, "Publish", topic=room, payload=b"never", client_message_id=number)
    client.ask_for("Subscribed", "Subscribe", room=room)
    frame = run.publish(client, room, b"now", client_message_id=number)
    equal("duplicate and offset", (frame.duplicate, frame.stamp.position.offset), (False, 1))
    equal("messages", payloads(reader.messages(room, 1)), [b"now"])


@case("everybody-to-everybody", "To an inbox: by default everybody who is signed in may write to everybody.")
def everybody_to_everybody(run):
    reader = run.sign_in()
    for _ in range(3):
        run.publish(run.sign_in(), "@" + reader.user)
    equal("messages", len(reader.messages("@" + reader.user, 3)), 3)


@case("room-not-joined", "To a room: by default the session must be in the room (`Error` 401 otherwise)")
def room_not_joined(run):
    error = run.sign_in().refused(401, "Publish", topic=run.room(), payload=b"x")
    that(not error.temporary, "the Error is temporary")


@case("room-not-joined-by-this-session", "the session must be in the room")
def room_not_joined_by_this_session(run):
    room, user = run.room(), run.user()
    run.member(room, user, device="one")
    run.sign_in(user, device="two").refused(401, "Publish", topic=room, payload=b"x")


@case("without-subscribe", "by default the session must be in the room", namespace("open"))
def without_subscribe(run):
    room = run.room("open")
    reader = run.member(room)
    run.publish(run.sign_in(), room, b"from outside")
    equal("messages", payloads(reader.messages(room, 1)), [b"from outside"])


@case("needs-a-grant", "and the namespace or the token must allow it (103)", namespace("readonly"))
def needs_a_grant(run):
    room = run.room("readonly")
    that(not run.member(room).refused(103, "Publish", topic=room, payload=b"x").temporary, "the Error is temporary")
    for claim in ([room], ["readonly:*"], {"publish": [room]}):
        run.publish(run.member(room, claims={"rooms": claim}), room)


@case(
    "own-inbox", "A session that writes to its own user's inbox is brought the message as the user's other devices are."
)
def own_inbox(run):
    user = run.user()
    one, two = run.sign_in(user, device="one"), run.sign_in(user, device="two")
    run.publish(one, "@" + user, b"note to self")
    for client in (one, two):
        equal("payload", client.messages("@" + user, 1)[0].payload, b"note to self")


@case("nothing-but-the-answer", "The session that writes to another user's inbox is sent nothing but the answer")
def nothing_but_the_answer(run):
    writer, reader = run.sign_in(), run.sign_in()
    run.publish(writer, "@" + reader.user, b"x")
    equal("messages", run.marked(writer, run.sign_in(), "@" + writer.user), [])


@case("echo", "In a room the sender's own session gets its message too, unless the namespace says otherwise.")
def echo(run):
    room = run.room()
    client = run.member(room)
    run.publish(client, room, b"mine")
    equal("payloads", payloads(client.messages(room, 1)), [b"mine"])


@case(
    "no-echo",
    "In a room the sender's own session gets its message too, unless the namespace says otherwise.",
    namespace("noecho"),
)
def no_echo(run):
    room = run.room("noecho")
    writer, other = run.member(room), run.member(room)
    run.publish(writer, room, b"mine")
    equal("messages of the sender", run.marked(writer, other, room), [])
    equal("messages of the other", payloads(other.messages(room, 1)), [b"mine"])


@case(
    "ttl",
    "the log forgets the message after so many seconds; 0 means the topic's own age limit, which also bounds any other"
    " value",
)
def ttl(run):
    room = run.room()
    client = run.member(room)
    run.publish(client, room, b"short", ttl_seconds=1)
    run.publish(client, room, b"long", ttl_seconds=0xFFFF_FFFF)
    run.publish(client, room, b"always")
    equal("live", payloads(client.messages(room, 3)), [b"short", b"long", b"always"])

    def left():
        frame = client.ask_for("HistoryResult", "History", topic=room, limit=10)
        return payloads(frame.messages) == [b"long", b"always"]

    from harness import until

    until("what the log holds is what has not expired", left, 6)


@case("ephemeral-only-now", "only sessions that are connected now get it")
def ephemeral_only_now(run):
    user, writer = run.user(), run.sign_in()
    run.device(user)
    run.publish(writer, "@" + user, b"missed", ephemeral=True)
    reader = run.sign_in(user)
    equal("messages", run.marked(reader, writer, "@" + user), [])


@case(
    "copy",
    "a message in the sender's own inbox, with the `message_id`, `timestamp_ms` and payload of the original, a position"
    " of its own, and `sent_to`",
    configured("inbox.copy_to_own_devices"),
)
def copy(run):
    user, reader = run.user(), run.sign_in()
    sender, tablet = run.sign_in(user, device="phone"), run.sign_in(user, device="tablet")
    published = run.publish(sender, "@" + reader.user, b"hello", trace="00-ab")
    got = tablet.messages("@" + user, 1)[0]
    equal("sent_to", got.sent_to, "@" + reader.user)
    equal("sender", got.sender, user)
    equal("payload", got.payload, b"hello")
    equal(
        "message id and time",
        (got.stamp.message_id, got.stamp.timestamp_ms),
        (published.stamp.message_id, published.stamp.timestamp_ms),
    )
    equal("position of its own", got.stamp.position, {"epoch": sender.hello.inbox.epoch, "offset": 1})
    original = reader.messages("@" + reader.user, 1)[0]
    that("sent_to" not in original.present, "the original has sent_to")


@case(
    "copy-once",
    "Ephemeral messages are not copied, a repetition makes no second copy",
    configured("inbox.copy_to_own_devices"),
)
def copy_once(run):
    user, reader, number = run.user(), run.sign_in(), message_id()
    sender, tablet = run.sign_in(user, device="phone"), run.sign_in(user, device="tablet")
    run.publish(sender, "@" + reader.user, b"hint", ephemeral=True)
    for _ in range(3):
        run.publish(sender, "@" + reader.user, b"once", client_message_id=number)
    run.publish(sender, "@" + reader.user, b"last")
    equal("copies", payloads(tablet.messages("@" + user, 2)), [b"once", b"last"])
    equal("more copies", run.marked(tablet, run.sign_in(), "@" + user), [])


@case(
    "copy-not-to-the-sender",
    "The sending session gets no copy while its connection lasts",
    configured("inbox.copy_to_own_devices"),
)
def copy_not_to_the_sender(run):
    user, reader = run.user(), run.sign_in()
    sender, tablet = run.sign_in(user, device="phone"), run.sign_in(user, device="tablet")
    run.publish(sender, "@" + reader.user, b"x")
    tablet.messages("@" + user, 1)
    equal("messages of the sender", run.marked(sender, run.sign_in(), "@" + user), [])


@case(
    "copy-after-a-reconnect",
    "after a reconnect its device may be brought it once, and knows it by its `message_id`",
    configured("inbox.copy_to_own_devices"),
)
def copy_after_a_reconnect(run):
    user, reader = run.user(), run.sign_in()
    sender, tablet = run.sign_in(user, device="phone"), run.sign_in(user, device="tablet")
    number = run.publish(sender, "@" + reader.user, b"x").stamp.message_id
    tablet.messages("@" + user, 1)
    leave(sender)
    again = run.sign_in(user, device="phone")
    for got in run.marked(again, run.sign_in(), "@" + user):
        equal("message id", got.stamp.message_id, number)


@case("copies-of-rooms", "a message in the sender's own inbox", configured("inbox.copy_to_own_devices"))
def copies_of_rooms(run):
    # Only what is sent to another user's inbox is copied.
    user, room = run.user(), run.room()
    sender, tablet = run.member(room, user, device="phone"), run.sign_in(user, device="tablet")
    run.publish(sender, room, b"to the room")
    run.publish(sender, "@" + user, b"to myself")
    got = run.marked(tablet, run.sign_in(), "@" + user)
    equal("payloads", payloads(got), [b"to myself"])
    that("sent_to" not in got[0].present, "a message to the own inbox has sent_to")


@case("in-no-log", "1 in a log in memory", namespace("nolog"))
def in_no_log(run):
    room = run.room("nolog")
    client = run.member(room)
    equal("durability", run.publish(client, room, b"x").durability, 0)


@case(
    "offsets-of-two-writers",
    "`Publish` frames of one connection to one topic get their offsets in the order in which they were sent.",
)
def offsets_of_two_writers(run):
    reader = run.sign_in()
    topic = "@" + reader.user
    writers = [run.sign_in() for _ in range(2)]
    for number, writer in enumerate(writers):
        writer.send_bytes(
            b"".join(encode("Publish", request=10 + i, topic=topic, payload=b"%d" % i) for i in range(15))
        )
    got = reader.messages(topic, 30)
    equal("offsets", offsets(got), list(range(1, 31)))
    for writer in writers:
        equal(
            "payloads of one writer",
            [m.payload for m in got if m.sender == writer.user],
            [b"%d" % i for i in range(15)],
        )
