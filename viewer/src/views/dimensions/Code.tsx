// The chapter's layer in PyTorch with the numbers of this view, to copy.
import { useEffect, useState } from "preact/hooks";
import type { Cut } from "../../engine/questions";
import { t } from "../../texts";
import { batch, dModel, dtype, kvShown, tokens } from "./state";

const types = { f32: "torch.float32", bf16: "torch.bfloat16", f16: "torch.float16" };

export function codeOf(cut: Cut): string {
  const d = dModel.value;
  const h = cut.heads;
  const dk = cut.divides ? cut.d_k : cut.floor_d_k;
  const kv = kvShown.value;
  const b = batch.value;
  const n = tokens.value;
  const shared = kv < h ? ` // ${h / kv}` : "";
  const end = cut.divides ? `[${b}, ${n}, ${d}]` : t.value.dimensions.codeFails(h * dk, d);
  return `import torch
from torch import nn

torch.set_default_dtype(${types[dtype.value]})
d_model, num_heads = ${d}, ${h}
d_k = d_model // num_heads  # ${dk}

W_q = [nn.Linear(${d}, ${dk}) for _ in range(${h})]
W_k = [nn.Linear(${d}, ${dk}) for _ in range(${kv})]
W_v = [nn.Linear(${d}, ${dk}) for _ in range(${kv})]
W_o = nn.Linear(${d}, ${d})

x = torch.randn(${b}, ${n}, d_model)
heads = []
for i in range(num_heads):
    q, k, v = W_q[i](x), W_k[i${shared}](x), W_v[i${shared}](x)
    weights = torch.softmax(q @ k.mT / d_k ** 0.5, -1)  # [${b}, ${n}, ${n}]
    heads.append(weights @ v)  # [${b}, ${n}, ${dk}]
y = W_o(torch.cat(heads, -1))  # ${end}
`;
}

export function Code({ cut }: { cut: Cut }) {
  const texts = t.value.dimensions;
  const code = codeOf(cut);
  const [copied, setCopied] = useState("");
  useEffect(() => setCopied(""), [code]);
  return (
    <section>
      <div class="beside spread">
        <h3 id="code">{texts.codeCaption}</h3>
        <button type="button" onClick={() => void navigator.clipboard.writeText(code).then(() => setCopied(code))}>
          {copied === code ? t.value.frame.copied : t.value.frame.copy}
        </button>
      </div>
      <pre class="scroll" tabIndex={0} role="region" aria-labelledby="code"><code>{code}</code></pre>
    </section>
  );
}
