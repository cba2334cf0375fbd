"""Win matrices as rewards of trainers: TRL, flow_grpo, Flow-Factory, slime, verl.

Importing this package imports neither torch nor any trainer.
"""

from prefrm.grpo.combined import CombinedReward
from prefrm.grpo.conversations import last_user_text
from prefrm.grpo.flow import FlowGRPOReward
from prefrm.grpo.group_calls import FlowFactoryReward, SlimeReward
from prefrm.grpo.groups import RewardOptions
from prefrm.grpo.references import reference_folder
from prefrm.grpo.scorer import AsyncScorer
from prefrm.grpo.trl import AsyncPreferenceReward, PreferenceReward
from prefrm.grpo.verl import VerlReward

__all__ = [
    "AsyncPreferenceReward",
    "AsyncScorer",
    "CombinedReward",
    "FlowFactoryReward",
    "FlowGRPOReward",
    "PreferenceReward",
    "RewardOptions",
    "SlimeReward",
    "VerlReward",
    "last_user_text",
    "reference_folder",
]
