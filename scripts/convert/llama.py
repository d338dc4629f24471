"""A GGUF of the Llama family as a folder that the hub would hold."""

import os

from .byte_bpe import Vocabulary
from .folder import write_json, write_safetensors
from .gguf import Gguf
from .metadata import Metadata
from .source import Fault, shown

ROWS_AT_ONCE = 4096

READ = {
    "llama.attention.head_count",
    "llama.attention.head_count_kv",
    "llama.attention.key_length",
    "llama.attention.layer_norm_rms_epsilon",
    "llama.attention.value_length",
    "llama.block_count",
    "llama.context_length",
    "llama.embedding_length",
    "llama.feed_forward_length",
    "llama.rope.dimension_count",
    "llama.rope.freq_base",
    "llama.vocab_size",
}
PLAIN = {"llama.rope.scaling.type": "none", "llama.expert_count": 0}  # what says that there is none of it


def read_config(metadata, vocabulary, tied):
    """The content of config.json."""
    architecture = metadata.text("general.architecture")
    if architecture != "llama":
        raise Fault(f"general.architecture is {shown(architecture)}; 'llama' is read")
    hidden = metadata.size("llama.embedding_length")
    heads = metadata.size("llama.attention.head_count")
    kv_heads = metadata.size("llama.attention.head_count_kv", heads)
    if heads % kv_heads:
        raise Fault(f"llama.attention.head_count is {heads}, no multiple of head_count_kv, {kv_heads}")
    if "llama.attention.key_length" not in metadata.entries and hidden % heads:
        raise Fault(f"llama.embedding_length is {hidden}, no multiple of llama.attention.head_count, {heads}")
    head_dim = metadata.size("llama.attention.key_length", max(hidden // heads, 1))
    for name in ("llama.attention.value_length", "llama.rope.dimension_count"):
        if metadata.size(name, head_dim) != head_dim:
            raise Fault(f"{name} is {metadata.size(name)}; only the size of a head, {head_dim}, is read")
    if head_dim % 2:
        raise Fault(f"a head has {head_dim} values; rotary embedding pairs them")
    for name, value in metadata.entries.items():
        plain = isinstance(value, (int, str)) and PLAIN.get(name) == value
        if name.startswith("llama.") and name not in READ and not plain:
            raise Fault(f"{shown(name)} is {shown(value)}, which is not read")
    if metadata.size("llama.vocab_size", len(vocabulary.tokens)) != len(vocabulary.tokens):
        raise Fault(f"llama.vocab_size is {metadata.size('llama.vocab_size')} for {len(vocabulary.tokens)} tokens")
    return {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        **{f"{role}_token_id": i for role, i in vocabulary.roles.items() if role != "unk"},
        "head_dim": head_dim,
        "hidden_act": "silu",
        "hidden_size": hidden,
        "intermediate_size": metadata.size("llama.feed_forward_length"),
        "max_position_embeddings": metadata.size("llama.context_length"),
        "mlp_bias": False,
        "model_type": "llama",
        "num_attention_heads": heads,
        "num_hidden_layers": metadata.size("llama.block_count"),
        "num_key_value_heads": kv_heads,
        "rms_norm_eps": metadata.positive("llama.attention.layer_norm_rms_epsilon"),
        "rope_scaling": None,
        "rope_theta": metadata.positive("llama.rope.freq_base", 10000.0),
        "tie_word_embeddings": tied,
        "torch_dtype": "float32",
        "use_cache": True,
        "vocab_size": len(vocabulary.tokens),
    }


def layer_tensors(config, layer):
    """The hub's name, GGUF's, the shape, and how many heads have their rows in pairs (0: none)."""
    hidden, inner, dim = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    here, there = f"model.layers.{layer}.", f"blk.{layer}."
    return [
        (here + "input_layernorm.weight", there + "attn_norm.weight", (hidden,), 0),
        (here + "mlp.down_proj.weight", there + "ffn_down.weight", (hidden, inner), 0),
        (here + "mlp.gate_proj.weight", there + "ffn_gate.weight", (inner, hidden), 0),
        (here + "mlp.up_proj.weight", there + "ffn_up.weight", (inner, hidden), 0),
        (here + "post_attention_layernorm.weight", there + "ffn_norm.weight", (hidden,), 0),
        (here + "self_attn.k_proj.weight", there + "attn_k.weight", (kv_heads * dim, hidden), kv_heads),
        (here + "self_attn.o_proj.weight", there + "attn_output.weight", (hidden, heads * dim), 0),
        (here + "self_attn.q_proj.weight", there + "attn_q.weight", (heads * dim, hidden), heads),
        (here + "self_attn.v_proj.weight", there + "attn_v.weight", (kv_heads * dim, hidden), 0),
    ]


def every_tensor(config, file):
    """layer_tensors of the whole model, each there with its shape, and no tensor left over."""
    embedding = (config["vocab_size"], config["hidden_size"])
    wanted = [("model.embed_tokens.weight", "token_embd.weight", embedding, 0)]
    if not config["tie_word_embeddings"]:
        wanted.insert(0, ("lm_head.weight", "output.weight", embedding, 0))
    layers = config["num_hidden_layers"]
    if layers > len(file.tensors):
        raise Fault(f"llama.block_count is {layers}; the file has {len(file.tensors)} tensors")
    for layer in range(layers):
        wanted += layer_tensors(config, layer)
    wanted.append(("model.norm.weight", "output_norm.weight", (config["hidden_size"],), 0))
    for _, name, shape, _ in wanted:
        if name not in file.tensors:
            raise Fault(f"tensor {name} is missing")
        if file.tensors[name].shape != shape:
            raise Fault(f"tensor {name} has the shape {list(file.tensors[name].shape)}, not {list(shape)}")
    more = file.tensors.keys() - {name for _, name, _, _ in wanted}
    if more:
        raise Fault(f"tensor {shown(min(more))} is not read: a plain Llama model has none of this name")
    return wanted


def split_halves(rows):
    """A head's rows from GGUF's order, row i of either half beside that of the other, to the hub's: half by half."""
    dim, width = rows.shape
    return rows.reshape(dim // 2, 2, width).swapaxes(0, 1).reshape(dim, width)


def convert(path, folder):
    with open(path, "rb") as opened:
        file = Gguf(opened)
        metadata = Metadata(file.metadata)
        vocabulary = Vocabulary(metadata)
        config = read_config(metadata, vocabulary, tied="output.weight" not in file.tensors)
        template = metadata.optional_text("tokenizer.chat_template")

        def values(name, heads):
            tensor = file.tensors[name]
            if heads:
                return (split_halves(head) for head in file.rows(tensor, config["head_dim"]))
            return file.rows(tensor, ROWS_AT_ONCE)

        tensors = [(hub, shape, values(name, heads)) for hub, name, shape, heads in every_tensor(config, file)]
        os.makedirs(folder, exist_ok=True)
        write_safetensors(f"{folder}/model.safetensors", tensors)
    write_json(f"{folder}/config.json", config)
    generation = {name: config[name] for name in config if name.endswith("_token_id")}
    write_json(f"{folder}/generation_config.json", {"_from_model_config": True, **generation})
    write_json(f"{folder}/tokenizer.json", vocabulary.tokenizer())
    longest = config["max_position_embeddings"]
    write_json(f"{folder}/tokenizer_config.json", vocabulary.tokenizer_config(longest, template))
    write_json(f"{folder}/special_tokens_map.json", vocabulary.special_tokens_map())
