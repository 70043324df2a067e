"""A rank that finds at once that its job cannot succeed: ``-m tests.core.failing_rank --workdir W``."""

import os
import sys

from core.exit_status import FAILED
from core.rank_ends import Failure, RankEnds

ends = RankEnds.of_this_process(os.environ)
assert ends is not None
ends.leave(int(os.environ["RANK"]), FAILED, Failure("diverged", "no more", "try less"))
sys.exit(FAILED)
