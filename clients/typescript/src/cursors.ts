import type { Position } from "./wire.js";

/**
 * Where a client keeps what it has: the position of the last message of the inbox ("@") and of each room. Kept in memory, a page that is
 * loaded again begins anew; the gateway keeps the inbox's cursor of a device in any case.
 */
export interface Cursors {
    load(): Promise<Map<string, Position>>;
    save(topic: string, position: Position): Promise<void>;
    forget(topic: string): Promise<void>;
}

export class MemoryCursors implements Cursors {
    readonly #positions = new Map<string, Position>();

    async load(): Promise<Map<string, Position>> {
        return new Map(this.#positions);
    }

    async save(topic: string, position: Position): Promise<void> {
        this.#positions.set(topic, position);
    }

    async forget(topic: string): Promise<void> {
        this.#positions.delete(topic);
    }
}

const STORE = "cursors";

/** In the browser's database of this name. One name for each user and device: two of them must not share their cursors. */
export class IndexedDbCursors implements Cursors {
    readonly #database: Promise<IDBDatabase>;

    constructor(name: string) {
        this.#database = new Promise((resolve, reject) => {
            const opening = indexedDB.open(name, 1);
            opening.onupgradeneeded = () => opening.result.createObjectStore(STORE);
            opening.onsuccess = () => resolve(opening.result);
            opening.onerror = () => reject(opening.error);
        });
    }

    async load(): Promise<Map<string, Position>> {
        const positions = new Map<string, Position>();
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

    save(topic: string, position: Position): Promise<void> {
        return this.#run("readwrite", (store) => store.put(position, topic));
    }

    forget(topic: string): Promise<void> {
        return this.#run("readwrite", (store) => store.delete(topic));
    }

    async #run(mode: IDBTransactionMode, work: (store: IDBObjectStore) => unknown): Promise<void> {
        const transaction = (await this.#database).transaction(STORE, mode);
        const done = new Promise<void>((resolve, reject) => {
            transaction.oncomplete = () => resolve();
            transaction.onerror = transaction.onabort = () => reject(transaction.error);
        });
        work(transaction.objectStore(STORE));
        return done;
    }
}
