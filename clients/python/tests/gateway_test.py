"""The client, and bare frames, against a real gateway. Started by name: python -m unittest tests.gateway_test

Whoever starts it runs a gateway with the default namespace `chat` and sets

    RINGGATE_TCP     host:port of its plain listener
    RINGGATE_TLS     host:port of its TLS listener
    RINGGATE_CA      file with the certificate, in PEM form, that the TLS listener's is checked against
    RINGGATE_TOKENS  a JSON object: user id -> token, for alice and bob at least
    RINGGATE_LATER   another token for alice, which ends a minute later or more

Without them it fails: a run that tests nothing must not look like a success.
"""

import asyncio
import json
import os
import ssl
import sys
import unittest
import uuid

from . import support

from ringgate import Client, Closed, Position, Recover, RinggateError, frames

NEEDED = ("RINGGATE_TCP", "RINGGATE_TLS", "RINGGATE_CA", "RINGGATE_TOKENS", "RINGGATE_LATER")


def setUpModule():
    missing = [name for name in NEEDED if not os.environ.get(name)]
    if missing:
        raise RuntimeError(f"gateway_test needs a running gateway; {', '.join(missing)} not set (see its first lines)")
    users = json.loads(os.environ["RINGGATE_TOKENS"])
    if not {"alice", "bob"} <= users.keys():
        raise RuntimeError("RINGGATE_TOKENS must have tokens for alice and bob")


def token(user):
    return json.loads(os.environ["RINGGATE_TOKENS"])[user]


def tls_context():
    return ssl.create_default_context(cafile=os.environ["RINGGATE_CA"])


def unique(prefix):
    return f"{prefix}{uuid.uuid4().hex[:12]}"


class Received:
    """Messages whose payload starts with this test's mark; an inbox may hold others' from before."""

    def __init__(self, mark):
        self.mark = mark
        self.messages = []
        self.changed = asyncio.Event()

    def __call__(self, message):
        if message.payload.startswith(self.mark):
            self.messages.append(message)
            self.changed.set()

    async def wait_for(self, count):
        while len(self.messages) < count:
            self.changed.clear()
            await self.changed.wait()

    def payloads(self):
        return [message.payload[len(self.mark) :] for message in self.messages]


class Raw:
    """A connection on which the test sends what it likes."""

    def __init__(self, reader, writer):
        self.reader = reader
        self.writer = writer
        self.splitter = frames.Splitter(1 << 21)
        self.waiting = []

    @classmethod
    async def open(cls, scheme="tcp"):
        name, context = ("RINGGATE_TLS", tls_context()) if scheme == "tls" else ("RINGGATE_TCP", None)
        host, port = os.environ[name].rsplit(":", 1)
        return cls(*await asyncio.open_connection(host.strip("[]"), int(port), ssl=context))

    @classmethod
    async def sign_in(cls, user="alice", device=None, scheme="tcp", **more):
        raw = await cls.open(scheme)
        raw.send(frames.connect(1, token(user), device or unique("raw"), "raw", **more))
        connected = await raw.read()
        assert isinstance(connected, frames.Connected), connected
        return raw, connected

    def send(self, frame):
        self.writer.write(frame)

    async def read(self):
        """The next frame, or None at the end of the stream."""
        while not self.waiting:
            data = await self.reader.read(65536)
            if not data:
                return None
            self.waiting += self.splitter.feed(data)
        return frames.decode(*self.waiting.pop(0))

    async def read_until(self, kind):
        while True:
            value = await self.read()
            if value is None or isinstance(value, kind):
                return value

    async def close_code(self):
        """The code of the Goodbye that must come, and that the connection ends behind it."""
        goodbye = await self.read_until(frames.Goodbye)
        assert goodbye is not None, "the connection ended without Goodbye"
        assert await self.read() is None, "something came behind Goodbye"
        return goodbye.code

    def close(self):
        self.writer.close()


class GatewayTest(support.BoundedTest):
    """Uses names of its own."""

    seconds = 30

    def setUp(self):
        self.mark = unique("").encode() + b":"
        self.room = unique("chat:")

    def client(self, user, scheme="tcp", received=None, **more):
        context = tls_context() if scheme == "tls" else None
        address = os.environ["RINGGATE_TLS" if scheme == "tls" else "RINGGATE_TCP"]
        options = {"device": unique("d"), "on_message": received, "ssl_context": context, "backoff": (0.1, 1.0), **more}
        return Client(f"{scheme}://{address}", token(user), **options)

    async def assert_refused(self, code, request):
        with self.assertRaises(RinggateError) as caught:
            await request
        self.assertEqual(caught.exception.code, code)

    # ------------------------------------------------------------ signing in, heartbeat

    async def test_sign_in_and_ping(self):
        for scheme in ("tcp", "tls"):
            with self.subTest(scheme):
                raw, connected = await Raw.sign_in("alice", scheme=scheme)
                self.assertEqual((connected.request, connected.version, connected.user), (1, 1, "alice"))
                self.assertGreater(connected.ping_interval_ms, 0)
                self.assertGreater(connected.pong_timeout_ms, 0)
                self.assertGreaterEqual(connected.message_bytes_max, 1024)
                raw.send(frames.PING)
                self.assertIsInstance(await raw.read_until(frames.Pong), frames.Pong)
                raw.send(frames.DISCONNECT)
                self.assertIsNone(await raw.read_until(frames.Goodbye), "Disconnect is not answered with Goodbye")
                raw.close()

    async def test_frames_may_come_byte_by_byte(self):
        raw = await Raw.open()
        for byte in frames.connect(1, token("alice"), unique("slow")) + frames.PING:
            raw.send(bytes([byte]))
            await raw.writer.drain()
            await asyncio.sleep(0)
            if raw.reader.at_eof():
                break
        self.assertIsInstance(await raw.read(), frames.Connected)
        self.assertIsInstance(await raw.read_until(frames.Pong), frames.Pong)
        raw.close()

    async def test_refused_sign_ins(self):
        for code, frame in (
            (3500, frames.connect(1, "not.a.token")),
            (3506, frames.connect(1, token("alice"), version=2)),
            (3501, frames.PING),
            (3501, frames.publish(1, "@bob", b"")),
        ):
            raw = await Raw.open()
            raw.send(frame)
            self.assertEqual(await raw.close_code(), code)
            raw.close()
        with self.assertRaises(Closed) as caught:
            await Client("tcp://" + os.environ["RINGGATE_TCP"], "not.a.token").connect()
        self.assertEqual((caught.exception.code, caught.exception.reconnect), (3500, False))

    async def test_a_second_connect_is_refused(self):
        raw, _ = await Raw.sign_in()
        raw.send(frames.connect(2, token("alice")))
        self.assertEqual(await raw.close_code(), 3501)
        raw.close()

    async def test_a_newer_session_takes_over(self):
        device = unique("phone")
        first = self.client("alice", device=device)
        await first.connect()
        async with self.client("alice", device=device) as second:
            with self.assertRaises(Closed) as caught:
                await first.wait_closed()
            self.assertEqual((caught.exception.code, caught.exception.reconnect), (4500, False))
            await second.presence(self.room)
        await first.close()

    # ------------------------------------------------------------ inbox

    async def test_messages_between_users(self):
        for scheme in ("tcp", "tls"):
            with self.subTest(scheme):
                self.mark = unique("").encode() + b":"
                received = Received(self.mark)
                device = unique("d")
                async with self.client("alice", scheme) as alice, self.client("bob", scheme, received, device=device) as bob:
                    stamps = await asyncio.gather(*(alice.publish("@bob", self.mark + b"%d" % i) for i in range(50)))
                    await received.wait_for(50)
                    self.assertEqual(received.payloads(), [b"%d" % i for i in range(50)])
                    self.assertEqual([m.stamp for m in received.messages], [p.stamp for p in stamps])
                    self.assertEqual({m.sender for m in received.messages}, {"alice"})
                    self.assertEqual({m.topic for m in received.messages}, {"@bob"})
                    self.assertEqual(bob.inbox, stamps[-1].stamp.position)
                    await acknowledge(bob)
                again = Received(self.mark)
                async with self.client("alice", scheme) as alice, self.client("bob", scheme, again, device=device):
                    await alice.publish("@bob", self.mark + b"later")
                    await again.wait_for(1)
                    self.assertEqual(again.payloads(), [b"later"], "what was acknowledged does not come again")

    async def test_large_and_empty_payloads(self):
        for scheme in ("tcp", "tls"):
            with self.subTest(scheme):
                self.mark = unique("").encode() + b":"
                received = Received(self.mark)
                async with self.client("alice", scheme) as alice, self.client("bob", scheme, received):
                    limit = alice.connected.message_bytes_max
                    large = self.mark + os.urandom(limit - len(self.mark))
                    await alice.publish("@bob", large)
                    await alice.publish("@bob", self.mark)
                    await received.wait_for(2)
                    self.assertEqual([m.payload for m in received.messages], [large, self.mark])
                    await self.assert_refused(106, alice.publish("@bob", large + b"x"))

    async def test_what_is_not_acknowledged_comes_again(self):
        device = unique("forgetful")
        raw, _ = await Raw.sign_in("bob", device)
        async with self.client("alice") as alice:
            stamps = [(await alice.publish("@bob", self.mark + b"%d" % i)).stamp for i in range(3)]

        async def read_marked(connection):
            got = []
            while len(got) < 3:
                message = await connection.read_until(frames.Message)
                if message.payload.startswith(self.mark):
                    got.append(message.stamp)
            return got

        self.assertEqual(await read_marked(raw), stamps)
        raw.close()
        raw, connected = await Raw.sign_in("bob", device)
        self.assertEqual(await read_marked(raw), stamps)
        self.assertGreaterEqual(connected.inbox.offset, stamps[-1].position.offset)
        raw.send(frames.ack(stamps[0].position))
        # The inbox's home answers this, and has the Ack before it. A Pong comes from the connection's shard.
        raw.send(frames.history(2, "@bob", limit=1))
        await raw.read_until(frames.HistoryResult)
        raw.close()
        raw, _ = await Raw.sign_in("bob", device)
        first = await raw.read_until(frames.Message)
        self.assertEqual(first.stamp, stamps[1])
        raw.close()

    async def test_offline_messages_wait_and_resume_from_a_position(self):
        async with self.client("alice") as alice:
            stamps = [(await alice.publish("@bob", self.mark + b"%d" % i)).stamp for i in range(5)]
        received = Received(self.mark)
        async with self.client("bob", received=received, inbox=stamps[1].position) as bob:
            self.assertTrue(bob.connected.inbox_recovered)
            await received.wait_for(3)
            self.assertEqual(received.payloads(), [b"2", b"3", b"4"])
        raw, connected = await Raw.sign_in("bob", inbox=Position(12345, 1))
        self.assertFalse(connected.inbox_recovered)
        raw.close()

    async def test_a_cut_connection_loses_and_repeats_nothing(self):
        received = Received(self.mark)
        async with self.client("alice") as alice, self.client("bob", received=received) as bob:
            for i in range(60):
                await alice.publish("@bob", self.mark + b"%d" % i)
                if i % 20 == 10:
                    cut(bob)
                if i % 20 == 15:
                    cut(alice)
            await received.wait_for(60)
            await asyncio.sleep(0.3)
        self.assertEqual(received.payloads(), [b"%d" % i for i in range(60)])

    async def test_ephemeral_messages_have_no_offset(self):
        received = Received(self.mark)
        async with self.client("alice") as alice, self.client("bob", received=received):
            published = await alice.publish("@bob", self.mark + b"typing", ephemeral=True)
            self.assertEqual((published.stamp.position.offset, published.durability), (0, 0))
            await received.wait_for(1)
            self.assertTrue(received.messages[0].ephemeral)

    async def test_a_repeated_client_message_id_is_stored_once(self):
        received = Received(self.mark)
        async with self.client("alice") as alice, self.client("bob", received=received) as bob:
            id_ = uuid.uuid4()
            first = await alice.publish("@bob", self.mark + b"once", client_message_id=id_)
            second = await alice.publish("@bob", self.mark + b"once", client_message_id=id_)
            self.assertEqual((first.duplicate, second.duplicate), (False, True))
            self.assertEqual((first.stamp, first.client_message_id), (second.stamp, id_))
            other = await bob.publish("@bob", self.mark + b"mine", client_message_id=id_)
            self.assertFalse(other.duplicate, "another user's id is another id")
            await received.wait_for(2)
            self.assertEqual(received.payloads(), [b"once", b"mine"])

    # ------------------------------------------------------------ rooms

    async def test_rooms(self):
        heard_by_alice, heard_by_bob = Received(self.mark), Received(self.mark)
        async with self.client("alice", received=heard_by_alice) as alice, self.client("bob", "tls", heard_by_bob) as bob:
            subscribed = await alice.subscribe(self.room)
            self.assertEqual((subscribed.room, subscribed.recovered, subscribed.position.offset), (self.room, True, 0))
            self.assertEqual(subscribed.start, subscribed.position)
            await bob.subscribe(self.room)
            published = [await alice.publish(self.room, self.mark + b"%d" % i) for i in range(5)]
            self.assertEqual([p.stamp.position.offset for p in published], [1, 2, 3, 4, 5])
            for heard in (heard_by_alice, heard_by_bob):
                await heard.wait_for(5)
                self.assertEqual([m.stamp for m in heard.messages], [p.stamp for p in published])

            presence = await bob.presence(self.room)
            self.assertEqual((presence.count, sorted(m.user for m in presence.members)), (2, ["alice", "bob"]))
            counted = await bob.presence(self.room, limit=0)
            self.assertEqual((counted.count, counted.members), (2, ()))

            newest = await bob.history(self.room, limit=2)
            self.assertEqual([m.payload for m in newest.messages], [self.mark + b"3", self.mark + b"4"])
            self.assertEqual(newest.position, published[-1].stamp.position)
            since = await bob.history(self.room, published[0].stamp.position, 2)
            self.assertEqual([m.stamp for m in since.messages], [p.stamp for p in published[1:3]])
            self.assertEqual((since.more, since.recovered), (True, True))
            lost = await bob.history(self.room, Position(12345, 1))
            self.assertFalse(lost.recovered)

            unsubscribed = await bob.unsubscribe(self.room)
            self.assertEqual((unsubscribed.room, unsubscribed.code), (self.room, 0))
            # The room hears of it a moment after bob, but before what bob asks next.
            self.assertEqual((await bob.presence(self.room)).count, 1)
            await alice.publish(self.room, self.mark + b"not for bob")
            await heard_by_alice.wait_for(6)
            self.assertEqual(len(heard_by_bob.messages), 5)

    async def test_a_room_goes_on_where_it_was_left(self):
        received = Received(self.mark)
        async with self.client("alice") as alice:
            await alice.subscribe(self.room)
            stamps = [(await alice.publish(self.room, self.mark + b"%d" % i)).stamp for i in range(5)]
            async with self.client("bob", received=received) as bob:
                subscribed = await bob.subscribe(self.room, since=stamps[1].position)
                self.assertEqual((subscribed.recovered, subscribed.position), (True, stamps[-1].position))
                await alice.publish(self.room, self.mark + b"live")
                await received.wait_for(4)
                self.assertEqual(received.payloads(), [b"2", b"3", b"4", b"live"])
                for i in range(60):
                    await alice.publish(self.room, self.mark + b"more%d" % i)
                    if i % 20 == 10:
                        cut(bob)
                await received.wait_for(64)
                await asyncio.sleep(0.3)
                self.assertEqual(received.payloads()[4:], [b"more%d" % i for i in range(60)])
            async with self.client("bob") as bob:
                other_epoch = await bob.subscribe(self.room, since=Position(stamps[0].position.epoch + 1, 1))
                self.assertFalse(other_epoch.recovered)

    async def test_rooms_of_connect(self):
        rooms = [(unique("chat:"), None) for _ in range(20)] + [(unique("nowhere:"), None)]
        raw, _ = await Raw.sign_in("alice", rooms=rooms)
        answers = [await raw.read_until((frames.Subscribed, frames.Error, frames.Unsubscribed)) for _ in rooms]
        self.assertEqual({answer.request for answer in answers}, {1})
        joined = [answer.room for answer in answers if isinstance(answer, frames.Subscribed)]
        self.assertEqual(sorted(joined), sorted(room for room, _ in rooms[:20]))
        refused = [(answer.code, answer.room) for answer in answers if not isinstance(answer, frames.Subscribed)]
        self.assertEqual(refused, [(102, rooms[20][0])])
        raw.close()

    async def test_recover_best_then_what_the_log_holds_comes(self):
        received = Received(self.mark)
        async with self.client("alice") as alice, self.client("bob", received=received) as bob:
            await alice.subscribe(self.room)
            stamps = [(await alice.publish(self.room, self.mark + b"%d" % i)).stamp for i in range(5)]
            other_epoch = Position(stamps[0].position.epoch + 1, 3)
            subscribed = await bob.subscribe(self.room, other_epoch, Recover.BEST)
            self.assertEqual((subscribed.recovered, subscribed.position), (False, stamps[-1].position))
            self.assertEqual(subscribed.start, Position(stamps[0].position.epoch, 0))
            await received.wait_for(5)
            self.assertEqual([m.stamp for m in received.messages], stamps)
            self.assertEqual(bob.rooms, {self.room: stamps[-1].position})

    async def test_history_is_paged_backward(self):
        async with self.client("alice") as alice:
            await alice.subscribe(self.room)
            stamps = [(await alice.publish(self.room, self.mark + b"%d" % i)).stamp for i in range(7)]
            pages, before = [], None
            while True:
                page = await alice.history(self.room, limit=3, before=before)
                pages.append([m.stamp for m in page.messages])
                self.assertTrue(page.recovered)
                if not page.more:
                    break
                before = page.messages[0].stamp.position
            self.assertEqual(pages, [stamps[4:], stamps[1:4], stamps[:1]])

    async def test_rooms_are_right_when_requests_are_cancelled_or_race(self):
        async with self.client("alice") as alice, self.client("bob") as bob:
            subscribing = asyncio.ensure_future(alice.subscribe(self.room))
            await asyncio.sleep(0)
            subscribing.cancel()
            await asyncio.gather(subscribing, return_exceptions=True)
            # Answered in order, behind the Unsubscribe.
            self.assertEqual((await alice.presence(self.room)).count, 0)
            self.assertEqual(alice.rooms, {})
            await asyncio.gather(alice.subscribe(self.room), alice.unsubscribe(self.room))
            self.assertEqual((await alice.presence(self.room)).count, 0)
            self.assertEqual(alice.rooms, {})
            await alice.subscribe(self.room)
            self.assertEqual((await bob.presence(self.room)).count, 1)
            self.assertEqual(list(alice.rooms), [self.room])

    # ------------------------------------------------------------ tokens, refusals, hostile frames

    async def test_the_scheme_is_not_that_of_the_port_then_a_sentence_says_so(self):
        for url, context, sentence in (
            ("tls://" + os.environ["RINGGATE_TCP"], tls_context(), "does not speak TLS"),
            ("tcp://" + os.environ["RINGGATE_TLS"], None, "speaks TLS"),
        ):
            with self.assertRaisesRegex(Closed, sentence):
                await Client(url, token("alice"), ssl_context=context).connect()

    async def test_what_connected_says_of_time_and_wishes(self):
        async with self.client("alice", ping_interval=20.0, receive_window=7) as alice:
            connected = alice.connected
            self.assertEqual((connected.ping_interval_ms, connected.receive_window), (20_000, 7))
            ends_in = connected.expires_at * 1000 - connected.server_time_ms
            self.assertLessEqual(abs(ends_in - connected.expires_in_ms), 1000)
            self.assertGreater(connected.dedup_window_ms, 0)
            later = await alice.refresh(os.environ["RINGGATE_LATER"])
            self.assertGreater(later.expires_in_ms, connected.expires_in_ms)

    async def test_the_example_runs(self):
        arguments = ("--url", "tcp://" + os.environ["RINGGATE_TCP"], "--token", token("alice"), "--room", self.room)
        example = await asyncio.create_subprocess_exec(
            sys.executable, str(support.CLIENT / "example_chat.py"), *arguments, "--device", unique("terminal"),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )
        said, complained = await example.communicate(b"hello\n/typing\n@bob hi\n@ nobody\n/who\n/history\n/history\n")
        self.assertEqual((example.returncode, complained), (0, b""))
        lines = said.decode().splitlines()
        # What comes from the room by itself stands where it came.
        for line in ("! a name has 1 to 128 bytes: ''", "* 1: alice", "alice: hello", "* nothing is older"):
            self.assertIn(line, lines)
        self.assertTrue(lines[0].startswith("* connected to ") and lines[0].endswith(" as alice"), lines)

    async def test_publish_nowait_arrives_and_is_not_answered(self):
        received = Received(self.mark)
        async with self.client("alice") as alice, self.client("bob", received=received):
            self.assertTrue(alice.publish_nowait("@bob", self.mark + b"typing", ephemeral=True))
            self.assertTrue(alice.publish_nowait("nowhere:room", b""))
            self.assertTrue(alice.publish_nowait("@bob", self.mark + b"kept"))
            await received.wait_for(2)
            self.assertEqual([(m.payload, m.ephemeral) for m in received.messages],
                             [(self.mark + b"typing", True), (self.mark + b"kept", False)])
        raw, _ = await Raw.sign_in("alice")
        raw.send(frames.publish(0, "nowhere:room", b"") + frames.publish(0, "@bob", b"") + frames.PING)
        self.assertIsInstance(await raw.read_until((frames.Error, frames.Published, frames.Pong)), frames.Pong)
        raw.close()

    async def test_refresh(self):
        async with self.client("alice") as alice:
            later = await alice.refresh(os.environ["RINGGATE_LATER"])
            self.assertGreaterEqual(later.expires_at, alice.connected.expires_at + 60)
            again = await alice.refresh(token("alice"))
            self.assertEqual(again.expires_at, alice.connected.expires_at, "the newest token counts, not the longest")
            await self.assert_refused(400, alice.refresh("not.a.token"))
            await self.assert_refused(400, alice.refresh(token("bob")))
            await alice.presence(self.room)

    async def test_error_codes(self):
        async with self.client("alice") as alice:
            await self.assert_refused(102, alice.subscribe("nowhere:room"))
            await self.assert_refused(102, alice.subscribe("chat:"))
            await self.assert_refused(102, alice.publish("nowhere:room", b""))
            await self.assert_refused(401, alice.publish(self.room, b""))
            await self.assert_refused(401, alice.unsubscribe(self.room))
            await alice.subscribe(self.room)
            await self.assert_refused(105, alice.subscribe(self.room))
            await self.assert_refused(103, alice.history("@bob"))
            self.assertTrue((await alice.history("@alice", limit=1)).recovered)

    async def test_malformed_frames_are_answered_or_close_one_connection_with_their_code(self):
        async with self.client("bob") as bystander:
            for entry in support.vectors():
                if entry["case"] != "malformed":
                    continue
                with self.subTest(entry["file"]):
                    if entry["name"] == "Connect":
                        raw = await Raw.open()
                    else:
                        raw, _ = await Raw.sign_in("alice", "hostile")
                    raw.send(support.vector_bytes(entry))
                    if "close" in entry:
                        self.assertEqual(await raw.close_code(), entry["close"])
                    else:
                        error = await raw.read_until((frames.Error, frames.Goodbye))
                        self.assertIsInstance(error, frames.Error)
                        self.assertEqual(error.code, entry["error"])
                        self.assertTrue(error.message.startswith(entry["field"] + ":"), error.message)
                        raw.send(frames.PING)
                        self.assertIsInstance(await raw.read_until(frames.Pong), frames.Pong, "the session lives on")
                    raw.close()
            await bystander.presence(self.room)


async def acknowledge(client):
    """Acknowledges what was handed over, and waits until the home of the inbox has heard it: a new session of the same
    device could be there first otherwise."""
    client._flush_ack()
    # The home answers, and hears what one connection says in its order.
    await client.history("@" + client.connected.user, limit=1)


def cut(client):
    """Ends a client's connection as a broken network would."""
    connection = client._connection
    if connection is not None:
        connection.writer.transport.abort()


if __name__ == "__main__":
    unittest.main()
