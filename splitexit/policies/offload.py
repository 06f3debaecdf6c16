"""A fixed split."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from annotated_types import Ge

from splitexit.codecs import canonical
from splitexit.decision import Observation, Plan, Setting
from splitexit.errors import InputError
from splitexit.policies import Policy

if TYPE_CHECKING:
    import numpy as np


class Offload(Policy):
    """Always runs `split` stages on the device and sends the result with `codec`.

    Split 0 sends the image itself: the baseline "edge only".

    Args:
        split: stages on the device before offloading; 0 sends the image.
        codec: how it is sent; JPEG is the baseline of the field for images.
    """

    stateless: ClassVar[bool] = True

    def __init__(self, *, split: Annotated[int, Ge(0)] = 0, codec: str = "jpeg") -> None:
        self.split, self.codec = split, codec
        self._plan = Plan()

    def prepare(self, setting: Setting, rng: np.random.Generator) -> None:
        """Raises InputError where this (split, codec) is not on offer."""
        self._plan = Plan(split=self.split, codec=require_pair(setting, self.split, self.codec))

    def decide(self, observation: Observation) -> Plan:
        """Always the same plan."""
        return self._plan


def require_pair(setting: Setting, split: int, codec: str) -> str:
    """The codec's canonical id; raises InputError where (split, codec) is not on offer, naming what is."""
    codec = canonical(codec)
    if split >= setting.spec.num_stages:
        raise InputError(f"split {split}: the model has splits 0..{setting.spec.num_stages - 1}")
    offered = setting.codecs.get(split, ())
    if codec not in offered:
        setting.calibration.pair(split, codec)  # says what was recorded and the command that adds it
        raise InputError(f"codec {codec!r} at split {split} is not calibrated; run `splitexit calibrate`")
    return codec
