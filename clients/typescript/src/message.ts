import { fromBase64, type Stamp, type WireMessage } from "./wire.js";

/** A message of the inbox, of a room, or of a history. */
export class Message {
    /** "@" and the user's own id for the inbox, else the room. */
    readonly topic: string;
    readonly sender: string;
    /** In a copy of what another device of this user has sent: to whom, as "@bob". */
    readonly sentTo: string | undefined;
    readonly trace: string | undefined;
    readonly stamp: Stamp | undefined;
    readonly #wire: WireMessage;

    constructor(wire: WireMessage) {
        this.#wire = wire;
        this.topic = wire.topic;
        this.sender = wire.sender;
        this.sentTo = wire.sent_to;
        this.trace = wire.trace;
        this.stamp = wire.stamp;
    }

    /** Whether it is in no log: a hint, such as that somebody is typing. */
    get isEphemeral(): boolean {
        return this.stamp === undefined || this.stamp.position.offset === "0";
    }

    /** By the gateway's clock. */
    get time(): Date {
        return new Date(Number(this.stamp?.timestamp_ms ?? 0));
    }

    get bytes(): Uint8Array {
        const { payload, payload_base64 } = this.#wire;
        return payload_base64 === undefined ? new TextEncoder().encode(payload ?? "") : fromBase64(payload_base64);
    }

    /** The payload as text; bytes that are not UTF-8 become U+FFFD. */
    get text(): string {
        return this.#wire.payload ?? new TextDecoder().decode(this.bytes);
    }

    /** The payload as JSON. Throws where it is none. */
    json(): unknown {
        return JSON.parse(this.text);
    }
}
