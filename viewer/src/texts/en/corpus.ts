export const corpus = {
  heading: "One head over many texts",
  none: "No scan is open. A scan looks through many texts at once: manyheads scan TEXTS --model DIR -o scan.safetensors, then manyheads view scan.safetensors.",
};
