/** People at the chat page of `ringgate serve --dev --demo`: what they do with keys and pointer, and what they see. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { connect, createServer } from "node:net";
import { createInterface } from "node:readline";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";

import { chromium } from "playwright-core";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));
const SCREENSHOTS = `${ROOT}target/screenshots`;
const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const DESKTOP = { width: 1200, height: 800 };
const PHONE = { width: 390, height: 844 };

let gateway, page, websocket, browser;

before(async () => {
    mkdirSync(SCREENSHOTS, { recursive: true });
    gateway = spawn(`${ROOT}target/debug/ringgate`, ["serve", "--dev", "--demo", "--shards", "2", "--log-level", "error"], { stdio: ["ignore", "pipe", "inherit"] });
    for await (const line of createInterface({ input: gateway.stdout })) {
        websocket = /^ws:\/\/\S+/.exec(line)?.[0] ?? websocket;
        page = /^chat (http:\S+)/.exec(line)?.[1] ?? page;
        if (line.startsWith("ready")) break;
    }
    browser = await chromium.launch({ executablePath: "/usr/bin/chromium", args: ["--no-sandbox"] });
});

after(async () => {
    await browser?.close();
    gateway?.kill();
});

/** A person's browser, signed in. */
async function signedIn(name, options = {}) {
    const context = await browser.newContext({ viewport: DESKTOP, ...options });
    const tab = await context.newPage();
    const problems = [];
    tab.on("pageerror", (error) => problems.push(String(error)));
    tab.on("console", (message) => message.type() === "error" && problems.push(message.text()));
    if (options.session) {
        await tab.route("**/session?*", async (route) => {
            const answer = await route.fetch();
            await route.fulfill({ response: answer, json: { ...(await answer.json()), ...options.session } });
        });
    }
    await tab.goto(page);
    await tab.getByLabel("Your name").fill(name);
    await tab.keyboard.press("Enter");
    await tab.getByRole("status").filter({ hasText: "connected to" }).waitFor();
    await tab.locator("#title").filter({ hasText: "# general" }).waitFor({ state: "attached" });
    return { tab, problems, context };
}

async function write(tab, text) {
    await tab.getByLabel("Message", { exact: true }).fill(text);
    await tab.keyboard.press("Enter");
}

const shown = (tab, text) => tab.getByRole("log").getByText(text, { exact: true });

/** What axe-core finds against WCAG 2.2 AA. */
async function violations(tab) {
    await tab.evaluate(AXE);
    const result = await tab.evaluate(() => globalThis.axe.run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21aa", "wcag22aa", "best-practice"] }));
    return result.violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join(" | ")}`);
}

test("two people are in a room then each sees what the other writes, who types, and who is here", async () => {
    const [alice, bob] = await Promise.all([signedIn("alice"), signedIn("bob")]);
    await write(alice.tab, "Hello from Alice, grüße 🦀");
    await shown(bob.tab, "Hello from Alice, grüße 🦀").waitFor();
    await alice.tab.getByText("✓").first().waitFor();
    await bob.tab.getByLabel("Message", { exact: true }).pressSequentially("Hi");
    await alice.tab.getByText("bob is typing …").waitFor();
    await bob.tab.keyboard.press("Enter");
    await shown(alice.tab, "Hi").waitFor();
    assert.equal(await shown(alice.tab, "Hello from Alice, grüße 🦀").count(), 1, "the own message is shown once");
    await alice.tab.getByText(/2 here: alice, bob/).waitFor();
    assert.deepEqual([...alice.problems, ...bob.problems], []);
    await Promise.all([alice.context.close(), bob.context.close()]);
});

test("people write to each other then marks say stored, delivered and read, and what was not seen is counted", async () => {
    const [carol, dave] = await Promise.all([signedIn("carol"), signedIn("dave")]);
    await carol.tab.getByLabel("Write to somebody").fill("dave");
    await carol.tab.keyboard.press("Enter");
    await write(carol.tab, "Are you there?");
    const unread = dave.tab.getByRole("button", { name: /carol.*1/ });
    await unread.waitFor();
    await carol.tab.getByRole("log").getByText(/✓✓/).waitFor();
    await unread.click();
    await shown(dave.tab, "Are you there?").waitFor();
    await carol.tab.getByRole("log").getByText(/read/).waitFor();
    // The page is loaded again: the conversation is still there, both sides of it.
    await write(dave.tab, "I am.");
    await shown(carol.tab, "I am.").waitFor();
    await carol.tab.goto(`${page}?user=carol`);
    await carol.tab.getByRole("button", { name: "dave" }).click();
    await shown(carol.tab, "Are you there?").waitFor();
    await shown(carol.tab, "I am.").waitFor();
    assert.deepEqual([...carol.problems, ...dave.problems], []);
    await Promise.all([carol.context.close(), dave.context.close()]);
});

test("the network is cut while somebody writes then the page says so, and everything is there once it is back", async () => {
    const target = new URL(websocket);
    const sockets = new Set();
    let isOpen = true;
    const relay = createServer((near) => {
        if (!isOpen) return near.destroy();
        const far = connect(Number(target.port), target.hostname);
        for (const [one, other] of [[near, far], [far, near]]) {
            sockets.add(one);
            one.on("error", () => {}).on("close", () => other.destroy()).pipe(other);
        }
    });
    await new Promise((resolve) => relay.listen(0, "127.0.0.1", resolve));
    const url = `ws://127.0.0.1:${relay.address().port}/ws`;
    const [erin, frank] = await Promise.all([signedIn("erin", { session: { url } }), signedIn("frank")]);
    isOpen = false;
    sockets.forEach((socket) => socket.destroy());
    await erin.tab.getByText("The connection is lost.").waitFor();
    await write(erin.tab, "written without a network");
    await write(frank.tab, "meanwhile");
    await erin.tab.screenshot({ path: `${SCREENSHOTS}/no-network.png` });
    isOpen = true;
    await shown(erin.tab, "meanwhile").waitFor();
    await shown(frank.tab, "written without a network").waitFor();
    await erin.tab.getByText("The connection is lost.").waitFor({ state: "hidden" });
    assert.equal(await shown(frank.tab, "written without a network").count(), 1);
    assert.equal(await shown(erin.tab, "meanwhile").count(), 1);
    relay.close();
    await Promise.all([erin.context.close(), frank.context.close()]);
});

test("a room has a long history then scrolling up brings it, page by page, without a hole", async () => {
    const COUNT = 90; // The namespace keeps 100.
    const grace = await signedIn("grace");
    await grace.tab.getByLabel("Join a room").fill("long");
    await grace.tab.keyboard.press("Enter");
    await grace.tab.getByRole("heading", { name: "# long" }).waitFor();
    for (let number = 0; number < COUNT; number++) {
        await write(grace.tab, `line ${number}`);
    }
    await grace.tab.waitForFunction(() => ![...document.querySelectorAll(".when")].some((when) => when.textContent.includes("…")));
    const henry = await signedIn("henry");
    await henry.tab.getByLabel("Join a room").fill("long");
    await henry.tab.keyboard.press("Enter");
    await shown(henry.tab, `line ${COUNT - 1}`).waitFor();
    while (!(await shown(henry.tab, "line 0").count())) {
        await henry.tab.getByRole("log").evaluate((log) => { log.scrollTop = 0; log.dispatchEvent(new Event("scroll")); });
        await henry.tab.waitForTimeout(20);
    }
    const texts = await henry.tab.locator(".message .text").allTextContents();
    assert.deepEqual(texts, Array.from({ length: COUNT }, (_, number) => `line ${number}`));
    await Promise.all([grace.context.close(), henry.context.close()]);
});

test("the same name signs in elsewhere then the first page says so and does not come back", async () => {
    const first = await signedIn("ivan");
    const second = await signedIn("ivan");
    await first.tab.getByText("You are signed in with this name in another window.").waitFor();
    assert.equal(await second.tab.locator("#state").getAttribute("data-state"), "connected");
    await Promise.all([first.context.close(), second.context.close()]);
});

for (const [form, viewport] of [["desktop", DESKTOP], ["phone", PHONE]]) {
    for (const colorScheme of ["light", "dark"]) {
        test(`page is on a ${form}, ${colorScheme}, then axe-core finds nothing`, async () => {
            const judy = await signedIn("judy", { viewport, colorScheme });
            if (form === "phone") {
                await judy.tab.screenshot({ path: `${SCREENSHOTS}/${form}-${colorScheme}-list.png` });
                assert.deepEqual(await violations(judy.tab), []);
                await judy.tab.getByRole("button", { name: "# general" }).click();
            }
            await write(judy.tab, "How does this look?");
            await judy.tab.getByRole("log").getByText("✓").last().waitFor();
            await judy.tab.screenshot({ path: `${SCREENSHOTS}/${form}-${colorScheme}.png` });
            assert.deepEqual(await violations(judy.tab), []);
            assert.deepEqual(judy.problems, []);
            await judy.context.close();
            const sign = await (await browser.newContext({ viewport, colorScheme })).newPage();
            await sign.goto(page);
            assert.deepEqual(await violations(sign), []);
            await sign.screenshot({ path: `${SCREENSHOTS}/${form}-${colorScheme}-sign-in.png` });
            await sign.context().close();
        });
    }
}

test("page is opened side by side then alice and bob are there", async () => {
    const tab = await (await browser.newContext({ viewport: DESKTOP })).newPage();
    await tab.goto(`${page}?side-by-side`);
    const [left, right] = [tab.frameLocator("iframe >> nth=0"), tab.frameLocator("iframe >> nth=1")];
    for (const frame of [left, right]) {
        await frame.getByText("2 here: alice, bob").waitFor();
    }
    await tab.screenshot({ path: `${SCREENSHOTS}/side-by-side.png` });
    await tab.context().close();
});
