// What the page and its worker say to each other: one message at a time, each with one end.

export type ToWorker =
  | { do: "start"; gzippedWasm: ArrayBuffer }
  | { do: "open_trace"; bytes: ArrayBuffer }
  | { do: "open_model"; name: string; config: ArrayBuffer; weights: ArrayBuffer }
  | { do: "ask"; question: string };

export type FromWorker =
  | { kind: "progress"; share: number }
  | { kind: "started" }
  | { kind: "opened"; id: number }
  | { kind: "answer"; bytes: ArrayBuffer; json: boolean }
  | { kind: "failed"; why: string };
