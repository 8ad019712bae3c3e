"""Cubes spread over the workers of a Dask cluster."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from invlearn.neuro.prediction import Job

_TIMEOUT = 10  # seconds for the scheduler to answer


def over_workers(address: str, job: Job, numbers: Iterable[int]) -> Iterator[int]:
    """Compute cubes on the workers of a Dask scheduler; their numbers as they get finished.

    Each worker reads its part of the stack and writes its pieces itself: nothing large goes through the
    scheduler. A cube whose worker dies is computed by another.

    Parameters
    ----------
    address
        Such as ``tcp://host:8786``.
    job
        Names the files; all workers see them under the same paths.
    numbers
        Of the cubes.

    Raises
    ------
    ModuleNotFoundError
        Dask is not installed.
    ValueError
        No scheduler answers.
    """
    try:
        from distributed import Client, as_completed
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"a Dask cluster needs the package {error.name}: pip install 'invlearn[big]', or leave the "
            "scheduler out"
        ) from error
    try:
        client = Client(address, timeout=_TIMEOUT, set_as_default=False)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"no Dask scheduler answers at {address}: start one with 'dask scheduler', and workers with "
            "'dask worker ADDRESS'"
        ) from error
    with client, client.as_current():  # `as_completed` asks for the current one
        futures = client.map(job.compute, list(numbers), pure=False)
        try:
            for future in as_completed(futures):
                yield future.result()
                future.release()
        finally:
            client.cancel(futures)
