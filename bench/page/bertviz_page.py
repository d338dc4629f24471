"""Writes BertViz's page of a text cut to so many tokens, and the text: bertviz_page.py MODEL TOKENS TEXT.txt PAGE.html. In .venv-bertviz."""
import json
import pathlib
import sys

import torch
from bertviz import head_view
from transformers import AutoModel, AutoTokenizer

model, tokens, text, page = sys.argv[1], int(sys.argv[2]), pathlib.Path(sys.argv[3]), pathlib.Path(sys.argv[4])
tokenizer = AutoTokenizer.from_pretrained(model)
words = text.read_text().split()
cut = next(" ".join(words[:count]) for count in range(len(words), 0, -1) if len(tokenizer(" ".join(words[:count]))["input_ids"]) <= tokens)
text.write_text(cut)
given = tokenizer(cut, return_tensors="pt")
with torch.no_grad():
    attentions = AutoModel.from_pretrained(model, attn_implementation="eager")(**given, output_attentions=True).attentions
html = head_view(attentions, tokenizer.convert_ids_to_tokens(given["input_ids"][0]), html_action="return").data
page.write_text(f"<!doctype html><meta charset=utf-8>{html}")
print(json.dumps({"tokens": given["input_ids"].shape[1], "weights": sum(each.numel() for each in attentions)}))
