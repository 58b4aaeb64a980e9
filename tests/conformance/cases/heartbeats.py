"""Ping, Pong and silence. The shortest interval that the gateway allows is wished."""

import time

from harness import equal, section, that, within
from wire import encode

case = section("heartbeats")


def client_of_short_interval(run):
    client = run.sign_in(ping_interval_ms=1)
    client.answer_pings = False
    return client, client.hello.ping_interval_ms / 1000, client.hello.pong_timeout_ms / 1000


@case(
    "pong",
    "A client sends `Ping` when it has sent nothing for I, and should also when it has received nothing for I. The"
    " gateway answers at once, ahead of any messages that wait.",
)
def pong(run):
    client = run.sign_in()
    for _ in range(50):
        client.send("Ping")
    for _ in range(50):
        client.take("Pong")
    client.quiet(0.1)


@case("pong-ahead-of-messages", "The gateway answers `Ping` with `Pong` (129), ahead of any messages that wait")
def pong_ahead_of_messages(run):
    import socket

    room = run.room()
    client, writers = run.member(room), [run.member(room) for _ in range(2)]
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
    count, payload = 60, b"w" * 60_000
    for writer in writers:
        for i in range(count):
            writer.send_bytes(encode("Publish", request=1000 + i, topic=room, payload=payload))
            writer.answer(1000 + i)
            writer.aside.clear()
    client.send("Ping")
    seen = 0
    while True:
        frame = client.next()
        that(frame is not None, f"no Pong came: {client.over or 'the deadline passed'}")
        if frame.name == "Pong":
            break
        seen += 1
    that(seen < 2 * count, "the Pong came behind all messages that waited")


@case(
    "pong-of-the-client-unasked",
    "Any bytes count as life, in both directions: a client that publishes all the time sends no `Ping`.",
)
def pong_unasked(run):
    client = run.sign_in()
    client.send("Pong")
    client.alive()


@case(
    "gateway-asks",
    "When the gateway has heard nothing for 2.5 I (or 3 I - T, if that is earlier) it sends a `Ping` itself, which the"
    " client answers with `Pong` (11).",
    long=True,
)
def gateway_asks(run):
    client, interval, timeout = client_of_short_interval(run)
    began = time.monotonic()
    frame = client.next(4 * interval + 5)
    equal("the first frame in the silence", frame.name if frame else client.over, "Ping")
    # 1.5 I (or 2 I - T) is allowed, for gateways that close earlier.
    within(
        "seconds until the Ping",
        time.monotonic() - began,
        min(1.5 * interval, 2 * interval - timeout) - 0.2,
        4 * interval + 5,
    )


@case("answered-ping", "which the client answers with `Pong` (11)", long=True)
def answered_ping(run):
    client, interval, _ = client_of_short_interval(run)
    for _ in range(3):
        equal("the next frame", client.next(4 * interval + 5).name, "Ping")
        client.send("Pong")
    client.alive()


@case("no-pong", "After 3 I of silence it closes with 3012.", long=True)
def no_pong(run):
    client, interval, _ = client_of_short_interval(run)
    began = time.monotonic()
    equal("the first frame in the silence", client.next(4 * interval + 5).name, "Ping")
    goodbye = client.goodbye(3012, seconds=4 * interval + 10)
    that(goodbye.reconnect, "the client is not told to come back")
    within("seconds until the close", time.monotonic() - began, 2 * interval - 0.2, 5 * interval + 10)


@case("publishing-is-life", "a client that publishes all the time sends no `Ping`", long=True)
def publishing_is_life(run):
    client, interval, _ = client_of_short_interval(run)
    end = time.monotonic() + 4 * interval
    while time.monotonic() < end:
        client.send_bytes(encode("Publish", request=0, topic="@" + run.user(), payload=b"x", ephemeral=True))
        client.quiet(interval / 2)


@case("bytes-are-life", "Any bytes count as life, in both directions", long=True)
def bytes_are_life(run):
    client, interval, _ = client_of_short_interval(run)
    frame = encode("Publish", request=1, topic="@" + client.user, payload=b"x" * 32)
    end, sent = time.monotonic() + min(3.3 * interval, 3.4), 0
    while time.monotonic() < end:
        client.send_bytes(frame[sent : sent + 1])
        sent += 1
        client.quiet(min(interval / 2, 0.6))
    client.send_bytes(frame[sent:])
    client.take("Published", request=1)
