"""`torch.compile` for the layers of a judge's backbone; what stands between them stays as it is."""

from itertools import chain

from torch import nn

from prefrm.judge import Judge

__all__ = ["compile_layers"]


def compile_layers(judge: Judge) -> None:
    """Compile the layers of the vision tower and of the language model in place, for inputs of any length.

    All but the language model's last, of which a reading computes one position. The first passes take long;
    the layers of a kind share what is compiled.
    """
    tower = judge.model.get_submodule(judge.family.vision_tower)
    lists = [module for module in tower.modules() if isinstance(module, nn.ModuleList)]
    for layer in chain(judge.model.get_decoder().layers[:-1], *lists):
        layer.compile(dynamic=True)
