"""Proves that the cases can fail: a proxy before a real gateway that breaks one promise, and the cases about it.

A case that passes whatever the gateway does is worth nothing. tests/conformance/run goes through the list of faults.
"""

import contextlib
import dataclasses
import socket
import threading

import harness
import make
import wire


def encode(frame):
    """The bytes of a decoded frame of a gateway."""
    values = (
        frame
        if frame.name == "Published"
        else {field: value for field, value in frame.items() if field in frame.present}
    )
    return make.gateway_frame(frame.name, **values)


class Proxy:
    """Forwards connections to a gateway.

    `down(frame)` gives the bytes that go to the client instead of a frame, None for the frame as it was. `up(kind)` is
    false for frames of the client that are swallowed. With `holds_open` the client does not see the end of the stream.
    """

    def __init__(self, address, down=None, up=None, holds_open=False):
        self.address, self.down, self.up, self.holds_open = address, down, up, holds_open
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.sockets = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self):
        for one in [self.listener, *self.sockets]:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client = self.listener.accept()[0]
                gateway = socket.create_connection(self.address)
                self.sockets += [client, gateway]
                for one in (client, gateway):
                    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=self._pass, args=(client, gateway, self._up, False), daemon=True).start()
                threading.Thread(
                    target=self._pass, args=(gateway, client, self._down, self.holds_open), daemon=True
                ).start()

    def _pass(self, source, target, change, holds_open):
        waiting = bytearray()
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                waiting += data
                out = bytearray()
                while len(waiting) >= 8:
                    length, kind, flags, reserved = wire.HEADER.unpack_from(waiting)
                    # What is no frame goes on as it is: it is what the case is about.
                    if change == self._up and (length > 1 << 20 or flags or reserved):
                        break
                    if len(waiting) < 8 + length:
                        break
                    out += change(kind, bytes(waiting[: 8 + length]))
                    del waiting[: 8 + length]
                if change == self._up:
                    # The rest may be all that comes: the gateway is to see it at once.
                    if self.up is None:
                        out += waiting
                        waiting.clear()
                target.sendall(out)
        with contextlib.suppress(OSError):
            if not holds_open:
                target.shutdown(socket.SHUT_WR)

    def _up(self, kind, data):
        return data if self.up is None or self.up(kind) else b""

    def _down(self, kind, data):
        frame = wire.decode(kind, data[8:])
        changed = None if frame is None or self.down is None else self.down(frame)
        return data if changed is None else changed


@dataclasses.dataclass
class Fault:
    what: str
    # Each of these must fail.
    cases: list
    down: object = None
    up: object = None
    holds_open: bool = False


def sets(name, **fields):
    """Fields of frames of this name get other values: a value, or a function of the frame."""

    def down(frame):
        if frame.name != name:
            return None
        for field, value in fields.items():
            frame[field] = value(frame) if callable(value) else value
        frame.present = frame.present | set(fields)
        return encode(frame)

    return down


def loses(name, field):
    """A field is left out."""

    def down(frame):
        if frame.name != name:
            return None
        frame.present = frame.present - {field}
        return encode(frame)

    return down


def drops(name, **fields):
    """Frames of this name with these fields never come."""
    return lambda frame: b"" if frame.name == name and all(frame.get(f) == v for f, v in fields.items()) else None


def twice(name):
    return lambda frame: encode(frame) * 2 if frame.name == name else None


def followed(name, **error):
    """A frame of this name is followed by an Error that nobody asked for."""
    extra = make.gateway_frame("Error", **error)
    return lambda frame: (
        (encode(frame) if frame.name not in make.EMPTY else make.gateway_frame(frame.name)) + extra
        if frame.name == name
        else None
    )


def position_of(frame):
    return dict(frame.position)


def bad_header(frame):
    data = bytearray(encode(frame) if frame.name not in make.EMPTY else make.gateway_frame(frame.name))
    data[5] = 1
    return bytes(data)


FAULTS = [
    Fault(
        "closes with another code",
        ["states/second-connect", "frames/flags", "malformed/ack-15", "heartbeats/no-pong"],
        sets("Goodbye", code=3999),
    ),
    Fault(
        "tells everybody to come back",
        ["closing/ranges", "connect/takeover", "states/second-connect"],
        sets("Goodbye", reconnect=True),
    ),
    Fault("tells nobody to come back", ["closing/ranges", "connect/token-ended"], sets("Goodbye", reconnect=False)),
    Fault(
        "closes without Goodbye",
        ["malformed/flags", "states/second-connect", "connect/version-0", "connect/takeover"],
        drops("Goodbye"),
    ),
    Fault(
        "says no reason",
        ["closing/reasons", "fields/connect-bounds", "malformed/device-blank"],
        loses("Goodbye", "reason"),
    ),
    Fault("leaves the connection open after Goodbye", ["malformed/flags", "closing/last-frame"], holds_open=True),
    Fault(
        "names no field",
        ["fields/room-missing", "malformed/recover-2", "fields/trace"],
        sets("Error", message="bad request"),
    ),
    Fault(
        "has one code for every Error",
        ["fields/unknown-namespace", "rooms/already", "history/another-inbox", "refresh/ended"],
        sets("Error", code=100),
    ),
    Fault(
        "calls every Error temporary",
        ["fields/room-missing", "rooms/already", "publish/room-not-joined"],
        sets("Error", temporary=True),
    ),
    Fault("calls no Error temporary", ["refresh/not-yet-valid", "limits/error-111"], sets("Error", temporary=False)),
    Fault(
        "does not say which room was refused",
        ["connect/rooms-refused", "connect/error-room-of-subscribe"],
        loses("Error", "room"),
    ),
    Fault(
        "gives no time to wait",
        ["limits/error-111", "closing/waits"],
        lambda frame: (
            sets(frame.name, **{"retry_after_ms" if frame.name == "Error" else "after_ms": 0})(frame)
            if frame.name in ("Error", "Goodbye")
            else None
        ),
    ),
    Fault(
        "answers what wants no answer",
        ["fields/publish-of-0", "fields/publish-of-0-bad"],
        followed("Pong", request=0, code=107),
    ),
    Fault("answers twice", ["fields/answered-once"], twice("Published")),
    Fault("does not answer Publish", ["publish/published", "fields/answered-once", "frames/order"], drops("Published")),
    Fault("forgets the request", ["fields/request-comes-back", "rooms/subscribe"], sets("Subscribed", request=0)),
    Fault("announces version 2", ["connect/connected"], sets("Connected", version=2)),
    Fault("announces no limits", ["connect/announced-limits"], sets("Connected", dedup_window_ms=0)),
    Fault("says nothing of the session's end", ["connect/expires-in-ms"], sets("Connected", expires_in_ms=0)),
    Fault("has another clock", ["fields/clock", "fields/stamp"], sets("Connected", server_time_ms=1_000_000)),
    Fault(
        "does as if every window was granted", ["connect/receive-window-wished"], sets("Connected", receive_window=1024)
    ),
    Fault(
        "does as if no interval was granted",
        ["connect/ping-interval-wished"],
        sets("Connected", ping_interval_ms=20_000),
    ),
    Fault(
        "says that every inbox is recovered",
        ["inbox/position-of-zeros", "inbox/falls-out-by-count", "ack/beyond-everything"],
        sets("Connected", inbox_recovered=True),
    ),
    Fault(
        "says that no inbox is recovered",
        ["inbox/waits-for-who-is-away", "inbox/resume-with-position"],
        sets("Connected", inbox_recovered=False),
    ),
    Fault("ignores Ack", ["ack/kept", "ack/cumulative", "inbox/receive-window"], up=lambda kind: kind != 4),
    Fault(
        "says that every room is recovered",
        ["rooms/another-epoch", "rooms/beyond-the-newest", "rooms/recover-all"],
        sets("Subscribed", recovered=True),
    ),
    Fault("says that no room is recovered", ["rooms/since", "rooms/subscribe"], sets("Subscribed", recovered=False)),
    Fault(
        "starts every room at the newest",
        ["rooms/since", "rooms/recover-all", "rooms/since-of-connect"],
        sets("Subscribed", start=position_of),
    ),
    Fault("sends messages twice", ["rooms/since", "inbox/live", "inbox/receive-window"], twice("Message")),
    Fault("sends no messages", ["rooms/subscribe", "inbox/live", "publish/echo"], drops("Message")),
    Fault(
        "loses one message in the log's order",
        ["frames/one-topic-in-order", "rooms/since-the-beginning", "inbox/live"],
        lambda frame: b"" if frame.name == "Message" and frame.stamp.position.offset == 2 else None,
    ),
    Fault("changes the sender", ["publish/message"], sets("Message", sender="somebody")),
    Fault("loses the trace", ["publish/message"], loses("Message", "trace")),
    Fault("does not mark copies", ["publish/copy"], loses("Message", "sent_to")),
    Fault(
        "sends no copies", ["publish/copy"], lambda frame: b"" if frame.name == "Message" and frame.sent_to else None
    ),
    Fault(
        "has no duplicates",
        ["publish/duplicate", "publish/duplicate-ephemeral", "publish/looked-for-before-refused"],
        sets("Published", duplicate=False),
    ),
    Fault("calls ephemeral what is in the log", ["publish/published"], sets("Published", durability=0)),
    Fault(
        "counts sessions wrong",
        ["presence/members", "presence/empty-room"],
        sets("PresenceResult", count=lambda frame: frame.count + 1),
    ),
    Fault("lists no members", ["presence/members", "connect/device-default"], loses("PresenceResult", "members")),
    Fault("never has more", ["history/page-back", "history/newest"], sets("HistoryResult", more=False)),
    Fault("always has more", ["history/before", "history/limit-0"], sets("HistoryResult", more=True)),
    Fault(
        "lists the newest first",
        ["history/newest", "history/since"],
        sets("HistoryResult", messages=lambda frame: frame.messages[::-1]),
    ),
    Fault(
        "recovers any history",
        ["history/before-of-another-epoch", "history/since-left-the-log"],
        sets("HistoryResult", recovered=True),
    ),
    Fault("announces nobody", ["rooms/joined-and-left", "rooms/joined-by-own-device"], drops("Joined")),
    Fault("announces nobody's leaving", ["rooms/joined-and-left", "rooms/left-by-disconnect"], drops("Left")),
    Fault("does not say what was taken away", ["refresh/rooms-taken-away"], drops("Unsubscribed", request=0)),
    Fault("refreshes to no end", ["refresh/refreshed"], sets("Refreshed", expires_in_ms=0)),
    Fault("sends no Pong", ["heartbeats/pong", "frames/header"], lambda frame: b"" if frame.name == "Pong" else None),
    Fault("sends no Ping", ["heartbeats/gateway-asks"], lambda frame: b"" if frame.name == "Ping" else None),
    Fault("sets a flag in headers", ["connect/connected", "frames/header"], bad_header),
]


def missed(node, deadline, said):
    """Tries each fault; returns the cases that did not notice."""
    cases = {case.name: case for case in harness.load()}
    lenient = []
    for fault in FAULTS:
        proxy = Proxy(("127.0.0.1", node.ports["tcp"]), fault.down, fault.up, fault.holds_open)
        try:
            direct = node.gateway()
            direct.look()
            gateway = node.gateway()
            gateway.address, gateway.deadline = ("127.0.0.1", proxy.port), deadline
            gateway.hello, gateway.namespaces = direct.hello, direct.namespaces
            results = harness.run_all([cases[name] for name in fault.cases], gateway, 8, lambda result: None)
        finally:
            proxy.close()
        wrong = [result.case.name for result in results if result.outcome != "FAILED"]
        said(fault, wrong)
        lenient += [f"{name} passes at a gateway that {fault.what}" for name in wrong]
    return lenient
