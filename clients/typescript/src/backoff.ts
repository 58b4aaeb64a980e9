/** How long to wait before the next attempt: docs/protocol.md, "Reconnecting". */
export class Backoff {
    #attempts = 0;

    constructor(private readonly random: () => number) {}

    attempted(): void {
        this.#attempts += 1;
    }

    /** A connection has lasted for 5 s. */
    isGood(): void {
        this.#attempts = 0;
    }

    /** After an attempt that failed, or a connection that ended without Goodbye. */
    waitMs(): number {
        return this.random() * Math.min(20_000, 500 * 2 ** this.#attempts);
    }

    /** After a Goodbye that allows to come back. */
    waitAfterGoodbyeMs(afterMs: number): number {
        return this.#attempts === 0 ? afterMs : Math.max(afterMs, this.waitMs());
    }
}
