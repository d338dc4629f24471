"""Answers the page's questions in float64 NumPy, from a trace and the model's weights: what the page's figures are compared with."""
import functools
import json
import math
import struct
import subprocess

import numpy as np

KINDS = {"F32": np.float32, "F64": np.float64, "I64": np.int64}
NAMES = {np.dtype(kind): name for name, kind in KINDS.items()}


def read_safetensors(path):
    data = path.read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8:8 + length])
    metadata = header.pop("__metadata__", {})
    tensors = {}
    for name, entry in header.items():
        if entry["dtype"] in KINDS:
            begin, end = entry["data_offsets"]
            values = np.frombuffer(data[8 + length + begin:8 + length + end], KINDS[entry["dtype"]])
            tensors[name] = values.reshape(entry["shape"]).astype(np.float64)
    return tensors, metadata


def write_safetensors(tensors, metadata):
    header, body = {"__metadata__": {name: str(value) for name, value in metadata.items()}}, b""
    for name, values in tensors.items():
        data = np.ascontiguousarray(values, np.float64).tobytes()
        header[name] = {"dtype": "F64", "shape": list(np.shape(values)), "data_offsets": [len(body), len(body) + len(data)]}
        body += data
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + body


def layer_norm(x, weight, bias, epsilon=1e-12):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + epsilon) * weight + bias


def gelu(x):
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / np.sqrt(2)))


class Reference:
    def __init__(self, program, trace, model, number=1):
        self.program, self.folder, self.model_folder, self.number = program, trace.parent, model, number
        self.opened = {number: self}
        self.tensors, self.metadata = read_safetensors(trace)
        self.weights, _ = read_safetensors(model / "model.safetensors")
        self.config = json.loads((model / "config.json").read_text())
        self.scale = float(self.metadata["scale"])
        self.tokens = json.loads(self.metadata["tokens"])
        self.heads = self.config["num_attention_heads"]
        self._look, self.measured = None, False
        self.asked = []

    def of(self, name, layer, head):
        return self.tensors[f"layers.{layer}.{name}"][head]

    def attention(self, layer, head):
        scores = self.scale * self.of("q", layer, head) @ self.of("k", layer, head).T
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        return scores, weights / weights.sum(-1, keepdims=True)

    @functools.cache
    def layer_input(self, layer):
        """x [T, d_model] before the layer, by the whole forward pass up to it."""
        w, ids = self.weights, json.loads(self.metadata["token_ids"])
        at = "embeddings."
        x = (w[at + "word_embeddings.weight"][ids] + w[at + "position_embeddings.weight"][:len(ids)]
             + w[at + "token_type_embeddings.weight"][0])
        x = layer_norm(x, w[at + "LayerNorm.weight"], w[at + "LayerNorm.bias"])
        for i in range(layer):
            at = f"encoder.layer.{i}."
            x = layer_norm(x + self.attended(i)[1], w[at + "attention.output.LayerNorm.weight"], w[at + "attention.output.LayerNorm.bias"])
            inner = gelu(x @ w[at + "intermediate.dense.weight"].T + w[at + "intermediate.dense.bias"])
            inner = inner @ w[at + "output.dense.weight"].T + w[at + "output.dense.bias"]
            x = layer_norm(x + inner, w[at + "output.LayerNorm.weight"], w[at + "output.LayerNorm.bias"])
        return x

    def attended(self, layer):
        """The heads side by side, and what W_o makes of them."""
        concat = np.concatenate([self.attention(layer, head)[1] @ self.of("v", layer, head) for head in range(self.heads)], -1)
        at = f"encoder.layer.{layer}.attention.output.dense."
        return concat, concat @ self.weights[at + "weight"].T + self.weights[at + "bias"]

    def look(self):
        if self._look is None:
            self._look = self.run("look", self.metadata["text"], "--model", self.model_folder)
        return self._look

    def run(self, *arguments):
        return json.loads(subprocess.run([self.program, *map(str, arguments), "--json"], check=True, capture_output=True).stdout)

    # One method for each question.

    def ask_about(self, _):
        model = {"id": 1, "name": self.metadata["model"], "layers": self.config["num_hidden_layers"], "heads": self.heads,
                 "kv_heads": self.heads, "d_model": self.config["hidden_size"], "max_tokens": 512}
        return {"computes": "native", "isa": "float64", "version": "0", "max_error": 1e-5,
                "traces": [{"id": 1, "model": self.metadata["model"], "text": self.metadata["text"]}], "models": [model]}

    def ask_trace(self, _):
        look = self.look()
        return {"id": self.number, "model": look["model"], "text": look["text"], "text2": None, "tokens": self.tokens, "words": look["words"],
                "word_of_token": json.loads(self.metadata["words"]), "layers": look["num_layers"], "heads": look["num_heads"],
                "kv_heads": look["num_heads"], "d": self.tensors["layers.0.q"].shape[-1], "queries": len(self.tokens),
                "keys": len(self.tokens), "causal": False, "scale": self.scale, "softcap": 0, "has_values": True, "has_row_sum": True}

    def ask_heads(self, _):
        return {name: self.look()[name] for name in ("heads", "score_rules")}

    def ask_links(self, question):
        words = self.look()["words"]
        spelled = lambda i: f"{words[i]['text']}#{1 + sum(word['text'] == words[i]['text'] for word in words[:i])}"
        names = [f"{spelled(query)},{spelled(key)}" for query, key in question["pairs"]]
        look = self.run("look", self.metadata["text"], "--model", self.model_folder, *[part for name in names for part in ("--link", name)])
        links = []
        for i, link in enumerate(look["links"]):
            rows = [[head["links"][i] for head in look["heads"] if head["layer"] == layer] for layer in range(look["num_layers"])]
            links.append({**{name: link[name] for name in ("query_word", "key_word", "offset", "mean")}, "heads": rows})
        return {"links": links}

    def ask_patch(self, question):
        (a, b), (c, d) = question["rows"], question["keys"]
        weights = self.attention(question["layer"], question["head"])[1][a:b, c:d]
        return {"weights": weights}, {"pool": "exact"}

    def ask_row(self, question):
        scores, weights = self.attention(question["layer"], question["head"])
        row = question["row"]
        return ({"scores": scores[row], "weights": weights[row]},
                {"max": scores[row].max(), "lse": self.of("lse", question["layer"], question["head"])[row]})

    def ask_why(self, question):
        layer, head, row, key = (question[name] for name in ("layer", "head", "row", "key"))
        q, k = self.of("q", layer, head)[row], self.of("k", layer, head)[key]
        scores, weights = self.attention(layer, head)
        return ({"products": q * k, "q": q, "k": k, "score": scores[row, key:key + 1], "weight": weights[row, key:key + 1]},
                {"scale": self.scale, "dot": q @ k})

    def ask_head_output(self, question):
        layer, head, row = (question[name] for name in ("layer", "head", "row"))
        weights, v = self.attention(layer, head)[1][row], self.of("v", layer, head)
        return {"output": weights @ v, "v": v, "weights": weights}, {}

    def ask_pipeline(self, question):
        layer, head = question["layer"], question["head"]
        tensors = {name: self.of(name, layer, head) for name in "qkv"}
        if "model" not in question:
            return tensors, {"layer": layer, "head": head}
        d = tensors["q"].shape[-1]
        slab = slice(head * d, (head + 1) * d)
        at = f"encoder.layer.{layer}.attention."
        for short, name in (("q", "query"), ("k", "key"), ("v", "value")):
            tensors[f"W_{short}"] = self.weights[f"{at}self.{name}.weight"][slab].T
            tensors[f"b_{short}"] = self.weights[f"{at}self.{name}.bias"][slab]
        concat, y = self.attended(layer)
        tensors |= {"x": self.layer_input(layer), "concat": concat, "W_o": self.weights[at + "output.dense.weight"].T[slab],
                    "b_o": self.weights[at + "output.dense.bias"], "y": y}
        return tensors, {"layer": layer, "head": head, "norm": "none"}

    def ask_dims(self, question):
        # The program refuses counts none of which divides; 1 always does.
        answer = self.run("dims", "--no-time", "--d-model", question["d_model"], "--tokens", question["tokens"], "--batch", question["batch"],
                          "--dtype", question["dtype"], "--heads", ",".join(map(str, [*question["heads"], 1])))
        answer["heads"] = answer["heads"][:-1]
        if self.measured:
            answer["limits"] = self.limits
            for cut in answer["heads"]:
                for step in [*cut.get("steps", []), *([cut["fused"]] if "fused" in cut else [])]:
                    step["limit"] = "fma" if step["flop"] / self.limits["fma_gflops"] > step["bytes"] / self.limits["memory_gbs"] else "memory"
        return answer

    @functools.cached_property
    def limits(self):
        return self.run("dims", "--d-model", 64, "--tokens", 8, "--heads", 1)["limits"]

    def ask_limits(self, _):
        self.measured = True
        return {**self.limits, "memory_bytes": 268435456, "where": "native", "threads": 2}

    def ask_time(self, question):
        answer = self.run("dims", "--d-model", question["d_model"], "--tokens", question["tokens"], "--batch", question["batch"],
                          "--dtype", question["dtype"], "--heads", question["heads"])
        (cut,) = answer["heads"]
        return {"seconds": cut["seconds"], "over_single_head": cut["over_single_head"], "samples": 15, "repeats": 1, "where": "native",
                "threads": answer["threads"], "isa": answer["limits"]["isa"]}

    def ask_encode(self, question):
        number = max(self.opened) + 1
        path = self.folder / f"{number}.safetensors"
        subprocess.run([self.program, "trace", question["text"], "--model", self.model_folder, "--values", "-o", path],
                       check=True, capture_output=True)
        self.opened[number] = type(self)(self.program, path, self.model_folder, number)
        return {"trace": number, "embedding": None, "next": None}

    @functools.cached_property
    def relations(self):
        return tour_reference.relations(self.program, self.model_folder, self.heads)

    @functools.cached_property
    def ablations(self):
        return tour_reference.ablations(self.program, self.model_folder, self.weights, self.config, self.metadata["text"])

    def ask_relations(self, _):
        return self.relations

    def ask_ablations(self, question):
        if question["text"] != self.metadata["text"]:
            raise ValueError("ablations: another text")
        return self.ablations

    def answer(self, question):
        """The content type and the bytes."""
        self.asked.append(question)
        asked = self.opened[question["trace"]] if "trace" in question else self
        answered = getattr(asked, "ask_" + question["ask"])(question)
        if isinstance(answered, tuple):
            return "application/octet-stream", write_safetensors(*answered)
        return "application/json", json.dumps(answered).encode()


import tour_reference  # noqa: E402  it reads files as this module does
