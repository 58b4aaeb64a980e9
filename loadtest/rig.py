"""A gateway and a load tester on this machine, and what both cost: shared by the long runs beside it.

Nothing here needs more than Python's standard library. All sizes are bytes, all times seconds.
"""

import contextlib
import json
import os
import random
import resource
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Slots of one ring's table that the gateway's shard does not need for itself stay below the descriptor limit.
TABLE_MAX = 18_000
# Kernel and user memory of both ends of one connection, measured (bench/results/connections.md), with some room.
BYTES_PER_CONNECTION = 13_500


class Problem(Exception):
    """Something that the person at the keyboard can change."""


def build(profile="release"):
    """Both programs, optimised unless another profile is asked for."""
    command = ["cargo", "build", "--profile", profile, "--locked", "--package", "ringgate", "--package", "ringgate-loadtest"]
    subprocess.run(command, cwd=ROOT, check=True)


def program(name, profile="release"):
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    # Cargo puts these two profiles into one folder.
    folder = "debug" if profile in ("dev", "test") else profile
    return str(target / folder / name)


def check_machine(connections, more=0):
    """Fails when the connections cannot fit. One connection is two sockets here: both ends are on this machine. Each takes `more` bytes
    elsewhere."""
    wanted, free = connections * (BYTES_PER_CONNECTION + more) + (1 << 30), meminfo()["MemAvailable"]
    if free < wanted:
        raise Problem(f"{connections} connections need about {gib(wanted)} for both ends, {gib(free)} are free")
    files = int(Path("/proc/sys/fs/file-max").read_text())
    if files < 2 * connections + 20_000:
        raise Problem(f"fs.file-max is {files}, at least {2 * connections + 20_000} are needed: "
                      f"sysctl -w fs.file-max={2 * connections + 100_000}")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 16_384:
        raise Problem(f"the hard limit of open files is {hard}, at least 16384 are needed: ulimit -Hn 20000")


def wanted_sysctls(connections):
    """Settings of the kernel that the connections need at least; both ends are here, so twice what a gateway needs."""
    pages = max(2 * connections, 100_000)
    return {
        # Above the middle figure the kernel throws away what was received: a client then waits for a repetition.
        "net.ipv4.tcp_mem": (pages * 3 // 4, pages, pages * 2),
        # Loopback and RPS queue packets here, and drop what finds it full.
        "net.core.netdev_max_backlog": (10_000,),
        "net.ipv4.tcp_max_syn_backlog": (4_096,),
        # Packets and sockets are made where the kernel cannot wait for memory: some has to be free, whatever files fill.
        "vm.min_free_kbytes": (min(262_144, connections),),
    }


@contextlib.contextmanager
def tuned(connections):
    """Raises what is too low while it is needed, and puts back exactly what was there."""
    before = {}
    try:
        for name, wanted in wanted_sysctls(connections).items():
            path = Path("/proc/sys", *name.split("."))
            old = path.read_text().split()
            new = [max(int(had), want) for had, want in zip(old, wanted)]
            if new == [int(had) for had in old]:
                continue
            value = " ".join(map(str, new))
            try:
                path.write_text(value)
            except OSError as error:
                raise Problem(f"{name} is {' '.join(old)}, too low for {connections} connections, and cannot be set "
                              f"({error.strerror}); as root: sysctl -w {name}='{value}'") from error
            before[path] = " ".join(old)
            print(f"{name} = {value} for this run (was {' '.join(old)})", flush=True)
        yield
    finally:
        for path, old in before.items():
            path.write_text(old)


def kernel_troubles():
    """What the kernel has dropped or repeated so far, by name."""
    counts = {}
    for file in ("/proc/net/netstat", "/proc/net/snmp"):
        lines = Path(file).read_text().splitlines()
        for names, values in zip(lines[::2], lines[1::2]):
            counts |= dict(zip(names.split()[1:], map(int, values.split()[1:])))
    kept = ("RetransSegs", "TCPRcvQDrop", "RcvPruned", "ListenDrops", "ListenOverflows", "TCPMemoryPressures", "TCPAbortOnMemory")
    troubles = {name: counts.get(name, 0) for name in kept}
    softnet = Path("/proc/net/softnet_stat").read_text().splitlines()
    return troubles | {"softnet drops": sum(int(line.split()[1], 16) for line in softnet)}


def since(before):
    """The troubles since then that there were, as text."""
    more = {name: count - before[name] for name, count in kernel_troubles().items()}
    return ", ".join(f"{name} {count}" for name, count in more.items() if count) or "none"


def shards_for(connections, cores=None):
    """Enough tables for all, with room for the kernel dealing them out unevenly; at least one per core."""
    cores = cores or len(os.sched_getaffinity(0))
    limit = min(TABLE_MAX, resource.getrlimit(resource.RLIMIT_NOFILE)[1] - 1_000)
    return max(cores, -(-connections * 106 // 100 // limit))


def gib(size):
    return f"{size / (1 << 30):.1f} GiB"


def meminfo():
    lines = Path("/proc/meminfo").read_text().splitlines()
    return {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines}


def kernel_bytes():
    """What the kernel holds for sockets, files and the rest: slab, and pages of socket buffers."""
    tcp = next(line for line in Path("/proc/net/sockstat").read_text().splitlines() if line.startswith("TCP:"))
    words = tcp.split()
    pages = int(words[words.index("mem") + 1])
    return meminfo()["Slab"] + pages * resource.getpagesize()


def user_bytes(pid):
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    return 0


def cpu_seconds(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def thread_cpu_seconds(pid, name=None):
    """Of the threads of this name that there are, or of all of them, to the nanosecond; `cpu_seconds` has steps of 10 ms."""
    spent = 0.0
    for task in Path(f"/proc/{pid}/task").iterdir():
        if name is None or (task / "comm").read_text().strip() == name:
            spent += int((task / "schedstat").read_text().split()[0]) / 1e9
    return spent


def free_port():
    """Below those that clients connect from: one of them could hold it just when a gateway is started again."""
    for port in random.sample(range(20_000, 32_000), 100):
        with socket.socket() as listener:
            try:
                listener.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue
    raise Problem("no free port from 20000 to 31999")


def metrics(admin_port):
    """Of a gateway on this machine: the sum of each family's samples by name."""
    families = {}
    with urllib.request.urlopen(f"http://127.0.0.1:{admin_port}/metrics", timeout=30) as answer:
        for line in answer.read().decode().splitlines():
            if not line.startswith("#"):
                name, value = line.rsplit(" ", 1)
                name = name.split("{")[0]
                families[name] = families.get(name, 0.0) + float(value)
    return families


def pinned(cores):
    """Run in a child: it stays on these cores; on all, without any."""
    return (lambda: os.sched_setaffinity(0, cores)) if cores else None


class Gateway:
    """`ringgate serve` with room for so many connections."""

    def __init__(self, connections, folder, shards=None, tls=False, tls_memory=None, secret=None, more="", profile="release", cores=None):
        """`more` is further text of its file; `cores` are those that it may run on, if not all."""
        self.folder, self.profile, self.cores = Path(folder), profile, cores
        self.shards = shards or shards_for(connections)
        self.port, self.admin_port = free_port(), free_port()
        self.scheme = "tls" if tls else "tcp"
        # Buffers are shared by all connections of a shard, and many shards share few cores.
        buffers = 1024 if self.shards <= 8 else 128
        secret = secret or secrets.token_hex(32)
        self.secret_file = self.folder / "secret"
        self.secret_file.write_text(secret)
        self.secret_file.chmod(0o600)
        self.config = self.folder / "ringgate.toml"
        tls_part = ""
        if tls:
            self.certificate(self.folder)
            tls_part = f'[tls]\ncertificate = "{self.folder}/cert.pem"\nkey = "{self.folder}/key.pem"\n'
            if tls_memory:
                tls_part += f'memory = "{tls_memory}"\n'
        self.config.write_text(
            f"[runtime]\nshards = {self.shards}\nconnections_per_shard_max = {TABLE_MAX}\nrecv_buffers = {buffers}\n"
            f"mailbox_capacity = {max(1024, 65536 // self.shards)}\naccepts_in_flight = 8\n"
            f'[[listeners]]\naddress = "127.0.0.1:{self.port}"\ntls = {str(tls).lower()}\n'
            f'[[token.keys]]\nalgorithm = "HS256"\nsecret_file = "{self.secret_file}"\n'
            f'[admin]\naddress = "127.0.0.1:{self.admin_port}"\n[logging]\nlevel = "warn"\n{tls_part}{more}'
        )
        self.process = None
        self.start()

    @staticmethod
    def certificate(folder):
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
                   "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
                   "-addext", "basicConstraints=critical,CA:FALSE",
                   "-keyout", f"{folder}/key.pem", "-out", f"{folder}/cert.pem"]
        subprocess.run(command, check=True, capture_output=True)

    @property
    def url(self):
        host = "localhost" if self.scheme == "tls" else "127.0.0.1"
        return f"{self.scheme}://{host}:{self.port}"

    @property
    def pid(self):
        return self.process.pid

    def start(self):
        """Starts the process and waits until it listens."""
        command = [program("ringgate", self.profile), "serve", "--config", str(self.config)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True,
                                        preexec_fn=pinned(self.cores))
        for line in self.process.stdout:
            if line.startswith("ready"):
                # Its later output is not looked at, but must go somewhere.
                threading.Thread(target=self.process.stdout.read, daemon=True).start()
                return
        raise Problem(f"the gateway did not start: exit code {self.process.wait()}")

    def kill(self):
        """Without a chance to say anything to anybody."""
        self.process.kill()
        self.process.wait()

    def stop(self):
        """In order, as SIGTERM asks; true if it ended so."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout=120) == 0
        except subprocess.TimeoutExpired:
            self.kill()
            return False

    def metrics(self):
        return metrics(self.admin_port)

    def sessions(self):
        return int(self.metrics()["ringgate_sessions_active"])


class Driver:
    """`ringgate-loadtest` against a gateway."""

    def __init__(self, gateway, folder, arguments, profile="release", cores=None, is_silent=False):
        self.result_file = Path(folder) / "result.json"
        # Huge pages come in steps of 2 MiB, which says nothing about a connection.
        environment = dict(os.environ, MIMALLOC_ALLOW_THP="0")
        command = [program("ringgate-loadtest", profile), *arguments, "--url", gateway.url, "--key", str(gateway.secret_file),
                   "--json", str(self.result_file), "--pid", str(gateway.pid)]
        if gateway.scheme == "tls":
            command += ["--ca", f"{gateway.folder}/cert.pem"]
        said = subprocess.DEVNULL if is_silent else None
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, env=environment,
                                        preexec_fn=pinned(cores))

    @property
    def pid(self):
        return self.process.pid

    def running(self):
        return self.process.poll() is None

    def result(self):
        """Waits for the end; the exit code and what was written."""
        code = self.process.wait()
        result = json.loads(self.result_file.read_text()) if self.result_file.exists() else {}
        return code, result

    def stop(self):
        if self.running():
            self.process.send_signal(signal.SIGINT)
            self.process.wait()


def wait_for_all(connections, gateway, driver):
    """Until so many are signed in."""
    while gateway.sessions() < connections:
        if not driver.running():
            raise Problem("the load tester ended before everybody was connected")
        time.sleep(1)


class Memory:
    """What every connection adds: the difference to a moment before the first one."""

    def __init__(self, gateway):
        self.gateway = gateway
        self.kernel_before, self.gateway_before = kernel_bytes(), user_bytes(gateway.pid)

    def per_connection(self, driver, connections):
        return {
            "connections": connections,
            "gateway_user": (user_bytes(self.gateway.pid) - self.gateway_before) / connections,
            # The load tester is there for nothing else.
            "driver_user": user_bytes(driver.pid) / connections,
            "kernel_both_ends": (kernel_bytes() - self.kernel_before) / connections,
        }


def row(memory):
    keys = ("gateway_user", "driver_user", "kernel_both_ends")
    return f"| {memory['connections']:,} | ".replace(",", " ") + " | ".join(f"{memory[key]:,.0f}".replace(",", " ") for key in keys) + " |"


HEAD = ("| connections | gateway, user | load tester, user | kernel, both ends |\n"
        "|---|---|---|---|")


def machine():
    """One line about where the figures come from."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    total = gib(meminfo()["MemTotal"])
    return f"{len(os.sched_getaffinity(0))} cores, {total}, Linux {os.uname().release.split('-')[0]}, commit {commit}"


def main(run):
    """Runs with a folder of its own, and names what is in the way."""
    try:
        with tempfile.TemporaryDirectory(prefix="ringgate-") as folder:
            sys.exit(0 if run(Path(folder)) else 1)
    except Problem as problem:
        sys.exit(f"{Path(sys.argv[0]).name}: {problem}")
    except KeyboardInterrupt:
        sys.exit(130)
