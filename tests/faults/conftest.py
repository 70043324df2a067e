"""The workplace of the worker's tests: real servers, real worker and trainer processes."""

from tests.worker.conftest import at_step as at_step
from tests.worker.conftest import doors as doors
from tests.worker.conftest import send_on as send_on
from tests.worker.conftest import start_worker as start_worker
from tests.worker.conftest import workplace as workplace
