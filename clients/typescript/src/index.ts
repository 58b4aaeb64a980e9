export { Client, type ClientEvents, type Options, type Socket, type State } from "./client.js";
export { type Cursors, IndexedDbCursors, MemoryCursors } from "./cursors.js";
export { RequestError, StoppedError, UndecidedError } from "./errors.js";
export { Message } from "./message.js";
export type { Connected, Member, Position, Published, Stamp } from "./wire.js";
