"""Close codes: their ranges, and the closes of readers that are too slow."""

import socket
import time

from harness import configured, equal, leave, namespace, offsets, section, that, within
from wire import Ended, encode, header

case = section("closing")


@case(
    "ranges",
    '3000-3499 and 4000-4499 mean "reconnect", 3500-3999 and 4500-4999 mean "do not"; `Goodbye.reconnect` says the'
    " same.",
)
def ranges(run):
    now = int(time.time())
    seen = [
        run.refused(3500, token="x"),
        run.refused(3506, version=9),
        run.refused(3501, device="a b"),
        run.refused(3005, claims={"exp": now - 3600}),
        run.refused(3017, claims={"nbf": now + 3600, "exp": now + 7200}),
    ]
    client = run.sign_in()
    client.send_bytes(header(0xFFFF_FFFF, 3))
    seen.append(client.goodbye(3510))
    older = run.sign_in()
    run.sign_in(older.user)
    seen.append(older.goodbye(4500))
    for goodbye in seen:
        wanted = 3000 <= goodbye.code < 3500 or 4000 <= goodbye.code < 4500
        equal(f"Goodbye.reconnect of {goodbye.code}", goodbye.reconnect, wanted)


@case("reasons", "for people and logs")
def reasons(run):
    for code, values in ((3500, {"token": "x"}), (3506, {"version": 9}), (3501, {"device": "a b"})):
        that(run.refused(code, **values).reason != "", f"the reason of {code} is empty")


@case("waits", "wait this long before the first attempt; already jittered, so do not add to it")
def waits(run):
    now = int(time.time())
    goodbye = run.refused(3017, claims={"nbf": now + 3600, "exp": now + 7200})
    within("after_ms of 3017", goodbye.after_ms, 1, 3_600_000)


@case(
    "last-frame",
    "The gateway closes the connection after this frame; the client closes its side. What comes behind it is ignored.",
)
def last_frame(run):
    client = run.sign_in()
    client.send_bytes(
        header(0, 77) + encode("Publish", request=1, topic="@" + client.user, payload=b"never") + encode("Ping")
    )
    client.goodbye(3501)
    again = run.sign_in(client.user)
    equal("messages", run.marked(again, run.sign_in(), "@" + client.user), [])


@case("subscriptions-end", "Subscriptions belong to the connection: they end with it.")
def subscriptions_end(run):
    from harness import until

    room = run.room()
    client, watcher = run.member(room), run.sign_in()
    client.send_bytes(header(0, 77))
    client.goodbye(3501)
    until("nobody is in the room", lambda: watcher.ask_for("PresenceResult", "Presence", room=room, limit=0).count == 0)


def stop_reading(client):
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32_768)


def flood(run, room, writers, count, size=60_000):
    """So many members, one after the other, publish so many messages each and read their answers."""
    for _ in range(writers):
        writer = run.member(room)
        for start in range(0, count, 4):
            for i in range(start, start + 4):
                writer.send_bytes(encode("Publish", request=1000 + i, topic=room, payload=b"f" * size))
            for i in range(start, start + 4):
                frame = writer.answer(1000 + i)
                that(frame.name == "Published", f"{frame}: a Publish beside a slow reader was refused")
            # It reads its own, so that it does not lag behind itself.
            for _ in range(4):
                writer.take("Message", topic=room)
        leave(writer)


@case(
    "slow",
    "the client did not read: nothing could be written to it for the write timeout (10 s), and nothing else leads to"
    " this code; often not seen on the wire, since the socket is full",
    long=True,
)
def slow(run):
    room = run.room()
    client, watcher = run.member(room), run.sign_in()
    stop_reading(client)
    flood(run, room, 3, 60)
    from harness import until

    until(
        "the slow one is gone", lambda: watcher.ask_for("PresenceResult", "Presence", room=room, limit=0).count == 0, 25
    )
    while (frame := client.next(5)) is not None:
        if frame.name == "Goodbye":
            equal("code and reconnect", (frame.code, frame.reconnect), (3008, True))
    that(client.over is not None, "the connection of a client that does not read did not end")


@case(
    "insufficient-state",
    "| 3010 | insufficient state | a lagging subscriber could not be caught up: the log no longer reaches back |"
    " reconnect and resume; expect `recovered` = false |",
    namespace("few"),
    long=True,
)
def insufficient_state(run):
    room = run.room("few")
    client = run.member(room)
    stop_reading(client)
    flood(run, room, 3, 60)
    last, goodbye = None, None
    while (frame := client.next()) is not None:
        if frame.name == "Message":
            last = frame.stamp.position
        elif frame.name == "Goodbye":
            goodbye = frame
    that(goodbye is not None, f"no Goodbye came: {client.over or 'the deadline passed'}")
    equal("code and reconnect", (goodbye.code, goodbye.reconnect), (3010, True))
    that(last is not None, "no message came before the close")
    again = run.sign_in(client.user).ask_for("Subscribed", "Subscribe", room=room, since=dict(last))
    equal("recovered", again.recovered, False)


@case(
    "no-history-drops",
    "In a room whose namespace keeps no history, messages for a slow subscriber are dropped",
    namespace("nolog"),
    long=True,
)
def no_history_drops(run):
    room = run.room("nolog")
    client = run.member(room)
    stop_reading(client)
    flood(run, room, 3, 60)
    got = []
    run.publish(run.member(room), room, b"mark")
    try:
        while True:
            message = client.take("Message", topic=room, seconds=3)
            if message.payload == b"mark":
                break
            got.append(message)
    except Ended:
        that(False, f"the connection of a slow reader ended: {client.over}")
    except AssertionError:
        pass  # The mark itself was dropped.
    that(len(got) < 180, "nothing was dropped, so nothing was slow")
    seen = [offset for offset in offsets(got) if offset]
    that(seen == sorted(seen), "messages came out of order")
    client.alive()


@case(
    "a-slow-reader-alone",
    "the client did not read: nothing could be written to it for the write timeout (10 s), and nothing else leads to"
    " this code",
)
def a_slow_reader_alone(run):
    # Others are served meanwhile.
    room = run.room()
    client = run.member(room)
    stop_reading(client)
    other = run.sign_in()
    flood(run, room, 1, 60)
    other.alive()
    run.publish(run.sign_in(), "@" + other.user, b"x")
    other.messages("@" + other.user, 1)


@case("takeover-of-a-silent-one", "the older connection gets `Goodbye` 4500 and must not reconnect by itself")
def takeover_of_a_silent_one(run):
    older = run.sign_in()
    newer = run.sign_in(older.user)
    equal("reconnect", older.goodbye(4500).reconnect, False)
    leave(newer)
