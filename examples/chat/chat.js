// A chat page on the ringgate client. Messages are JSON of this page's own: {"text": "..."}; hints, which are in no log, are {"typing": true} and
// {"delivered" or "read": message id} of the message that they are about.
import { Client, IndexedDbCursors } from "./ringgate.js";
import { Messages } from "./store.js";

const $ = (id) => document.getElementById(id);
const PAGE_OF_HISTORY = 40;
const TYPING_MS = 4000;
const PRESENCE_EVERY_MS = 5000;
const MARKS = { sending: "…", stored: "✓", delivered: "✓✓", read: "read", failed: "not sent" };

const settings = new URLSearchParams(location.search);
let client;
let messages;
let me = "";
let current;
/** By their key: "chat:general" for a room, "@bob" for a person. */
const conversations = new Map();

// ---------------------------------------------------------------- signing in

if (settings.has("side-by-side")) {
    $("sign-in").hidden = true;
    $("side-by-side").hidden = false;
    for (const name of ["alice", "bob"]) {
        const frame = document.createElement("iframe");
        Object.assign(frame, { src: `?user=${name}`, title: `The chat of ${name}` });
        $("side-by-side").append(frame);
    }
} else if (settings.get("user")) {
    void signIn(settings.get("user"));
} else {
    $("sign-in").querySelector("form").addEventListener("submit", (event) => {
        event.preventDefault();
        void signIn($("name").value.trim());
    });
    $("name").focus();
}

/** Where the gateway is, and a token: the demo's own page says both. A real one asks its own server. */
async function session(user) {
    const answer = await fetch(`session?user=${encodeURIComponent(user)}`);
    if (!answer.ok) {
        throw new Error(await answer.text());
    }
    return answer.json();
}

async function signIn(user) {
    try {
        const { url } = await session(user);
        me = user;
        messages = new Messages(user);
        await showKept();
        client = new Client({
            url,
            token: async () => (await session(user)).token,
            device: "page",
            client: "ringgate-chat/0.1",
            cursors: new IndexedDbCursors(`ringgate-chat-${user}`),
        });
        client.on("state", showState);
        client.on("message", take);
        client.on("lost", ({ topic }) => note(conversations.get(topic) ?? current, "Messages were lost here: the gateway does not have them any more."));
        client.on("removed", ({ room, code }) => note(conversations.get(room), `You are not in this room any more (${code}).`));
        $("me").textContent = user;
        $("sign-in").hidden = true;
        $("chat").hidden = false;
        await client.start();
        await Promise.all(["general", "random"].map(openRoom));
        // A phone begins with the list; side by side, with the conversation.
        show(conversations.get("chat:general"), window.top === window && matchMedia("(max-width: 44rem)").matches);
        setInterval(showPresence, PRESENCE_EVERY_MS);
    } catch (error) {
        $("chat").hidden = true;
        $("sign-in").hidden = false;
        $("sign-in-error").textContent = `That did not work: ${error.message}`;
    }
}

function showState(state) {
    const texts = {
        connecting: "connecting …",
        connected: `connected to ${state.connected?.node}`,
        waiting: `no connection, again in ${Math.ceil(state.ms / 1000)} s`,
        stopped: "signed out",
    };
    $("state").textContent = texts[state.name] ?? "";
    $("state").dataset.state = state.name;
    const banner = {
        waiting: "The connection is lost. What you write is sent as soon as it is back.",
        stopped: state.code === 4500 ? "You are signed in with this name in another window. Load this page again to come back." : `Signed out: ${state.reason}`,
    }[state.name];
    $("banner").textContent = banner ?? "";
    $("banner").hidden = banner === undefined;
    if (state.name === "connected") {
        void showPresence();
    }
}

// ---------------------------------------------------------------- conversations

function conversation(key) {
    let found = conversations.get(key);
    if (!found) {
        const isRoom = !key.startsWith("@");
        const topic = isRoom ? key : `@${me}`;
        found = { key, isRoom, topic, title: isRoom ? key.split(":")[1] : key.slice(1), entries: [], oldest: undefined, more: isRoom, unread: 0, typing: new Map(), loading: false };
        conversations.set(key, found);
        listConversations();
    }
    return found;
}

async function openRoom(name) {
    const room = conversation(`chat:${name}`);
    await client.join(room.key);
    await older(room);
    return room;
}

/** What was written to people and came from them before. */
async function showKept() {
    for (const { id, key, sender, text, time } of await messages.all()) {
        add(conversation(key), render({ id, mine: sender === me, time: new Date(time) }, sender, text, sender === me ? "stored" : undefined));
    }
}

const personOf = (message) => message.sentTo ?? `@${message.sender}`;

function listConversations() {
    for (const [list, isRoom] of [[$("rooms"), true], [$("people"), false]]) {
        const items = [...conversations.values()].filter((one) => one.isRoom === isRoom).map((one) => {
            const item = document.createElement("li");
            const button = item.appendChild(document.createElement("button"));
            button.append(one.isRoom ? `# ${one.title}` : one.title);
            button.setAttribute("aria-current", String(one === current));
            if (one.unread) {
                const unread = button.appendChild(document.createElement("span"));
                unread.className = "unread";
                unread.textContent = one.unread;
                unread.setAttribute("aria-label", `${one.unread} unread`);
            }
            button.addEventListener("click", () => show(one));
            return item;
        });
        list.replaceChildren(...items);
    }
}

function show(one, isInBackground = false) {
    current = one;
    one.unread = 0;
    $("title").textContent = one.isRoom ? `# ${one.title}` : one.title;
    $("chat").toggleAttribute("data-open", !isInBackground);
    $("log").replaceChildren(...one.entries.map((entry) => entry.element));
    $("log").scrollTop = $("log").scrollHeight;
    listConversations();
    showTyping();
    void showPresence();
    sayRead(one);
    if (!isInBackground && matchMedia("(hover: hover)").matches) {
        $("text").focus();
    }
}

async function showPresence() {
    const one = current;
    if (!one?.isRoom || client.state.name !== "connected") {
        $("presence").textContent = "";
        return;
    }
    const { count, members } = await client.presence(one.key, 20).catch(() => ({ count: 0, members: [] }));
    if (one === current) {
        const names = [...new Set(members.map(({ user }) => user))].sort();
        $("presence").textContent = `${count} here: ${names.join(", ")}${count > members.length ? " …" : ""}`;
    }
}

// ---------------------------------------------------------------- messages

function take(message) {
    const content = contentOf(message);
    const one = conversation(message.topic === `@${me}` ? personOf(message) : message.topic);
    if (message.isEphemeral) {
        return hinted(one, message.sender, content);
    }
    if (message.sender === me && one.entries.some((entry) => entry.id === message.stamp.message_id)) {
        return;
    }
    one.typing.delete(message.sender);
    add(one, entryOf(message));
    showTyping();
    // The client acknowledges the message when it is kept.
    const kept = one.isRoom ? undefined : keep(one, message.stamp, message.sender, content.text ?? "");
    if (message.sender === me) {
        return kept;
    }
    if (!one.isRoom) {
        client.hint(one.key, JSON.stringify({ delivered: message.stamp.message_id }));
    }
    if (one === current && document.visibilityState === "visible" && isOpen()) {
        sayRead(one);
    } else {
        one.unread += 1;
        listConversations();
    }
    return kept;
}

function keep(one, stamp, sender, text) {
    return messages.keep({ id: stamp.message_id, key: one.key, sender, text, time: Number(stamp.timestamp_ms) });
}

const isOpen = () => $("chat").hasAttribute("data-open") || !matchMedia("(max-width: 44rem)").matches;

function contentOf(message) {
    try {
        const content = message.json();
        return typeof content === "object" && content !== null ? content : { text: String(content) };
    } catch {
        return { text: message.text };
    }
}

function hinted(one, sender, content) {
    if (sender === me) {
        return;
    }
    if (content.typing) {
        clearTimeout(one.typing.get(sender));
        one.typing.set(sender, setTimeout(() => { one.typing.delete(sender); showTyping(); }, TYPING_MS));
        showTyping();
    }
    for (const mark of ["delivered", "read"]) {
        const index = one.entries.findIndex((entry) => entry.mine && entry.id === content[mark]);
        // Read is said of the last message, and means all before it.
        one.entries.slice(mark === "read" ? 0 : Math.max(index, 0), index + 1).forEach((entry) => entry.mine && setMark(entry, mark));
    }
}

function showTyping() {
    const names = [...(current?.typing.keys() ?? [])];
    $("typing").textContent = names.length ? `${names.join(", ")} ${names.length > 1 ? "are" : "is"} typing …` : "";
}

function sayRead(one) {
    const last = one.entries.findLast((entry) => !entry.mine && entry.id);
    if (!one.isRoom && last && last.id !== one.saidRead) {
        one.saidRead = last.id;
        client.hint(one.key, JSON.stringify({ read: last.id }));
    }
}

function entryOf(message) {
    const mine = message.sender === me;
    const entry = { id: message.stamp?.message_id, mine, time: message.time };
    return render(entry, message.sender, contentOf(message).text ?? "", mine ? "stored" : undefined);
}

function render(entry, sender, text, mark) {
    const element = document.createElement("article");
    element.className = `message${entry.mine ? " mine" : ""}`;
    if (!entry.mine) {
        const who = element.appendChild(document.createElement("span"));
        who.className = "who";
        who.textContent = sender;
    }
    const body = element.appendChild(document.createElement("span"));
    body.className = "text";
    body.textContent = text;
    const when = element.appendChild(document.createElement("span"));
    when.className = "when";
    entry.element = element;
    entry.when = when;
    setMark(entry, mark);
    return entry;
}

function setMark(entry, mark) {
    const order = Object.keys(MARKS);
    if (entry.mark && mark && order.indexOf(mark) < order.indexOf(entry.mark)) {
        return;
    }
    entry.mark = mark;
    const time = entry.time.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
    entry.when.textContent = mark ? `${time} ${MARKS[mark]}` : time;
    entry.element.classList.toggle("failed", mark === "failed");
}

function add(one, entry) {
    one.entries.push(entry);
    if (one === current) {
        const log = $("log");
        const isAtEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 80;
        log.append(entry.element);
        if (isAtEnd || entry.mine) {
            log.scrollTop = log.scrollHeight;
        }
    }
}

function note(one, text) {
    if (one) {
        const element = Object.assign(document.createElement("p"), { className: "note", textContent: text });
        add(one, { element, mine: false });
    }
}

/** The page of history before what is shown. */
async function older(one) {
    if (one.loading || !one.more) {
        return;
    }
    one.loading = true;
    try {
        const { messages, more } = await client.history(one.topic, { limit: PAGE_OF_HISTORY, ...(one.oldest ? { before: one.oldest } : {}) });
        one.more = more;
        one.oldest = messages[0]?.stamp.position ?? one.oldest;
        const known = new Set(one.entries.map((entry) => entry.id));
        const entries = messages.map(entryOf).filter((entry) => !known.has(entry.id));
        one.entries.unshift(...entries);
        if (one === current) {
            const log = $("log");
            const fromEnd = log.scrollHeight - log.scrollTop;
            log.prepend(...entries.map((entry) => entry.element));
            log.scrollTop = log.scrollHeight - fromEnd;
        }
    } finally {
        one.loading = false;
    }
}

// ---------------------------------------------------------------- what the user does

async function send() {
    const text = $("text").value.trim();
    const one = current;
    if (!text || !one) {
        return;
    }
    $("text").value = "";
    grow();
    const entry = render({ mine: true, time: new Date() }, me, text, "sending");
    add(one, entry);
    try {
        const { stamp } = await client.publish(one.key, JSON.stringify({ text }));
        // In a room this message comes back, too: it may have been shown already.
        if (one.entries.some((other) => other.id === stamp.message_id)) {
            one.entries.splice(one.entries.indexOf(entry), 1);
            return entry.element.remove();
        }
        entry.id = stamp.message_id;
        setMark(entry, "stored");
        if (!one.isRoom) {
            await keep(one, stamp, me, text);
        }
    } catch (error) {
        setMark(entry, "failed");
        note(one, `The message was not sent: ${error.message}`);
    }
}

function grow() {
    const text = $("text");
    text.style.height = "auto";
    text.style.height = `${text.scrollHeight + 2}px`;
}

let saidTypingAt = 0;
$("text").addEventListener("input", () => {
    grow();
    if (current && Date.now() - saidTypingAt > TYPING_MS / 2) {
        saidTypingAt = Date.now();
        client.hint(current.key, JSON.stringify({ typing: true }));
    }
});
$("text").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        void send();
    }
});
$("composer").addEventListener("submit", (event) => {
    event.preventDefault();
    void send();
});
$("log").addEventListener("scroll", () => {
    if (current?.isRoom && $("log").scrollTop < 60) {
        void older(current);
    }
});
$("back").addEventListener("click", () => {
    $("chat").removeAttribute("data-open");
    $("rooms").querySelector("button")?.focus();
});
for (const [form, input, open] of [["add-room", "room-name", openRoom], ["add-person", "person-name", async (name) => conversation(`@${name}`)]]) {
    $(form).addEventListener("submit", async (event) => {
        event.preventDefault();
        const name = $(input).value.trim();
        $(input).value = "";
        if (name) {
            show(await open(name));
        }
    });
}
document.addEventListener("visibilitychange", () => {
    if (document.visibilityState === "visible" && current && client) {
        current.unread = 0;
        sayRead(current);
        listConversations();
    }
});
