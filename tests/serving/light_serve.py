"""`prefrm serve` as it is, but for the judge, which judges by length and takes no torch to load."""

import sys
from types import SimpleNamespace

import typer

from prefrm.winmatrix import FakeScorer


class Engine(FakeScorer):
    cache = None
    judge = SimpleNamespace(device="cpu")

    @classmethod
    def from_bundle(cls, folder, **options):
        return cls(lambda prompt, image: float(len(image)))


def main():
    manifest = SimpleNamespace(describe=lambda: "a judge", digest="d" * 64)
    sys.modules["prefrm.manifest"] = SimpleNamespace(
        MANIFEST="manifest.json",
        Manifest=SimpleNamespace,
        inspect_bundle=lambda folder: manifest,
        read_manifest=lambda folder: manifest,
    )
    sys.modules["prefrm.engine"] = SimpleNamespace(Engine=Engine, DEFAULT_CACHE_BYTES=0, DEFAULT_TOKENS=1)
    from serving.commands import serve

    typer.run(serve)


if __name__ == "__main__":
    main()
