// What the page and its worker say to each other.

export type ToWorker =
  | { id: number; do: "start"; wasm: ArrayBuffer }
  | { id: number; do: "open_trace"; bytes: ArrayBuffer }
  | { id: number; do: "open_model"; name: string; config: ArrayBuffer; weights: ArrayBuffer }
  | { id: number; do: "ask"; question: string };

export type FromWorker =
  | { id: number; progress: number }
  | { id: number; opened: number }
  | { id: number; answer: ArrayBuffer; json: boolean }
  | { id: number; started: true }
  | { id: number; error: string };
