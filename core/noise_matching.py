"""The objective of the training: at every state that it visits, the student predicts what its teacher does.

The first state is the noisy latent x_t of a picture that the teacher drew. From there the student walks its
own sampler steps, and is matched again wherever they lead, so that it learns to go on from its own errors.
One visited state is the published loss of random conditioning. No gradient flows along the walk.

References
----------
Kim, Park, Han, Kim, Seo: "Random Conditioning for Diffusion Model Compression with Distillation", CVPR 2025.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from core.batches import Batch
from core.conditions import Conditions
from core.losses import direction_loss, feature_loss, output_loss, task_loss
from core.noise_process import NoiseProcess
from core.spec import MethodSpec
from core.taps import TappedUNet


@dataclass(frozen=True)
class NoiseMatching:
    """Matches a student to its teacher.

    Attributes
    ----------
    teacher
        What is matched, tapped at the same points as the student.
    process
        The noise process of both.
    method
        Weights and number of states.
    stride
        Timesteps of one sampler step of the student.
    precision
        What the U-Nets compute in.
    """

    teacher: TappedUNet
    process: NoiseProcess
    method: MethodSpec
    stride: int
    precision: torch.dtype

    @property
    def parts(self) -> int:
        """One for each visited state."""
        return self.method.noise_matching_steps

    @property
    def passes(self) -> int:
        """A direction is the difference of two passes."""
        return 2 if self.method.features.direction_weight else 1

    def __call__(self, student: TappedUNet, batch: Batch) -> Iterator[dict[str, torch.Tensor]]:
        """Yield the loss and its unweighted terms, state by state; each is that state's share of the sum."""
        states = self.method.noise_matching_steps
        noisy, timestep_B = batch.noisy(self.process), batch.timestep_B
        for visited in range(states):
            prediction, terms = self._match(student, noisy, timestep_B, batch)
            terms = {name: term / states for name, term in terms.items()}
            if visited == 0 and self.method.task_weight:
                truth = self.process.true_prediction(batch.latents_BCHW, batch.noise_BCHW, timestep_B)
                terms["loss_task"] = task_loss(prediction, truth, batch.matches_B)
                terms["loss"] = terms["loss"] + self.method.task_weight * terms["loss_task"]
            yield terms
            if visited < states - 1:
                # The last step of a walk is as short as what is left of it.
                next_B = (timestep_B - self.stride).clamp(min=0)
                noisy = self.process.step(noisy, prediction.detach().float(), timestep_B, next_B)
                timestep_B = next_B

    def _match(
        self, student: TappedUNet, noisy: torch.Tensor, timestep_B: torch.Tensor, batch: Batch
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the student's prediction, the weighted loss and its terms at one state."""
        weights, normalisation = self.method.features, self.method.features.normalisation
        predictions, features = self._predict(student, noisy, timestep_B, batch.conditions)
        output = output_loss(*predictions)
        terms = {"loss": self.method.output_weight * output, "loss_output": output}
        if features[0]:
            terms["loss_feature"] = feature_loss(*features, normalisation)
            terms["loss"] = terms["loss"] + weights.weight * terms["loss_feature"]
        if weights.direction_weight:
            blank = batch.blank.expand(len(noisy))
            _, blank_features = self._predict(student, noisy, timestep_B, blank)
            terms["loss_direction"] = direction_loss(*features, *blank_features, normalisation)
            terms["loss"] = terms["loss"] + weights.direction_weight * terms["loss_direction"]
        return predictions[0], terms

    def _predict(
        self, student: TappedUNet, noisy: torch.Tensor, timestep_B: torch.Tensor, conditions: Conditions
    ) -> tuple[tuple[torch.Tensor, torch.Tensor], tuple[Sequence[torch.Tensor], Sequence[torch.Tensor]]]:
        """Return the predictions of student and teacher, and the features of both."""
        with torch.autocast(noisy.device.type, self.precision, enabled=self.precision != torch.float32):
            with torch.no_grad():
                teachers, teacher_features = self.teacher(noisy, timestep_B, conditions)
            students, student_features = student(noisy, timestep_B, conditions)
        return (students, teachers), (student_features, teacher_features)
