#!/usr/bin/env python3
"""Golden values of encoders: transformers' BERT, RoBERTa and DistilBERT with eager attention, evaluated in float64.

Writes minilm_<text>.safetensors and bert_base_<text>.safetensors for the models in --models, and small random models as
hub-style folders tiny_<name>/ with expected.safetensors beside their weights.
"""

import argparse
import json
import pathlib
import sys

import numpy as np
import torch
import transformers
from safetensors import safe_open
from tokenizers import Tokenizer

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
import golden  # noqa: E402

CAT = "The black cat sat on the mat."
LONGER = (
    "Attention lets every word of a sentence look at every other word, and each head learns to look for something "
    "of its own: the next word, the subject of a verb, or the comma before it."
)
EVERY_HEAD = tuple(range(12))

# heads: stored for every layer. layers: hidden states stored (0 is the embedding, 6 the last). None: all of them.
TEXTS = {
    "cat": dict(texts=[CAT], heads=EVERY_HEAD, layers=range(7)),
    "unicode": dict(texts=["Café naïve — 日本語 Ünïcode 😀 don't; x²≠ﬁ Привет!"], heads=EVERY_HEAD, layers=(0, 3, 6)),
    "longer": dict(texts=[LONGER], heads=(0, 5, 11), layers=(0, 6)),
    "pair": dict(texts=[(CAT, "A dog slept by the door.")], heads=EVERY_HEAD, layers=(0, 6)),
    "batch": dict(texts=["Hello", CAT, "He went to the bank, but it was closed."], heads=(0, 7), layers=(6,)),
    # As many tokens as the model takes: only the embedding is stored.
    "full": dict(texts=[" ".join(f"word {i}" for i in range(255))], heads=(), layers=()),
}

BERT_BASE_TEXTS = {name: TEXTS[name] | dict(heads=(0, 5, 11), layers=(6, 12)) for name in ("cat", "pair")}

TINY = dict(
    architectures=["BertModel"], model_type="bert", hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
    intermediate_size=64, vocab_size=50, max_position_embeddings=40, type_vocab_size=2, layer_norm_eps=1e-12,
    hidden_act="gelu", hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1, initializer_range=0.02,
    pad_token_id=0,
)  # fmt: skip

TINY_ROBERTA = TINY | dict(
    architectures=["RobertaForMaskedLM"], model_type="roberta", layer_norm_eps=1e-5, type_vocab_size=1, pad_token_id=1,
    bos_token_id=0, eos_token_id=2,
)  # fmt: skip

TINY_DISTILBERT = dict(
    architectures=["DistilBertForMaskedLM"], model_type="distilbert", dim=32, n_layers=2, n_heads=4, hidden_dim=64,
    vocab_size=50, max_position_embeddings=40, activation="gelu", dropout=0.1, attention_dropout=0.1,
    initializer_range=0.02, sinusoidal_pos_embds=False, tie_weights_=True, pad_token_id=0,
)  # fmt: skip

# prefix: of every name. legacy: LayerNorm.gamma and .beta. head: tensors that an encoder has no use for.
# dtype: of the stored weights. shards: files, with an index.
TINY_MODELS = {
    "gelu": dict(config=dict(), pooler=True),
    "gelu_new": dict(config=dict(hidden_act="gelu_new"), prefix="bert."),
    "relu": dict(config=dict(hidden_act="relu", num_attention_heads=2, layer_norm_eps=1e-5)),
    "legacy_names": dict(
        config=dict(num_hidden_layers=1), prefix="bert.", legacy=True,
        head={"cls.predictions.bias": (50,), "cls.seq_relationship.weight": (2, 32)},
    ),
    "f16": dict(config=dict(num_hidden_layers=1), dtype=np.float16),
    "shards": dict(config=dict(num_attention_heads=1), shards=2),
    "roberta": dict(base=TINY_ROBERTA, config=dict(), pooler=True),
    "roberta_prefix": dict(
        base=TINY_ROBERTA, config=dict(num_hidden_layers=1), prefix="roberta.", dtype=np.float16,
        head={"lm_head.bias": (50,), "lm_head.dense.weight": (32, 32)},
    ),
    "distilbert": dict(base=TINY_DISTILBERT, config=dict()),
    "distilbert_prefix": dict(
        base=TINY_DISTILBERT, config=dict(n_layers=1, n_heads=2, activation="relu"), prefix="distilbert.",
        dtype=np.float16, head={"vocab_projector.bias": (50,), "vocab_transform.weight": (32, 32)},
    ),
}  # fmt: skip


def skeleton(config, pooler=False):
    """The model that the configuration asks for, with weights of its own."""
    kind = {"bert": "Bert", "roberta": "Roberta", "distilbert": "DistilBert"}[config["model_type"]]
    options = {} if kind == "DistilBert" else {"add_pooling_layer": pooler}
    config = getattr(transformers, f"{kind}Config")(**config)
    config._attn_implementation = "eager"
    return getattr(transformers, f"{kind}Model")(config, **options)


def load_encoder(config, state):
    """The model in float64 with the given float32 or float16 weights."""
    model = skeleton(config).double().eval()
    result = model.load_state_dict({n: torch.from_numpy(a).double() for n, a in state.items()}, strict=False)
    assert not result.missing_keys, result.missing_keys
    assert all("pooler" in n or "position_ids" in n for n in result.unexpected_keys), result.unexpected_keys
    return model


def evaluate(model, ids, types, lengths):
    """Hidden states [layer][B,T,hidden] and weights [layer][B,H,T,T]; places past a text's length are 0."""
    mask = np.arange(ids.shape[1])[None, :] < np.asarray(lengths)[:, None]
    with torch.no_grad():
        out = model(
            input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask.astype(np.int64)),
            output_hidden_states=True, output_attentions=True,
            **({} if types is None else {"token_type_ids": torch.from_numpy(types)}),
        )  # fmt: skip
    hidden = [h.numpy() * mask[:, :, None] for h in out.hidden_states]
    weights = [a.numpy() * mask[:, None, :, None] for a in out.attentions]
    for a in weights:
        assert a.dtype == np.float64 and np.abs(a.sum(-1) - mask[:, None, :]).max() < 1e-14
        assert not (a * ~mask[:, None, None, :]).any()
    mean = hidden[-1].sum(1) / mask.sum(1, keepdims=True)
    return hidden, weights, mean / np.linalg.norm(mean, axis=1, keepdims=True)


def byte_offsets(text, pair, encoding):
    """Where each token lies in its text, in bytes of UTF-8; special tokens are [0,0]."""
    offsets = []
    for (begin, end), sequence in zip(encoding.offsets, encoding.sequence_ids):
        if sequence is None:
            offsets.append((0, 0))
            continue
        source = pair if sequence == 1 else text
        offsets.append((len(source[:begin].encode()), len(source[:end].encode())))
    return offsets


def make_texts(folder, name, texts, out):
    config = json.loads((folder / "config.json").read_text())
    with safe_open(folder / "model.safetensors", "np") as file:
        names = [name for name in file.keys() if not name.startswith("cls.")]
        model = load_encoder(config, {name.removeprefix("bert."): file.get_tensor(name) for name in names})
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    for text, o in texts.items():
        pairs = [t if isinstance(t, tuple) else (t, None) for t in o["texts"]]
        encodings = [tokenizer.encode(*pair) for pair in pairs]
        lengths = [len(e.ids) for e in encodings]
        width = max(lengths)
        ids, types = (np.zeros((len(pairs), width), np.int64) for _ in range(2))
        offsets = np.zeros((len(pairs), width, 2), np.int64)
        for i, (e, pair) in enumerate(zip(encodings, pairs)):
            ids[i, : len(e.ids)] = e.ids
            types[i, : len(e.ids)] = e.type_ids
            offsets[i, : len(e.ids)] = byte_offsets(*pair, e)
        hidden, weights, embedding = evaluate(model, ids, types, lengths)
        tensors = {
            "input_ids": ids,
            "token_type_ids": types,
            "offsets": offsets,
            "lengths": np.asarray(lengths, np.int64),
            "sentence_embedding": embedding.astype(np.float32),
        }
        tensors |= {f"hidden_states.{i}": hidden[i].astype(np.float32) for i in o["layers"]}
        if o["heads"]:
            tensors |= {f"weights.{i}": w[:, list(o["heads"])].astype(np.float32) for i, w in enumerate(weights)}
        metadata = {
            "texts": golden.to_json(pairs),
            "tokens": golden.to_json([e.tokens for e in encodings]),
            "heads": golden.to_json(list(o["heads"])),
            "evaluated_by": f"transformers {transformers.__version__}, float64",
        }
        save_and_say(out / f"{name}_{text}.safetensors", tensors, metadata)


def save_and_say(path, tensors, metadata):
    golden.save(path, tensors, metadata)
    print(f"{path.parent.name}/{path.name:32} {path.stat().st_size:8} bytes")


def make_tiny(name, seed, out):
    o = TINY_MODELS[name]
    config = o.get("base", TINY) | o["config"]
    random = np.random.default_rng(seed)
    state = {}
    for tensor, value in sorted(skeleton(config, o.get("pooler", False)).state_dict().items()):
        # Large enough that no head is near uniform and every term shows.
        spread = 0.35 if tensor.endswith("weight") else 0.2
        array = random.standard_normal(tuple(value.shape)) * spread + (1.0 if "norm.weight" in tensor.lower() else 0.0)
        state[tensor] = array.astype(o.get("dtype", np.float32))
    model = load_encoder(config, state)

    stored = {}
    for tensor, array in state.items():
        if o.get("legacy"):
            tensor = tensor.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
        stored[o.get("prefix", "") + tensor] = array
    for tensor, shape in o.get("head", {}).items():
        stored[tensor] = random.standard_normal(shape).astype(np.float32)

    folder = out / f"tiny_{name}"
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    golden.save_weights(folder, stored, o.get("shards", 1))

    lengths = [9, 1, 6]
    pad = config["pad_token_id"]
    ids = random.integers(pad + 1, config["vocab_size"], (3, 9))
    types = None if config["model_type"] == "distilbert" else random.integers(0, config["type_vocab_size"], (3, 9))
    for i, length in enumerate(lengths):
        ids[i, length:] = pad
        if types is not None:
            types[i, length:] = 0
    hidden, weights, embedding = evaluate(model, ids, types, lengths)
    tensors = {"input_ids": ids, "lengths": np.asarray(lengths, np.int64), "sentence_embedding": embedding}
    if types is not None:
        tensors["token_type_ids"] = types
    tensors |= {f"hidden_states.{i}": h for i, h in enumerate(hidden)}
    tensors |= {f"weights.{i}": w for i, w in enumerate(weights)}
    metadata = {"evaluated_by": f"transformers {transformers.__version__}, float64"}
    save_and_say(folder / "expected.safetensors", tensors, metadata)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=pathlib.Path, default=HERE.parents[2] / "models", help="folder of the two")
    parser.add_argument("--out", type=pathlib.Path, default=HERE, help="folder to write to (default: beside this file)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    make_texts(args.models / "all-MiniLM-L6-v2", "minilm", TEXTS, args.out)
    make_texts(args.models / "bert-base-uncased", "bert_base", BERT_BASE_TEXTS, args.out)
    for seed, name in enumerate(TINY_MODELS):
        make_tiny(name, seed, args.out)


if __name__ == "__main__":
    main()
