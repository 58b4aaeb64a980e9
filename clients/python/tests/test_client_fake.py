"""The client against a small gateway inside the process, which misbehaves as each test wants."""

import asyncio
import time
import unittest
import uuid
from unittest import mock

from .support import BoundedTest, FakeGateway, make

from ringgate import Client, Closed, Connected, Position, RinggateError, State, Subscribed, Unsubscribed

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
        return Client(gateway.url, **options)

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
