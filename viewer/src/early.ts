// What the loader has begun before the page's own script runs: a worker takes a browser some 40 ms to start.

export interface Early {
  engineWorker?: Worker;
  /** Why it did not start. */
  workerFailed?: string;
  /** The page's own script ran: the browser knows its syntax, and its bytes are whole. */
  begun?: boolean;
}

export const early = globalThis as typeof globalThis & Early;
