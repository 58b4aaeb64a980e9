import { mock } from "node:test";

import { Client, type Options, type State } from "../src/index.js";
import type { Push, Request, WireMessage } from "../src/wire.js";

/** The gateway's end of one connection: what the client has sent, and what it is made to see. */
export class FakeSocket {
    static all: FakeSocket[] = [];
    readyState = 0;
    onopen: ((event: unknown) => void) | null = null;
    onmessage: ((event: unknown) => void) | null = null;
    onclose: ((event: unknown) => void) | null = null;
    onerror: ((event: unknown) => void) | null = null;
    readonly sent: Request[] = [];

    constructor(readonly url: string, readonly subprotocol: string) {
        FakeSocket.all.push(this);
    }

    send(data: string): void {
        this.sent.push(JSON.parse(data));
    }

    close(): void {
        this.readyState = 3;
    }

    // What a test makes happen.

    open(): void {
        this.readyState = 1;
        this.onopen?.({});
    }

    push(push: Push | { type: string }): void {
        this.onmessage?.({ data: JSON.stringify(push) });
    }

    end(code = 1006, reason = ""): void {
        this.readyState = 3;
        this.onclose?.({ code, reason });
    }

    signIn(more: object = {}): void {
        this.open();
        this.push({
            type: "connected", request: this.of("connect").at(-1)?.request ?? 0, version: 1, session: "1", node: "n", user: "alice",
            ping_interval_ms: 30_000, pong_timeout_ms: 5_000, message_bytes_max: 65_536, rooms_max: 128, requests_in_flight_max: 64,
            inbox_recovered: true, inbox: { epoch: "7", offset: "0" }, server_time_ms: "0", expires_in_ms: "0", dedup_window_ms: 300_000,
            ...more,
        });
    }

    of<Type extends Request["type"]>(type: Type): Extract<Request, { type: Type }>[] {
        return this.sent.filter((frame) => frame.type === type) as never;
    }

    inboxMessage(offset: number, more: Partial<WireMessage> = {}): void {
        this.push({ type: "message", topic: "@alice", sender: "bob", payload: `m${offset}`, stamp: stamp(offset), ...more } as Push);
    }

    published(request: number, id: string | undefined, offset = 1): void {
        const push = { type: "published", request, stamp: stamp(offset), durability: "memory", duplicate: false } as const;
        this.push(id === undefined ? push : { ...push, client_message_id: id });
    }
}

export function stamp(offset: number) {
    return { position: { epoch: "7", offset: String(offset) }, message_id: "1", timestamp_ms: "1000" };
}

/** Virtual time, and a client at a gateway that the test plays. */
export class World {
    #now = 0;
    readonly client: Client;
    readonly states: State[] = [];

    constructor(options: Partial<Options> = {}) {
        FakeSocket.all = [];
        mock.timers.enable({ apis: ["setTimeout"] });
        mock.method(performance, "now", () => this.#now);
        this.client = new Client({ url: "ws://gateway/ws", token: () => "t", WebSocket: FakeSocket as never, random: () => 0.5, ...options });
        this.client.on("state", (state) => this.states.push(state));
    }

    get socket(): FakeSocket {
        const socket = FakeSocket.all.at(-1);
        if (!socket) {
            throw new Error("the client has made no connection");
        }
        return socket;
    }

    get connections(): number {
        return FakeSocket.all.length;
    }

    /** Starts the client and signs it in. */
    async started(more: object = {}): Promise<FakeSocket> {
        const starting = this.client.start();
        await settled();
        this.socket.signIn(more);
        await starting;
        return this.socket;
    }

    /** Lets time pass, in steps that no timer is skipped by. */
    async pass(ms: number): Promise<void> {
        for (let left = ms; left > 0; left -= 100) {
            this.#now += Math.min(left, 100);
            mock.timers.tick(Math.min(left, 100));
            await settled();
        }
    }

    /** Lets time pass until the client has made another connection. */
    async nextConnection(): Promise<void> {
        for (const before = this.connections; this.connections === before; ) {
            if (this.client.state.name !== "waiting" && this.client.state.name !== "connecting") {
                throw new Error(`the client does not come back: ${this.client.state.name}`);
            }
            await this.pass(100);
        }
    }

    end(): void {
        if (this.client.state.name !== "stopped") {
            this.client.stop();
        }
        mock.timers.reset();
        mock.restoreAll();
    }
}

/** Promises that are ready have run. */
export async function settled(): Promise<void> {
    for (let turn = 0; turn < 20; turn++) {
        await Promise.resolve();
    }
}
