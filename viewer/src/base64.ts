// The bytes behind a text in base64. Browsers that read it themselves are some ten times as quick.

type Reads = { fromBase64?: (text: string) => Uint8Array<ArrayBuffer> };

export function bytesOfBase64(text: string): ArrayBuffer {
  const reads = (Uint8Array as Reads).fromBase64;
  if (reads) return reads(text).buffer;
  const binary = atob(text.trim());
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; ++i) bytes[i] = binary.charCodeAt(i);
  return bytes.buffer;
}
