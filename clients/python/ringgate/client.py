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
import ssl
import time
import uuid
from typing import Any, Awaitable, Callable, Deque, Dict, Optional, Set, Tuple, Union
from urllib.parse import urlsplit

from . import frames
from .frames import (
    Connected, Error, FrameError, Goodbye, HistoryResult, Joined, Left, Message, Ping, Position, PresenceResult, Published,
    Refreshed, Subscribed, Unsubscribed,
)

log = logging.getLogger("ringgate")

Token = Union[str, Callable[[], Union[str, Awaitable[str]]]]
Event = Union[Connected, Subscribed, Unsubscribed, Joined, Left]

PORTS = {"tcp": 7400, "tls": 7443}
EXPIRED = 3005
# A connection that lasted this long was a good one: the next back-off starts at its beginning.
GOOD_CONNECTION_SECONDS = 5.0
# Gateways remember client message ids for five minutes; a later repetition could be a second message.
REPEAT_SECONDS_MAX = 290.0
ACK_MESSAGES = 64
QUEUE_FRAMES_MAX = 1024
# Until Connected says what the gateway's frames may be like.
FIRST_BODY_BYTES_MAX = 64 * 1024
BODY_OVERHEAD_BYTES = 1024 * 1024
CONNECT_REQUEST = 1


class RinggateError(Exception):
    """A request was refused; the connection lives on. docs/protocol.md lists the codes."""

    def __init__(self, code: int, message: str, temporary: bool, retry_after_ms: int = 0):
        super().__init__(f"{code} {message}")
        self.code = code
        self.message = message
        self.temporary = temporary
        self.retry_after_ms = retry_after_ms


class Closed(Exception):
    """The connection ended; with `reconnect` false the client does not come back. docs/protocol.md lists the codes."""

    def __init__(self, code: int, reason: str, reconnect: bool, after_ms: int = 0):
        super().__init__(f"{code} {reason}")
        self.code = code
        self.reason = reason
        self.reconnect = reconnect
        self.after_ms = after_ms


class Undecided(Exception):
    """The connection was lost for so long that repeating the publish could store it twice; nobody knows if it was stored."""


class State(enum.Enum):
    IDLE = "idle"
    CONNECTING = "connecting"
    CONNECTED = "connected"
    DISCONNECTED = "disconnected"


@dataclasses.dataclass
class _Request:
    """A request that waits for its answer; the frame is sent again on the next connection."""

    frame: bytes
    answer: asyncio.Future
    # From where a Subscribe is to go on.
    since: Optional[Position] = None
    # What its answer is if the connection ends first, for requests that need no repetition then.
    if_lost: Any = None
    give_up_at: Optional[float] = None


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
        # Rooms of Connect whose answers have not come, by name, and how many answers are still to come.
        self.rejoining: Dict[str, Optional[Position]] = {}
        self.rejoin_answers = 0
        self.rejoin_code = 0
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
    away or could not be joined again), Joined and Left.
    `inbox` is the last position that the application itself has stored, if it stores one.
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
        connect_timeout: float = 10.0,
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
        # Refuses names that no gateway would take, before there is a connection.
        frames.connect(CONNECT_REQUEST, "t", device, client_name)
        self._token = token
        self._device = device
        self._client_name = client_name
        self._on_message = on_message
        self._on_event = on_event
        self._connect_timeout = connect_timeout
        self._backoff = backoff
        self._ack_delay = ack_delay

        self.state = State.IDLE
        self.connected: Optional[Connected] = None
        self._inbox = inbox
        self._rooms: Dict[str, Optional[Position]] = {}
        self._requests: Dict[int, _Request] = {}
        self._last_request = CONNECT_REQUEST
        self._request_done = asyncio.Event()
        self._in_flight_max = 64
        self._connection: Optional[_Connection] = None
        self._connected_at: Optional[float] = None
        self._connections = 0
        self._dead = 0
        self._queue: Deque[Tuple[int, Any]] = collections.deque()
        self._queue_changed = asyncio.Event()
        self._ack_timer: Optional[asyncio.TimerHandle] = None
        self._unacked = 0
        self._tasks: list = []
        self._ready: Optional[asyncio.Future] = None
        self._end: Optional[BaseException] = None
        self._ended = asyncio.Event()

    # ------------------------------------------------------------ life

    async def connect(self) -> Connected:
        """Connects and signs in; tries again until that worked or was refused for good."""
        if self.state is not State.IDLE:
            raise RuntimeError("connect() is called once")
        self.state = State.CONNECTING
        self._ready = asyncio.get_running_loop().create_future()
        self._tasks = [asyncio.ensure_future(self._run()), asyncio.ensure_future(self._consume())]
        try:
            return await self._ready
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Acknowledges what was handed over, says Disconnect and ends everything. Unanswered requests raise Closed."""
        connection = self._connection
        if connection is not None and self.state is State.CONNECTED:
            self._flush_ack()
            connection.send(frames.DISCONNECT)
        self._finish(Closed(3000, "closed by the client", False))
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if connection is not None:
            try:
                await asyncio.wait_for(connection.writer.wait_closed(), 1.0)
            except (OSError, asyncio.TimeoutError):
                pass  # It is gone either way.
        self.state = State.IDLE

    async def wait_closed(self) -> None:
        """Waits for the end; raises Closed when the gateway ended it for good."""
        await self._ended.wait()
        if isinstance(self._end, Closed) and self._end.code == 3000:
            return
        assert self._end is not None
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
        return dict(self._rooms)

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
        """Sends a message to "@user" or to a room. Repeated with the same id until it was answered."""
        id_ = client_message_id or uuid.uuid4()

        def build(request: int) -> bytes:
            return frames.publish(request, topic, payload, id_, ephemeral, ttl, trace)

        return await self._ask(build, give_up_after=REPEAT_SECONDS_MAX)

    async def subscribe(self, room: str, since: Optional[Position] = None) -> Subscribed:
        """Joins a room; after a reconnect it is joined again, from the last position that was handed over."""
        return await self._ask(lambda request: frames.subscribe(request, room, since), since=since)

    async def unsubscribe(self, room: str) -> Unsubscribed:
        self._rooms.pop(room, None)
        return await self._ask(lambda request: frames.unsubscribe(request, room), if_lost=Unsubscribed(0, room, 0))

    async def presence(self, room: str, limit: int = 1000) -> PresenceResult:
        return await self._ask(lambda request: frames.presence(request, room, limit))

    async def history(self, topic: str, since: Optional[Position] = None, limit: int = 100) -> HistoryResult:
        return await self._ask(lambda request: frames.history(request, topic, since, limit))

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
        since: Optional[Position] = None,
        if_lost: Any = None,
        give_up_after: Optional[float] = None,
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
        loop = asyncio.get_running_loop()
        # 0 means "no request" and 1 is that of Connect.
        self._last_request = self._last_request % 0xFFFF_FFFF + 1
        while self._last_request <= CONNECT_REQUEST or self._last_request in self._requests:
            self._last_request = self._last_request % 0xFFFF_FFFF + 1
        number = self._last_request
        give_up_at = None if give_up_after is None else loop.time() + give_up_after
        request = _Request(build(number), loop.create_future(), since, if_lost, give_up_at)
        self._requests[number] = request
        try:
            connection = self._connection
            if connection is not None and self.state is State.CONNECTED:
                connection.send(request.frame)
                try:
                    await connection.writer.drain()
                except OSError:
                    pass  # The reader notices, too; the request is repeated.
            return await request.answer
        finally:
            self._requests.pop(number, None)
            self._request_done.set()

    def _answer(self, number: int, value: Any) -> Optional[_Request]:
        request = self._requests.get(number)
        if request is None or request.answer.done():
            return None
        if isinstance(value, Error):
            error = RinggateError(value.code, value.message, value.temporary, value.retry_after_ms)
            request.answer.set_exception(error)
        else:
            request.answer.set_result(value)
        return request

    # ------------------------------------------------------------ connections

    async def _run(self) -> None:
        attempt = 0
        # Looked at after each step: before Python 3.12, wait_for may swallow the cancellation that close() sends.
        while self._end is None:
            self._connected_at = None
            wait = 0.0
            goodbye = False
            try:
                self.state = State.CONNECTING
                await self._connection_life()
                log.info("the connection was lost")
            except Closed as closed:
                log.info("the gateway closed the connection: %s", closed)
                if not closed.reconnect or (closed.code == EXPIRED and not callable(self._token)):
                    return self._finish(closed)
                goodbye, wait = True, closed.after_ms / 1000
            except ssl.SSLCertVerificationError as error:
                return self._finish(error)
            except (OSError, EOFError, asyncio.TimeoutError, FrameError) as error:
                log.info("the connection failed: %s", error or type(error).__name__)
            except asyncio.CancelledError:
                raise
            except Exception as error:  # A token function that raised, or a fault in here.
                return self._finish(error)
            self.state = State.DISCONNECTED
            lasted = 0.0 if self._connected_at is None else asyncio.get_running_loop().time() - self._connected_at
            if lasted >= GOOD_CONNECTION_SECONDS:
                attempt = 0
            # The gateway's wait is jittered already; ours is added only if it sends us away again and again.
            if not goodbye or attempt > 0:
                first, longest = self._backoff
                wait = max(wait, random.uniform(0, min(longest, first * 2 ** min(attempt, 30))))
            attempt += 1
            if self._end is None:
                await asyncio.sleep(wait)

    async def _connection_life(self) -> None:
        """Opens a connection and reads it to its end."""
        opening = asyncio.open_connection(self._host, self._port, ssl=self._ssl)
        reader, writer = await asyncio.wait_for(opening, self._connect_timeout)
        self._connections += 1
        connection = _Connection(self._connections, reader, writer)
        self._connection = connection
        try:
            if self._end is None:
                await self._sign_in(connection)
            while self._end is None:
                data = await reader.read(65536)
                if not data:
                    return
                await self._on_bytes(connection, data)
        finally:
            self._connection = None
            self.state = State.DISCONNECTED
            self._drop_ack_timer()
            for task in connection.tasks:
                task.cancel()
            writer.close()

    async def _sign_in(self, connection: _Connection) -> None:
        token = await self._current_token()
        rooms = list(self._rooms.items())
        now, later = rooms[: frames.CONNECT_ROOMS_MAX], rooms[frames.CONNECT_ROOMS_MAX :]
        connection.rejoining = dict(now)
        connection.rejoin_answers = len(now)
        try:
            frame = frames.connect(CONNECT_REQUEST, token, self._device, self._client_name, self._inbox, now)
        except FrameError as error:
            raise Closed(3500, str(error), False) from error
        connection.send(frame)

        async def until_connected() -> None:
            while connection.connected is None:
                data = await connection.reader.read(65536)
                if not data:
                    raise EOFError("the gateway closed the connection during sign-in")
                await self._on_bytes(connection, data)

        await asyncio.wait_for(until_connected(), self._connect_timeout)
        for room, since in later:
            connection.start(self._rejoin(room, since))

    async def _rejoin(self, room: str, since: Optional[Position]) -> None:
        try:
            await self.subscribe(room, since)
        except RinggateError as error:
            self._lose_room(room, error.code)

    async def _current_token(self) -> str:
        token = self._token() if callable(self._token) else self._token
        return await token if inspect.isawaitable(token) else token

    async def _on_bytes(self, connection: _Connection, data: bytes) -> None:
        connection.heard_at = asyncio.get_running_loop().time()
        for kind, body in connection.splitter.feed(data):
            value = frames.decode(kind, body)
            if connection.connected is None and not isinstance(value, (Connected, Goodbye)):
                raise FrameError(f"kind {kind} before Connected")
            self._on_frame(connection, value)
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
            self._rejoin_answered(connection, value.code)
        elif isinstance(value, Unsubscribed) and value.code:
            self._lose_room(value.room, value.code)
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
        self._in_flight_max = max(1, connected.requests_in_flight_max - frames.CONNECT_ROOMS_MAX)
        self.state = State.CONNECTED
        self._enqueue(connected)
        # Requests of the connection before, in their order.
        for request in list(self._requests.values()):
            if request.answer.done():
                continue
            if request.if_lost is not None:
                request.answer.set_result(request.if_lost)
            elif request.give_up_at is not None and asyncio.get_running_loop().time() > request.give_up_at:
                request.answer.set_exception(Undecided("no answer came in time"))
            else:
                connection.send(request.frame)
        connection.start(self._keep_alive(connection, connected))
        if connected.expires_at and callable(self._token):
            connection.start(self._keep_token(connected.expires_at))
        if self._ready is not None and not self._ready.done():
            self._ready.set_result(connected)

    def _on_subscribed(self, connection: _Connection, subscribed: Subscribed) -> None:
        if subscribed.request == CONNECT_REQUEST:
            connection.rejoining.pop(subscribed.room, None)
            self._enqueue(subscribed)
            self._rejoin_answered(connection, 0)
            return
        request = self._answer(subscribed.request, subscribed)
        if request is None:
            return
        if subscribed.room in self._rooms:
            return self._enqueue(subscribed)
        # Entered here, before any of its messages is handed over.
        self._rooms[subscribed.room] = subscribed.start

    def _rejoin_answered(self, connection: _Connection, code: int) -> None:
        """One of the answers for the rooms of Connect. An Error does not say for which: what is left over was refused."""
        connection.rejoin_answers -= 1
        connection.rejoin_code = code or connection.rejoin_code
        if connection.rejoin_answers == 0:
            for room in connection.rejoining:
                self._lose_room(room, connection.rejoin_code)
            connection.rejoining = {}

    def _lose_room(self, room: str, code: int) -> None:
        self._rooms.pop(room, None)
        self._enqueue(Unsubscribed(0, room, code))

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

    async def _keep_token(self, expires_at: int) -> None:
        while expires_at:
            await asyncio.sleep(max(1.0, (expires_at - time.time()) * 0.8))
            try:
                expires_at = (await self.refresh(await self._current_token())).expires_at
            except RinggateError as error:
                log.warning("the gateway refused the new token: %s", error)

    def _finish(self, end: BaseException) -> None:
        """Nothing comes any more: everything that waits learns why."""
        if self._end is None:
            self._end = end
        self.state = State.DISCONNECTED
        self._drop_ack_timer()
        for request in list(self._requests.values()):
            if not request.answer.done():
                request.answer.set_exception(self._end)
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
        while True:
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
        if not in_inbox and message.topic not in self._rooms:
            return  # Left in the meantime.
        known = self._inbox if in_inbox else self._rooms[message.topic]
        if not message.ephemeral and known is not None and known.covers(position):
            if in_inbox:
                self._ack_soon()
            return
        if self._on_message is not None:
            await _call(self._on_message, message)
        if message.ephemeral:
            return
        if in_inbox:
            self._inbox = position
            self._ack_soon()
        elif message.topic in self._rooms:
            self._rooms[message.topic] = position

    async def _take_event(self, event: Event) -> None:
        if isinstance(event, Connected):
            if not event.inbox_recovered:
                self._inbox = None
        elif isinstance(event, Subscribed) and not event.recovered and event.room in self._rooms:
            self._rooms[event.room] = event.position
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
