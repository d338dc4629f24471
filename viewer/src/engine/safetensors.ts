// Reads a safetensors file: u64 length, JSON header, bytes.

export interface Tensor {
  shape: number[];
  data: Float32Array | Float64Array | BigInt64Array;
}

export interface TensorFile {
  tensors: Map<string, Tensor>;
  metadata: Record<string, string>;
}

const sizes = { BF16: 2, F32: 4, F64: 8, I64: 8 } as const;

/** `bytes` is a copy: typed arrays need alignment, which the file does not promise. */
function read(dtype: keyof typeof sizes, bytes: ArrayBuffer): Tensor["data"] {
  switch (dtype) {
    case "BF16":
      // The upper half of an F32.
      return new Float32Array(Uint32Array.from(new Uint16Array(bytes), (half) => half * 65536).buffer);
    case "F32":
      return new Float32Array(bytes);
    case "F64":
      return new Float64Array(bytes);
    case "I64":
      return new BigInt64Array(bytes);
  }
}

export function readSafetensors(bytes: ArrayBuffer): TensorFile {
  if (bytes.byteLength < 8) throw new Error("safetensors: shorter than its header's length");
  const length = Number(new DataView(bytes).getBigUint64(0, true));
  if (length > bytes.byteLength - 8) throw new Error("safetensors: the header ends behind the file");
  const header: unknown = JSON.parse(new TextDecoder().decode(new Uint8Array(bytes, 8, length)));
  if (typeof header !== "object" || header === null) throw new Error("safetensors: the header is no object");
  const file: TensorFile = { tensors: new Map(), metadata: {} };
  for (const [name, entry] of Object.entries(header)) {
    if (name === "__metadata__") {
      file.metadata = entry as Record<string, string>;
      continue;
    }
    const { dtype, shape, data_offsets } = entry as { dtype: string; shape: number[]; data_offsets: [number, number] };
    const size = sizes[dtype as keyof typeof sizes];
    if (!size) throw new Error(`safetensors: ${name} has type ${dtype}, not BF16, F32, F64 or I64`);
    const [begin, end] = data_offsets;
    const count = shape.reduce((product, extent) => product * extent, 1);
    if (!(begin >= 0 && end <= bytes.byteLength - 8 - length && end - begin === count * size)) {
      throw new Error(`safetensors: ${name} does not fit its shape or the file`);
    }
    const at = 8 + length + begin;
    file.tensors.set(name, { shape, data: read(dtype as keyof typeof sizes, bytes.slice(at, at + end - begin)) });
  }
  return file;
}

/** The F32 or F64 numbers of a tensor; an error where it is missing. */
export function numbers(file: TensorFile, name: string): Float32Array | Float64Array {
  const data = file.tensors.get(name)?.data;
  if (!data || data instanceof BigInt64Array) throw new Error(`the answer holds no numbers named ${name}`);
  return data;
}

export function shapeOf(file: TensorFile, name: string): number[] {
  const tensor = file.tensors.get(name);
  if (!tensor) throw new Error(`the answer holds no tensor named ${name}`);
  return tensor.shape;
}
