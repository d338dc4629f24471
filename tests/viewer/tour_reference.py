"""What the engine has to say of the tour's sentences and of heads switched off, in float64 NumPy."""
import concurrent.futures
import json
import math
import pathlib
import subprocess
import tempfile

import numpy as np

from reference import layer_norm, read_safetensors

ROOT = pathlib.Path(__file__).resolve().parents[2]
LINKS = ("amod:link", "nsubj:link", "obl:link")
OTHER = "A cat was sitting on a rug."


def trees():
    """Of each sentence the text and its three links, as (word, head): numbers of words from 0."""
    for block in (ROOT / "examples/tour.conllu").read_text().split("\n\n"):
        rows = [line.split("\t") for line in block.splitlines() if line[:1].isdigit()]
        if rows:
            (text,) = [line[len("# text = "):] for line in block.splitlines() if line.startswith("# text = ")]
            of = {row[7]: (int(row[0]) - 1, int(row[6]) - 1) for row in rows}
            yield text, [row[1] for row in rows], [of[link] for link in LINKS]


def word_weights(trace):
    """[heads of all layers, words, words]: summed over the pieces of the attended word, a mean over those of the other."""
    tensors, meta = trace
    of_token = np.array(json.loads(meta["words"]))
    words = of_token.max() + 1
    layers = sum(name.endswith(".q") for name in tensors)
    q, k = (np.concatenate([tensors[f"layers.{layer}.{name}"] for layer in range(layers)]) for name in "qk")
    scores = float(meta["scale"]) * q @ k.transpose(0, 2, 1)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    pieces = (of_token[None, :] == np.arange(words)[:, None]).astype(float)
    return (pieces / pieces.sum(-1, keepdims=True)) @ weights @ pieces.T


def wilson(right, n, z=1.959963984540054):
    p = right / n
    middle, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return [(middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)]


def relations(program, model, heads):
    sentences = list(trees())
    with tempfile.TemporaryDirectory() as folder, concurrent.futures.ThreadPoolExecutor(2) as pool:
        def trace(job):
            number, text = job
            file = pathlib.Path(folder, f"{number}.safetensors")
            subprocess.run([program, "trace", text, "--model", model, "-o", file, "--threads", "1"], check=True, capture_output=True)
            return read_safetensors(file)

        weights = [word_weights(each) for each in pool.map(trace, enumerate(text for text, _, _ in sentences))]
    # The model's words: the tokenizer splits at an apostrophe, the tree does not.
    split = [[i for i, form in enumerate(forms) for _ in range(2 if form == "'s" else 1)] for _, forms, _ in sentences]
    at = [lambda word, own=own: own.index(word) for own in split]
    found, hits = [], [[] for _ in sentences]
    for link in range(3):
        for direction in ("to_head", "to_word"):
            ends = [links[link] if direction == "to_head" else links[link][::-1] for _, _, links in sentences]
            ends = [(at[i](a), at[i](b)) for i, (a, b) in enumerate(ends)]
            right = np.zeros((len(sentences), len(weights[0])), bool)
            for i, (query, key) in enumerate(ends):
                row = weights[i][:, query].copy()
                row[:, query] = -1
                # Parts of one word of the tree weigh together.
                merged = np.stack([row[:, [t for t, w in enumerate(split[i]) if w == word]].sum(-1)
                                   for word in sorted(set(split[i]))], -1)
                right[i] = merged.argmax(-1) == split[i][key]
                hits[i].append([divmod(int(head), heads) for head in np.flatnonzero(right[i])])
            halves = [slice(0, None, 2), slice(1, None, 2)]
            tree_ends = [links[link] if direction == "to_head" else links[link][::-1] for _, _, links in sentences]
            offsets = [b - a for a, b in tree_ends]
            best = []
            for half in halves:
                those = offsets[half]
                best.append(max(sorted(set(those), key=lambda o: (abs(o), o)), key=those.count))
            share = [offsets[half].count(one) / len(offsets[half]) for half, one in zip(halves, best)]
            chosen, scored = right[halves[0]].sum(0), right[halves[1]].sum(0)
            n = len(sentences) // 2
            order = sorted(range(len(chosen)), key=lambda head: -chosen[head])
            mean = np.mean([weights[i][:, query, key] for i, (query, key) in list(enumerate(ends))[halves[1]]], 0)
            found.append({
                "relation": LINKS[link], "direction": direction, "chosen_on": n, "scored_on": n, "unseen": 0, "left_out": 0,
                "offset": best[1], "offset_accuracy": share[1],
                "heads": [{"layer": head // heads, "head": head % heads, "chosen_by": chosen[head] / n,
                           "accuracy": scored[head] / n, "interval": wilson(scored[head], n), "mean_weight": mean[head],
                           "reads": bool(wilson(scored[head], n)[0] > share[1] and wilson(chosen[head], n)[0] > share[0])}
                          for head in order]})
    texts = [{"text": text, "links": [{"word": forms[a], "head": forms[b], "offset": b - a} for a, b in links], "hits": hits[i]}
             for i, (text, forms, links) in enumerate(sentences)]
    return {"model": "all-MiniLM-L6-v2", "sentences": len(sentences), "causal": False, "relations": found, "texts": texts}


GRID = np.linspace(-8, 8, 200001)
ERF = np.array([math.erf(value) for value in GRID])


class Encoder:
    """BERT in float64, with a factor for each head's output."""

    def __init__(self, weights, layers, heads):
        self.w, self.layers, self.heads = weights, layers, heads

    def vectors(self, ids, scales):
        """[N, d_model] of one text, for scales [N, layers, heads]."""
        w, at, count = self.w, "embeddings.", len(scales)
        x = (w[at + "word_embeddings.weight"][ids] + w[at + "position_embeddings.weight"][:len(ids)]
             + w[at + "token_type_embeddings.weight"][0])
        x = np.repeat(layer_norm(x, w[at + "LayerNorm.weight"], w[at + "LayerNorm.bias"])[None], count, 0)
        for layer in range(self.layers):
            at = f"encoder.layer.{layer}."
            dense = lambda name, of: of @ w[f"{at}{name}.weight"].T + w[f"{at}{name}.bias"]
            q, k, v = (dense(f"attention.self.{name}", x).reshape(count, len(ids), self.heads, -1).transpose(0, 2, 1, 3)
                       for name in ("query", "key", "value"))
            scores = q @ k.swapaxes(-1, -2) / math.sqrt(q.shape[-1])
            weights = np.exp(scores - scores.max(-1, keepdims=True))
            out = weights / weights.sum(-1, keepdims=True) @ v * scales[:, layer, :, None, None]
            out = dense("attention.output.dense", out.transpose(0, 2, 1, 3).reshape(count, len(ids), -1))
            x = layer_norm(x + out, w[at + "attention.output.LayerNorm.weight"], w[at + "attention.output.LayerNorm.bias"])
            inner = dense("intermediate.dense", x)
            inner = dense("output.dense", inner * 0.5 * (1 + np.interp(inner / math.sqrt(2), GRID, ERF)))
            x = layer_norm(x + inner, w[at + "output.LayerNorm.weight"], w[at + "output.LayerNorm.bias"])
        return x.mean(1)


def ablations(program, model, weights, config, text):
    layers, heads = config["num_hidden_layers"], config["num_attention_heads"]
    encoder = Encoder(weights, layers, heads)
    with tempfile.TemporaryDirectory() as folder:
        file, ids = pathlib.Path(folder, "ids.safetensors"), []
        for each in (text, OTHER):
            subprocess.run([program, "trace", each, "--model", model, "-o", file], check=True, capture_output=True)
            ids.append(json.loads(read_safetensors(file)[1]["token_ids"]))
    cosine = lambda a, b: float(a @ b / math.sqrt((a @ a) * (b @ b)))
    count = layers * heads
    one = np.ones((1, layers, heads))
    whole = encoder.vectors(ids[0], one)[0]

    def left(off):
        """off [N, count]: which heads are off."""
        scales = 1.0 - off.reshape(-1, layers, heads)
        return [{"self": cosine(whole, a), "other": cosine(a, b)}
                for a, b in zip(encoder.vectors(ids[0], scales), encoder.vectors(ids[1], scales))]

    alone = left(np.eye(count))
    order = sorted(range(count), key=lambda head: -alone[head]["self"])
    off = np.array([[head in order[:i + 1] for head in range(count)] for i in range(count)], float)
    in_order = [{"layer": head // heads, "head": head % heads, **those} for head, those in zip(order, left(off))]
    return {"model": "all-MiniLM-L6-v2", "text": text, "other": OTHER,
            "similarity": cosine(whole, encoder.vectors(ids[1], one)[0]),
            "alone": [alone[i:i + heads] for i in range(0, count, heads)], "in_order": in_order}
