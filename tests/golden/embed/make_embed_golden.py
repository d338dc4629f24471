#!/usr/bin/env python3
"""Golden sentence embeddings: what sentence-transformers' own encode gives, its model turned to float64.

Writes minilm_texts.safetensors (200 texts of 1 to 600 tokens in 16 scripts through the model in --model), and for a
small random model in tiny/ what each setting of a model folder does: cases.json has the files that a case changes and
expected.safetensors the vectors. tiny_roberta/ and tiny_distilbert/ likewise for those encoders.
"""

import argparse
import json
import pathlib
import shutil
import sys
import tempfile

import numpy as np
import sentence_transformers
import torch
import transformers
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
import golden  # noqa: E402

WORDS = {
    "english": "the harvest of a river runs past copper windows and violins don't stop; engine, meadow: thunder (basket) "
    "invoice was paid in euros unbelievably antidisestablishmentarianism I.B.M. 3.14 e-mail",
    "french": "l'été où être façade Noël cœur déjà vu garçon naïveté ça à la crème brûlée œuvre « guillemets »",
    "german": "Straße über Größe Mädchen Äpfel Öl Übung weiß groß Donaudampfschifffahrtsgesellschaft „Zitat“ für",
    "vietnamese": "tiếng Việt được người những trường đường một của không Ệ ẫ ở ngày mười",
    "turkish": "İstanbul ışık ğ şeker çay öğretmen IĞDIR Iıİi güneş ağaç",
    "polish": "zażółć gęślą jaźń Łódź świąteczny źdźbło chrząszcz brzmi w trzcinie",
    "russian": "Привет мир кошка сидела на ковре ёлка съесть ещё этих мягких булок Йод",
    "greek": "ΣΊΣΥΦΟΣ είναι ο ήλιος της θάλασσας λόγος Ωδή ἀρχή ᾳ ΐ",
    "arabic": "القطة جلست على السجادة مَرْحَبًا بالعالم اللغة العربية ٣٤ ؟ ، لا",
    "hebrew": "החתול ישב על השטיח שָׁלוֹם עולם ספר״ץ בְּרֵאשִׁית",
    "hindi": "बिल्ली चटाई पर बैठी थी नमस्ते दुनिया हिन्दी क्षत्रिय ज़रूरत ।",
    "chinese": "黑猫坐在垫子上。 世界你好， 机器学习 漢字 㐀 𠀀 东京大学",
    "japanese": "黒い猫はマットの上に座った。 こんにちは ガギグ ｶﾞ 東京 カタカナ がぎぐ",
    "korean": "검은 고양이가 매트 위에 앉았다 안녕하세요 세계 한국어 각 ㄱㅏ",
    "thai": "แมวดำนั่งบนเสื่อ สวัสดีชาวโลก ภาษาไทย น้ำ ก็",
    "emoji": "😀 👩‍👩‍👧 🇩🇪 👍🏽 ☃ ✈️ x² ½ ﬁ № ™ … — “ok” \u200b \u00ad \u3000 [MASK] [SEP] e\u0301 K",
}


class Draw:
    """Numbers that depend on nothing but the seed (Knuth's MMIX)."""

    def __init__(self, seed):
        self.state = seed

    def below(self, n):
        self.state = (self.state * 6364136223846793005 + 1442695040888963407) % 2**64
        return (self.state >> 33) % n


def make_texts(tokenizer, count=200, longest=600):
    """Text i has about 1 + i * 599 / 199 tokens of its own; every third one mixes all the scripts."""
    scripts = [words.split(" ") for words in WORDS.values()]
    everything = [word for words in scripts for word in words]
    texts = []
    for i in range(count):
        draw = Draw(i)
        words = everything if i % 3 == 2 else scripts[(i * 7 + i // 16) % len(scripts)]
        target = 1 + round(i * (longest - 1) / (count - 1))
        text, tokens = "", 0
        while tokens < target:
            word = words[draw.below(len(words))]
            text += (" " if text else "") + word
            tokens += len(tokenizer.encode(word, add_special_tokens=False).ids)
        texts.append(text)
    return texts


def embed(folder, texts, **options):
    """The vectors, evaluated in float64, and the largest difference of those in float32."""
    vectors = []
    for double in (True, False):
        model = sentence_transformers.SentenceTransformer(str(folder), device="cpu", local_files_only=True)
        model = model.double() if double else model.float()
        vectors.append(model.encode(texts, show_progress_bar=False, **options))
    assert vectors[0].dtype == np.float64
    return vectors[0], np.abs(vectors[0] - vectors[1]).max()


EVALUATED_BY = (
    f"sentence-transformers {sentence_transformers.__version__}, transformers {transformers.__version__}, float64"
)


def make_minilm(folder, out):
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    texts = make_texts(tokenizer)
    lengths = np.asarray([len(tokenizer.encode(text).ids) for text in texts], np.int64)
    vectors, error = embed(folder, texts)
    limit = json.loads((folder / "sentence_bert_config.json").read_text())["max_seq_length"]
    metadata = {"texts": golden.to_json(texts), "max_seq_length": str(limit), "evaluated_by": EVALUATED_BY}
    golden.save(out / "minilm_texts.safetensors", {"embeddings": vectors.astype(np.float32), "tokens": lengths}, metadata)
    print(f"minilm_texts: {lengths.min()} to {lengths.max()} tokens, {sum(lengths > limit)} cut, float32 is {error:.1e} off")


VOCABULARY = (
    ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    + list("abcdefghijklmnopqrstuvwxyz:.,ABCé中文")
    + ["##" + c for c in "abcdefghijklmnopqrstuvwxyzé文"]
    + ["the", "cat", "sat", "mat", "The", "Cat", "CAT", "red", "wine", "café", "cafe", "Café", "query", "passage", "<x>"]
)
CONFIG = dict(
    architectures=["BertModel"], model_type="bert", hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
    intermediate_size=64, vocab_size=len(VOCABULARY), max_position_embeddings=40, type_vocab_size=2,
    layer_norm_eps=1e-12, hidden_act="gelu", pad_token_id=0,
)  # fmt: skip
TEXTS = [
    "the cat sat", "The Cat and THE CAT", "", "\u200b", "Café CAFÉ cafe\u0301 éa", "a中文 中 cat",
    "[CLS] the [MASK] cat<x>", "red wine", "query: red", "The cat sat, the mat sat. " * 9,
]  # fmt: skip


def module(i, name, path):
    return {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{name}"}


MODULES = [module(0, "Transformer", ""), module(1, "Pooling", "1_Pooling"), module(2, "Normalize", "2_Normalize")]
TOKENIZER = {
    "tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": 40, "unk_token": "[UNK]",
    "sep_token": "[SEP]", "pad_token": "[PAD]", "cls_token": "[CLS]", "mask_token": "[MASK]",
}  # fmt: skip
SENTENCE = {"max_seq_length": 30, "do_lower_case": False}
POOLING = {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True}
PROMPTS = {"prompts": {"q": "query: ", "p": "passage:", "long": "the red cat " * 12}, "default_prompt_name": "q"}


def pooling(**keys):
    return {"1_Pooling/config.json": {"word_embedding_dimension": 32, **keys}}


def prompts(include=True, **keys):
    files = {"config_sentence_transformers.json": PROMPTS | keys}
    return files if include else files | pooling(include_prompt=False, **keys.get("pooling", {}))


def tokenizer_settings(**keys):
    return {"tokenizer_config.json": {k: v for k, v in (TOKENIZER | keys).items() if v != "leave out"}}


def cased(**keys):
    """A tokenizer.json that leaves capitals and accents as they are."""
    return {"tokenizer.json": {"normalizer": {"lowercase": False}}} | tokenizer_settings(do_lower_case=False, **keys)


def decoder(*extra):
    special = [t for t in VOCABULARY[:5]]
    tokens = {str(VOCABULARY.index(t)): dict(content=t, special=True, normalized=False) for t in special}
    tokens |= {str(i): dict(content=t, special=False, normalized=True) for i, t in extra}
    return {i: dict(single_word=False, lstrip=False, rstrip=False) | t for i, t in tokens.items()}


# What a folder has otherwise than the plain one (null: no such file; a tokenizer.json: the parts that differ), and how
# encode is called.
CASES = {
    "plain": dict(files={}),
    "no_modules": dict(files={"modules.json": None}),
    "no_modules_nothing_else_read": dict(
        files={"modules.json": None, "sentence_bert_config.json": {"max_seq_length": 5, "do_lower_case": True}} | prompts()
    ),
    "default_prompt": dict(files=prompts()),
    "prompt_by_name": dict(files=prompts(), options={"prompt_name": "p"}),
    "prompt_unnamed_by_the_model": dict(files={}, options={"prompt_name": "query"}),
    "prompt_of_words": dict(files={}, options={"prompt": "the red "}),
    "no_prompt_instead_of_the_default": dict(files=prompts(), options={"prompt": ""}),
    "long_prompt": dict(files=prompts(), options={"prompt_name": "long"}),
    "prompt_not_pooled": dict(files=prompts(False)),
    "prompt_not_pooled_cls": dict(files=prompts() | pooling(include_prompt=False, pooling_mode="cls")),
    "prompt_not_pooled_weighted": dict(files=prompts() | pooling(include_prompt=False, pooling_mode="weightedmean")),
    "prompt_not_pooled_long": dict(files=prompts(False), options={"prompt_name": "long"}),
    "truncate_dim": dict(files={"config_sentence_transformers.json": {"truncate_dim": 8}}),
    "sentence_lower_case": dict(files=cased() | {"sentence_bert_config.json": SENTENCE | {"do_lower_case": True}}),
    "sentence_lower_case_twice": dict(files={"sentence_bert_config.json": SENTENCE | {"do_lower_case": True}}),
    "tokenizer_cased": dict(files=cased()),
    "tokenizer_config_cased": dict(files=tokenizer_settings(do_lower_case=False)),
    "tokenizer_config_lower": dict(files=cased() | tokenizer_settings()),
    "tokenizer_config_silent_on_case": dict(files=cased() | tokenizer_settings(do_lower_case="leave out")),
    "keep_accents": dict(files=tokenizer_settings(strip_accents=False)),
    "strip_accents_cased": dict(files=cased(strip_accents=True)),
    "chinese_together": dict(files=tokenizer_settings(tokenize_chinese_chars=False)),
    "no_tokenizer_config": dict(files=cased() | {"tokenizer_config.json": None}),
    "plain_tokenizer_class": dict(files=cased() | tokenizer_settings(tokenizer_class="PreTrainedTokenizerFast")),
    "electra_tokenizer_class": dict(files=cased() | tokenizer_settings(tokenizer_class="ElectraTokenizerFast")),
    "other_special_tokens": dict(files=tokenizer_settings(cls_token="[MASK]", sep_token="wine", unk_token="mat")),
    "special_tokens_map": dict(files={"special_tokens_map.json": {"cls_token": "red", "sep_token": {"content": "[PAD]"}}}),
    "additional_special_tokens": dict(files=tokenizer_settings(additional_special_tokens=["<x>", "red"])),
    "added_tokens_decoder": dict(
        files=tokenizer_settings(added_tokens_decoder=decoder((len(VOCABULARY) - 1, "<x>"), (63, "red")))
        | {"special_tokens_map.json": {"cls_token": "red"}}
    ),
    "added_tokens_of_tokenizer_json": dict(
        files={
            "tokenizer.json": {
                "added_tokens": [
                    dict(id=i, content=t, single_word=False, lstrip=False, rstrip=False, normalized=False, special=False)
                    for i, t in enumerate(VOCABULARY) if t in ("<x>", "at", "ine")
                ]
            }
        }
    ),
    "cut_and_padded_by_tokenizer_json": dict(
        files={
            "tokenizer.json": {
                "truncation": dict(direction="Right", max_length=4, strategy="LongestFirst", stride=0),
                "padding": dict(
                    strategy={"Fixed": 16}, direction="Right", pad_to_multiple_of=None, pad_id=0, pad_type_id=0,
                    pad_token="[PAD]",
                ),
            }
        }
    ),
    "max_seq_length": dict(files={"sentence_bert_config.json": {"max_seq_length": 6}}),
    "max_seq_length_over_model_max_length": dict(
        files={"sentence_bert_config.json": {"max_seq_length": 12}} | tokenizer_settings(model_max_length=8)
    ),
    "max_seq_length_null": dict(
        files={"sentence_bert_config.json": {"max_seq_length": None}} | tokenizer_settings(model_max_length=9)
    ),
    "sentence_roberta_config": dict(
        files={"sentence_bert_config.json": None, "sentence_roberta_config.json": {"max_seq_length": 7}}
    ),
    "model_max_length": dict(files={"sentence_bert_config.json": None} | tokenizer_settings(model_max_length=5)),
    "max_len": dict(
        files={"sentence_bert_config.json": None} | tokenizer_settings(model_max_length="leave out", max_len=11)
    ),
    "model_max_length_none": dict(
        files={"sentence_bert_config.json": None}
        | tokenizer_settings(model_max_length=1000000000000000019884624838656)
    ),
    "pooling_of_nothing": dict(files=pooling()),
    "pooling_all_false": dict(files=pooling(pooling_mode_mean_tokens=False, pooling_mode_cls_token=False)),
    "pooling_cls": dict(files=pooling(pooling_mode="cls")),
    "pooling_max": dict(files=pooling(pooling_mode="max")),
    "pooling_mean_sqrt_len": dict(files=pooling(pooling_mode="mean_sqrt_len_tokens")),
    "pooling_weightedmean": dict(files=pooling(pooling_mode="weightedmean")),
    "pooling_lasttoken": dict(files=pooling(pooling_mode="lasttoken")),
    "pooling_list": dict(files=pooling(pooling_mode=["lasttoken", "mean"])),
    "pooling_older_keys": dict(
        files=pooling(
            pooling_mode_lasttoken=True, pooling_mode_weightedmean_tokens=True, pooling_mode_mean_sqrt_len_tokens=True,
            pooling_mode_mean_tokens=True, pooling_mode_max_tokens=True, pooling_mode_cls_token=True,
        ) | {"modules.json": MODULES[:2]}
    ),
    "older_classes": dict(files={"modules.json": [module(0, "Transformer", "0_BERT"), *MODULES[1:]]}, subfolder="0_BERT"),
}  # fmt: skip


def word_piece():
    tokenizer = Tokenizer(models.WordPiece({word: i for i, word in enumerate(VOCABULARY)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.add_special_tokens([AddedToken(word, special=True, normalized=False) for word in VOCABULARY[:5]])
    return tokenizer


def make_tiny(folder, config, tokenizer, settings):
    """The plain folder: a random encoder, its tokenizer, sentence-transformers' files."""
    folder.mkdir(exist_ok=True)
    files = {
        "config.json": config, "tokenizer.json": json.loads(tokenizer.to_str()), "tokenizer_config.json": settings,
        "modules.json": MODULES, "sentence_bert_config.json": SENTENCE, "1_Pooling/config.json": POOLING,
    }  # fmt: skip
    write_files(folder, files)
    random = np.random.default_rng(0)
    kind = {"bert": "Bert", "roberta": "Roberta", "distilbert": "DistilBert"}[config["model_type"]]
    options = {} if kind == "DistilBert" else {"add_pooling_layer": False}
    skeleton = getattr(transformers, f"{kind}Model")(getattr(transformers, f"{kind}Config")(**config), **options)
    state = {}
    for name, value in sorted(skeleton.state_dict().items()):
        # Large enough that no head is near uniform and every term shows.
        spread = 0.35 if name.endswith("weight") else 0.2
        array = random.standard_normal(tuple(value.shape)) * spread + (1.0 if "norm.weight" in name.lower() else 0.0)
        state[name] = array.astype(np.float32)
    golden.save(folder / "model.safetensors", state, {"format": "pt"})


def write_files(folder, files):
    for name, content in files.items():
        path = folder / name
        if content is None:
            path.unlink()
            continue
        if name == "tokenizer.json" and path.exists():
            whole = json.loads(path.read_text())
            for part, value in content.items():
                whole[part] = (whole[part] or {}) | value if isinstance(value, dict) else value
            content = whole
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


# Byte-level BPE: pieces of words are written with their bytes as characters, a blank as Ġ.
MERGES = [
    ("t", "h"), ("th", "e"), ("c", "a"), ("ca", "t"), ("s", "a"), ("sa", "t"), ("Ġ", "the"), ("Ġ", "cat"), ("Ġ", "sat"),
    ("Ã", "©"), ("ca", "f"), ("caf", "Ã©"), ("Ġ", "caf"), ("r", "e"), ("re", "d"), ("Ġ", "red"), ("e", "r"), ("u", "er"),
    ("q", "uer"), ("quer", "y"), (":", "Ġ"), ("1", "2"),
]  # fmt: skip
ROBERTA_VOCABULARY = (
    ["<s>", "<pad>", "</s>", "<unk>"]
    + sorted(pre_tokenizers.ByteLevel.alphabet())
    + [a + b for a, b in MERGES]
    + ["<x>", "<mask>"]
)
ROBERTA_CONFIG = dict(
    architectures=["RobertaForMaskedLM"], model_type="roberta", hidden_size=32, num_hidden_layers=2,
    num_attention_heads=4, intermediate_size=64, vocab_size=len(ROBERTA_VOCABULARY), max_position_embeddings=42,
    type_vocab_size=1, layer_norm_eps=1e-5, hidden_act="gelu", pad_token_id=1, bos_token_id=0, eos_token_id=2,
)  # fmt: skip
ROBERTA_TOKENIZER = {"model_max_length": 40, "tokenizer_class": "RobertaTokenizer"}
ROBERTA_TEXTS = [
    "the cat sat", "The Cat and THE CAT", "", " the cat", "café CAFÉ cafe\u0301 éa", "a中文 中 cat 😀 12.5",
    "<s> the <pad> <mask> cat<x>", "red\twine", "query: red", "The cat sat,  the mat sat. " * 9,
]  # fmt: skip


def byte_level():
    numbers = {word: i for i, word in enumerate(ROBERTA_VOCABULARY)}
    tokenizer = Tokenizer(models.BPE(numbers, MERGES, continuing_subword_prefix="", end_of_word_suffix=""))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    special = [AddedToken(word, special=True, normalized=False) for word in ROBERTA_VOCABULARY[:4]]
    tokenizer.add_special_tokens([*special, AddedToken("<mask>", special=True, normalized=False, lstrip=True)])
    return tokenizer


def roberta_settings(**keys):
    return {"tokenizer_config.json": ROBERTA_TOKENIZER | keys}


ROBERTA_CASES = {
    "plain": dict(files={}),
    "no_tokenizer_config": dict(files={"tokenizer_config.json": None}),
    "no_tokenizer_class": dict(files={"tokenizer_config.json": {"model_max_length": 40}}),
    "fast_tokenizer_class": dict(files=roberta_settings(tokenizer_class="RobertaTokenizerFast")),
    "blank_first": dict(files=roberta_settings(add_prefix_space=True)),
    "blank_first_in_tokenizer_json": dict(files={"tokenizer.json": {"pre_tokenizer": {"add_prefix_space": True}}}),
    "lower_case_in_tokenizer_json": dict(files={"tokenizer.json": {"normalizer": {"type": "Lowercase"}}}),
    "plain_tokenizer_class": dict(
        files={"tokenizer.json": {"normalizer": {"type": "Lowercase"}}}
        | roberta_settings(tokenizer_class="PreTrainedTokenizerFast", pad_token="<pad>")
    ),
    "other_special_tokens": dict(files=roberta_settings(cls_token="<mask>", sep_token="<x>", mask_token="</s>")),
    "special_tokens_map": dict(
        files={"special_tokens_map.json": {"cls_token": "<x>", "mask_token": {"content": "red", "lstrip": True}}}
    ),
    "additional_special_tokens": dict(files=roberta_settings(additional_special_tokens=["<x>", "sat"])),
    "sentence_lower_case": dict(files={"sentence_bert_config.json": SENTENCE | {"do_lower_case": True}}),
    "longest": dict(files={"sentence_bert_config.json": {"max_seq_length": 40}}),
    "default_prompt": dict(files=prompts()),
}
DISTILBERT_CONFIG = dict(
    architectures=["DistilBertModel"], model_type="distilbert", dim=32, n_layers=2, n_heads=4, hidden_dim=64,
    vocab_size=len(VOCABULARY), max_position_embeddings=40, activation="gelu", sinusoidal_pos_embds=False,
    pad_token_id=0,
)  # fmt: skip
DISTILBERT_CASES = {
    "plain": dict(files=tokenizer_settings(tokenizer_class="DistilBertTokenizer")),
    "no_tokenizer_config": dict(files=cased() | {"tokenizer_config.json": None}),
    "no_tokenizer_class": dict(files=cased() | tokenizer_settings(tokenizer_class="leave out")),
    "cased": dict(files=tokenizer_settings(tokenizer_class="DistilBertTokenizerFast", do_lower_case=False)),
}


def saved_again(folder):
    """The files that sentence-transformers writes of the plain model with a prompt, all but the weights."""
    with tempfile.TemporaryDirectory() as place:
        model = sentence_transformers.SentenceTransformer(str(folder), device="cpu", local_files_only=True)
        model.prompts["query"] = "query: "
        model.save_pretrained(place, create_model_card=False)
        names = [path.relative_to(place) for path in sorted(pathlib.Path(place).rglob("*.json"))]
        files = {str(name): json.loads((pathlib.Path(place) / name).read_text()) for name in names}
    files["config_sentence_transformers.json"].pop("__version__")
    assert {"modules.json", "sentence_bert_config.json", "tokenizer_config.json"} <= files.keys(), files.keys()
    return files


def make_cases(tiny, cases, texts):
    tensors, largest = {}, 0
    cases = cases | {"saved_again": dict(files=saved_again(tiny), options={"prompt_name": "query"})}
    for name, case in cases.items():
        with tempfile.TemporaryDirectory() as place:
            folder = pathlib.Path(place) / "model"
            shutil.copytree(tiny, folder, ignore=shutil.ignore_patterns("cases.json", "expected.safetensors"))
            inner = folder / case.get("subfolder", "")
            if inner != folder:
                inner.mkdir()
                for file in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
                             "sentence_bert_config.json"):  # fmt: skip
                    (folder / file).rename(inner / file)
            write_files(folder, case["files"])
            vectors, error = embed(folder, texts, **case.get("options", {}))
        tensors[name] = vectors.astype(np.float32)
        largest = max(largest, error)
    text = json.dumps({"texts": texts, "cases": cases}, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    (tiny / "cases.json").write_text(text)
    golden.save(tiny / "expected.safetensors", tensors, {"evaluated_by": EVALUATED_BY})
    print(f"{tiny.name}: {len(cases)} cases, float32 is {largest:.1e} off")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=pathlib.Path, default=HERE.parents[2] / "models" / "all-MiniLM-L6-v2")
    parser.add_argument("--out", type=pathlib.Path, default=HERE, help="folder to write to (default: beside this file)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    for name, config, tokenizer, settings, cases, texts in (
        ("tiny", CONFIG, word_piece(), TOKENIZER, CASES, TEXTS),
        ("tiny_roberta", ROBERTA_CONFIG, byte_level(), ROBERTA_TOKENIZER, ROBERTA_CASES, ROBERTA_TEXTS),
        ("tiny_distilbert", DISTILBERT_CONFIG, word_piece(), TOKENIZER, DISTILBERT_CASES, TEXTS),
    ):
        make_tiny(args.out / name, config, tokenizer, settings)
        make_cases(args.out / name, cases, texts)
    make_minilm(args.model, args.out)


if __name__ == "__main__":
    main()
