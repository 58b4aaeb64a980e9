"""`bench/run nodes`: what a one-to-one message costs between two gateways that share a Redis, within one of them, and within one gateway that keeps its
logs in memory; and what it costs Redis. The budget of Redis is for a publish with a client message id alone, and judged where there is nothing else.

The three run in turns (A B C, C B A, ...), each as fresh processes: all gateways on core 0 with one shard each, load tester and Redis on core 1.
CPU of the gateways is that of all of them together, of Redis that of its process while messages flow, Acks and heartbeats included.
"""

import json
import pathlib
import statistics
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "loadtest"))
import linked  # noqa: E402
import rig  # noqa: E402

INPUTS = ROOT / "bench" / "results" / "nodes.json"
MARKER = "nodes"
# The same message within a node costs at most so much less, and Redis so many microseconds for each.
BUDGET, REDIS_BUDGET_US = 2.5, 20
# Client c is on node c modulo 2, and writes to the client half of all further on: to the same node where the half is even.
SIDES = {"memory": (1, 1000), "within": (2, 1000), "across": (2, 1002)}
LOADS = {
    "saturated": ("one-to-one, acknowledged, 500 pairs, saturated", ["p2p", "--closed-loop", "4"]),
    "open": ("the same, 2 000 messages/s, open loop", ["p2p", "--rate", "2000"]),
}
# Nothing but appends: a message of a room has no Ack. Each room has a member on each node.
APPENDS = ("rooms of two, one on each node, no Acks, saturated", ["room", "--rooms", "500", "--publishers", "1", "--closed-loop", "4"])


def measure(side, options, seconds, profile="release"):
    """One run of a load, of which these are the options, its name first."""
    count, connections = SIDES[side]
    with tempfile.TemporaryDirectory(prefix="ringgate-") as folder:
        folder = pathlib.Path(folder)
        redis = linked.Redis(folder, cores={1}) if count > 1 else None
        nodes = None
        try:
            nodes = linked.Nodes(count, connections, folder, redis, profile, shards=1, cores={0})
            phases = linked.Phases(nodes, every=0.5)
            arguments = [*options, "--connections", str(connections), "--duration", f"{seconds}s", "--allow", "driver", "--quiet",
                         *phases.arguments()]
            driver = rig.Driver(nodes, folder, arguments, profile, cores={1}, is_silent=True)
            try:
                phases.follow(driver, connections)
                code, report = driver.result()
            finally:
                driver.stop()
        finally:
            if nodes:
                nodes.kill()
            if redis:
                redis.stop()
    if code != 0 or not report.get("clean"):
        raise rig.Problem(f"not a clean run of {side}: exit code {code}; run the load tester by hand to see why")
    planned = report["latencies_us"]["deliver"]["planned"]
    result = {"gateway_us": report["cpu_us_per_delivery"], "p50": planned["p50"], "p99": planned["p99"], "driver_busy": report["driver_busy"]}
    steady = phases.of("steady")
    if steady and redis:
        sent = steady["published"]
        scripts = sum(steady["redis_usec"].get(name, 0) for name in ("evalsha", "eval"))
        result |= {
            "redis_us": steady["redis_cpu"] * 1e6 / sent,
            "script_us": scripts / sent,
            "link_us": steady["link_cpu"] * 1e6 / sent,
            "redis_in": steady["redis_in"] / sent,
            "redis_out": steady["redis_out"] / sent,
            "calls": {name: count / sent for name, count in steady["redis_calls"].items() if count / sent >= 0.005},
        }
    return result


def compare(options, pairs, seconds, profile="release"):
    """The results of each side, in the order of the rounds."""
    results = {side: [] for side in SIDES}
    for number in range(pairs):
        for side in (SIDES if number % 2 == 0 else reversed(SIDES)):
            results[side].append(measure(side, options, seconds, profile))
        shown = ", ".join(f"{side} {results[side][-1]['gateway_us']:.2f} us" for side in SIDES)
        print(f"  nodes {' '.join(options)} {number + 1}/{pairs}: {shown}, Redis {results['across'][-1].get('redis_us', 0):.2f} us", flush=True)
    return results


def median(results, key):
    values = [result[key] for result in results if result.get(key) is not None]
    return statistics.median(values) if values else None


def table(pairs, seconds, heading, interval, verdict, profile="release"):
    """`heading` says where the figures come from; `interval` and `verdict` are those of bench/run. The text for docs/performance.md, and the figures that bench/scaling calculates with."""
    gateway_rows, redis_rows, figures = [], [], {"source": heading}

    def redis_row(what, results, budget):
        low, high = interval([result["redis_us"] for result in results])
        calls = ", ".join(f"{call} {count:.2f}" for call, count in sorted(results[-1]["calls"].items(), key=lambda call: -call[1])[:6])
        judged = f"{budget}: {verdict({'budget': budget, 'low': low, 'high': high})}" if budget else "-"
        redis_rows.append(
            f"| {what} | **{median(results, 'redis_us'):.1f}** | {low:.1f} - {high:.1f} | {judged} | {median(results, 'script_us'):.1f} | "
            f"{median(results, 'link_us'):.1f} | {median(results, 'redis_in'):.0f}, {median(results, 'redis_out'):.0f} | {calls} |")

    appends = []
    for number in range(pairs):
        appends.append(measure("within", APPENDS[1], seconds, profile))
        print(f"  nodes {' '.join(APPENDS[1])} {number + 1}/{pairs}: Redis {appends[-1]['redis_us']:.2f} us", flush=True)
    redis_row(APPENDS[0], appends, REDIS_BUDGET_US)
    keys = ("gateway_us", "redis_us", "script_us", "link_us", "redis_in", "redis_out", "p50", "p99")
    figures["appends"] = {key: median(appends, key) for key in keys}
    for name, (what, options) in LOADS.items():
        results = compare(options, pairs, seconds, profile)
        across = [result["gateway_us"] for result in results["across"]]
        for base, label in (("memory", "one node, in memory"), ("within", "linked, within a node")):
            ratios = [own / other["gateway_us"] for own, other in zip(across, results[base])]
            low, high = interval(ratios)
            budget = {"budget": BUDGET, "low": low, "high": high}
            gateway_rows.append(
                f"| {what} | {label} | {median(results['across'], 'gateway_us'):.2f} | {median(results[base], 'gateway_us'):.2f} | "
                f"**{statistics.median(ratios):.2f}** | {low:.2f} - {high:.2f} | {BUDGET}: {verdict(budget)} | "
                f"{median(results['across'], 'p99'):.0f} / {median(results[base], 'p99'):.0f} |")
        for side, label in (("within", "within a node"), ("across", "across nodes")):
            redis_row(f"{what}, {label}", results[side], None)
        figures[name] = {side: {key: median(results[side], key) for key in keys} for side in SIDES}
    text = "\n".join([
        heading,
        "",
        "| workload | beside | across nodes, us | beside it, us | ratio | 95 % interval | budget | p99 across / beside it, us |",
        "|---|---|---|---|---|---|---|---|",
        *gateway_rows,
        "",
        "| workload | Redis CPU for each message, us | 95 % interval | budget | within scripts, by its clock, us | of the gateways' CPU, the threads that speak with Redis, us | bytes to Redis, from Redis | commands for each message, in scripts too |",
        "|---|---|---|---|---|---|---|---|",
        *redis_rows,
    ]) + "\n"
    return text, figures


def remember(figures):
    """For bench/scaling."""
    known = json.loads(INPUTS.read_text()) if INPUTS.exists() else {}
    INPUTS.write_text(json.dumps(known | {"bench": figures}, indent=1) + "\n")
