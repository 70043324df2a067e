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
    "few_step": 0.0,  # takes its share from training once few-step transfer can be asked for
    "evaluation": 0.13,
    "export": 0.02,
}


def overall_progress(phase: Phase, done: float, total: float) -> float:
    """Fraction of the job that is behind it when ``done`` of ``total`` units of a phase are.

    Parameters
    ----------
    phase
        The phase the job is in.
    done, total
        Units of that phase; a phase without units counts as just begun.

    Returns
    -------
    float
        From 0 to 1.
    """
    before = sum(PHASE_SHARES[earlier] for earlier in PHASES[: PHASES.index(phase)])
    within = min(max(done / total, 0.0), 1.0) if total > 0 else 0.0
    return min(before + PHASE_SHARES[phase] * within, 1.0)
