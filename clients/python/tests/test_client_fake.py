"""The client against a small gateway inside the process, which misbehaves as each test wants."""

import asyncio
import contextlib
import socket
import time
import unittest
import uuid
from unittest import mock

from .support import BoundedTest, FakeGateway, make

from ringgate import (
    Client, Closed, Connected, Position, Recover, RinggateError, State, Subscribed, TokenFailed, Undecided, Unsubscribed,
)

FAST = {"backoff": (0.01, 0.05), "ack_delay": 0.02}


class Inbox:
    """A callback that collects, and lets tests wait."""

    def __init__(self):
        self.values = []
        self.changed = asyncio.Event()

    def __call__(self, value):
        self.values.append(value)
        self.changed.set()

    async def wait_for(self, count):
        while len(self.values) < count:
            self.changed.clear()
            await self.changed.wait()
        return self.values

    def offsets(self):
        return [message.stamp.position.offset for message in self.values]


class ClientTest(BoundedTest):
    """Every test ends within ten seconds."""

    def setUp(self):
        self.messages = Inbox()
        self.events = Inbox()

    def client(self, gateway, **more):
        options = {"token": "t", "on_message": self.messages, "on_event": self.events, **FAST, **more}
        return Client(options.pop("url", gateway.url), **options)

    # ------------------------------------------------------------ sign-in and states

    async def test_states_and_what_connect_says(self):
        seen = []

        async def script(session):
            seen.append(await session.sign_in(expires_at=0))
            await session.read("Disconnect")

        async with FakeGateway(script) as gateway:
            client = self.client(gateway, device="phone")
            self.assertIs(client.state, State.IDLE)
            connected = await client.connect()
            self.assertIs(client.state, State.CONNECTED)
            self.assertEqual((connected.user, connected.node), ("alice", "fake"))
            await client.close()
            self.assertIs(client.state, State.IDLE)
            await client.wait_closed()
        self.assertEqual((seen[0]["token"], seen[0]["device"], seen[0]["version"]), ("t", "phone", 1))
        self.assertEqual((seen[0]["inbox"], seen[0]["rooms"]), (None, None))

    async def test_a_refused_sign_in_raises_and_is_not_repeated(self):
        async def script(session):
            await session.read("Connect")
            session.goodbye(3500, reconnect=False)

        async with FakeGateway(script) as gateway:
            with self.assertRaises(Closed) as caught:
                await self.client(gateway).connect()
            self.assertEqual((caught.exception.code, caught.exception.reconnect), (3500, False))
            await asyncio.sleep(0.1)
            self.assertEqual(len(gateway.accepted_at), 1)

    async def test_addresses_and_names_are_checked_at_once(self):
        for url in ("http://localhost:1", "tcp://", "localhost:7400", "tcp://host/path"):
            with self.assertRaises(ValueError):
                Client(url, "t")
        with self.assertRaises(ValueError):
            Client("tcp://localhost", "t", device="my phone")
        with self.assertRaises(RuntimeError):
            await Client("tcp://localhost", "t").publish("@bob", b"")

    # ------------------------------------------------------------ heartbeats

    async def test_a_silent_client_pings_and_a_talking_one_does_not(self):
        pings = []

        third = asyncio.Event()

        async def script(session):
            await session.sign_in(ping_interval_ms=300, pong_timeout_ms=300)
            for _ in range(3):
                await session.read("Ping")
                pings.append(time.monotonic())
                session.send("Pong")
            third.set()
            await session.until_closed()

        async with FakeGateway(script) as gateway:
            began = time.monotonic()
            async with self.client(gateway) as client:
                await third.wait()
                self.assertIs(client.state, State.CONNECTED)
            self.assertEqual(len(gateway.accepted_at), 1)
        # From the same beginning each: one that is read late does not make the next one early.
        for number, ping in enumerate(pings, 1):
            self.assertGreaterEqual(ping - began, number * 0.299)

    async def test_no_pong_means_a_new_connection(self):
        async def deaf(session):
            await session.sign_in(ping_interval_ms=50, pong_timeout_ms=50)
            await session.until_closed()

        async def fine(session):
            await session.sign_in()
            await session.until_closed()

        async with FakeGateway(deaf, fine) as gateway:
            async with self.client(gateway):
                await self.events.wait_for(2)
                self.assertEqual(len(gateway.accepted_at), 2)

    async def test_the_gateways_ping_is_answered(self):
        answered = asyncio.Event()

        async def script(session):
            await session.sign_in()
            session.send("Ping")
            await session.read("Pong")
            answered.set()
            await session.until_closed()

        async with FakeGateway(script) as gateway:
            async with self.client(gateway):
                await answered.wait()

    # ------------------------------------------------------------ reconnecting

    async def test_goodbye_says_how_long_to_wait(self):
        async def away(session):
            await session.sign_in()
            session.goodbye(3001, reconnect=True, after_ms=300)

        async def fine(session):
            await session.sign_in()
            await session.until_closed()

        async with FakeGateway(away, fine) as gateway:
            async with self.client(gateway):
                await self.events.wait_for(2)
                first, second = gateway.accepted_at
                self.assertGreaterEqual(second - first, 0.29)

    async def test_lost_connections_back_off(self):
        async def broken(session):
            session.writer.close()

        async def fine(session):
            await session.sign_in()
            await session.until_closed()

        async with FakeGateway(broken, broken, broken, broken, fine) as gateway:
            with mock.patch("ringgate.client.random.uniform", return_value=0.01) as uniform:
                async with self.client(gateway, backoff=(0.02, 0.1)):
                    self.assertEqual(len(gateway.accepted_at), 5)
            ceilings = [call.args[1] for call in uniform.call_args_list]
            # n is 1 after the first attempt: there was no good connection before it.
            self.assertEqual(ceilings, [0.04, 0.08, 0.1, 0.1])

    async def test_terminal_codes_end_everything(self):
        async def script(session):
            await session.sign_in()
            await session.read("Publish")
            session.goodbye(4500, reconnect=False)

        async with FakeGateway(script) as gateway:
            client = self.client(gateway)
            await client.connect()
            with self.assertRaises(Closed):
                await client.publish("@bob", b"never answered")
            with self.assertRaises(Closed) as caught:
                await client.wait_closed()
            self.assertEqual(caught.exception.code, 4500)
            with self.assertRaises(Closed):
                await client.publish("@bob", b"too late")
            self.assertIs(client.state, State.DISCONNECTED)
            await asyncio.sleep(0.1)
            self.assertEqual(len(gateway.accepted_at), 1)
            await client.close()

    async def test_an_expired_token_is_replaced_or_the_end(self):
        tokens = []

        async def expired(session):
            connect = await session.read("Connect")
            tokens.append(connect["token"])
            session.goodbye(3005, reconnect=True)

        async def fine(session):
            tokens.append((await session.sign_in())["token"])
            await session.until_closed()

        count = iter(range(10))

        async def fresh():
            return f"token{next(count)}"

        async with FakeGateway(expired, fine) as gateway:
            async with self.client(gateway, token=fresh):
                self.assertEqual(tokens, ["token0", "token1"])
        async with FakeGateway(expired) as gateway:
            with self.assertRaises(Closed) as caught:
                await self.client(gateway).connect()
            self.assertEqual(caught.exception.code, 3005)

    async def test_the_token_is_refreshed_before_it_ends(self):
        refreshed = asyncio.Event()

        async def script(session):
            await session.sign_in(expires_at=int(time.time()) + 1, expires_in_ms=1000)
            refresh = await session.read("Refresh")
            self.assertEqual(refresh["token"], "fresh")
            session.send("Refreshed", request=refresh["request"], expires_in_ms=3_600_000)
            refreshed.set()
            await session.until_closed()

        async with FakeGateway(script) as gateway:
            with mock.patch("ringgate.client.REFRESH_SECONDS_MIN", 0.1):
                began = time.monotonic()
                async with self.client(gateway, token=lambda: "fresh"):
                    await refreshed.wait()
                self.assertGreaterEqual(time.monotonic() - began, 0.79)

    # ------------------------------------------------------------ inbox

    async def test_inbox_messages_are_acknowledged_in_batches(self):
        acks = []

        async def script(session):
            await session.sign_in()
            for offset in range(1, 11):
                session.message(offset, b"m%d" % offset)
            session.message(0, b"typing")
            acks.append(await session.read("Ack"))
            session.message(11)
            acks.append(await session.read("Ack"))
            await session.until_closed()

        async with FakeGateway(script) as gateway:
            async with self.client(gateway) as client:
                await self.messages.wait_for(12)
                while len(acks) < 2:
                    await asyncio.sleep(0.01)
                self.assertEqual(client.inbox, Position(1, 11))
        self.assertEqual(self.messages.offsets(), [*range(1, 11), 0, 11])
        self.assertEqual(acks, [make.position(1, 10), make.position(1, 11)])

    async def test_an_ack_waits_for_the_callback(self):
        acked = asyncio.Event()
        let_go = asyncio.Event()

        async def slow(message):
            self.messages(message)
            await let_go.wait()

        async def script(session):
            await session.sign_in()
            session.message(1)
            await session.read("Ack")
            acked.set()
            await session.until_closed()

        async with FakeGateway(script) as gateway:
            async with self.client(gateway, on_message=slow):
                await self.messages.wait_for(1)
                await asyncio.sleep(0.1)
                self.assertFalse(acked.is_set())
                let_go.set()
                await acked.wait()

    async def test_repeated_offsets_are_dropped_but_acknowledged_again(self):
        acks = []

        async def script(session):
            await session.sign_in()
            session.message(1)
            session.message(2)
            acks.append(await session.read("Ack"))
            session.message(1)
            session.message(2)
            acks.append(await session.read("Ack"))
            session.message(3)
            acks.append(await session.read("Ack"))
            session.message(1, b"a new count", epoch=2)
            acks.append(await session.read("Ack"))
            await session.until_closed()

        async with FakeGateway(script) as gateway:
            async with self.client(gateway):
                while len(acks) < 4:
                    await asyncio.sleep(0.01)
        self.assertEqual(self.messages.offsets(), [1, 2, 3, 1])
        self.assertEqual(acks, [make.position(1, 2), make.position(1, 2), make.position(1, 3), make.position(2, 1)])

    async def test_a_resumed_inbox_has_no_hole_and_no_repetition(self):
        seen = []

        async def lossy(session):
            await session.sign_in()
            session.message(1)
            session.message(2)
            await session.read("Ack")
            session.writer.close()

        async def fine(session):
            seen.append(await session.sign_in())
            for offset in (2, 3, 4):
                session.message(offset)
            await session.until_closed()

        async with FakeGateway(lossy, fine) as gateway:
            async with self.client(gateway):
                await self.messages.wait_for(4)
        self.assertEqual(seen[0]["inbox"], make.position(1, 2))
        self.assertEqual(self.messages.offsets(), [1, 2, 3, 4])

    async def test_an_inbox_that_was_not_recovered_starts_anew(self):
        async def script(session):
            connect = await session.sign_in(inbox_recovered=False, inbox=make.position(1, 9))
            self.assertEqual(connect["inbox"], make.position(1, 50))
            session.message(8)
            session.message(9)
            await session.until_closed()

        async with FakeGateway(script) as gateway:
            async with self.client(gateway, inbox=Position(1, 50)):
                await self.messages.wait_for(2)
        self.assertEqual(self.messages.offsets(), [8, 9])
        self.assertFalse(self.events.values[0].inbox_recovered)

    async def test_a_callback_that_raises_gets_its_message_again(self):
        inboxes = []
        attempts = []

        def fragile(message):
            attempts.append(message.stamp.position.offset)
            if len(attempts) == 2:
                raise RuntimeError("the disk is full")
            self.messages(message)

        async def script(session):
            connect = await session.sign_in()
            inboxes.append(connect["inbox"])
            start = connect["inbox"]["offset"] if connect["inbox"] else 0
            for offset in range(start + 1, 5):
                session.message(offset)
            await session.until_closed()

        async with FakeGateway(script) as gateway:
            with self.assertLogs("ringgate", "ERROR"):
                async with self.client(gateway, on_message=fragile):
                    await self.messages.wait_for(4)
        self.assertEqual(self.messages.offsets(), [1, 2, 3, 4])
        self.assertEqual(attempts, [1, 2, 2, 3, 4])
        self.assertEqual(inboxes, [None, make.position(1, 1)])

    async def test_a_slow_callback_holds_the_gateway_back_and_loses_nothing(self):
        count = 3000

        async def slow(message):
            if message.stamp.position.offset % 1000 == 0:
                # Longer than a Ping and its Pong may take.
                await asyncio.sleep(0.7)
            self.messages(message)

        async def script(session):
            await session.sign_in(ping_interval_ms=300, pong_timeout_ms=200)
            for offset in range(1, count + 1):
                session.message(offset, b"x" * 100)
                await session.writer.drain()
                # The client shares this thread.
                if offset % 100 == 0:
                    await asyncio.sleep(0)
            while True:
                await session.read("Ping", "Ack")
                session.send("Pong")

        async with FakeGateway(script) as gateway:
            async with self.client(gateway, on_message=slow):
                await self.messages.wait_for(count)
                self.assertEqual(len(gateway.accepted_at), 1)
        self.assertEqual(self.messages.offsets(), list(range(1, count + 1)))

    # ------------------------------------------------------------ publishing

    async def test_publish_is_answered_or_refused(self):
        async def script(session):
            await session.sign_in()
            first = await session.read("Publish")
            second = await session.read("Publish")
            self.assertEqual((first["payload"], first["ephemeral"], first["ttl_seconds"]), (b"one", True, 60))
            session.send("Error", request=second["request"], code=402, message="storage full", temporary=True,
                         retry_after_ms=1000)
            session.published(first, 7)
            await session.until_closed()

        async with FakeGateway(script) as gateway:
            async with self.client(gateway) as client:
                id_ = uuid.uuid4()
                one = client.publish("@bob", b"one", ephemeral=True, ttl=60, client_message_id=id_)
                published, refused = await asyncio.gather(one, client.publish("@bob", b""), return_exceptions=True)
                self.assertEqual((published.stamp.position, published.client_message_id), (Position(1, 7), id_))
                self.assertIsInstance(refused, RinggateError)
                self.assertEqual((refused.code, refused.temporary, refused.retry_after_ms), (402, True, 1000))

    async def test_unanswered_publishes_are_repeated_in_order_with_the_same_ids(self):
        seen = [[], []]

        async def lossy(session):
            await session.sign_in()
            for _ in range(3):
                seen[0].append(await session.read("Publish"))
            session.published(seen[0][0], 1)
            await session.writer.drain()
            session.writer.close()

        async def fine(session):
            await session.sign_in()
            for _ in range(2):
                seen[1].append(await session.read("Publish"))
                session.published(seen[1][-1], 1 + len(seen[1]), duplicate=True)
            await session.until_closed()

        async with FakeGateway(lossy, fine) as gateway:
            async with self.client(gateway) as client:
                published = await asyncio.gather(*(client.publish("@bob", b"%d" % i) for i in range(3)))
        self.assertEqual([p.stamp.position.offset for p in published], [1, 2, 3])
        self.assertEqual([p.duplicate for p in published], [False, True, True])
        ids = [publish["client_message_id"] for publish in seen[0]]
        self.assertEqual([publish["client_message_id"] for publish in seen[1]], ids[1:])
        self.assertEqual([publish["payload"] for publish in seen[1]], [b"1", b"2"])
        self.assertEqual(len({tuple(id_.values()) for id_ in ids}), 3)

    async def test_requests_wait_when_too_many_are_in_flight(self):
        most = []

        async def script(session):
            await session.sign_in(requests_in_flight_max=2)
            for _ in range(3):
                waiting = [await session.read("Publish"), await session.read("Publish")]
                try:
                    waiting.append(await asyncio.wait_for(session.read("Publish"), 0.05))
                except asyncio.TimeoutError:
                    pass
                most.append(len(waiting))
                for publish in waiting:
                    session.published(publish, 1)
            await session.until_closed()

        async with FakeGateway(script) as gateway:
            async with self.client(gateway) as client:
                await asyncio.gather(*(client.publish("@bob", b"") for _ in range(6)))
        self.assertEqual(most, [2, 2, 2])

    # ------------------------------------------------------------ rooms

    async def test_rooms_are_joined_again_where_they_were_left(self):
        seen = []

        async def lossy(session):
            await session.sign_in()
            subscribe = await session.read("Subscribe")
            self.assertEqual((subscribe["room"], subscribe["since"]), ("chat:a", None))
            session.subscribed(subscribe["request"], "chat:a", 10)
            session.message(10, b"known", topic="chat:a")
            session.message(11, topic="chat:a")
            session.message(12, topic="chat:a")
            subscribe = await session.read("Subscribe")
            self.assertEqual(subscribe["since"], make.position(1, 3))
            session.subscribed(subscribe["request"], "chat:b", 5, start=3)
            session.message(4, topic="chat:b")
            await session.writer.drain()
            while len(self.messages.values) < 3:
                await asyncio.sleep(0.01)
            session.writer.close()

        async def fine(session):
            connect = await session.sign_in()
            seen.append({cursor["room"]: cursor["since"] for cursor in connect["rooms"]})
            session.subscribed(connect["request"], "chat:b", 5, start=4)
            session.subscribed(connect["request"], "chat:a", 40, recovered=False)
            session.message(4, b"known", topic="chat:b")
            session.message(5, topic="chat:b")
            session.message(41, topic="chat:a")
            await session.until_closed()

        async with FakeGateway(lossy, fine) as gateway:
            async with self.client(gateway) as client:
                subscribed = await client.subscribe("chat:a")
                self.assertEqual((subscribed.recovered, subscribed.position), (True, Position(1, 10)))
                await client.subscribe("chat:b", since=Position(1, 3))
                await self.messages.wait_for(5)
                self.assertEqual(client.rooms, {"chat:a": Position(1, 41), "chat:b": Position(1, 5)})
        self.assertEqual(seen, [{"chat:a": make.position(1, 12), "chat:b": make.position(1, 4)}])
        self.assertEqual(self.messages.offsets(), [11, 12, 4, 5, 41])
        resumed = {e.room: e.recovered for e in self.events.values if isinstance(e, Subscribed)}
        self.assertEqual(resumed, {"chat:a": False, "chat:b": True})

    async def test_a_room_that_cannot_be_joined_again_is_told(self):
        async def lossy(session):
            await session.sign_in()
            for _ in range(2):
                subscribe = await session.read("Subscribe")
                session.subscribed(subscribe["request"], subscribe["room"], 0)
            await session.writer.drain()
            await asyncio.sleep(0.05)
            session.writer.close()

        async def fine(session):
            connect = await session.sign_in()
            session.send("Error", request=connect["request"], code=103, message="permission denied", room="chat:b")
            session.subscribed(connect["request"], "chat:a", 0, recovered=True)
            session.send("Unsubscribed", request=0, room="chat:a", code=103)
            await session.until_closed()

        async with FakeGateway(lossy, fine) as gateway:
            async with self.client(gateway) as client:
                await client.subscribe("chat:a")
                await client.subscribe("chat:b")
                await self.events.wait_for(5)
                self.assertEqual(client.rooms, {})
        kinds = [(type(e).__name__, getattr(e, "room", None), getattr(e, "code", None)) for e in self.events.values]
        self.assertEqual(
            kinds,
            [
                ("Connected", None, None), ("Connected", None, None), ("Unsubscribed", "chat:b", 103),
                ("Subscribed", "chat:a", None), ("Unsubscribed", "chat:a", 103),
            ],
        )
        self.assertIsInstance(self.events.values[0], Connected)
        self.assertIsInstance(self.events.values[-1], Unsubscribed)

    async def test_left_rooms_are_silent_and_not_joined_again(self):
        async def lossy(session):
            await session.sign_in()
            subscribe = await session.read("Subscribe")
            session.subscribed(subscribe["request"], "chat:a", 0)
            unsubscribe = await session.read("Unsubscribe")
            session.send("Unsubscribed", request=unsubscribe["request"], room="chat:a")
            session.message(1, topic="chat:a")
            session.message(1)
            await session.read("Ack")
            session.writer.close()

        async def fine(session):
            connect = await session.sign_in()
            self.assertIsNone(connect["rooms"])
            await session.until_closed()

        async with FakeGateway(lossy, fine) as gateway:
            async with self.client(gateway) as client:
                await client.subscribe("chat:a")
                await client.unsubscribe("chat:a")
                await self.events.wait_for(2)
        self.assertEqual([m.topic for m in self.messages.values], ["@alice"])

    async def test_presence_and_history(self):
        async def script(session):
            await session.sign_in()
            presence = await session.read("Presence")
            session.send("PresenceResult", request=presence["request"], room="chat:a", count=1,
                         members=[{"user": "bob", "device": "default"}])
            history = await session.read("History")
            self.assertEqual((history["since"], history["limit"]), (make.position(1, 2), 5))
            session.send("HistoryResult", request=history["request"], topic="chat:a", position=make.position(1, 3),
                         messages=[make.message(3, b"three")], recovered=True)
            await session.until_closed()

        async with FakeGateway(script) as gateway:
            async with self.client(gateway) as client:
                presence = await client.presence("chat:a")
                self.assertEqual((presence.count, presence.members[0].user), (1, "bob"))
                history = await client.history("chat:a", Position(1, 2), 5)
                self.assertEqual([m.payload for m in history.messages], [b"three"])

    # ------------------------------------------------------------ the end

    async def test_peer_reads_nothing_then_close_returns_and_every_publish_raises(self):
        stuck = asyncio.Event()

        async def script(session):
            await session.sign_in()
            await stuck.wait()

        async with FakeGateway(script) as gateway:
            client = self.client(gateway)
            await client.connect()
            publishes = [asyncio.ensure_future(client.publish("@bob", b"x" * 65536)) for _ in range(400)]
            transport = client._connection.writer.transport
            while not transport.get_write_buffer_size():
                await asyncio.sleep(0.01)
            began = time.monotonic()
            await client.close()
            self.assertLess(time.monotonic() - began, 3)
            self.assertTrue(all(publish.done() for publish in publishes))
            ends = await asyncio.gather(*publishes, return_exceptions=True)
            self.assertEqual({(type(end), end.code) for end in ends}, {(Closed, 3000)})
            self.assertEqual(transport.get_write_buffer_size(), 0, "nothing is kept for a peer that reads nothing")
            stuck.set()

    async def test_callback_ignores_its_cancellation_then_close_returns(self):
        reached, never = asyncio.Event(), asyncio.Event()

        async def stubborn(_):
            while not never.is_set():
                reached.set()
                try:
                    await never.wait()
                except asyncio.CancelledError:
                    pass

        async def script(session):
            await session.sign_in()
            session.message(1)
            await session.until_closed()

        async with FakeGateway(script) as gateway:
            client = self.client(gateway, on_message=stubborn)
            await client.connect()
            await reached.wait()
            began = time.monotonic()
            await client.close()
            self.assertLess(time.monotonic() - began, 3)
            never.set()

    async def test_connect_after_close_then_it_raises(self):
        async def script(session):
            await session.sign_in()
            await session.until_closed()

        async with FakeGateway(script) as gateway:
            client = self.client(gateway)
            await client.connect()
            await client.close()
            with self.assertRaisesRegex(RuntimeError, "connects once"):
                await client.connect()
            unused = self.client(gateway)
            with self.assertRaisesRegex(RuntimeError, r"connect\(\) comes first"):
                await unused.wait_closed()
            await unused.close()
            with self.assertRaisesRegex(RuntimeError, "connects once"):
                await unused.connect()
            await unused.wait_closed()
            self.assertEqual(len(gateway.accepted_at), 1)

    async def test_close_in_a_callback_then_no_other_callback_follows(self):
        async def script(session):
            await session.sign_in()
            for offset in range(1, 6):
                session.message(offset)
            await session.until_closed()

        async def last(message):
            self.messages(message)
            if message.stamp.position.offset == 2:
                await client.close()

        async with FakeGateway(script) as gateway:
            client = self.client(gateway, on_message=last)
            await client.connect()
            await client.wait_closed()
            consumer = client._tasks[1]
            await asyncio.wait([consumer])
            self.assertEqual(self.messages.offsets(), [1, 2])
            self.assertIsNone(consumer.exception())

    # ------------------------------------------------------------ rooms under races

    async def room_script(self, seen, *answers):
        """A script that writes down requests about rooms, and answers the n-th as `answers[n]` says: None is silence."""

        async def script(session):
            connect = await session.sign_in()
            seen.append(("Connect", [cursor["room"] for cursor in connect["rooms"] or ()]))
            waiting = list(answers)
            while True:
                name, values = await session.read("Subscribe", "Unsubscribe", "Presence")
                if name == "Presence":
                    session.send("PresenceResult", request=values["request"], room=values["room"])
                    continue
                seen.append((name, values["room"]))
                answer = waiting.pop(0) if waiting else "yes"
                if answer == "yes" and name == "Subscribe":
                    session.subscribed(values["request"], values["room"], 0)
                elif answer == "yes":
                    session.send("Unsubscribed", request=values["request"], room=values["room"])
                elif answer is not None:
                    session.send("Error", request=values["request"], message="no", room=values["room"], **answer)

        return script

    async def test_subscribe_is_cancelled_then_the_room_is_left(self):
        seen = []
        async with FakeGateway(await self.room_script(seen, None, "yes")) as gateway:
            async with self.client(gateway) as client:
                with self.assertRaises(asyncio.TimeoutError):
                    await asyncio.wait_for(client.subscribe("chat:a"), 0.05)
                await client.presence("chat:a")
                self.assertEqual(seen[1:], [("Subscribe", "chat:a"), ("Unsubscribe", "chat:a")])
                self.assertEqual(client.rooms, {})
                # Again, and this one stays.
                await client.subscribe("chat:a")
                self.assertEqual(client.rooms, {"chat:a": Position(1, 0)})

    async def test_subscribe_is_cancelled_when_its_answer_is_there_then_the_room_is_left(self):
        seen = []
        async with FakeGateway(await self.room_script(seen)) as gateway:
            async with self.client(gateway) as client:
                joining = asyncio.ensure_future(client.subscribe("chat:a"))
                while not client.rooms:
                    # One turn of the loop at a time: the answer is read, and its task has not run.
                    await asyncio.sleep(0)
                joining.cancel()
                await asyncio.gather(joining, return_exceptions=True)
                if joining.cancelled():
                    await client.presence("chat:a")
                    self.assertEqual(seen[1:], [("Subscribe", "chat:a"), ("Unsubscribe", "chat:a")])
                    self.assertEqual(client.rooms, {})
                else:
                    self.assertEqual(client.rooms, {"chat:a": Position(1, 0)})

    async def test_one_of_two_subscribes_is_cancelled_then_the_room_stays(self):
        async def script(session):
            await session.sign_in()
            first, second = await session.read("Subscribe"), await session.read("Subscribe")
            both.set()
            # Not an Unsubscribe.
            presence = await session.read("Presence")
            session.subscribed(first["request"], "chat:a", 3)
            session.send("Error", request=second["request"], code=105, message="already subscribed", room="chat:a")
            session.send("PresenceResult", request=presence["request"], room="chat:a")
            while True:
                presence = await session.read("Presence")
                session.send("PresenceResult", request=presence["request"], room="chat:a")

        both = asyncio.Event()
        async with FakeGateway(script) as gateway:
            async with self.client(gateway) as client:
                first = asyncio.ensure_future(client.subscribe("chat:a"))
                second = asyncio.ensure_future(client.subscribe("chat:a"))
                await both.wait()
                second.cancel()
                await asyncio.gather(second, return_exceptions=True)
                await client.presence("chat:a")
                await first
                await client.presence("chat:a")
                self.assertEqual(client.rooms, {"chat:a": Position(1, 3)})

    async def test_subscribe_is_cancelled_before_a_session_then_it_is_not_sent(self):
        seen = []
        let_in = asyncio.Event()
        script = await self.room_script(seen)

        async def late(session):
            await let_in.wait()
            await script(session)

        async with FakeGateway(late) as gateway:
            client = self.client(gateway)
            connecting = asyncio.ensure_future(client.connect())
            while not gateway.accepted_at:
                await asyncio.sleep(0.01)
            joining = asyncio.ensure_future(client.subscribe("chat:a"))
            leaving = asyncio.ensure_future(client.subscribe("chat:b"))
            await asyncio.sleep(0)
            joining.cancel()
            let_in.set()
            await connecting
            await leaving
            self.assertEqual(seen, [("Connect", []), ("Subscribe", "chat:b")])
            self.assertEqual(client.rooms, {"chat:b": Position(1, 0)})
            await client.close()

    async def test_unsubscribe_races_a_subscribe_then_the_room_is_left(self):
        for answered_first in ("Subscribe", "Unsubscribe"):
            with self.subTest(answered_first):

                async def script(session, first=answered_first):
                    await session.sign_in()
                    subscribe = await session.read("Subscribe")
                    unsubscribe = await session.read("Unsubscribe")
                    if first == "Subscribe":
                        session.subscribed(subscribe["request"], "chat:a", 4)
                    session.send("Unsubscribed", request=unsubscribe["request"], room="chat:a")
                    if first != "Subscribe":
                        session.subscribed(subscribe["request"], "chat:a", 4)
                    session.message(5, topic="chat:a")
                    session.message(1)
                    await session.read("Ack")
                    session.writer.close()

                async def again(session):
                    self.assertIsNone((await session.sign_in())["rooms"])
                    session.message(2)
                    await session.until_closed()

                self.messages = Inbox()
                async with FakeGateway(script, again) as gateway:
                    async with self.client(gateway) as client:
                        await asyncio.gather(client.subscribe("chat:a"), client.unsubscribe("chat:a"))
                        self.assertEqual(client.rooms, {})
                        await self.messages.wait_for(2)
                        self.assertEqual(client.rooms, {})
                self.assertEqual([m.topic for m in self.messages.values], ["@alice", "@alice"])

    async def test_connection_ends_between_subscribe_and_unsubscribe_then_the_room_is_left(self):
        seen = []

        async def lossy(session):
            await session.sign_in()
            await session.read("Subscribe")
            await session.read("Unsubscribe")
            session.writer.close()

        async with FakeGateway(lossy, await self.room_script(seen)) as gateway:
            async with self.client(gateway) as client:
                joined, left = await asyncio.gather(
                    client.subscribe("chat:a"), client.unsubscribe("chat:a"), return_exceptions=True
                )
                self.assertEqual((type(joined), joined.code), (RinggateError, 401))
                self.assertEqual((left.room, left.code), ("chat:a", 0))
                await client.presence("chat:a")
                self.assertEqual((client.rooms, seen), ({}, [("Connect", [])]))

    async def test_unsubscribe_while_the_client_signs_in_again_then_the_room_is_left(self):
        let_in, asked, seen = asyncio.Event(), asyncio.Event(), []

        async def lossy(session):
            await session.sign_in()
            subscribe = await session.read("Subscribe")
            session.subscribed(subscribe["request"], "chat:a", 0)
            await session.writer.drain()
            await let_in.wait()
            session.writer.close()

        async def slow(session):
            connect = await session.read("Connect")
            seen.append([cursor["room"] for cursor in connect["rooms"]])
            asked.set()
            await left_asked.wait()
            session.send("Connected", request=connect["request"], version=1, requests_in_flight_max=8,
                         ping_interval_ms=30000, pong_timeout_ms=5000, inbox_recovered=True)
            session.subscribed(connect["request"], "chat:a", 0)
            unsubscribe = await session.read("Unsubscribe")
            session.send("Unsubscribed", request=unsubscribe["request"], room="chat:a")
            await session.until_closed()

        left_asked = asyncio.Event()
        async with FakeGateway(lossy, slow) as gateway:
            async with self.client(gateway) as client:
                await client.subscribe("chat:a")
                let_in.set()
                await asked.wait()
                leaving = asyncio.ensure_future(client.unsubscribe("chat:a"))
                await asyncio.sleep(0)
                left_asked.set()
                self.assertEqual((await leaving).room, "chat:a")
                self.assertEqual((client.rooms, seen), ({}, [["chat:a"]]))
        self.assertEqual([type(e) for e in self.events.values if not isinstance(e, Connected)], [])

    async def test_unsubscribe_is_refused_for_now_then_the_room_stays(self):
        seen = []
        busy = {"code": 111, "temporary": True, "retry_after_ms": 10}
        async with FakeGateway(await self.room_script(seen, "yes", busy)) as gateway:
            async with self.client(gateway) as client:
                await client.subscribe("chat:a")
                with self.assertRaises(RinggateError):
                    await client.unsubscribe("chat:a")
                self.assertEqual(client.rooms, {"chat:a": Position(1, 0)})

    async def test_the_unsubscribe_of_a_cancelled_subscribe_is_refused_for_now_then_it_is_repeated(self):
        seen = []
        busy = {"code": 111, "temporary": True, "retry_after_ms": 10}
        async with FakeGateway(await self.room_script(seen, "yes", busy)) as gateway:
            async with self.client(gateway) as client:
                joining = asyncio.ensure_future(client.subscribe("chat:a"))
                await asyncio.sleep(0)
                joining.cancel()
                while len(seen) < 4 or client._rooms:
                    await asyncio.sleep(0.01)
                self.assertEqual(seen[1:], [("Subscribe", "chat:a"), ("Unsubscribe", "chat:a"), ("Unsubscribe", "chat:a")])
                self.assertEqual(client.rooms, {})

    async def test_a_room_of_connect_is_refused_for_now_then_it_is_asked_for_again(self):
        async def lossy(session):
            await session.sign_in()
            subscribe = await session.read("Subscribe")
            session.subscribed(subscribe["request"], "chat:a", 7)
            await session.writer.drain()
            await asyncio.sleep(0.05)
            session.writer.close()

        async def busy(session):
            connect = await session.sign_in()
            session.send("Error", request=connect["request"], code=410, message="overloaded", temporary=True,
                         retry_after_ms=100, room="chat:a")
            began = time.monotonic()
            subscribe = await session.read("Subscribe")
            self.assertGreaterEqual(time.monotonic() - began, 0.099)
            self.assertEqual((subscribe["room"], subscribe["since"]), ("chat:a", make.position(1, 7)))
            session.subscribed(subscribe["request"], "chat:a", 8, start=7)
            session.message(8, topic="chat:a")
            await session.until_closed()

        async with FakeGateway(lossy, busy) as gateway:
            async with self.client(gateway) as client:
                await client.subscribe("chat:a")
                await self.messages.wait_for(1)
                self.assertEqual(client.rooms, {"chat:a": Position(1, 8)})
        self.assertEqual([type(e) for e in self.events.values], [Connected, Connected, Subscribed])

    async def test_more_rooms_than_connect_takes_then_the_others_are_subscribed_to_behind_it(self):
        names = [f"chat:{i}" for i in range(130)]
        seen = []

        async def lossy(session):
            await session.sign_in()
            for _ in names:
                subscribe = await session.read("Subscribe")
                session.subscribed(subscribe["request"], subscribe["room"], 1)
            await session.read("Presence")
            session.writer.close()

        async def fine(session):
            connect = await session.sign_in()
            seen.extend((cursor["room"], cursor["since"]) for cursor in connect["rooms"])
            await session.read("Presence")
            for cursor in connect["rooms"]:
                session.subscribed(connect["request"], cursor["room"], 1)
            for _ in range(2):
                subscribe = await session.read("Subscribe")
                seen.append((subscribe["room"], subscribe["since"]))
                session.subscribed(subscribe["request"], subscribe["room"], 1)
            await session.until_closed()

        async with FakeGateway(lossy, fine) as gateway:
            async with self.client(gateway) as client:
                await asyncio.gather(*(client.subscribe(name) for name in names))
                presence = asyncio.ensure_future(client.presence("chat:0"))
                await self.events.wait_for(2 + len(names))
                self.assertEqual(len(client.rooms), 130)
                presence.cancel()
        self.assertEqual(seen, [(name, make.position(1, 1)) for name in names])

    async def test_recover_best_then_what_there_still_is_comes_and_is_asked_for_again(self):
        async def lossy(session):
            await session.sign_in()
            subscribe = await session.read("Subscribe")
            self.assertEqual((subscribe["since"], subscribe["recover"]), (make.position(1, 2), 1))
            session.subscribed(subscribe["request"], "chat:a", 10, recovered=False, start=8)
            for offset in (8, 9, 10):
                session.message(offset, topic="chat:a")
            await session.writer.drain()
            while len(self.messages.values) < 2:
                await asyncio.sleep(0.01)
            session.writer.close()

        async def younger(session):
            connect = await session.sign_in()
            self.assertEqual(connect["rooms"], [{"room": "chat:a", "since": make.position(1, 10), "recover": 1}])
            # The gateway knows less than before, in the same epoch.
            session.subscribed(connect["request"], "chat:a", 5, recovered=False, start=3)
            session.message(4, topic="chat:a")
            session.message(5, topic="chat:a")
            await session.until_closed()

        async with FakeGateway(lossy, younger) as gateway:
            async with self.client(gateway) as client:
                subscribed = await client.subscribe("chat:a", Position(1, 2), Recover.BEST)
                self.assertEqual((subscribed.recovered, subscribed.start), (False, Position(1, 8)))
                await self.messages.wait_for(4)
                self.assertEqual(client.rooms, {"chat:a": Position(1, 5)})
        self.assertEqual(self.messages.offsets(), [9, 10, 4, 5])

    async def test_messages_wait_for_a_callback_across_connections_then_each_is_handed_over_once(self):
        let_go = asyncio.Event()

        async def slow(message):
            await let_go.wait()
            self.messages(message)

        async def lossy(session):
            await session.sign_in()
            subscribe = await session.read("Subscribe")
            session.subscribed(subscribe["request"], "chat:a", 10)
            for offset in (11, 12, 13):
                session.message(offset, topic="chat:a")
            await session.writer.drain()
            await session.read("Presence")
            session.writer.close()

        async def fine(session):
            connect = await session.sign_in()
            self.assertEqual(connect["rooms"][0]["since"], make.position(1, 10))
            session.subscribed(connect["request"], "chat:a", 13, start=10)
            for offset in (11, 12, 13, 14):
                session.message(offset, topic="chat:a")
            presence = await session.read("Presence")
            session.send("PresenceResult", request=presence["request"], room="chat:a")
            await session.until_closed()

        async with FakeGateway(lossy, fine) as gateway:
            async with self.client(gateway, on_message=slow) as client:
                await client.subscribe("chat:a")
                await client.presence("chat:a")
                let_go.set()
                await self.messages.wait_for(4)
                self.assertEqual(client.rooms, {"chat:a": Position(1, 14)})
        self.assertEqual(self.messages.offsets(), [11, 12, 13, 14])

    # ------------------------------------------------------------ tokens

    async def test_the_clocks_differ_by_an_hour_then_the_token_is_refreshed_by_its_lifetime(self):
        calls = []

        async def script(session):
            # By this host's clock the session has ended long ago.
            await session.sign_in(expires_at=int(time.time()) - 3600, expires_in_ms=3_600_000)
            with self.assertRaises(asyncio.TimeoutError):
                await asyncio.wait_for(session.read("Refresh"), 1.5)
            quiet.set()
            await session.until_closed()

        quiet = asyncio.Event()
        async with FakeGateway(script) as gateway:
            async with self.client(gateway, token=lambda: calls.append(1) or "t"):
                await quiet.wait()
        self.assertEqual(len(calls), 1)

    async def test_a_new_token_ends_no_later_then_the_function_is_asked_less_and_less_often(self):
        asked_at = []

        async def script(session):
            await session.sign_in(expires_in_ms=60)
            for lifetime in (50, 40, 30, 20):
                refresh = await session.read("Refresh")
                asked_at.append(time.monotonic())
                session.send("Refreshed", request=refresh["request"], expires_in_ms=lifetime)
            done.set()
            await session.until_closed()

        done = asyncio.Event()
        async with FakeGateway(script) as gateway:
            with mock.patch("ringgate.client.REFRESH_SECONDS_MIN", 0.1), self.assertLogs("ringgate", "WARNING"):
                async with self.client(gateway, token=lambda: "same"):
                    began = time.monotonic()
                    await done.wait()
        waits = [later - earlier for earlier, later in zip([began, *asked_at], asked_at)]
        for wait, least in zip(waits, (0.1, 0.1, 0.2, 0.4)):
            self.assertGreaterEqual(wait, least * 0.9)

    async def test_the_token_function_raises_at_a_reconnect_then_it_is_told_and_asked_again(self):
        async def lossy(session):
            await session.sign_in()
            session.writer.close()

        async def fine(session):
            tokens.append((await session.sign_in())["token"])
            await session.until_closed()

        tokens = []
        answers = iter(["first", OSError("the identity provider is down"), 7, "second"])

        async def token():
            answer = next(answers)
            if isinstance(answer, Exception):
                raise answer
            return answer

        async with FakeGateway(lossy, fine) as gateway:
            with self.assertLogs("ringgate", "ERROR") as logs:
                async with self.client(gateway, token=token) as client:
                    await self.events.wait_for(4)
                    self.assertIs(client.state, State.CONNECTED)
        self.assertEqual(tokens, ["second"])
        self.assertEqual([type(e) for e in self.events.values], [Connected, TokenFailed, TokenFailed, Connected])
        self.assertEqual(str(self.events.values[1].error), "the identity provider is down")
        self.assertIsInstance(self.events.values[2].error, TypeError)
        self.assertIn("the identity provider is down", "".join(logs.output))

    async def test_the_token_function_raises_at_a_refresh_then_the_connection_stays_and_it_is_asked_again(self):
        async def script(session):
            await session.sign_in(expires_in_ms=50)
            refresh = await session.read("Refresh")
            self.assertEqual(refresh["token"], "second")
            session.send("Refreshed", request=refresh["request"], expires_in_ms=3_600_000)
            done.set()
            await session.until_closed()

        done = asyncio.Event()
        answers = iter(["first", None, "second"])

        def token():
            answer = next(answers)
            if answer is None:
                raise LookupError("no token")
            return answer

        async with FakeGateway(script) as gateway:
            with mock.patch("ringgate.client.REFRESH_SECONDS_MIN", 0.05), self.assertLogs("ringgate", "ERROR"):
                async with self.client(gateway, token=token):
                    await done.wait()
                    self.assertEqual(len(gateway.accepted_at), 1)
        self.assertEqual([type(e) for e in self.events.values], [Connected, TokenFailed])

    async def test_the_token_function_raises_at_first_then_connect_raises_it(self):
        def token():
            raise LookupError("no token")

        async with FakeGateway(FakeGateway.never) as gateway:
            with self.assertRaisesRegex(LookupError, "no token"):
                await self.client(gateway, token=token).connect()
            self.assertEqual(gateway.accepted_at, [])
        with self.assertRaises(ValueError):
            Client("tcp://localhost", "")

    async def test_the_token_function_takes_its_time_then_no_connection_waits_for_it(self):
        let_go = asyncio.Event()

        async def token():
            asked.set()
            await let_go.wait()
            return "t"

        async def script(session):
            await session.sign_in()
            await session.until_closed()

        asked = asyncio.Event()
        async with FakeGateway(script) as gateway:
            client = self.client(gateway, token=token)
            connecting = asyncio.ensure_future(client.connect())
            await asked.wait()
            await asyncio.sleep(0.05)
            self.assertEqual(gateway.accepted_at, [])
            let_go.set()
            await connecting
            await client.close()

    # ------------------------------------------------------------ attempts

    async def test_a_good_connection_ends_then_the_back_off_begins_anew(self):
        async def short(session):
            await session.sign_in()
            session.writer.close()

        async def good(session):
            await session.sign_in()
            await asyncio.sleep(0.2)
            session.writer.close()

        async def good_until_goodbye(session):
            await session.sign_in()
            await asyncio.sleep(0.2)
            session.goodbye(3001, reconnect=True, after_ms=30)

        async def short_until_goodbye(session):
            await session.sign_in()
            session.goodbye(3001, reconnect=True, after_ms=30)

        async def fine(session):
            await session.sign_in()
            await session.until_closed()

        scripts = (short, short, good, short, good_until_goodbye, short_until_goodbye, fine)
        async with FakeGateway(*scripts) as gateway:
            with mock.patch("ringgate.client.GOOD_CONNECTION_SECONDS", 0.15), \
                 mock.patch("ringgate.client.random.uniform", return_value=0.1) as uniform:
                async with self.client(gateway, backoff=(0.5, 20.0)):
                    await self.events.wait_for(7)
        # After: two short ones, the good one, a short one; the good one's Goodbye needs none; the short one's does.
        self.assertEqual([call.args[1] for call in uniform.call_args_list], [1.0, 2.0, 0.5, 1.0, 1.0])
        waits = [later - earlier for earlier, later in zip(gateway.accepted_at, gateway.accepted_at[1:])]
        self.assertGreaterEqual(waits[4], 0.23 * 0.95)
        self.assertGreaterEqual(waits[5], 0.1 * 0.95, "the longer of both waits")

    async def test_a_name_has_several_addresses_then_they_are_tried_in_turn_and_looked_up_again(self):
        async def broken(session):
            session.writer.close()

        async def fine(session):
            await session.sign_in()
            await session.until_closed()

        lookups = []
        with socket.socket() as nobody:
            nobody.bind(("127.0.0.1", 0))
            async with FakeGateway(broken) as first, FakeGateway(fine) as second:
                addresses = [nobody.getsockname(), first.address, second.address]

                def look_up(host, port, *_, **__):
                    lookups.append((host, port))
                    return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in addresses]

                with mock.patch("socket.getaddrinfo", look_up):
                    client = Client("tcp://chat.example.org:7400", "t", **FAST)
                    await client.connect()
                    # First attempt: nobody, then the broken one. Second: the broken one. Third: the fine one.
                    self.assertEqual((len(first.accepted_at), len(second.accepted_at)), (2, 1))
                    self.assertEqual(lookups, [("chat.example.org", 7400)] * 3)
                    await client.close()

    async def test_an_address_swallows_everything_then_the_next_one_has_its_share_of_the_time(self):
        async def fine(session):
            await session.sign_in()
            await session.until_closed()

        with contextlib.ExitStack() as sockets:
            hole = sockets.enter_context(socket.socket())
            hole.bind(("127.0.0.1", 0))
            hole.listen(0)
            # What fills its queue: later connects are not answered.
            for _ in range(3):
                filler = sockets.enter_context(socket.socket())
                filler.setblocking(False)
                filler.connect_ex(hole.getsockname())
            async with FakeGateway(fine) as gateway:
                found = [
                    (socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in (hole.getsockname(), gateway.address)
                ]
                with mock.patch("socket.getaddrinfo", return_value=found):
                    began = time.monotonic()
                    async with Client("tcp://chat.example.org", "t", connect_timeout=2.0, **FAST):
                        self.assertGreaterEqual(time.monotonic() - began, 0.99)
                        self.assertEqual(len(gateway.accepted_at), 1)

    async def test_neither_connected_nor_goodbye_comes_then_the_attempt_has_failed(self):
        async def silent(session):
            await session.read("Connect")
            await session.until_closed()

        async def fine(session):
            await session.sign_in()
            await session.until_closed()

        async with FakeGateway(silent, fine) as gateway:
            async with self.client(gateway, sign_in_timeout=0.2):
                first, second = gateway.accepted_at
                self.assertGreaterEqual(second - first, 0.19)
            client = self.client(gateway)
            self.assertEqual((client._connect_timeout, client._sign_in_timeout), (10, 15))

    async def test_a_tls_handshake_is_not_answered_then_the_attempt_fails_and_close_ends_the_next_one(self):
        async def silent(session):
            await session.until_closed()

        async with FakeGateway(silent) as gateway:
            client = self.client(gateway, url=gateway.url.replace("tcp", "tls"), connect_timeout=0.2)
            connecting = asyncio.ensure_future(client.connect())
            while len(gateway.accepted_at) < 3:
                await asyncio.sleep(0.01)
            await client.close()
            with self.assertRaises(Closed) as caught:
                await connecting
            self.assertEqual(caught.exception.code, 3000)
            first, second = gateway.accepted_at[:2]
            self.assertGreaterEqual(second - first, 0.19)

    async def test_tls_to_a_plain_port_then_a_sentence_says_so(self):
        async def plain(session):
            await session.reader.read(64)
            session.goodbye(3501, reconnect=False)
            await session.until_closed()

        async with FakeGateway(plain) as gateway:
            with self.assertRaisesRegex(Closed, r"127\.0\.0\.1:\d+ does not speak TLS: is it a port for tcp://\?"):
                await self.client(gateway, url=gateway.url.replace("tcp", "tls")).connect()
            self.assertEqual(len(gateway.accepted_at), 1)

    async def test_plain_to_a_tls_port_then_a_sentence_says_so(self):
        async def alert(session):
            await session.reader.read(64)
            session.writer.write(b"\x15\x03\x03\x00\x02\x02\x46")
            await session.writer.drain()

        async with FakeGateway(alert) as gateway:
            with self.assertRaisesRegex(Closed, r"127\.0\.0\.1:\d+ speaks TLS: is it a port for tls://\?"):
                await self.client(gateway).connect()
            self.assertEqual(len(gateway.accepted_at), 1)

    # ------------------------------------------------------------ what the wire has gained

    async def test_wishes_stand_in_connect(self):
        seen = []

        async def script(session):
            seen.append(await session.sign_in(ping_interval_ms=60000, receive_window=16))
            await session.until_closed()

        async with FakeGateway(script) as gateway:
            async with self.client(gateway, ping_interval=60.5, receive_window=16) as client:
                self.assertEqual(client.connected.receive_window, 16)
        self.assertEqual((seen[0]["ping_interval_ms"], seen[0]["receive_window"]), (60500, 16))
        with self.assertRaises(ValueError):
            Client("tcp://localhost", "t", ping_interval=-1)

    async def test_publish_nowait_is_sent_once_and_not_waited_for(self):
        seen = []

        async def lossy(session):
            await session.sign_in()
            seen.append(await session.read("Publish"))
            session.writer.close()

        async def fine(session):
            await session.sign_in()
            seen.append(await session.read("Publish"))
            done.set()
            await let_go.wait()

        done, let_go = asyncio.Event(), asyncio.Event()
        async with FakeGateway(lossy, fine) as gateway:
            client = self.client(gateway)
            self.assertIs(client.publish_nowait("@bob", b"too early"), False)
            async with client:
                for refused in (client.publish_nowait, client.publish):
                    with self.assertRaises(RinggateError) as error:
                        answer = refused("@bob", b"x" * 65537)
                        await answer
                    self.assertEqual(error.exception.code, 106, "refused here: so long a frame could end the session")
                self.assertIs(client.publish_nowait("@bob", b"typing", ephemeral=True), True)
                await self.events.wait_for(2)
                self.assertIs(client.publish_nowait("@bob", b"more"), True)
                await done.wait()
                self.assertEqual(client._requests, {})
                sent = 0
                while client.publish_nowait("@bob", b"x" * 65536):
                    sent += 1
                    await asyncio.sleep(0)
                self.assertGreater(sent, 3)
                self.assertLess(client._connection.writer.transport.get_write_buffer_size(), 512 * 1024)
                let_go.set()
            self.assertIs(client.publish_nowait("@bob", b"too late"), False)
        self.assertEqual([p["payload"] for p in seen], [b"typing", b"more"])
        self.assertEqual([(p["request"], p["client_message_id"]) for p in seen], [(0, None)] * 2)
        self.assertEqual([p["ephemeral"] for p in seen], [True, False])

    async def test_a_copy_for_the_own_other_devices_is_marked(self):
        async def script(session):
            await session.sign_in()
            session.message(1)
            session.send("Message", topic="@alice", stamp=make.stamp(1, 2, 1002, 5), sender="alice", payload=b"hi",
                         sent_to="@bob")
            await session.until_closed()

        async with FakeGateway(script) as gateway:
            async with self.client(gateway):
                ordinary, copy = await self.messages.wait_for(2)
        self.assertEqual((ordinary.is_copy, ordinary.sent_to), (False, None))
        self.assertEqual((copy.is_copy, copy.sent_to, copy.sender), (True, "@bob", "alice"))

    async def test_history_is_read_backward(self):
        async def script(session):
            await session.sign_in()
            history = await session.read("History")
            self.assertEqual((history["since"], history["before"], history["limit"]), (None, make.position(1, 9), 2))
            session.send("HistoryResult", request=history["request"], topic="chat:a", position=make.position(1, 12),
                         messages=[make.message(7, b"7"), make.message(8, b"8")], more=True, recovered=True)
            await session.until_closed()

        async with FakeGateway(script) as gateway:
            async with self.client(gateway) as client:
                history = await client.history("chat:a", limit=2, before=Position(1, 9))
                self.assertEqual(([m.payload for m in history.messages], history.more), ([b"7", b"8"], True))
                with self.assertRaises(ValueError):
                    await client.history("chat:a", Position(1, 1), before=Position(1, 9))

    async def test_the_dedup_window_is_over_then_a_publish_is_undecided(self):
        async def lossy(session):
            await session.sign_in(dedup_window_ms=100)
            await session.read("Publish")
            session.writer.close()

        async def late(session):
            await asyncio.sleep(0.2)
            await session.sign_in(dedup_window_ms=100)
            published = await session.read("Publish")
            self.assertEqual(published["payload"], b"new")
            session.published(published, 1)
            await session.until_closed()

        async with FakeGateway(lossy, late) as gateway:
            async with self.client(gateway) as client:
                with self.assertRaises(Undecided):
                    await client.publish("@bob", b"old")
                await client.publish("@bob", b"new")

    # ------------------------------------------------------------ a gateway that misbehaves

    async def test_garbage_ends_the_connection_and_unknown_kinds_do_not(self):
        async def garbage(session):
            await session.sign_in()
            session.writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            await session.until_closed()

        async def newer(session):
            await session.sign_in()
            session.writer.write(make.frame(200, b"from the future"))
            session.message(1)
            await session.until_closed()

        async with FakeGateway(garbage, newer) as gateway:
            async with self.client(gateway):
                await self.messages.wait_for(1)
                self.assertEqual(len(gateway.accepted_at), 2)


if __name__ == "__main__":
    unittest.main()
