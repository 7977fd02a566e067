"""Loads a model that is pinned by its commit: usage load_model.py REPO COMMIT."""
import sys

import numpy
from huggingface_hub import hf_hub_download
from safetensors import safe_open
from transformers import AutoConfig, AutoTokenizer

repo, commit = sys.argv[1:]
config = AutoConfig.from_pretrained(repo, revision=commit)
assert config.model_type == "bert" and config.hidden_size == 384, config
tokenizer = AutoTokenizer.from_pretrained(repo, revision=commit)
ids = tokenizer("weights and ballast")["input_ids"]
assert tokenizer.decode(ids, skip_special_tokens=True) == "weights and ballast", ids
weights = hf_hub_download(repo, "model.safetensors", revision=commit)
assert commit in weights, weights
with safe_open(weights, framework="numpy") as tensors:
    embedding = tensors.get_tensor("embeddings.word_embeddings.weight")
    assert embedding.shape == (30522, 384) and numpy.isfinite(embedding).all()
