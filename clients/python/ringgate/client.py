"""A client of one gateway: signs in, keeps the connection alive, resumes after it was lost, and loses no inbox message.

Two tasks outlive connections: one opens a connection, reads it until it ends and opens the next; one hands received
frames to the callbacks, in order, and remembers how far it has come. What was handed over is what is acknowledged and what
the next connection resumes from, so frames that were received but not handed over are simply received again.
"""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import enum
import inspect
import logging
import random
import socket
import ssl
import uuid
from typing import Any, Awaitable, Callable, Deque, Dict, List, Optional, Sequence, Set, Tuple, Union
from urllib.parse import urlsplit

from . import frames
from .frames import (
    Connected, Error, FrameError, Goodbye, HistoryResult, Joined, Left, Message, Ping, Position, PresenceResult, Published,
    Recover, Refreshed, RoomCursor, Subscribed, Unsubscribed,
)

log = logging.getLogger("ringgate")

Token = Union[str, Callable[[], Union[str, Awaitable[str]]]]
PORTS = {"tcp": 7400, "tls": 7443}
# Codes of docs/protocol.md that the client acts on or gives itself.
CLOSED_HERE = 3000
EXPIRED = 3005
INVALID_TOKEN = 3500
TLS_ERROR = 3511
ALREADY_SUBSCRIBED = 105
NOT_SUBSCRIBED = 401

# The least that one address of a host gets of the time for all of them.
ADDRESS_SECONDS_MIN = 1.0
# A connection that lasted this long was a good one: the next back-off starts at its beginning.
GOOD_CONNECTION_SECONDS = 5.0
# How long close() waits for what was sent to leave, and for callbacks that do not heed their cancellation.
CLOSE_SECONDS_MAX = 1.0
# The token is refreshed when this part of the session's time is over, but no sooner than so many seconds after the last time.
REFRESH_AT = 0.8
REFRESH_SECONDS_MIN = 5.0
REFRESH_RETRY_SECONDS_MAX = 60.0
# What gateways remember of client message ids until Connected says it, and by how much a client gives up earlier: a later
# repetition could be a second message.
DEDUP_WINDOW_SECONDS = 300.0
DEDUP_MARGIN_SECONDS_MAX = 10.0
# publish_nowait() sends nothing while more than this waits to leave.
NOWAIT_BYTES_MAX = 256 * 1024
ACK_MESSAGES = 64
QUEUE_FRAMES_MAX = 1024
# Until Connected says what the gateway's frames may be like.
FIRST_BODY_BYTES_MAX = 64 * 1024
BODY_OVERHEAD_BYTES = 1024 * 1024
CONNECT_REQUEST = 1
# What OpenSSL says of bytes that are no TLS.
NOT_TLS = {
    "WRONG_VERSION_NUMBER", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE", "HTTP_REQUEST", "HTTPS_PROXY_REQUEST",
    "UNKNOWN_PROTOCOL", "BAD_RECORD_TYPE",
}  # fmt: skip
# How every alert of a TLS server begins.
TLS_ALERT = b"\x15\x03"


class RinggateError(Exception):
    """A request was refused; the connection lives on. docs/protocol.md lists the codes."""

    def __init__(self, code: int, message: str, temporary: bool, retry_after_ms: int = 0):
        super().__init__(f"{code} {message}")
        self.code = code
        self.message = message
        self.temporary = temporary
        self.retry_after_ms = retry_after_ms

    @classmethod
    def of(cls, error: Error) -> RinggateError:
        return cls(error.code, error.message, error.temporary, error.retry_after_ms)


class Closed(Exception):
    """The connection ended; with `reconnect` false the client does not come back. docs/protocol.md lists the codes."""

    def __init__(self, code: int, reason: str, reconnect: bool, after_ms: int = 0):
        super().__init__(f"{code} {reason}")
        self.code = code
        self.reason = reason
        self.reconnect = reconnect
        self.after_ms = after_ms


class _TokenRaised(Exception):
    """The token function raised, or returned what is no token."""

    def __init__(self, error: Exception):
        super().__init__(str(error))
        self.error = error


class Undecided(Exception):
    """The connection was lost for so long that repeating the publish could store it twice; nobody knows if it was stored."""


class State(enum.Enum):
    IDLE = "idle"
    CONNECTING = "connecting"
    CONNECTED = "connected"
    DISCONNECTED = "disconnected"


@dataclasses.dataclass(frozen=True)
class TokenFailed:
    """The event that the token function raised while the client has a session or had one; it is asked again later."""

    error: Exception


Event = Union[Connected, Subscribed, Unsubscribed, Joined, Left, TokenFailed]


@dataclasses.dataclass(eq=False)
class _Room:
    """A room from its Subscribe to its Unsubscribed, also across connections."""

    recover: Recover
    # The last position that was handed over; None until the room was entered.
    position: Optional[Position] = None
    # It is to be left: an Unsubscribe follows its Subscribe, or its Subscribe was given up. Not joined again.
    leaving: bool = False
    # It was left, though perhaps the answer to its Subscribe is still to come.
    left: bool = False


@dataclasses.dataclass(eq=False)
class _Request:
    """A request that waits for its answer; the frame is sent again on the next connection."""

    number: int
    frame: bytes
    # Cancelled when nobody waits for the answer any more.
    answer: asyncio.Future
    # The room of a Subscribe or Unsubscribe.
    name: str = ""
    # What a Subscribe enters.
    room: Optional[_Room] = None
    # What an Unsubscribe leaves: the room, and Subscribes that waited for their answer.
    leaves: Sequence[_Room] = ()
    # Whether it belongs to the connection: it is not sent again, and gives up nothing when it ends.
    once: bool = False
    # Whether a late repetition could be a second message.
    deduplicated: bool = False
    # When it was sent first, and the connection on which it was sent last.
    first_sent_at: Optional[float] = None
    sent_on: int = 0

    def resolve(self, value: Any) -> None:
        if self.answer.done():
            return
        if isinstance(value, BaseException):
            self.answer.set_exception(value)
        else:
            self.answer.set_result(value)


class _Connection:
    """What belongs to one connection and ends with it."""

    def __init__(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter):
        self.number = number
        self.reader = reader
        self.writer = writer
        self.splitter = frames.Splitter(FIRST_BODY_BYTES_MAX)
        self.connected: Optional[Connected] = None
        self.heard_at = self.said_at = asyncio.get_running_loop().time()
        # The reader waits for the callbacks: silence is then no sign of death.
        self.paused = False
        # The rooms of Connect and those that are subscribed to again behind it, and the positions that were given for them.
        self.in_connect: Dict[str, _Room] = {}
        self.since: Dict[str, Optional[Position]] = {}
        self.tasks: Set[asyncio.Task] = set()

    def send(self, frame: bytes) -> None:
        self.said_at = asyncio.get_running_loop().time()
        self.writer.write(frame)

    def start(self, coroutine) -> None:
        task = asyncio.ensure_future(coroutine)
        self.tasks.add(task)
        task.add_done_callback(self._stopped)

    def _stopped(self, task: asyncio.Task) -> None:
        self.tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, Closed):
            log.error("a task of the connection failed", exc_info=error)
            self.writer.transport.abort()


class Client:
    """A client; use `async with`, or `connect` and `close`.

    `token` is a JSON Web Token, or a function (plain or async) that returns a fresh one each time.
    `on_message(message)` and `on_event(event)` may be plain or async; they are called one at a time, in order. An inbox
    message is acknowledged once `on_message` has returned. If it raises, the connection is dropped and the message comes
    again after the next one is up. Events are Connected, Subscribed (after a reconnect), Unsubscribed (a room was taken
    away or could not be joined again), Joined, Left and TokenFailed. No callback is called after `close` was.
    `inbox` is the last position that the application itself has stored, if it stores one.
    `ping_interval` (seconds) and `receive_window` (inbox messages without acknowledgement) are wishes, 0 for none; what
    holds stands in `connected`.
    `connect_timeout` bounds the socket and TLS together, with all addresses of the host, `sign_in_timeout` the wait for
    Connected after that. `backoff` is the first ceiling of the random wait before an attempt, and the highest. All in seconds.
    """

    def __init__(
        self,
        url: str,
        token: Token,
        device: str = "",
        on_message: Optional[Callable[[Message], Any]] = None,
        ssl_context: Optional[ssl.SSLContext] = None,
        *,
        on_event: Optional[Callable[[Event], Any]] = None,
        client_name: str = "ringgate-py/0.1",
        inbox: Optional[Position] = None,
        ping_interval: float = 0.0,
        receive_window: int = 0,
        connect_timeout: float = 10.0,
        sign_in_timeout: float = 15.0,
        backoff: Tuple[float, float] = (0.5, 20.0),
        ack_delay: float = 0.1,
    ):
        parts = urlsplit(url)
        if parts.scheme not in PORTS or not parts.hostname or parts.path not in ("", "/"):
            raise ValueError(f"an address is tcp://host:port or tls://host:port, not {url!r}")
        self._host = parts.hostname
        self._port = parts.port or PORTS[parts.scheme]
        self._ssl: Optional[ssl.SSLContext] = None
        if parts.scheme == "tls":
            self._ssl = ssl_context or ssl.create_default_context()
        self._wishes = {"ping_interval_ms": round(ping_interval * 1000), "receive_window": receive_window}
        # Refuses what no gateway would take, before there is a connection.
        frames.connect(CONNECT_REQUEST, "t" if callable(token) else token, device, client_name, inbox, **self._wishes)
        self._token = token
        self._device = device
        self._client_name = client_name
        self._on_message = on_message
        self._on_event = on_event
        self._connect_timeout = connect_timeout
        self._sign_in_timeout = sign_in_timeout
        self._backoff = backoff
        self._ack_delay = ack_delay

        self.state = State.IDLE
        self.connected: Optional[Connected] = None
        self._inbox = inbox
        self._rooms: Dict[str, _Room] = {}
        self._requests: Dict[int, _Request] = {}
        self._last_request = CONNECT_REQUEST
        self._request_done = asyncio.Event()
        self._in_flight_max = 64
        self._dedup_window = DEDUP_WINDOW_SECONDS
        self._connection: Optional[_Connection] = None
        self._connected_at: Optional[float] = None
        self._connections = 0
        # Attempts, and those since the last good connection: the n of the back-off.
        self._attempts = 0
        self._attempt = 0
        # Frames of connections up to this number are not handed over any more.
        self._dead = 0
        self._queue: Deque[Tuple[int, Any]] = collections.deque()
        self._queue_changed = asyncio.Event()
        self._ack_timer: Optional[asyncio.TimerHandle] = None
        self._unacked = 0
        self._tasks: List[asyncio.Task] = []
        self._closing = False
        self._ready: Optional[asyncio.Future] = None
        self._end: Optional[BaseException] = None
        self._ended = asyncio.Event()

    # ------------------------------------------------------------ life

    async def connect(self) -> Connected:
        """Connects and signs in; tries again until that worked or was refused for good. Once only, and not after `close`.

        Raises Closed, ssl.SSLCertVerificationError, or what the token function raised.
        """
        if self._ready is not None or self._end is not None:
            raise RuntimeError("a client connects once: make a new one, with the inbox position of this one")
        self.state = State.CONNECTING
        self._ready = asyncio.get_running_loop().create_future()
        self._tasks = [asyncio.ensure_future(self._run()), asyncio.ensure_future(self._consume())]
        try:
            return await self._ready
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Acknowledges what was handed over, says Disconnect and ends everything, within about two seconds also when the
        gateway reads nothing. Unanswered requests raise Closed. In a callback, it is the last one that is called.
        """
        self._closing = True
        connection = self._connection
        if connection is not None and self.state is State.CONNECTED:
            self._flush_ack()
            connection.send(frames.DISCONNECT)
        self._finish(Closed(CLOSED_HERE, "closed by the client", False))
        try:
            tasks = [task for task in self._tasks if task is not asyncio.current_task()]
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks, timeout=CLOSE_SECONDS_MAX)
            if connection is not None:
                connection.writer.close()
                gone = asyncio.ensure_future(_gone(connection.writer))
                await asyncio.wait([gone], timeout=CLOSE_SECONDS_MAX)
                gone.cancel()
        finally:
            if connection is not None:
                connection.writer.transport.abort()
            self.state = State.IDLE

    async def wait_closed(self) -> None:
        """Waits for the end; raises Closed when the gateway ended it for good."""
        if self._ready is None and self._end is None:
            raise RuntimeError("connect() comes first")
        await self._ended.wait()
        if self._end is None or (isinstance(self._end, Closed) and self._end.code == CLOSED_HERE):
            return
        raise self._end

    async def __aenter__(self) -> Client:
        await self.connect()
        return self

    async def __aexit__(self, *_) -> None:
        await self.close()

    @property
    def inbox(self) -> Optional[Position]:
        """The last inbox position that was handed over: what `inbox` of a later client may be."""
        return self._inbox

    @property
    def rooms(self) -> Dict[str, Optional[Position]]:
        """The rooms that this client is in, and the last position of each that was handed over."""
        return {name: room.position for name, room in self._rooms.items() if not room.leaving}

    # ------------------------------------------------------------ requests

    async def publish(
        self,
        topic: str,
        payload: bytes,
        ephemeral: bool = False,
        ttl: int = 0,
        client_message_id: Optional[uuid.UUID] = None,
        trace: Optional[str] = None,
    ) -> Published:
        """Sends a message to "@user" or to a room. Repeated with the same id until it was answered.

        `ttl` is in seconds, 0 for the topic's own. Raises RinggateError, Closed, Undecided, or FrameError for arguments that
        no frame may carry.
        """
        id_ = client_message_id or uuid.uuid4()
        self._check_length(payload)

        def build(request: int) -> bytes:
            return frames.publish(request, topic, payload, id_, ephemeral, ttl, trace)

        return await self._ask(build, deduplicated=True)

    def publish_nowait(
        self, topic: str, payload: bytes, ephemeral: bool = False, ttl: int = 0, trace: Optional[str] = None
    ) -> bool:
        """Sends a message once and without an answer: for typing hints and others whose loss does not matter.

        False when it was not sent, because there is no connection or 256 KiB wait to leave. True does not mean that the
        gateway took it: what it refuses is not told, and nothing is repeated.
        """
        self._check_length(payload)
        frame = frames.publish(0, topic, payload, None, ephemeral, ttl, trace)
        connection = self._connection
        if connection is None or self.state is not State.CONNECTED or connection.writer.is_closing():
            return False
        if connection.writer.transport.get_write_buffer_size() > NOWAIT_BYTES_MAX:
            return False
        connection.send(frame)
        return True

    def _check_length(self, payload: bytes) -> None:
        """Refuses what the gateway would refuse: a frame that is far too long would even end the session."""
        if self.connected is not None and len(payload) > self.connected.message_bytes_max:
            limit = self.connected.message_bytes_max
            raise RinggateError(106, f"limit exceeded: a payload of {len(payload)} bytes, at most {limit} are taken", False)

    async def subscribe(
        self, room: str, since: Optional[Position] = None, recover: Recover = Recover.EXACT
    ) -> Subscribed:
        """Joins a room; after a reconnect it is joined again, from the last position that was handed over.

        When the log does not reach back to `since`, or to that position, `recovered` is false, and with `Recover.EXACT` only
        live messages follow, with `Recover.BEST` what the log still holds before them. If the call is cancelled, the room is
        left.
        """
        entered = _Room(Recover(recover))
        return await self._ask(
            lambda request: frames.subscribe(request, room, since, recover), name=room, room=entered
        )

    async def unsubscribe(self, room: str) -> Unsubscribed:
        """Leaves a room; it is left also if the call is cancelled."""
        return await self._ask(lambda request: frames.unsubscribe(request, room), name=room, leave=True)

    async def presence(self, room: str, limit: int = 1000) -> PresenceResult:
        return await self._ask(lambda request: frames.presence(request, room, limit))

    async def history(
        self, topic: str, since: Optional[Position] = None, limit: int = 100, before: Optional[Position] = None
    ) -> HistoryResult:
        """Messages after `since`, the oldest that fit; before `before`, or without either, the newest that fit. In order.

        To page back, give as `before` the position of the first message that came, while `more` is true.
        """
        return await self._ask(lambda request: frames.history(request, topic, since, limit, before))

    async def refresh(self, token: str) -> Refreshed:
        """Gives the gateway a newer token, which is also used to reconnect unless `token` is a function."""
        refreshed = await self._ask(lambda request: frames.refresh(request, token))
        if not callable(self._token):
            self._token = token
        return refreshed

    async def _ask(
        self,
        build: Callable[[int], bytes],
        *,
        name: str = "",
        room: Optional[_Room] = None,
        leave: bool = False,
        once: bool = False,
        deduplicated: bool = False,
    ) -> Any:
        while True:
            if self._end is not None:
                raise self._end
            if self._ready is None:
                raise RuntimeError("connect() comes first")
            if len(self._requests) < self._in_flight_max:
                break
            self._request_done.clear()
            await self._request_done.wait()
        request = self._new_request(build, name, room, leave)
        request.once, request.deduplicated = once, deduplicated
        self._send_request(request)
        try:
            return await request.answer
        except asyncio.CancelledError:
            self._abandon(request)
            raise

    def _new_request(
        self, build: Callable[[int], bytes], name: str = "", room: Optional[_Room] = None, leave: bool = False
    ) -> _Request:
        # 0 means "no request" and 1 is that of Connect.
        number = self._last_request % 0xFFFF_FFFF + 1
        while number <= CONNECT_REQUEST or number in self._requests:
            number = number % 0xFFFF_FFFF + 1
        request = _Request(number, build(number), asyncio.get_running_loop().create_future(), name, room)
        self._last_request = number
        if leave:
            request.leaves = self._claims(name)
            for claim in request.leaves:
                claim.leaving = True
        self._requests[number] = request
        return request

    def _send_request(self, request: _Request) -> None:
        """Sends it if there is a session; else the next one does."""
        connection = self._connection
        if connection is None or self.state is not State.CONNECTED:
            return
        if request.first_sent_at is None:
            request.first_sent_at = asyncio.get_running_loop().time()
        request.sent_on = connection.number
        connection.send(request.frame)

    def _is_sent(self, request: _Request) -> bool:
        return self._connection is not None and request.sent_on == self._connection.number

    def _answer(self, number: int, value: Any) -> Optional[_Request]:
        """Ends the request that this answers; None if there is none."""
        request = self._requests.pop(number, None)
        if request is None:
            return None
        self._request_done.set()
        if request.leaves:
            value = self._on_leave_answered(request, value)
        request.resolve(RinggateError.of(value) if isinstance(value, Error) else value)
        return request

    def _abandon(self, request: _Request) -> None:
        """Nobody waits for the answer any more."""
        room = request.room
        if request.once or (room is None and not request.leaves and not self._is_sent(request)):
            self._requests.pop(request.number, None)
            self._request_done.set()
        elif room is not None:
            self._abandon_subscribe(request, room)
        # Whatever else was sent stays in flight until its answer comes, and an Unsubscribe until it has had its effect.

    def _abandon_subscribe(self, request: _Request, room: _Room) -> None:
        if self._end is not None:
            return
        if request.number not in self._requests:
            # The answer came in the same moment.
            if self._rooms.get(request.name) is room:
                self._leave(request.name, [room])
        elif not self._is_sent(request):
            del self._requests[request.number]
            self._request_done.set()
        else:
            room.leaving = True
            # An Unsubscribe would take the room away from another Subscribe that holds it or is about to; then this one
            # is refused, and if it is not, the room is left when the answer is there.
            if all(claim.leaving for claim in self._claims(request.name)):
                self._leave(request.name, [room])

    # ------------------------------------------------------------ rooms

    def _claims(self, name: str) -> List[_Room]:
        """The room of this name that the client is in, and those of Subscribes without answer."""
        claims = [self._rooms[name]] if name in self._rooms else []
        for request in self._requests.values():
            if request.room is not None and request.name == name and request.room not in claims:
                claims.append(request.room)
        return claims

    def _leave(self, name: str, rooms: Sequence[_Room]) -> None:
        """Sends an Unsubscribe for whose answer nobody waits."""
        request = self._new_request(lambda number: frames.unsubscribe(number, name), name)
        request.answer.cancel()
        request.leaves = rooms
        for room in rooms:
            room.leaving = True
        self._send_request(request)

    def _on_leave_answered(self, request: _Request, value: Any) -> Any:
        if isinstance(value, Error) and value.code != NOT_SUBSCRIBED:
            if request.answer.cancelled() and value.temporary and self._connection is not None:
                self._connection.start(self._leave_later(request, value.retry_after_ms / 1000))
            elif not request.answer.cancelled():
                # Still in: the caller is told, and the messages go on.
                for room in request.leaves:
                    room.leaving = False
            return value
        was_in = self._forget_rooms(request)
        return Unsubscribed(request.number, request.name, 0) if was_in else value

    def _forget_rooms(self, request: _Request) -> bool:
        """The rooms of this Unsubscribe were left. Whether the client was in one."""
        was_in = False
        for room in request.leaves:
            room.left = True
            if self._rooms.get(request.name) is room:
                del self._rooms[request.name]
                was_in = True
        return was_in

    async def _leave_later(self, request: _Request, seconds: float) -> None:
        await asyncio.sleep(max(seconds, random.uniform(0.1, 1.0)))
        rooms = [room for room in request.leaves if not room.left]
        if rooms and not any(claim not in rooms for claim in self._claims(request.name)):
            self._leave(request.name, rooms)

    def _on_subscribed(self, connection: _Connection, subscribed: Subscribed) -> None:
        name = subscribed.room
        if subscribed.request == CONNECT_REQUEST:
            room = connection.in_connect.get(name)
        else:
            request = self._answer(subscribed.request, subscribed)
            room = None if request is None else request.room
        if room is None:
            return
        if self._rooms.get(name) is room:
            # Joined again. The event changes the position, behind the messages of the connection before.
            if not room.leaving:
                self._enqueue((subscribed, room, connection.since.get(name)))
        elif room.leaving and not any(room in request.leaves for request in self._requests.values()) and not room.left:
            # Given up while another Subscribe of the room waited, which was refused.
            self._leave(name, [room])
        elif not (room.left or subscribed.request == CONNECT_REQUEST or (room.leaving and name in self._rooms)):
            # Entered here, before any of its messages is handed over. If an Unsubscribe is under way, until its answer.
            room.position = subscribed.start
            self._rooms[name] = room

    def _on_rejoin_refused(self, connection: _Connection, error: Error) -> None:
        """A room of Connect was refused."""
        room = connection.in_connect.get(error.room)
        if room is None:
            log.warning("the gateway refused a room of Connect without saying which: %d %s", error.code, error.message)
        elif not error.temporary and error.code != ALREADY_SUBSCRIBED:
            self._lose_room(error.room, room, error.code)
        else:
            connection.start(self._rejoin(connection, error.room, room, RinggateError.of(error)))

    async def _rejoin(
        self, connection: _Connection, name: str, room: _Room, error: Optional[RinggateError] = None
    ) -> None:
        """Subscribes again, until that worked or was refused for good."""
        ceiling = self._backoff[0]
        while True:
            if error is not None:
                if error.code == ALREADY_SUBSCRIBED:
                    return
                if not error.temporary:
                    return self._lose_room(name, room, error.code)
                await asyncio.sleep(max(error.retry_after_ms / 1000, random.uniform(0, ceiling)))
                ceiling = min(ceiling * 2, self._backoff[1])
            if self._rooms.get(name) is not room or room.leaving:
                return
            since = connection.since[name] = room.position
            try:
                await self._ask(
                    lambda request: frames.subscribe(request, name, since, room.recover), name=name, room=room, once=True
                )
                return
            except RinggateError as refused:
                error = refused

    def _lose_room(self, name: str, room: Optional[_Room], code: int) -> None:
        """The gateway took the room away, or does not let the client in again."""
        if room is None or self._rooms.get(name) is not room:
            return
        del self._rooms[name]
        room.left = True
        if not room.leaving:
            self._enqueue(Unsubscribed(0, name, code))

    # ------------------------------------------------------------ connections

    async def _run(self) -> None:
        # Looked at after each step: before Python 3.12, wait_for may swallow the cancellation that close() sends.
        while self._end is None:
            self._connected_at = None
            goodbye: Optional[Closed] = None
            try:
                self.state = State.CONNECTING
                self._attempts += 1
                self._attempt += 1
                await self._connection_life()
                log.info("the connection was lost")
            except Closed as closed:
                log.info("the gateway closed the connection: %s", closed)
                if not closed.reconnect or (closed.code == EXPIRED and not callable(self._token)):
                    return self._finish(closed)
                goodbye = closed
            except _TokenRaised as raised:
                if self._ready is not None and not self._ready.done():
                    return self._finish(raised.error)
                self._report_token_failure(raised.error)
            except ssl.SSLCertVerificationError as error:
                return self._finish(error)
            except (OSError, EOFError, asyncio.TimeoutError, FrameError) as error:
                log.info("the connection failed: %s", error or type(error).__name__)
            except asyncio.CancelledError:
                raise
            except Exception as error:  # A fault in here.
                log.exception("the client ends")
                return self._finish(error)
            self.state = State.DISCONNECTED
            if self._end is None:
                await asyncio.sleep(self._wait_before_attempt(goodbye))

    def _wait_before_attempt(self, goodbye: Optional[Closed]) -> float:
        """Seconds, as docs/protocol.md has them under "Reconnecting"."""
        if self._connected_at is not None:
            if asyncio.get_running_loop().time() - self._connected_at >= GOOD_CONNECTION_SECONDS:
                self._attempt = 0
        if goodbye is not None and self._attempt == 0:
            # The gateway's wait is jittered already.
            return goodbye.after_ms / 1000
        first, longest = self._backoff
        wait = random.uniform(0, min(longest, first * 2 ** min(self._attempt, 30)))
        return wait if goodbye is None else max(wait, goodbye.after_ms / 1000)

    async def _connection_life(self) -> None:
        """Opens a connection and reads it to its end."""
        # Asked first: the gateway waits 10 s for Connect, and the token function may take its time.
        token = await self._current_token()
        reader, writer = await self._open()
        self._connections += 1
        connection = _Connection(self._connections, reader, writer)
        self._connection = connection
        try:
            if self._end is None:
                await self._sign_in(connection, token)
            while self._end is None:
                await self._wait_for_callbacks(connection)
                data = await reader.read(65536)
                if not data:
                    return
                self._on_bytes(connection, data)
        finally:
            self._connection = None
            self.state = State.DISCONNECTED
            self._drop_ack_timer()
            for task in connection.tasks:
                task.cancel()
            writer.close()
            # A peer that reads nothing would keep what waits to leave, and the socket.
            asyncio.get_running_loop().call_later(CLOSE_SECONDS_MAX, writer.transport.abort)

    async def _open(self) -> Tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Looks the host up and connects, including TLS, to the first of its addresses with which that works.

        Each attempt begins with another address. All of them together have `connect_timeout`, and each a second at least.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._connect_timeout
        lookup = loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        found = await asyncio.wait_for(lookup, self._connect_timeout)
        addresses = list(dict.fromkeys((family, address) for family, _, _, _, address in found))
        first = (self._attempts - 1) % max(len(addresses), 1)
        failures: List[Exception] = []
        for tried, (family, address) in enumerate(addresses[first:] + addresses[:first]):
            share = max(deadline - loop.time(), 0.0) / (len(addresses) - tried)
            try:
                opening = self._open_address(family, address)
                return await asyncio.wait_for(opening, max(share, min(ADDRESS_SECONDS_MIN, self._connect_timeout)))
            except (OSError, asyncio.TimeoutError) as error:
                log.debug("%s: %s", address, error or type(error).__name__)
                failures.append(error)
        for error in failures:
            if isinstance(error, ssl.SSLCertVerificationError):
                raise error
            if isinstance(error, ssl.SSLError) and error.reason in NOT_TLS:
                self._refuse_port(f"{self._host}:{self._port} does not speak TLS: is it a port for tcp://?")
        if len(failures) == 1:
            raise failures[0]
        raise OSError(f"no address of {self._host} can be reached: " + "; ".join(str(e) or "timeout" for e in failures))

    async def _open_address(self, family: int, address: Any) -> Tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        open_socket = socket.socket(family, socket.SOCK_STREAM)
        try:
            open_socket.setblocking(False)
            await asyncio.get_running_loop().sock_connect(open_socket, address)
        except BaseException:
            open_socket.close()
            raise
        # From here on the transport closes it, also if the handshake fails or is given up.
        name = None if self._ssl is None else self._host
        return await asyncio.open_connection(sock=open_socket, ssl=self._ssl, server_hostname=name)

    def _refuse_port(self, sentence: str) -> None:
        """What the address says is not what the port speaks: the end, unless a session has been there before."""
        if self._ready is not None and self._ready.done():
            raise OSError(sentence)
        raise Closed(TLS_ERROR, sentence, False)

    async def _sign_in(self, connection: _Connection, token: str) -> None:
        for name, room in list(self._rooms.items()):
            if room.leaving:
                # The subscription ended with its connection.
                room.left = True
                del self._rooms[name]
        rooms = list(self._rooms.items())
        connection.in_connect = dict(rooms[: frames.CONNECT_ROOMS_MAX])
        connection.since = {name: room.position for name, room in rooms}
        cursors = [RoomCursor(name, room.position, room.recover) for name, room in connection.in_connect.items()]
        frame = frames.connect(
            CONNECT_REQUEST, token, self._device, self._client_name, self._inbox, cursors, **self._wishes
        )
        connection.send(frame)

        async def until_connected() -> None:
            first = True
            while connection.connected is None:
                data = await connection.reader.read(65536)
                if not data:
                    raise EOFError("the gateway closed the connection during sign-in")
                if first and self._ssl is None and data.startswith(TLS_ALERT):
                    self._refuse_port(f"{self._host}:{self._port} speaks TLS: is it a port for tls://?")
                first = False
                self._on_bytes(connection, data)

        await asyncio.wait_for(until_connected(), self._sign_in_timeout)
        for name, room in rooms[frames.CONNECT_ROOMS_MAX :]:
            connection.start(self._rejoin(connection, name, room))

    async def _current_token(self) -> str:
        """A token that a frame may carry. Raises _TokenRaised for the function's faults."""
        if not callable(self._token):
            return self._token
        try:
            token = self._token()
            return _checked_token(await token if inspect.isawaitable(token) else token)
        except Exception as error:
            raise _TokenRaised(error) from error

    def _report_token_failure(self, error: Exception) -> None:
        log.error("the token function raised; it is asked again later", exc_info=error)
        self._enqueue(TokenFailed(error))

    def _on_bytes(self, connection: _Connection, data: bytes) -> None:
        connection.heard_at = asyncio.get_running_loop().time()
        for kind, body in connection.splitter.feed(data):
            value = frames.decode(kind, body)
            if connection.connected is None and not isinstance(value, (Connected, Goodbye)):
                raise FrameError(f"kind {kind} before Connected")
            self._on_frame(connection, value)

    async def _wait_for_callbacks(self, connection: _Connection) -> None:
        """Reads no further while too much waits for the callbacks."""
        while len(self._queue) >= QUEUE_FRAMES_MAX:
            connection.paused = True
            self._queue_changed.clear()
            await self._queue_changed.wait()
        if connection.paused:
            connection.paused = False
            connection.heard_at = asyncio.get_running_loop().time()

    def _on_frame(self, connection: _Connection, value: Optional[frames.GatewayFrame]) -> None:
        if isinstance(value, Message):
            self._enqueue(value)
        elif isinstance(value, Ping):
            connection.send(frames.CLIENT_PONG)
        elif isinstance(value, Goodbye):
            raise Closed(value.code, value.reason, value.reconnect, value.after_ms)
        elif isinstance(value, Connected):
            if connection.connected is not None:
                raise FrameError("a second Connected")
            self._on_connected(connection, value)
        elif isinstance(value, Subscribed):
            self._on_subscribed(connection, value)
        elif isinstance(value, Error) and value.request == CONNECT_REQUEST:
            self._on_rejoin_refused(connection, value)
        elif isinstance(value, Unsubscribed) and value.code:
            self._lose_room(value.room, self._rooms.get(value.room), value.code)
        elif isinstance(value, (Published, Error, Unsubscribed, PresenceResult, HistoryResult, Refreshed)):
            if self._answer(value.request, value) is None and isinstance(value, Error):
                log.warning("the gateway complains: %d %s", value.code, value.message)
        elif isinstance(value, (Joined, Left)):
            self._enqueue(value)
        # Pong has done its work by being heard; kinds of newer gateways are ignored.

    def _on_connected(self, connection: _Connection, connected: Connected) -> None:
        connection.connected = self.connected = connected
        self._connected_at = asyncio.get_running_loop().time()
        connection.splitter.body_bytes_max = connected.message_bytes_max + BODY_OVERHEAD_BYTES
        self._in_flight_max = max(1, connected.requests_in_flight_max)
        self._dedup_window = connected.dedup_window_ms / 1000 or DEDUP_WINDOW_SECONDS
        self.state = State.CONNECTED
        self._enqueue(connected)
        for request in list(self._requests.values()):
            self._send_again(connection, request)
        connection.start(self._keep_alive(connection, connected))
        if connected.expires_in_ms and callable(self._token):
            connection.start(self._keep_token(connected.expires_in_ms))
        if self._ready is not None and not self._ready.done():
            self._ready.set_result(connected)

    def _send_again(self, connection: _Connection, request: _Request) -> None:
        """What becomes of a request that was not answered before this connection; they come in their order."""
        if request.leaves or request.once or request.answer.done():
            if request.leaves and request.name in connection.in_connect:
                # Left after Connect had named it.
                return self._send_request(request)
            self._forget_rooms(request)
            request.resolve(Unsubscribed(0, request.name, 0))
        elif request.room is not None and (request.room.leaving or request.room.left):
            request.resolve(RinggateError(NOT_SUBSCRIBED, "the room was left before it was entered", False))
        elif request.deduplicated and self._is_too_late(request):
            request.resolve(Undecided("no answer came in time"))
        else:
            return self._send_request(request)
        del self._requests[request.number]
        self._request_done.set()

    def _is_too_late(self, request: _Request) -> bool:
        if request.first_sent_at is None:
            return False
        window = self._dedup_window
        window -= min(DEDUP_MARGIN_SECONDS_MAX, window * 0.1)
        return asyncio.get_running_loop().time() - request.first_sent_at > window

    async def _keep_alive(self, connection: _Connection, connected: Connected) -> None:
        interval = max(connected.ping_interval_ms, 10) / 1000
        timeout = max(connected.pong_timeout_ms, 10) / 1000
        loop = asyncio.get_running_loop()
        while True:
            wait = min(connection.said_at, connection.heard_at) + interval - loop.time()
            if wait > 0:
                await asyncio.sleep(wait)
                continue
            asked_at = loop.time()
            connection.send(frames.PING)
            await asyncio.sleep(timeout)
            if connection.heard_at < asked_at and not connection.paused:
                log.info("no sign of life for %.1f s", timeout)
                connection.writer.transport.abort()
                return
            # Whatever came, the next Ping is an interval away.
            connection.heard_at = max(connection.heard_at, asked_at)

    async def _keep_token(self, lifetime_ms: int) -> None:
        """Refreshes by the lifetime that the gateway states, on a clock that does not step."""
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + lifetime_ms / 1000
        wait = max(lifetime_ms / 1000 * REFRESH_AT, REFRESH_SECONDS_MIN)
        failures = 0
        while True:
            await asyncio.sleep(wait)
            retry_after = 0.0
            try:
                refreshed = await self.refresh(await self._current_token())
                if not refreshed.expires_in_ms:
                    return
                lifetime = refreshed.expires_in_ms / 1000
                if loop.time() + lifetime > ends_at + 1.0:
                    ends_at = loop.time() + lifetime
                    wait = max(lifetime * REFRESH_AT, REFRESH_SECONDS_MIN)
                    failures = 0
                    continue
                log.warning("the token function returned a token that ends no later than the one before")
            except RinggateError as error:
                log.warning("the gateway refused the new token: %s", error)
                retry_after = error.retry_after_ms / 1000
            except _TokenRaised as raised:
                self._report_token_failure(raised.error)
            wait = max(retry_after, min(REFRESH_SECONDS_MIN * 2 ** min(failures, 30), REFRESH_RETRY_SECONDS_MAX))
            failures += 1

    def _finish(self, end: BaseException) -> None:
        """Nothing comes any more: everything that waits learns why."""
        if self._end is None:
            self._end = end
        self.state = State.DISCONNECTED
        self._drop_ack_timer()
        for request in self._requests.values():
            request.resolve(self._end)
        self._requests.clear()
        if self._ready is not None and not self._ready.done():
            self._ready.set_exception(self._end)
        self._request_done.set()
        self._ended.set()

    # ------------------------------------------------------------ received frames, in order

    def _enqueue(self, value: Any) -> None:
        number = self._connection.number if self._connection is not None else self._connections
        self._queue.append((number, value))
        self._queue_changed.set()

    async def _consume(self) -> None:
        while not self._closing:
            while not self._queue:
                self._queue_changed.clear()
                await self._queue_changed.wait()
            number, value = self._queue.popleft()
            if len(self._queue) == QUEUE_FRAMES_MAX // 2:
                self._queue_changed.set()
            if number <= self._dead:
                continue
            try:
                if isinstance(value, Message):
                    await self._take_message(value)
                else:
                    await self._take_event(value)
            except asyncio.CancelledError:
                raise
            except Exception:
                log.exception("a callback raised; the connection is dropped so that its message comes again")
                self._dead = number
                connection = self._connection
                if connection is not None and connection.number == number:
                    connection.writer.transport.abort()

    async def _take_message(self, message: Message) -> None:
        position = message.stamp.position
        in_inbox = message.topic.startswith("@")
        room = None if in_inbox else self._rooms.get(message.topic)
        if not in_inbox and room is None:
            return  # Left in the meantime.
        known = self._inbox if room is None else room.position
        if not message.ephemeral and known is not None and known.covers(position):
            if in_inbox:
                self._ack_soon()
            return
        if self._on_message is not None:
            await _call(self._on_message, message)
        if message.ephemeral:
            return
        if room is not None:
            room.position = position
        else:
            self._inbox = position
            self._ack_soon()

    async def _take_event(self, event: Any) -> None:
        if isinstance(event, Connected):
            if not event.inbox_recovered:
                self._inbox = None
        elif isinstance(event, tuple):
            event, room, since = event
            # What came after `since` on the connection before has been handed over by now, and is not to come again. If the
            # gateway has less than that, or another epoch, it counts anew.
            counts_anew = since is not None and since.covers(event.start) and not event.recovered
            if room.position is None or counts_anew or not room.position.covers(event.start):
                room.position = event.start
        if self._on_event is not None:
            await _call(self._on_event, event)

    def _ack_soon(self) -> None:
        self._unacked += 1
        if self._unacked >= ACK_MESSAGES:
            self._flush_ack()
        elif self._ack_timer is None:
            self._ack_timer = asyncio.get_running_loop().call_later(self._ack_delay, self._flush_ack)

    def _flush_ack(self) -> None:
        self._drop_ack_timer()
        # Without a connection, the next Connect says it.
        if self._unacked and self._inbox is not None and self._connection and self.state is State.CONNECTED:
            self._connection.send(frames.ack(self._inbox))
        self._unacked = 0

    def _drop_ack_timer(self) -> None:
        if self._ack_timer is not None:
            self._ack_timer.cancel()
            self._ack_timer = None


async def _call(callback: Callable[[Any], Any], value: Any) -> None:
    result = callback(value)
    if inspect.isawaitable(result):
        await result


def _checked_token(token: Any) -> str:
    if not isinstance(token, str):
        raise TypeError(f"a token is a string, not {type(token).__name__}")
    return frames.checked_token(token)


async def _gone(writer: asyncio.StreamWriter) -> None:
    try:
        await writer.wait_closed()
    except (OSError, asyncio.TimeoutError):
        pass  # It is gone either way.
