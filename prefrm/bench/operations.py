"""How many operations a group costs at least, counted from what each method reads: the floor under its time.

Products of matrices alone, a multiplication and an addition each: linear layers and attention, of which only
what a mask allows counts. Norms, activations, rotations, embeddings and heads are not counted, nor is what no
result depends on: of a segment to which later ones attend, the last layer's keys and values are all that is
used; of an answer, one position. Knows the layers of Qwen2.5-VL.

Shapes: K candidates.
"""

from collections.abc import Iterable, Sequence
from itertools import permutations
from typing import Any

from prefrm.bench.inputs import sequences
from prefrm.judge import ImageInput, Judge, Pair, Segment, Tree

__all__ = ["group_operations", "language_operations", "tree_operations", "vision_operations"]


def vision_operations(config: Any, grid: tuple[int, ...]) -> int:
    """Of an image of that grid (patches in time, height and width) through the vision tower."""
    vision = config.vision_config
    width, merge = vision.hidden_size, vision.spatial_merge_size
    patches = grid[0] * grid[1] * grid[2]
    volume = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
    linear = patches * width * (4 * width + 3 * vision.intermediate_size)
    layers = 0
    for layer in range(vision.depth):
        full = layer in vision.fullatt_block_indexes
        seen = grid[0] * (grid[1] * grid[2]) ** 2 if full else _seen_in_windows(vision, grid)
        layers += linear + 2 * seen * width
    merged = merge**2 * width
    merger = patches // merge**2 * merged * (merged + vision.out_hidden_size)
    return int(2 * (patches * volume * width + layers + merger))


def _seen_in_windows(vision: Any, grid: tuple[int, ...]) -> int:
    """Pairs of patches in one window; those at the edges are cut off."""
    merge = vision.spatial_merge_size
    side = vision.window_size // merge // vision.patch_size
    squares = []
    for patches in grid[1:]:
        whole, rest = divmod(patches // merge, side)
        squares.append(whole * side**2 + rest**2)
    return int(grid[0] * squares[0] * squares[1] * merge**4)


def language_operations(config: Any, tokens: int, *, seen: int = 0, used: int = 1) -> int:
    """Of a run of tokens through the language model; each attends to `seen` others and those up to itself.

    Args:
        config: the backbone's.
        tokens: of the run.
        seen: tokens that were read before.
        used: how many at the end are used after the last layer: 1 of an answer, 0 of what answers see.
    """
    text = config.text_config
    width = text.hidden_size
    head = getattr(text, "head_dim", None) or width // text.num_attention_heads
    queries, keys = text.num_attention_heads * head, text.num_key_value_heads * head
    # Without keys and values.
    each = 2 * width * queries + 3 * width * text.intermediate_size

    def layer(used: int) -> int:
        pairs = used * (seen + tokens) - used * (used - 1) // 2
        return int(tokens * 2 * width * keys + used * each + 2 * pairs * queries)

    return 2 * ((int(text.num_hidden_layers) - 1) * layer(tokens) + layer(used))


def group_operations(judge: Judge, method: str, k: int, *, prompt: str, image: ImageInput) -> int:
    """Of a group of K images that are all as large as `image`, by one of `prefrm.bench.methods`."""
    config, pairs = judge.model.config, list(permutations(range(k), 2))
    vision = vision_operations(config, image.grid)
    tree = judge.processor.tree(prompt, dict.fromkeys(range(k), image))
    if method == "plain":
        (whole,) = sequences(tree, [(0, 1)])
        return len(pairs) * (2 * vision + language_operations(config, sum(map(len, whole))))
    return k * vision + tree_operations(config, tree, pairs)


def tree_operations(config: Any, tree: Tree, pairs: Sequence[Pair]) -> int:
    """Of the segments of a tree through the language model, each read once."""
    shared, answers = tree.shared, tree.answers(pairs)

    def cost(segments: Iterable[Segment], used: int) -> int:
        return sum(
            language_operations(config, len(x), seen=sum(len(shared[name]) for name in x.sees), used=used)
            for x in segments
        )

    return cost(shared.values(), used=0) + cost(answers.values(), used=1)
