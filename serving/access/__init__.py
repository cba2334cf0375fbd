"""The tokens and certificates of `prefrm.access` on both wires, and bounds on connections."""
