import { Backoff } from "./backoff.js";
import { type Cursors, MemoryCursors } from "./cursors.js";
import { RequestError, StoppedError } from "./errors.js";
import { Events } from "./events.js";
import { Heartbeat } from "./heartbeat.js";
import { Message } from "./message.js";
import { Requests } from "./requests.js";
import {
    type Connected,
    type Goodbye,
    type Member,
    type Position,
    type Published,
    type Push,
    type Refusal,
    type Request,
    type RoomCursor,
    type Subscribed,
    isAtOrBefore,
    toBase64,
} from "./wire.js";

/** What the client needs of a WebSocket; the browser's, or that of a package. */
export interface Socket {
    readonly readyState: number;
    onopen: ((event: any) => void) | null;
    onmessage: ((event: any) => void) | null;
    onclose: ((event: any) => void) | null;
    onerror: ((event: any) => void) | null;
    send(data: string): void;
    close(code?: number): void;
}

export interface Options {
    /** Where the gateway is, as "wss://chat.example.org/ws". Of several that are linked, each attempt takes the next. */
    url: string | string[];
    /** Called before each attempt to connect, and before the session ends. What it throws counts as a failed attempt. */
    token: () => string | Promise<string>;
    /** Which device of the user this is; a second client of the same device takes the session over. */
    device?: string;
    /** Name and version of the application, for the gateway's logs. */
    client?: string;
    pingIntervalMs?: number;
    /** Where positions are kept; in memory by default. */
    cursors?: Cursors;
    /** Where the platform has no WebSocket, or in tests. */
    WebSocket?: new (url: string, subprotocol: string) => Socket;
    /** From 0 to 1. */
    random?: () => number;
}

export type State =
    | { name: "idle" }
    | { name: "connecting" }
    | { name: "connected"; connected: Connected }
    /** The connection was lost; the next attempt is made after so many milliseconds. */
    | { name: "waiting"; ms: number; reason: string }
    /** For good: `code` is the close code of the gateway, if it was its wish. */
    | { name: "stopped"; code?: number; reason: string };

export interface ClientEvents {
    state: State;
    /**
     * A message of the inbox or of a room. A message of the inbox is acknowledged when what all listeners have returned is settled: a listener that stores
     * messages returns its promise.
     */
    message: Message;
    /** Messages of this topic were lost: they had left the log before this client came back. */
    lost: { topic: string };
    joined: { room: string } & Member;
    left: { room: string } & Member;
    /** The client is not in this room any more: it was refused, or taken away. */
    removed: { room: string; code: number };
    /** What a listener has thrown. */
    failed: unknown;
}

const SUBPROTOCOL = "ringgate.json.v1";
const OPEN = 1;
const SOCKET_TIMEOUT_MS = 10_000;
const CONNECTED_TIMEOUT_MS = 15_000;
const GOOD_AFTER_MS = 5_000;
const ACK_AFTER_MS = 1_000;
const ACK_EVERY = 64;
const ROOMS_IN_CONNECT_MAX = 128;
/** The gateway's own window, until it says another one. */
const DEDUP_WINDOW_MS = 300_000;
const ANSWER_LIMIT_MS = 60_000;
const REFRESH_AT = 0.8;
/** Of Close frames that come without a Goodbye: a client that broke a rule must not come back before it is mended. */
const BROKEN_RULES = [1002, 1003, 1007, 1008, 1009];
const INBOX = "@";

interface Room {
    position?: Position;
    recover: "exact" | "best";
    joining: { resolve: (recovered: boolean) => void; reject: (error: Error) => void }[];
}

/**
 * One device of one user at a gateway. It keeps a connection, comes back as the protocol asks, goes on where it was, and repeats what was not
 * answered: every publish is stored once.
 */
export class Client extends Events<ClientEvents> {
    readonly #options: Options;
    readonly #urls: string[];
    readonly #cursors: Cursors;
    readonly #backoff: Backoff;
    readonly #requests: Requests;
    readonly #rooms = new Map<string, Room>();
    #state: State = { name: "idle" };
    #socket: Socket | undefined;
    #heartbeat: Heartbeat | undefined;
    #timers: ReturnType<typeof setTimeout>[] = [];
    #attempts = 0;
    #hasHurried = false;
    #goodbye: Goodbye | undefined;
    #inbox: Position | undefined;
    #unacknowledged = 0;
    #ackTimer: ReturnType<typeof setTimeout> | undefined;
    /** Messages of the inbox are handed on one after the other. */
    #handling: Promise<void> = Promise.resolve();
    #dedupWindowMs = DEDUP_WINDOW_MS;

    constructor(options: Options) {
        super();
        this.#options = options;
        this.#urls = [options.url].flat();
        this.#cursors = options.cursors ?? new MemoryCursors();
        this.#backoff = new Backoff(options.random ?? Math.random);
        this.#requests = new Requests((frame) => this.#send(frame));
    }

    get state(): State {
        return this.#state;
    }

    /** Begins to connect. Resolves when the client is connected for the first time; rejects if it is stopped before. */
    async start(): Promise<Connected> {
        if (this.#state.name !== "idle") {
            throw new Error("start() was called before");
        }
        this.#become({ name: "connecting" });
        const positions = await this.#cursors.load();
        this.#inbox = positions.get(INBOX);
        for (const [name, room] of this.#rooms) {
            const position = positions.get(name);
            if (position) {
                room.position = position;
            }
        }
        this.#watchPage();
        return new Promise((resolve, reject) => {
            const off = this.on("state", (state) => {
                if (state.name === "connected") {
                    off();
                    resolve(state.connected);
                } else if (state.name === "stopped") {
                    off();
                    reject(new StoppedError(state.reason));
                }
            });
            void this.#attempt();
        });
    }

    /** Leaves for good. Messages come to this device when it starts again. */
    stop(): void {
        if (this.#socket?.readyState === OPEN) {
            this.#acknowledge();
            this.#send({ type: "disconnect" });
        }
        this.#stopped({ name: "stopped", reason: "stop() was called" });
    }

    /**
     * Publishes to a user ("@bob") or a room ("chat:general"), which the client has to be in. Resolves when the gateway has stored it; until
     * then it is repeated, also over new connections, and never stored twice.
     */
    publish(topic: string, payload: string | Uint8Array, more: { ttlSeconds?: number; trace?: string } = {}): Promise<Published> {
        this.#mustRun();
        return this.#requests.ask<Published>(
            {
                type: "publish",
                request: this.#requests.number(),
                topic,
                client_message_id: randomId(),
                ...encoded(payload),
                ...(more.ttlSeconds === undefined ? {} : { ttl_seconds: more.ttlSeconds }),
                ...(more.trace === undefined ? {} : { trace: more.trace }),
            },
            this.#dedupWindowMs,
        );
    }

    /** Tells those who are connected now, such as that somebody is typing. Nobody answers, nothing is repeated. */
    hint(topic: string, payload: string | Uint8Array): void {
        if (this.#state.name === "connected") {
            this.#send({ type: "publish", request: 0, topic, ephemeral: true, ...encoded(payload) });
        }
    }

    /**
     * Joins a room, and stays in it over new connections. Resolves with whether everything after the last known position follows; rejects with
     * the reason if the gateway refuses.
     */
    join(room: string, recover: "exact" | "best" = "best"): Promise<boolean> {
        this.#mustRun();
        return new Promise((resolve, reject) => {
            const known = this.#rooms.get(room);
            const entry = known ?? { recover, joining: [] };
            entry.joining.push({ resolve, reject });
            this.#rooms.set(room, entry);
            if (this.#state.name === "connected") {
                this.#subscribe(room, entry);
            }
        });
    }

    async leave(room: string): Promise<void> {
        this.#mustRun();
        this.#rooms.get(room)?.joining.forEach(({ reject }) => reject(new Error(`left ${room}`)));
        this.#rooms.delete(room);
        await this.#cursors.forget(room);
        if (this.#state.name === "connected") {
            await this.#requests.ask({ type: "unsubscribe", request: this.#requests.number(), room }, ANSWER_LIMIT_MS);
        }
    }

    /** Who is in a room: the number of sessions, and at most so many of them. */
    async presence(room: string, limit = 100): Promise<{ count: number; members: Member[] }> {
        this.#mustRun();
        const frame = { type: "presence", request: this.#requests.number(), room, limit } as const;
        const { count, members } = await this.#requests.ask<Extract<Push, { type: "presence_result" }>>(frame, ANSWER_LIMIT_MS);
        return { count, members };
    }

    /**
     * Messages of a room, or of the own inbox, oldest first: the newest ones, those before a position, or those after one. `more` says whether the log
     * holds more in that direction.
     */
    async history(topic: string, range: { before?: Position; since?: Position; limit?: number } = {}): Promise<{ messages: Message[]; more: boolean }> {
        this.#mustRun();
        const { before, since, limit = 50 } = range;
        const place = { ...(before ? { before } : {}), ...(since ? { since } : {}) };
        const frame = { type: "history", request: this.#requests.number(), topic, ...place, limit } as const;
        const { messages, more } = await this.#requests.ask<Extract<Push, { type: "history_result" }>>(frame, ANSWER_LIMIT_MS);
        return { messages: messages.map((message) => new Message(message)), more };
    }

    // Connecting.

    async #attempt(): Promise<void> {
        this.#become({ name: "connecting" });
        this.#backoff.attempted();
        const url = this.#urls[this.#attempts++ % this.#urls.length] ?? "";
        let token: string;
        try {
            token = await this.#options.token();
        } catch (error) {
            return this.#waitFor(this.#backoff.waitMs(), `no token: ${error}`);
        }
        if (this.#state.name !== "connecting") {
            return;
        }
        const Constructor = this.#options.WebSocket ?? (globalThis.WebSocket as unknown as NonNullable<Options["WebSocket"]>);
        const socket = new Constructor(url, SUBPROTOCOL);
        this.#socket = socket;
        this.#goodbye = undefined;
        this.#later(SOCKET_TIMEOUT_MS, () => this.#lost(socket, "the connection was not open in time"));
        socket.onopen = () => this.#opened(socket, token);
        socket.onmessage = (event) => this.#received(socket, event.data);
        socket.onerror = () => {};
        socket.onclose = (event) => this.#closed(socket, event.code ?? 1006, event.reason ?? "");
    }

    #opened(socket: Socket, token: string): void {
        if (socket !== this.#socket) {
            return;
        }
        this.#forgetTimers();
        this.#later(CONNECTED_TIMEOUT_MS, () => this.#lost(socket, "the gateway did not answer in time"));
        const { device, client, pingIntervalMs } = this.#options;
        this.#send({
            type: "connect",
            request: this.#requests.number(),
            token,
            ...(device === undefined ? {} : { device }),
            client: client ?? "ringgate-ts/0.1",
            ...(this.#inbox ? { inbox: this.#inbox } : {}),
            ...(pingIntervalMs === undefined ? {} : { ping_interval_ms: pingIntervalMs }),
            rooms: [...this.#rooms].slice(0, ROOMS_IN_CONNECT_MAX).map(([name, room]) => cursor(name, room)),
        });
    }

    #connected(socket: Socket, connected: Connected): void {
        this.#forgetTimers();
        this.#hasHurried = false;
        this.#dedupWindowMs = connected.dedup_window_ms || DEDUP_WINDOW_MS;
        this.#heartbeat = new Heartbeat(
            connected.ping_interval_ms,
            connected.pong_timeout_ms,
            monotonicMs,
            () => this.#send({ type: "ping" }),
            () => this.#lost(socket, "the gateway is silent"),
        );
        this.#later(GOOD_AFTER_MS, () => this.#backoff.isGood());
        this.#refreshLater(Number(connected.expires_in_ms));
        if (!connected.inbox_recovered) {
            this.#inbox = undefined;
            void this.#cursors.forget(INBOX);
            this.emit("lost", { topic: INBOX + connected.user });
        }
        for (const [name, room] of [...this.#rooms].slice(ROOMS_IN_CONNECT_MAX)) {
            this.#subscribe(name, room);
        }
        this.#requests.sendAll();
        this.#become({ name: "connected", connected });
    }

    #closed(socket: Socket, code: number, reason: string): void {
        if (socket !== this.#socket) {
            return;
        }
        const isFinal = (code >= 3500 && code < 4000) || (code >= 4500 && code < 5000) || BROKEN_RULES.includes(code);
        if (this.#goodbye === undefined && isFinal) {
            return this.#stopped({ name: "stopped", code, reason });
        }
        this.#lost(socket, reason || `the connection was closed with ${code}`);
    }

    /** The connection is over, or as good as over. */
    #lost(socket: Socket, reason: string): void {
        if (socket !== this.#socket) {
            return;
        }
        const goodbye = this.#goodbye;
        this.#hangUp();
        if (goodbye && !goodbye.reconnect) {
            return this.#stopped({ name: "stopped", code: goodbye.code, reason: goodbye.reason ?? "" });
        }
        const ms = goodbye ? this.#backoff.waitAfterGoodbyeMs(goodbye.after_ms) : this.#backoff.waitMs();
        this.#waitFor(ms, goodbye?.reason ?? reason);
    }

    #waitFor(ms: number, reason: string): void {
        this.#become({ name: "waiting", ms, reason });
        this.#later(ms, () => void this.#attempt());
    }

    #stopped(state: State & { name: "stopped" }): void {
        this.#hangUp();
        const error = new StoppedError(state.reason);
        this.#requests.rejectAll(error);
        for (const room of this.#rooms.values()) {
            room.joining.splice(0).forEach(({ reject }) => reject(error));
        }
        this.#unwatchPage?.();
        this.#become(state);
    }

    #hangUp(): void {
        this.#forgetTimers();
        clearTimeout(this.#ackTimer);
        this.#ackTimer = undefined;
        this.#heartbeat?.stop();
        this.#heartbeat = undefined;
        const socket = this.#socket;
        this.#socket = undefined;
        socket?.close(1000);
    }

    // What comes.

    #received(socket: Socket, data: unknown): void {
        if (socket !== this.#socket || typeof data !== "string") {
            return;
        }
        this.#heartbeat?.received();
        let push: Push;
        try {
            push = JSON.parse(data) as Push;
        } catch {
            return this.#lost(socket, "the gateway sent what is no JSON");
        }
        switch (push.type) {
            case "connected":
                return this.#connected(socket, push);
            case "ping":
                return this.#send({ type: "pong" });
            case "message":
                return push.topic.startsWith(INBOX) ? this.#inboxMessage(new Message(push)) : this.#roomMessage(new Message(push));
            case "subscribed":
                return this.#subscribed(push);
            case "error":
                return push.room === undefined ? this.#requests.refused(push) : this.#roomRefused(push.room, push);
            case "unsubscribed":
                return push.request === 0 ? this.#removed(push.room, push.code) : this.#requests.answered(push);
            case "published":
            case "presence_result":
            case "history_result":
                return this.#requests.answered(push);
            case "refreshed":
                this.#refreshLater(Number(push.expires_in_ms));
                return this.#requests.answered(push);
            case "joined":
            case "left":
                this.emit(push.type, push);
                return;
            case "goodbye":
                this.#goodbye = push;
                return this.#lost(socket, push.reason ?? "");
        }
    }

    #inboxMessage(message: Message): void {
        this.#handling = this.#handling.then(async () => {
            const position = message.isEphemeral ? undefined : message.stamp?.position;
            if (position && isAtOrBefore(position, this.#inbox)) {
                // A repetition: the Ack before was lost, perhaps.
                return this.#acknowledgeLater();
            }
            await this.#handOn(message);
            if (position) {
                this.#inbox = position;
                await this.#cursors.save(INBOX, position);
                this.#acknowledgeLater();
            }
        });
    }

    #roomMessage(message: Message): void {
        const room = this.#rooms.get(message.topic);
        const position = message.isEphemeral ? undefined : message.stamp?.position;
        if (!room || (position && isAtOrBefore(position, room.position))) {
            return;
        }
        if (position) {
            room.position = position;
            void this.#cursors.save(message.topic, position);
        }
        void this.#handOn(message);
    }

    async #handOn(message: Message): Promise<void> {
        try {
            await Promise.all(this.emit("message", message));
        } catch (error) {
            this.emit("failed", error);
        }
    }

    #acknowledgeLater(): void {
        this.#unacknowledged += 1;
        if (this.#unacknowledged >= ACK_EVERY) {
            return this.#acknowledge();
        }
        this.#ackTimer ??= setTimeout(() => this.#acknowledge(), ACK_AFTER_MS);
    }

    #acknowledge(): void {
        clearTimeout(this.#ackTimer);
        this.#ackTimer = undefined;
        if (this.#inbox && this.#unacknowledged > 0 && this.#state.name === "connected") {
            this.#unacknowledged = 0;
            this.#send({ type: "ack", position: this.#inbox });
        }
    }

    // Rooms.

    #subscribe(name: string, room: Room): void {
        this.#send({ type: "subscribe", request: this.#requests.number(), ...cursor(name, room) });
    }

    #subscribed(subscribed: Subscribed): void {
        const room = this.#rooms.get(subscribed.room);
        if (!room) {
            return;
        }
        if (!subscribed.recovered) {
            this.emit("lost", { topic: subscribed.room });
        }
        if (subscribed.start) {
            room.position = subscribed.start;
            void this.#cursors.save(subscribed.room, subscribed.start);
        }
        room.joining.splice(0).forEach(({ resolve }) => resolve(subscribed.recovered));
    }

    #roomRefused(name: string, refusal: Refusal): void {
        const room = this.#rooms.get(name);
        if (!room) {
            return;
        }
        const ALREADY_SUBSCRIBED = 105;
        if (refusal.code === ALREADY_SUBSCRIBED) {
            return room.joining.splice(0).forEach(({ resolve }) => resolve(true));
        }
        if (refusal.temporary) {
            this.#later(Math.max(refusal.retry_after_ms, 100), () => this.#rooms.get(name) === room && this.#subscribe(name, room));
            return;
        }
        const error = new RequestError(refusal.code, refusal.message ?? "refused", false);
        room.joining.splice(0).forEach(({ reject }) => reject(error));
        this.#removed(name, refusal.code);
    }

    #removed(room: string, code: number): void {
        if (this.#rooms.delete(room)) {
            this.emit("removed", { room, code });
        }
    }

    // The token, the page, the clock.

    #refreshLater(expiresInMs: number): void {
        const TIMER_MS_MAX = 0x7fff_ffff;
        if (expiresInMs > 0) {
            this.#later(Math.min(expiresInMs * REFRESH_AT, TIMER_MS_MAX), () => void this.#refresh());
        }
    }

    async #refresh(): Promise<void> {
        try {
            const token = await this.#options.token();
            await this.#requests.ask({ type: "refresh", request: this.#requests.number(), token }, ANSWER_LIMIT_MS);
        } catch (error) {
            // The old token holds until its end; then the gateway says Goodbye 3005, and the next attempt asks for a new one.
            this.emit("failed", error);
        }
    }

    #unwatchPage: (() => void) | undefined;

    /** A page that wakes, or whose network changes, does not wait for a timer to find out whether its connection lives. */
    #watchPage(): void {
        if (typeof globalThis.addEventListener !== "function" || typeof document === "undefined") {
            return;
        }
        const look = () => document.visibilityState === "visible" && this.#lookNow();
        const online = () => this.#lookNow();
        globalThis.addEventListener("online", online);
        globalThis.addEventListener("offline", online);
        globalThis.addEventListener("pageshow", online);
        document.addEventListener("visibilitychange", look);
        this.#unwatchPage = () => {
            globalThis.removeEventListener("online", online);
            globalThis.removeEventListener("offline", online);
            globalThis.removeEventListener("pageshow", online);
            document.removeEventListener("visibilitychange", look);
        };
    }

    #lookNow(): void {
        if (this.#state.name === "connected") {
            this.#heartbeat?.ask();
        } else if (this.#state.name === "waiting" && !this.#hasHurried && globalThis.navigator?.onLine !== false) {
            // Once; if that fails, too, the wait between attempts is kept.
            this.#hasHurried = true;
            this.#forgetTimers();
            void this.#attempt();
        }
    }

    #mustRun(): void {
        if (this.#state.name === "stopped") {
            throw new StoppedError(this.#state.reason);
        }
    }

    #send(frame: Request): void {
        const isFirst = frame.type === "connect";
        if (this.#socket?.readyState === OPEN && (isFirst || this.#heartbeat)) {
            this.#socket.send(JSON.stringify(frame));
            this.#heartbeat?.sent();
        }
    }

    #become(state: State): void {
        this.#state = state;
        this.emit("state", state);
    }

    /** A timer of this connection, or of the wait for the next one. */
    #later(ms: number, work: () => void): void {
        this.#timers.push(setTimeout(work, ms));
    }

    #forgetTimers(): void {
        this.#timers.splice(0).forEach((timer) => clearTimeout(timer));
    }
}

function cursor(name: string, room: Room): RoomCursor {
    return { room: name, recover: room.recover, ...(room.position ? { since: room.position } : {}) };
}

function encoded(payload: string | Uint8Array): { payload: string } | { payload_base64: string } {
    return typeof payload === "string" ? { payload } : { payload_base64: toBase64(payload) };
}

/** A random UUID. `crypto.randomUUID` exists in secure contexts alone. */
function randomId(): string {
    const bytes = crypto.getRandomValues(new Uint8Array(16));
    return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function monotonicMs(): number {
    return performance.now();
}
