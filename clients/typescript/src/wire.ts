/** What docs/json.md says a gateway and its clients send each other. Numbers of 64 bits are strings of digits. */

export interface Position {
    epoch: string;
    offset: string;
}

export interface Stamp {
    position: Position;
    /** Unique in the cluster. */
    message_id: string;
    /** Milliseconds since 1970-01-01 UTC, by the gateway's clock. */
    timestamp_ms: string;
}

export interface RoomCursor {
    room: string;
    since?: Position;
    recover?: "exact" | "best";
}

export type Request =
    | { type: "connect"; request: number; token?: string; device?: string; client?: string; inbox?: Position; rooms?: RoomCursor[]; ping_interval_ms?: number }
    | { type: "ping" | "pong" | "disconnect" }
    | { type: "publish"; request: number; topic: string; client_message_id?: string; payload?: string; payload_base64?: string; ephemeral?: boolean; ttl_seconds?: number; trace?: string }
    | { type: "ack"; position: Position }
    | ({ type: "subscribe"; request: number } & RoomCursor)
    | { type: "unsubscribe"; request: number; room: string }
    | { type: "presence"; request: number; room: string; limit: number }
    | { type: "history"; request: number; topic: string; since?: Position; before?: Position; limit: number }
    | { type: "refresh"; request: number; token: string };

export interface Connected {
    type: "connected";
    request: number;
    version: number;
    session: string;
    node: string;
    user: string;
    ping_interval_ms: number;
    pong_timeout_ms: number;
    message_bytes_max: number;
    rooms_max: number;
    requests_in_flight_max: number;
    inbox_recovered: boolean;
    inbox?: Position;
    server_time_ms: string;
    /** "0" when the session does not end. */
    expires_in_ms: string;
    dedup_window_ms: number;
}

export interface Published {
    type: "published";
    request: number;
    client_message_id?: string;
    stamp: Stamp;
    durability: "ephemeral" | "memory" | "durable";
    /** This message was answered before: nothing new was stored. */
    duplicate: boolean;
}

export interface Refusal {
    type: "error";
    request: number;
    code: number;
    message?: string;
    temporary: boolean;
    retry_after_ms: number;
    room?: string;
}

/** A message as the gateway sends it, and as a history lists it. */
export interface WireMessage {
    topic: string;
    stamp?: Stamp;
    sender: string;
    payload?: string;
    payload_base64?: string;
    trace?: string;
    sent_to?: string;
}

export interface Subscribed {
    type: "subscribed";
    request: number;
    room: string;
    recovered: boolean;
    position?: Position;
    start?: Position;
}

export interface Member {
    user: string;
    device: string;
}

export interface Goodbye {
    type: "goodbye";
    code: number;
    reason?: string;
    reconnect: boolean;
    after_ms: number;
}

export type Push =
    | Connected
    | { type: "ping" | "pong" }
    | Published
    | Refusal
    | ({ type: "message" } & WireMessage)
    | Subscribed
    | { type: "unsubscribed"; request: number; room: string; code: number }
    | { type: "presence_result"; request: number; room: string; count: number; members: Member[] }
    | { type: "history_result"; request: number; topic: string; position?: Position; messages: WireMessage[]; more: boolean; recovered: boolean }
    | { type: "refreshed"; request: number; expires_at: string; expires_in_ms: string }
    | ({ type: "joined" | "left"; room: string } & Member)
    | Goodbye;

/** Whether a message of the same log stands at or before a position. Positions of different epochs cannot be compared: false. */
export function isAtOrBefore(position: Position, other: Position | undefined): boolean {
    return other !== undefined && position.epoch === other.epoch && BigInt(position.offset) <= BigInt(other.offset);
}

export function toBase64(bytes: Uint8Array): string {
    // One argument for each byte: in portions, since the number of arguments is bounded.
    let binary = "";
    for (let at = 0; at < bytes.length; at += 8192) {
        binary += String.fromCharCode(...bytes.subarray(at, at + 8192));
    }
    return btoa(binary);
}

export function fromBase64(text: string): Uint8Array {
    return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
}
