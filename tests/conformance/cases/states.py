"""The states of a connection."""

import time

from harness import equal, leave, section, that, within
from wire import encode

case = section("states")


@case(
    "connect-first",
    "`Connect` has been sent as the first frame; any other first frame but `Disconnect` closes with 3501",
)
def connect_first(run):
    user = run.user()
    for name, values in (
        ("Publish", {"topic": "@" + user, "payload": b"x"}),
        ("History", {"topic": "@" + user}),
        ("Presence", {"room": "chat:x"}),
        ("Unsubscribe", {"room": "chat:x"}),
        ("Refresh", {"token": run.gateway.token(user)}),
    ):
        client = run.connect()
        client.send_bytes(encode(name, request=1, **values) + run.connect_frame(user))
        that(not client.goodbye(3501).reconnect, "the client is told to come back")


@case("second-connect", "A second `Connect` closes with 3501.")
def second_connect(run):
    client = run.sign_in()
    client.send_bytes(run.connect_frame(client.user))
    that(not client.goodbye(3501).reconnect, "the client is told to come back")


@case("second-connect-at-once", "A second `Connect` closes with 3501.")
def second_connect_at_once(run):
    client = run.connect()
    frame = run.connect_frame()
    client.send_bytes(frame + frame)
    client.goodbye(3501)


@case(
    "connect-deadline",
    "The whole `Connect` must have come 10 s after the connection was accepted, else close 3502.",
    long=True,
)
def connect_deadline(run):
    client = run.connect()
    goodbye = client.goodbye(3502, seconds=20)
    within("seconds until the close", time.monotonic() - client.began, 2, 20)
    equal("Goodbye.reconnect", goodbye.reconnect, False)


@case(
    "trickled-connect",
    "The whole `Connect` must have come 10 s after the connection was accepted, else close 3502.",
    long=True,
)
def trickled_connect(run):
    # A byte now and then does not move the deadline, which counts from accept.
    client = run.connect()
    data = run.connect_frame()
    for i in range(len(data) - 1):
        client.send_bytes(data[i : i + 1])
        frame = client.next(0.5)
        if frame is not None:
            equal("the close", (frame.name, frame.code), ("Goodbye", 3502))
            return client.end()
        if client.over or time.monotonic() - client.began > 20:
            break
    that(False, "no Goodbye 3502 came within 20 s")


@case(
    "goodbye-not-error",
    "A refused `Connect` is answered with `Goodbye` and the end of the connection, never with `Error`.",
)
def goodbye_not_error(run):
    for values in ({"token": "x"}, {"version": 2}, {"device": "a b"}):
        client = run.begin(**values)
        frame = client.next()
        equal("the first frame", frame.name if frame else None, "Goodbye")
        client.end()


@case("behind-a-refused-connect", "What comes behind it is ignored.")
def behind_a_refused_connect(run):
    reader = run.sign_in()
    client = run.connect()
    client.send_bytes(
        run.connect_frame(token="x") + encode("Publish", request=2, topic="@" + reader.user, payload=b"never")
    )
    client.goodbye(3500)
    equal("messages", run.marked(reader, run.sign_in(), "@" + reader.user), [])


@case("disconnect", "The client leaves; the gateway closes the connection without `Goodbye`.")
def disconnect(run):
    leave(run.sign_in())


@case("disconnect-behind-requests", "All frames on one connection take effect in the order in which they were sent")
def disconnect_behind_requests(run):
    reader = run.sign_in()
    client = run.sign_in()
    client.send_bytes(
        encode("Publish", request=1, topic="@" + reader.user, payload=b"last words") + encode("Disconnect")
    )
    equal("payload", reader.messages("@" + reader.user, 1)[0].payload, b"last words")


@case("half-close", "Closing the socket, or its sending side, has the same effect")
def half_close(run):
    import socket
    import ssl

    client = run.sign_in()
    if isinstance(client.socket, ssl.SSLSocket):
        try:
            # Sends close_notify, and waits for the gateway's.
            client.socket.settimeout(client.deadline)
            client.socket.unwrap().close()
        except (OSError, ssl.SSLError) as error:
            that("timed out" not in str(error), "the gateway did not close after close_notify")
        return
    client.socket.shutdown(socket.SHUT_WR)
    client.end()


@case("ended-sessions-are-gone", "Subscriptions belong to the connection: they end with it.")
def ended_sessions_are_gone(run):
    room = run.room()
    client = run.member(room)
    leave(client)
    again = run.sign_in(client.user)
    again.refused(401, "Publish", topic=room, payload=b"x")
    equal("messages", run.marked(again, again, "@" + again.user), [])
