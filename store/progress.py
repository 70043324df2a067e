"""One number for how far a job is, over all its phases.

Each phase has a fixed share of the whole, roughly its share of the time of a usual job, and counts its own
units within it. The number never falls during one attempt; a new attempt starts from nought and passes the
phases that its checkpoint spares it at once.
"""

from collections.abc import Mapping

from store.models import PHASES, Phase

PHASE_SHARES: Mapping[Phase, float] = {
    "captions": 0.01,
    "latents": 0.19,
    "training": 0.65,
    "few_step": 0.0,
    "evaluation": 0.13,
    "export": 0.02,
}


FEW_STEP_SHARE = 0.25
"""Share of a few-step transfer, in jobs that ask for one; training's is smaller by as much."""


def overall_progress(phase: Phase, done: float, total: float, *, few_step: bool) -> float:
    """Fraction of the job that is behind it when ``done`` of ``total`` units of a phase are.

    Parameters
    ----------
    phase
        The phase the job is in.
    done, total
        Units of that phase; a phase without units counts as just begun.
    few_step
        Whether the job asks for a few-step transfer.

    Returns
    -------
    float
        From 0 to 1.
    """
    shares = dict(PHASE_SHARES)
    if few_step:
        shares |= {"training": shares["training"] - FEW_STEP_SHARE, "few_step": FEW_STEP_SHARE}
    before = sum(shares[earlier] for earlier in PHASES[: PHASES.index(phase)])
    within = min(max(done / total, 0.0), 1.0) if total > 0 else 0.0
    return min(before + shares[phase] * within, 1.0)
