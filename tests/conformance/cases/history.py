"""History, forward and backward."""

from harness import behind, configured, equal, leave, namespace, offsets, payloads, position, section, that, until
from wire import encode

case = section("history")


def room_of(run, count, namespace_name="chat", payload=None):
    room = run.room(namespace_name)
    client = run.member(room)
    for i in range(count):
        last = run.publish(client, room, payload or b"%d" % (i + 1)).stamp.position
    client.messages(room, count)
    return client, room, position(last.epoch, last.offset)


def read(client, topic, **values):
    return client.ask_for("HistoryResult", "History", topic=topic, **values)


@case("newest", "Without both: the newest ones that fit")
def newest(run):
    client, room, last = room_of(run, 6)
    frame = read(client, room, limit=2)
    equal("topic and position", (frame.topic, frame.position), (room, last))
    equal("offsets", offsets(frame.messages), [5, 6])
    equal("payloads", payloads(frame.messages), [b"5", b"6"])
    equal("more and recovered", (frame.more, frame.recovered), (True, True))
    frame = read(client, room, limit=6)
    equal("offsets", offsets(frame.messages), [1, 2, 3, 4, 5, 6])
    equal("more and recovered", (frame.more, frame.recovered), (False, True))


@case("whole-messages", "in order of their offsets")
def whole_messages(run):
    room = run.room()
    client = run.member(room)
    frame = run.publish(client, room, b"bytes", trace="00-ab")
    live = client.messages(room, 1)[0]
    equal("the message", read(client, room, limit=5).messages, [live])
    equal("stamp", live.stamp, frame.stamp)


@case("since", "messages after this one, the oldest ones that fit")
def since(run):
    client, room, last = room_of(run, 6)
    frame = read(client, room, since=behind(last, 4), limit=2)
    equal("offsets", offsets(frame.messages), [3, 4])
    equal("more and recovered", (frame.more, frame.recovered), (True, True))
    frame = read(client, room, since=behind(last, 2), limit=2)
    equal("offsets", offsets(frame.messages), [5, 6])
    equal("more and recovered", (frame.more, frame.recovered), (False, True))


@case("since-the-newest", "the log holds more: with `since`, after the last of these; else before the first of these.")
def since_the_newest(run):
    client, room, last = room_of(run, 3)
    frame = read(client, room, since=last, limit=10)
    equal("messages, more and recovered", (frame.messages, frame.more, frame.recovered), ([], False, True))


@case("page-on", "To page on: `since` = the position of the last one.")
def page_on(run):
    client, room, last = room_of(run, 11)
    got, place = [], position(last["epoch"], 0)
    for _ in range(10):
        frame = read(client, room, since=place, limit=4)
        got += offsets(frame.messages)
        if not frame.more:
            break
        place = dict(frame.messages[-1].stamp.position)
    equal("offsets", got, list(range(1, 12)))


@case(
    "page-back",
    "To page back: ask without `since` and `before`, then with `before` = the position of the first message that came,"
    " while `more` is true.",
)
def page_back(run):
    client, room, last = room_of(run, 11)
    pages, frame = [], read(client, room, limit=4)
    while True:
        pages.append(offsets(frame.messages))
        if not frame.more:
            break
        frame = read(client, room, before=dict(frame.messages[0].stamp.position), limit=4)
    equal("pages", pages, [[8, 9, 10, 11], [4, 5, 6, 7], [1, 2, 3]])


@case("before", "messages before this one, the newest ones that fit.")
def before(run):
    client, room, last = room_of(run, 6)
    frame = read(client, room, before=position(last["epoch"], 4), limit=2)
    equal("offsets", offsets(frame.messages), [2, 3])
    equal("more and recovered", (frame.more, frame.recovered), (True, True))
    frame = read(client, room, before=position(last["epoch"], 4), limit=3)
    equal("offsets and more", (offsets(frame.messages), frame.more), ([1, 2, 3], False))
    frame = read(client, room, before=position(last["epoch"], 1), limit=3)
    equal("messages and more", (frame.messages, frame.more), ([], False))


@case("before-beyond-the-newest", "messages before this one, the newest ones that fit.")
def before_beyond_the_newest(run):
    client, room, last = room_of(run, 3)
    frame = read(client, room, before=position(last["epoch"], 1000), limit=2)
    equal("offsets", offsets(frame.messages), [2, 3])


@case("before-of-another-epoch", "False also when `before` is of another epoch; then there are no messages")
def before_of_another_epoch(run):
    client, room, last = room_of(run, 3)
    for place in (position(last["epoch"] + 1, 2), position(0, 0)):
        frame = read(client, room, before=place, limit=5)
        equal("recovered and messages", (frame.recovered, frame.messages), (False, []))


@case(
    "since-of-another-epoch",
    "false when `since` was given and messages after it have left the log other than by their own `ttl_seconds`;"
    " `messages` then starts with the oldest there is.",
)
def since_of_another_epoch(run):
    client, room, last = room_of(run, 3)
    for place in (position(last["epoch"] + 1, 2), position(0, 0), position(last["epoch"], 1000)):
        frame = read(client, room, since=place, limit=2)
        equal("recovered", frame.recovered, False)
        equal("position", frame.position, last)


@case(
    "since-left-the-log",
    "false when `since` was given and messages after it have left the log other than by their own `ttl_seconds`;"
    " `messages` then starts with the oldest there is.",
    namespace("few"),
)
def since_left_the_log(run):
    client, room, last = room_of(run, 12, "few")
    frame = read(client, room, since=position(last["epoch"], 2), limit=3)
    equal(
        "recovered, offsets and more", (frame.recovered, offsets(frame.messages), frame.more), (False, [8, 9, 10], True)
    )
    frame = read(client, room, since=behind(last, 5), limit=10)
    equal(
        "recovered, offsets and more",
        (frame.recovered, offsets(frame.messages), frame.more),
        (True, [8, 9, 10, 11, 12], False),
    )


@case("limit-0", "0 asks for the position alone")
def limit_0(run):
    client, room, last = room_of(run, 3)
    for values in ({}, {"since": position(last["epoch"], 1)}, {"before": last}):
        frame = read(client, room, limit=0, **values)
        equal("position, messages and more", (frame.position, frame.messages, frame.more), (last, [], False))


@case("limit-0-has-no-more", "Never set with `limit` 0")
def limit_0_has_no_more(run):
    client, room, last = room_of(run, 2)
    frame = read(client, room, limit=0, since=position(last["epoch"], 0))
    equal("more and recovered", (frame.more, frame.recovered), (False, True))


@case(
    "at-most-300",
    "The gateway lists 300 at most, and no more than 256 KiB unless it is one message that is longer",
    configured("namespaces.history_size"),
)
def at_most_300(run):
    room = run.room()
    client = run.member(room)
    for start in range(0, 320, 80):
        client.send_bytes(
            b"".join(encode("Publish", request=1000 + i, topic=room, payload=b"x") for i in range(start, start + 80))
        )
        for i in range(start, start + 80):
            equal("the answer", client.answer(1000 + i).name, "Published")
    for values in ({}, {"before": position(client.take("Message").stamp.position.epoch, 1000)}):
        frame = read(client, room, limit=0xFFFF_FFFF, **values)
        equal("offsets and more", (offsets(frame.messages), frame.more), (list(range(21, 321)), True))


@case("at-most-256-kib", "no more than 256 KiB unless it is one message that is longer")
def at_most_256_kib(run):
    size = min(run.gateway.hello.message_bytes_max, 60_000)
    count = (256 << 10) // size + 3
    client, room, last = room_of(run, count, payload=b"x" * size)
    frame = read(client, room, limit=300)
    got = offsets(frame.messages)
    that(0 < len(got) * size <= 256 << 10, f"{len(got)} messages of {size} bytes are listed")
    equal("offsets and more", (got, frame.more), (list(range(count - len(got) + 1, count + 1)), True))
    frame = read(client, room, since=position(last["epoch"], 0), limit=300)
    equal("the first offset and more", (offsets(frame.messages)[0], frame.more), (1, True))


@case("own-inbox", "a room, or `@` and the client's own user id.")
def own_inbox(run):
    reader, writer = run.sign_in(), run.sign_in()
    topic = "@" + reader.user
    for i in range(3):
        run.publish(writer, topic, b"%d" % (i + 1))
    reader.messages(topic, 3)
    frame = read(reader, topic, limit=2)
    equal("offsets and more", (offsets(frame.messages), frame.more), ([2, 3], True))


@case("another-inbox", "Another user's inbox: `Error` 103")
def another_inbox(run):
    client = run.sign_in()
    that(not client.refused(103, "History", topic="@" + run.user(), limit=1).temporary, "the Error is temporary")


@case("acknowledges-nothing", "Reading one's inbox this way acknowledges nothing.")
def acknowledges_nothing(run):
    reader, writer = run.sign_in(), run.sign_in()
    topic = "@" + reader.user
    run.publish(writer, topic, b"x")
    reader.messages(topic, 1)
    read(reader, topic, limit=10)
    leave(reader)
    equal("what comes again", payloads(run.marked(run.sign_in(reader.user), writer, topic)), [b"x"])


@case("from-outside", "Answer: `HistoryResult`, or `Error` 102, 103, 107, 108, 111, 403, 410.")
def from_outside(run):
    _, room, last = room_of(run, 2)
    frame = read(run.sign_in(), room, limit=10)
    equal("offsets and position", (offsets(frame.messages), frame.position), ([1, 2], last))


@case("unknown-room", "the newest position of the topic at this moment; epoch 0 when nothing is known of it")
def unknown_room(run):
    frame = read(run.sign_in(), run.room(), limit=10)
    equal("position and messages", (frame.position, frame.messages), (position(0, 0), []))


@case(
    "not-offered",
    "| 108 | not available | no | the namespace does not offer this (presence, history) | do not repeat |",
    namespace("nolog"),
)
def not_offered(run):
    room = run.room("nolog")
    run.member(room).refused(108, "History", topic=room, limit=1)


@case("grant", "neither the token nor the namespace allows it", namespace("members"))
def grant(run):
    room = run.room("members")
    run.sign_in().refused(103, "History", topic=room, limit=1)
    read(run.sign_in(claims={"rooms": {"history": [room]}}), room, limit=1)


@case("expired", "those whose `ttl_seconds` has passed are not among them and do not count against `limit`", long=True)
def expired(run):
    client, room, last = room_of(run, 2)
    for i in range(3):
        run.publish(client, room, b"short", ttl_seconds=1)
    run.publish(client, room, b"6")
    until("the three have expired", lambda: offsets(read(client, room, limit=10).messages) == [1, 2, 6], 8)
    equal("offsets with limit 2", offsets(read(client, room, limit=2).messages), [2, 6])
    frame = read(client, room, since=position(last["epoch"], 1), limit=2)
    equal("offsets, more and recovered", (offsets(frame.messages), frame.more, frame.recovered), ([2, 6], False, True))
    equal(
        "offsets before the last",
        offsets(read(client, room, before=position(last["epoch"], 6), limit=2).messages),
        [1, 2],
    )


@case("ephemeral-is-not-listed", "it is in no log, is never repeated, and is not acknowledged")
def ephemeral_is_not_listed(run):
    client, room, last = room_of(run, 1)
    run.publish(client, room, b"hint", ephemeral=True)
    equal("offsets", offsets(read(client, room, limit=10).messages), [1])
