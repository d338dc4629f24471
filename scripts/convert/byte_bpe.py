"""The tokenizer that a GGUF of SmolLM2 carries, as a tokenizer.json: byte-level BPE, digits one by one."""

from .source import Fault, shown

NORMAL, CONTROL, USER_DEFINED = 1, 3, 4


class Vocabulary:
    """tokens: id to text. added: ids of the tokens that a text is searched for first. special: those without text."""

    def __init__(self, metadata):
        model, split = (metadata.text(f"tokenizer.ggml.{name}") for name in ("model", "pre"))
        if model != "gpt2":
            raise Fault(f"tokenizer.ggml.model is {shown(model)}; 'gpt2', byte-level BPE, is read")
        if split != "smollm":
            raise Fault(f"tokenizer.ggml.pre is {shown(split)}; 'smollm', digits one by one, is read")
        for name in ("add_bos_token", "add_eos_token", "add_space_prefix"):
            if metadata.flag(f"tokenizer.ggml.{name}"):
                raise Fault(f"tokenizer.ggml.{name} is true, which is not read")
        self.tokens = metadata.texts("tokenizer.ggml.tokens")
        self.ids = {token: i for i, token in enumerate(self.tokens)}
        if len(self.ids) != len(self.tokens):
            twice = next(token for i, token in enumerate(self.tokens) if self.ids[token] != i)
            raise Fault(f"tokenizer.ggml.tokens has {shown(twice)} twice")
        self._read_types(metadata.numbers("tokenizer.ggml.token_type"))
        self.merges = metadata.texts("tokenizer.ggml.merges")
        for merge in self.merges:
            parts = merge.split(" ")
            if len(parts) != 2 or not all(part in self.ids for part in [*parts, "".join(parts)]):
                raise Fault(f"tokenizer.ggml.merges has {shown(merge)}, which are not two tokens that make a third")
        # The name in a tokenizer's configuration, and the id of the token.
        self.roles = {}
        for role, key in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding")):
            i = metadata.optional_count(f"tokenizer.ggml.{key}_token_id")
            if i is None:
                continue
            if i >= len(self.tokens):
                raise Fault(f"tokenizer.ggml.{key}_token_id is {i}; there are {len(self.tokens)} tokens")
            self.roles[role] = i

    def _read_types(self, types):
        if len(types) != len(self.tokens):
            raise Fault(f"tokenizer.ggml.token_type has {len(types)} entries for {len(self.tokens)} tokens")
        self.added, self.special = [], set()
        for i, kind in enumerate(types.tolist()):
            if kind not in (NORMAL, CONTROL, USER_DEFINED):
                raise Fault(f"tokenizer.ggml.token_type of {shown(self.tokens[i])} is {kind}, which is not read")
            if kind != NORMAL:
                self.added.append(i)
            if kind == CONTROL:
                self.special.add(i)

    def added_token(self, i):
        plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        return {"content": self.tokens[i], **plain, "special": i in self.special}

    def tokenizer(self):
        """The content of tokenizer.json."""
        byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
        return {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [{"id": i, **self.added_token(i)} for i in self.added],
            "normalizer": None,
            "pre_tokenizer": {
                "type": "Sequence",
                "pretokenizers": [{"type": "Digits", "individual_digits": True}, byte_level],
            },
            "post_processor": None,
            "decoder": {**byte_level, "add_prefix_space": True},
            # No unknown token: as with the hub's file, a byte that the vocabulary lacks gives none.
            "model": {
                "type": "BPE",
                "dropout": None,
                "unk_token": None,
                "continuing_subword_prefix": None,
                "end_of_word_suffix": None,
                "fuse_unk": False,
                "byte_fallback": False,
                "ignore_merges": False,
                "vocab": self.ids,
                "merges": self.merges,
            },
        }

    def tokenizer_config(self, longest, template):
        """The content of tokenizer_config.json."""
        config = {
            "add_prefix_space": False,
            "added_tokens_decoder": {str(i): self.added_token(i) for i in self.added},
            **{f"{role}_token": self.tokens[i] for role, i in self.roles.items()},
            "clean_up_tokenization_spaces": False,
            "model_max_length": longest,
            "tokenizer_class": "PreTrainedTokenizerFast",
        }
        return config if template is None else config | {"chat_template": template}

    def special_tokens_map(self):
        return {f"{role}_token": self.added_token(i) | {"special": True} for role, i in self.roles.items()}
