// Unpacks the page's own script and runs it. The security policy names both by their hashes.

declare const TOO_OLD: string;

async function load(): Promise<void> {
  const text = atob(document.getElementById("code")?.textContent ?? "");
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; ++i) bytes[i] = text.charCodeAt(i);
  const script = document.createElement("script");
  script.textContent = await new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
  document.body.append(script);
}

load().catch(() => {
  document.getElementById("page")!.textContent = TOO_OLD;
});
