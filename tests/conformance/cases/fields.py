"""Names, requests, identifiers, and what is refused field by field."""

import time

from harness import Failure, equal, position, section, that, within
from wire import encode

case = section("fields")

BAD_NAMES = [
    "",
    "a b",
    "tab\tbed",
    "line\nfeed",
    "nul\0",
    "nbsp\u00a0",
    "thin\u2009",
    "del\x7f",
    "c1\u0085",
    "n" * 129,
    "é" * 65,
]
BOUND = (
    "a request whose field is missing, too long or otherwise not what the tables below say is refused with `Error` 107,"
    " whose `message` begins with the field's name and a colon; the connection lives on"
)
NAMES = (
    "**Names** (user ids, device names, room names) are 1 to 128 bytes of UTF-8 without control characters and without"
    " white space (Unicode properties `Cc` and `White_Space`)"
)
SEEN = (
    "of which at least one character can be seen: is neither U+2800 nor has the property `Default_Ignorable_Code_Point`"
)


def refused_field(client, field, name, **values):
    frame = client.refused(107, name, **values)
    that(frame.message.startswith(field + ":"), f"the message {frame.message!r} does not begin with `{field}:`")
    that(not frame.temporary, "the Error is temporary")
    equal("retry_after_ms", frame.retry_after_ms, 0)
    return frame


@case("rooms-in-subscribe", NAMES)
def rooms_in_subscribe(run):
    client = run.sign_in()
    for bad in BAD_NAMES:
        refused_field(client, "room", "Subscribe", room=bad if len(bad) > 64 else "chat:" + bad if bad else "")
    client.alive()


@case("invisible-names", SEEN)
def invisible_names(run):
    client = run.sign_in()
    for bad in ("\u200b", "\u2800", "\u200d\ufe0f", "\ufeff", "\u00ad", "\u3164", "\u2060\u2800\u200c"):
        refused_field(client, "topic", "Publish", topic="@" + bad, payload=b"x")
        run.refused(3501, device=bad)
        run.refused(3500, claims={"sub": bad})
    # In a name with something to see they may stand.
    run.sign_in(run.user() + "\u200d\ufe0f")


@case("room-missing", BOUND)
def room_missing(run):
    client = run.sign_in()
    for name in ("Subscribe", "Unsubscribe", "Presence"):
        refused_field(client, "room", name, room=None)
        refused_field(client, "room", name, room="")
        refused_field(client, "room", name, room="chat:" + "x" * 124)
    client.alive()


@case("topic-missing", BOUND)
def topic_missing(run):
    client = run.sign_in()
    for name in ("Publish", "History"):
        for topic in (None, "", "@", "@a b", "@" + "u" * 129, "chat:" + "x" * 124):
            refused_field(client, "topic", name, topic=topic)
    client.alive()


@case("trace", "| trace | 64 bytes | `Error` 107 |")
def trace(run):
    client = run.sign_in()
    for bad in ("t" * 65, "with blank", "ünprintable", "tab\t"):
        refused_field(client, "trace", "Publish", topic="@" + client.user, payload=b"x", trace=bad)


@case("token-of-refresh", "| token | 8192 bytes | `Error` 107; in `Connect` close 3501 |")
def token_of_refresh(run):
    client = run.sign_in()
    for bad in (None, "", "t" * 8193):
        refused_field(client, "token", "Refresh", token=bad)
    client.alive()


@case("recover", BOUND)
def recover(run):
    refused_field(run.sign_in(), "recover", "Subscribe", room=run.room(), recover=2)


@case("before-with-since", "Not together with `since`: `Error` 107.")
def before_with_since(run):
    client = run.sign_in()
    refused_field(
        client, "before", "History", topic="@" + client.user, since=position(1, 1), before=position(1, 1), limit=1
    )


@case("publish-of-0-bad", "gets none, neither `Published` nor `Error` (but for 111, see [limits](#limits))")
def publish_of_0_bad(run):
    client = run.sign_in()
    for values in (
        {"topic": ""},
        {"topic": "unknown-room"},
        {"topic": run.room()},
        {"topic": "@" + client.user, "trace": "a b"},
        {"topic": "@" + client.user, "payload": b"x" * (client.hello.message_bytes_max + 1)},
    ):
        client.send_bytes(encode("Publish", request=0, **values))
    client.alive()
    run.publish(client, "@" + client.user)
    client.messages("@" + client.user, 1)
    client.quiet(0.2)


@case(
    "connect-bounds",
    "In `Connect`, which is answered with `Goodbye` if it is refused, it closes with 3501 and a `reason` of the same"
    " form.",
)
def connect_bounds(run):
    for field, values in (
        ("token", {"token": None}),
        ("token", {"token": ""}),
        ("token", {"token": "t" * 8193}),
        ("device", {"device": "a b"}),
        ("device", {"device": "d" * 129}),
        ("client", {"client": "c" * 129}),
        ("client", {"client": "bell\a"}),
        ("rooms", {"rooms": [{"room": f"chat:{i}"} for i in range(129)]}),
        ("rooms.room", {"rooms": [{"room": ""}]}),
        ("rooms.room", {"rooms": [{}]}),
        ("rooms.room", {"rooms": [{"room": "chat:a b"}]}),
        ("rooms.recover", {"rooms": [{"room": "chat:a", "recover": 2}]}),
    ):
        goodbye = run.refused(3501, **values)
        that(goodbye.reason.startswith(field + ":"), f"the reason {goodbye.reason!r} does not begin with `{field}:`")
        that(not goodbye.reconnect, "the client is told to come back")


@case("request-comes-back", "**`request`** (`u32`) is chosen by the client and comes back in the answer.")
def request_comes_back(run):
    client = run.begin(request=0xFFFF_FFFF)
    equal("Connected.request", client.take("Connected").request, 0xFFFF_FFFF)
    room = run.room()
    for number, (name, values, answer) in enumerate(
        (
            ("Subscribe", {"room": room}, "Subscribed"),
            ("Publish", {"topic": room}, "Published"),
            ("Presence", {"room": room, "limit": 1}, "PresenceResult"),
            ("History", {"topic": room, "limit": 1}, "HistoryResult"),
            ("Refresh", {"token": run.gateway.token(client.user)}, "Refreshed"),
            ("Unsubscribe", {"room": room}, "Unsubscribed"),
            ("Subscribe", {"room": "nocolon"}, "Error"),
        )
    ):
        client.send(name, request=0xFFFF_FFF0 + number, **values)
        frame = client.answer(0xFFFF_FFF0 + number)
        equal(f"the answer to {name}", frame.name, answer)


@case("same-request-twice", "the gateway does not look at it")
def same_request_twice(run):
    client = run.sign_in()
    for _ in range(3):
        client.send("Publish", request=5, topic="@" + client.user, payload=b"x")
    for _ in range(3):
        client.take("Published", request=5)


@case(
    "answered-once",
    "Every `Publish`, `Subscribe`, `Unsubscribe`, `Presence`, `History` and `Refresh` is answered exactly once, with"
    " its result or with `Error`, unless the connection ends first.",
)
def answered_once(run):
    client = run.sign_in()
    room = run.room()
    frames, wanted = [], set()
    for i in range(10):
        for offset, (name, values) in enumerate(
            (
                ("Subscribe", {"room": room}),
                ("Publish", {"topic": room, "payload": b"x"}),
                ("Presence", {"room": room}),
                ("History", {"topic": room, "limit": 2}),
                ("Unsubscribe", {"room": room}),
                ("Unsubscribe", {"room": room}),
                ("Refresh", {"token": "bad"}),
                ("Publish", {"topic": "nocolon"}),
            )
        ):
            number = 1000 + 10 * i + offset
            wanted.add(number)
            frames.append(encode(name, request=number, **values))
    client.send_bytes(b"".join(frames))
    seen = []
    while len(seen) < len(wanted):
        frame = client.next()
        if frame is None:
            raise Failure(f"only {len(seen)} of {len(wanted)} answers came")
        if frame.name != "Message":
            seen.append(frame.request)
    equal("requests answered", sorted(seen), sorted(wanted))
    client.alive()
    that(all(frame.name == "Message" for frame in client.aside), f"more came: {client.aside}")


@case("publish-of-0", "A **`Publish` with `request` 0 wants no answer** and gets none, neither `Published` nor `Error`")
def publish_of_0(run):
    client, other = run.sign_in(), run.sign_in()
    client.send_bytes(encode("Publish", request=0, topic="@" + other.user, payload=b"hint"))
    equal("payload", other.messages("@" + other.user, 1)[0].payload, b"hint")
    client.alive()
    client.quiet(0.2)


@case("publish-of-0-ephemeral", "for typing hints and other messages that nobody repeats")
def publish_of_0_ephemeral(run):
    room = run.room()
    client, other = run.member(room), run.member(room)
    client.send_bytes(encode("Publish", request=0, topic=room, payload=b"typing", ephemeral=True))
    message = other.take("Message", topic=room)
    equal("payload", message.payload, b"typing")
    equal("offset", message.stamp.position.offset, 0)


@case("names-of-128-bytes", "are 1 to 128 bytes of UTF-8")
def names_of_128_bytes(run):
    tag = run.tag
    user, device = (tag + "ユ" * 40)[:46], "d" * 128
    user += "z" * (128 - len(user.encode()))
    client = run.sign_in(user, device=device)
    equal("Connected.user", client.hello.user, user)
    room = "chat:" + tag + "r" * (123 - len(tag))
    client.ask_for("Subscribed", "Subscribe", room=room)
    run.publish(client, "@" + user, b"own")
    message = client.messages("@" + user, 1)[0]
    equal("sender", message.sender, user)
    members = client.ask_for("PresenceResult", "Presence", room=room, limit=5).members
    equal("members", [dict(member) for member in members], [{"user": user, "device": device}])


@case("byte-by-byte", "They are compared byte by byte: nothing is normalised.")
def compared_byte_by_byte(run):
    # An e with an accent, in one character and in two.
    one, two = "chat:" + run.tag + "\u00e9", "chat:" + run.tag + "e\u0301"
    upper = "chat:" + run.tag.upper() + "E"
    client = run.member(one)
    for other in (two, upper):
        client.refused(401, "Publish", topic=other, payload=b"x")


@case("topic-at-does-not-count", "The `@` does not count against the 128 bytes.")
def topic_at_does_not_count(run):
    client = run.sign_in()
    user = run.tag + "u" * (128 - len(run.tag))
    run.publish(client, "@" + user)


@case(
    "unknown-namespace",
    "what stands before the first colon is a namespace that the gateway must know, and something must follow the colon",
)
def unknown_namespace(run):
    client = run.sign_in()
    for room in ("nosuchnamespace:x", "nocolon", ":x", "chat:", "Chat:x"):
        for name, field in (("Subscribe", "room"), ("Presence", "room"), ("History", "topic"), ("Publish", "topic")):
            error = client.refused(102, name, **{field: room})
            that(not error.temporary, "the Error is temporary")


@case("second-colon", "what stands before the first colon is a namespace")
def second_colon(run):
    client = run.sign_in()
    client.ask_for("Subscribed", "Subscribe", room=run.room() + ":more")


@case(
    "offsets-from-1",
    "an `offset`, which grows by one with each message that enters the log; it starts at 1, or goes on where the epoch before was when its messages were kept",
)
def offsets_from_1(run):
    room = run.room()
    client = run.member(room)
    got = [run.publish(client, room).stamp.position for _ in range(5)]
    equal("offsets", [place.offset for place in got], [1, 2, 3, 4, 5])
    equal("epochs", len({place.epoch for place in got}), 1)
    that(got[0].epoch != 0, "the epoch is 0")


@case(
    "stamp",
    "`u64 message_id` at 16 (unique in the cluster), `u64 timestamp_ms` at 24 (the gateway's clock, milliseconds since"
    " 1970-01-01 UTC)",
)
def stamp(run):
    client = run.sign_in()
    one, two = (run.publish(client, "@" + client.user).stamp for _ in range(2))
    that(
        one.message_id and two.message_id and one.message_id != two.message_id,
        f"ids {one.message_id}, {two.message_id}",
    )
    within("timestamp_ms", one.timestamp_ms, client.hello.server_time_ms, client.hello.server_time_ms + 60_000)
    that(two.timestamp_ms >= one.timestamp_ms, "the clock of stamps goes back")
    equal(
        "stamps of the messages", [dict(m.stamp) for m in client.messages("@" + client.user, 2)], [dict(one), dict(two)]
    )


@case(
    "ephemeral-offset",
    "The offset is 0 in an **ephemeral** message: it is in no log, is never repeated, and is not acknowledged.",
)
def ephemeral_offset(run):
    client = run.sign_in()
    published = run.publish(client, "@" + client.user, b"gone", ephemeral=True)
    equal("Published offset", published.stamp.position.offset, 0)
    equal("durability", published.durability, 0)
    message = client.take("Message")
    equal("Message offset", message.stamp.position.offset, 0)
    equal("message id", message.stamp.message_id, published.stamp.message_id)
    history = client.ask_for("HistoryResult", "History", topic="@" + client.user, limit=10)
    equal("messages in the log", history.messages, [])


@case("id-of-zeros", 'All zero, or absent, means "none".')
def id_of_zeros(run):
    client = run.sign_in()
    none = {"high": 0, "low": 0}
    got = [run.publish(client, "@" + client.user, client_message_id=value) for value in (none, none, None, None)]
    equal("duplicates", [frame.duplicate for frame in got], [False] * 4)
    equal("offsets", len({frame.stamp.position.offset for frame in got}), 4)
    equal("the id that comes back", dict(got[0].client_message_id), none)


@case("64-bits", "Epochs, offsets, message ids and session ids use all 64 bits")
def all_64_bits(run):
    client = run.sign_in()
    top = {"high": 2**64 - 1, "low": 2**64 - 2}
    equal(
        "the id that comes back",
        dict(run.publish(client, "@" + client.user, client_message_id=top).client_message_id),
        top,
    )
    client.send_bytes(encode("Ack", epoch=2**64 - 1, offset=2**64 - 1))
    frame = client.ask_for(
        "HistoryResult", "History", topic="@" + client.user, since=position(2**64 - 1, 2**64 - 1), limit=1
    )
    that(not frame.recovered, "a position that was never given is recovered")


@case("clock", "`server_time_ms` | u64 | the gateway's clock, milliseconds since 1970-01-01 UTC")
def clock(run):
    hello = run.sign_in().hello
    within("server_time_ms", hello.server_time_ms, (time.time() - 120) * 1000, (time.time() + 120) * 1000)
