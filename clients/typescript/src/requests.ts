import { RequestError, UndecidedError } from "./errors.js";
import type { Push, Refusal, Request } from "./wire.js";

/** A request that carries a number. */
export type Numbered = Extract<Request, { request: number }>;

interface Waiting {
    frame: Numbered;
    resolve: (answer: never) => void;
    reject: (error: Error) => void;
    giveUp: ReturnType<typeof setTimeout>;
    /** Set while the gateway has asked to wait before it is sent again. */
    again?: ReturnType<typeof setTimeout>;
}

/**
 * Requests that wait for their answers, in the order in which they were made. They outlive a connection: behind the next Connect they are
 * sent again in that order, a publish with the same client message id.
 */
export class Requests {
    readonly #waiting = new Map<number, Waiting>();
    #last = 0;

    /** `send` is called at once and for each repetition; false means that there is no connection, and that {@link sendAll} will follow. */
    constructor(private readonly send: (frame: Request) => void) {}

    number(): number {
        this.#last = (this.#last % 0xffff_ffff) + 1;
        return this.#last;
    }

    ask<Answer extends Push>(frame: Numbered, limitMs: number): Promise<Answer> {
        return new Promise((resolve, reject) => {
            const giveUp = setTimeout(() => {
                this.#take(frame.request)?.reject(new UndecidedError(`${frame.type} was not answered within ${limitMs} ms`));
            }, limitMs);
            this.#waiting.set(frame.request, { frame, resolve: resolve as (answer: never) => void, reject, giveUp });
            this.send(frame);
        });
    }

    /** After a Connect: everything again. */
    sendAll(): void {
        for (const waiting of this.#waiting.values()) {
            clearTimeout(waiting.again);
            this.send(waiting.frame);
        }
    }

    answered(answer: Push & { request: number }): void {
        this.#take(answer.request)?.resolve(answer as never);
    }

    refused(refusal: Refusal): void {
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
    rejectAll(error: Error): void {
        for (const request of [...this.#waiting.keys()]) {
            this.#take(request)?.reject(error);
        }
    }

    #take(request: number): Waiting | undefined {
        const waiting = this.#waiting.get(request);
        this.#waiting.delete(request);
        clearTimeout(waiting?.giveUp);
        clearTimeout(waiting?.again);
        return waiting;
    }
}
