"""What a device was measured at, which times are estimated from; free of torch."""

from typing import Literal

from pydantic import BaseModel, ConfigDict


class DeviceRate(BaseModel):
    """How fast a device was measured to be on a pair of U-Nets.

    Attributes
    ----------
    device
        Its name.
    precision
        What the U-Nets computed in.
    forward_flops
        Floating-point operations per second of forward passes alone.
    training_flops
        The same of forward and backward passes with the optimiser's step.
    process_bytes
        Memory of the host that a training took beyond what its models are counted to take: interpreter,
        libraries, and what the allocator does not give back; 0 where the accelerator's memory counts.
    """

    model_config = ConfigDict(frozen=True)

    device: str
    precision: Literal["float32", "bfloat16"]
    forward_flops: float
    training_flops: float
    process_bytes: int
