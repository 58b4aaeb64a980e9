"""Connect, Connected, tokens, devices, takeovers."""

import time

from harness import Failure, configured, equal, leave, namespace, section, that, until, within
from wire import encode

case = section("connect")
ACCEPTED = (
    "Its `sub` is the user id, its `exp` (if any) when the session ends, its `nbf` (if any) when it may begin: numbers"
    " of seconds since 1970, also with a fraction or an exponent"
)


@case("connected", "the version that is spoken from now on: 1")
def connected(run):
    client = run.sign_in(request=77)
    hello = client.hello
    equal("request", hello.request, 77)
    equal("version", hello.version, 1)
    equal("user", hello.user, client.user)
    that(hello.session != 0, "session is 0")
    that(hello.node != "", "node is empty")
    that(hello.inbox is not None, "inbox is absent")


@case("announced-limits", "what a client needs to know of it stands in `Connected`")
def announced_limits(run):
    hello = run.sign_in().hello
    for field in (
        "ping_interval_ms",
        "pong_timeout_ms",
        "message_bytes_max",
        "rooms_max",
        "requests_in_flight_max",
        "dedup_window_ms",
        "receive_window",
    ):
        that(hello[field] > 0, f"{field} is {hello[field]}")
    that(hello.pong_timeout_ms < hello.ping_interval_ms, "the Pong may take longer than the interval")
    for rate, burst in (("frames_rate", "frames_burst"), ("bytes_rate", "bytes_burst")):
        that(hello[rate] == 0 or hello[burst] > 0, f"{rate} is {hello[rate]} and {burst} is {hello[burst]}")


@case("sessions-differ", "id of this session in the node, for logs")
def sessions_differ(run):
    ids = [run.sign_in().hello.session for _ in range(6)]
    equal("different session ids", len(set(ids)), 6)


@case("dedup-window", "how long a `client_message_id` is remembered; 5 min by default")
def dedup_window(run):
    within("dedup_window_ms", run.sign_in().hello.dedup_window_ms, 1, 12 * 86_400_000)


@case("version-0", "1. Anything else: close 3506")
def version_0(run):
    for version in (0, 2, 65_535):
        goodbye = run.refused(3506, version=version)
        that(not goodbye.reconnect, "the client is told to come back")


@case("token-unreadable", "3500 the token is not accepted")
def token_unreadable(run):
    for token in ("x", "a.b", "a.b.c", "....", "e30.e30.", "t" * 8192, "ü.ü.ü"):
        goodbye = run.refused(3500, token=token)
        that(not goodbye.reconnect, "the client is told to come back")


@case("token-of-another-key", "a signed JSON Web Token in compact form, 1 to 8192 bytes.")
def token_of_another_key(run):
    gateway = run.gateway
    body = {"sub": run.user(), "exp": int(time.time()) + 60}
    run.refused(3500, token=gateway.token_of(body, key=b"another key of thirty-two bytes!!"))
    good = gateway.token_of(body)
    run.refused(3500, token=good[:-1] + ("A" if good[-1] != "A" else "B") if good[-2] != "_" else good[:-4])
    run.refused(3500, token=good.rsplit(".", 1)[0] + ".")
    run.refused(3500, token=gateway.token_of(body, head={"alg": "none"}).rsplit(".", 1)[0] + ".")


@case("token-without-user", "Its `sub` is the user id")
def token_without_user(run):
    for user in (None, "", "a b", "u" * 129, "tab\t"):
        run.refused(3500, claims={"sub": user})


@case("token-critical", "3500 the token is not accepted")
def token_critical(run):
    head = {"alg": "HS256", "crit": ["exp"], **({"kid": run.gateway.key_id} if run.gateway.key_id else {})}
    run.refused(3500, token=run.gateway.token_of({"sub": run.user(), "exp": int(time.time()) + 60}, head=head))


@case("token-ended", "3005 it has ended")
def token_ended(run):
    goodbye = run.refused(3005, claims={"exp": int(time.time()) - 3600})
    that(goodbye.reconnect, "the client is not told to come back")


@case("token-not-yet-valid", "3017 it is not valid yet")
def token_not_yet_valid(run):
    goodbye = run.refused(3017, claims={"nbf": int(time.time()) + 3600, "exp": int(time.time()) + 7200})
    that(goodbye.reconnect, "the client is not told to come back")


@case("token-dates-with-a-fraction", ACCEPTED)
def token_dates_with_a_fraction(run):
    now = int(time.time())
    for text in (f"{now + 600}.5", f"{now + 600}.0", "4.2e9", "42E8"):
        client = run.sign_in(
            token=run.gateway.token_of('{"sub":"%s","nbf":%d.25,"exp":%s}' % (run.user(), now - 10, text))
        )
        within("expires_at", client.hello.expires_at, int(float(text)), int(float(text)) + 61)


@case("token-within-its-second", "`exp` is rounded down and `nbf` up to whole seconds")
def token_within_its_second(run):
    hello = run.sign_in(token=run.gateway.token_of('{"sub":"%s","exp":4000000000.9}' % run.user())).hello
    whole = run.sign_in(token=run.gateway.token_of('{"sub":"%s","exp":4000000000}' % run.user())).hello
    equal("expires_at", hello.expires_at, whole.expires_at)


@case("expires-at", "the token's `exp` and the gateway's leeway (5 s by default), in seconds since 1970-01-01 UTC")
def expires_at(run):
    exp = int(time.time()) + 1000
    hello = run.sign_in(claims={"exp": exp}).hello
    within("expires_at - exp", hello.expires_at - exp, 0, 60)
    left = hello.expires_at * 1000 - hello.server_time_ms
    within("expires_in_ms", hello.expires_in_ms, left - 2000, left + 2000)


@case("expires-in-ms", "milliseconds from now to `expires_at`; 0 when the session does not end")
def expires_in_ms(run):
    hello = run.sign_in(claims={"exp": int(time.time()) + 500}).hello
    within("expires_in_ms", hello.expires_in_ms, 480_000, 561_000)


@case("token-without-end", "0 when it does not end", configured("token.require_exp"))
def token_without_end(run):
    client = run.sign_in(claims={"exp": None})
    equal("expires_at and expires_in_ms", (client.hello.expires_at, client.hello.expires_in_ms), (0, 0))
    frame = client.ask_for("Refreshed", "Refresh", token=run.gateway.token(client.user, exp=None))
    equal("expires_at and expires_in_ms of Refreshed", (frame.expires_at, frame.expires_in_ms), (0, 0))


@case("device-default", "Empty or absent means `default`.")
def device_default(run):
    user, room = run.user(), run.room()
    one = run.member(room, user)
    equal(
        "devices",
        [m.device for m in one.ask_for("PresenceResult", "Presence", room=room, limit=5).members],
        ["default"],
    )
    run.sign_in(user, device="")
    one.goodbye(4500)
    run.sign_in(user, device="default")


@case("device-of-the-token", "If the token has a `device` claim, it must be the same: else close 3500")
def device_of_the_token(run):
    user = run.user()
    run.sign_in(user, claims={"device": "phone"}, device="phone")
    run.refused(3500, user, claims={"device": "phone"}, device="tablet")
    run.refused(3500, user, claims={"device": "phone"})
    run.sign_in(user, claims={"device": "default"})


@case("client-name", "name and version of the program, for logs: up to 128 bytes without control characters")
def client_name(run):
    run.sign_in(client="a program/1.0 (ünïcode)")
    run.sign_in(client="c" * 128)


@case(
    "rooms",
    "Then each room is treated as if it had come in a `Subscribe` with this frame's `request`: one `Subscribed` or one"
    " `Error` for each, all with the same `request`, not necessarily in the order of the list.",
)
def rooms(run):
    names = [run.room() for _ in range(10)]
    client = run.sign_in(request=9, rooms=[{"room": name} for name in names])
    got = [client.take("Subscribed", request=9).room for _ in names]
    equal("rooms", sorted(got), sorted(names))


@case("rooms-refused", "`Error.room` says which room was refused.")
def rooms_refused(run):
    good, bad = run.room(), "nosuchnamespace:x"
    client = run.sign_in(request=9, rooms=[{"room": bad}, {"room": good}, {"room": "nocolon"}])
    refused = {client.take("Error", request=9, code=102).room for _ in range(2)}
    equal("rooms refused", refused, {bad, "nocolon"})
    client.take("Subscribed", request=9, room=good)
    client.alive()


@case("rooms-twice", "one `Subscribed` or one `Error` for each")
def rooms_twice(run):
    room = run.room()
    client = run.sign_in(request=9, rooms=[{"room": room}, {"room": room}])
    client.take("Subscribed", request=9, room=room)
    client.take("Error", request=9, code=105, room=room)


@case("error-room-of-subscribe", "the room, when a `Subscribe` or a room of `Connect` was refused; absent in all other cases, and in code 107")
def error_room_of_subscribe(run):
    client = run.sign_in()
    equal("Error.room", client.refused(102, "Subscribe", room="nosuchnamespace:x").room, "nosuchnamespace:x")
    for name, values in (
        ("Publish", {"topic": "nosuchnamespace:x"}),
        ("Presence", {"room": "nosuchnamespace:x"}),
        ("History", {"topic": "nosuchnamespace:x"}),
        ("Unsubscribe", {"room": "chat:never"}),
    ):
        that("room" not in client.ask_for("Error", name, **values).present, f"the Error to {name} has a room")


@case("rooms-128", "up to 128 rooms to join at once")
def rooms_128(run):
    names = [run.room() for _ in range(128)]
    client = run.sign_in(rooms=[{"room": name} for name in names])
    equal("rooms", {client.take("Subscribed").room for _ in names}, set(names))


@case(
    "rooms-beyond-128",
    "A client with more than 128 rooms subscribes to the others behind `Connect`.",
    configured("client.rooms_max"),
)
def rooms_beyond_128(run):
    client = run.sign_in(rooms=[{"room": run.room()} for _ in range(128)])
    for _ in range(client.hello.rooms_max - 128):
        client.ask_for("Subscribed", "Subscribe", room=run.room())
    client.refused(106, "Subscribe", room=run.room())


@case("rooms-are-not-in-flight", "They do not count among the requests in flight.")
def rooms_are_not_in_flight(run):
    user, count = run.user(), min(run.gateway.hello.requests_in_flight_max, 200)
    client = run.connect()
    client.send_bytes(
        run.connect_frame(user, rooms=[{"room": run.room()} for _ in range(128)])
        + b"".join(encode("Publish", request=10 + i, topic="@" + user, ephemeral=True) for i in range(count))
    )
    client.take("Connected")
    for i in range(count):
        frame = client.answer(10 + i)
        that(frame.name == "Published", f"{frame}: a Publish within the window was refused")


@case("takeover", "The same user and device again **takes the session over**: the older connection gets `Goodbye` 4500")
def takeover(run):
    user = run.user()
    older = run.sign_in(user, device="phone")
    newer = run.sign_in(user, device="phone")
    goodbye = older.goodbye(4500)
    that(not goodbye.reconnect, "the client is told to come back")
    newer.alive()


@case("takeover-chain", "| 4500 | taken over | a newer session of the same user and device replaced this one |")
def takeover_chain(run):
    user = run.user()
    clients = [run.sign_in(user) for _ in range(5)]
    for older in clients[:-1]:
        older.goodbye(4500)
    clients[-1].alive()
    run.publish(run.sign_in(), "@" + user, b"to the newest")
    equal("payload", clients[-1].messages("@" + user, 1)[0].payload, b"to the newest")


@case("several-devices", "One user may have several devices connected at a time (16 by default).")
def several_devices(run):
    user = run.user()
    clients = [run.sign_in(user, device=f"d{i}") for i in range(4)]
    run.publish(run.sign_in(), "@" + user, b"for all")
    for client in clients:
        equal("payload", client.messages("@" + user, 1)[0].payload, b"for all")


@case("connection-limit", "3504 the user has as many sessions as allowed", configured("client.sessions_per_user_max"))
def connections_max(run):
    user = run.user()
    kept = [run.sign_in(user, device=f"d{i}") for i in range(6)]
    goodbye = run.refused(3504, user, device="one-more")
    that(not goodbye.reconnect, "the client is told to come back")
    # A device that is connected may take its own session over.
    run.sign_in(user, device="d0")
    kept[0].goodbye(4500)
    leave(kept[1])
    until("the place of a session that has ended is free", lambda: _signed_in(run, user))


def _signed_in(run, user):
    client = run.begin(user, device="one-more")
    return client.take("Connected", "Goodbye").name == "Connected"


@case("inbox-position-of-nobody", "the newest position of the inbox at this moment")
def inbox_position_of_nobody(run):
    hello = run.sign_in().hello
    equal("offset", hello.inbox.offset, 0)
    that(hello.inbox.epoch != 0, "the epoch of the inbox is 0")
    that(hello.inbox_recovered, "inbox_recovered is false for a user who never had a message")


@case("ping-interval-wished", "the ping interval that the client wishes; 0 for the gateway's own.")
def ping_interval_wished(run):
    own = run.sign_in(ping_interval_ms=0).hello.ping_interval_ms
    equal("the interval without a wish", run.sign_in().hello.ping_interval_ms, own)
    # 30 s lies within the default bounds of 10 s and 5 min.
    equal("the interval that was wished", run.sign_in(ping_interval_ms=30_000).hello.ping_interval_ms, 30_000)
    equal("the interval that was wished", run.sign_in(ping_interval_ms=45_001).hello.ping_interval_ms, 45_001)


@case(
    "ping-interval-bounds",
    "The gateway takes it into its bounds (10 s to 5 min by default); what holds stands in `Connected`",
)
def ping_interval_bounds(run):
    least, most = (run.sign_in(ping_interval_ms=wish).hello.ping_interval_ms for wish in (1, 0xFFFF_FFFF))
    own = run.gateway.hello.ping_interval_ms
    that(
        1 < least <= own <= most < 0xFFFF_FFFF,
        f"the bounds are {least} and {most}, the gateway's own interval is {own}",
    )
    equal("twice the same", run.sign_in(ping_interval_ms=1).hello.ping_interval_ms, least)


@case(
    "receive-window-wished", "0 for the gateway's own bound, which is also the most. What holds stands in `Connected`"
)
def receive_window_wished(run):
    own = run.sign_in().hello.receive_window
    equal("the window for 0", run.sign_in(receive_window=0).hello.receive_window, own)
    equal("the window for 1", run.sign_in(receive_window=1).hello.receive_window, 1)
    equal("the window for more than the most", run.sign_in(receive_window=0xFFFF_FFFF).hello.receive_window, own)


@case("grants", "patterns of a verb in a token's `rooms`", namespace("members"))
def grants(run):
    room = run.room("members")
    run.sign_in().refused(103, "Subscribe", room=room)
    for claim in ([room], ["members:*"], {"subscribe": [room]}):
        client = run.sign_in(claims={"rooms": claim})
        client.ask_for("Subscribed", "Subscribe", room=room)
    for claim in (["other:*"], {"publish": [room]}, []):
        run.sign_in(claims={"rooms": claim}).refused(103, "Subscribe", room=room)


@case("grants-in-connect", "`Error.room` says which room was refused", namespace("members"))
def grants_in_connect(run):
    mine, other = run.room("members"), run.room("members")
    client = run.sign_in(claims={"rooms": [mine]}, rooms=[{"room": mine}, {"room": other}])
    client.take("Subscribed", room=mine)
    client.take("Error", code=103, room=other)


@case(
    "patterns-64",
    "| patterns of a verb in a token's `rooms` | 64 of at most 128 bytes each | close 3500, or `Error` 400 |",
)
def patterns_64(run):
    run.sign_in(claims={"rooms": {"publish": [f"chat:{i}" for i in range(64)]}})
    run.refused(3500, claims={"rooms": {"publish": [f"chat:{i}" for i in range(65)]}})
    run.refused(3500, claims={"rooms": {"publish": ["chat:" + "x" * 124]}})
    client = run.sign_in()
    bad = run.gateway.token(client.user, rooms={"publish": [f"chat:{i}" for i in range(65)]})
    client.refused(400, "Refresh", token=bad)


@case("clean-refusal", "The gateway closes the connection after this frame; the client closes its side.")
def clean_refusal(run):
    goodbye = run.refused(3500, token="nonsense")
    that(goodbye.reason != "", "the reason is empty")
    if "signature" in goodbye.reason.lower() and "key" in goodbye.reason.lower():
        raise Failure(f"the reason tells a stranger too much: {goodbye.reason!r}")
