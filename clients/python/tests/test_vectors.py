"""Every golden vector: gateway frames decode to the expected fields, client frames are what our encoders mean."""

import dataclasses
import unittest
import uuid

from . import support
from .support import make

from ringgate import frames


def position(shown):
    return None if shown is None else frames.Position(int(shown["epoch"]), int(shown["offset"]))


def encode(name, fields):
    """The frame that our encoder makes of the fields of a vector."""
    if name == "Connect":
        rooms = [(cursor["room"], position(cursor["since"]), cursor["recover"]) for cursor in fields["rooms"] or ()]
        return frames.connect(
            fields["request"], fields["token"], fields["device"] or "", fields["client"] or "", position(fields["inbox"]),
            rooms, fields["version"], fields["ping_interval_ms"], fields["receive_window"],
        )
    if name == "Publish":
        id_ = fields["client_message_id"]
        return frames.publish(
            fields["request"], fields["topic"], bytes.fromhex(fields["payload"] or ""),
            id_ and uuid.UUID(int=int(id_["high"]) << 64 | int(id_["low"])), fields["ephemeral"], fields["ttl_seconds"],
            fields["trace"],
        )
    if name == "Ack":
        return frames.ack(position(fields))
    if name == "Subscribe":
        return frames.subscribe(fields["request"], fields["room"], position(fields["since"]), fields["recover"])
    if name == "Unsubscribe":
        return frames.unsubscribe(fields["request"], fields["room"])
    if name == "Presence":
        return frames.presence(fields["request"], fields["room"], fields["limit"])
    if name == "History":
        return frames.history(
            fields["request"], fields["topic"], position(fields["since"]), fields["limit"], position(fields["before"])
        )
    if name == "Refresh":
        return frames.refresh(fields["request"], fields["token"])
    return {"Ping": frames.PING, "Pong": frames.CLIENT_PONG, "Disconnect": frames.DISCONNECT}[name]


def plain(value):
    """A decoded value in the notation of index.json, as far as its types tell."""
    if isinstance(value, frames.Position):
        return {"epoch": str(value.epoch), "offset": str(value.offset)}
    if isinstance(value, frames.Stamp):
        return {
            "position": plain(value.position), "message_id": str(value.message_id),
            "timestamp_ms": str(value.timestamp_ms),
        }
    if isinstance(value, uuid.UUID):
        return {"high": str(value.int >> 64), "low": str(value.int & (1 << 64) - 1)}
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, tuple):
        return [plain(element) for element in value]
    if dataclasses.is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return value


def equal_to(expected, got):
    """Whether a decoded value is what index.json says: absent strings and vectors are empty, 64-bit numbers are strings."""
    if isinstance(expected, dict) and isinstance(got, dict):
        return expected.keys() == got.keys() and all(equal_to(expected[key], got[key]) for key in expected)
    if isinstance(expected, list) and isinstance(got, list):
        return len(expected) == len(got) and all(map(equal_to, expected, got))
    if expected is None:
        return got in (None, "", [])
    if isinstance(expected, str) and isinstance(got, int):
        return expected == str(got)
    return type(expected) is type(got) and expected == got


class Vectors(unittest.TestCase):
    def test_the_index_names_every_kind_and_every_file(self):
        index = support.vectors()
        listed = {entry["file"] for entry in index}
        self.assertEqual(listed, {path.name for path in support.VECTORS.glob("*.bin")})
        valid = {(entry["direction"], entry["kind"]) for entry in index if entry["case"] != "malformed"}
        clients = {("client", kind) for kind in make.CLIENT_KINDS.values()}
        gateways = {("gateway", kind) for kind in make.GATEWAY_KINDS.values()}
        self.assertEqual(valid, clients | gateways)
        self.assertEqual({kind for _, kind in valid}, {int(kind) for kind in frames.Kind})

    def test_gateway_frames_decode_to_their_fields(self):
        for entry in support.vectors():
            if entry["direction"] != "gateway":
                continue
            with self.subTest(entry["file"]):
                ((kind, body),) = frames.Splitter(1 << 21).feed(support.vector_bytes(entry))
                self.assertEqual(kind, entry["kind"])
                value = frames.decode(kind, body)
                self.assertEqual(type(value).__name__, entry["name"])
                self.assertTrue(equal_to(entry["fields"], plain(value)), f"{plain(value)} is not {entry['fields']}"[:2000])

    def test_client_frames_and_our_encoders_agree(self):
        for entry in support.vectors():
            if entry["direction"] != "client" or entry["case"] == "malformed":
                continue
            with self.subTest(entry["file"]):
                golden = support.vector_bytes(entry)
                name, values = support.read_client_frame(golden)
                self.assertEqual(name, entry["name"])
                self.assertEqual(make.shown_body(name, values), entry["fields"])
                ours = support.read_client_frame(encode(name, entry["fields"]))
                self.assertEqual((ours[0], make.shown_body(*ours)), (name, entry["fields"]))

    def test_our_encoders_refuse_what_gateways_refuse(self):
        refused = {
            "token": lambda: frames.connect(1, ""),
            "long token": lambda: frames.refresh(1, "t" * 8193),
            "device": lambda: frames.connect(1, "t", device="my phone"),
            "rooms": lambda: frames.connect(1, "t", rooms=[(f"chat:{i}", None) for i in range(129)]),
            "topic": lambda: frames.publish(1, "", b""),
            "user": lambda: frames.publish(1, "@", b""),
            "long user": lambda: frames.publish(1, "@" + "u" * 129, b""),
            "trace": lambda: frames.publish(1, "@bob", b"", trace="t" * 65),
            "control": lambda: frames.subscribe(1, "chat:a\x07b"),
            "blank": lambda: frames.subscribe(1, "chat:a\u00a0b"),
            "long room": lambda: frames.subscribe(1, "chat:" + "r" * 124),
            "request": lambda: frames.subscribe(1 << 32, "chat:a"),
            "client": lambda: frames.connect(1, "t", client="c" * 129),
            "client control": lambda: frames.connect(1, "t", client="a\nb"),
            "ping interval": lambda: frames.connect(1, "t", ping_interval_ms=-1),
            "receive window": lambda: frames.connect(1, "t", receive_window=1 << 32),
            "since and before": lambda: frames.history(1, "chat:a", frames.Position(1, 1), 1, frames.Position(1, 2)),
        }
        for what, encode_it in refused.items():
            with self.subTest(what), self.assertRaises(frames.FrameError):
                encode_it()
        # An enum's own error is a ValueError as well, as FrameError is.
        for encode_it in (
            lambda: frames.subscribe(1, "chat:a", None, 2), lambda: frames.connect(1, "t", rooms=[("chat:a", None, 2)])
        ):
            with self.assertRaises(ValueError):
                encode_it()


if __name__ == "__main__":
    unittest.main()
