/** When to ask whether the gateway is there, and when to take it for dead: docs/protocol.md, "Heartbeats". */
export class Heartbeat {
    #timer: ReturnType<typeof setTimeout> | undefined;
    #sentAt = 0;
    #receivedAt = 0;
    /** When a Ping was sent that nothing has followed yet. */
    #askedAt: number | undefined;

    constructor(
        private readonly intervalMs: number,
        private readonly timeoutMs: number,
        private readonly now: () => number,
        private readonly ping: () => void,
        private readonly dead: () => void,
    ) {
        this.#sentAt = this.#receivedAt = now();
        this.#schedule();
    }

    sent(): void {
        this.#sentAt = this.now();
    }

    received(): void {
        this.#receivedAt = this.now();
        if (this.#askedAt !== undefined) {
            this.#askedAt = undefined;
            this.#schedule();
        }
    }

    /** Asks at once: the network has changed, or the page was asleep. */
    ask(): void {
        if (this.#askedAt === undefined) {
            this.#askedAt = this.now();
            this.ping();
            this.#schedule();
        }
    }

    stop(): void {
        clearTimeout(this.#timer);
    }

    #schedule(): void {
        clearTimeout(this.#timer);
        const due =
            this.#askedAt === undefined
                ? Math.min(this.#sentAt, this.#receivedAt) + this.intervalMs
                : this.#askedAt + this.timeoutMs;
        this.#timer = setTimeout(() => this.#look(), Math.max(due - this.now(), 0));
    }

    #look(): void {
        if (this.#askedAt !== undefined) {
            return this.now() >= this.#askedAt + this.timeoutMs ? this.dead() : this.#schedule();
        }
        if (this.now() >= Math.min(this.#sentAt, this.#receivedAt) + this.intervalMs) {
            return this.ask();
        }
        this.#schedule();
    }
}
