"""A dual encoder is served as any bundle: on both wires its matrices are the local engine's."""

import numpy as np

from prefrm.client import connect
from prefrm.engine import open_engine
from prefrm.winmatrix import Group
from serving.bundles import BundleShelf, EngineOptions, name_bundle
from serving.queueing.cost import Costed
from serving.queueing.decoding import Preparing
from serving.queueing.worker import Pausing
from serving.running import background
from serving.server import JudgeServer
from tests.prefrm.judge.dual import import_tiny


def test_both_wires_give_the_matrices_of_the_local_engine(tmp_path, png) -> None:
    bundle = import_tiny("pickscore", tmp_path)
    shelf = BundleShelf([name_bundle(f"pick={bundle}", "judge")], None, EngineOptions(device="cpu", pairs=3))
    assert shelf.check()[0].startswith("pick: dual encoder (similarity) pickscore, at the temperature of")
    (model,) = shelf.load_all()
    assert isinstance(model.scorer, Costed) and isinstance(model.scorer, Preparing)
    assert isinstance(model.scorer, Pausing) and model.cache is not None
    groups = [
        Group(prompt="a red cube", candidates=(png(10), png(90), png(200))),
        Group(prompt="über", candidates=(png(1), None, b"no image", png(4))),
    ]
    local = open_engine(bundle, device="cpu").score(groups)
    with background(JudgeServer(model.scorer, model.info)) as addresses:
        for url in (addresses.grpc_url, addresses.http_url):
            with connect(url.replace("/judge", "/pick")) as judge:
                found = judge.score(groups)
            assert all(remote.equals(own) for remote, own in zip(found, local, strict=True))
    assert model.cache.misses == len(np.unique([10, 90, 200, 1, 4]))
