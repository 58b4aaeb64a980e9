"""Rates: what is refused, what is not carried out, what closes and what is forgiven."""

import time

from harness import equal, section, small_rates, that, within
from wire import encode

case = section("limits")
NOT_CARRIED_OUT = (
    "Any other frame over a rate is **not carried out**: a request is answered with `Error` 111 and its own `request`"
)


def spend(client, more=0):
    """Sends as many Pings as may come at once, and reads the Pongs."""
    count = client.hello.frames_burst + more
    client.send_bytes(encode("Ping") * count)
    pongs = errors = 0
    while pongs + errors < count:
        frame = client.take("Pong", "Error")
        if frame.name == "Pong":
            pongs += 1
        else:
            equal("code and request", (frame.code, frame.request), (111, 0))
            errors += 1
    return pongs, errors


def over(client, tries=6):
    """Sends until an Error 111 has come; the time it came."""
    for _ in range(tries):
        if spend(client, client.hello.frames_rate // 2)[1]:
            return time.monotonic()
    that(False, "more frames than the rate allows were never refused")


@case("burst", "Both rates are buckets that hold a burst and fill steadily.", small_rates)
def burst(run):
    client = run.sign_in()
    pongs, errors = spend(client)
    equal("Pongs and Errors within the burst", (pongs, errors), (client.hello.frames_burst, 0))


@case("over-the-burst", "a `Ping`, or a `Publish` with `request` 0, with `Error` 111 and `request` 0", small_rates)
def over_the_burst(run):
    client = run.sign_in()
    over(client)


@case(
    "error-111",
    "| 111 | too many requests | yes | the rate limit was reached; the request was **not** carried out | wait"
    " `retry_after_ms`, send more slowly: going on closes with 3013 |",
    small_rates,
)
def error_111(run):
    client, reader = run.sign_in(), run.sign_in()
    topic, burst = "@" + reader.user, client.hello.frames_burst
    many = burst + client.hello.frames_rate // 2
    client.send_bytes(encode("Ping") * many + encode("Publish", request=5, topic=topic, payload=b"over"))
    error = client.answer(5)
    equal("the answer", (error.name, error.get("code"), error.get("temporary")), ("Error", 111, True))
    that(error.retry_after_ms > 0, "retry_after_ms is 0")
    time.sleep(error.retry_after_ms / 1000 + 0.2)
    client.ask_for("Published", "Publish", topic=topic, payload=b"after")
    equal("what was carried out", [m.payload for m in reader.messages(topic, 1)], [b"after"])


@case("each-request", NOT_CARRIED_OUT, small_rates)
def each_request(run):
    client = run.sign_in()
    room = run.room()
    requests = [
        ("Subscribe", {"room": room}),
        ("Unsubscribe", {"room": room}),
        ("Presence", {"room": room}),
        ("History", {"topic": room}),
        ("Refresh", {"token": run.gateway.token(client.user)}),
        ("Publish", {"topic": "@" + client.user}),
    ]
    client.send_bytes(
        encode("Ping") * (client.hello.frames_burst + client.hello.frames_rate)
        + b"".join(encode(name, request=50 + i, **values) for i, (name, values) in enumerate(requests))
    )
    for i, (name, _) in enumerate(requests):
        error = client.answer(50 + i)
        equal(f"the answer to {name}", (error.name, error.get("code")), ("Error", 111))


@case(
    "acks-count",
    "Every frame after `Connect` counts in both, also `Ack`, `Pong` and `Disconnect`, which are never refused"
    " themselves.",
    small_rates,
)
def acks_count(run):
    client = run.sign_in()
    half = (client.hello.frames_burst + client.hello.frames_rate) // 2
    client.send_bytes(
        encode("Ack", epoch=1, offset=1) * half
        + encode("Pong") * half
        + encode("Publish", request=5, topic="@" + client.user)
    )
    error = client.answer(5)
    equal("the answer", (error.name, error.get("code")), ("Error", 111))
    client.quiet(0.1)


@case("publish-of-0", "a `Ping`, or a `Publish` with `request` 0, with `Error` 111 and `request` 0", small_rates)
def publish_of_0(run):
    client, reader = run.sign_in(), run.sign_in()
    topic, acks = "@" + reader.user, client.hello.frames_burst + client.hello.frames_rate // 2
    client.send_bytes(
        encode("Ack", epoch=1, offset=1) * acks + encode("Publish", request=0, topic=topic, payload=b"over")
    )
    error = client.take("Error", request=0)
    equal("code", error.code, 111)
    equal("messages", run.marked(reader, run.sign_in(), topic), [])


@case(
    "disconnect-is-never-refused",
    "also `Ack`, `Pong` and `Disconnect`, which are never refused themselves",
    small_rates,
)
def disconnect_is_never_refused(run):
    client = run.sign_in()
    client.send_bytes(
        encode("Ack", epoch=1, offset=1) * (client.hello.frames_burst + client.hello.frames_rate) + encode("Disconnect")
    )
    client.end()


@case(
    "within-a-second",
    "For 1 s after the first such `Error`, more excess only gets more of them.",
    small_rates,
)
def within_a_second(run):
    client = run.sign_in()
    client.send_bytes(encode("Ping") * (client.hello.frames_burst + 3 * client.hello.frames_rate))
    first = client.take("Error")
    equal("code", first.code, 111)
    time.sleep(1.2)
    # The bucket fills by one second's frames: few enough are within it.
    client.aside.clear()
    client.send("Publish", request=5, topic="@" + run.user(), payload=b"x", ephemeral=True)
    equal("the answer", client.answer(5).name, "Published")


@case("later-than-a-second", "Excess after that second closes with 3013.", small_rates, long=True)
def later_than_a_second(run):
    client = run.sign_in()
    over(client)
    time.sleep(1.3)
    client.send_bytes(encode("Ping") * (4 * client.hello.frames_rate + client.hello.frames_burst))
    goodbye = client.take("Goodbye")
    equal("code and reconnect", (goodbye.code, goodbye.reconnect), (3013, True))


@case(
    "forgiven",
    "10 s after the first `Error` it is forgiven, and the next one is a first one again.",
    small_rates,
    long=True,
)
def forgiven(run):
    client = run.sign_in()
    over(client)
    time.sleep(10.5)
    over(client, tries=12)
    time.sleep(1.2)
    client.aside.clear()
    client.alive()


@case(
    "bytes-rate",
    "| bytes of frames per second, headers and the records of TLS included | 4 MiB, bursts of 16 MiB by default | see"
    " below |",
    small_rates,
)
def bytes_rate(run):
    client = run.sign_in()
    size = min(client.hello.message_bytes_max, 60_000)
    count = (client.hello.bytes_burst + client.hello.bytes_rate) // size + 12
    frame = encode("Publish", request=9, topic="@" + run.user(), payload=b"x" * size, ephemeral=True)
    refused = 0
    for _ in range(6):
        for _ in range(count):
            client.send_bytes(frame)
        for _ in range(count):
            answer = client.answer(9)
            if answer.name == "Error":
                equal("code", answer.code, 111)
                that(answer.temporary, "the Error is not temporary")
                refused += 1
        if refused:
            return
    that(False, "more bytes than the rate allows were never refused")


@case("connect-does-not-count", "Every frame after `Connect` counts in both", small_rates)
def connect_does_not_count(run):
    client = run.sign_in(rooms=[{"room": run.room()} for _ in range(100)])
    client.send_bytes(encode("Ping") * client.hello.frames_burst)
    for _ in range(client.hello.frames_burst):
        client.take("Pong")
    that(all(frame.name == "Subscribed" for frame in client.aside), "an Error came within the burst")


@case("of-a-connection", "Both rates are buckets that hold a burst and fill steadily.", small_rates)
def of_a_connection(run):
    user = run.user()
    one, two = run.sign_in(user, device="one"), run.sign_in(user, device="two")
    over(one)
    equal("of another connection", spend(two), (two.hello.frames_burst, 0))


@case(
    "requests-in-flight",
    "| 403 | too many in flight | yes | `requests_in_flight_max` requests wait for their answer | wait for answers,"
    " then repeat |",
)
def requests_in_flight(run):
    client = run.sign_in()
    most = client.hello.requests_in_flight_max
    that(most > 0, "requests_in_flight_max is 0")
    count = min(most + 100, client.hello.frames_burst or most + 100, 4000)
    client.send_bytes(
        b"".join(encode("Publish", request=1000 + i, topic="@" + run.user(), ephemeral=True) for i in range(count))
    )
    for i in range(count):
        frame = client.answer(1000 + i)
        if frame.name == "Error":
            equal("code and temporary", (frame.code, frame.temporary), (403, True))
    client.alive()
    within("requests_in_flight_max", most, 1, 65_535)
