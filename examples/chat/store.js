// What one user has written to people and got from them, in this browser's database. The gateway keeps a message of the inbox until every device has
// acknowledged it; a page that wants to show it later keeps it itself.

const STORE = "messages";

export class Messages {
    #database;

    constructor(user) {
        this.#database = new Promise((resolve, reject) => {
            const opening = indexedDB.open(`ringgate-chat-messages-${user}`, 1);
            opening.onupgradeneeded = () => opening.result.createObjectStore(STORE, { keyPath: "id" });
            opening.onsuccess = () => resolve(opening.result);
            opening.onerror = () => reject(opening.error);
        });
    }

    /** Everything, oldest first. */
    async all() {
        const database = await this.#database;
        return new Promise((resolve, reject) => {
            const reading = database.transaction(STORE).objectStore(STORE).getAll();
            reading.onsuccess = () => resolve(reading.result.sort((one, other) => one.time - other.time));
            reading.onerror = () => reject(reading.error);
        });
    }

    /** Resolves when it is on disk. */
    async keep(message) {
        const database = await this.#database;
        return new Promise((resolve, reject) => {
            const transaction = database.transaction(STORE, "readwrite");
            transaction.objectStore(STORE).put(message);
            transaction.oncomplete = () => resolve();
            transaction.onerror = () => reject(transaction.error);
        });
    }
}
