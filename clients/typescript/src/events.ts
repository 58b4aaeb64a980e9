/** Listeners by the name of their event, typed. */
export class Events<Map> {
    readonly #listeners = new globalThis.Map<keyof Map, Set<(event: never) => unknown>>();

    /** Calls the listener at each event of this name. Returns a function that ends that. */
    on<Name extends keyof Map>(name: Name, listener: (event: Map[Name]) => unknown): () => void {
        const listeners = this.#listeners.get(name) ?? new Set();
        this.#listeners.set(name, listeners.add(listener as (event: never) => unknown));
        return () => {
            listeners.delete(listener as (event: never) => unknown);
        };
    }

    /** What the listeners return, in the order in which they were added. */
    protected emit<Name extends keyof Map>(name: Name, event: Map[Name]): unknown[] {
        const listeners = [...(this.#listeners.get(name) ?? [])] as ((event: Map[Name]) => unknown)[];
        return listeners.map((listener) => listener(event));
    }
}
