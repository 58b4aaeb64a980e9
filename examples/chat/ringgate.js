// src/backoff.ts
var Backoff = class {
  constructor(random) {
    this.random = random;
  }
  random;
  #attempts = 0;
  attempted() {
    this.#attempts += 1;
  }
  /** A connection has lasted for 5 s. */
  isGood() {
    this.#attempts = 0;
  }
  /** After an attempt that failed, or a connection that ended without Goodbye. */
  waitMs() {
    return this.random() * Math.min(2e4, 500 * 2 ** this.#attempts);
  }
  /** After a Goodbye that allows to come back. */
  waitAfterGoodbyeMs(afterMs) {
    return this.#attempts === 0 ? afterMs : Math.max(afterMs, this.waitMs());
  }
};

// src/cursors.ts
var MemoryCursors = class {
  #positions = /* @__PURE__ */ new Map();
  async load() {
    return new Map(this.#positions);
  }
  async save(topic, position) {
    this.#positions.set(topic, position);
  }
  async forget(topic) {
    this.#positions.delete(topic);
  }
};
var STORE = "cursors";
var IndexedDbCursors = class {
  #database;
  constructor(name) {
    this.#database = new Promise((resolve, reject) => {
      const opening = indexedDB.open(name, 1);
      opening.onupgradeneeded = () => opening.result.createObjectStore(STORE);
      opening.onsuccess = () => resolve(opening.result);
      opening.onerror = () => reject(opening.error);
    });
  }
  async load() {
    const positions = /* @__PURE__ */ new Map();
    await this.#run("readonly", (store) => {
      const reading = store.openCursor();
      reading.onsuccess = () => {
        if (reading.result) {
          positions.set(String(reading.result.key), reading.result.value);
          reading.result.continue();
        }
      };
    });
    return positions;
  }
  save(topic, position) {
    return this.#run("readwrite", (store) => store.put(position, topic));
  }
  forget(topic) {
    return this.#run("readwrite", (store) => store.delete(topic));
  }
  async #run(mode, work) {
    const transaction = (await this.#database).transaction(STORE, mode);
    const done = new Promise((resolve, reject) => {
      transaction.oncomplete = () => resolve();
      transaction.onerror = transaction.onabort = () => reject(transaction.error);
    });
    work(transaction.objectStore(STORE));
    return done;
  }
};

// src/errors.ts
var RequestError = class extends Error {
  constructor(code, message, temporary) {
    super(`${code}: ${message}`);
    this.code = code;
    this.temporary = temporary;
  }
  code;
  temporary;
  name = "RequestError";
};
var UndecidedError = class extends Error {
  name = "UndecidedError";
};
var StoppedError = class extends Error {
  name = "StoppedError";
};

// src/events.ts
var Events = class {
  #listeners = new globalThis.Map();
  /** Calls the listener at each event of this name. Returns a function that ends that. */
  on(name, listener) {
    const listeners = this.#listeners.get(name) ?? /* @__PURE__ */ new Set();
    this.#listeners.set(name, listeners.add(listener));
    return () => {
      listeners.delete(listener);
    };
  }
  /** What the listeners return, in the order in which they were added. */
  emit(name, event) {
    const listeners = [...this.#listeners.get(name) ?? []];
    return listeners.map((listener) => listener(event));
  }
};

// src/heartbeat.ts
var Heartbeat = class {
  constructor(intervalMs, timeoutMs, now, ping, dead) {
    this.intervalMs = intervalMs;
    this.timeoutMs = timeoutMs;
    this.now = now;
    this.ping = ping;
    this.dead = dead;
    this.#sentAt = this.#receivedAt = now();
    this.#schedule();
  }
  intervalMs;
  timeoutMs;
  now;
  ping;
  dead;
  #timer;
  #sentAt = 0;
  #receivedAt = 0;
  /** When a Ping was sent that nothing has followed yet. */
  #askedAt;
  sent() {
    this.#sentAt = this.now();
  }
  received() {
    this.#receivedAt = this.now();
    if (this.#askedAt !== void 0) {
      this.#askedAt = void 0;
      this.#schedule();
    }
  }
  /** Asks at once: the network has changed, or the page was asleep. */
  ask() {
    if (this.#askedAt === void 0) {
      this.#askedAt = this.now();
      this.ping();
      this.#schedule();
    }
  }
  stop() {
    clearTimeout(this.#timer);
  }
  #schedule() {
    clearTimeout(this.#timer);
    const due = this.#askedAt === void 0 ? Math.min(this.#sentAt, this.#receivedAt) + this.intervalMs : this.#askedAt + this.timeoutMs;
    this.#timer = setTimeout(() => this.#look(), Math.max(due - this.now(), 0));
  }
  #look() {
    if (this.#askedAt !== void 0) {
      return this.now() >= this.#askedAt + this.timeoutMs ? this.dead() : this.#schedule();
    }
    if (this.now() >= Math.min(this.#sentAt, this.#receivedAt) + this.intervalMs) {
      return this.ask();
    }
    this.#schedule();
  }
};

// src/wire.ts
function isAtOrBefore(position, other) {
  return other !== void 0 && position.epoch === other.epoch && BigInt(position.offset) <= BigInt(other.offset);
}
function toBase64(bytes) {
  let binary = "";
  for (let at = 0; at < bytes.length; at += 8192) {
    binary += String.fromCharCode(...bytes.subarray(at, at + 8192));
  }
  return btoa(binary);
}
function fromBase64(text) {
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
}

// src/message.ts
var Message = class {
  /** "@" and the user's own id for the inbox, else the room. */
  topic;
  sender;
  /** In a copy of what another device of this user has sent: to whom, as "@bob". */
  sentTo;
  trace;
  stamp;
  #wire;
  constructor(wire) {
    this.#wire = wire;
    this.topic = wire.topic;
    this.sender = wire.sender;
    this.sentTo = wire.sent_to;
    this.trace = wire.trace;
    this.stamp = wire.stamp;
  }
  /** Whether it is in no log: a hint, such as that somebody is typing. */
  get isEphemeral() {
    return this.stamp === void 0 || this.stamp.position.offset === "0";
  }
  /** By the gateway's clock. */
  get time() {
    return new Date(Number(this.stamp?.timestamp_ms ?? 0));
  }
  get bytes() {
    const { payload, payload_base64 } = this.#wire;
    return payload_base64 === void 0 ? new TextEncoder().encode(payload ?? "") : fromBase64(payload_base64);
  }
  /** The payload as text; bytes that are not UTF-8 become U+FFFD. */
  get text() {
    return this.#wire.payload ?? new TextDecoder().decode(this.bytes);
  }
  /** The payload as JSON. Throws where it is none. */
  json() {
    return JSON.parse(this.text);
  }
};

// src/requests.ts
var Requests = class {
  /** `send` is called at once and for each repetition; false means that there is no connection, and that {@link sendAll} will follow. */
  constructor(send) {
    this.send = send;
  }
  send;
  #waiting = /* @__PURE__ */ new Map();
  #last = 0;
  number() {
    this.#last = this.#last % 4294967295 + 1;
    return this.#last;
  }
  ask(frame, limitMs) {
    return new Promise((resolve, reject) => {
      const giveUp = setTimeout(() => {
        this.#take(frame.request)?.reject(new UndecidedError(`${frame.type} was not answered within ${limitMs} ms`));
      }, limitMs);
      this.#waiting.set(frame.request, { frame, resolve, reject, giveUp });
      this.send(frame);
    });
  }
  /** After a Connect: everything again. */
  sendAll() {
    for (const waiting of this.#waiting.values()) {
      clearTimeout(waiting.again);
      this.send(waiting.frame);
    }
  }
  answered(answer) {
    this.#take(answer.request)?.resolve(answer);
  }
  refused(refusal) {
    const waiting = this.#waiting.get(refusal.request);
    if (waiting && refusal.temporary) {
      clearTimeout(waiting.again);
      waiting.again = setTimeout(() => this.send(waiting.frame), Math.max(refusal.retry_after_ms, 100));
      return;
    }
    const error = new RequestError(refusal.code, refusal.message ?? "refused", false);
    this.#take(refusal.request)?.reject(error);
  }
  /** Nothing will be answered any more. */
  rejectAll(error) {
    for (const request of [...this.#waiting.keys()]) {
      this.#take(request)?.reject(error);
    }
  }
  #take(request) {
    const waiting = this.#waiting.get(request);
    this.#waiting.delete(request);
    clearTimeout(waiting?.giveUp);
    clearTimeout(waiting?.again);
    return waiting;
  }
};

// src/client.ts
var SUBPROTOCOL = "ringgate.json.v1";
var OPEN = 1;
var SOCKET_TIMEOUT_MS = 1e4;
var CONNECTED_TIMEOUT_MS = 15e3;
var GOOD_AFTER_MS = 5e3;
var ACK_AFTER_MS = 1e3;
var ACK_EVERY = 64;
var ROOMS_IN_CONNECT_MAX = 128;
var DEDUP_WINDOW_MS = 3e5;
var ANSWER_LIMIT_MS = 6e4;
var REFRESH_AT = 0.8;
var BROKEN_RULES = [1002, 1003, 1007, 1008, 1009];
var INBOX = "@";
var Client = class extends Events {
  #options;
  #urls;
  #cursors;
  #backoff;
  #requests;
  #rooms = /* @__PURE__ */ new Map();
  #state = { name: "idle" };
  #socket;
  #heartbeat;
  #timers = [];
  #attempts = 0;
  #hasHurried = false;
  #goodbye;
  #inbox;
  #unacknowledged = 0;
  #ackTimer;
  /** Messages of the inbox are handed on one after the other. */
  #handling = Promise.resolve();
  #dedupWindowMs = DEDUP_WINDOW_MS;
  constructor(options) {
    super();
    this.#options = options;
    this.#urls = [options.url].flat();
    this.#cursors = options.cursors ?? new MemoryCursors();
    this.#backoff = new Backoff(options.random ?? Math.random);
    this.#requests = new Requests((frame) => this.#send(frame));
  }
  get state() {
    return this.#state;
  }
  /** Begins to connect. Resolves when the client is connected for the first time; rejects if it is stopped before. */
  async start() {
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
  stop() {
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
  publish(topic, payload, more = {}) {
    this.#mustRun();
    return this.#requests.ask(
      {
        type: "publish",
        request: this.#requests.number(),
        topic,
        client_message_id: randomId(),
        ...encoded(payload),
        ...more.ttlSeconds === void 0 ? {} : { ttl_seconds: more.ttlSeconds },
        ...more.trace === void 0 ? {} : { trace: more.trace }
      },
      this.#dedupWindowMs
    );
  }
  /** Tells those who are connected now, such as that somebody is typing. Nobody answers, nothing is repeated. */
  hint(topic, payload) {
    if (this.#state.name === "connected") {
      this.#send({ type: "publish", request: 0, topic, ephemeral: true, ...encoded(payload) });
    }
  }
  /**
   * Joins a room, and stays in it over new connections. Resolves with whether everything after the last known position follows; rejects with
   * the reason if the gateway refuses.
   */
  join(room, recover = "best") {
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
  async leave(room) {
    this.#mustRun();
    this.#rooms.get(room)?.joining.forEach(({ reject }) => reject(new Error(`left ${room}`)));
    this.#rooms.delete(room);
    await this.#cursors.forget(room);
    if (this.#state.name === "connected") {
      await this.#requests.ask({ type: "unsubscribe", request: this.#requests.number(), room }, ANSWER_LIMIT_MS);
    }
  }
  /** Who is in a room: the number of sessions, and at most so many of them. */
  async presence(room, limit = 100) {
    this.#mustRun();
    const frame = { type: "presence", request: this.#requests.number(), room, limit };
    const { count, members } = await this.#requests.ask(frame, ANSWER_LIMIT_MS);
    return { count, members };
  }
  /**
   * Messages of a room, or of the own inbox, oldest first: the newest ones, those before a position, or those after one. `more` says whether the log
   * holds more in that direction.
   */
  async history(topic, range = {}) {
    this.#mustRun();
    const { before, since, limit = 50 } = range;
    const place = { ...before ? { before } : {}, ...since ? { since } : {} };
    const frame = { type: "history", request: this.#requests.number(), topic, ...place, limit };
    const { messages, more } = await this.#requests.ask(frame, ANSWER_LIMIT_MS);
    return { messages: messages.map((message) => new Message(message)), more };
  }
  // Connecting.
  async #attempt() {
    this.#become({ name: "connecting" });
    this.#backoff.attempted();
    const url = this.#urls[this.#attempts++ % this.#urls.length] ?? "";
    let token;
    try {
      token = await this.#options.token();
    } catch (error) {
      return this.#waitFor(this.#backoff.waitMs(), `no token: ${error}`);
    }
    if (this.#state.name !== "connecting") {
      return;
    }
    const Constructor = this.#options.WebSocket ?? globalThis.WebSocket;
    const socket = new Constructor(url, SUBPROTOCOL);
    this.#socket = socket;
    this.#goodbye = void 0;
    this.#later(SOCKET_TIMEOUT_MS, () => this.#lost(socket, "the connection was not open in time"));
    socket.onopen = () => this.#opened(socket, token);
    socket.onmessage = (event) => this.#received(socket, event.data);
    socket.onerror = () => {
    };
    socket.onclose = (event) => this.#closed(socket, event.code ?? 1006, event.reason ?? "");
  }
  #opened(socket, token) {
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
      ...device === void 0 ? {} : { device },
      client: client ?? "ringgate-ts/0.1",
      ...this.#inbox ? { inbox: this.#inbox } : {},
      ...pingIntervalMs === void 0 ? {} : { ping_interval_ms: pingIntervalMs },
      rooms: [...this.#rooms].slice(0, ROOMS_IN_CONNECT_MAX).map(([name, room]) => cursor(name, room))
    });
  }
  #connected(socket, connected) {
    this.#forgetTimers();
    this.#hasHurried = false;
    this.#dedupWindowMs = connected.dedup_window_ms || DEDUP_WINDOW_MS;
    this.#heartbeat = new Heartbeat(
      connected.ping_interval_ms,
      connected.pong_timeout_ms,
      monotonicMs,
      () => this.#send({ type: "ping" }),
      () => this.#lost(socket, "the gateway is silent")
    );
    this.#later(GOOD_AFTER_MS, () => this.#backoff.isGood());
    this.#refreshLater(Number(connected.expires_in_ms));
    if (!connected.inbox_recovered) {
      this.#inbox = void 0;
      void this.#cursors.forget(INBOX);
      this.emit("lost", { topic: INBOX + connected.user });
    }
    for (const [name, room] of [...this.#rooms].slice(ROOMS_IN_CONNECT_MAX)) {
      this.#subscribe(name, room);
    }
    this.#requests.sendAll();
    this.#become({ name: "connected", connected });
  }
  #closed(socket, code, reason) {
    if (socket !== this.#socket) {
      return;
    }
    const isFinal = code >= 3500 && code < 4e3 || code >= 4500 && code < 5e3 || BROKEN_RULES.includes(code);
    if (this.#goodbye === void 0 && isFinal) {
      return this.#stopped({ name: "stopped", code, reason });
    }
    this.#lost(socket, reason || `the connection was closed with ${code}`);
  }
  /** The connection is over, or as good as over. */
  #lost(socket, reason) {
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
  #waitFor(ms, reason) {
    this.#become({ name: "waiting", ms, reason });
    this.#later(ms, () => void this.#attempt());
  }
  #stopped(state) {
    this.#hangUp();
    const error = new StoppedError(state.reason);
    this.#requests.rejectAll(error);
    for (const room of this.#rooms.values()) {
      room.joining.splice(0).forEach(({ reject }) => reject(error));
    }
    this.#unwatchPage?.();
    this.#become(state);
  }
  #hangUp() {
    this.#forgetTimers();
    clearTimeout(this.#ackTimer);
    this.#ackTimer = void 0;
    this.#heartbeat?.stop();
    this.#heartbeat = void 0;
    const socket = this.#socket;
    this.#socket = void 0;
    socket?.close(1e3);
  }
  // What comes.
  #received(socket, data) {
    if (socket !== this.#socket || typeof data !== "string") {
      return;
    }
    this.#heartbeat?.received();
    let push;
    try {
      push = JSON.parse(data);
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
        return push.room === void 0 ? this.#requests.refused(push) : this.#roomRefused(push.room, push);
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
  #inboxMessage(message) {
    this.#handling = this.#handling.then(async () => {
      const position = message.isEphemeral ? void 0 : message.stamp?.position;
      if (position && isAtOrBefore(position, this.#inbox)) {
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
  #roomMessage(message) {
    const room = this.#rooms.get(message.topic);
    const position = message.isEphemeral ? void 0 : message.stamp?.position;
    if (!room || position && isAtOrBefore(position, room.position)) {
      return;
    }
    if (position) {
      room.position = position;
      void this.#cursors.save(message.topic, position);
    }
    void this.#handOn(message);
  }
  async #handOn(message) {
    try {
      await Promise.all(this.emit("message", message));
    } catch (error) {
      this.emit("failed", error);
    }
  }
  #acknowledgeLater() {
    this.#unacknowledged += 1;
    if (this.#unacknowledged >= ACK_EVERY) {
      return this.#acknowledge();
    }
    this.#ackTimer ??= setTimeout(() => this.#acknowledge(), ACK_AFTER_MS);
  }
  #acknowledge() {
    clearTimeout(this.#ackTimer);
    this.#ackTimer = void 0;
    if (this.#inbox && this.#unacknowledged > 0 && this.#state.name === "connected") {
      this.#unacknowledged = 0;
      this.#send({ type: "ack", position: this.#inbox });
    }
  }
  // Rooms.
  #subscribe(name, room) {
    this.#send({ type: "subscribe", request: this.#requests.number(), ...cursor(name, room) });
  }
  #subscribed(subscribed) {
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
  #roomRefused(name, refusal) {
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
  #removed(room, code) {
    if (this.#rooms.delete(room)) {
      this.emit("removed", { room, code });
    }
  }
  // The token, the page, the clock.
  #refreshLater(expiresInMs) {
    const TIMER_MS_MAX = 2147483647;
    if (expiresInMs > 0) {
      this.#later(Math.min(expiresInMs * REFRESH_AT, TIMER_MS_MAX), () => void this.#refresh());
    }
  }
  async #refresh() {
    try {
      const token = await this.#options.token();
      await this.#requests.ask({ type: "refresh", request: this.#requests.number(), token }, ANSWER_LIMIT_MS);
    } catch (error) {
      this.emit("failed", error);
    }
  }
  #unwatchPage;
  /** A page that wakes, or whose network changes, does not wait for a timer to find out whether its connection lives. */
  #watchPage() {
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
  #lookNow() {
    if (this.#state.name === "connected") {
      this.#heartbeat?.ask();
    } else if (this.#state.name === "waiting" && !this.#hasHurried && globalThis.navigator?.onLine !== false) {
      this.#hasHurried = true;
      this.#forgetTimers();
      void this.#attempt();
    }
  }
  #mustRun() {
    if (this.#state.name === "stopped") {
      throw new StoppedError(this.#state.reason);
    }
  }
  #send(frame) {
    const isFirst = frame.type === "connect";
    if (this.#socket?.readyState === OPEN && (isFirst || this.#heartbeat)) {
      this.#socket.send(JSON.stringify(frame));
      this.#heartbeat?.sent();
    }
  }
  #become(state) {
    this.#state = state;
    this.emit("state", state);
  }
  /** A timer of this connection, or of the wait for the next one. */
  #later(ms, work) {
    this.#timers.push(setTimeout(work, ms));
  }
  #forgetTimers() {
    this.#timers.splice(0).forEach((timer) => clearTimeout(timer));
  }
};
function cursor(name, room) {
  return { room: name, recover: room.recover, ...room.position ? { since: room.position } : {} };
}
function encoded(payload) {
  return typeof payload === "string" ? { payload } : { payload_base64: toBase64(payload) };
}
function randomId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
function monotonicMs() {
  return performance.now();
}
export {
  Client,
  IndexedDbCursors,
  MemoryCursors,
  Message,
  RequestError,
  StoppedError,
  UndecidedError
};
