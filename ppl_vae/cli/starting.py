"""Start the processes of a fit, and say in one line how they ended."""

from __future__ import annotations

__all__ = ["one_voice", "start"]

import logging
import os
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from ..processes import LostError, place
from .printing import INTERRUPTED, LAST_WORDS, TERMINATED, Words, fail, last_words

# Seconds that other processes leave the first to say what ended all of them: whoever started them
# ends the rest as soon as one has ended.
_GRACE = 1.0
# Seconds to wait for the other machines.
_PATIENCE = 600
# What is passed on to the processes.
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)


@contextmanager
def one_voice() -> Iterator[None]:
    """Let the first of several processes alone warn, and say what ended them.

    Those that :func:`start` started leave the latter to it.
    """
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    if place()[0] == 0:
        yield
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except (ValueError, TypeError, OSError) as error:
            if LAST_WORDS in os.environ:
                raise
            time.sleep(_GRACE)
            sys.exit(1 if isinstance(error, LostError) else 2)
        except Exception:
            raise
        except BaseException as stop:
            if LAST_WORDS in os.environ or isinstance(stop, SystemExit):
                raise
            sys.exit(INTERRUPTED if isinstance(stop, KeyboardInterrupt) else TERMINATED)


def start(devices: int, nodes: int, command: Sequence[str] | None = None) -> NoReturn:
    """Run a command in several processes, this one by default, and exit as they did.

    They are those of ``torchrun --nproc-per-node devices --nnodes nodes``: an agent watches them,
    so that none is left behind, and one line of standard error says what ended them, if something
    did. (Fabric's own launcher kills all, itself too, before it can be said why.)

    Parameters
    ----------
    devices, nodes
        How many processes on each machine, and how many machines. Of several the address is in the
        environment, ``MASTER_ADDR`` and ``MASTER_PORT``.
    command
        What to run.
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous import RendezvousError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    if command is None:
        command = [sys.executable, "-P", "-m", "ppl_vae.cli", *sys.argv[1:]]
    with tempfile.TemporaryDirectory(prefix="ppl-vae-") as folder:
        os.environ[LAST_WORDS] = folder
        logging.disable()  # what ended the processes is said below, in one line
        config = LaunchConfig(
            min_nodes=nodes,
            max_nodes=nodes,
            nproc_per_node=devices,
            run_id="ppl-vae",
            max_restarts=0,
            rdzv_backend="c10d",
            rdzv_endpoint=_meeting_point(nodes),
            rdzv_configs={"timeout": _PATIENCE},
            local_addr="127.0.0.1" if nodes == 1 else None,
            logs_specs=DefaultLogsSpecs(log_dir=folder),
        )
        before = {number: signal.getsignal(number) for number in _SIGNALS}
        died: dict[int, int] = {}
        stopped: Words | None = None
        try:
            elastic_launch(config, command[0])(*command[1:])
            sys.exit(0)
        except ChildFailedError as error:
            died = {rank: failure.exitcode for rank, failure in error.failures.items()}
        except SignalException as error:
            interrupted = error.sigval == signal.SIGINT
            stopped = (
                Words("interrupted", INTERRUPTED, own=False)
                if interrupted
                else Words("terminated", TERMINATED, own=False)
            )
        except RendezvousError as error:
            stopped = Words(f"{nodes} machines did not meet: {' '.join(str(error).split())}", 1)
        finally:
            del os.environ[LAST_WORDS]
            logging.disable(logging.NOTSET)
            for number, handler in before.items():
                signal.signal(number, handler)
        said = last_words(Path(folder))
    ending = said.get(0, stopped) if stopped else _ending(died, said, devices * nodes)
    fail(ending.message, ending.code)


def _ending(died: Mapping[int, int], said: Mapping[int, Words], world: int) -> Words:
    """What ended all processes, of what each exited by, the first first, and what some said."""
    own = [said[rank] for rank in sorted(said) if said[rank].own]
    if own:
        return own[0]
    for rank, code in died.items():
        # That processes were terminated, or lost each other, is what came of it.
        if rank not in said and code != -signal.SIGTERM:
            how = (
                f"was ended by {signal.Signals(-code).name}"
                f"{', as for want of memory' if code == -signal.SIGKILL else ''}"
                if code < 0
                else f"ended with exit code {code}, for what it said above"
            )
            return Words(
                f"rank {rank} of {world} {how}; the same command with --resume goes on from the "
                "last checkpoint, if there is one",
                1,
            )
    others = [said[rank] for rank in sorted(said)]
    return others[0] if others else Words("all processes were terminated", TERMINATED)


def _meeting_point(nodes: int) -> str:
    """Where the machines find each other: one by itself takes any free port."""
    if nodes == 1:
        return "127.0.0.1:0"
    return f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
