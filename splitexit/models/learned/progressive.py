"""The training of progressive slices (splitexit/codecs/progressive.py is the inference)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from splitexit.codecs import canonical
from splitexit.codecs.progressive import bounds
from splitexit.errors import UsageError
from splitexit.models.learned import Array, Batch, JointStage, LearnedNet, Stage, recovery
from splitexit.models.learned._parts import Quantiser, floor_of, start_at_principal, weights


class ProgressiveNet(LearnedNet):
    """Two 1×1 convolutions, the latent of which is cut at random.

    They start at the principal components, of which any first few are the best linear reduction to so many. In the
    training the latent of every sample is cut behind one of the slices, all as likely (nested dropout, Rippel et al.,
    ICML 2014), so that the loss is, in the mean, the average over all prefixes.
    """

    def __init__(self, features: Tensor, *, channels: int, slices: int, bits: int, send: int) -> None:
        super().__init__()
        if send:
            raise UsageError(
                f"send={send} says what is sent of a trained codec; leave it out to train for every prefix"
            )
        self.bounds = bounds(channels, slices)
        wide, self.floor = features.shape[1], floor_of(features)
        self.encoder, self.decoder = nn.Conv2d(wide, channels, 1), nn.Conv2d(channels, wide, 1)
        self.to(features.device)
        start_at_principal(self.encoder, self.decoder, features)
        with torch.no_grad():
            self.quantiser = Quantiser.of(self.encoder(features), bits, centred=True)

    def stages(self) -> Iterator[Stage]:
        """One, over all prefixes."""
        yield Stage(self.parameters(), self._loss)

    def joint_stages(self) -> Iterator[JointStage]:
        """One, over all prefixes too."""
        yield JointStage(self.parameters(), lambda features: (self._cut(features, None), features.new_zeros(())))

    def _loss(self, batch: Batch) -> Tensor:
        return recovery(batch, self._cut(batch.features, batch.generator))

    def _cut(self, features: Tensor, generator: torch.Generator | None) -> Tensor:
        """Decoded from a prefix that is drawn for every sample."""
        ends = torch.tensor(self.bounds[1:], device=features.device)
        drawn = torch.randint(len(ends), (len(features),), generator=generator, device=ends.device)
        return self._decoded(features, ends[drawn])

    def _decoded(self, features: Tensor, sent: Tensor) -> Tensor:
        """From the first `sent` channels of every sample (B,)."""
        latent = self.quantiser(self.encoder(features))
        arrives = torch.arange(latent.shape[1], device=sent.device) < sent[:, None]
        return torch.as_tensor(self.decoder(latent * arrives[:, :, None, None]).clamp_min(self.floor))

    def forward(self, features: Tensor) -> Tensor:
        """Decoded features where all slices arrive."""
        return self._decoded(features, torch.full((len(features),), self.bounds[-1], device=features.device))

    def tensors(self) -> dict[str, Array]:
        """As the codec reads them."""
        floor = np.array(self.floor, np.float32)
        return {"floor": floor, **weights(self, "encoder", "decoder"), **self.quantiser.tensors()}

    def codec_ids(self, codec_id: str) -> list[str]:
        """All prefixes, the whole first."""
        return [codec_id, *(canonical(f"{codec_id},send={number}") for number in range(1, len(self.bounds) - 1))]
