"""Frames as bytes, and one blocking connection: all that the cases know of the wire besides docs/protocol.md.

Frames of clients are built with what schemas/vectors/make.py builds the golden vectors with (the generated tables of
clients/python). Frames of gateways are read by a reader of its own, which checks every offset, length and alignment:
what a careful client would refuse is a failure here.
"""

import pathlib
import select
import socket
import ssl
import struct
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "schemas" / "vectors"))

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import make  # noqa: E402
import ws  # noqa: E402

HEADER = struct.Struct("<IBBH")
NAMES = {kind: name for name, kind in make.GATEWAY_KINDS.items()}
SCALARS = {"u8": "<B", "bool": "<B", "u16": "<H", "u32": "<I", "u64": "<Q"}
# Answers: each carries the `request` that it belongs to.
ANSWERS = {"Published", "Error", "Subscribed", "Unsubscribed", "PresenceResult", "HistoryResult", "Refreshed"}
# A length beyond this is not read at all; docs/protocol.md allows message_bytes_max + 1 MiB.
FRAME_BYTES_MAX = 64 << 20


class Failure(AssertionError):
    """The gateway did not do what the page says."""


class Unreadable(Failure):
    """A frame of the gateway cannot be read."""


class Ended(Failure):
    """The connection was over before what was waited for came."""


# ---------------------------------------------------------------- frames of gateways


class Record(dict):
    """The fields of a table or struct, also as attributes. `present` names those that were written."""

    present = frozenset()

    def __bool__(self):
        return True

    def __getattr__(self, field):
        try:
            return self[field]
        except KeyError:
            raise AttributeError(field) from None


class Frame(Record):
    """A whole frame: its fields, and its `name`, `kind` and `size` (of the body)."""

    name, kind, size = "", 0, 0

    def __str__(self):
        return f"{self.name}({', '.join(f'{field}={_short(value)}' for field, value in self.items())})"


def _short(value):
    text = repr(dict(value) if isinstance(value, dict) else value)
    return text if len(text) <= 80 else text[:77] + "..."


class _Reader:
    def __init__(self, body):
        self.body = body

    def at(self, pattern, pos):
        size = struct.calcsize(pattern)
        if pos < 0 or pos + size > len(self.body):
            raise Unreadable(f"an offset leads to {pos}, outside of a body of {len(self.body)} bytes")
        if pos % size:
            raise Unreadable(f"a value of {size} bytes stands at {pos}, which is not aligned")
        return struct.unpack_from(pattern, self.body, pos)[0]

    def pointed(self, pos):
        return pos + self.at("<I", pos)

    def run(self, pos, width=1):
        """Where the elements of a string or vector begin, and how many there are."""
        start = self.pointed(pos)
        count = self.at("<I", start)
        if start + 4 + count * width > len(self.body):
            raise Unreadable("a string or vector passes the end of the body")
        return start + 4, count

    def text(self, pos):
        start, length = self.run(pos)
        if self.at("<B", start + length) != 0:
            raise Unreadable("a string without the zero byte behind it")
        try:
            return self.body[start : start + length].decode("utf-8")
        except UnicodeDecodeError as error:
            raise Unreadable(f"a string is not UTF-8: {error}") from error

    def record(self, kind, pos):
        if kind == "Stamp":
            return Record(
                position=self.record("Position", pos),
                message_id=self.at("<Q", pos + 16),
                timestamp_ms=self.at("<Q", pos + 24),
            )
        return Record({field: self.at("<Q", pos + 8 * i) for i, field in enumerate(make.STRUCT_FIELDS[kind])})

    def table(self, name, pos, into):
        vtable = pos - self.at("<i", pos)
        length, size = self.at("<H", vtable), self.at("<H", vtable + 2)
        if length < 4 or length % 2 or vtable + length > len(self.body) or pos + size > len(self.body):
            raise Unreadable(f"{name}: a vtable or table passes the end of the body")
        present = set()
        for index, (field, kind) in enumerate(make.TABLES[name]):
            entry = vtable + 4 + 2 * index
            offset = self.at("<H", entry) if entry + 2 <= vtable + length else 0
            if offset:
                present.add(field)
            into[field] = self.value(kind, pos + offset if offset else None)
        into.present = frozenset(present)
        return into

    def value(self, kind, pos):
        if isinstance(kind, list):
            if pos is None:
                return []
            start, count = self.run(pos, 4)
            return [self.table(kind[0], self.pointed(start + 4 * i), Record()) for i in range(count)]
        if kind in SCALARS:
            value = 0 if pos is None else self.at(SCALARS[kind], pos)
            return bool(value) if kind == "bool" else value
        if kind == "string":
            return "" if pos is None else self.text(pos)
        if kind == "bytes":
            if pos is None:
                return b""
            start, count = self.run(pos)
            return bytes(self.body[start : start + count])
        return None if pos is None else self.record(kind, pos)


def decode(kind, body):
    """The Frame of a gateway's kind and body; None for a kind that version 1 does not know and clients ignore."""
    name = NAMES.get(kind)
    if name is None:
        if kind < 128:
            raise Unreadable(f"a frame of kind {kind}, which no gateway sends")
        return None
    frame = Frame()
    frame.name, frame.kind, frame.size = name, kind, len(body)
    reader = _Reader(body)
    if name in make.EMPTY:
        if body:
            raise Unreadable(f"{name} with a body of {len(body)} bytes")
    elif name == "Published":
        if len(body) != 56:
            raise Unreadable(f"Published with a body of {len(body)} bytes, not 56")
        frame["client_message_id"] = reader.record("ClientMessageId", 0)
        frame["stamp"] = reader.record("Stamp", 16)
        frame["request"], frame["durability"], duplicate = struct.unpack_from("<IBB", body, 48)
        if duplicate > 1:
            raise Unreadable(f"Published.duplicate is {duplicate}")
        frame["duplicate"] = bool(duplicate)
    else:
        if len(body) < 8:
            raise Unreadable(f"{name} with a body of {len(body)} bytes, less than 8")
        reader.table(name, reader.at("<I", 0), frame)
    return frame


# ---------------------------------------------------------------- frames of clients


def header(length, kind, flags=0, reserved=0):
    return HEADER.pack(length, kind, flags, reserved)


def encode(name, **values):
    """A whole frame of a client. A field that is None stays absent; strings may be bytes that are not UTF-8."""
    return make.frame(make.CLIENT_KINDS[name], make.body_of(name, values))


def raw(kind, body):
    return make.frame(kind, body)


# ---------------------------------------------------------------- a connection


class Connection:
    """Blocking, with a deadline for everything. The gateway's Ping is answered unless `answer_pings` is False.

    With a path it is a WebSocket: its socket is a `ws.Socket`, which carries the same bytes in messages, or a `texts.Socket`, which carries
    what they mean as JSON.
    """

    def __init__(self, address, context, server_name, deadline, path=None, socket_of_path=ws.Socket):
        self.deadline = deadline
        self.answer_pings = True
        self.aside = []
        self.hello = None
        self.user = self.device = None
        self._input = bytearray()
        self._over = None
        self._request = 100
        self.began = time.monotonic()
        self.socket = socket.create_connection(address, timeout=deadline)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if context is not None:
            try:
                self.socket = context.wrap_socket(self.socket, server_hostname=server_name)
            except (OSError, ssl.SSLError) as error:
                self.socket.close()
                raise Failure(f"the TLS handshake failed: {error}") from error
        if path is not None:
            try:
                self.socket = socket_of_path(self.socket, f"{server_name}:{address[1]}", path)
            except (OSError, ssl.SSLError, ValueError) as error:
                self.socket.close()
                raise Failure(f"no WebSocket: {error}") from error

    # Sending.

    def send(self, name, **values):
        """Sends a frame, and returns its `request`: a new one unless given."""
        if "request" not in values and name not in make.EMPTY and name != "Ack":
            values["request"] = self.new_request()
        self.send_bytes(encode(name, **values))
        return values.get("request")

    def new_request(self):
        self._request += 1
        return self._request

    def send_bytes(self, data, one_by_one=False):
        """What cannot be sent because the gateway has closed already shows when the answer is read."""
        self.socket.settimeout(self.deadline)
        try:
            if one_by_one:
                for i in range(len(data)):
                    self.socket.sendall(data[i : i + 1])
            else:
                self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError, ssl.SSLError):
            pass
        except TimeoutError:
            raise Failure(f"the gateway took nothing for {self.deadline} s") from None

    def try_send(self, data):
        """How many bytes go out at once, without waiting; 0 where the window is full."""
        self.socket.settimeout(0)
        try:
            return self.socket.send(data)
        except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
            return 0
        finally:
            self.socket.settimeout(self.deadline)

    # Receiving.

    def _fill(self, until):
        """Reads once; False at the end of the stream or when it is late."""
        if self._over is not None:
            return False
        left = until - time.monotonic()
        if left <= 0:
            return False
        self.socket.settimeout(left)
        try:
            data = self.socket.recv(1 << 18)
        except TimeoutError:
            return False
        except ValueError as error:
            raise Unreadable(str(error)) from error
        except (OSError, ssl.SSLError) as error:
            self._over = f"the connection broke: {error}"
            return False
        if not data:
            self._over = "the gateway closed the connection"
            return False
        self._input += data
        return True

    def next(self, seconds=None):
        """The next Frame, or None when the stream is over or nothing came in time; see `over`."""
        until = time.monotonic() + (self.deadline if seconds is None else seconds)
        while True:
            if len(self._input) >= HEADER.size:
                length, kind, flags, reserved = HEADER.unpack_from(self._input)
                if flags or reserved:
                    raise Unreadable(f"a header with flags {flags} and reserved {reserved}")
                if length > FRAME_BYTES_MAX:
                    raise Unreadable(f"a frame of {length} bytes")
                if len(self._input) >= HEADER.size + length:
                    body = bytes(self._input[HEADER.size : HEADER.size + length])
                    del self._input[: HEADER.size + length]
                    frame = decode(kind, body)
                    if frame is None:
                        continue
                    if frame.name == "Ping" and self.answer_pings:
                        self.send("Pong")
                        continue
                    return frame
            if not self._fill(until):
                return None

    @property
    def over(self):
        """Why the stream is over, or None."""
        return self._over

    def take(self, *names, seconds=None, **fields):
        """The next frame of one of these names with these fields; others are put aside, in order, for later."""

        def fits(frame):
            return frame.name in names and all(frame.get(field) == value for field, value in fields.items())

        for index, frame in enumerate(self.aside):
            if fits(frame):
                return self.aside.pop(index)
        until = time.monotonic() + (self.deadline if seconds is None else seconds)
        while True:
            frame = self.next(until - time.monotonic())
            if frame is None:
                wanted = " or ".join(names) + (f" with {_short(fields)}" if fields else "")
                came = "; ".join(map(str, self.aside[-4:])) or "nothing"
                kind = Ended if self._over else Failure
                raise kind(f"{wanted} did not come ({self._over or 'deadline passed'}); not taken: {came}")
            if fits(frame):
                return frame
            self.aside.append(frame)

    def answer(self, request, seconds=None):
        """The answer to a request: its result, or Error."""
        return self.take(*ANSWERS, seconds=seconds, request=request)

    def ask(self, name, **values):
        """Sends a request and returns its answer, whatever it is."""
        return self.answer(self.send(name, **values))

    def ask_for(self, wanted, name, **values):
        """The same; anything but a frame of the name `wanted` is a failure."""
        frame = self.ask(name, **values)
        if frame.name != wanted:
            raise Failure(f"{name} was answered with {frame} instead of {wanted}")
        return frame

    def refused(self, code, name, **values):
        """Sends a request that must be refused with this code; returns the Error."""
        frame = self.ask(name, **values)
        if frame.name != "Error" or frame.code != code:
            raise Failure(f"{name} was answered with {frame} instead of Error {code}")
        return frame

    def messages(self, topic, count, seconds=None):
        """The next `count` messages of a topic, without repetitions (at least once delivery has some)."""
        got, last = [], {}
        while len(got) < count:
            message = self.take("Message", seconds=seconds, topic=topic)
            position = message.stamp.position
            if position.offset:
                if position.offset <= last.get(position.epoch, 0):
                    continue
                last[position.epoch] = position.offset
            got.append(message)
        return got

    def goodbye(self, code, seconds=None):
        """Waits for Goodbye with this code and the end of the stream behind it; returns the Goodbye."""
        frame = self.take("Goodbye", seconds=seconds)
        if frame.code != code:
            raise Failure(f"{frame} instead of Goodbye {code}")
        self.end()
        if isinstance(self.socket, ws.Socket) and self.socket.close_code != code:
            raise Failure(f"the Close frame behind Goodbye {code} said {self.socket.close_code}")
        return frame

    def end(self, seconds=None):
        """Waits for the end of the stream; a frame that comes before it is a failure."""
        frame = self.next(seconds)
        if frame is not None:
            raise Failure(f"{frame} came where the connection should have ended")
        if self._over is None:
            raise Failure("the connection did not end")

    def alive(self):
        """Fails when a Ping is not answered."""
        self.send("Ping")
        self.take("Pong")

    def quiet(self, seconds):
        """Fails when a frame comes within this time."""
        frame = self.aside.pop(0) if self.aside else self.next(seconds)
        if frame is not None:
            raise Failure(f"{frame} came where nothing should")
        if self._over is not None:
            raise Failure(f"the connection ended: {self._over}")

    def close(self):
        try:
            self.socket.close()
        except OSError:
            pass


def readable(connection, seconds):
    """Whether bytes wait in the socket."""
    return bool(select.select([connection.socket], [], [], seconds)[0])
