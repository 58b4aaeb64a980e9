"""A Redis and several gateways on it, and what both cost while a load passes through its phases: for `million --nodes` and `bench/run nodes`.

Nothing here needs more than Python's standard library. All sizes are bytes, all times seconds.
"""

import contextlib
import secrets
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

import rig

# As docs/redis.md advises. The file of appended commands is one of the costs that are measured.
REDIS_SETTINGS = {
    "save": "",
    "appendonly": "yes",
    "appendfsync": "everysec",
    "maxmemory-policy": "noeviction",
    "client-output-buffer-limit": "pubsub 256mb 64mb 60",
    "stream-node-max-bytes": "512",
}


class Redis:
    """A redis-server of its own, or one that is given as HOST:PORT; its figures."""

    def __init__(self, folder, given=None, cores=None):
        """`cores` are those that it may run on, if not all."""
        self.process = None
        if given:
            host, _, port = given.rpartition(":")
            if not port.isdigit():
                raise rig.Problem(f"--redis {given}: must be HOST:PORT")
            self.address = (host, int(port))
            self.ask("PING")
            return
        program = shutil.which("redis-server")
        if not program:
            raise rig.Problem("redis-server is missing: apt-get install redis-server, or give one with --redis HOST:PORT")
        self.address = ("127.0.0.1", rig.free_port())
        options = [word for name, value in REDIS_SETTINGS.items() for word in (f"--{name}", value)]
        self.process = subprocess.Popen([program, "--port", str(self.address[1]), "--bind", "127.0.0.1", "--dir", str(folder), *options],
                                        stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL, preexec_fn=rig.pinned(cores))
        deadline = time.monotonic() + 10
        while True:
            try:
                self.ask("PING")
                return
            except OSError as error:
                if time.monotonic() > deadline or self.process.poll() is not None:
                    self.stop()
                    raise rig.Problem(f"redis-server does not answer at {self}: {error}") from error
                time.sleep(0.05)

    def __str__(self):
        return "{}:{}".format(*self.address)

    def ask(self, *words):
        """The answer as text; of a list, only how long it is."""
        with socket.create_connection(self.address, timeout=30) as link, link.makefile("rb") as answers:
            link.sendall(command(*words))
            line = answers.readline()
            if line[:1] == b"$":
                return answers.read(int(line[1:])).decode()
            if line[:1] == b"-":
                raise rig.Problem(f"Redis at {self}: {line[1:].decode().strip()}")
            return line[1:].decode().strip()

    def info(self, section):
        lines = self.ask("INFO", section).splitlines()
        return dict(line.split(":", 1) for line in lines if ":" in line)

    def figures(self):
        """Everything that grows, and the memory in use: CPU seconds, bytes over the network, calls and microseconds of each command."""
        cpu, stats = self.info("cpu"), self.info("stats")
        calls, micros = {}, {}
        for name, text in self.info("commandstats").items():
            values = dict(part.split("=") for part in text.split(","))
            calls[name.removeprefix("cmdstat_")] = int(values["calls"])
            micros[name.removeprefix("cmdstat_")] = int(values["usec"])
        return {
            "redis_cpu": float(cpu["used_cpu_user"]) + float(cpu["used_cpu_sys"]),
            "redis_in": int(stats["total_net_input_bytes"]),
            "redis_out": int(stats["total_net_output_bytes"]),
            "redis_calls": calls,
            "redis_usec": micros,
            "redis_memory": int(self.info("memory")["used_memory"]),
        }

    def version(self):
        info = self.info("server")
        return f"Valkey {info['valkey_version']}" if "valkey_version" in info else f"Redis {info['redis_version']}"

    def stop(self):
        if self.process:
            self.process.terminate()
            try:
                self.process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def command(*words):
    """As it goes over the wire."""
    parts = [b"*%d\r\n" % len(words)]
    for word in words:
        word = word if isinstance(word, bytes) else str(word).encode()
        parts.append(b"$%d\r\n%s\r\n" % (len(word), word))
    return b"".join(parts)


class Nodes:
    """Several gateways, linked by a Redis; or, without one, a single gateway that keeps its logs in memory. It stands for one gateway where
    `rig.Driver` wants one."""

    scheme = "tcp"

    def __init__(self, count, connections, folder, redis=None, profile="release", shards=None, cores=None):
        self.gateways, self.redis = [], redis
        secret, prefix = secrets.token_hex(32), f"rg-{secrets.token_hex(4)}"
        for number in range(1, count + 1):
            more = ""
            if redis:
                more = (f'[node]\nnumber = {number}\n[log]\nengine = "redis"\n'
                        f'[redis]\naddress = "{redis}"\nprefix = "{prefix}"\n')
            place = Path(folder) / f"node{number}"
            place.mkdir(exist_ok=True)
            try:
                # The kernel deals connections out to shards, and load testers to nodes.
                self.gateways.append(rig.Gateway(-(-connections // count), place, shards, secret=secret, more=more, profile=profile,
                                                 cores=cores))
            except BaseException:
                self.kill()
                raise

    @property
    def url(self):
        return "tcp://" + ",".join(f"127.0.0.1:{gateway.port}" for gateway in self.gateways)

    @property
    def secret_file(self):
        return self.gateways[0].secret_file

    @property
    def pid(self):
        """Of all of them, as the load tester wants them."""
        return ",".join(str(gateway.pid) for gateway in self.gateways)

    @property
    def shards(self):
        return sum(gateway.shards for gateway in self.gateways)

    def metrics(self):
        """The sum over all gateways of each family."""
        total = {}
        for gateway in self.gateways:
            for name, value in gateway.metrics().items():
                total[name] = total.get(name, 0.0) + value
        return total

    def sessions(self):
        return int(self.metrics()["ringgate_sessions_active"])

    def cpu_seconds(self):
        return sum(rig.thread_cpu_seconds(gateway.pid) for gateway in self.gateways)

    def user_bytes(self):
        return sum(rig.user_bytes(gateway.pid) for gateway in self.gateways)

    def stop(self):
        """In order; true if all ended so."""
        for gateway in self.gateways:
            gateway.process.send_signal(signal.SIGTERM)
        return all([gateway.stop() for gateway in self.gateways])

    def kill(self):
        for gateway in self.gateways:
            if gateway.process.poll() is None:
                gateway.kill()

    def figures(self):
        """Everything that grows, of the gateways and of Redis, at one moment."""
        metrics = self.metrics()
        now = {
            "at": time.monotonic(),
            "gateway_cpu": self.cpu_seconds(),
            # Of the threads that speak with Redis, one of each gateway.
            "link_cpu": sum(rig.thread_cpu_seconds(gateway.pid, "redis") for gateway in self.gateways),
            "sessions": metrics["ringgate_sessions_active"],
            "published": metrics["ringgate_messages_received_total"],
            # Messages of other nodes that a node was told of by Redis, and those that it has stored there.
            "arrived": metrics.get("ringgate_redis_messages_arrived_total", 0.0),
            "stored": metrics.get("ringgate_redis_messages_stored_total", 0.0),
            "reads": metrics.get("ringgate_redis_reads_total", 0.0),
        }
        return now | (self.redis.figures() if self.redis else {})


class Phases:
    """Follows a load tester through its phases, by what it answers to /metrics, and takes a sample of all figures every few seconds."""

    def __init__(self, nodes, every):
        self.nodes, self.every, self.port = nodes, every, rig.free_port()
        self.samples, self.before = [], nodes.figures()

    def arguments(self):
        """For the load tester."""
        return ["--metrics-listen", f"127.0.0.1:{self.port}"]

    def follow(self, driver, connections):
        """Until the load tester ends. Returns after how many seconds everybody was there; none if they never were."""
        began, full = time.monotonic(), None
        while driver.running():
            time.sleep(self.every)
            with contextlib.suppress(OSError):
                phase = self.phase()
                now = self.nodes.figures() | {"driver_cpu": rig.thread_cpu_seconds(driver.pid)}
                if self.phase() == phase:
                    self.samples.append(now | {"phase": phase})
                if full is None and now["sessions"] >= connections:
                    full = now["at"] - began
        return full

    def phase(self):
        """Its name; empty before the first."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=30) as answer:
            _, _, name = answer.read().decode().partition('ringgate_loadtest_phase_info{phase="')
        return name.partition('"')[0]

    def of(self, phase):
        """What the figures grew by between the first and the last sample of a phase; none with fewer than two."""
        within = [sample for sample in self.samples if sample.get("phase") == phase]
        return grown(within[0], within[-1]) if len(within) > 1 else None

    def connecting(self, connections):
        """The same from the start until everybody was there."""
        full = next((sample for sample in self.samples if sample["sessions"] >= connections), None)
        return grown(self.before, full) if full else None

    def last(self):
        return self.samples[-1] if self.samples else None


def grown(before, after):
    grown = {}
    for name, value in after.items():
        old = before.get(name)
        if isinstance(value, dict):
            grown[name] = {key: value[key] - (old or {}).get(key, 0) for key in value}
        elif isinstance(value, (int, float)):
            grown[name] = value - (old or 0)
    return grown | {"seconds": after["at"] - before["at"]}


def per(phase, idle, name, count):
    """Of a figure that grows with time, what a phase has of it for each of `count` beyond what time alone takes, which `idle` shows."""
    if not phase or not count or name not in phase:
        return None
    alone = idle[name] / idle["seconds"] * phase["seconds"] if idle else 0.0
    return (phase[name] - alone) / count


def wait_for_sockets(limit, patience=300):
    """Until the kernel has torn down what an earlier run has left: at most `limit` sockets of TCP are in use."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        words = next(line for line in Path("/proc/net/sockstat").read_text().splitlines() if line.startswith("TCP:")).split()
        if int(words[words.index("inuse") + 1]) <= limit:
            return
        time.sleep(1)
