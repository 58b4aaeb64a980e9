"""Bytes <-> values: cutting a stream into frames, encoders of everything a client sends, decoders of what it receives.

Nothing here does I/O. FlatBuffers for Python has no verifier, so every offset, length and string of a gateway's frame is
checked here against the body's bounds before it is used; a frame that breaks them raises FrameError.
"""

from __future__ import annotations

import dataclasses
import enum
import struct
import uuid
from typing import Iterable, Iterator, NamedTuple, Optional, Tuple, Union

import flatbuffers
from flatbuffers.table import Table

from .wire import ClientMessageId as _ClientMessageId
from .wire import Connect as _Connect
from .wire import History as _History
from .wire import Position as _Position
from .wire import Presence as _Presence
from .wire import Publish as _Publish
from .wire import Refresh as _Refresh
from .wire import RoomCursor as _RoomCursor
from .wire import Subscribe as _Subscribe
from .wire import Unsubscribe as _Unsubscribe
from .wire.Connected import Connected as _Connected
from .wire.Error import Error as _Error
from .wire.Goodbye import Goodbye as _Goodbye
from .wire.HistoryResult import HistoryResult as _HistoryResult
from .wire.Joined import Joined as _Joined
from .wire.Left import Left as _Left
from .wire.Message import Message as _Message
from .wire.PresenceResult import PresenceResult as _PresenceResult
from .wire.Published import Published as _Published
from .wire.Refreshed import Refreshed as _Refreshed
from .wire.Subscribed import Subscribed as _Subscribed
from .wire.Unsubscribed import Unsubscribed as _Unsubscribed

PROTOCOL_VERSION = 1
HEADER = struct.Struct("<IBBH")
POSITION = struct.Struct("<QQ")
PUBLISHED_BYTES = _Published.SizeOf()

NAME_BYTES_MAX = 128
TOKEN_BYTES_MAX = 8192
TRACE_BYTES_MAX = 64
CLIENT_BYTES_MAX = 128
CONNECT_ROOMS_MAX = 128
# What one frame of a gateway may hold in all, counting what is shared once for each reference to it.
DECODED_BYTES_MAX = 16 * 1024 * 1024


class FrameError(ValueError):
    """Bytes that are no frame of this protocol, or a value that no frame may carry."""


class Kind(enum.IntEnum):
    """The kinds of version 1. PONG is the gateway's, CLIENT_PONG the client's."""

    CONNECT = 1
    PING = 2
    PUBLISH = 3
    ACK = 4
    SUBSCRIBE = 5
    UNSUBSCRIBE = 6
    PRESENCE = 7
    HISTORY = 8
    REFRESH = 9
    DISCONNECT = 10
    CLIENT_PONG = 11
    CONNECTED = 128
    PONG = 129
    PUBLISHED = 130
    ERROR = 131
    MESSAGE = 132
    SUBSCRIBED = 133
    UNSUBSCRIBED = 134
    PRESENCE_RESULT = 135
    HISTORY_RESULT = 136
    REFRESHED = 137
    JOINED = 138
    LEFT = 139
    GOODBYE = 140


# ---------------------------------------------------------------- values


@dataclasses.dataclass(frozen=True)
class Position:
    """A place in the log of one topic."""

    epoch: int
    offset: int

    def covers(self, other: Position) -> bool:
        """Whether a reader that is here has read `other` already."""
        return self.epoch == other.epoch and other.offset <= self.offset


class Recover(enum.IntEnum):
    """What a subscriber is brought when the room's log does not reach back to its `since`."""

    #: Live messages only.
    EXACT = 0
    #: What the log still holds, oldest first, then live messages.
    BEST = 1


class RoomCursor(NamedTuple):
    """A room of Connect: its name, the last position of it that was kept, and what to bring if that is out of reach."""

    room: str
    since: Optional[Position] = None
    recover: Recover = Recover.EXACT


@dataclasses.dataclass(frozen=True)
class Stamp:
    position: Position
    message_id: int
    timestamp_ms: int


@dataclasses.dataclass(frozen=True)
class Connected:
    """What the gateway said to Connect. Rates are per second; a rate of 0 means no limit."""

    request: int
    version: int
    session: int
    node: str
    user: str
    ping_interval_ms: int
    pong_timeout_ms: int
    message_bytes_max: int
    rooms_max: int
    requests_in_flight_max: int
    expires_at: int
    #: False when messages are missing before the first one that comes.
    inbox_recovered: bool
    inbox: Optional[Position]
    server_time_ms: int
    #: Milliseconds from this frame to the end of the session; 0 when it does not end. `expires_at` is by the gateway's clock.
    expires_in_ms: int
    dedup_window_ms: int
    frames_rate: int
    frames_burst: int
    bytes_rate: int
    bytes_burst: int
    receive_window: int


@dataclasses.dataclass(frozen=True)
class Ping:
    pass


@dataclasses.dataclass(frozen=True)
class Pong:
    pass


@dataclasses.dataclass(frozen=True)
class Published:
    client_message_id: uuid.UUID
    stamp: Stamp
    request: int
    durability: int
    duplicate: bool


@dataclasses.dataclass(frozen=True)
class Error:
    request: int
    code: int
    message: str
    temporary: bool
    retry_after_ms: int
    #: Which room was refused, by a Subscribe or in Connect; else empty.
    room: str


@dataclasses.dataclass(frozen=True)
class Message:
    topic: str
    stamp: Stamp
    sender: str
    payload: bytes
    trace: Optional[str]
    #: The inbox ("@bob") to which another device of this user has sent this message; None in all that is no such copy.
    sent_to: Optional[str] = None

    @property
    def is_copy(self) -> bool:
        """Whether another device of this user has sent this message, to the inbox `sent_to`."""
        return self.sent_to is not None

    @property
    def ephemeral(self) -> bool:
        return self.stamp.position.offset == 0


@dataclasses.dataclass(frozen=True)
class Subscribed:
    request: int
    room: str
    recovered: bool
    #: The newest position of the room.
    position: Position
    #: Everything after this that the log holds follows: the reader's position of the room until a message comes.
    start: Position


@dataclasses.dataclass(frozen=True)
class Unsubscribed:
    request: int
    room: str
    code: int


@dataclasses.dataclass(frozen=True)
class Member:
    user: str
    device: str


@dataclasses.dataclass(frozen=True)
class PresenceResult:
    request: int
    room: str
    count: int
    members: Tuple[Member, ...]


@dataclasses.dataclass(frozen=True)
class HistoryResult:
    request: int
    topic: str
    position: Optional[Position]
    messages: Tuple[Message, ...]
    more: bool
    recovered: bool


@dataclasses.dataclass(frozen=True)
class Refreshed:
    request: int
    expires_at: int
    expires_in_ms: int


@dataclasses.dataclass(frozen=True)
class Joined:
    room: str
    user: str
    device: str


@dataclasses.dataclass(frozen=True)
class Left:
    room: str
    user: str
    device: str


@dataclasses.dataclass(frozen=True)
class Goodbye:
    code: int
    reason: str
    reconnect: bool
    after_ms: int


# ---------------------------------------------------------------- stream -> frames


class Splitter:
    """Cuts a stream into frames. A header is judged as soon as its eight bytes are there."""

    def __init__(self, body_bytes_max: int):
        self.body_bytes_max = body_bytes_max
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Tuple[int, bytes]]:
        """Yields (kind, body) of every frame that is whole now."""
        self._buffer += data
        start = 0
        try:
            while len(self._buffer) - start >= HEADER.size:
                length, kind, flags, reserved = HEADER.unpack_from(self._buffer, start)
                if flags or reserved:
                    raise FrameError("flags or reserved bits are not zero")
                if length > self.body_bytes_max:
                    raise FrameError(f"a frame of {length} bytes, the limit is {self.body_bytes_max}")
                end = start + HEADER.size + length
                if end > len(self._buffer):
                    return
                body = bytes(self._buffer[start + HEADER.size : end])
                start = end
                yield kind, body
        finally:
            del self._buffer[:start]


# ---------------------------------------------------------------- bodies -> values


class _Budget:
    """What is left of DECODED_BYTES_MAX while one body is read."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = DECODED_BYTES_MAX

    def spend(self, count: int) -> None:
        self.left -= count
        if self.left < 0:
            raise FrameError("the body expands beyond every bound")


class _CheckedTable(Table):
    """What generated accessors read through, with every offset and length checked against the body."""

    __slots__ = ("budget",)

    def __init__(self, buf: bytes, pos: int, budget: _Budget):
        super().__init__(buf, pos)
        self.budget = budget
        budget.spend(16)
        vtable = pos - self._at("<i", pos)
        length = self._at("<H", vtable)
        if length < 4 or length % 2 or vtable + length > len(buf):
            raise FrameError("a vtable is out of bounds")

    def _at(self, pattern: str, pos: int) -> int:
        if pos < 0 or pos + struct.calcsize(pattern) > len(self.Bytes):
            raise FrameError("an offset is out of bounds")
        return struct.unpack_from(pattern, self.Bytes, pos)[0]

    def Get(self, flags, off):
        if off < 0 or off + flags.bytewidth > len(self.Bytes):
            raise FrameError("a field is out of bounds")
        return super().Get(flags, off)

    def Indirect(self, off):
        return off + self._at("<I", off)

    def String(self, off):
        return self._run(off)

    def VectorLen(self, off):
        off += self.Pos
        off += self._at("<I", off)
        length = self._at("<I", off)
        if length > len(self.Bytes) - off - 4:
            raise FrameError("a vector is out of bounds")
        self.budget.spend(length)
        return length

    def _run(self, off: int) -> bytes:
        """The bytes of the string or byte vector to which the offset at `off` points."""
        off += self._at("<I", off)
        length = self._at("<I", off)
        if length > len(self.Bytes) - off - 4:
            raise FrameError("a string is out of bounds")
        self.budget.spend(length)
        return bytes(self.Bytes[off + 4 : off + 4 + length])

    def byte_vector(self, slot: int) -> bytes:
        offset = self.Offset(4 + 2 * slot)
        return self._run(self.Pos + offset) if offset else b""


def _root(accessor, body: bytes):
    if len(body) < 8:
        raise FrameError("a table takes 8 bytes at least")
    return _table(accessor(), body, struct.unpack_from("<I", body)[0], _Budget())


def _table(view, body: bytes, pos: int, budget: _Budget):
    view._tab = _CheckedTable(body, pos, budget)
    return view


def _nested(view, parent):
    """A table that a vector of `parent` led to: its accessors are to check, too."""
    return _table(view, view._tab.Bytes, view._tab.Pos, parent._tab.budget)


def _text(value: Optional[bytes]) -> str:
    return "" if value is None else value.decode("utf-8")


def _position(view) -> Optional[Position]:
    if view is None:
        return None
    if view._tab.Pos + POSITION.size > len(view._tab.Bytes):
        raise FrameError("a position is out of bounds")
    return Position(view.Epoch(), view.Offset())


def _required_position(view) -> Position:
    position = _position(view)
    if position is None:
        raise FrameError("a position is missing")
    return position


def _stamp_at(body: bytes, pos: int) -> Stamp:
    epoch, offset, message_id, timestamp_ms = struct.unpack_from("<QQQQ", body, pos)
    return Stamp(Position(epoch, offset), message_id, timestamp_ms)


def _message(view) -> Message:
    stamp = view.Stamp()
    if stamp is None:
        raise FrameError("a message without stamp")
    trace, sent_to = view.Trace(), view.SentTo()
    return Message(
        topic=_text(view.Topic()),
        stamp=_stamp_at(view._tab.Bytes, stamp._tab.Pos),
        sender=_text(view.Sender()),
        payload=view._tab.byte_vector(3),
        trace=None if trace is None else _text(trace),
        sent_to=None if sent_to is None else _text(sent_to),
    )


def _decode_connected(body: bytes) -> Connected:
    view = _root(_Connected, body)
    return Connected(
        request=view.Request(),
        version=view.Version(),
        session=view.Session(),
        node=_text(view.Node()),
        user=_text(view.User()),
        ping_interval_ms=view.PingIntervalMs(),
        pong_timeout_ms=view.PongTimeoutMs(),
        message_bytes_max=view.MessageBytesMax(),
        rooms_max=view.RoomsMax(),
        requests_in_flight_max=view.RequestsInFlightMax(),
        expires_at=view.ExpiresAt(),
        inbox_recovered=bool(view.InboxRecovered()),
        inbox=_position(view.Inbox()),
        server_time_ms=view.ServerTimeMs(),
        expires_in_ms=view.ExpiresInMs(),
        dedup_window_ms=view.DedupWindowMs(),
        frames_rate=view.FramesRate(),
        frames_burst=view.FramesBurst(),
        bytes_rate=view.BytesRate(),
        bytes_burst=view.BytesBurst(),
        receive_window=view.ReceiveWindow(),
    )


def _decode_published(body: bytes) -> Published:
    if len(body) != PUBLISHED_BYTES:
        raise FrameError(f"Published has {PUBLISHED_BYTES} bytes, not {len(body)}")
    high, low = struct.unpack_from("<QQ", body, 0)
    request, durability, duplicate = struct.unpack_from("<IBB", body, 48)
    return Published(uuid.UUID(int=high << 64 | low), _stamp_at(body, 16), request, durability, duplicate != 0)


def _decode_error(body: bytes) -> Error:
    view = _root(_Error, body)
    return Error(
        view.Request(), view.Code(), _text(view.Message()), bool(view.Temporary()), view.RetryAfterMs(),
        _text(view.Room()),
    )


def _decode_message(body: bytes) -> Message:
    return _message(_root(_Message, body))


def _decode_subscribed(body: bytes) -> Subscribed:
    view = _root(_Subscribed, body)
    return Subscribed(
        view.Request(), _text(view.Room()), bool(view.Recovered()), _required_position(view.Position()),
        _required_position(view.Start()),
    )


def _decode_unsubscribed(body: bytes) -> Unsubscribed:
    view = _root(_Unsubscribed, body)
    return Unsubscribed(view.Request(), _text(view.Room()), view.Code())


def _decode_presence_result(body: bytes) -> PresenceResult:
    view = _root(_PresenceResult, body)
    members = []
    for index in range(view.MembersLength()):
        member = _nested(view.Members(index), view)
        members.append(Member(_text(member.User()), _text(member.Device())))
    return PresenceResult(view.Request(), _text(view.Room()), view.Count(), tuple(members))


def _decode_history_result(body: bytes) -> HistoryResult:
    view = _root(_HistoryResult, body)
    messages = tuple(_message(_nested(view.Messages(index), view)) for index in range(view.MessagesLength()))
    return HistoryResult(
        view.Request(), _text(view.Topic()), _position(view.Position()), messages, bool(view.More()),
        bool(view.Recovered()),
    )


def _decode_refreshed(body: bytes) -> Refreshed:
    view = _root(_Refreshed, body)
    return Refreshed(view.Request(), view.ExpiresAt(), view.ExpiresInMs())


def _decode_joined(body: bytes) -> Joined:
    view = _root(_Joined, body)
    return Joined(_text(view.Room()), _text(view.User()), _text(view.Device()))


def _decode_left(body: bytes) -> Left:
    view = _root(_Left, body)
    return Left(_text(view.Room()), _text(view.User()), _text(view.Device()))


def _decode_goodbye(body: bytes) -> Goodbye:
    view = _root(_Goodbye, body)
    return Goodbye(view.Code(), _text(view.Reason()), bool(view.Reconnect()), view.AfterMs())


def _decode_empty(value):
    def decode_empty(body: bytes):
        if body:
            raise FrameError(f"{type(value).__name__} has no body")
        return value

    return decode_empty


_DECODERS = {
    Kind.PING: _decode_empty(Ping()),
    Kind.CONNECTED: _decode_connected,
    Kind.PONG: _decode_empty(Pong()),
    Kind.PUBLISHED: _decode_published,
    Kind.ERROR: _decode_error,
    Kind.MESSAGE: _decode_message,
    Kind.SUBSCRIBED: _decode_subscribed,
    Kind.UNSUBSCRIBED: _decode_unsubscribed,
    Kind.PRESENCE_RESULT: _decode_presence_result,
    Kind.HISTORY_RESULT: _decode_history_result,
    Kind.REFRESHED: _decode_refreshed,
    Kind.JOINED: _decode_joined,
    Kind.LEFT: _decode_left,
    Kind.GOODBYE: _decode_goodbye,
}

GatewayFrame = Union[
    Ping, Connected, Pong, Published, Error, Message, Subscribed, Unsubscribed, PresenceResult, HistoryResult, Refreshed,
    Joined, Left, Goodbye,
]


def decode(kind: int, body: bytes) -> Optional[GatewayFrame]:
    """The value of a gateway's frame; None for a kind of 128 and above that version 1 does not know."""
    decoder = _DECODERS.get(kind)
    if decoder is None:
        if kind < 128:
            raise FrameError(f"kind {kind} is not sent by gateways")
        return None
    try:
        return decoder(body)
    except (struct.error, TypeError, UnicodeDecodeError) as error:
        raise FrameError(f"kind {kind}: {error}") from error


# ---------------------------------------------------------------- values -> frames


def _frame(kind: Kind, body: bytes) -> bytes:
    return HEADER.pack(len(body), kind, 0, 0) + body


# Unicode's Default_Ignorable_Code_Point, and U+2800, a blank that is no white space.
INVISIBLE = (
    (0xAD, 0xAD), (0x34F, 0x34F), (0x61C, 0x61C), (0x115F, 0x1160), (0x17B4, 0x17B5), (0x180B, 0x180F), (0x200B, 0x200F),
    (0x202A, 0x202E), (0x2060, 0x206F), (0x2800, 0x2800), (0x3164, 0x3164), (0xFE00, 0xFE0F), (0xFEFF, 0xFEFF),
    (0xFFA0, 0xFFA0), (0xFFF0, 0xFFF8), (0x1BCA0, 0x1BCA3), (0x1D173, 0x1D17A), (0xE0000, 0xE0FFF),
)  # fmt: skip


def _name(name: str) -> str:
    if not 1 <= len(name.encode("utf-8")) <= NAME_BYTES_MAX:
        raise FrameError(f"a name has 1 to {NAME_BYTES_MAX} bytes: {name!r}")
    # White space and control characters, as Unicode has them: str.isspace() adds four controls, and both are refused.
    if any(c.isspace() or c < " " or "\x7f" <= c <= "\x9f" for c in name):
        raise FrameError(f"a name has neither white space nor control characters: {name!r}")
    if all(any(first <= ord(c) <= last for first, last in INVISIBLE) for c in name):
        raise FrameError(f"a name has a character that can be seen: {name!r}")
    return name


def _client(client: str) -> str:
    if len(client.encode("utf-8")) > CLIENT_BYTES_MAX or any(c < " " or "\x7f" <= c <= "\x9f" for c in client):
        raise FrameError(f"client has at most {CLIENT_BYTES_MAX} bytes and no control characters: {client!r}")
    return client


def _topic(topic: str) -> str:
    _name(topic[1:] if topic.startswith("@") else topic)
    return topic


def checked_token(token: str) -> str:
    if not 1 <= len(token.encode("utf-8")) <= TOKEN_BYTES_MAX:
        raise FrameError(f"a token has 1 to {TOKEN_BYTES_MAX} bytes")
    return token


def _u32(value: int, what: str) -> int:
    if not isinstance(value, int) or not 0 <= value <= 0xFFFF_FFFF:
        raise FrameError(f"{what}: a whole number from 0 to 4294967295, not {value!r}")
    return value


def _add_position(builder, add, position: Optional[Position]) -> None:
    if position is not None:
        add(builder, _Position.CreatePosition(builder, position.epoch, position.offset))


def _finish(kind: Kind, builder, table: int) -> bytes:
    builder.Finish(table)
    return _frame(kind, bytes(builder.Output()))


PING = _frame(Kind.PING, b"")
CLIENT_PONG = _frame(Kind.CLIENT_PONG, b"")
DISCONNECT = _frame(Kind.DISCONNECT, b"")


def connect(
    request: int,
    token: str,
    device: str = "",
    client: str = "",
    inbox: Optional[Position] = None,
    rooms: Iterable[Union[RoomCursor, Tuple[str, Optional[Position]]]] = (),
    version: int = PROTOCOL_VERSION,
    ping_interval_ms: int = 0,
    receive_window: int = 0,
) -> bytes:
    rooms = [RoomCursor(*room) for room in rooms]
    if len(rooms) > CONNECT_ROOMS_MAX:
        raise FrameError(f"at most {CONNECT_ROOMS_MAX} rooms fit into one Connect")
    builder = flatbuffers.Builder(512)
    token_at = builder.CreateString(checked_token(token))
    device_at = builder.CreateString(_name(device)) if device else None
    client_at = builder.CreateString(_client(client)) if client else None
    cursors = []
    for room, since, recover in rooms:
        room_at = builder.CreateString(_name(room))
        _RoomCursor.Start(builder)
        _RoomCursor.AddRoom(builder, room_at)
        _add_position(builder, _RoomCursor.AddSince, since)
        _RoomCursor.AddRecover(builder, Recover(recover))
        cursors.append(_RoomCursor.End(builder))
    rooms_at = None
    if cursors:
        _Connect.StartRoomsVector(builder, len(cursors))
        for cursor in reversed(cursors):
            builder.PrependUOffsetTRelative(cursor)
        rooms_at = builder.EndVector()
    _Connect.Start(builder)
    _Connect.AddRequest(builder, _u32(request, "request"))
    _Connect.AddVersion(builder, version)
    _Connect.AddToken(builder, token_at)
    if device_at is not None:
        _Connect.AddDevice(builder, device_at)
    if client_at is not None:
        _Connect.AddClient(builder, client_at)
    _add_position(builder, _Connect.AddInbox, inbox)
    if rooms_at is not None:
        _Connect.AddRooms(builder, rooms_at)
    _Connect.AddPingIntervalMs(builder, _u32(ping_interval_ms, "ping_interval_ms"))
    _Connect.AddReceiveWindow(builder, _u32(receive_window, "receive_window"))
    return _finish(Kind.CONNECT, builder, _Connect.End(builder))


def publish(
    request: int,
    topic: str,
    payload: bytes,
    client_message_id: Optional[uuid.UUID] = None,
    ephemeral: bool = False,
    ttl_seconds: int = 0,
    trace: Optional[str] = None,
) -> bytes:
    """With `request` 0 the gateway answers nothing."""
    if trace is not None and (len(trace) > TRACE_BYTES_MAX or not all("!" <= c <= "~" for c in trace)):
        raise FrameError(f"trace has at most {TRACE_BYTES_MAX} printable ASCII characters")
    if not isinstance(payload, (bytes, bytearray, memoryview)):
        raise FrameError(f"payload: bytes, not {type(payload).__name__}")
    builder = flatbuffers.Builder(len(payload) + 256)
    trace_at = None if trace is None else builder.CreateString(trace)
    payload_at = builder.CreateByteVector(bytes(payload)) if payload else None
    topic_at = builder.CreateString(_topic(topic))
    _Publish.Start(builder)
    _Publish.AddRequest(builder, _u32(request, "request"))
    _Publish.AddTopic(builder, topic_at)
    if client_message_id is not None:
        high, low = client_message_id.int >> 64, client_message_id.int & 0xFFFF_FFFF_FFFF_FFFF
        _Publish.AddClientMessageId(builder, _ClientMessageId.CreateClientMessageId(builder, high, low))
    if payload_at is not None:
        _Publish.AddPayload(builder, payload_at)
    _Publish.AddEphemeral(builder, ephemeral)
    _Publish.AddTtlSeconds(builder, _u32(ttl_seconds, "ttl"))
    if trace_at is not None:
        _Publish.AddTrace(builder, trace_at)
    return _finish(Kind.PUBLISH, builder, _Publish.End(builder))


def ack(position: Position) -> bytes:
    return _frame(Kind.ACK, POSITION.pack(position.epoch, position.offset))


def subscribe(
    request: int, room: str, since: Optional[Position] = None, recover: Recover = Recover.EXACT
) -> bytes:
    builder = flatbuffers.Builder(256)
    room_at = builder.CreateString(_name(room))
    _Subscribe.Start(builder)
    _Subscribe.AddRequest(builder, _u32(request, "request"))
    _Subscribe.AddRoom(builder, room_at)
    _add_position(builder, _Subscribe.AddSince, since)
    _Subscribe.AddRecover(builder, Recover(recover))
    return _finish(Kind.SUBSCRIBE, builder, _Subscribe.End(builder))


def unsubscribe(request: int, room: str) -> bytes:
    builder = flatbuffers.Builder(256)
    room_at = builder.CreateString(_name(room))
    _Unsubscribe.Start(builder)
    _Unsubscribe.AddRequest(builder, _u32(request, "request"))
    _Unsubscribe.AddRoom(builder, room_at)
    return _finish(Kind.UNSUBSCRIBE, builder, _Unsubscribe.End(builder))


def presence(request: int, room: str, limit: int = 1000) -> bytes:
    builder = flatbuffers.Builder(256)
    room_at = builder.CreateString(_name(room))
    _Presence.Start(builder)
    _Presence.AddRequest(builder, _u32(request, "request"))
    _Presence.AddRoom(builder, room_at)
    _Presence.AddLimit(builder, _u32(limit, "limit"))
    return _finish(Kind.PRESENCE, builder, _Presence.End(builder))


def history(
    request: int, topic: str, since: Optional[Position] = None, limit: int = 100, before: Optional[Position] = None
) -> bytes:
    if since is not None and before is not None:
        raise FrameError("history goes on after `since` or back from `before`, not both")
    builder = flatbuffers.Builder(256)
    topic_at = builder.CreateString(_topic(topic))
    _History.Start(builder)
    _History.AddRequest(builder, _u32(request, "request"))
    _History.AddTopic(builder, topic_at)
    _add_position(builder, _History.AddSince, since)
    _History.AddLimit(builder, _u32(limit, "limit"))
    _add_position(builder, _History.AddBefore, before)
    return _finish(Kind.HISTORY, builder, _History.End(builder))


def refresh(request: int, token: str) -> bytes:
    builder = flatbuffers.Builder(256)
    token_at = builder.CreateString(checked_token(token))
    _Refresh.Start(builder)
    _Refresh.AddRequest(builder, _u32(request, "request"))
    _Refresh.AddToken(builder, token_at)
    return _finish(Kind.REFRESH, builder, _Refresh.End(builder))
