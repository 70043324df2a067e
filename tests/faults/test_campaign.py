"""The random campaign in small, and that its judge would see what it looks for."""

import tempfile
from pathlib import Path

import pytest
from sqlalchemy import text

from benchmarks.fault_campaign.campaign import Campaign
from benchmarks.fault_campaign.service import Service
from benchmarks.fault_campaign.verdict import judge
from store.database import create_engine
from store.objects import ObjectStore
from tests.api.conftest import write_teacher

JOBS, FAULTS = 3, 8


@pytest.mark.timeout(600)
def test_a_short_campaign_loses_doubles_and_belies_nothing() -> None:
    with tempfile.TemporaryDirectory(prefix="condenser-campaign-") as root:
        folder = Path(root)
        service = Service(folder, write_teacher(folder / "teachers"), workers=2, step_seconds=0.3)
        try:
            campaign = Campaign(service, seed=5, jobs=JOBS, faults=FAULTS, progress=lambda done: None)
            report = campaign.run()
            assert report.wrong == []
            assert report.faults.total() == FAULTS
            assert report.statuses.total() == JOBS
            assert_the_judge_is_not_blind(service)
        finally:
            service.stop()


def assert_the_judge_is_not_blind(service: Service) -> None:
    """Spoil what the campaign left, one thing after the other; each must be complained of."""
    engine, objects = create_engine(service.settings), ObjectStore(service.settings)
    with engine.begin() as connection:
        there = [str(row.id) for row in connection.execute(text("SELECT id FROM jobs"))]
        succeeded = str(
            connection.execute(text("SELECT id FROM jobs WHERE status = 'succeeded' LIMIT 1")).scalar_one()
        )
    assert judge(engine, objects, there, service.cancel_asked) == []
    assert judge(engine, objects, [*there, "nobody"], service.cancel_asked) == ["nobody is lost"]
    (doubled,) = judge(engine, objects, there[1:], service.cancel_asked)
    assert doubled.endswith("was asked for by nobody")
    spoiling = {
        "DELETE FROM job_events WHERE job_id = :job AND sequence = 2": "have a gap",
        "UPDATE jobs SET result = '{\"steps\": 5}' WHERE id = :job": "its result is",
        "UPDATE artifacts SET sha256 = 'other' WHERE job_id = :job": "not the one that was stored",
        "UPDATE jobs SET attempt = attempt + 1 WHERE id = :job": "its attempts are numbered",
        "UPDATE jobs SET status = 'cancelled', result = NULL WHERE id = :job": "was cancelled by nobody",
    }
    for statement, complaint in spoiling.items():
        with engine.begin() as connection:
            connection.execute(text(statement), {"job": succeeded})
        complaints = judge(engine, objects, there, service.cancel_asked - {succeeded})
        assert any(complaint in complained for complained in complaints), (complaint, complaints)
    engine.dispose()
