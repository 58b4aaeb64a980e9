"""What the tests share: the vectors, a reader of client frames, and a small gateway inside the process."""

import asyncio
import importlib
import importlib.util
import json
import pathlib
import struct
import sys
import types
import unittest

CLIENT = pathlib.Path(__file__).resolve().parent.parent
VECTORS = CLIENT.parent.parent / "schemas" / "vectors"
sys.path.insert(0, str(CLIENT))


def _load_make():
    spec = importlib.util.spec_from_file_location("make_vectors", VECTORS / "make.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


make = _load_make()
HEADER = struct.Struct("<IBBH")
CLIENT_NAMES = {kind: name for name, kind in make.CLIENT_KINDS.items()}


def vectors():
    return json.loads((VECTORS / "index.json").read_text(encoding="utf-8"))


def vector_bytes(entry):
    return (VECTORS / entry["file"]).read_bytes()


# ---------------------------------------------------------------- client frames -> values


def read_struct(view, kind):
    return None if view is None else {field: getattr(view, make.camel(field))() for field in make.STRUCT_FIELDS[kind]}


def read_table(table, view):
    """All fields of a table of a client, through the generated accessors."""
    values = {}
    for field, kind in make.TABLES[table]:
        accessor = getattr(view, make.camel(field), None)
        if isinstance(kind, list):
            length = getattr(view, make.camel(field) + "Length")()
            empty = getattr(view, make.camel(field) + "IsNone")()
            values[field] = None if empty else [read_table(kind[0], accessor(i)) for i in range(length)]
        elif kind == "bytes":
            slot = [name for name, _ in make.TABLES[table]].index(field)
            offset = view._tab.Offset(4 + 2 * slot)
            if offset:
                start, length = view._tab.Vector(offset), view._tab.VectorLen(offset)
                values[field] = bytes(view._tab.Bytes[start : start + length])
            else:
                values[field] = None
        elif kind == "string":
            value = accessor()
            values[field] = None if value is None else value.decode()
        elif kind in make.STRUCTS:
            values[field] = read_struct(accessor(), kind)
        else:
            values[field] = accessor()
    return values


def read_client_frame(frame):
    """(name, values) of a whole frame of a client."""
    length, kind, flags, reserved = HEADER.unpack_from(frame)
    body = frame[HEADER.size :]
    assert (length, flags, reserved) == (len(body), 0, 0), "a header that holds"
    name = CLIENT_NAMES[kind]
    if name in make.EMPTY:
        assert not body
        return name, {}
    if name == "Ack":
        epoch, offset = struct.unpack("<QQ", body)
        return name, {"epoch": epoch, "offset": offset}
    view = getattr(importlib.import_module(f"ringgate.wire.{name}"), name)
    return name, read_table(name, view.GetRootAs(body, 0))


# ---------------------------------------------------------------- bounded tests


class BoundedTest(unittest.IsolatedAsyncioTestCase):
    """Each test fails when it takes longer than this."""

    seconds = 10

    def __init__(self, name="runTest"):
        super().__init__(name)
        test = getattr(self, name)

        async def bounded(self):
            await asyncio.wait_for(test(), self.seconds)

        # Here and not in setUp: by then unittest has looked the test up already.
        setattr(self, name, types.MethodType(bounded, self))


# ---------------------------------------------------------------- a gateway


class Session:
    """One accepted connection of the fake gateway. Each test's script says what happens on it."""

    def __init__(self, reader, writer):
        self.reader = reader
        self.writer = writer

    async def read(self, *names):
        """The values of the next frame, which must have one of these names. Ping is answered on the way."""
        while True:
            header = await self.reader.readexactly(HEADER.size)
            frame = header + await self.reader.readexactly(HEADER.unpack(header)[0])
            name, values = read_client_frame(frame)
            if name == "Ping" and "Ping" not in names:
                self.send("Pong")
                continue
            if name == "Disconnect" and name not in names:
                raise EOFError("the client leaves")
            if names and name not in names:
                raise AssertionError(f"{name} came instead of {names}: {values}")
            return values if len(names) == 1 else (name, values)

    def send(self, name, **values):
        self.writer.write(make.gateway_frame(name, **values))

    async def sign_in(self, **more):
        """Reads Connect and answers it; returns what Connect said."""
        connect = await self.read("Connect")
        values = {
            "request": connect["request"], "version": 1, "session": 1, "node": "fake", "user": "alice",
            "ping_interval_ms": 30000, "pong_timeout_ms": 5000, "message_bytes_max": 65536, "rooms_max": 128,
            "requests_in_flight_max": 1024, "inbox_recovered": True, "inbox": make.position(1, 0),
            "server_time_ms": 1_760_000_000_000, "dedup_window_ms": 300_000, "frames_rate": 1000, "frames_burst": 5000,
            "bytes_rate": 4_194_304, "bytes_burst": 16_777_216, "receive_window": 1024,
        }
        self.send("Connected", **{**values, **more})
        return connect

    def message(self, offset, payload=b"", topic="@alice", epoch=1, sender="bob"):
        self.send("Message", topic=topic, stamp=make.stamp(epoch, offset, 1000 + offset, 5), sender=sender, payload=payload)

    def subscribed(self, request, room, offset, recovered=True, epoch=1, start=None):
        """`start` is an offset of the same epoch; left out, nothing is brought before live messages."""
        self.send(
            "Subscribed", request=request, room=room, recovered=recovered, position=make.position(epoch, offset),
            start=make.position(epoch, offset if start is None else start),
        )

    def published(self, publish, offset, duplicate=False, epoch=1):
        self.send(
            "Published", client_message_id=publish["client_message_id"], stamp=make.stamp(epoch, offset, 1000 + offset, 5),
            request=publish["request"], durability=1, duplicate=duplicate,
        )

    def goodbye(self, code, reconnect, after_ms=0):
        self.send("Goodbye", code=code, reason="because", reconnect=reconnect, after_ms=after_ms)

    async def until_closed(self):
        while await self.reader.read(4096):
            pass


class FakeGateway:
    """Listens on a free port; connection number n is served by scripts[n], later ones by the last."""

    def __init__(self, *scripts):
        self.scripts = scripts
        self.accepted_at = []
        self.failures = []
        self.tasks = []

    async def __aenter__(self):
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.address = self.server.sockets[0].getsockname()
        self.url = "tcp://127.0.0.1:%d" % self.address[1]
        return self

    @staticmethod
    async def never(_):
        raise AssertionError("a connection came")

    async def __aexit__(self, kind, *_):
        self.server.close()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        if self.failures and kind is not asyncio.CancelledError:
            raise self.failures[0]

    async def _serve(self, reader, writer):
        self.tasks.append(asyncio.current_task())
        number = len(self.accepted_at)
        self.accepted_at.append(asyncio.get_running_loop().time())
        try:
            await self.scripts[min(number, len(self.scripts) - 1)](Session(reader, writer))
        except (EOFError, ConnectionError, asyncio.CancelledError):
            pass
        except Exception as error:  # pylint: disable=broad-except
            self.failures.append(error)
        finally:
            writer.close()
