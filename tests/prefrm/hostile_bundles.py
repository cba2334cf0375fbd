"""Forging bundles: what anybody may put into one, with sizes, hashes and a digest that fit.

Each case changes a copy of a valid bundle, of weights "model" or "adapter", in place.
"""

import hashlib
import json
import os
import struct
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from prefrm.prompts import get_template

__all__ = ["ADAPTERS", "MODELS", "Forge", "forged", "relist"]

Forge = Callable[[Path], None]
MANIFEST = "manifest.json"
ONE_IMAGE = asdict(get_template("rate-v1"))


def forged(raw: dict[str, Any]) -> str:
    """The text of a manifest with these fields, whatever they are, and the digest that they have."""
    fields = {key: value for key, value in raw.items() if key not in ("digest", "format_version")}
    digest = hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()
    return json.dumps(raw | {"digest": digest}, indent=2, sort_keys=True) + "\n"


def read(folder: Path) -> dict[str, Any]:
    """The fields of a bundle's manifest."""
    raw: dict[str, Any] = json.loads((folder / MANIFEST).read_text())
    return raw


def put(path: Path, content: bytes | str) -> None:
    """Replace a file, not what it is a hard link of."""
    path.unlink(missing_ok=True)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def relist(folder: Path) -> None:
    """List the regular files that are there now, as an author of the bundle would."""
    files = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != MANIFEST:
            content = path.read_bytes()
            record = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
            files[path.relative_to(folder).as_posix()] = record
    put(folder / MANIFEST, forged(read(folder) | {"files": files}))


def manifest(**fields: Any) -> Forge:
    """Other fields, those of `spec` and so on by a name with two underscores."""

    def forge(folder: Path) -> None:
        raw = read(folder)
        for name, value in fields.items():
            *parents, last = name.split("__")
            inner = raw
            for parent in parents:
                inner = inner[parent]
            inner[last] = value
        put(folder / MANIFEST, forged(raw))

    return forge


def listed(path: str, record: Any = None) -> Forge:
    """One more file in the manifest."""

    def forge(folder: Path) -> None:
        raw = read(folder)
        raw["files"][path] = record or {"sha256": "0" * 64, "bytes": 1}
        put(folder / MANIFEST, forged(raw))

    return forge


def content(path: str, data: bytes | str) -> Forge:
    """A file of another content, listed as it is."""

    def forge(folder: Path) -> None:
        put(folder / path, data)
        relist(folder)

    return forge


def setting(path: str, name: str, value: Any) -> Forge:
    """Another setting in a file of JSON, at a path of keys with dots."""

    def forge(folder: Path) -> None:
        whole = json.loads((folder / path).read_text())
        *parents, last = name.split(".")
        inner = whole
        for parent in parents:
            inner = inner[parent]
        inner[last] = value
        content(path, json.dumps(whole))(folder)

    return forge


def instead(path: str, make: Callable[[Path], object]) -> Forge:
    """Something else in the place of a file."""

    def forge(folder: Path) -> None:
        (folder / path).unlink(missing_ok=True)
        make(folder / path)

    return forge


def beside(path: str, make: Callable[[Path], object]) -> Forge:
    """Something in the folder that the manifest does not list."""
    return instead(path, make)


def link(target: str) -> Callable[[Path], object]:
    """Makes a symbolic link."""
    return lambda path: path.symlink_to(target)


def linked_folder(folder: Path) -> None:
    """`model/` lies elsewhere, with a file that nobody listed."""
    elsewhere = folder.with_name(f"{folder.name}-elsewhere")
    (folder / "model").rename(elsewhere)
    put(elsewhere / "unlisted.json", "{}")
    (folder / "model").symlink_to(elsewhere)


def sparse(path: str, size: int) -> Forge:
    """A file of a terabyte that takes no room on the disk."""

    def forge(folder: Path) -> None:
        put(folder / path, b"")
        os.truncate(folder / path, size)

    return forge


def listed_sparse(path: str, size: int) -> Forge:
    """The same, and the manifest says so."""

    def forge(folder: Path) -> None:
        sparse(path, size)(folder)
        raw = read(folder)
        raw["files"][path] = {"sha256": "0" * 64, "bytes": size}
        put(folder / MANIFEST, forged(raw))

    return forge


def tensors(header: Any, rest: bytes = b"") -> bytes:
    """A safetensors file with that header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + rest


def tokenizer(**parts: Any) -> Forge:
    """Other parts of a tokenizer."""

    def forge(folder: Path) -> None:
        whole = json.loads((folder / TOKENIZER).read_text())
        content(TOKENIZER, json.dumps(whole | parts))(folder)

    return forge


def normalizers(*steps: dict[str, Any]) -> Forge:
    """A tokenizer that rewrites texts in these steps."""
    return tokenizer(normalizer={"type": "Sequence", "normalizers": steps})


def many_files(folder: Path) -> None:
    """More files than any bundle has."""
    (folder / "plots").mkdir(exist_ok=True)
    for n in range(1001):
        (folder / "plots" / f"{n}.png").touch()


def sharded(name: str) -> Forge:
    """Weights in a file that an index names."""

    def forge(folder: Path) -> None:
        (folder / "model" / "model.safetensors").unlink()
        content("model/model.safetensors.index.json", json.dumps({"weight_map": {"lm_head": name}}))(folder)

    return forge


NESTED = "[" * 100_000
CONFIG, IMAGES, WORDS, TOKENIZER = (
    "model/config.json",
    "processor/preprocessor_config.json",
    "processor/tokenizer_config.json",
    "processor/tokenizer.json",
)
ADAPTER = "adapter/adapter_config.json"
WRONG_FIELDS: dict[str, list[Any]] = {
    "spec__base_model": [5, "", None, ["x"]],
    "spec__head": ["nope", None, 1],
    "spec__attention": ["isolated", "joint", {}],
    "spec__embedding_dim": [10**9 + 1, "8", -2],
    "spec__min_pixels": ["1", -1, 10**12],
    "spec__ties": ["no", 1],
    "spec__unknown": [1],
    "spec": [[], None, "x"],
    "template": [None, [], {}],
    "template__answers": [None, "12", [1, 2], ["1"], ["1", "2", "3", "4"]],
    "rendered": [None, [], {"before": "x"}],
    "rendered__between": [["a"], "abc", None],
    "rendered__after": ["", None, 5],
    "weights": ["tea", None, ["model"]],
    "base_sha256": ["", "x" * 64, 5],
    "calibration": ["x", [], {"name": "temperature"}],
    "metrics": [None, [], 5],
    "versions": [None, {"prefrm": 1}, []],
    "files": [None, [], "x", 5, {"README.md": "0" * 64}, {"README.md": {"sha256": "0" * 64, "bytes": -1}}],
    "data_fingerprint": [None, 5],
    "unknown": [1],
}
MODELS: dict[str, Forge] = {
    f"{name}={value!r:.40}": manifest(**{name: value})
    for name, values in WRONG_FIELDS.items()
    for value in values
} | {
    "manifest nested 100,000 deep": lambda folder: put(folder / MANIFEST, NESTED),
    "manifest nested inside metrics": lambda folder: put(
        folder / MANIFEST,
        forged(read(folder)).replace('"metrics": {}', f'"metrics": {{"x": {NESTED[:900]}{"]" * 900}}}'),
    ),
    "manifest is a FIFO": instead(MANIFEST, os.mkfifo),
    "manifest is a link to /dev/zero": instead(MANIFEST, link("/dev/zero")),
    "manifest is a folder": instead(MANIFEST, Path.mkdir),
    "manifest of 100 MB": sparse(MANIFEST, 100 * 2**20),
    "manifest is a list": lambda folder: put(folder / MANIFEST, "[]"),
    "manifest is empty": lambda folder: put(folder / MANIFEST, ""),
    "manifest has a key twice": lambda folder: put(
        folder / MANIFEST, forged(read(folder)).replace('"weights"', '"weights": 5, "weights"')
    ),
    "manifest with NaN": lambda folder: put(
        folder / MANIFEST, forged(read(folder)).replace('"metrics": {}', '"metrics": {"x": NaN}')
    ),
    "manifest is not UTF-8": lambda folder: put(folder / MANIFEST, b"\xff\xfe"),
    "manifest has a number of 5000 digits": lambda folder: put(
        folder / MANIFEST, forged(read(folder)).replace('"embedding_dim": ', f'"embedding_dim": {"9" * 5000}')
    ),
    "escapes in a value": manifest(weights="\x1b]0;owned\x07\n\nsecond line"),
    "a path with a parent": listed("../outside.json"),
    "an absolute path": listed("/etc/passwd.json"),
    "a pickle": listed("model/pytorch_model.bin"),
    "an adapter beside the model": content(
        "model/adapter_config.json", '{"base_model_name_or_path": "evil/x"}'
    ),
    "code": listed("model/modeling.py"),
    "a file without a record": listed("plots/x.png", ["x"]),
    "model/ is a link to a folder": linked_folder,
    "a file is a link out of the folder": instead(CONFIG, link("/etc/hostname")),
    "a file is a link to /dev/zero": instead(CONFIG, link("/dev/zero")),
    "a file is a link to itself": instead(CONFIG, link("config.json")),
    "a file is a FIFO": instead(CONFIG, os.mkfifo),
    "weights are a FIFO": instead("model/model.safetensors", os.mkfifo),
    "a FIFO beside": beside("model/more.safetensors", os.mkfifo),
    "an unlisted file": beside("model/more.safetensors", Path.touch),
    "a link to / beside": beside("everything", link("/")),
    "a thousand files": many_files,
    "a terabyte of weights": sparse("model/model.safetensors", 10**12),
    "a terabyte of weights, listed": listed_sparse("model/model.safetensors", 10**12),
    "a terabyte of a head, listed": listed_sparse("head.safetensors", 10**12),
    "a terabyte of a card, listed": listed_sparse("README.md", 10**12),
    "no model": lambda folder: (folder / CONFIG).unlink(),
    "kernels from a hub": setting(CONFIG, "attn_implementation", "evil/kernels"),
    "kernels from a hub, inside": setting(CONFIG, "text_config._attn_implementation", "evil/kernels:run"),
    "kernels for a part": setting(CONFIG, "attn_implementation", {"text_config": "evil/kernels"}),
    "use_kernels": setting(CONFIG, "use_kernels", True),
    "code from a hub": setting(CONFIG, "auto_map", {"AutoConfig": "evil/x--config.Config"}),
    "ten million layers": setting(CONFIG, "text_config.num_hidden_layers", 10**7),
    "ten million vision layers": setting(CONFIG, "vision_config.depth", 10**7),
    "layers by another name": setting(CONFIG, "num_hidden_layers", 10**7),
    "no layers": setting(CONFIG, "text_config.num_hidden_layers", -1),
    "hidden_size 10^9": setting(CONFIG, "text_config.hidden_size", 10**9),
    "vocab_size 10^9": setting(CONFIG, "text_config.vocab_size", 10**9),
    "vision hidden_size 10^9": setting(CONFIG, "vision_config.hidden_size", 10**9),
    "head_dim 10^9": setting(CONFIG, "text_config.head_dim", 10**9),
    "hidden_size beyond the weights": setting(CONFIG, "text_config.hidden_size", 2**20),
    "vocab_size beyond the weights": setting(CONFIG, "text_config.vocab_size", 2**25),
    "hidden_size is text": setting(CONFIG, "text_config.hidden_size", "x"),
    "hidden_size is null": setting(CONFIG, "text_config.hidden_size", None),
    "patch_size 0": setting(CONFIG, "vision_config.patch_size", 0),
    "num_labels 10^7": setting(CONFIG, "num_labels", 10**7),
    "partial_rotary_factor": setting(CONFIG, "text_config.rope_parameters.partial_rotary_factor", 10**6),
    "a list of 100,000 layers": setting(CONFIG, "vision_config.fullatt_block_indexes", [1] * 100_000),
    "text_config is a list": setting(CONFIG, "text_config", []),
    "vision_config is null": setting(CONFIG, "vision_config", None),
    "another model": setting(CONFIG, "model_type", "bert"),
    "no model type": setting(CONFIG, "model_type", None),
    "a part of another model": lambda folder: (
        setting(CONFIG, "model_type", "llava_onevision")(folder),
        setting(CONFIG, "text_config.model_type", "gpt2")(folder),
    ),
    "no image token": setting(CONFIG, "image_token_id", 10**6),
    "configuration nested": content(CONFIG, NESTED),
    "configuration is a list": content(CONFIG, "[]"),
    "generation nested": content("model/generation_config.json", NESTED),
    **{
        f"quantized by {method}": setting(CONFIG, "quantization_config", {"quant_method": method, "bits": 4})
        for method in ("gptq", "awq", "bitsandbytes", "fp8", "nonsense")
    },
    "weights without a header": content("model/model.safetensors", b"\xff" * 100),
    "weights with a nested header": content("model/model.safetensors", tensors(NESTED.encode())),
    "weights beyond the file": content(
        "model/model.safetensors",
        tensors({"x": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}),
    ),
    "a hundred thousand tensors": content(
        "model/model.safetensors",
        tensors({f"t{n}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for n in range(100_000)}),
    ),
    "weights of nothing": content("model/model.safetensors", tensors({})),
    "an index to a file outside": sharded("../../../etc/x.safetensors"),
    "an index to nothing": sharded("absent.safetensors"),
    "a head of nothing": content("head.safetensors", tensors({})),
    "a head without a header": content("head.safetensors", b"x"),
    "a head without its template": manifest(spec__head="scalar", spec__template="rate-v1"),
    **{
        f"a head of another kind, {head}": manifest(
            spec__head=head,
            spec__attention="alone",
            spec__embedding_dim=10**9,
            spec__template="rate-v1",
            template=ONE_IMAGE,
            rendered__between=["a", "b"],
            rendered__after=None,
        )
        for head in ("scalar", "embedding")
    },
    **{
        f"a head of too many {name}": manifest(
            spec__head="scalar",
            spec__attention="alone",
            spec__template="rate-v1",
            template=ONE_IMAGE,
            rendered__between=["a", "b"],
            rendered__after=None,
            **{f"spec__{name}": value},
        )
        for name, value in {"mlp": [4] * 20_000, "readouts": [f"<{n}>" for n in range(50_000)]}.items()
    },
    "an image size of 10^9": setting(IMAGES, "size", {"shortest_edge": 10**9, "longest_edge": 10**9}),
    "an image size of 66 million": setting(
        IMAGES, "size", {"shortest_edge": 66 * 10**6, "longest_edge": 66 * 10**6}
    ),
    "a patch size of 10^6": setting(IMAGES, "patch_size", 10**6),
    "a million copies in time": setting(IMAGES, "temporal_patch_size", 10**6),
    "a merge size of 0": setting(IMAGES, "merge_size", 0),
    "two means": setting(IMAGES, "image_mean", [0.5, 0.5]),
    "another image processor": setting(IMAGES, "image_processor_type", "ViTImageProcessor"),
    "an image processor of code": setting(IMAGES, "auto_map", {"AutoImageProcessor": "evil/x--p.P"}),
    "no image processor": lambda folder: ((folder / IMAGES).unlink(), relist(folder)),
    "a tokenizer of code": setting(WORDS, "auto_map", {"AutoTokenizer": ["evil/x--t.T", None]}),
    "a vocabulary elsewhere": setting(WORDS, "vocab_file", "/dev/zero"),
    "a tokenizer elsewhere": setting(WORDS, "tokenizer_file", "/dev/zero"),
    "words elsewhere": setting(WORDS, "init_inputs", ["/dev/zero"]),
    "a tokenizer of another version": setting(WORDS, "fast_tokenizer_files", ["tokenizer.1/../../x.json"]),
    "a tokenizer nested": content("processor/tokenizer.json", NESTED),
    "a tokenizer of nothing": content("processor/tokenizer.json", "{}"),
    "tokenizer settings nested": content(WORDS, NESTED),
    "a hundred thousand added tokens": tokenizer(added_tokens=[{"id": n} for n in range(100_000)]),
    "a hundred thousand added tokens, in settings": setting(
        WORDS, "added_tokens_decoder", {str(n): {"content": f"<{n}>"} for n in range(100_000)}
    ),
    "a million words": tokenizer(model={"type": "BPE", "vocab": dict.fromkeys(map(str, range(10**6)), 0)}),
    "a template of 10,000 pieces": tokenizer(
        post_processor={
            "type": "TemplateProcessing",
            "single": [{"Sequence": {"id": "A", "type_id": 0}}] * 10_000,
            "pair": [],
            "special_tokens": {},
        }
    ),
    "a catastrophic expression for words": lambda folder: (
        tokenizer(
            pre_tokenizer={
                "type": "Split",
                "pattern": {"Regex": "(x+x+)+y"},
                "behavior": "Isolated",
                "invert": False,
            }
        )(folder),
        manifest(rendered__before="x" * 60)(folder),
    ),
    "texts that grow, by an expression": normalizers(
        *[{"type": "Replace", "pattern": {"Regex": "."}, "content": "aaaaaaaaaa"}] * 9
    ),
    "texts that grow, by a text": normalizers(
        *[{"type": "Replace", "pattern": {"String": "a"}, "content": "aaaaaaaaaa"}] * 9
    ),
    "texts that grow, without a type": normalizers({"prepend": "a" * 10**6}),
    "texts that grow at their beginning": normalizers({"type": "Prepend", "prepend": "a" * 10**6}),
    "texts that grow in many steps": tokenizer(
        pre_tokenizer={
            "type": "Sequence",
            "pretokenizers": [{"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}] * 40,
        }
    ),
    "rendered texts beyond the model": manifest(rendered__before="a " * 100_000),
    "rendered texts beyond the model, after an image": manifest(rendered__after="a " * 100_000),
    "a model that reads no comparison": setting(CONFIG, "text_config.max_position_embeddings", 99),
}
ADAPTERS: dict[str, Forge] = {
    "a rank of 10^9": setting(ADAPTER, "r", 10**9),
    "a rank beyond the weights": setting(ADAPTER, "r", 10**7),
    "a rank of text": setting(ADAPTER, "r", "x"),
    "another kind": setting(ADAPTER, "peft_type", "PREFIX_TUNING"),
    "a catastrophic expression": setting(ADAPTER, "target_modules", "(((a|[a-z._0-9])+)+)+!"),
    "a catastrophic exclusion": setting(ADAPTER, "exclude_modules", "(((a|[a-z._0-9])+)+)+!"),
    "a catastrophic pattern": setting(ADAPTER, "rank_pattern", {"(((a|[a-z._0-9])+)+)+!": 1}),
    "ten million copies of layers": setting(ADAPTER, "layer_replication", [[0, 10**7]]),
    "a module to import": setting(ADAPTER, "megatron_core", "antigravity"),
    "adapter nested": content(ADAPTER, NESTED),
    "adapter is a list": content(ADAPTER, "[]"),
    "adapter weights of nothing": content("adapter/adapter_model.safetensors", tensors({})),
    "no adapter": lambda folder: ((folder / ADAPTER).unlink(), relist(folder)),
    "a base that is absent": manifest(spec__base_model="/nowhere/at\x1b[31mall"),
    "a base that is not a checkpoint": manifest(spec__base_model="/usr"),
    "a base of other weights": manifest(base_sha256="0" * 64),
    "a pickle listed": listed("adapter/adapter_model.bin"),
}
