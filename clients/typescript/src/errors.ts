/** The gateway has refused a request: docs/protocol.md, "Error codes". */
export class RequestError extends Error {
    override readonly name = "RequestError";

    constructor(
        readonly code: number,
        message: string,
        /** The same request may succeed later. */
        readonly temporary: boolean,
    ) {
        super(`${code}: ${message}`);
    }
}

/** Nobody knows whether the message was stored: no answer came while the gateway would have known a repetition. */
export class UndecidedError extends Error {
    override readonly name = "UndecidedError";
}

/** The client was stopped, by the application or by the gateway, before the answer came. */
export class StoppedError extends Error {
    override readonly name = "StoppedError";
}
