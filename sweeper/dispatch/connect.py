"""The Ray that trials run on: a cluster that is there already, or one of our own."""

from __future__ import annotations

import logging
import math
import os
import signal
import threading
from typing import Any

from sweeper.errors import WorkersError
from sweeper.pulse import knock
from sweeper.settings import without_password
from sweeper.slots import cores
from sweeper.study_file import Workers as WorkersSection

OBJECT_STORE_BYTES = 128 << 20
"""Of a Ray of our own: only recipes and reports travel, and by default Ray takes a third of the memory."""


def connect(section: WorkersSection, address: str | None) -> Any:
    """The module `ray`, connected to the cluster at ``address``; ``None`` starts a Ray of our own.

    Raises:
        WorkersError: it does not answer, or does not start.
    """
    # Said before the import, which reads them. `Runner` hides the GPUs itself.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # All that matches is left out: a dead worker is told in one line of ours, without Ray's pages about it.
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".|^$")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # Where Ray's services log to their terminal, as in a container, this process is none of them.
    os.environ["RAY_LOG_TO_STDERR"] = "0"
    import ray

    if address is None:
        wanted = (section.concurrent or 1) * section.cpus
        # Cores are a budget here, not a fence: more workers than cores is the user's own choice to make.
        place: dict[str, Any] = {
            "address": "local",
            "num_cpus": max(cores(), math.ceil(wanted)),
            "include_dashboard": False,
            "object_store_memory": OBJECT_STORE_BYTES,
        }
    else:
        place = {"address": address}
        # Ray itself would try for minutes, and log while it does.
        refusal = knock(address)
        if refusal is not None:
            raise WorkersError(
                f"RAY_ADDRESS={without_password(address)}: nothing answers there ({refusal}); start that Ray, or unset "
                "RAY_ADDRESS to use one of our own"
            )
    before = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(**place, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:
        cause = (str(error).strip() or type(error).__name__).splitlines()[0]
        where = (
            "a Ray of our own does not start"
            if address is None
            else f"the Ray cluster at {without_password(address)} does not let us in (where it wants a token: "
            "RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or ~/.ray/auth_token)"
        )
        raise WorkersError(f"{where}: {without_password(cause)}") from error
    except SystemExit as error:
        raise KeyboardInterrupt from error  # a SIGTERM that came while Ray had the handler
    finally:
        # Ray takes SIGTERM for itself, where it would end the study without a word.
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)
    return ray
