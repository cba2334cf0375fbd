"""Published judges become bundles: `prefrm import NAME SOURCE --out BUNDLE`.

    registry    the judges, as data; imports no torch
    sources     a file, a folder or a repository of the Hub
    reading     weights from safetensors files and, here alone, from pickles
    keys        rules from published names of weights to ours
    importing   from a row of the registry to a bundle
    dual, ...   what builds each kind of judge

A new judge is a row in `registry` and a function `build(request) -> Imported` that the row names. Weights
under other published names are renamed by rules; a key that is left over, missing or misshapen is an
error.
"""

from prefrm.imports.registry import PUBLISHED, PublishedJudge, find_published

__all__ = ["PUBLISHED", "PublishedJudge", "find_published"]
