"""Answers the questions of the views Heads and Corpus in float64 NumPy, beside those that every view asks."""
import json
import pathlib
import tempfile

import numpy as np

from reference import Reference, gelu, layer_norm, read_safetensors


def pooled(weights, side, pool):
    """Cells of side x side from the corner; those at the edges weigh by the places they have."""
    rows, keys = (range(0, length, side) for length in weights.shape)
    take = np.mean if pool == "mean" else np.max
    return np.array([[take(weights[row:row + side, key:key + side]) for key in keys] for row in rows])


def side_for(weights, size):
    return -(-max(weights.shape) // size)


class HeadsReference(Reference):
    def head(self, question):
        return self.attention(question["layer"], question["head"])[1]

    def all_heads(self):
        return [(layer, head) for layer in range(self.config["num_hidden_layers"]) for head in range(self.heads)]

    def rectangle(self, weights, question):
        (a, b), (c, d) = question["rows"], question["keys"]
        part = weights[a:b, c:d]
        side = side_for(part, question.get("size", 512))
        return {"weights": pooled(part, side, question.get("pool", "mean"))}, {"pool": "exact" if side == 1 else question["pool"], "cell": side}

    def ask_patch(self, question):
        return self.rectangle(self.head(question), question)

    def ask_mean(self, question):
        return self.rectangle(np.mean([self.attention(*head)[1] for head in question["heads"]], 0), question)

    def ask_map(self, question):
        weights = self.head(question)
        tensors, side = {}, 64
        while True:
            for pool in ("mean", "max"):
                tensors[f"{pool}.{side}"] = pooled(weights, side, pool)
            if tensors[f"mean.{side}"].size == 1:
                break
            side *= 2
        queries, keys = weights.shape
        distances = np.subtract.outer(np.arange(queries), np.arange(keys))
        mass = np.array([weights[distances == distance].sum() for distance in range(1 - keys, queries)])
        mean = (weights * distances).sum() / weights.sum()
        tensors |= {"column_mass": weights.sum(0), "entropy": -(weights * np.log(np.maximum(weights, 1e-300))).sum(1), "distance_mass": mass}
        return tensors, {"row_step": 1, "first_distance": 1 - keys, "distance_mean": mean,
                         "distance_variance": (weights * (distances - mean)**2).sum() / weights.sum()}

    def ask_thumbnails(self, question):
        all_weights = [self.attention(*head)[1] for head in self.all_heads()]
        side = side_for(all_weights[0], question["size"])
        pictures = np.array([pooled(weights, side, "mean") for weights in all_weights])
        return {"thumbnails": pictures.reshape(-1, self.heads, *pictures.shape[1:])}, {"cell": side, "pool": "mean", "row_step": 1}

    def ask_rollout(self, _):
        result = np.eye(len(self.tokens))
        for layer in range(self.config["num_hidden_layers"]):
            mean = np.mean([self.attention(layer, head)[1] for head in range(self.heads)], 0)
            result = (mean + np.eye(len(mean))) / 2 @ result
        return {"rollout": result.mean(0)}, {}

    def distances(self):
        entropy = lambda p: -(p * np.log(np.maximum(p, 1e-300))).sum(-1)
        weights = [self.attention(*head)[1] for head in self.all_heads()]
        return np.array([[(entropy((a + b) / 2) - (entropy(a) + entropy(b)) / 2).mean() for b in weights] for a in weights])

    def ask_clusters(self, question):
        distances, groups = self.distances(), [[head] for head in range(len(self.all_heads()))]
        apart = lambda a, b: np.mean([distances[i, j] for i in a for j in b])
        while len(groups) > question["clusters"]:
            _, i, j = min((apart(a, b), i, j) for i, a in enumerate(groups) for j, b in enumerate(groups) if i < j)
            groups[i] += groups.pop(j)
        names = self.all_heads()
        inner = lambda group: np.mean([distances[i, j] for i in group for j in group if i < j]) if len(group) > 1 else 0
        return {"clusters": [{"heads": [names[head] for head in sorted(group)], "mean_distance": float(inner(group))} for group in sorted(groups, key=min)],
                "distances": distances.tolist()}

    def ids_of(self, text):
        if text == self.metadata["text"]:
            return json.loads(self.metadata["token_ids"])
        with tempfile.TemporaryDirectory() as folder:
            out = pathlib.Path(folder) / "text.safetensors"
            self.run("trace", text, "--model", self.model_folder, "-o", out)
            return json.loads(read_safetensors(out)[1]["token_ids"])

    def embedding(self, text, heads_off):
        """The mean over the tokens of the last layer's output, with some heads' outputs scaled; of length 1."""
        w, ids = self.weights, self.ids_of(text)
        at = "embeddings."
        x = (w[at + "word_embeddings.weight"][ids] + w[at + "position_embeddings.weight"][:len(ids)]
             + w[at + "token_type_embeddings.weight"][0])
        x = layer_norm(x, w[at + "LayerNorm.weight"], w[at + "LayerNorm.bias"])
        for layer in range(self.config["num_hidden_layers"]):
            at = f"encoder.layer.{layer}."
            linear = lambda x, name: x @ w[f"{at}{name}.weight"].T + w[f"{at}{name}.bias"]
            split = lambda name: linear(x, f"attention.self.{name}").reshape(len(ids), self.heads, -1).transpose(1, 0, 2)
            q, k, v = split("query"), split("key"), split("value")
            scores = self.scale * q @ k.transpose(0, 2, 1)
            weights = np.exp(scores - scores.max(-1, keepdims=True))
            out = weights / weights.sum(-1, keepdims=True) @ v
            for of_layer, head, scale in heads_off:
                if of_layer == layer:
                    out[head] *= scale
            attended = linear(out.transpose(1, 0, 2).reshape(len(ids), -1), "attention.output.dense")
            x = layer_norm(x + attended, w[at + "attention.output.LayerNorm.weight"], w[at + "attention.output.LayerNorm.bias"])
            inner = linear(gelu(linear(x, "intermediate.dense")), "output.dense")
            x = layer_norm(x + inner, w[at + "output.LayerNorm.weight"], w[at + "output.LayerNorm.bias"])
        mean = x.mean(0)
        return mean / np.linalg.norm(mean)

    def likeness(self, text, heads_off):
        return float(self.embedding(text, []) @ self.embedding(text, heads_off))

    def ask_encode(self, question):
        if "heads_off" not in question:
            return super().ask_encode(question)
        number = max(self.opened) + 1
        self.opened[number] = self  # asked for its vector alone
        return {"trace": number, "embedding": self.embedding(question["text"], question["heads_off"]).tolist(), "next": None}

    def ask_close(self, question):
        return {"closed": question["trace"]}
