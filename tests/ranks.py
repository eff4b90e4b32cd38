"""Start the processes of a fit, each a fork of one server that has imported all there is to."""

import multiprocessing
import os
import socket
import sys
import time
import traceback
import warnings
from multiprocessing import forkserver
from unittest import mock

import dask.array
import lightning_fabric.strategies.ddp
import pytest
import torch
import torch.fx.experimental.proxy_tensor
import xarray

import ppl_vae.cli.running
from ppl_vae import VAE, VAEConfig, fit

# What a fit imports when it comes to it is imported once, before there are processes.
_IMPORTED = dask.array, lightning_fabric.strategies.ddp, xarray, ppl_vae.cli.running
# Seconds after which processes that hang are ended: many times what they take, as two ranks and the
# tests beside them may share one core.
LIMIT = 400.0


def drawn_by_row(normal, sample_shape=()):
    """Draw noise that is a function of the row, so that every number of ranks draws the same."""
    assert tuple(sample_shape) == ()
    return normal.loc + normal.scale * (37 * normal.loc.detach()).sin()


def rows(size=53):
    return torch.rand(size, 6, generator=torch.Generator().manual_seed(3)).double()


def small(hidden=(7,)):
    """A VAE in double precision, whose parameters are the same in every process."""
    config = VAEConfig(event_shape=(6,), latent_dim=2, hidden=hidden, likelihood="normal")
    return VAE.from_config(config, seed=5).double()


def fitted(**options):
    """The weights and the history of one fit."""
    vae = small()
    given = {"epochs": 2, "batch_size": 8, "learning_rate": 0.01, "progress": False, **options}
    found = fit(vae, rows(), **given)
    history = {name: value.values.tolist() for name, value in found.history.items()}
    return {k: v.numpy().copy() for k, v in vae.state_dict().items()}, history


def fixed(**options):
    """The same with noise by row."""
    with mock.patch.object(torch.distributions.Normal, "rsample", drawn_by_row):
        return fitted(**options)


def by_torchrun(rank, world, port):
    """The environment of a process that torchrun started."""
    given = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world}
    return given | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "test"}


def by_srun(rank, world, port):
    """The environment of a task that srun started on one machine."""
    given = {"NTASKS": world, "NTASKS_PER_NODE": world, "STEP_NUM_TASKS": world, "PROCID": rank}
    given |= {"LOCALID": rank, "NODEID": 0, "NNODES": 1, "STEP_NUM_NODES": 1, "JOB_ID": 1}
    slurm = {f"SLURM_{name}": value for name, value in given.items()}
    return slurm | {"SLURM_NODELIST": "127.0.0.1", "MASTER_PORT": port}


def run(work, world, *arguments, started=by_torchrun):
    """What ``work(rank, *arguments)`` returns in each of some processes that torchrun started.

    In place of a result stands the exception's text, or None of a process that was killed.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["ranks"])
    # Before Python 3.12.4 the server looks for modules by the environment alone.
    with mock.patch.dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path)):
        forkserver.ensure_running()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ends, processes = [], []
    for rank in range(world):
        mine, theirs = context.Pipe(duplex=False)
        process = context.Process(
            target=_child,
            args=(theirs, started(rank, world, port), rank, work, arguments),
            daemon=True,
        )
        process.start()
        theirs.close()
        ends.append(mine)
        processes.append(process)
    until, results = time.monotonic() + LIMIT, []
    try:
        for rank, end in enumerate(ends):
            if not end.poll(max(0.0, until - time.monotonic())):
                pytest.fail(f"rank {rank} of {world} hangs")
            try:
                results.append(end.recv())
            except EOFError:
                results.append(None)
    finally:
        for process in processes:
            process.join(5)
            process.kill()
    return results


def _child(end, given, rank, work, arguments):
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    os.environ.update({name: str(value) for name, value in given.items()})
    try:
        result = work(rank, *arguments)
    except BaseException as error:
        result = f"{type(error).__name__}: {error}"
        if not isinstance(error, ConnectionError | ValueError):
            traceback.print_exc()
    end.send(result)
    end.close()
