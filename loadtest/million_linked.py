"""`million --nodes N`: the same connections over N gateways linked by a Redis, beside one gateway that keeps its logs in memory.

The same load is driven against both, one after the other: pairs on one node, pairs across nodes, and a room with members on every node,
each alone in a phase of its own and then all together. What a message costs is what its phase took beyond a phase without messages.
"""

import json
import time

import linked
import rig

PAGE = rig.ROOT / "bench" / "results" / "nodes.md"
# What bench/scaling calculates with.
INPUTS = rig.ROOT / "bench" / "results" / "nodes.json"
# Of Redis, for each connected user, with some room.
REDIS_BYTES_PER_CONNECTION = 2_000
WRITTEN_FROM = 1_000_000
STREAMS = ("same", "across", "room")


def mixture(chosen, populations, minutes):
    """The file of the load. In its own phase each kind of pairs has the whole rate; together they share it."""
    part = max(3.0, min(60.0, minutes * 60 / 4))
    fail_if = ["lost>0", "closed>0", "duplicated>0", "reordered>0", "corrupted>0", "errors>0", *chosen.fail_if]
    text = [f"seed = 1\nfail_if = {json.dumps(fail_if)}\n"]
    for name in STREAMS:
        text.append(f'[[populations]]\nname = "{name}"\nconnections = {populations[name]}\n')
    for name in ("same", "across"):
        text.append(f'[[streams]]\npopulation = "{name}"\nkind = "pairs"\nrate = {chosen.rate / 2}\npoisson = true\n'
                    f'phases = ["warm-up", "{name}-alone", "together"]\n')
    text.append(f'[[streams]]\npopulation = "room"\nkind = "rooms"\nrate = {chosen.broadcasts}\npublishers = {min(100, populations["room"])}\n'
                'phases = ["warm-up", "room-alone", "together"]\n')
    for name, seconds, load in (("warm-up", part / 2, 1.0), ("quiet", part, 1.0), ("same-alone", part, 2.0), ("across-alone", part, 2.0),
                                ("room-alone", part, 1.0), ("together", minutes * 60, 1.0)):
        text.append(f'[[phases]]\nname = "{name}"\nduration = "{int(seconds * 1000)}ms"\nload = {load}\n')
        if name in ("warm-up", "quiet"):
            text.append("measured = false\n")
    return "".join(text)


def populations(connections, members, nodes):
    """How many clients each has, in the order of their numbers. Client c is on node c modulo nodes, and half of a population writes to the other half,
    each to the client half of the population further on: on the same node where that half is a multiple of the nodes."""
    pairs = (connections - members) // 2
    same = max(nodes, pairs // 2 // nodes * nodes)
    across = pairs - same
    if nodes > 1 and across % nodes == 0:
        across -= 1
    if across < 1:
        raise rig.Problem(f"--connections {connections}: too few for pairs on {nodes} nodes beside {members} members of the room")
    return {"same": 2 * same, "across": 2 * across, "room": connections - 2 * same - 2 * across}


def run(chosen, folder):
    sizes = populations(chosen.connections, chosen.members, chosen.nodes)
    rig.build(chosen.profile)
    rig.check_machine(chosen.connections, REDIS_BYTES_PER_CONNECTION)
    with rig.tuned(chosen.connections):
        alone = drive(chosen, folder, sizes, 1, None, chosen.alone_minutes)
        linked.wait_for_sockets(1_000)
        redis = linked.Redis(folder, chosen.redis)
        try:
            several = drive(chosen, folder, sizes, chosen.nodes, redis, chosen.minutes)
            several["redis_version"] = redis.version()
        finally:
            redis.stop()
    figures = figures_of(chosen, sizes, alone, several)
    text = page(chosen, sizes, alone, several, figures)
    print("\n" + text)
    if chosen.json:
        with open(chosen.json, "w") as out:
            json.dump(figures, out, indent=1)
    if chosen.connections >= WRITTEN_FROM and not chosen.no_write:
        PAGE.write_text(text)
        known = json.loads(INPUTS.read_text()) if INPUTS.exists() else {}
        INPUTS.write_text(json.dumps(known | {"million": figures}, indent=1) + "\n")
    problems = [*alone["problems"], *several["problems"], *figures["problems"]]
    for problem in problems:
        print(f"! {problem}")
    return not problems


def drive(chosen, folder, sizes, count, redis, minutes):
    """One run; what its phases took, and what was wrong."""
    what = f"{count} nodes on Redis" if redis else "one node in memory"
    place = folder / f"nodes{count}"
    place.mkdir()
    file = place / "mixture.toml"
    file.write_text(mixture(chosen, sizes, minutes))
    nodes = linked.Nodes(count, chosen.connections, place, redis, chosen.profile, chosen.shards)
    print(f"\n{what}: processes {nodes.pid}, {nodes.shards} shards, {nodes.url}" + (f", Redis {redis}" if redis else ""), flush=True)
    before = nodes.user_bytes()
    phases = linked.Phases(nodes, every=0.5 if minutes < 1 else 5)
    arguments = ["mixed", str(file), "--ramp-rate", str(chosen.ramp_rate), *phases.arguments()]
    driver = rig.Driver(nodes, place, arguments, chosen.profile)
    try:
        full = phases.follow(driver, chosen.connections)
        code, result = driver.result()
        ended = nodes.stop()
    finally:
        driver.stop()
        nodes.kill()
    problems = []
    if code != 0:
        problems.append(f"{what}: the load tester ended with exit code {code}")
    if full is None:
        problems.append(f"{what}: not everybody was connected at once")
    if not ended:
        problems.append(f"{what}: a gateway did not end in order")
    return {"full": full, "result": result, "phases": phases, "problems": problems, "user_bytes": before, "shards": nodes.shards, "minutes": minutes}


def latency(side, phase, stream):
    """p50 and p99 of deliveries in microseconds, from the planned time."""
    for each in side["result"].get("phases", []):
        if each["name"] == phase:
            planned = each["latency_by_name_us"].get(stream, {}).get("deliver", {}).get("planned")
            return planned and (planned["p50"], planned["p99"])
    return None


def messages_of(side, stream, sizes):
    """What each message of a stream cost in its own phase: gateways, Redis, commands, bytes, and how often it crossed to a node."""
    phases, phase = side["phases"], f"{stream}-alone"
    quiet, taken = phases.of("quiet"), phases.of(phase)
    sent = taken and taken["published"]
    if not sent:
        return None
    share = {name: linked.per(taken, quiet, name, sent) for name in ("gateway_cpu", "link_cpu", "redis_cpu", "redis_in", "redis_out")}
    calls = {}
    for name, count in taken.get("redis_calls", {}).items():
        alone = quiet["redis_calls"].get(name, 0) / quiet["seconds"] * taken["seconds"] if quiet else 0
        calls[name] = (count - alone) / sent
    deliveries = sizes["room"] if stream == "room" else 1
    return {
        "messages": sent,
        "gateway_us": share["gateway_cpu"] * 1e6,
        "gateway_us_per_delivery": share["gateway_cpu"] * 1e6 / deliveries,
        "link_us": share["link_cpu"] * 1e6,
        "redis_us": share["redis_cpu"] * 1e6 if share["redis_cpu"] is not None else None,
        "redis_in": share["redis_in"],
        "redis_out": share["redis_out"],
        "crossed": taken.get("arrived", 0) / sent,
        "calls": {name: round(count, 3) for name, count in sorted(calls.items(), key=lambda call: -call[1]) if count >= 0.005},
    }


def figures_of(chosen, sizes, alone, several):
    """Everything that the page shows and bench/scaling needs."""
    figures = {"source": source(chosen, several), "nodes": chosen.nodes, "connections": chosen.connections, "room_members": sizes["room"], "problems": []}
    for name, side in (("alone", alone), ("linked", several)):
        for stream in STREAMS:
            figures[f"{name}_{stream}"] = messages_of(side, stream, sizes)
            figures[f"{name}_{stream}_latency_us"] = latency(side, f"{stream}-alone", stream)
            figures[f"{name}_{stream}_together_us"] = latency(side, "together", stream)
    connecting, together, last = several["phases"].connecting(chosen.connections), several["phases"].of("together"), several["phases"].last()
    if connecting:
        figures["connect"] = {
            "redis_us": connecting["redis_cpu"] * 1e6 / chosen.connections,
            "redis_in": connecting["redis_in"] / chosen.connections,
            "redis_out": connecting["redis_out"] / chosen.connections,
            "redis_bytes": connecting["redis_memory"] / chosen.connections,
            "gateway_us": connecting["gateway_cpu"] * 1e6 / chosen.connections,
            "calls": {name: round(count / chosen.connections, 3) for name, count in connecting["redis_calls"].items() if count / chosen.connections >= 0.005},
        }
    quiet = several["phases"].of("quiet")
    if quiet:
        # While nobody writes: leases, probes, sessions that are kept alive.
        figures["quiet"] = {
            "redis_cores": quiet["redis_cpu"] / quiet["seconds"],
            "gateway_cores": quiet["gateway_cpu"] / quiet["seconds"],
            "redis_commands": sum(quiet["redis_calls"].values()) / quiet["seconds"],
        }
    if together:
        figures["together"] = {name: together[name] / together["seconds"] for name in ("gateway_cpu", "redis_cpu", "driver_cpu", "redis_in", "redis_out")}
    if last:
        figures["redis_memory"] = last.get("redis_memory")
    judge(chosen, figures)
    return figures


def source(chosen, several):
    """Where the figures come from, in a line."""
    release = "" if chosen.profile == "release" else f", built with the profile {chosen.profile}"
    return (f"`loadtest/million --nodes {chosen.nodes}`, {chosen.connections} connections, {several['minutes']:g} minutes; {rig.machine()}{release}, "
            f"{several['redis_version']}, {time.strftime('%Y-%m-%d')}")


def judge(chosen, figures):
    """A message comes to another node once, however many members it has there, and to no node without a recipient. To the node that it was published
    at it comes only where it overtakes the answer, and a recipient is there."""
    for stream, least, most in (("same", 0, 1), ("across", 1, 1), ("room", chosen.nodes - 1, chosen.nodes)):
        found = figures[f"linked_{stream}"]
        if not found:
            figures["problems"].append(f"phase {stream}-alone: too short for two samples, or nothing was published in it")
        # A sample may fall between a message and its arrival, and a phase has some of the messages of the one before.
        elif not least * 0.9 <= found["crossed"] <= most * 1.05 + 0.02:
            figures["problems"].append(f"a message of {stream} came to {found['crossed']:.3f} nodes through Redis, and it has to come to {least} or {most}")
    found = figures["linked_across"]
    if chosen.redis_us_max and found and found["redis_us"] > chosen.redis_us_max:
        figures["problems"].append(f"a message across nodes took {found['redis_us']:.1f} us of Redis, more than --redis-us-max {chosen.redis_us_max}")


def page(chosen, sizes, alone, several, figures):
    def ms(pair):
        return "{:.1f}, {:.1f}".format(pair[0] / 1000, pair[1] / 1000) if pair else "-"

    def number(value, digits=1):
        return "-" if value is None else f"{value:.{digits}f}"

    def of(column, key):
        return (figures.get(column) or {}).get(key)

    columns = ("alone_across", "linked_same", "linked_across")
    rooms = ("alone_room", "linked_room")

    def row(what, names, cell):
        return f"| {what} | " + " | ".join(cell(name) for name in names) + " |"

    def calls(column):
        return ", ".join(f"{name} {count:.2f}" for name, count in (of(column, "calls") or {}).items()) or "-"

    def relation(column):
        base, own = of("alone_across", "gateway_us"), of(column, "gateway_us")
        return f"{own / base:.2f}" if base and own else "-"

    counts = ("published", "accepted", "delivered", "lost", "duplicated", "reordered", "corrupted", "errors", "pings", "pongs")
    said = {name: side["result"] for name, side in (("alone", alone), ("linked", several))}
    connect, quiet, together = (figures.get(name) or {} for name in ("connect", "quiet", "together"))
    release = "" if chosen.profile == "release" else f", built with the profile {chosen.profile}"
    lines = [
        "# Linked nodes beside one node",
        "",
        f"Written by `loadtest/million --nodes {chosen.nodes}`, which says what is compared: {chosen.connections} connections on {chosen.nodes} gateways that "
        f"share a Redis ({several['redis_version']}, appendonly yes, appendfsync everysec), held for {several['minutes']:g} minutes, beside the same connections on one "
        f"gateway with its logs in memory, held for {alone['minutes']:g}. All gateways, Redis and the load tester on one machine: {rig.machine()}{release}, "
        f"{time.strftime('%Y-%m-%d')}.",
        "",
        f"One-to-one, {chosen.rate} messages/s in a phase of their own. CPU and bytes are what that phase took beyond a phase without messages, which "
        "has the heartbeats, leases and probes; the CPU of the gateways is that of all of them.",
        "",
        "| | one node, in memory | linked, within a node | linked, across nodes |",
        "|---|---|---|---|",
        row("delivery p50, p99, ms", columns, lambda name: ms(figures.get(f"{name}_latency_us"))),
        row("the same while everything runs, ms", columns, lambda name: ms(figures.get(f"{name}_together_us"))),
        row("gateway CPU for each message, us", columns, lambda name: number(of(name, "gateway_us"))),
        row("beside the node in memory", columns, relation),
        row("of that, the threads that speak with Redis, us", columns, lambda name: number(of(name, "link_us"))),
        row("Redis CPU for each message, us", columns, lambda name: number(of(name, "redis_us"))),
        row("bytes to Redis, from Redis, for each message", columns, lambda name: f"{number(of(name, 'redis_in'), 0)}, {number(of(name, 'redis_out'), 0)}"),
        row("comes to so many nodes through Redis", columns, lambda name: number(of(name, "crossed"), 3) if name != "alone_across" else "-"),
        row("commands for each message, in scripts too", columns, calls),
        row("messages", columns, lambda name: number(of(name, "messages"), 0)),
        "",
        f"A room of {sizes['room']} members, dealt out to the nodes, {chosen.broadcasts:g} broadcasts/s in a phase of their own.",
        "",
        "| | one node, in memory | linked |",
        "|---|---|---|",
        row("delivery p50, p99, ms", rooms, lambda name: ms(figures.get(f"{name}_latency_us"))),
        row("the same while everything runs, ms", rooms, lambda name: ms(figures.get(f"{name}_together_us"))),
        row("gateway CPU for each delivery, us", rooms, lambda name: number(of(name, "gateway_us_per_delivery"), 2)),
        row("Redis CPU for each broadcast, us", rooms, lambda name: number(of(name, "redis_us"))),
        row("bytes to Redis, from Redis, for each broadcast", rooms, lambda name: f"{number(of(name, 'redis_in'), 0)}, {number(of(name, 'redis_out'), 0)}"),
        row("comes to so many nodes through Redis", rooms, lambda name: number(of(name, "crossed"), 3) if name == "linked_room" else "-"),
        "",
        "| the whole run | one node, in memory | linked |",
        "|---|---|---|",
        row("everybody signed in after, s", ("alone", "linked"), lambda name: number((alone if name == "alone" else several)["full"], 0)),
        *(row(what, ("alone", "linked"), lambda name, what=what: str(said[name].get(what, "-"))) for what in counts),
        row("closed by code", ("alone", "linked"), lambda name: str(said[name].get("closed_by_code", "-"))),
        row("delivery p50, p99 of all, ms", ("alone", "linked"), lambda name: ms([said[name]["latency_us"][share] for share in ("p50", "p99")]) if said[name] else "-"),
        "",
        "| Redis | |",
        "|---|---|",
        f"| CPU for each sign-in, us | {number(connect.get('redis_us'))} |",
        f"| commands for each sign-in, in scripts too | {', '.join(f'{name} {count:.2f}' for name, count in sorted(connect.get('calls', {}).items(), key=lambda call: -call[1])) or '-'} |",
        f"| bytes to Redis, from Redis, for each sign-in | {number(connect.get('redis_in'), 0)}, {number(connect.get('redis_out'), 0)} |",
        f"| memory for each connected user, bytes | {number(connect.get('redis_bytes'), 0)} |",
        f"| while nobody writes: cores, commands a second | {number(quiet.get('redis_cores'), 3)}, {number(quiet.get('redis_commands'), 0)} |",
        f"| while everything runs, cores: gateways, Redis, load tester | {number(together.get('gateway_cpu'), 2)}, {number(together.get('redis_cpu'), 2)}, "
        f"{number(together.get('driver_cpu'), 2)} |",
    ]
    return "\n".join(lines) + "\n"
