"""transformers' LlamaForCausalLM with PyTorch's attention."""

import time

import torch
import transformers

NAME = "transformers"
VERSION = f"{transformers.__version__}, PyTorch {torch.__version__.split('+')[0]}"
WRITTEN = 17
TYPES = {"f32": torch.float32, "bf16": torch.bfloat16}
inference = torch.inference_mode()
loaded = {}


def start(threads):
    torch.set_num_threads(threads)
    inference.__enter__()  # for good: entering it is no part of a call
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


def load(case):
    if case.dtype not in loaded:
        loaded.clear()
        loaded[case.dtype] = transformers.LlamaForCausalLM.from_pretrained(
            case.folder, attn_implementation="sdpa", dtype=TYPES[case.dtype]
        ).eval()
    return loaded[case.dtype]


def prefill(case, inputs):
    model, ids = load(case).model, torch.from_numpy(inputs["ids"])

    def run():
        return model(ids, use_cache=False).last_hidden_state

    return run, lambda: run().double().numpy()


def generate(case, inputs):
    model, ids = load(case), torch.from_numpy(inputs["ids"])

    def seconds(tokens):
        begin = time.perf_counter()
        model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False
        )
        return time.perf_counter() - begin

    def run():
        """Seconds a token: what 16 more of them take."""
        return (seconds(WRITTEN) - seconds(1)) / (WRITTEN - 1)

    run.is_sampler = True
    return run, lambda: model(ids, logits_to_keep=1).logits[:, 0].double().numpy()
