"""The whole story on one machine, in minutes: a judge is trained, served, and improves a policy.

The only part of prefrm that knows a recipe: everything else takes the datasets that recipes write.
"""

from prefrm.quickstart.story import tell

__all__ = ["tell"]
