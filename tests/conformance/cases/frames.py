"""How frames are framed, verified and ordered."""

import struct
import time

import make
from harness import equal, leave, payloads, section, that, until, within
from wire import encode, header, raw

case = section("frames")


def closes(run, code, data, signed_in=True, reconnect=False):
    """What closes the connection with this code, without a word before it."""
    client = run.sign_in() if signed_in else run.connect()
    client.send_bytes(data)
    goodbye = client.goodbye(code)
    equal("Goodbye.reconnect", goodbye.reconnect, reconnect)
    return goodbye


@case("header", "A frame is a header of eight bytes, little-endian, and a body:")
def header_is_eight_bytes(run):
    client = run.sign_in()
    client.send_bytes(bytes([0, 0, 0, 0, 2, 0, 0, 0]))
    client.take("Pong")


@case(
    "flags",
    "flags or reserved bits that are not 0, an unknown kind, a kind that only gateways send, or a length that the kind "
    "cannot have closes with 3501",
)
def flags(run):
    for bit in range(8):
        closes(run, 3501, header(0, 2, flags=1 << bit))


@case("reserved", "| 6..8 | `u16` reserved | must be 0 |")
def reserved(run):
    for value in (1, 0x8000):
        closes(run, 3501, header(0, 2, reserved=value))


@case("flags-must-be-0", "| 5 | `u8` flags | must be 0 |")
def flags_must_be_0(run):
    closes(run, 3501, run.connect_frame()[:5] + b"\1" + run.connect_frame()[6:], signed_in=False)


@case("reserved-in-first-frame", "`flags` and `reserved` are 0 in version 1. A receiver refuses anything else.")
def reserved_in_first_frame(run):
    frame = run.connect_frame()
    closes(run, 3501, frame[:6] + b"\1\0" + frame[8:], signed_in=False)


@case(
    "length-first",
    "First the length: a body longer than the limit of the gateway closes with 3510 (`frame too big`), whatever kind "
    "and flags say",
)
def length_first(run):
    for kind, bits in ((3, 0), (77, 0), (2, 255), (130, 7)):
        closes(run, 3510, header(0xFFFF_FFFF, kind, flags=bits))


@case(
    "limit-of-the-first-frame",
    "the limit is 36 864 bytes for the first frame of a connection, and the larger of "
    "`message_bytes_max` + 4096 and 36 864 bytes for every later one",
)
def limit_of_the_first_frame(run):
    closes(run, 3510, header(36_865, 1), signed_in=False)
    # At the limit the frame is not refused by its header: the body is waited for.
    client = run.connect()
    client.send_bytes(header(36_864, 1))
    client.quiet(0.3)


@case("limit-of-later-frames", "and the larger of `message_bytes_max` + 4096 and 36 864 bytes for every later one")
def limit_of_later_frames(run):
    client = run.sign_in()
    most = max(client.hello.message_bytes_max + 4096, 36_864)
    closes(run, 3510, header(most + 1, 3))
    client.send_bytes(header(most, 3))
    client.quiet(0.3)


@case("header-at-once", "The header is judged as soon as its eight bytes are there.")
def header_at_once(run):
    # No body follows.
    for length, kind in ((10, 77), (15, 4), (10, 2), (7, 3), (56, 130)):
        closes(run, 3501, header(length, kind))


@case("kind-of-gateways", "A gateway closes with 3501 on any kind that is not in the upper part of this table.")
def kind_of_gateways(run):
    for kind in (0, 12, 127, 128, 129, 131, 140, 255):
        closes(run, 3501, raw(kind, b"" if kind in (0, 129) else b"\0" * 64))


@case("empty-kinds", "- **empty**: the length is 0.")
def empty_kinds(run):
    for kind in (2, 10, 11):
        closes(run, 3501, raw(kind, b"\0"))


@case("struct-kinds", "the length is exactly the struct's size")
def struct_kinds(run):
    for length in (0, 8, 15, 17, 32):
        closes(run, 3501, raw(4, b"\1" * length))


@case("tables-of-8-bytes", "finished plainly, without size prefix and without file identifier, at least 8 bytes long.")
def tables_of_8_bytes(run):
    for kind in (3, 5, 6, 7, 8, 9):
        closes(run, 3501, raw(kind, b"\4\0\0\0\0\0\0"))


@case("size-prefix", "one FlatBuffer with that table as its root: finished plainly, without size prefix")
def size_prefix(run):
    body = make.table_body("Subscribe", {"request": 1, "room": run.room()})
    client = run.sign_in()
    client.send_bytes(raw(5, struct.pack("<I", len(body)) + body))
    # As an unprefixed buffer its root is somewhere else: out of bounds, or a table without the room.
    frame = client.take("Goodbye", "Error")
    that(frame.code in (3501, 107), f"{frame}")


@case(
    "newer-fields",
    "Bytes of a table's body that no field refers to are ignored: they may belong to fields of a newer version.",
)
def newer_fields(run):
    client = run.sign_in()
    body = make.table_body("Publish", {"request": 5, "topic": "@" + client.user, "payload": b"hello"})
    client.send_bytes(raw(3, body + b"\xff" * 40))
    client.take("Published", request=5)
    equal("payload", client.messages("@" + client.user, 1)[0].payload, b"hello")


@case("unknown-fields", "new fields are added at the end, and both sides ignore fields that they do not know")
def unknown_fields(run):
    client = run.sign_in()
    client.send_bytes(raw(3, make.newer_publish()))
    client.take("Published", request=13)


@case("depth-and-tables", "64 tables (192 in `Connect`)")
def tables_of_connect(run):
    room = run.room()
    client = run.begin(rooms=[{"room": f"{room}-{i}"} for i in range(128)])
    client.take("Connected")
    for _ in range(128):
        client.take("Subscribed", request=1)


@case("total-size", "counting everything once for each reference to it, of twice the body's length plus 1024 bytes")
def total_size(run):
    body = make.shared_rooms(128, "chat:" + "r" * 123)
    closes(run, 3501, raw(1, body), signed_in=False)


@case("zero-byte", "Strings must be UTF-8 and be followed by the zero byte that builders put there.")
def zero_byte(run):
    body = make.table_body("Subscribe", {"request": 1, "room": "chat:general"})
    closes(run, 3501, raw(5, body.replace(b"general\0", b"general!")))


@case("utf-8", "Strings must be UTF-8")
def utf_8(run):
    for bad in (b"chat:\xff", b"chat:\xc0\x80", b"chat:\xed\xa0\x80", b"chat:\xf4\x90\x80\x80"):
        closes(run, 3501, encode("Subscribe", request=1, room=bad))


@case("verified", "The whole body is verified.")
def verified(run):
    for kind in (3, 5, 6, 7, 8, 9):
        closes(run, 3501, raw(kind, b"\xf0\xff\xff\xff" + b"\0" * 12))


@case("verified-connect", "What cannot be framed or verified always closes.")
def verified_connect(run):
    closes(run, 3501, raw(1, b"\xf0\xff\xff\xff" + b"\0" * 12), signed_in=False)


@case(
    "order",
    "All frames on one connection take effect in the order in which they were sent, also when they are sent without"
    " waiting for answers",
)
def order(run):
    client = run.sign_in()
    room = run.room()
    client.send_bytes(
        b"".join(
            [
                encode("Subscribe", request=1, room=room),
                *(encode("Publish", request=10 + i, topic=room, payload=b"%d" % i) for i in range(20)),
                encode("Unsubscribe", request=2, room=room),
                encode("Publish", request=99, topic=room, payload=b"late"),
            ]
        )
    )
    client.take("Subscribed", request=1)
    client.take("Unsubscribed", request=2)
    got = [client.take("Published", request=10 + i).stamp.position.offset for i in range(20)]
    equal("offsets", got, list(range(got[0], got[0] + 20)))
    equal("the answer to a Publish behind the Unsubscribe", client.answer(99).code, 401)


@case(
    "behind-connect",
    "right behind `Connect` (before `Connected` has come) or `Refresh`, a `Publish` right behind the `Subscribe` of "
    "its room, an `Unsubscribe` right behind a `Subscribe`",
)
def behind_connect(run):
    user, room, other = run.user(), run.room(), run.room()
    client = run.connect()
    client.user = user
    client.send_bytes(
        run.connect_frame(user, rooms=[{"room": room}])
        + encode("Publish", request=2, topic=room, payload=b"first")
        + encode("Subscribe", request=3, room=other)
        + encode("Unsubscribe", request=4, room=other)
        + encode("Ping")
    )
    client.take("Connected", request=1)
    client.take("Subscribed", request=1, room=room)
    client.take("Published", request=2)
    client.take("Subscribed", request=3)
    client.take("Unsubscribed", request=4, code=0)
    client.take("Pong")
    equal("payload", client.messages(room, 1)[0].payload, b"first")


@case("behind-refresh", "right behind `Connect` (before `Connected` has come) or `Refresh`")
def behind_refresh(run):
    client = run.sign_in()
    room = run.room("chat")
    client.send_bytes(
        encode("Refresh", request=1, token=run.gateway.token(client.user))
        + encode("Subscribe", request=2, room=room)
        + encode("Publish", request=3, topic=room, payload=b"x")
    )
    client.take("Refreshed", request=1)
    client.take("Subscribed", request=2)
    client.take("Published", request=3)


@case("pipelined-36-kib", "The gateway takes 36 864 bytes of them in; the rest waits in the socket.")
def pipelined(run):
    # How much comes with the end of the TLS handshake is a matter of luck: so a few times.
    for _ in range(5):
        user, client, count = run.user(), run.connect(), 40
        frames = [
            encode("Publish", request=10 + i, topic="@" + user, payload=b"p" * 4000, ephemeral=True) for i in range(count)
        ]
        client.send_bytes(run.connect_frame(user) + b"".join(frames))
        client.take("Connected")
        for i in range(count):
            client.take("Published", request=10 + i)


@case(
    "answers-that-nobody-reads",
    "a client that reads gets all of its answers; if it does not read, its TCP window fills and it cannot send",
)
def answers_that_nobody_reads(run):
    client = run.sign_in()
    room = run.room()
    client.ask_for("Subscribed", "Subscribe", room=room)
    for _ in range(20):
        run.publish(client, room, b"h" * 12_000)
    for message in client.messages(room, 20):
        that(len(message.payload) == 12_000, f"{len(message.payload)} bytes")
    # Sixty answers of about a quarter of a MiB each: more than any socket holds.
    for i in range(60):
        client.send("History", request=1000 + i, topic=room, limit=300)
    client.send("Ping")
    for i in range(60):
        frame = client.answer(1000 + i)
        that(frame.name == "HistoryResult" and len(frame.messages) >= 20, f"{frame.name} to request {1000 + i}")
    client.take("Pong")


@case(
    "two-large-answers",
    "While more than 64 KiB of answers wait to be read, or two answers to `History` or `Presence` are under way, "
    "the gateway reads no further requests of that connection",
)
def two_large_answers(run):
    client = run.sign_in()
    room = run.room()
    client.ask_for("Subscribed", "Subscribe", room=room)
    for i in range(8):
        client.send("Presence", request=10 + i, room=room, limit=10)
        client.send("History", request=30 + i, topic=room, limit=10)
    for i in range(8):
        equal("the answer", client.answer(10 + i).name, "PresenceResult")
        equal("the answer", client.answer(30 + i).name, "HistoryResult")


@case("one-topic-in-order", "messages of one topic never overtake each other")
def one_topic_in_order(run):
    room = run.room()
    reader, writer = run.member(room), run.member(room)
    writer.send_bytes(b"".join(encode("Publish", request=10 + i, topic=room, payload=b"%03d" % i) for i in range(200)))
    equal("payloads", payloads(reader.messages(room, 200)), [b"%03d" % i for i in range(200)])


@case("gateway-frames-bounded", "no frame of a gateway is longer than `message_bytes_max` + 1 MiB")
def gateway_frames_bounded(run):
    client = run.sign_in()
    room = run.room()
    client.ask_for("Subscribed", "Subscribe", room=room)
    most = client.hello.message_bytes_max
    for _ in range(6):
        run.publish(client, room, b"b" * most)
    client.messages(room, 6)
    frame = client.ask_for("HistoryResult", "History", topic=room, limit=300)
    that(frame.size <= most + (1 << 20), f"a HistoryResult of {frame.size} bytes")


@case("frame-deadline", "Every single frame must be whole 30 s after its first byte came, else close 3502.", long=True)
def frame_deadline(run):
    client = run.sign_in()
    began = time.monotonic()
    client.send_bytes(encode("Publish", request=1, topic="@" + client.user, payload=b"x" * 100)[:50])
    client.goodbye(3502, seconds=40)
    within("seconds until the close", time.monotonic() - began, 2, 40)


@case("frame-deadline-of-a-header", "must be whole 30 s after its first byte came", long=True)
def frame_deadline_of_a_header(run):
    client = run.sign_in()
    client.send_bytes(b"\0\0\0")
    client.goodbye(3502, seconds=40)


@case("disconnect-first", "any other first frame but `Disconnect` closes with 3501")
def disconnect_first(run):
    client = run.connect()
    leave(client)
    for data in (
        encode("Ping"),
        encode("Pong"),
        encode("Ack", epoch=1, offset=1),
        encode("Subscribe", request=1, room="chat:x"),
    ):
        closes(run, 3501, data, signed_in=False)


@case("first-frame-by-its-header", "any other first frame but `Disconnect` closes with 3501")
def first_frame_by_its_header(run):
    # No body follows: it is not waited for.
    closes(run, 3501, header(30_000, 3), signed_in=False)


@case("no-early-effect", "they wait, unread, and take effect after `Connected` and after the rooms of `Connect`")
def no_early_effect(run):
    room = run.room()
    client = run.connect()
    client.send_bytes(run.connect_frame(rooms=[{"room": room}]) + encode("Subscribe", request=9, room=room))
    first = client.next()
    equal("the first frame", first.name if first else None, "Connected")
    equal("the answer to a Subscribe of a room of Connect", client.answer(9).code, 105)
    client.take("Subscribed", request=1, room=room)


@case("joined-in-time", "All frames on one connection take effect in the order in which they were sent")
def joined_in_time(run):
    room = run.room()
    client = run.member(room)
    count = until(
        "one session in the room", lambda: client.ask_for("PresenceResult", "Presence", room=room, limit=0).count
    )
    equal("count", count, 1)
