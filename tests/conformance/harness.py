"""Cases, what they are given, and how they are run."""

import base64
import concurrent.futures
import dataclasses
import fnmatch
import hashlib
import hmac
import importlib
import json
import pathlib
import re
import secrets
import ssl
import time
import traceback

import texts
import wire
import ws
from wire import Failure

HERE = pathlib.Path(__file__).resolve().parent
PAGE = HERE.parent.parent / "docs" / "protocol.md"
# In the order of the page.
SECTIONS = [
    "transport",
    "frames",
    "malformed",
    "fields",
    "states",
    "connect",
    "publish",
    "ack",
    "rooms",
    "presence",
    "history",
    "refresh",
    "heartbeats",
    "inbox",
    "closing",
    "limits",
]
# What tests/conformance/gateway.toml has as node.name: cases whose setting is not to be seen on the wire ask for it.
CONFIGURED = "conformance"


class Skip(Exception):
    """The case cannot run against this gateway; the text says why."""


@dataclasses.dataclass(frozen=True)
class Case:
    name: str
    sentence: str
    needs: tuple
    run: object
    # Takes more than a few seconds, because a pause is what is checked: it starts first.
    long: bool


CASES = []


def section(name):
    """A decorator for the cases of a section: @case(NAME, SENTENCE, needs..., long=False)."""

    def case(short, sentence, *needs, long=False):
        def register(run):
            CASES.append(Case(f"{name}/{short}", sentence, needs, run, long))
            return run

        return register

    return case


def load():
    """All cases, in order."""
    if not CASES:
        for name in SECTIONS:
            importlib.import_module(f"cases.{name}")
    return CASES


def words(text):
    return " ".join(text.split())


# ---------------------------------------------------------------- what a case may need


def namespace(name):
    """A namespace of this name, as gateway.toml has it."""

    def need(gateway):
        if name not in gateway.namespaces:
            return f"needs the namespace `{name}` of tests/conformance/gateway.toml"

    return need


def configured(setting):
    """A setting that cannot be seen on the wire."""

    def need(gateway):
        if gateway.hello.node != CONFIGURED:
            return f"needs `{setting}` of tests/conformance/gateway.toml (node.name says that it is there)"

    return need


def tls_only(gateway):
    if gateway.context is None:
        return "needs a TLS listener"


def small_rates(gateway):
    hello = gateway.hello
    if not 0 < hello.frames_burst <= 20_000 or not 0 < hello.bytes_burst <= 64 << 20 or hello.frames_rate > 2_000:
        return "needs rates that can be passed: client.messages_rate, messages_burst, bytes_rate and bytes_burst"


# ---------------------------------------------------------------- the gateway


class Gateway:
    """Where it is, and how tokens for it are made."""

    def __init__(self, host, port, key, key_id=None, context=None, server_name=None, deadline=10.0, path=None, json=False):
        self.address, self.key, self.key_id = (host, port), key, key_id
        self.context, self.server_name, self.deadline = context, server_name or host, deadline
        # Of a listener for WebSocket.
        self.path = path
        self.socket_of_path = texts.Socket if json else ws.Socket
        self.hello = None
        self.namespaces = frozenset()

    def look(self):
        """Signs in once, to see what the gateway announces and which namespaces it has."""
        run = Run(self)
        try:
            client = run.sign_in()
            self.hello = client.hello
            found = set()
            for name in (
                "chat",
                "nolog",
                "few",
                "joins",
                "noecho",
                "nopresence",
                "members",
                "readonly",
                "open",
                "vanish",
            ):
                frame = client.ask("Presence", room=run.room(name), limit=0)
                if frame.name != "Error" or frame.code != 102:
                    found.add(name)
            self.namespaces = frozenset(found)
        finally:
            run.close()

    def token(self, user, **claims):
        """A token of the given key. Claims that are None are left out; `exp` is in an hour unless given."""
        body = {"sub": user, "iat": int(time.time()), "exp": int(time.time()) + 3600, **claims}
        return self.token_of({name: value for name, value in body.items() if value is not None})

    def token_of(self, body, key=None, head=None):
        head = head or {"alg": "HS256", "typ": "JWT", **({"kid": self.key_id} if self.key_id else {})}
        text = body if isinstance(body, str) else json.dumps(body)
        signed = f"{_base64(json.dumps(head).encode())}.{_base64(text.encode())}"
        digest = hmac.new(self.key if key is None else key, signed.encode(), hashlib.sha256).digest()
        return f"{signed}.{_base64(digest)}"


def _base64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Run:
    """What one case is given: clients, names that nobody else has, and a few sentences that many cases begin with."""

    def __init__(self, gateway):
        self.gateway = gateway
        self.connections = []
        self.tag = secrets.token_hex(5)
        self.counter = 0

    def close(self):
        for connection in self.connections:
            connection.close()

    # Names.

    def name(self, prefix):
        self.counter += 1
        return f"{prefix}-{self.tag}-{self.counter}"

    def user(self):
        return self.name("u")

    def room(self, namespace="chat"):
        return f"{namespace}:{self.name('r')}"

    # Clients.

    def connect(self):
        """A connection on which nothing was said yet."""
        gateway = self.gateway
        connection = wire.Connection(
            gateway.address,
            gateway.context,
            gateway.server_name,
            gateway.deadline,
            gateway.path,
            gateway.socket_of_path,
        )
        self.connections.append(connection)
        return connection

    def connect_frame(self, user=None, claims=None, **values):
        """The bytes of a Connect; `values` take the place of its fields."""
        if "token" not in values:
            values["token"] = self.gateway.token(user or self.user(), **(claims or {}))
        return wire.encode("Connect", **{"request": 1, "version": 1, **values})

    def begin(self, user=None, claims=None, **values):
        """A connection on which Connect was sent."""
        connection = self.connect()
        connection.user = user = user or self.user()
        connection.device = values.get("device") or "default"
        connection.send_bytes(self.connect_frame(user, claims, **values))
        return connection

    def sign_in(self, user=None, claims=None, **values):
        """A connection on which Connected has come: `hello`."""
        connection = self.begin(user, claims, **values)
        frame = connection.take("Connected", "Goodbye")
        if frame.name == "Goodbye":
            raise Failure(f"Connect was answered with {frame}")
        connection.hello = frame
        return connection

    def refused(self, code, user=None, claims=None, seconds=None, **values):
        """A Connect that must be answered with Goodbye of this code; returns the Goodbye."""
        connection = self.begin(user, claims, **values)
        frame = connection.take("Connected", "Goodbye", "Error", seconds=seconds)
        that(
            frame.name == "Goodbye" and frame.code == code,
            f"Connect was answered with {frame} instead of Goodbye {code}",
        )
        connection.end()
        return frame

    def member(self, room, user=None, since=None, recover=None, **values):
        """A client that is in a room."""
        client = self.sign_in(user, **values)
        client.ask_for("Subscribed", "Subscribe", room=room, since=since, recover=recover)
        return client

    def device(self, user, name="default", **values):
        """Makes a device known, by a session that ends at once."""
        client = self.sign_in(user, device=name, **values)
        leave(client)
        return client.hello

    def publish(self, client, topic, payload=b"x", **values):
        return client.ask_for("Published", "Publish", topic=topic, payload=payload, **values)

    def marked(self, reader, writer, topic, seconds=None):
        """The messages of a topic that `reader` is sent up to one that `writer` publishes now, without that one."""
        mark = self.name("mark").encode()
        self.publish(writer, topic, mark)
        got = []
        while True:
            message = reader.take("Message", topic=topic, seconds=seconds)
            if message.payload == mark:
                return got
            got.append(message)


def leave(client):
    """Disconnect, and wait until the gateway has closed the connection: the session is over then."""
    client.send("Disconnect")
    while (frame := client.next()) is not None:
        # What was under way may still come.
        that(frame.name != "Goodbye", f"{frame} came after Disconnect")
    that(client.over is not None, "the connection did not end after Disconnect")
    client.close()


def that(condition, text):
    if not condition:
        raise Failure(text)


def equal(what, got, wanted):
    if got != wanted:
        raise Failure(f"{what} is {got!r} instead of {wanted!r}")


def within(what, got, least, most):
    if not least <= got <= most:
        raise Failure(f"{what} is {got!r}, not from {least!r} to {most!r}")


def payloads(messages):
    return [message.payload for message in messages]


def offsets(messages):
    return [message.stamp.position.offset for message in messages]


def position(epoch, offset):
    return {"epoch": epoch, "offset": offset}


def behind(place, by=1):
    """The position so many offsets before this one."""
    return position(place["epoch"], place["offset"] - by)


def until(what, condition, seconds=10.0):
    """Waits until a condition, which may ask the gateway, holds; returns what it returned."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise Failure(f"{what} did not become true within {seconds:g} s")
        time.sleep(0.05)


# ---------------------------------------------------------------- running


@dataclasses.dataclass
class Result:
    case: Case
    outcome: str
    text: str
    seconds: float

    def line(self):
        line = f'{self.outcome:7}  {self.case.name}  "{words(self.case.sentence)}"'
        return line + (f"\n         {self.text}" if self.text else "")


def run_case(case, gateway):
    for need in case.needs:
        reason = need(gateway)
        if reason:
            return Result(case, "skipped", reason, 0.0)
    began = time.monotonic()
    run = Run(gateway)
    try:
        case.run(run)
        outcome, text = "ok", ""
    except Skip as skip:
        outcome, text = "skipped", str(skip)
    except texts.Inexpressible as what:
        outcome, text = "no text", str(what)
    except Failure as failure:
        outcome, text = "FAILED", str(failure)
    except Exception as error:  # A case must not take the others with it, whatever a gateway makes of it.
        where = traceback.extract_tb(error.__traceback__)[-1]
        outcome, text = (
            "FAILED",
            f"{type(error).__name__}: {error} ({pathlib.Path(where.filename).name}:{where.lineno})",
        )
    finally:
        run.close()
    return Result(case, outcome, text, time.monotonic() - began)


def chosen(cases, patterns):
    """Cases whose name one of the patterns fits (shell wildcards); all without patterns."""
    return [case for case in cases if not patterns or any(fnmatch.fnmatch(case.name, pattern) for pattern in patterns)]


def run_all(cases, gateway, threads, said):
    """Runs cases side by side, and tells `said` each result in the order of `cases`."""
    results = []
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        order = sorted(range(len(cases)), key=lambda i: not cases[i].long)
        futures = {i: pool.submit(run_case, cases[i], gateway) for i in order}
        for i in range(len(cases)):
            results.append(futures[i].result())
            said(results[-1])
    return results


def tls_context(ca, insecure=False):
    context = ssl.create_default_context(cafile=ca)
    if insecure:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def drifted(cases, page):
    """Names of cases whose sentence is not on the page any more."""
    text = words(page)
    return [case.name for case in cases if words(case.sentence) not in text]


def duplicates(cases):
    names = [case.name for case in cases]
    return sorted({name for name in names if names.count(name) > 1})


def plain_name(name):
    return re.fullmatch(r"[a-z]+/[a-z0-9-]+", name) is not None
