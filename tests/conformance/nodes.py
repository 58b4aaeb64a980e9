"""Gateways as processes, for tests/conformance/run; and the cases for which a gateway must be started, or stopped."""

import os
import pathlib
import signal
import subprocess
import time

import harness
import wire
from harness import equal, that, within

ROOT = wire.ROOT
KEY = "conformance-conformance-conformance-key"
# Debug builds on a busy machine; nothing waits for it otherwise.
START_S, STOP_S = 60, 60


def binary():
    path = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug" / "ringgate"
    if not path.exists():
        raise SystemExit(f"run: {path} is missing; `cargo build` makes it")
    return path


def certificate(folder):
    """Paths of a certificate for localhost, and of its key."""
    paths = folder / "certificate.pem", folder / "key.pem"
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=DNS:localhost,IP:127.0.0.1",
            "-days",
            "2",
            "-out",
            paths[0],
            "-keyout",
            paths[1],
        ],
        check=True,
        stderr=subprocess.DEVNULL,
    )
    return paths


class Node:
    """A gateway of gateway.toml, on free ports: one listener for each transport."""

    def __init__(self, folder, pems, shards=1, memory="ordinary", change=lambda text: text):
        self.name = f"{shards} shard{'s' if shards > 1 else ''}, tls.memory {memory}"
        config, self.log = folder / "gateway.toml", folder / "gateway.log"
        text = change((harness.HERE / "gateway.toml").read_text(encoding="utf-8"))
        text += f"""
[runtime]
shards = {shards}
pin_cores = false
connections_per_shard_max = 2048

[[listeners]]
address = "127.0.0.1:0"

[[listeners]]
address = "127.0.0.1:0"
tls = true

[[listeners]]
address = "127.0.0.1:0"
protocols = ["ws"]

[[listeners]]
address = "127.0.0.1:0"
tls = true
protocols = ["ws"]

[tls]
certificate = "{pems[0]}"
key = "{pems[1]}"
memory = "{memory}"

[[token.keys]]
algorithm = "HS256"
secret = "{KEY}"
"""
        config.touch(mode=0o600)
        config.write_text(text, encoding="utf-8")
        self.ca = pems[0]
        self.process = subprocess.Popen(
            [binary(), "serve", "--config", config, "--log-level", "warn"],
            stdout=subprocess.PIPE,
            stderr=self.log.open("w"),
            text=True,
        )
        self.ports = {}
        # It says each listener's address, then that it is ready.
        for line in self.process.stdout:
            if line.startswith("ready"):
                break
            scheme, _, port = line.strip().rpartition(":")
            self.ports[scheme.partition(":")[0]] = int(port.partition("/")[0])
        if set(self.ports) != {"tcp", "tls", "ws", "wss"}:
            self.process.wait(START_S)
            raise SystemExit(f"run: the gateway did not start:\n{self.log.read_text()}")

    def gateway(self, tls=False):
        context = harness.tls_context(self.ca) if tls else None
        return harness.Gateway("127.0.0.1", self.ports["tls" if tls else "tcp"], KEY.encode(), context=context)

    def stop(self):
        """The exit code, after SIGTERM."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return None

    def end(self):
        """Whatever has happened before."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()


CASES = []


def node_case(name, sentence):
    def register(run):
        CASES.append(harness.Case("node/" + name, sentence, (), run, False))
        return run

    return register


@node_case("shutdown", "| 3001 | shutdown | the node shuts down | wait `after_ms`, reconnect |")
def shutdown(folder, pems):
    node = Node(folder, pems, shards=2)
    runs = [harness.Run(node.gateway(tls)) for tls in (False, True)]
    try:
        clients = [run.sign_in() for run in runs for _ in range(5)]
        node.process.send_signal(signal.SIGTERM)
        for client in clients:
            goodbye = client.goodbye(3001)
            that(goodbye.reconnect, "the client is not told to come back")
            within("after_ms", goodbye.after_ms, 0, 120_000)
        equal("exit code", node.process.wait(STOP_S), 0)
    finally:
        for run in runs:
            run.close()
        node.end()


@node_case("busy", "the node, the address or the accept rate is at its limit")
def busy(folder, pems):
    for setting in ("connections_max", "connections_per_address_max"):
        place = folder / setting
        place.mkdir()
        node = Node(place, pems, change=changed(setting, "client", 2))
        run = harness.Run(node.gateway())
        try:
            kept = [run.sign_in() for _ in range(2)]
            third = run.connect()
            goodbye = third.goodbye(3016)
            that(goodbye.reconnect, "the client is not told to come back")
            that(goodbye.after_ms > 0, "after_ms is 0")
            harness.leave(kept[0])
            harness.until("the place of a connection that has ended is free", lambda: answered(run))
            equal("exit code", node.stop(), 0)
        finally:
            run.close()
            node.end()


def changed(setting, table, value):
    """The configuration with one more setting in a table that it has."""
    return lambda text: text.replace(f"[{table}]\n", f"[{table}]\n{setting} = {value}\n", 1)


@node_case("long-messages", "and no more than 256 KiB unless it is one message that is longer")
def long_messages(folder, pems):
    node = Node(folder, pems, change=changed("message_size_max", "client", '"600KiB"'))
    run = harness.Run(node.gateway())
    try:
        room = run.room()
        client = run.member(room)
        payload = b"l" * (300 << 10)
        for _ in range(2):
            run.publish(client, room, payload)
        frame = client.ask_for("HistoryResult", "History", topic=room, limit=300)
        equal("offsets and more", (harness.offsets(frame.messages), frame.more), ([2], True))
        equal("bytes of the payload", len(frame.messages[0].payload), len(payload))
        # Larger messages do not make the first frame larger.
        stranger = run.connect()
        stranger.send_bytes(wire.header(36_865, 1))
        stranger.goodbye(3510)
        client.send_bytes(wire.header((600 << 10) + 4096 + 1, 3))
        client.goodbye(3510)
    finally:
        run.close()
        node.end()


@node_case(
    "storage-full", "a publish is refused when they already take more than four times the space that is free there"
)
def storage_full(folder, pems):
    log = '\n[log]\nsize_per_shard_max = "2MiB"\n'
    node = Node(folder, pems, change=lambda text: text.replace("[token]\n", log + "\n[token]\n", 1))
    run = harness.Run(node.gateway())
    try:
        room = run.room()
        client, other = run.member(room), run.member(room)
        kept = 0
        while (frame := client.ask("Publish", topic=room, payload=b"s" * 40_000)).name == "Published":
            kept += 1
            that(kept < 100, "2 MiB took 4 MB")
        equal("code and temporary", (frame.code, frame.temporary), (402, True))
        that(frame.retry_after_ms > 0, "retry_after_ms is 0")
        position = client.ask_for("HistoryResult", "History", topic=room, limit=0).position
        equal("the newest offset, of what was answered with Published", position.offset, kept)
        run.publish(other, room, b"another publisher's")
    finally:
        run.close()
        node.end()


@node_case("inbox-by-token", "To an inbox: by default everybody who is signed in may write to everybody.")
def inbox_by_token(folder, pems):
    node = Node(folder, pems, change=changed("publish", "inbox", '"token"'))
    run = harness.Run(node.gateway())
    try:
        reader = run.sign_in()
        topic = "@" + reader.user
        for rooms in (None, [], ["*"], ["chat:*"]):
            run.sign_in(claims={"rooms": rooms}).refused(103, "Publish", topic=topic, payload=b"x")
        for rooms in ([topic], ["@*"], {"publish": [topic]}):
            run.publish(run.sign_in(claims={"rooms": rooms}), topic)
        equal("messages", len(reader.messages(topic, 3)), 3)
    finally:
        run.close()
        node.end()


def answered(run):
    client = run.begin()
    return client.take("Connected", "Goodbye").name == "Connected"


def run_node_cases(folder, pems, said):
    """Runs them one after the other; returns how many failed."""
    failed = 0
    for case in CASES:
        place = folder / case.name.replace("/", "-")
        place.mkdir()
        began, outcome, text = time.monotonic(), "ok", ""
        try:
            case.run(place, pems)
        except (wire.Failure, OSError) as error:
            outcome, text, failed = "FAILED", str(error), failed + 1
        said(harness.Result(case, outcome, text, time.monotonic() - began))
    return failed
