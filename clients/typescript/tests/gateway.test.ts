/** The client at a real gateway: `cargo build` first, or RINGGATE with the path of the program. */
import assert from "node:assert/strict";
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { type AddressInfo, type Server, type Socket as TcpSocket, connect, createServer } from "node:net";
import { createInterface } from "node:readline";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";

import { WebSocket } from "ws";

import { Client, type Message, type Options, type State } from "../src/index.js";

// This file is compiled into build/tests.
const PROGRAM = process.env["RINGGATE"] ?? fileURLToPath(new URL("../../../../target/debug/ringgate", import.meta.url));

let gateway: ChildProcess;
let port: number;
const clients: Client[] = [];

before(async () => {
    gateway = spawn(PROGRAM, ["serve", "--dev", "--shards", "2", "--log-level", "error"], { stdio: ["ignore", "pipe", "inherit"] });
    for await (const line of createInterface({ input: gateway.stdout! })) {
        port = Number(/^ws:\/\/[^:]+:(\d+)\//.exec(line)?.[1] ?? port);
        if (line.startsWith("ready")) return;
    }
    throw new Error(`${PROGRAM} did not start`);
});

after(() => {
    clients.forEach((client) => client.state.name !== "stopped" && client.stop());
    gateway.kill();
});

function token(user: string): string {
    return execFileSync(PROGRAM, ["token", "--dev", "--user", user], { encoding: "utf8" }).trim();
}

function client(user: string, more: Partial<Options> = {}): Client {
    const made = new Client({ url: `ws://127.0.0.1:${port}/ws`, token: () => token(user), device: "test", WebSocket, ...more });
    clients.push(made);
    return made;
}

/** The next event that fits. */
function event<T>(subscribe: (listener: (event: T) => void) => () => void, fits: (event: T) => boolean): Promise<T> {
    return new Promise((resolve) => {
        const off = subscribe((event) => {
            if (fits(event)) {
                off();
                resolve(event);
            }
        });
    });
}

test("two clients sign in then messages go both ways as text and bytes", async () => {
    const [alice, bob] = [client("alice"), client("bob")];
    assert.equal((await alice.start()).user, "alice");
    await bob.start();
    const text = event<Message>((listener) => bob.on("message", listener), () => true);
    const published = await alice.publish("@bob", "grüße 🦀");
    const message = await text;
    assert.deepEqual([message.sender, message.text, message.stamp], ["alice", "grüße 🦀", published.stamp]);
    const bytes = event<Message>((listener) => alice.on("message", listener), () => true);
    await bob.publish("@alice", new Uint8Array([0, 255, 128]));
    assert.deepEqual((await bytes).bytes, new Uint8Array([0, 255, 128]));
});

test("client joins a room then it has its messages, members and history", async () => {
    const [carol, dave] = [client("carol"), client("dave")];
    await Promise.all([carol.start(), dave.start()]);
    assert.deepEqual(await Promise.all([carol.join("chat:ts"), dave.join("chat:ts")]), [true, true]);
    const came = event<Message>((listener) => dave.on("message", listener), (message) => message.text === "9");
    for (let number = 0; number < 10; number++) {
        await carol.publish("chat:ts", String(number));
    }
    await came;
    const members = await dave.presence("chat:ts");
    assert.deepEqual([members.count, members.members.map(({ user }) => user).sort()], [2, ["carol", "dave"]]);
    const newest = await dave.history("chat:ts", { limit: 4 });
    assert.deepEqual([newest.messages.map(({ text }) => text), newest.more], [["6", "7", "8", "9"], true]);
    const older = await dave.history("chat:ts", { before: newest.messages[0]!.stamp!.position, limit: 100 });
    assert.deepEqual([older.messages.map(({ text }) => text), older.more], [["0", "1", "2", "3", "4", "5"], false]);
    await assert.rejects(carol.join("unknown:room"), /102/);
});

test("connections are cut again and again then every message comes once and in order", async () => {
    const line = await Line.to(port);
    const options = { url: `ws://127.0.0.1:${line.port}/ws`, random: () => 0.05 };
    const [erin, frank] = [client("erin", options), client("frank", options)];
    await Promise.all([erin.start(), frank.start()]);
    const COUNT = 200;
    const seen: string[] = [];
    const all = event<Message>((listener) => frank.on("message", listener), (message) => message.text === String(COUNT - 1));
    frank.on("message", (message) => seen.push(message.text));
    const cutting = setInterval(() => line.cut(), 150);
    const published: Promise<unknown>[] = [];
    for (let number = 0; number < COUNT; number++) {
        published.push(erin.publish("@frank", String(number)));
        await new Promise((resolve) => setTimeout(resolve, 10));
    }
    await Promise.all(published);
    clearInterval(cutting);
    await all;
    line.close();
    assert.deepEqual(seen, Array.from({ length: COUNT }, (_, number) => String(number)));
    assert.ok(line.cuts >= 5, `${line.cuts} connections were cut`);
});

test("another client takes the session over then the first one stops and does not come back", async () => {
    const [first, second] = [client("grace"), client("grace")];
    await first.start();
    const stopped = event<State>((listener) => first.on("state", listener), (state) => state.name === "stopped");
    await second.start();
    assert.deepEqual(await stopped, { name: "stopped", code: 4500, reason: "taken over" });
    assert.equal(second.state.name, "connected");
});

test("token is not accepted then the client stops and says so", async () => {
    await assert.rejects(client("henry", { token: () => "x.y.z" }).start(), /invalid token/);
});

/** A relay between clients and the gateway, of which every connection can be cut without a word. */
class Line {
    readonly #sockets = new Set<TcpSocket>();
    cuts = 0;

    private constructor(private readonly server: Server) {}

    static async to(port: number): Promise<Line> {
        const server = createServer();
        const line = new Line(server);
        server.on("connection", (near) => {
            const far = connect(port, "127.0.0.1");
            for (const [one, other] of [[near, far], [far, near]] as const) {
                line.#sockets.add(one);
                one.on("error", () => {}).on("close", () => other.destroy()).pipe(other);
            }
        });
        await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
        return line;
    }

    get port(): number {
        return (this.server.address() as AddressInfo).port;
    }

    cut(): void {
        for (const socket of this.#sockets) {
            this.cuts += Number(!socket.destroyed);
            socket.resetAndDestroy();
        }
        this.#sockets.clear();
    }

    close(): void {
        this.server.close();
        this.cut();
    }
}
