"""A judge as a model of NVIDIA's Triton Inference Server, behind Triton's own scheduler and wires.

`repository` writes the folder that Triton loads; `model` is what Triton's Python backend runs of it.
"""
