#!/usr/bin/env python3
"""Makes the golden vectors of the ringgate wire: one whole frame per .bin file; index.json, which says what each holds; and
texts.json, which has the same frames as JSON.

    make.py            writes the vectors
    make.py --check    writes nothing; fails when the committed files are not what it would write

Needs flatbuffers==25.12.19 and the generated code in clients/python. The output depends on nothing else: no clock, no
random numbers. README.md in this folder describes index.json.
"""

import base64
import importlib
import json
import pathlib
import struct
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent / "clients" / "python"))

import flatbuffers  # noqa: E402

U64_MAX = 2**64 - 1
U32_MAX = 2**32 - 1
U16_MAX = 2**16 - 1

# ---------------------------------------------------------------- the schema, as data

STRUCTS = ("Position", "ClientMessageId", "Stamp")
STRUCT_FIELDS = {
    "Position": ["epoch", "offset"],
    "ClientMessageId": ["high", "low"],
}
TABLES = {
    "Connect": [
        ("request", "u32"), ("version", "u16"), ("token", "string"), ("device", "string"), ("client", "string"),
        ("inbox", "Position"), ("rooms", ["RoomCursor"]), ("ping_interval_ms", "u32"), ("receive_window", "u32"),
    ],
    "RoomCursor": [("room", "string"), ("since", "Position"), ("recover", "u8")],
    "Publish": [
        ("request", "u32"), ("topic", "string"), ("client_message_id", "ClientMessageId"), ("payload", "bytes"),
        ("ephemeral", "bool"), ("ttl_seconds", "u32"), ("trace", "string"),
    ],
    "Subscribe": [("request", "u32"), ("room", "string"), ("since", "Position"), ("recover", "u8")],
    "Unsubscribe": [("request", "u32"), ("room", "string")],
    "Presence": [("request", "u32"), ("room", "string"), ("limit", "u32")],
    "History": [
        ("request", "u32"), ("topic", "string"), ("since", "Position"), ("limit", "u32"), ("before", "Position"),
    ],
    "Refresh": [("request", "u32"), ("token", "string")],
    "Connected": [
        ("request", "u32"), ("version", "u16"), ("session", "u64"), ("node", "string"), ("user", "string"),
        ("ping_interval_ms", "u32"), ("pong_timeout_ms", "u32"), ("message_bytes_max", "u32"), ("rooms_max", "u16"),
        ("requests_in_flight_max", "u16"), ("expires_at", "u64"), ("inbox_recovered", "bool"), ("inbox", "Position"),
        ("server_time_ms", "u64"), ("expires_in_ms", "u64"), ("dedup_window_ms", "u32"), ("frames_rate", "u32"),
        ("frames_burst", "u32"), ("bytes_rate", "u32"), ("bytes_burst", "u32"), ("receive_window", "u32"),
    ],
    "Error": [
        ("request", "u32"), ("code", "u16"), ("message", "string"), ("temporary", "bool"), ("retry_after_ms", "u32"),
        ("room", "string"),
    ],
    "Message": [
        ("topic", "string"), ("stamp", "Stamp"), ("sender", "string"), ("payload", "bytes"), ("trace", "string"),
        ("sent_to", "string"),
    ],
    "Subscribed": [
        ("request", "u32"), ("room", "string"), ("recovered", "bool"), ("position", "Position"), ("start", "Position"),
    ],
    "Unsubscribed": [("request", "u32"), ("room", "string"), ("code", "u16")],
    "Member": [("user", "string"), ("device", "string")],
    "PresenceResult": [("request", "u32"), ("room", "string"), ("count", "u32"), ("members", ["Member"])],
    "HistoryResult": [
        ("request", "u32"), ("topic", "string"), ("position", "Position"), ("messages", ["Message"]), ("more", "bool"),
        ("recovered", "bool"),
    ],
    "Refreshed": [("request", "u32"), ("expires_at", "u64"), ("expires_in_ms", "u64")],
    "Joined": [("room", "string"), ("user", "string"), ("device", "string")],
    "Left": [("room", "string"), ("user", "string"), ("device", "string")],
    "Goodbye": [("code", "u16"), ("reason", "string"), ("reconnect", "bool"), ("after_ms", "u32")],
}
CLIENT_KINDS = {
    "Connect": 1, "Ping": 2, "Publish": 3, "Ack": 4, "Subscribe": 5, "Unsubscribe": 6, "Presence": 7, "History": 8,
    "Refresh": 9, "Disconnect": 10, "Pong": 11,
}
GATEWAY_KINDS = {
    "Ping": 2, "Connected": 128, "Pong": 129, "Published": 130, "Error": 131, "Message": 132, "Subscribed": 133,
    "Unsubscribed": 134, "PresenceResult": 135, "HistoryResult": 136, "Refreshed": 137, "Joined": 138, "Left": 139,
    "Goodbye": 140,
}
EMPTY = {"Ping", "Pong", "Disconnect"}

# ---------------------------------------------------------------- values -> bytes


def camel(name):
    return "".join(part.capitalize() for part in name.split("_"))


def generated(table):
    return importlib.import_module(f"ringgate.wire.{table}")


def add_struct(builder, kind, value):
    if kind == "Stamp":
        place = value["position"]
        values = place["epoch"], place["offset"], value["message_id"], value["timestamp_ms"]
    else:
        values = [value[field] for field in STRUCT_FIELDS[kind]]
    return getattr(generated(kind), f"Create{kind}")(builder, *values)


def add_table(builder, table, values):
    """Writes a table and what it points to; a field that is missing or None stays absent."""
    module = generated(table)
    unknown = set(values) - {field for field, _ in TABLES[table]}
    assert not unknown, f"{table} has no {unknown}"
    offsets = {}
    for field, kind in TABLES[table]:
        value = values.get(field)
        if value is None:
            continue
        if kind == "string":
            offsets[field] = builder.CreateString(value)
        elif kind == "bytes":
            offsets[field] = builder.CreateByteVector(value)
        elif isinstance(kind, list):
            elements = [add_table(builder, kind[0], element) for element in value]
            getattr(module, f"{table}Start{camel(field)}Vector")(builder, len(elements))
            for element in reversed(elements):
                builder.PrependUOffsetTRelative(element)
            offsets[field] = builder.EndVector()
    getattr(module, f"{table}Start")(builder)
    for field, kind in TABLES[table]:
        value = values.get(field)
        if value is None:
            continue
        if kind in STRUCTS:
            value = add_struct(builder, kind, value)
        getattr(module, f"{table}Add{camel(field)}")(builder, offsets.get(field, value))
    return getattr(module, f"{table}End")(builder)


def table_body(table, values):
    builder = flatbuffers.Builder(256)
    builder.Finish(add_table(builder, table, values))
    return bytes(builder.Output())


def body_of(name, values):
    """The body of a frame of this name."""
    if name in EMPTY:
        return b""
    if name == "Ack":
        return struct.pack("<QQ", values["epoch"], values["offset"])
    if name == "Published":
        id_, stamp = values["client_message_id"], values["stamp"]
        return struct.pack(
            "<QQQQQQIBBH",
            id_["high"], id_["low"],
            stamp["position"]["epoch"], stamp["position"]["offset"], stamp["message_id"], stamp["timestamp_ms"],
            values["request"], values["durability"], values["duplicate"], 0,
        )
    return table_body(name, values)


def frame(kind, body, flags=0, reserved=0, length=None):
    return struct.pack("<IBBH", len(body) if length is None else length, kind, flags, reserved) + body


def gateway_frame(name, **values):
    """A frame as a gateway sends it; for fake gateways in tests."""
    return frame(GATEWAY_KINDS[name], body_of(name, values))


# ---------------------------------------------------------------- values -> index.json


def shown(kind, value):
    """A value as index.json shows it: 64-bit numbers as strings, bytes as hex."""
    if kind in ("u16", "u32", "u8"):
        return value or 0
    if kind == "bool":
        return bool(value)
    if kind == "u64":
        return str(value or 0)
    if value is None or kind == "string":
        return value
    if kind == "bytes":
        return value.hex()
    if kind == "Stamp":
        return {
            "position": shown("Position", value["position"]),
            "message_id": str(value["message_id"]),
            "timestamp_ms": str(value["timestamp_ms"]),
        }
    if kind in STRUCTS:
        return {field: str(value[field]) for field in STRUCT_FIELDS[kind]}
    return [shown_table(kind[0], element) for element in value]


def shown_table(table, values):
    return {field: shown(kind, values.get(field)) for field, kind in TABLES[table]}


def shown_body(name, values):
    if name in EMPTY:
        return {}
    if name == "Ack":
        return shown("Position", values)
    if name == "Published":
        return {
            "client_message_id": shown("ClientMessageId", values["client_message_id"]),
            "stamp": shown("Stamp", values["stamp"]),
            "request": values["request"],
            "durability": values["durability"],
            "duplicate": bool(values["duplicate"]),
        }
    return shown_table(name, values)


# ---------------------------------------------------------------- values -> JSON (docs/json.md)


def uuid(value):
    digits = f"{value['high'] << 64 | value['low']:032x}"
    return "-".join([digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]])


def json_fields(fields, values):
    """A table's fields as docs/json.md has them: what is absent is left out, numbers and flags are always there."""
    object = {}
    for field, kind in fields:
        value = values.get(field)
        if field == "recover":
            object[field] = ["exact", "best"][value or 0]
        elif field == "durability":
            object[field] = ["ephemeral", "memory", "durable"][value or 0]
        elif kind == "bytes":
            try:
                object["payload"] = (value or b"").decode()
            except UnicodeDecodeError:
                object["payload_base64"] = base64.b64encode(value).decode()
        elif kind == "ClientMessageId":
            if value and value != {"high": 0, "low": 0}:
                object[field] = uuid(value)
        elif isinstance(kind, list):
            object[field] = [json_fields(TABLES[kind[0]], element) for element in value or []]
        elif value is not None or kind not in ("string", *STRUCTS):
            object[field] = shown(kind, value)
    return object


PUBLISHED = [
    ("request", "u32"), ("client_message_id", "ClientMessageId"), ("stamp", "Stamp"), ("durability", "u8"),
    ("duplicate", "bool"),
]
# Strings of the gateway that are there in any case, empty if need be.
ALWAYS = {
    "Connected": ["node", "user"], "Message": ["topic", "sender"], "Subscribed": ["room"], "Unsubscribed": ["room"],
    "PresenceResult": ["room"], "HistoryResult": ["topic"], "Joined": ["room", "user", "device"],
    "Left": ["room", "user", "device"],
}


def json_object(name, values):
    kind = "".join("_" + letter.lower() if letter.isupper() else letter for letter in name).lstrip("_")
    if name in EMPTY:
        return {"type": kind}
    if name == "Ack":
        return {"type": kind, "position": shown("Position", values)}
    fields = PUBLISHED if name == "Published" else TABLES[name]
    values = {**dict.fromkeys(ALWAYS.get(name, []), ""), **values}
    return {"type": kind, **json_fields(fields, values)}


# ---------------------------------------------------------------- the frames


def position(epoch, offset):
    return {"epoch": epoch, "offset": offset}


def stamp(epoch, offset, message_id, timestamp_ms):
    return {"position": position(epoch, offset), "message_id": message_id, "timestamp_ms": timestamp_ms}


EPOCH = 113_000_000_000_000_001
NOW_MS = 1_760_000_000_000
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.bm90LWEtcmVhbC1zaWduYXR1cmU"
UUID = {"high": 0x0192_3F5C_8E2A_7B40, "low": 0x9C1D_2E3F_4A5B_6C7D}
TOP_ID = {"high": U64_MAX, "low": U64_MAX}
TOP = position(U64_MAX, U64_MAX)
# 128 bytes each; the first of three-byte characters and two of one.
USER_128 = "ユ" * 42 + "zz"
DEVICE_128 = "d" * 128
ROOM_128 = "chat:" + "r" * 123
PAYLOAD_MAX = bytes((i * 7 + (i >> 8)) & 0xFF for i in range(65536))
assert len(USER_128.encode()) == len(ROOM_128) == 128


def message(offset, payload, **more):
    return {
        "topic": "chat:general", "stamp": stamp(EPOCH, offset, 922337203685477 + offset, NOW_MS + offset * 250),
        "sender": "alice", "payload": payload, **more,
    }


CLIENT_FRAMES = {
    "Connect": {
        "minimal": {"version": 1, "token": "t"},
        "typical": {
            "request": 1, "version": 1, "token": TOKEN, "device": "phone", "client": "ringgate-py/0.1",
            "inbox": position(EPOCH, 41),
            "rooms": [
                {"room": "chat:general", "since": position(EPOCH + 1, 7), "recover": 1}, {"room": "chat:random"},
            ],
        },
        "maximal": {
            "request": U32_MAX, "version": U16_MAX, "token": "t" * 8192, "device": DEVICE_128, "client": "c" * 128,
            "inbox": TOP,
            "rooms": [{"room": f"chat:{i:0123}", "since": position(U64_MAX, i), "recover": 1} for i in range(128)],
            "ping_interval_ms": U32_MAX, "receive_window": U32_MAX,
        },
    },
    "Ping": {"minimal": {}},
    "Publish": {
        "minimal": {"topic": "@b"},
        "typical": {
            "request": 7, "topic": "@bob", "client_message_id": UUID, "payload": "Grüße, Bob".encode(),
        },
        "maximal": {
            "request": U32_MAX, "topic": "@" + USER_128, "client_message_id": TOP_ID, "payload": PAYLOAD_MAX,
            "ephemeral": True, "ttl_seconds": U32_MAX, "trace": "t" * 64,
        },
    },
    "Ack": {"minimal": position(0, 0), "typical": position(EPOCH, 42), "maximal": TOP},
    "Subscribe": {
        "minimal": {"room": "c:r"},
        "typical": {"request": 8, "room": "chat:general", "since": position(EPOCH, 7)},
        "maximal": {"request": U32_MAX, "room": ROOM_128, "since": TOP, "recover": 1},
    },
    "Unsubscribe": {
        "minimal": {"room": "c:r"},
        "typical": {"request": 9, "room": "chat:general"},
        "maximal": {"request": U32_MAX, "room": ROOM_128},
    },
    "Presence": {
        "minimal": {"room": "c:r"},
        "typical": {"request": 10, "room": "chat:general", "limit": 100},
        "maximal": {"request": U32_MAX, "room": ROOM_128, "limit": U32_MAX},
    },
    "History": {
        "minimal": {"topic": "c:r"},
        "typical": {"request": 11, "topic": "chat:general", "since": position(EPOCH, 40), "limit": 50},
        "maximal": {"request": U32_MAX, "topic": "@" + USER_128, "before": TOP, "limit": U32_MAX},
    },
    "Refresh": {
        "minimal": {"token": "t"},
        "typical": {"request": 12, "token": TOKEN},
        "maximal": {"request": U32_MAX, "token": "t" * 8192},
    },
    "Disconnect": {"minimal": {}},
    "Pong": {"minimal": {}},
}

GATEWAY_FRAMES = {
    "Ping": {"minimal": {}},
    "Connected": {
        "minimal": {},
        "typical": {
            "request": 1, "version": 1, "session": 4398046511109, "node": "ringgate", "user": "alice",
            "ping_interval_ms": 30000, "pong_timeout_ms": 5000, "message_bytes_max": 65536, "rooms_max": 128,
            "requests_in_flight_max": 1024, "expires_at": 1_760_003_600, "inbox_recovered": True,
            "inbox": position(EPOCH, 44), "server_time_ms": NOW_MS, "expires_in_ms": 3_600_000,
            "dedup_window_ms": 300_000, "frames_rate": 1000, "frames_burst": 5000, "bytes_rate": 4_194_304,
            "bytes_burst": 16_777_216, "receive_window": 1024,
        },
        "maximal": {
            "request": U32_MAX, "version": U16_MAX, "session": U64_MAX, "node": "n" * 128, "user": USER_128,
            "ping_interval_ms": U32_MAX, "pong_timeout_ms": U32_MAX, "message_bytes_max": U32_MAX,
            "rooms_max": U16_MAX, "requests_in_flight_max": U16_MAX, "expires_at": U64_MAX, "inbox_recovered": True,
            "inbox": TOP, "server_time_ms": U64_MAX, "expires_in_ms": U64_MAX, "dedup_window_ms": U32_MAX,
            "frames_rate": U32_MAX, "frames_burst": U32_MAX, "bytes_rate": U32_MAX, "bytes_burst": U32_MAX,
            "receive_window": U32_MAX,
        },
    },
    "Pong": {"minimal": {}},
    "Published": {
        "minimal": {
            "client_message_id": {"high": 0, "low": 0}, "stamp": stamp(EPOCH, 0, 1, NOW_MS), "request": 0,
            "durability": 0, "duplicate": False,
        },
        "typical": {
            "client_message_id": UUID, "stamp": stamp(EPOCH, 42, 922337203685519, NOW_MS), "request": 7,
            "durability": 1, "duplicate": False,
        },
        "maximal": {
            "client_message_id": TOP_ID, "stamp": stamp(U64_MAX, U64_MAX, U64_MAX, U64_MAX), "request": U32_MAX,
            "durability": 2, "duplicate": True,
        },
    },
    "Error": {
        "minimal": {"code": 107},
        "typical": {"request": 8, "code": 103, "message": "permission denied", "room": "chat:general"},
        "maximal": {
            "request": U32_MAX, "code": U16_MAX, "message": "m" * 256, "temporary": True, "retry_after_ms": U32_MAX,
            "room": ROOM_128,
        },
    },
    "Message": {
        "minimal": {"topic": "@b", "stamp": stamp(EPOCH, 0, 1, NOW_MS), "sender": "a"},
        "typical": {
            "topic": "@bob", "stamp": stamp(EPOCH, 42, 922337203685519, NOW_MS), "sender": "alice",
            "payload": "Grüße, Bob".encode(), "trace": TRACE,
        },
        "maximal": {
            "topic": "@" + USER_128, "stamp": stamp(U64_MAX, U64_MAX, U64_MAX, U64_MAX), "sender": USER_128,
            "payload": PAYLOAD_MAX, "trace": "t" * 64, "sent_to": "@" + USER_128,
        },
    },
    "Subscribed": {
        "minimal": {"room": "c:r", "position": position(EPOCH, 0), "start": position(EPOCH, 0)},
        "typical": {
            "request": 8, "room": "chat:general", "recovered": True, "position": position(EPOCH, 9),
            "start": position(EPOCH, 7),
        },
        "maximal": {"request": U32_MAX, "room": ROOM_128, "recovered": True, "position": TOP, "start": TOP},
    },
    "Unsubscribed": {
        "minimal": {"room": "c:r"},
        "typical": {"request": 9, "room": "chat:general"},
        "maximal": {"request": U32_MAX, "room": ROOM_128, "code": U16_MAX},
    },
    "PresenceResult": {
        "minimal": {"room": "c:r"},
        "typical": {
            "request": 10, "room": "chat:general", "count": 3,
            "members": [{"user": "alice", "device": "phone"}, {"user": "bob", "device": "default"}],
        },
        "maximal": {
            "request": U32_MAX, "room": ROOM_128, "count": U32_MAX,
            "members": [{"user": USER_128, "device": DEVICE_128}]
            + [{"user": f"user{i:04}", "device": f"d{i % 10}"} for i in range(1, 1000)],
        },
    },
    "HistoryResult": {
        "minimal": {"topic": "c:r"},
        "typical": {
            "request": 11, "topic": "chat:general", "position": position(EPOCH, 42), "recovered": True,
            "messages": [message(41, b"one"), message(42, b"two", trace=TRACE)],
        },
        "maximal": {
            "request": U32_MAX, "topic": ROOM_128, "position": TOP, "more": True, "recovered": True,
            "messages": [message(i, bytes([i & 0xFF]) * (i % 32)) for i in range(1, 301)],
        },
    },
    "Refreshed": {
        "minimal": {},
        "typical": {"request": 12, "expires_at": 1_760_007_200, "expires_in_ms": 7_200_000},
        "maximal": {"request": U32_MAX, "expires_at": U64_MAX, "expires_in_ms": U64_MAX},
    },
    "Joined": {
        "minimal": {"room": "c:r", "user": "a"},
        "typical": {"room": "chat:general", "user": "bob", "device": "phone"},
        "maximal": {"room": ROOM_128, "user": USER_128, "device": DEVICE_128},
    },
    "Left": {
        "minimal": {"room": "c:r", "user": "a"},
        "typical": {"room": "chat:general", "user": "bob", "device": "phone"},
        "maximal": {"room": ROOM_128, "user": USER_128, "device": DEVICE_128},
    },
    "Goodbye": {
        "minimal": {"code": 3500},
        "typical": {"code": 3001, "reason": "shutdown", "reconnect": True, "after_ms": 1734},
        "maximal": {"code": U16_MAX, "reason": "r" * 256, "reconnect": True, "after_ms": U32_MAX},
    },
}

# ---------------------------------------------------------------- frames of a newer schema


def newer_publish():
    """A Publish with two fields that version 1 does not know: a u64 and a string, at ids 7 and 8."""
    builder = flatbuffers.Builder(256)
    note = builder.CreateString("from the future")
    payload = builder.CreateByteVector(b"hello")
    topic = builder.CreateString("@bob")
    builder.StartObject(9)
    builder.PrependUint32Slot(0, 13, 0)
    builder.PrependUOffsetTRelativeSlot(1, topic, 0)
    builder.PrependUOffsetTRelativeSlot(3, payload, 0)
    builder.PrependUint64Slot(7, 99, 0)
    builder.PrependUOffsetTRelativeSlot(8, note, 0)
    builder.Finish(builder.EndObject())
    return bytes(builder.Output())


# ---------------------------------------------------------------- malformed frames of a client


def field_position(table, body, slot):
    """Where the field with this id stands in the body."""
    root = getattr(generated(table), table).GetRootAs(body, 0)._tab
    return root.Pos + root.Offset(4 + 2 * slot)


def patched(body, at, pattern, value):
    out = bytearray(body)
    struct.pack_into(pattern, out, at, value)
    return bytes(out)


def shared_rooms(count, room):
    """A Connect whose `rooms` all point to one and the same RoomCursor."""
    module = generated("Connect")
    builder = flatbuffers.Builder(256)
    cursor = add_table(builder, "RoomCursor", {"room": room})
    token = builder.CreateString("t")
    module.ConnectStartRoomsVector(builder, count)
    for _ in range(count):
        builder.PrependUOffsetTRelative(cursor)
    rooms = builder.EndVector()
    module.ConnectStart(builder)
    module.ConnectAddVersion(builder, 1)
    module.ConnectAddToken(builder, token)
    module.ConnectAddRooms(builder, rooms)
    builder.Finish(module.ConnectEnd(builder))
    return bytes(builder.Output())


def malformed():
    """(name of the file, name of the frame, kind, frame, level, why); in a few cases the kind has no name."""
    publish = table_body("Publish", CLIENT_FRAMES["Publish"]["typical"])
    subscribe = table_body("Subscribe", CLIENT_FRAMES["Subscribe"]["typical"])
    # The vtable entry of `request`, moved to an odd place inside the table.
    table_at = struct.unpack_from("<I", publish)[0]
    vtable_at = table_at - struct.unpack_from("<i", publish, table_at)[0]
    request_at = struct.unpack_from("<H", publish, vtable_at + 4)[0]
    # A vtable that claims to be longer than the buffer.
    long_vtable = patched(publish, vtable_at, "<H", 0xFFFE)
    topic_at = field_position("Publish", publish, 1)
    payload_at = field_position("Publish", publish, 3)
    payload_at += struct.unpack_from("<I", publish, payload_at)[0]
    published = body_of("Published", GATEWAY_FRAMES["Published"]["typical"])

    def table(file, name, values, why):
        return (file, name, CLIENT_KINDS[name], frame(CLIENT_KINDS[name], table_body(name, values)), "field", why)

    def verify(file, name, body, why):
        return (file, name, CLIENT_KINDS[name], frame(CLIENT_KINDS[name], body), "verify", why)

    return [
        ("length_4gib", "Publish", 3, frame(3, b"", length=U32_MAX), "header", "the length is 4 GiB less one byte"),
        ("unknown_kind", None, 77, frame(77, b""), "header", "no kind has this number"),
        ("kind_0", None, 0, frame(0, b""), "header", "no kind has this number"),
        ("flags", "Ping", 2, frame(2, b"", flags=1), "header", "flags are not zero"),
        ("reserved", "Ping", 2, frame(2, b"", reserved=0x0100), "header", "reserved bits are not zero"),
        ("ping_with_body", "Ping", 2, frame(2, b"x"), "header", "Ping has no body"),
        ("pong_with_body", "Pong", 11, frame(11, b"\0" * 8), "header", "Pong has no body"),
        ("disconnect_with_body", "Disconnect", 10, frame(10, b"\0" * 4), "header", "Disconnect has no body"),
        ("ack_15", "Ack", 4, frame(4, b"\1" * 15), "header", "Ack is 16 bytes"),
        ("ack_17", "Ack", 4, frame(4, b"\1" * 17), "header", "Ack is 16 bytes"),
        ("table_empty", "Publish", 3, frame(3, b""), "header", "a table takes 8 bytes at least"),
        ("table_7_bytes", "Publish", 3, frame(3, b"\4\0\0\0\0\0\0"), "header", "a table takes 8 bytes at least"),
        ("gateway_kind", "Published", 130, frame(130, published), "header", "this kind is sent by gateways only"),
        verify("truncated", "Publish", publish[:-12], "the body ends before the topic does"),
        verify("root_out_of_bounds", "Publish", patched(publish, 0, "<I", 0xFFFF_FFF0), "the root is outside"),
        verify("string_out_of_bounds", "Publish", patched(publish, topic_at, "<I", 0x7FFF_0000), "topic is outside"),
        verify("vector_too_long", "Publish", patched(publish, payload_at, "<I", U32_MAX), "the payload passes the end"),
        verify("vtable_too_long", "Publish", long_vtable, "the vtable passes the end"),
        verify("misaligned", "Publish", patched(publish, vtable_at + 4, "<H", request_at | 1), "request is misaligned"),
        verify("not_utf8", "Subscribe", subscribe.replace(b"general", b"g\xff\xfeeral"), "room is not UTF-8"),
        verify("no_terminator", "Subscribe", subscribe.replace(b"general\0", b"generalx"), "room has no zero behind it"),
        verify("bomb", "Connect", shared_rooms(8000, "chat:general"), "8000 rooms that are one table"),
        verify("bomb_within_table_limit", "Connect", shared_rooms(128, ROOM_128), "128 rooms that are one table"),
        (
            "root_zeros", "Subscribe", 5, frame(5, b"\0" * 16), "field",
            "room is missing: the root is its own vtable, of length 0, so no field is there",
        ),
        table("token_missing", "Connect", {"request": 1, "version": 1}, "token is missing"),
        table("token_empty", "Connect", {"request": 1, "version": 1, "token": ""}, "token is empty"),
        table("token_8193", "Refresh", {"request": 1, "token": "t" * 8193}, "token is longer than 8192 bytes"),
        table("device_blank", "Connect", {"version": 1, "token": "t", "device": "my phone"}, "device holds a blank"),
        table("device_unseen", "Connect", {"version": 1, "token": "t", "device": "\u200b\u200d"}, "device has no character that can be seen"),
        table("client_129", "Connect", {"version": 1, "token": "t", "client": "c" * 129}, "client is over 128 bytes"),
        table(
            "rooms_129", "Connect",
            {"version": 1, "token": "t", "rooms": [{"room": f"chat:{i}"} for i in range(129)]}, "rooms are more than 128",
        ),
        table(
            "recover_2_in_connect", "Connect",
            {"version": 1, "token": "t", "rooms": [{"room": "chat:a", "recover": 2}]}, "rooms.recover has no such value",
        ),
        table("room_missing_in_connect", "Connect", {"version": 1, "token": "t", "rooms": [{}]}, "rooms.room is missing"),
        table("topic_missing", "Publish", {"request": 1, "payload": b"x"}, "topic is missing"),
        table("topic_empty", "Publish", {"request": 1, "topic": "", "payload": b"x"}, "topic is empty"),
        table("topic_at_alone", "Publish", {"request": 1, "topic": "@", "payload": b"x"}, "topic has no user behind the @"),
        table("topic_user_129", "Publish", {"request": 1, "topic": "@" + "u" * 129}, "topic has a user over 128 bytes"),
        table("trace_65", "Publish", {"request": 1, "topic": "@bob", "trace": "t" * 65}, "trace is over 64 bytes"),
        table("room_missing", "Subscribe", {"request": 1}, "room is missing"),
        table("room_control", "Subscribe", {"request": 1, "room": "chat:a\x07b"}, "room holds a control character"),
        table("room_blank", "Subscribe", {"request": 1, "room": "chat:a b"}, "room holds a blank"),
        table("room_nbsp", "Subscribe", {"request": 1, "room": "chat:a\u00a0b"}, "room holds a no-break space"),
        table("recover_2", "Subscribe", {"request": 1, "room": "chat:a", "recover": 2}, "recover has no such value"),
        table(
            "history_since_and_before", "History",
            {"request": 1, "topic": "chat:a", "since": position(1, 1), "before": position(1, 9)}, "before beside since",
        ),
        table("room_129", "Subscribe", {"request": 1, "room": "chat:" + "r" * 124}, "room is over 128 bytes"),
        table("presence_room_empty", "Presence", {"request": 1, "room": ""}, "room is empty"),
        table("history_topic_empty", "History", {"request": 1, "topic": ""}, "topic is empty"),
    ]


# ---------------------------------------------------------------- files


def make():
    """All files, by name."""
    files, index, texts = {}, [], []

    def add(file, content, **entry):
        assert file not in files
        files[file] = content
        index.append({"file": file, **entry})

    for direction, kinds, frames in (
        ("client", CLIENT_KINDS, CLIENT_FRAMES),
        ("gateway", GATEWAY_KINDS, GATEWAY_FRAMES),
    ):
        assert list(kinds) == list(frames)
        for name, cases in frames.items():
            for case, values in cases.items():
                add(
                    f"{direction}_{name.lower()}_{case}.bin", frame(kinds[name], body_of(name, values)),
                    kind=kinds[name], name=name, direction=direction, case=case, fields=shown_body(name, values),
                )
                texts.append({"file": f"{direction}_{name.lower()}_{case}.bin", "text": json_object(name, values)})
    add(
        "client_publish_newer.bin", frame(CLIENT_KINDS["Publish"], newer_publish()),
        kind=CLIENT_KINDS["Publish"], name="Publish", direction="client", case="typical",
        fields=shown_body("Publish", {"request": 13, "topic": "@bob", "payload": b"hello"}),
    )
    for file, name, kind, content, level, why in malformed():
        is_answered = level == "field" and name != "Connect"
        verdict = {"error": 107} if is_answered else {"close": 3510 if file == "length_4gib" else 3501}
        field = {"field": why.split()[0].rstrip(":")} if level == "field" else {}
        add(
            f"malformed_{file}.bin", content,
            kind=kind, name=name, direction="client", case="malformed", refuse=why, level=level, **field, **verdict,
        )
    for file, entries in (("index.json", index), ("texts.json", texts)):
        lines = ",\n".join(json.dumps(entry, ensure_ascii=False) for entry in entries)
        files[file] = f"[\n{lines}\n]\n".encode()
    return files


def main(arguments):
    files = make()
    present = {path.name: path for path in HERE.iterdir() if path.suffix in (".bin", ".json")}
    superfluous = sorted(present.keys() - files.keys())
    if arguments == ["--check"]:
        stale = sorted(
            name for name, content in files.items() if name not in present or present[name].read_bytes() != content
        )
        for name in stale:
            print(f"schemas/vectors/{name} is stale or missing", file=sys.stderr)
        for name in superfluous:
            print(f"schemas/vectors/{name} is made by nothing", file=sys.stderr)
        if stale or superfluous:
            sys.exit("run schemas/vectors/make.py and commit what it writes")
    elif not arguments:
        for name, content in files.items():
            (HERE / name).write_bytes(content)
        for name in superfluous:
            present[name].unlink()
    else:
        sys.exit("usage: make.py [--check]")


if __name__ == "__main__":
    main(sys.argv[1:])
