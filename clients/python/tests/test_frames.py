"""The frame parser against hostile and chopped input."""

import random
import struct
import unittest

from . import support
from .support import make

from ringgate import frames


def split(data, limit=1 << 21):
    return list(frames.Splitter(limit).feed(data))


class SplitterTest(unittest.TestCase):
    def test_any_cut_of_a_stream_gives_the_same_frames(self):
        stream = b"".join(
            support.vector_bytes(entry)
            for entry in support.vectors()
            if entry["direction"] == "gateway" and entry["case"] == "typical"
        )
        whole = split(stream)
        self.assertGreater(len(whole), 8)
        for step in (1, 2, 3, 7, 8, 9, 64, 1000):
            splitter = frames.Splitter(1 << 21)
            got = [f for at in range(0, len(stream), step) for f in splitter.feed(stream[at : at + step])]
            self.assertEqual(got, whole)

    def test_a_header_is_judged_before_its_body_comes(self):
        for header in (
            struct.pack("<IBBH", 101, 132, 0, 0),
            struct.pack("<IBBH", 0xFFFF_FFFF, 132, 0, 0),
            struct.pack("<IBBH", 0, 129, 1, 0),
            struct.pack("<IBBH", 0, 129, 0, 1),
        ):
            with self.assertRaises(frames.FrameError):
                split(header, limit=100)
        self.assertEqual(split(struct.pack("<IBBH", 100, 132, 0, 0), limit=100), [])


class EncodeTest(unittest.TestCase):
    def test_arguments_that_no_frame_may_carry_are_named(self):
        for arguments, name in ((("@bob", "text"), "payload"), (("@bob", b"", None, False, 0.5), "ttl"), (("@bob", None), "payload")):
            with self.assertRaisesRegex(frames.FrameError, f"^{name}: "):
                frames.publish(1, *arguments)


class DecodeTest(unittest.TestCase):
    def test_kinds_that_version_1_does_not_know(self):
        self.assertIsNone(frames.decode(200, b"whatever"))
        for kind in (0, 1, 3, 77):
            with self.assertRaises(frames.FrameError):
                frames.decode(kind, b"")

    def test_bodies_of_the_wrong_length(self):
        for kind, body in ((129, b"x"), (2, b"x"), (130, b"\0" * 55), (130, b"\0" * 57), (128, b""), (132, b"\4\0\0\0")):
            with self.assertRaises(frames.FrameError):
                frames.decode(kind, body)

    def test_malformed_bodies_are_refused(self):
        body = bytearray(make.body_of("Message", make.GATEWAY_FRAMES["Message"]["typical"]))
        root = struct.unpack_from("<I", body)[0]
        vtable = root - struct.unpack_from("<i", body, root)[0]
        topic = root + struct.unpack_from("<H", body, vtable + 4)[0]
        string = topic + struct.unpack_from("<I", body, topic)[0]
        for what, at, pattern, value in (
            ("root", 0, "<I", 0xFFFF_FFF0),
            ("root", 0, "<I", len(body) - 1),
            ("vtable", root, "<i", -(1 << 30)),
            ("vtable", root, "<i", 1 << 30),
            ("vtable length", vtable, "<H", 0xFFFE),
            ("vtable length", vtable, "<H", 2),
            ("stamp", vtable + 6, "<H", len(body)),
            ("string", topic, "<I", 0x7FFF_0000),
            ("string length", string, "<I", 0xFFFF_FFFF),
            ("string length", string, "<I", len(body)),
            ("utf-8", string + 4, "<B", 0xFF),
        ):
            patched = bytearray(body)
            struct.pack_into(pattern, patched, at, value)
            with self.subTest(what), self.assertRaises(frames.FrameError):
                frames.decode(frames.Kind.MESSAGE, bytes(patched))

    def test_a_bomb_of_shared_members_is_refused_quickly(self):
        builder = make.flatbuffers.Builder(1024)
        member = make.add_table(builder, "Member", {"user": "u" * 100_000, "device": "d"})
        module = make.generated("PresenceResult")
        module.PresenceResultStartMembersVector(builder, 100_000)
        for _ in range(100_000):
            builder.PrependUOffsetTRelative(member)
        members = builder.EndVector()
        module.PresenceResultStart(builder)
        module.PresenceResultAddMembers(builder, members)
        builder.Finish(module.PresenceResultEnd(builder))
        with self.assertRaisesRegex(frames.FrameError, "expands"):
            frames.decode(frames.Kind.PRESENCE_RESULT, bytes(builder.Output()))

    def test_random_damage_never_raises_anything_else(self):
        dice = random.Random(7)
        bodies = [
            (entry["kind"], support.vector_bytes(entry)[8:])
            for entry in support.vectors()
            if entry["direction"] == "gateway" and entry["case"] in ("minimal", "typical")
        ]
        for _ in range(20_000):
            kind, body = dice.choice(bodies)
            damaged = bytearray(body)
            for _ in range(dice.randint(1, 4)):
                if damaged:
                    damaged[dice.randrange(len(damaged))] = dice.choice((0, 1, 4, 127, 128, 255, dice.randrange(256)))
            if dice.random() < 0.2:
                del damaged[dice.randrange(len(damaged) + 1) :]
            try:
                frames.decode(kind, bytes(damaged))
            except frames.FrameError:
                pass

    def test_a_name_has_a_character_that_can_be_seen(self):
        for invisible in ("\u200b", "\u200d\u200d", "\u3164", "\ufeff", "\u202e\u2066", "\U000e0041", "\u2800"):
            with self.assertRaisesRegex(frames.FrameError, "can be seen"):
                frames._name(invisible)
            self.assertEqual(frames._name(invisible + "a"), invisible + "a")
        # A family of emoji joined by ZWJ, and Persian with ZWNJ.
        for name in ("\U0001f468\u200d\U0001f469\u200d\U0001f467", "\u2764\ufe0f", "\u0645\u06cc\u200c\u062e"):
            self.assertEqual(frames._name(name), name)


if __name__ == "__main__":
    unittest.main()
