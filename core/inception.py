"""Inception-v3 with the weights that published FID and IS rest on, by the torch-fidelity library.

Library and weights are optional. They are looked for when a job starts, not hours later when it evaluates.

Axes: B pictures, C channels, H W height and width, D feature, K classes.

References
----------
Obukhov et al., "High-fidelity performance metrics for generative models in PyTorch", 2020.
"""

import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import interpolate

from core.errors import CoreError

WEIGHTS_VARIABLE = "CONDENSER_INCEPTION_WEIGHTS"
PUBLISHED_SIDE = 256
"""Larger pictures are made that small first, as the published figures' were."""

FEATURES, LOGITS = "2048", "logits_unbiased"


class Inception:
    """Inception as a function of pictures.

    Parameters
    ----------
    network
        What torch-fidelity calls a feature extractor, made for these features and logits in this order.
    """

    def __init__(self, network: Any) -> None:
        self._network = network

    @torch.no_grad()
    def __call__(self, pictures_BCHW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return features BD, D = 2048, and class probabilities BK of uint8 pictures, on the CPU."""
        device = next(self._network.parameters()).device
        features_BD, logits_BK = self._network(_as_published(pictures_BCHW).to(device))
        return features_BD.float().cpu(), logits_BK.float().softmax(dim=1).cpu()


def _as_published(pictures_BCHW: torch.Tensor) -> torch.Tensor:
    if pictures_BCHW.shape[-1] <= PUBLISHED_SIDE:
        return pictures_BCHW
    side = (PUBLISHED_SIDE, PUBLISHED_SIDE)
    # Of uint8 on the CPU this is Pillow's arithmetic.
    return interpolate(pictures_BCHW.cpu(), side, mode="bicubic", antialias=True)


def find_inception(environment: Mapping[str, str] = os.environ) -> Path:
    """Return where the weights are.

    Raises
    ------
    CoreError
        If the library is not installed, or the weights are not where the environment says.
    """
    if find_spec("torch_fidelity") is None:
        raise CoreError(
            "evaluation.features is inception, but torch-fidelity is not installed",
            'pip install "condenser[fidelity]", or judge by clip',
        )
    named = environment.get(WEIGHTS_VARIABLE, "")
    if not named or not Path(named).is_file():
        raise CoreError(
            f"evaluation.features is inception, but {WEIGHTS_VARIABLE} names no file ({named or 'not set'})",
            f"set {WEIGHTS_VARIABLE} to torch-fidelity's weights-inception-2015-12-05-6726825d.pth, "
            "or judge by clip",
        )
    return Path(named)


def load_inception(device: torch.device) -> Inception:
    """Load the network onto a device."""
    weights = find_inception()
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3  # optional

    network = FeatureExtractorInceptionV3(
        "inception-v3-compat", [FEATURES, LOGITS], feature_extractor_weights_path=str(weights)
    )
    return Inception(network.to(device).eval())
