import assert from "node:assert/strict";
import { afterEach, test } from "node:test";

import { type Message, RequestError, StoppedError, UndecidedError } from "../src/index.js";
import { FakeSocket, World, settled, stamp } from "./fake.js";

let world: World;
afterEach(() => world.end());

test("client starts then Connect comes first, with its token and device", async () => {
    world = new World({ device: "page" });
    const socket = await world.started();
    assert.equal(socket.subprotocol, "ringgate.json.v1");
    const [connect] = socket.of("connect");
    assert.equal(socket.sent[0], connect);
    assert.deepEqual({ token: connect?.token, device: connect?.device, rooms: connect?.rooms }, { token: "t", device: "page", rooms: [] });
});

test("connection is lost then a publish that was not answered is repeated with its id, before new ones", async () => {
    world = new World();
    const first = await world.started();
    const answers = [world.client.publish("@bob", "1"), world.client.publish("@bob", "2")];
    first.end();
    answers.push(world.client.publish("@bob", "3"));
    await world.nextConnection();
    world.socket.signIn();
    const before = first.of("publish");
    const after = world.socket.of("publish");
    assert.deepEqual(after.map(({ payload }) => payload), ["1", "2", "3"]);
    assert.deepEqual(after.slice(0, 2), before);
    after.forEach(({ request, client_message_id }, index) => world.socket.published(request, client_message_id, index + 1));
    assert.deepEqual((await Promise.all(answers)).map(({ stamp }) => stamp.position.offset), ["1", "2", "3"]);
});

test("gateway asks to wait then the publish is repeated after that time with its id", async () => {
    world = new World();
    const socket = await world.started();
    const answer = world.client.publish("@bob", "1");
    const refused = socket.of("publish")[0]!;
    socket.push({ type: "error", request: refused.request, code: 402, message: "storage full", temporary: true, retry_after_ms: 700 });
    await world.pass(600);
    assert.equal(socket.of("publish").length, 1);
    await world.pass(200);
    assert.deepEqual(socket.of("publish")[1], refused);
    socket.published(refused.request, refused.client_message_id);
    assert.equal((await answer).durability, "memory");
});

test("gateway refuses for good then the promise says the code and nothing is repeated", async () => {
    world = new World();
    const socket = await world.started();
    const answer = world.client.publish("chat:a", "1");
    socket.push({ type: "error", request: socket.of("publish")[0]!.request, code: 401, message: "not subscribed", temporary: false, retry_after_ms: 0 });
    await assert.rejects(answer, (error) => error instanceof RequestError && error.code === 401);
    await world.pass(60_000);
    assert.equal(socket.of("publish").length, 1);
});

test("no answer comes within the dedup window then the publish is undecided", async () => {
    world = new World();
    await world.started({ dedup_window_ms: 10_000 });
    const answer = world.client.publish("@bob", "1");
    const rejected = assert.rejects(answer, UndecidedError);
    await world.pass(10_100);
    await rejected;
});

test("messages of the inbox come then each is handed on once and acknowledged within a second", async () => {
    world = new World();
    const socket = await world.started();
    const seen: string[] = [];
    world.client.on("message", (message) => seen.push(message.text));
    for (const offset of [1, 2, 2, 1, 3]) {
        socket.inboxMessage(offset);
    }
    await settled();
    assert.deepEqual(seen, ["m1", "m2", "m3"]);
    await world.pass(1_100);
    assert.deepEqual(socket.of("ack").map(({ position }) => position), [{ epoch: "7", offset: "3" }]);
    // The Ack was lost: the gateway repeats, and is told again.
    socket.inboxMessage(3);
    await world.pass(1_100);
    assert.deepEqual([seen.length, socket.of("ack").length], [3, 2]);
});

test("listener is still storing a message then it is not acknowledged, and the next one waits", async () => {
    world = new World();
    const socket = await world.started();
    let stored = () => {};
    const seen: Message[] = [];
    world.client.on("message", (message) => {
        seen.push(message);
        return new Promise<void>((resolve) => (stored = resolve));
    });
    socket.inboxMessage(1);
    socket.inboxMessage(2);
    await world.pass(5_000);
    assert.deepEqual([seen.length, socket.of("ack").length], [1, 0]);
    stored();
    await world.pass(1_100);
    assert.deepEqual(socket.of("ack").map(({ position }) => position.offset), ["1"]);
    assert.equal(seen.length, 2);
});

test("client comes back then it gives its positions of the inbox and of its rooms", async () => {
    world = new World();
    const first = await world.started();
    const joined = world.client.join("chat:a");
    const subscribe = first.of("subscribe")[0]!;
    first.push({ type: "subscribed", request: subscribe.request, room: "chat:a", recovered: true, position: stamp(4).position, start: stamp(4).position });
    assert.equal(await joined, true);
    first.push({ type: "message", topic: "chat:a", sender: "bob", payload: "r5", stamp: stamp(5) });
    first.inboxMessage(9);
    await settled();
    first.end();
    await world.nextConnection();
    world.socket.open();
    const [connect] = world.socket.of("connect");
    assert.deepEqual(connect?.inbox, { epoch: "7", offset: "9" });
    assert.deepEqual(connect?.rooms, [{ room: "chat:a", recover: "best", since: { epoch: "7", offset: "5" } }]);
});

test("messages were lost while the client was away then it is told, and its position is forgotten", async () => {
    world = new World();
    const first = await world.started();
    const lost: string[] = [];
    world.client.on("lost", ({ topic }) => lost.push(topic));
    first.inboxMessage(5);
    await settled();
    first.end();
    await world.nextConnection();
    world.socket.signIn({ inbox_recovered: false });
    assert.deepEqual(lost, ["@alice"]);
    world.socket.end();
    await world.nextConnection();
    world.socket.open();
    assert.equal(world.socket.of("connect")[0]?.inbox, undefined);
});

test("gateway says Goodbye and to come back then the client waits as long as it says", async () => {
    world = new World();
    const socket = await world.started();
    await world.pass(6_000);
    socket.push({ type: "goodbye", code: 3001, reason: "shutdown", reconnect: true, after_ms: 1_500 });
    assert.deepEqual(world.client.state, { name: "waiting", ms: 1_500, reason: "shutdown" });
    await world.pass(1_400);
    assert.equal(world.connections, 1);
    await world.pass(200);
    assert.equal(world.connections, 2);
});

test("gateway says Goodbye for good then the client stops, and what waits is rejected", async () => {
    world = new World();
    const socket = await world.started();
    const rejected = assert.rejects(world.client.publish("@bob", "1"), StoppedError);
    socket.push({ type: "goodbye", code: 4500, reason: "taken over", reconnect: false, after_ms: 0 });
    await rejected;
    assert.deepEqual(world.client.state, { name: "stopped", code: 4500, reason: "taken over" });
    await world.pass(60_000);
    assert.equal(world.connections, 1);
    assert.throws(() => world.client.publish("@bob", "2"), StoppedError);
});

for (const code of [1003, 3501, 3500, 4500]) {
    test(`connection is closed with ${code} and without Goodbye then the client stops`, async () => {
        world = new World();
        const socket = await world.started();
        socket.end(code, "why");
        await world.pass(60_000);
        assert.deepEqual([world.client.state, world.connections], [{ name: "stopped", code, reason: "why" }, 1]);
    });
}

test("every attempt fails then the waits double up to 20 s, and each attempt takes the next address", async () => {
    world = new World({ url: ["ws://a/ws", "ws://b/ws"], random: () => 1 });
    void world.client.start().catch(() => {});
    await settled();
    for (let attempt = 0; attempt < 8; attempt++) {
        world.socket.end();
        await world.nextConnection();
    }
    const waits = world.states.flatMap((state) => (state.name === "waiting" ? [state.ms] : []));
    assert.deepEqual(waits, [1_000, 2_000, 4_000, 8_000, 16_000, 20_000, 20_000, 20_000]);
    assert.deepEqual(FakeSocket.all.slice(0, 3).map(({ url }) => url), ["ws://a/ws", "ws://b/ws", "ws://a/ws"]);
});

test("gateway is silent then it is asked, and left when it does not answer in time", async () => {
    world = new World();
    const socket = await world.started();
    await world.pass(30_000);
    assert.equal(socket.of("ping").length, 1);
    socket.push({ type: "pong" });
    await world.pass(30_000);
    assert.equal(socket.of("ping").length, 2);
    await world.pass(5_000);
    assert.equal(world.client.state.name, "waiting");
});

test("connection opens but nobody answers then the attempt is given up", async () => {
    world = new World();
    void world.client.start().catch(() => {});
    await settled();
    await world.pass(10_000);
    assert.equal(world.client.state.name, "waiting");
    await world.pass(1_000);
    world.socket.open();
    await world.pass(15_000);
    assert.equal(world.client.state.name, "waiting");
});

test("token function fails then it is asked again later, and the client does not connect without a token", async () => {
    let calls = 0;
    world = new World({
        token: async () => {
            calls += 1;
            if (calls === 1) throw new Error("the sign-in page is down");
            return "t2";
        },
    });
    const starting = world.client.start();
    await settled();
    assert.equal(world.connections, 0);
    await world.pass(600);
    world.socket.signIn();
    assert.equal((await starting).user, "alice");
    assert.equal(world.socket.of("connect")[0]?.token, "t2");
});

test("token ends then a new one is sent at 80 % of its time", async () => {
    let calls = 0;
    world = new World({ token: () => `t${++calls}` });
    const socket = await world.started({ expires_in_ms: "100000", ping_interval_ms: 300_000 });
    await world.pass(79_000);
    assert.equal(socket.of("refresh").length, 0);
    await world.pass(2_000);
    assert.equal(socket.of("refresh")[0]?.token, "t2");
});

test("gateway asks then the client answers, and a type that it does not know is ignored", async () => {
    world = new World();
    const socket = await world.started();
    socket.push({ type: "ping" });
    assert.equal(socket.of("pong").length, 1);
    socket.push({ type: "of_tomorrow" });
    assert.equal(world.client.state.name, "connected");
});

test("gateway sends what is no JSON then the connection is left and made anew", async () => {
    world = new World();
    const socket = await world.started();
    socket.onmessage?.({ data: "{" });
    assert.equal(world.client.state.name, "waiting");
    await world.pass(1_000);
    assert.equal(world.connections, 2);
});

test("room is refused then join says why, and the room is not asked for again", async () => {
    world = new World();
    const socket = await world.started();
    const rejected = assert.rejects(world.client.join("nope:a"), (error) => error instanceof RequestError && error.code === 102);
    socket.push({ type: "error", request: socket.of("subscribe")[0]!.request, code: 102, message: "unknown room", temporary: false, retry_after_ms: 0, room: "nope:a" });
    await rejected;
    socket.end();
    await world.nextConnection();
    world.socket.open();
    assert.deepEqual(world.socket.of("connect")[0]?.rooms, []);
});

test("room is taken away then the application is told", async () => {
    world = new World();
    const socket = await world.started();
    const removed: unknown[] = [];
    world.client.on("removed", (event) => removed.push(event));
    void world.client.join("chat:a");
    socket.push({ type: "subscribed", request: 2, room: "chat:a", recovered: true });
    socket.push({ type: "unsubscribed", request: 0, room: "chat:a", code: 103 });
    assert.deepEqual(removed, [{ room: "chat:a", code: 103 }]);
});

test("payload is bytes then it travels as base64 and comes back as it was", async () => {
    world = new World();
    const socket = await world.started();
    const bytes = Uint8Array.from({ length: 70_000 }, (_, index) => index % 251);
    void world.client.publish("@bob", bytes).catch(() => {});
    const sent = socket.of("publish")[0]!.payload_base64;
    let came: Message | undefined;
    world.client.on("message", (message) => (came = message));
    socket.inboxMessage(1, { payload_base64: sent!, payload: undefined as never });
    await settled();
    assert.deepEqual(came?.bytes, bytes);
});

test("client is stopped then it says so to the gateway and acknowledges what it has", async () => {
    world = new World();
    const socket = await world.started();
    socket.inboxMessage(1);
    await settled();
    world.client.stop();
    assert.deepEqual(socket.sent.slice(-2).map(({ type }) => type), ["ack", "disconnect"]);
});
